"""Numba kernels of gradient alignment: a frame's spline read at warped pixels and projected on the template's motions.

Images are (z, y, x), one plane in 2-D. A motion moves the pixel x by ``sum_k p_k v_k(x)``, where each ``v_k`` is a
polynomial of degree two in the coordinates, so that all steepest-descent images ``grad T . v_k`` follow from the few
weighted gradients and the moments of the coordinates: one iteration reads d + 2 images, whatever the model.

Coordinates in polynomials are ``(x - middle) / radius``, of order one. Coefficient tables ``flow`` are (K, 3, 7): for
each parameter and axis the factors of ``1, z, y, x, y y, y x, x x``.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, inlined, kernel
from stackalign.core.warping.spline_lines import read_line

TERMS = 7


@kernel
def _bound(at_zero, step, low, high):
    """Return the part of [low, high] where ``at_zero + step * j >= 0``."""
    if step > 1e-300:
        return max(low, np.ceil(-at_zero / step - 1e-9)), high
    if step < -1e-300:
        return low, min(high, np.floor(-at_zero / step + 1e-9))
    return (low, high) if at_zero >= -1e-9 else (1.0, 0.0)


@kernel
def _covered(matrix, size, k, i, width, away):
    """Return the columns start, stop of row (k, i) whose source lies in a frame, ``away`` pixels from its borders."""
    low, high = 0.0, width - 1.0
    p = matrix[3]
    depth, tilt = p[0] * k + p[1] * i + p[3], p[2]
    low, high = _bound(depth - 1e-3, tilt, low, high)
    for axis in range(3):
        if high < low:
            return 0, 0
        m = matrix[axis]
        start, step = m[0] * k + m[1] * i + m[3], m[2]
        margin = away if size[axis] > 8 else 0.0
        last = size[axis] - 1.0 - margin
        low, high = _bound(start - margin * depth, step - margin * tilt, low, high)
        if high < low:
            return 0, 0
        low, high = _bound(last * depth - start, last * tilt - step, low, high)
    if high < low:
        return 0, 0
    return int(low), int(high) + 1


@kernel
def add_warped(c, matrix, size, gain, offset, total, weight):
    """Add ``gain * frame + offset``, read at warped pixels, to ``total``, and 1 to ``weight`` where the frame reaches.

    Parameters
    ----------
    c, matrix, size
        As for `products` and `covered`.
    gain, offset : float
    total, weight : float32 (z, y, x)
        Changed in place.
    """
    ny, nx = total.shape[1], total.shape[2]
    solid = size[0] > 1 or c.shape[0] > 1
    flat, stride, plane = c.reshape(c.size), np.int32(c.shape[2]), c.shape[1] * c.shape[2]
    at, f = np.empty(nx), np.empty(nx, np.float32)
    first, w = np.empty((3, nx), np.int32), np.empty((3, 4, nx), np.float32)
    a, b = np.float32(gain), np.float32(offset)
    for r in range(total.shape[0] * ny):
        k, i = r // ny, r % ny
        j0, j1 = _covered(matrix, size, k, i, nx, 0.0)
        count = j1 - j0
        if count < 1:
            continue
        read_line(flat, plane, stride, solid, matrix, k, i, j0, count, at, first, w, f)
        row, covers = total[k, i][j0:j1], weight[k, i][j0:j1]
        for j in range(count):
            row[j] += a * f[j] + b
            covers[j] += np.float32(1)


@fast_inlined
def _moments(a, f, x, count):
    """Return the sums of ``a f``, ``a f x`` and ``a f x x``."""
    s0, s1, s2 = np.float32(0), np.float32(0), np.float32(0)
    for j in range(count):
        v = a[j] * f[j]
        vx = v * x[j]
        s0 += v
        s1 += vx
        s2 += vx * x[j]
    return s0, s1, s2


@fast_inlined
def _dot(a, b, count):
    total = np.float32(0)
    for j in range(count):
        total += a[j] * b[j]
    return total


@kernel
def covered(matrix, size, shape):
    """Return the columns start, stop (z * y, 2) of each row of a template of ``shape`` that a frame covers."""
    spans = np.zeros((shape[0] * shape[1], 2), np.int64)
    for r in range(len(spans)):
        spans[r, 0], spans[r, 1] = _covered(matrix, size, r // shape[1], r % shape[1], shape[2], 1.0)
    return spans


@fast_inlined
def _descend(basis, flow, k, i, z, y, x, j0, count, out):
    """Write the steepest-descent images of one row, then the values and 1: (K + 2, count)."""
    d, parameters = basis.shape[0] - 1, flow.shape[0]
    for p in range(parameters):
        line = out[p]
        line[:count] = 0
        for g in range(d):
            t = flow[p, g + 3 - d]
            a = np.float32(t[0] + t[1] * z + t[2] * y + t[4] * y * y)
            b, e = np.float32(t[3] + t[5] * y), np.float32(t[6])
            slope = basis[g, k, i][j0 : j0 + count]
            if e != 0:
                for j in range(count):
                    line[j] += slope[j] * (a + x[j] * (b + e * x[j]))
            elif b != 0:
                for j in range(count):
                    line[j] += slope[j] * (a + x[j] * b)
            elif a != 0:
                for j in range(count):
                    line[j] += slope[j] * a
    out[parameters, :count] = basis[d, k, i][j0 : j0 + count]
    out[parameters + 1, :count] = 1


@inlined
def gram(basis, weight, lost, flow, middle, radius, spans, every, outside, out):
    """Add the weighted products of all motions, values and 1 over the spans of each row, or over all but them.

    Parameters
    ----------
    basis : float32 (d + 1, z, y, x)
        Gradients and values of the template.
    weight : float32 (z, y, x)
    lost : float32 (z, y, x)
        What the reference has more than the template's values; (1, 1, 1) if that is nothing.
    flow : float64 (K, 3, 7)
    middle, radius : float64 (3,), float
    spans : int64 (z * y, 2)
        Columns start, stop of each row.
    every : int
        1: all rows, n: the first of every n.
    outside : bool
        Whether the spans are what is left out.
    out : float64 (K + 2, K + 3)
        Upper triangle is added to, and in the last column the products with ``lost``.
    """
    ny, nx, n = basis.shape[2], basis.shape[3], flow.shape[0] + 2
    across = ((np.arange(nx) - middle[2]) / radius).astype(np.float32)
    rows, weighted = np.empty((n, nx), np.float32), np.empty(nx, np.float32)
    for r in range(0, spans.shape[0], every):
        k, i = r // ny, r % ny
        z, y = (k - middle[0]) / radius, (i - middle[1]) / radius
        for part in range(2 if outside else 1):
            j0, j1 = spans[r]
            if outside:
                j0, j1 = (0, j0) if part == 0 else (max(j1, j0), nx)
            count = j1 - j0
            if count < 1:
                continue
            _descend(basis, flow, k, i, z, y, across[j0:j1], j0, count, rows)
            w = weight[k, i][j0:j1]
            for a in range(n):
                for j in range(count):
                    weighted[j] = w[j] * rows[a, j]
                for b in range(a, n):
                    out[a, b] += _dot(weighted, rows[b], count)
                if lost.size > 1:
                    out[a, n] += _dot(weighted, lost[k, i][j0:j1], count)


@kernel
def cross_products(basis, other, weight, flow, middle, radius, every):
    """Return the products of a template's motions with those of another image, over all pixels.

    Parameters
    ----------
    basis, other : float32 (d + 1, z, y, x)
        Slopes and values of the template, and of the other image.
    weight, flow, middle, radius
        As for `gram`.
    every : int
        1: all rows, n: the first of every n, which stand for all.

    Returns
    -------
    both : float64 (K, K)
    own : float64 (d,)
        Products of the template's slopes along each axis with themselves.
    """
    d, nz, ny, nx = basis.shape[0] - 1, basis.shape[1], basis.shape[2], basis.shape[3]
    free = flow.shape[0]
    across = ((np.arange(nx) - middle[2]) / radius).astype(np.float32)
    rows, others = np.empty((free + 2, nx), np.float32), np.empty((free + 2, nx), np.float32)
    both, own, weighted, looked_at = np.zeros((free, free)), np.zeros(d), np.empty(nx, np.float32), 0
    for r in range(0, nz * ny, every):
        k, i = r // ny, r % ny
        looked_at += 1
        w = weight[k, i]
        for g in range(d):
            slope = basis[g, k, i]
            for j in range(nx):
                weighted[j] = w[j] * slope[j]
            own[g] += _dot(weighted, slope, nx)
        z, y = (k - middle[0]) / radius, (i - middle[1]) / radius
        _descend(basis, flow, k, i, z, y, across, 0, nx, rows)
        _descend(other, flow, k, i, z, y, across, 0, nx, others)
        for a in range(free):
            for j in range(nx):
                weighted[j] = w[j] * rows[a, j]
            for b in range(free):
                both[a, b] += _dot(weighted, others[b], nx)
    share = nz * ny / max(looked_at, 1)
    return both * share, own * share


@fast_inlined
def _nearest_seen(seen, matrix, k, i, j0, count, out):
    """Write 1 where the frame's nearest pixel counts."""
    m, p = matrix, matrix[3]
    for j in range(count):
        col = j0 + j
        depth = p[0] * k + p[1] * i + p[2] * col + p[3]
        z = (m[0, 0] * k + m[0, 1] * i + m[0, 2] * col + m[0, 3]) / depth
        y = (m[1, 0] * k + m[1, 1] * i + m[1, 2] * col + m[1, 3]) / depth
        x = (m[2, 0] * k + m[2, 1] * i + m[2, 2] * col + m[2, 3]) / depth
        out[j] = seen[int(z + 0.5), int(y + 0.5), int(x + 0.5)]


@fast_inlined
def _robust(f, value, w, gain, offset, scale, kind, cut, count):
    """Multiply weights by those of Huber (kind 1) or Tukey (kind 2) for the standardised residual."""
    inverse = np.float32(1.0 / scale)
    limit = np.float32(cut)
    for j in range(count):
        e = abs(f[j] - gain * value[j] - offset) * np.sqrt(w[j]) * inverse
        if kind == 1:
            w[j] *= min(np.float32(1), limit / max(e, np.float32(1e-6)))
        else:
            u = e / limit
            inner = max(np.float32(1) - u * u, np.float32(0))
            w[j] *= inner * inner


@inlined
def products(
    c, seen, matrix, spans, every, basis, phi, lost, flow, middle, radius, whole, brightness, kind, cut
):  # fmt: skip
    """Return the products of a warped frame with a template: its projections, or its normal equations.

    Both in one place, as the code that reads a line is most of what there is to compile.

    Parameters
    ----------
    c : float32 (Z, Y, X)
        Spline coefficients of the frame, padded.
    seen : float32 (Z, Y, X)
        1 where the frame and its neighbours are known, else 0; (1, 1, 1) if all are.
    matrix : float64 (4, 4)
        Template -> frame, over (z, y, x, 1).
    spans : int64 (z * y, 2)
        Columns of each row that count, see `covered`; a fraction of a pixel beyond the frame does no harm.
    every : int
        1: all rows, n: the first of every n.
    phi : float32 (d + 2, z, y, x)
        Gradients (in the order of the axes), values, and 1, each times the weight.
    basis, lost, flow, middle, radius
        As for `gram`.
    whole : bool
        Whether the frame is only projected: it has no holes, and weights are those of the template.
    brightness : (gain, offset, scale)
        The scale is that of residuals over their expected deviation.
    kind : int
        0: least squares, 1: Huber, 2: Tukey.
    cut : float
        Where robust weights begin (Huber) or end (Tukey), in standard deviations.

    Returns
    -------
    moments : float64 (3, 7)
        Projections on the gradients, per axis, see `TERMS`; zero along an axis of one pixel in 2-D.
    values : float64 (2,)
        Projections on the values and on the weight.
    normal : float64 (K + 2, K + 2)
        Upper triangle; zero if ``whole``, as are all that follow.
    right, more : float64 (K + 2,)
        Products with the frame, and with ``lost``.
    counted : float64 (2,)
        Sums of the weights as given over what is seen, and as used.
    """
    d, ny, nx = phi.shape[0] - 2, phi.shape[2], phi.shape[3]
    n, solid = flow.shape[0] + 2, d == 3
    flat, stride, plane = c.reshape(c.size), np.int32(c.shape[2]), c.shape[1] * c.shape[2]
    at, f = np.empty(nx), np.empty(nx, np.float32)
    first, w = np.empty((3, nx), np.int32), np.empty((3, 4, nx), np.float32)
    across = ((np.arange(nx) - middle[2]) / radius).astype(np.float32)
    moments, values = np.zeros((3, TERMS)), np.zeros(2)
    rows, weighted = np.empty((n, nx), np.float32), np.empty(nx, np.float32)
    used, mask = np.empty(nx, np.float32), np.empty(nx, np.float32)
    normal, right, more, counted = np.zeros((n, n)), np.zeros(n), np.zeros(n), np.zeros(2)
    gain, offset = np.float32(brightness[0]), np.float32(brightness[1])
    for r in range(0, spans.shape[0], every):
        k, i = r // ny, r % ny
        j0, j1 = spans[r]
        count = j1 - j0
        if count < 1:
            continue
        read_line(flat, plane, stride, solid, matrix, k, i, j0, count, at, first, w, f)
        z, y = (k - middle[0]) / radius, (i - middle[1]) / radius
        x = across[j0:j1]
        if whole:
            for g in range(d):
                s0, s1, s2 = _moments(phi[g, k, i][j0:j1], f, x, count)
                m = moments[g + 3 - d]
                m[0] += s0
                m[1] += z * s0
                m[2] += y * s0
                m[3] += s1
                m[4] += y * y * s0
                m[5] += y * s1
                m[6] += s2
            values[0] += _dot(phi[d, k, i][j0:j1], f, count)
            values[1] += _dot(phi[d + 1, k, i][j0:j1], f, count)
            continue
        used[:count] = phi[d + 1, k, i][j0:j1]
        if seen.size > 1:
            _nearest_seen(seen, matrix, k, i, j0, count, mask)
            used[:count] *= mask[:count]
        _descend(basis, flow, k, i, z, y, x, j0, count, rows)
        counted[0] += used[:count].sum()
        if kind:
            _robust(f, basis[d, k, i][j0:j1], used, gain, offset, brightness[2], kind, cut, count)
        counted[1] += used[:count].sum()
        for a in range(n):
            for j in range(count):
                weighted[j] = used[j] * rows[a, j]
            for b in range(a, n):
                normal[a, b] += _dot(weighted, rows[b], count)
            right[a] += _dot(weighted, f, count)
            if lost.size > 1:
                more[a] += _dot(weighted, lost[k, i][j0:j1], count)
    return moments, values, normal, right, more, counted
