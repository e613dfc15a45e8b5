"""Numba kernels of joint alignment: one warped frame against its own low-rank image, and the update of the basis.

Images are (z, y, x), one plane in 2-D. A frame has the low-rank image ``sum_j c_j W_j``; motions near the identity move
the pixel x by ``sum_m p_m v_m(x)`` with velocities from `stackalign.core.generators`.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, kernel
from stackalign.core.spline_lines import read_line


@fast_inlined
def _mix(images, r, coefficients, start, count, ny, out):
    """Write the combination of row ``r`` of several images."""
    z, y = r // ny, r % ny
    for x in range(count):
        out[x] = np.float32(0)
    for j in range(len(coefficients)):
        w = np.float32(coefficients[j])
        row = images[j, z, y][start : start + count]
        for x in range(count):
            out[x] += w * row[x]


@fast_inlined
def _robust(f, model, known, clip, tail, count, r, w):
    """Write residuals and weights; returns the loss of the row and its pixels. ``known`` is the relative precision."""
    loss, n, half = np.float32(0), np.float32(0), np.float32(0.5)
    for x in range(count):
        e = f[x] - model[x]
        k = known[x]
        a = abs(e) * np.sqrt(k)
        r[x] = e
        # influence: rises up to the clip, stays, and from the tail on falls as 1 / a^2
        far = tail / max(a, tail)
        w[x] = k * (np.float32(1) if a <= clip else clip / a * far * far)
        loss += half * a * a / clip if a <= clip else min(a, tail) - half * clip + tail * (np.float32(1) - far)
        n += np.float32(1) if k > 0 else np.float32(0)
    return loss, n


@fast_inlined
def _steepest(g, flow, k, i, start, count, axis0, out):
    """Add ``g . v`` along one axis, where ``flow`` (4, 4) is the generator of the velocity v."""
    a = np.float32(flow[axis0, 0] * k + flow[axis0, 1] * i + flow[axis0, 3] + flow[axis0, 2] * start)
    b = np.float32(flow[axis0, 2])
    tilt0 = np.float32(flow[3, 0] * k + flow[3, 1] * i + flow[3, 3] + flow[3, 2] * start)
    tilt = np.float32(flow[3, 2])
    if tilt0 == 0.0 and tilt == 0.0:
        for x in range(count):
            out[x] += g[x] * (a + b * x)
    else:
        at0 = np.float32(k if axis0 == 0 else i if axis0 == 1 else start)
        at = np.float32(1.0 if axis0 == 2 else 0.0)
        for x in range(count):
            out[x] += g[x] * (a + b * x - (at0 + at * x) * (tilt0 + tilt * x))


@fast_inlined
def _weighted_dot(a, b, w, count):
    total = np.float32(0)
    for x in range(count):
        total += a[x] * b[x] * w[x]
    return total


@kernel
def frame_equations(c, matrix, spans, basis, slopes, known, coefficients, flows, clip, tail):
    """Linearise one frame against its low-rank image.

    Parameters
    ----------
    c : float32 (Z, Y, X)
        Padded spline coefficients of the frame.
    matrix : float64 (4, 4)
        Reference -> frame.
    spans : int64 (z * y, 2)
        Columns of each row of the reference that the frame covers.
    basis : float32 (k, z, y, x)
        Images of the basis.
    slopes : float32 (k, d, z, y, x)
        Their gradients.
    known : float32 (z, y, x)
        Precision of each pixel of the reference, relative to the usual one; 0 where it does not count.
    coefficients : float64 (k,)
        What the frame takes of the basis.
    flows : float64 (m, 4, 4)
        Generators of the motion, over (z, y, x, 1).
    clip : float
        Residual, times the root of its precision, up to which the loss is squared, and from which it is linear.
    tail : float
        The same from which the loss levels off: what is sparse then has no say at all.

    Returns
    -------
    normal : float64 (m + k, m + k)
    right : float64 (m + k,)
    loss, pixels : float
        The loss, in intensity units, and what it was summed over.
    """
    k, d, ny, nx = basis.shape[0], slopes.shape[1], basis.shape[2], basis.shape[3]
    m = len(flows)
    size = m + k
    normal, right = np.zeros((size, size)), np.zeros(size)
    loss = pixels = 0.0
    solid = d == 3
    flat, stride, plane = c.reshape(c.size), np.int32(c.shape[2]), c.shape[1] * c.shape[2]
    at, f = np.empty(nx), np.empty(nx, np.float32)
    first, taps = np.empty((3, nx), np.int32), np.empty((3, 4, nx), np.float32)
    model, r, w = np.empty(nx, np.float32), np.empty(nx, np.float32), np.empty(nx, np.float32)
    g, columns = np.empty(nx, np.float32), np.empty((size, nx), np.float32)
    limit = np.float32(clip)
    for row in range(spans.shape[0]):
        start, stop = spans[row]
        count = stop - start
        if count < 1:
            continue
        z, y = row // ny, row % ny
        read_line(flat, plane, stride, solid, matrix, z, y, start, count, at, first, taps, f)
        _mix(basis, row, coefficients, start, count, ny, model)
        part, n = _robust(f, model, known[z, y][start:stop], limit, np.float32(tail), count, r, w)
        loss += part
        pixels += n
        for p in range(m):
            columns[p, :count] = 0.0
        for axis in range(d):
            _mix(slopes[:, axis], row, coefficients, start, count, ny, g)
            for p in range(m):
                _steepest(g, flows[p], z, y, start, count, axis + 3 - d, columns[p])
        for j in range(k):
            columns[m + j, :count] = basis[j, z, y, start:stop]
        for p in range(size):
            right[p] += _weighted_dot(columns[p], r, w, count)
            for q in range(p, size):
                normal[p, q] += _weighted_dot(columns[p], columns[q], w, count)
    for p in range(size):
        for q in range(p):
            normal[p, q] = normal[q, p]
    return normal, right, loss, pixels


@kernel
def add_frame(c, matrix, spans, basis, known, coefficients, clip, tail, products, sums, counts):
    """Add one frame to the weighted normal equations of every pixel of the basis.

    ``products`` (k (k + 1) / 2, z, y, x) and ``sums`` (k, z, y, x), float32, are added to: with the robust weight w of
    a pixel, ``w c_i c_j`` and ``w c_i f``; ``counts`` (z, y, x): 1 where the frame shows the pixel, lit or not.
    """
    k, ny, nx = basis.shape[0], basis.shape[2], basis.shape[3]
    solid = basis.shape[1] > 1
    flat, stride, plane = c.reshape(c.size), np.int32(c.shape[2]), c.shape[1] * c.shape[2]
    at, f = np.empty(nx), np.empty(nx, np.float32)
    first, taps = np.empty((3, nx), np.int32), np.empty((3, 4, nx), np.float32)
    model, r, w = np.empty(nx, np.float32), np.empty(nx, np.float32), np.empty(nx, np.float32)
    limit = np.float32(clip)
    for row in range(spans.shape[0]):
        start, stop = spans[row]
        count = stop - start
        if count < 1:
            continue
        z, y = row // ny, row % ny
        read_line(flat, plane, stride, solid, matrix, z, y, start, count, at, first, taps, f)
        _mix(basis, row, coefficients, start, count, ny, model)
        _robust(f, model, known[z, y][start:stop], limit, np.float32(tail), count, r, w)
        seen, counted = known[z, y][start:stop], counts[z, y][start:stop]
        for x in range(count):
            counted[x] += np.float32(1) if seen[x] > 0 else np.float32(0)
        p = 0
        for i in range(k):
            ci = np.float32(coefficients[i])
            total = sums[i, z, y][start:stop]
            for x in range(count):
                total[x] += w[x] * ci * f[x]
            for j in range(i + 1):
                cij = np.float32(coefficients[j]) * ci
                product = products[p, z, y][start:stop]
                for x in range(count):
                    product[x] += w[x] * cij
                p += 1


@kernel
def sampled(c, matrix, spans, basis, known, coefficients, step):
    """Return intensities of the low-rank image, residuals and precisions of every ``step``-th row, (3, N) float32."""
    ny, nx = basis.shape[2], basis.shape[3]
    solid = basis.shape[1] > 1
    flat, stride, plane = c.reshape(c.size), np.int32(c.shape[2]), c.shape[1] * c.shape[2]
    at, f, model = np.empty(nx), np.empty(nx, np.float32), np.empty(nx, np.float32)
    first, taps = np.empty((3, nx), np.int32), np.empty((3, 4, nx), np.float32)
    out = np.empty((3, ((spans.shape[0] + step - 1) // step) * nx), np.float32)
    n = 0
    for row in range(0, spans.shape[0], step):
        start, stop = spans[row]
        count = stop - start
        if count < 1:
            continue
        z, y = row // ny, row % ny
        read_line(flat, plane, stride, solid, matrix, z, y, start, count, at, first, taps, f)
        _mix(basis, row, coefficients, start, count, ny, model)
        for x in range(count):
            if known[z, y, start + x] > 0:
                out[0, n] = model[x]
                out[1, n] = f[x] - model[x]
                out[2, n] = known[z, y, start + x]
                n += 1
    return out[:, :n]
