"""Numba kernels of joint alignment: one warped frame against its own low-rank image, and the update of the basis.

Images are (z, y, x), one plane in 2-D. A frame has the low-rank image ``sum_j c_j W_j``; motions near the identity move
the pixel x by ``sum_m p_m v_m(x)`` with velocities from `stackalign.core.generators`.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, kernel
from stackalign.core.warping.spline_lines import read_line


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
def _robust(r, around, known, clip, tail, count, w):
    """Write weights; returns the loss of the row and its pixels. ``known`` is the relative precision."""
    loss, n, half = np.float32(0), np.float32(0), np.float32(0.5)
    for x in range(count):
        k = known[x]
        a = abs(r[x]) * np.sqrt(k)
        # influence: rises up to the clip, stays, and from the tail on, there or nearby, falls as 1 / a^2
        near = tail / max(a, around[x], tail)
        w[x] = k * (np.float32(1) if a <= clip else clip / a) * near * near
        far = tail / max(a, tail)
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
def residuals(c, matrix, spans, basis, coefficients, f, r):
    """Read a frame on the grid of the reference, and take its low-rank image off.

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
    coefficients : float64 (k,)
        What the frame takes of them.
    f, r : float32 (z, y, x)
        Written: the frame, and what it differs by from its low-rank image; 0 outside the spans.
    """
    ny, nx = r.shape[1], r.shape[2]
    solid = r.shape[0] > 1
    flat, stride, plane = c.reshape(c.size), np.int32(c.shape[2]), c.shape[1] * c.shape[2]
    at = np.empty(nx)
    first, taps = np.empty((3, nx), np.int32), np.empty((3, 4, nx), np.float32)
    for row in range(spans.shape[0]):
        start, stop = spans[row]
        count = stop - start
        z, y = row // ny, row % ny
        line, rest = f[z, y], r[z, y]
        line[:] = np.float32(0)
        rest[:] = np.float32(0)
        if count < 1:
            continue
        read_line(flat, plane, stride, solid, matrix, z, y, start, count, at, first, taps, line[start:stop])
        _mix(basis, row, coefficients, start, count, ny, rest[start:stop])
        for x in range(start, stop):
            rest[x] = line[x] - rest[x]


@kernel
def largest_nearby(r, known, reach, out, room):
    """Write to ``out`` the largest ``|r|`` times the root of the precision within a box of ``reach`` pixels."""
    nz, ny, nx = r.shape
    a = np.zeros(nx + 2 * reach, np.float32)
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                a[reach + x] = abs(r[z, y, x]) * np.sqrt(known[z, y, x])
            line = room[z, y]
            line[:] = a[:nx]
            for j in range(1, 2 * reach + 1):
                for x in range(nx):
                    line[x] = max(line[x], a[x + j])
    # along y into the other image; in volumes back, then along z
    for z in range(nz):
        for y in range(ny):
            line = out[z, y]
            line[:] = room[z, y]
            for i in range(max(y - reach, 0), min(y + reach + 1, ny)):
                other = room[z, i]
                for x in range(nx):
                    line[x] = max(line[x], other[x])
    if nz > 1:
        room[...] = out
        for z in range(nz):
            for k in range(max(z - reach, 0), min(z + reach + 1, nz)):
                for y in range(ny):
                    line, other = out[z, y], room[k, y]
                    for x in range(nx):
                        line[x] = max(line[x], other[x])


@kernel
def frame_equations(r, around, spans, basis, slopes, known, coefficients, flows, clip, tail):
    """Linearise one frame against its low-rank image.

    Parameters
    ----------
    r, around : float32 (z, y, x)
        See `residuals` and `largest_nearby`.
    spans, basis, coefficients
        See `residuals`.
    slopes : float32 (k, d, z, y, x)
        Gradients of the basis.
    known : float32 (z, y, x)
        Precision of each pixel of the reference, relative to the usual one; 0 where it does not count.
    flows : float64 (m, 4, 4)
        Generators of the motion, over (z, y, x, 1).
    clip : float
        Residual, times the root of its precision, up to which the loss is squared, and from which it is linear.
    tail : float
        The same from which the loss levels off: what is sparse then has no say at all, nor has what lies around it.

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
    w, g, columns = np.empty(nx, np.float32), np.empty(nx, np.float32), np.empty((size, nx), np.float32)
    for row in range(spans.shape[0]):
        start, stop = spans[row]
        count = stop - start
        if count < 1:
            continue
        z, y = row // ny, row % ny
        rest, near = r[z, y][start:stop], around[z, y][start:stop]
        part, n = _robust(rest, near, known[z, y][start:stop], np.float32(clip), np.float32(tail), count, w)
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
            right[p] += _weighted_dot(columns[p], rest, w, count)
            for q in range(p, size):
                normal[p, q] += _weighted_dot(columns[p], columns[q], w, count)
    for p in range(size):
        for q in range(p):
            normal[p, q] = normal[q, p]
    return normal, right, loss, pixels


@kernel
def add_frame(f, r, around, spans, known, coefficients, clip, tail, products, sums, counts):
    """Add one frame to the weighted normal equations of every pixel of the basis.

    ``products`` (k (k + 1) / 2, z, y, x) and ``sums`` (k, z, y, x), float32, are added to: with the robust weight w of
    a pixel, ``w c_i c_j`` and ``w c_i f``; ``counts`` (z, y, x): 1 where the frame shows the pixel, lit or not.
    """
    k, ny, nx = len(coefficients), r.shape[1], r.shape[2]
    w = np.empty(nx, np.float32)
    for row in range(spans.shape[0]):
        start, stop = spans[row]
        count = stop - start
        if count < 1:
            continue
        z, y = row // ny, row % ny
        shown, rest, near = f[z, y][start:stop], r[z, y][start:stop], around[z, y][start:stop]
        seen, counted = known[z, y][start:stop], counts[z, y][start:stop]
        _robust(rest, near, seen, np.float32(clip), np.float32(tail), count, w)
        for x in range(count):
            counted[x] += np.float32(1) if seen[x] > 0 else np.float32(0)
        p = 0
        for i in range(k):
            ci = np.float32(coefficients[i])
            total = sums[i, z, y][start:stop]
            for x in range(count):
                total[x] += w[x] * ci * shown[x]
            for j in range(i + 1):
                cij = np.float32(coefficients[j]) * ci
                product = products[p, z, y][start:stop]
                for x in range(count):
                    product[x] += w[x] * cij
                p += 1
