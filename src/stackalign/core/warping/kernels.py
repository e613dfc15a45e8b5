"""Numba kernels of resampling: B-spline coefficients, and their values at source coordinates in float64.

Images are (z, y, x), one plane in 2-D. Coefficients carry ``PAD`` mirrored pixels on every side of y and x (and of z in
volumes), so that no tap ever needs a bounds check.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, fast_kernel, inlined, kernel

PAD = 3
# poles of the recursive prefilter (Unser, Aldroubi & Eden, IEEE Trans. Signal Processing 41, 1993, table I)
POLES = {
    1: np.zeros(0),
    3: np.array([np.sqrt(3.0) - 2.0]),
    5: np.array(
        [
            np.sqrt(67.5 - np.sqrt(4436.25)) + np.sqrt(26.25) - 6.5,
            np.sqrt(67.5 + np.sqrt(4436.25)) - np.sqrt(26.25) - 6.5,
        ]
    ),
}


@inlined
def _causal(row, before, scale, pole):
    for k in range(row.shape[0]):
        row[k] = scale * row[k] + pole * before[k]


@inlined
def _last(row, before, pole, end):
    for k in range(row.shape[0]):
        row[k] = end * (row[k] + pole * before[k])


@inlined
def _anticausal(row, after, pole):
    for k in range(row.shape[0]):
        row[k] = pole * (after[k] - row[k])


@inlined
def _add(total, row, weight):
    for k in range(total.shape[0]):
        total[k] += weight * row[k]


@inlined
def _filtered(a, poles):
    """Turn samples into B-spline coefficients along axis 0 of (n, m), mirror boundaries, in place."""
    n, m = a.shape
    if n < 2:
        return
    gain = 1.0
    for z in poles:
        gain *= (1.0 - z) * (1.0 - 1.0 / z)
    scale = a.dtype.type(gain)
    first = np.empty(m, a.dtype)
    for z in poles:
        pole = a.dtype.type(z)
        # causal start: the mirrored signal, summed until the pole's power is below float64's rounding
        reach = int(np.ceil(-37.0 / np.log(abs(z))))
        period = 2 * n - 2
        for k in range(m):
            first[k] = a[0, k]
        power = z
        for i in range(1, min(reach, 4 * period)):
            j = i % period
            _add(first, a[j if j < n else period - j], a.dtype.type(power))
            power *= z
        for k in range(m):
            a[0, k] = scale * first[k]
        for i in range(1, n):
            _causal(a[i], a[i - 1], scale, pole)
        _last(a[n - 1], a[n - 2], pole, a.dtype.type(z / (z * z - 1.0)))
        for i in range(n - 2, -1, -1):
            _anticausal(a[i], a[i + 1], pole)
        scale = a.dtype.type(1)  # of the first pole alone


@kernel
def filter_columns(a, start, stop, poles):
    """Filter columns ``start`` to ``stop`` of (n, m) along axis 0, in place."""
    width = 128  # what stays in the second-level cache for some hundred rows
    for k in range(start, stop, width):
        _filtered(a[:, k : min(k + width, stop)], poles)


@kernel
def filter_rows(a, start, stop, poles):
    """Filter rows ``start`` to ``stop`` of (m, n) along axis 1, in place: 16 rows side by side, as vectors."""
    n, wide = a.shape[1], min(16, stop - start)
    lanes = np.zeros((n, wide), a.dtype)
    for r in range(start, stop, wide):
        count = min(wide, stop - r)
        for k in range(count):
            row = a[r + k]
            for i in range(n):
                lanes[i, k] = row[i]
        _filtered(lanes, poles)
        for k in range(count):
            row = a[r + k]
            for i in range(n):
                row[i] = lanes[i, k]


@kernel
def mirrored(index, n):
    """Return the index of the pixel that stands for one beyond the border of ``n`` pixels."""
    index = abs(index) % max(2 * n - 2, 1)
    return index if index < n else 2 * n - 2 - index


@kernel
def plane_coefficients(image, poles, pad, out):
    """Fill ``out`` with the B-spline coefficients of a plane, and ``pad`` mirrored pixels around them, in one call.

    Parameters
    ----------
    image : float (y, x)
    poles : float64 (K,)
    pad : int
    out : float (y + 2 pad, x + 2 pad)
    """
    ny, nx = image.shape
    inner = out[pad : pad + ny, pad : pad + nx]
    for y in range(ny):
        for x in range(nx):
            inner[y, x] = image[y, x]
    filter_rows(inner, 0, ny, poles)
    filter_columns(inner, 0, nx, poles)
    for y in range(pad, pad + ny):
        for k in range(1, pad + 1):
            out[y, pad - k] = out[y, pad + mirrored(-k, nx)]
            out[y, pad + nx - 1 + k] = out[y, pad + mirrored(nx - 1 + k, nx)]
    for k in range(1, pad + 1):
        before, after = out[pad + mirrored(-k, ny)], out[pad + mirrored(ny - 1 + k, ny)]
        for x in range(out.shape[1]):
            out[pad - k, x], out[pad + ny - 1 + k, x] = before[x], after[x]


@fast_kernel
def shift_rows(c, origin, weights, taps, box, out, start, stop):
    """Resample by a translation: the weights of all pixels are the same, so lines are combined first.

    Parameters
    ----------
    c : float (Z, Y, X)
        Padded coefficients.
    origin : int64 (3,)
        Index in ``c`` of the first tap of the box's first pixel.
    weights : float (3, 6)
        Per axis, for each tap.
    taps : int64 (3,)
        Number of taps per axis (1 along an axis of one pixel).
    box : int64 (2, 3)
        Start and size of the part of ``out`` that is filled: its rows ``start`` to ``stop``, counted over (z, y).
    out : float (z, y, x)
    """
    ny, nx, x0 = box[1, 1], box[1, 2], box[0, 2]
    width = nx + taps[2] - 1
    line = np.empty(width, c.dtype)
    for r in range(start, stop):
        z, y = r // ny, r % ny
        line[:] = 0
        for i in range(taps[0]):
            for j in range(taps[1]):
                w = weights[0, i] * weights[1, j]
                source = c[origin[0] + z + i, origin[1] + y + j][origin[2] : origin[2] + width]
                for x in range(width):
                    line[x] += w * source[x]
        row = out[box[0, 0] + z, box[0, 1] + y][x0 : x0 + nx]
        if taps[2] == 4:
            w0, w1, w2, w3 = weights[2, 0], weights[2, 1], weights[2, 2], weights[2, 3]
            for x in range(nx):
                row[x] = w0 * line[x] + w1 * line[x + 1] + w2 * line[x + 2] + w3 * line[x + 3]
        else:
            for x in range(nx):
                total = c.dtype.type(0)
                for k in range(taps[2]):
                    total += weights[2, k] * line[x + k]
                row[x] = total


def spline_taps(order: int, fraction: float) -> np.ndarray:
    """Return the weights of all taps of the B-spline of odd ``order`` at one point, (6,)."""
    first, weights = np.empty(1, np.int32), np.zeros((6, 1))
    _WEIGHTS[order](np.array([fraction]), first, weights)
    return weights[:, 0]


# Source coordinates, weights and taps of a row are worked out one after the other: each loop becomes vectors, which a
# single loop with its unpredictable loads does not.


@fast_inlined
def _row_sources(matrix, k, i, axis, out):
    """Write coordinate ``axis`` of the sources of output row (k, i); NaN beyond the horizon of a projective map."""
    m = matrix[axis]
    start, step = m[0] * k + m[1] * i + m[3], m[2]
    for j in range(out.shape[0]):
        out[j] = start + step * j
    p = matrix[3]
    if p[0] != 0.0 or p[1] != 0.0 or p[2] != 0.0:
        depth = p[0] * k + p[1] * i + p[3]
        for j in range(out.shape[0]):
            d = depth + p[2] * j
            out[j] = out[j] / d if d > 0.0 else -1e30


@fast_inlined
def _row_inside(at, size, inside):
    """Clear ``inside`` where a coordinate lies outside [0, size - 1], and clamp the coordinate."""
    last = size - 1.0
    for j in range(at.shape[0]):
        v = at[j]
        inside[j] &= np.uint8(v >= -1e-6) & np.uint8(v <= last + 1e-6)
        at[j] = min(max(v, 0.0), last)


def _row_weights(order):
    """Return the kernel that splits coordinates into first taps and weights of all taps."""

    @fast_inlined
    def weights(at, first, w):
        one = w.dtype.type(1)
        sixth, two_thirds, half = w.dtype.type(1 / 6), w.dtype.type(2 / 3), w.dtype.type(0.5)
        before = np.int32((order - 1) // 2 - PAD)
        for j in range(at.shape[0]):
            whole = np.int32(at[j])
            f = w.dtype.type(at[j] - whole)
            first[j] = whole - before
            g = one - f
            if order == 1:
                w[0, j], w[1, j] = g, f
            elif order == 3:
                f2, g2 = f * f, g * g
                w[0, j] = sixth * g2 * g
                w[1, j] = two_thirds - f2 * (one - half * f)
                w[2, j] = two_thirds - g2 * (one - half * g)
                w[3, j] = sixth * f2 * f
            else:
                f2, g2 = f * f, g * g
                a, b = f2 * f2 * f, g2 * g2 * g
                c, d = one + f, one + g
                c2, d2 = c * c, d * d
                c5, d5 = c2 * c2 * c, d2 * d2 * d
                e, h = one + c, one + d
                e2, h2 = e * e, h * h
                scale, six, fifteen = w.dtype.type(1 / 120), w.dtype.type(6), w.dtype.type(15)
                w[0, j] = scale * b
                w[1, j] = scale * (d5 - six * b)
                w[2, j] = scale * (h2 * h2 * h - six * d5 + fifteen * b)
                w[3, j] = scale * (e2 * e2 * e - six * c5 + fifteen * a)
                w[4, j] = scale * (c5 - six * a)
                w[5, j] = scale * a

    return weights


def _row_taps_2d(taps):
    @fast_inlined
    def combine(c, stride, iy, ix, wy, wx, inside, fill, out):
        for j in range(out.shape[0]):
            start = np.uint32(iy[j] * stride + ix[j])
            total = c.dtype.type(0)
            for b in range(taps):
                column = c.dtype.type(0)
                for a in range(taps):
                    column += wy[a, j] * c[start + np.uint32(a * stride + b)]
                total += wx[b, j] * column
            out[j] = total if inside[j] else fill

    return combine


def _row_taps_3d(taps):
    @fast_inlined
    def combine(c, plane, stride, iz, iy, ix, wz, wy, wx, inside, fill, out):
        for j in range(out.shape[0]):
            start = np.uint64(iz[j]) * np.uint64(plane) + np.uint64(iy[j] * stride + ix[j])
            total = c.dtype.type(0)
            if inside[j]:
                for a in range(taps):
                    layer = c.dtype.type(0)
                    for b in range(taps):
                        at = start + np.uint64(a) * np.uint64(plane) + np.uint64(b * stride)
                        line = c.dtype.type(0)
                        for e in range(taps):
                            line += wx[e, j] * c[at + np.uint64(e)]
                        layer += wy[b, j] * line
                    total += wz[a, j] * layer
            out[j] = total if inside[j] else fill

    return combine


_WEIGHTS = {order: _row_weights(order) for order in (1, 3, 5)}
# Kernels that call these find them as globals. In a closure they would be part of the key of numba's cache, where they
# look new to each process: every start of the program would compile once more, and keep one more file.
_weights_1, _weights_3, _weights_5 = (_WEIGHTS[order] for order in (1, 3, 5))
_plane_1, _plane_3, _plane_5 = (_row_taps_2d(order + 1) for order in (1, 3, 5))
_volume_1, _volume_3, _volume_5 = (_row_taps_3d(order + 1) for order in (1, 3, 5))


def _gather_2d(order):
    taps = order + 1

    @kernel
    def gather(c, matrix, shape, edge, fill, out, start, stop):
        n = out.shape[2]
        flat, stride = c.reshape(c.size), np.int32(c.shape[2])
        y, x = np.empty(n), np.empty(n)
        iy, ix, inside = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.uint8)
        wy, wx = np.empty((taps, n), c.dtype), np.empty((taps, n), c.dtype)
        for i in range(start, stop):
            _row_sources(matrix, 0, i, 1, y)
            _row_sources(matrix, 0, i, 2, x)
            inside[:] = 1
            _row_inside(y, shape[1], inside)
            _row_inside(x, shape[2], inside)
            if edge:
                inside[:] = 1
            if order == 1:
                _weights_1(y, iy, wy)
                _weights_1(x, ix, wx)
                _plane_1(flat, stride, iy, ix, wy, wx, inside, fill, out[0, i])
            elif order == 3:
                _weights_3(y, iy, wy)
                _weights_3(x, ix, wx)
                _plane_3(flat, stride, iy, ix, wy, wx, inside, fill, out[0, i])
            else:
                _weights_5(y, iy, wy)
                _weights_5(x, ix, wx)
                _plane_5(flat, stride, iy, ix, wy, wx, inside, fill, out[0, i])

    return gather


def _gather_3d(order):
    taps = order + 1

    @kernel
    def gather(c, matrix, shape, edge, fill, out, start, stop):
        n, rows = out.shape[2], out.shape[1]
        flat, stride, plane = c.reshape(c.size), np.int32(c.shape[2]), c.shape[1] * c.shape[2]
        at, first, inside = np.empty((3, n)), np.empty((3, n), np.int32), np.empty(n, np.uint8)
        w = np.empty((3, taps, n), c.dtype)
        for r in range(start, stop):
            k, i = r // rows, r % rows
            inside[:] = 1
            for axis in range(3):
                _row_sources(matrix, k, i, axis, at[axis])
                _row_inside(at[axis], shape[axis], inside)
                if order == 1:
                    _weights_1(at[axis], first[axis], w[axis])
                elif order == 3:
                    _weights_3(at[axis], first[axis], w[axis])
                else:
                    _weights_5(at[axis], first[axis], w[axis])
            if edge:
                inside[:] = 1
            iz, iy, ix = first[0], first[1], first[2]
            wz, wy, wx = w[0], w[1], w[2]
            if order == 1:
                _volume_1(flat, plane, stride, iz, iy, ix, wz, wy, wx, inside, fill, out[k, i])
            elif order == 3:
                _volume_3(flat, plane, stride, iz, iy, ix, wz, wy, wx, inside, fill, out[k, i])
            else:
                _volume_5(flat, plane, stride, iz, iy, ix, wz, wy, wx, inside, fill, out[k, i])

    return gather


GATHER_2D = {order: _gather_2d(order) for order in (1, 3, 5)}
GATHER_3D = {order: _gather_3d(order) for order in (1, 3, 5)}


@kernel
def gather_field(c, sources, shape, edge, fill, out, start, stop):
    """Cubic resampling at ``sources`` (2, y, x), one coordinate a pixel, in 2-D."""
    n = out.shape[2]
    flat, stride = c.reshape(c.size), np.int32(c.shape[2])
    y, x = np.empty(n), np.empty(n)
    iy, ix, inside = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.uint8)
    wy, wx = np.empty((4, n), c.dtype), np.empty((4, n), c.dtype)
    for i in range(start, stop):
        y[:], x[:] = sources[0, i], sources[1, i]
        inside[:] = 1
        _row_inside(y, shape[1], inside)
        _row_inside(x, shape[2], inside)
        if edge:
            inside[:] = 1
        _weights_3(y, iy, wy)
        _weights_3(x, ix, wx)
        _plane_3(flat, stride, iy, ix, wy, wx, inside, fill, out[0, i])


@kernel
def nearest(image, matrix, edge, fill, out, start, stop):
    """Copy the nearest pixel; (z, y, x) of any type, one plane in 2-D."""
    n, rows = out.shape[2], out.shape[1]
    at, inside = np.empty((3, n)), np.empty(n, np.uint8)
    for r in range(start, stop):
        k, i = r // rows, r % rows
        inside[:] = 1
        for axis in range(3):
            _row_sources(matrix, k, i, axis, at[axis])
            _row_inside(at[axis], image.shape[axis], inside)
        row = out[k, i]
        for j in range(n):
            z, y, x = np.uint32(at[0, j] + 0.5), np.uint32(at[1, j] + 0.5), np.uint32(at[2, j] + 0.5)
            row[j] = image[z, y, x] if edge or inside[j] else fill


@kernel
def covered(matrix, shape, out, start, stop):
    """Mark the output pixels whose source lies within a frame of ``shape``."""
    rows = out.shape[1]
    tol = 1e-6
    for r in range(start, stop):
        k, i = r // rows, r % rows
        for j in range(out.shape[2]):
            d = matrix[3, 0] * k + matrix[3, 1] * i + matrix[3, 2] * j + matrix[3, 3]
            inside = d > 0.0
            for axis in range(3):
                v = matrix[axis, 0] * k + matrix[axis, 1] * i + matrix[axis, 2] * j + matrix[axis, 3]
                inside = inside and v >= -tol * d and v <= (shape[axis] - 1 + tol) * d
            out[k, i, j] = inside
