"""Numba parts that read a cubic spline along a line of pixels under a motion; most of the time of gradient alignment.

Images are (z, y, x), one plane in 2-D, coefficients padded: see `warp_kernels`. Where a motion turns and stretches
little, 16 (or 8) neighbours read taps from two rows and two diagonals: these are loaded side by side, five by five,
with weights of zero for those that a pixel does not use; four by four where it is one row and one diagonal. That is
several times as fast as gathering. Sixteen is a constant: loops over it become straight lines of vector instructions.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, inlined
from stackalign.core.warping.kernels import PAD

LANES = 16  # neighbours that are read together
_TILT = 0.004  # change of depth over as many: coordinates are then a parabola to 1e-4 pixels in an image of 2000


@fast_inlined
def _sources(matrix, k, i, axis, first, count, out):
    """Write coordinate ``axis`` of the sources of ``count`` pixels of row (k, i), from column ``first`` on."""
    m, p = matrix[axis], matrix[3]
    start, step = m[0] * k + m[1] * i + m[3] + m[2] * first, m[2]
    for j in range(count):
        out[j] = start + step * j
    if p[0] != 0.0 or p[1] != 0.0 or p[2] != 0.0:
        depth = p[0] * k + p[1] * i + p[3] + p[2] * first
        for j in range(count):
            out[j] /= depth + p[2] * j


@fast_inlined
def _weights(at, count, first, w0, w1, w2, w3):
    """Split coordinates into the index of the first of four taps, in padded coefficients, and the taps' weights."""
    one, sixth, two_thirds, half = np.float32(1), np.float32(1 / 6), np.float32(2 / 3), np.float32(0.5)
    for j in range(count):
        padded = at[j] + PAD  # positive: the conversion rounds down
        whole = np.int32(padded)
        f = np.float32(padded - whole)
        g = one - f
        first[j] = whole - np.int32(1)
        f2, g2 = f * f, g * g
        w0[j] = sixth * g2 * g
        w1[j] = two_thirds - f2 * (one - half * f)
        w2[j] = two_thirds - g2 * (one - half * g)
        w3[j] = sixth * f2 * f


@fast_inlined
def _combine_2d(c, stride, iy, ix, y0, y1, y2, y3, x0, x1, x2, x3, count, out):
    s1 = np.uint32(stride)
    s2 = np.uint32(2 * stride)
    s3 = np.uint32(3 * stride)
    for j in range(count):
        a = np.uint32(iy[j] * stride + ix[j])
        total = np.float32(0)
        wx = x0[j]
        total += wx * (y0[j] * c[a] + y1[j] * c[a + s1] + y2[j] * c[a + s2] + y3[j] * c[a + s3])
        a += np.uint32(1)
        total += x1[j] * (y0[j] * c[a] + y1[j] * c[a + s1] + y2[j] * c[a + s2] + y3[j] * c[a + s3])
        a += np.uint32(1)
        total += x2[j] * (y0[j] * c[a] + y1[j] * c[a + s1] + y2[j] * c[a + s2] + y3[j] * c[a + s3])
        a += np.uint32(1)
        total += x3[j] * (y0[j] * c[a] + y1[j] * c[a + s1] + y2[j] * c[a + s2] + y3[j] * c[a + s3])
        out[j] = total


@fast_inlined
def _combine_3d(c, plane, stride, iz, iy, ix, wz, wy, wx, count, out):
    for j in range(count):
        start = np.uint64(iz[j]) * np.uint64(plane) + np.uint64(iy[j] * stride + ix[j])
        total = np.float32(0)
        for a in range(4):
            layer = np.float32(0)
            for b in range(4):
                at = start + np.uint64(a) * np.uint64(plane) + np.uint64(b * stride)
                line = wx[0, j] * c[at] + wx[1, j] * c[at + np.uint64(1)]
                line += wx[2, j] * c[at + np.uint64(2)] + wx[3, j] * c[at + np.uint64(3)]
                layer += wy[b, j] * line
            total += wz[a, j] * layer
        out[j] = total


@fast_inlined
def _combine_one(lanes, c, stride, base, y, x, out):
    """Read ``lanes`` pixels whose sources lie within one row and one diagonal: taps are loaded side by side.

    Coordinates of pixel j, in [0, 1), are ``y[0] + y[1] j + y[2] j^2``, and the same for x; ``base + j`` is its first
    tap.
    """
    one, half = np.float32(1), np.float32(0.5)
    sixth, two_thirds = np.float32(1 / 6), np.float32(2 / 3)
    s1, s2, s3 = np.uint64(stride), np.uint64(2 * stride), np.uint64(3 * stride)
    for j in range(lanes):
        t = np.float32(j)
        f, e = y[0] + t * (y[1] + t * y[2]), x[0] + t * (x[1] + t * x[2])
        g = one - f
        y0, y3 = sixth * g * g * g, sixth * f * f * f
        y1, y2 = two_thirds - f * f * (one - half * f), two_thirds - g * g * (one - half * g)
        g = one - e
        x0, x3 = sixth * g * g * g, sixth * e * e * e
        x1, x2 = two_thirds - e * e * (one - half * e), two_thirds - g * g * (one - half * g)
        a = base + np.uint64(j)
        total = x0 * (y0 * c[a] + y1 * c[a + s1] + y2 * c[a + s2] + y3 * c[a + s3])
        a += np.uint64(1)
        total += x1 * (y0 * c[a] + y1 * c[a + s1] + y2 * c[a + s2] + y3 * c[a + s3])
        a += np.uint64(1)
        total += x2 * (y0 * c[a] + y1 * c[a + s1] + y2 * c[a + s2] + y3 * c[a + s3])
        a += np.uint64(1)
        total += x3 * (y0 * c[a] + y1 * c[a + s1] + y2 * c[a + s2] + y3 * c[a + s3])
        out[j] = total


@fast_inlined
def _combine_two(lanes, c, stride, base, y, x, out):
    """Do as `_combine_one` does for two rows and two diagonals, sources in [0, 2): five taps, one of them zero."""
    zero, one, half = np.float32(0), np.float32(1), np.float32(0.5)
    sixth, two_thirds = np.float32(1 / 6), np.float32(2 / 3)
    s1, s2, s3, s4 = np.uint64(stride), np.uint64(2 * stride), np.uint64(3 * stride), np.uint64(4 * stride)
    for j in range(lanes):
        t = np.float32(j)
        fy, fx = y[0] + t * (y[1] + t * y[2]), x[0] + t * (x[1] + t * x[2])
        second = fy >= one
        f = fy - one if second else fy
        g = one - f
        w0, w3 = sixth * g * g * g, sixth * f * f * f
        w1, w2 = two_thirds - f * f * (one - half * f), two_thirds - g * g * (one - half * g)
        y0, y4 = zero if second else w0, w3 if second else zero
        y1, y2, y3 = w0 if second else w1, w1 if second else w2, w2 if second else w3
        second = fx >= one
        f = fx - one if second else fx
        g = one - f
        w0, w3 = sixth * g * g * g, sixth * f * f * f
        w1, w2 = two_thirds - f * f * (one - half * f), two_thirds - g * g * (one - half * g)
        x0, x4 = zero if second else w0, w3 if second else zero
        x1, x2, x3 = w0 if second else w1, w1 if second else w2, w2 if second else w3
        a = base + np.uint64(j)
        total = x0 * (y0 * c[a] + y1 * c[a + s1] + y2 * c[a + s2] + y3 * c[a + s3] + y4 * c[a + s4])
        a += np.uint64(1)
        total += x1 * (y0 * c[a] + y1 * c[a + s1] + y2 * c[a + s2] + y3 * c[a + s3] + y4 * c[a + s4])
        a += np.uint64(1)
        total += x2 * (y0 * c[a] + y1 * c[a + s1] + y2 * c[a + s2] + y3 * c[a + s3] + y4 * c[a + s4])
        a += np.uint64(1)
        total += x3 * (y0 * c[a] + y1 * c[a + s1] + y2 * c[a + s2] + y3 * c[a + s3] + y4 * c[a + s4])
        a += np.uint64(1)
        total += x4 * (y0 * c[a] + y1 * c[a + s1] + y2 * c[a + s2] + y3 * c[a + s3] + y4 * c[a + s4])
        out[j] = total


@inlined
def _steepest(matrix, k, i, start, count):
    """Return how fast sources leave their row, or diagonal, along a line; a large number where they lie on a curve."""
    p = matrix[3]
    steepest = 0.0
    for j in (start, start + count - 1):  # monotonic along the line: what holds at both ends holds between them
        depth = p[0] * k + p[1] * i + p[2] * j + p[3]
        if abs(p[2]) * LANES > _TILT * depth:
            return 1.0
        for axis in range(1, 3):
            m = matrix[axis]
            at = (m[0] * k + m[1] * i + m[2] * j + m[3]) / depth
            slope = (m[2] - at * p[2]) / depth - (1.0 if axis == 2 else 0.0)
            steepest = max(steepest, abs(slope))
    return steepest


@inlined
def _along(first, middle, last, half, whole):
    """Return the polynomial through values at the pixels 0, ``half`` and ``whole`` of a block."""
    a, b = (middle - first) / half, (last - first) / whole
    curve = (b - a) / (whole - half)
    return np.float32(first), np.float32(a - half * curve), np.float32(curve)


@inlined
def _read_blocks(lanes, flat, stride, matrix, k, i, start, count, out):
    """Read a line in blocks of ``lanes`` pixels: `LANES`, or fewer."""
    m, n, p = matrix[1], matrix[2], matrix[3]
    dy, dx, dp = m[2], n[2], p[2]
    ys, xs, ps = m[0] * k + m[1] * i + m[3], n[0] * k + n[1] * i + n[3], p[0] * k + p[1] * i + p[3]
    plain = p[0] == 0.0 and p[1] == 0.0 and dp == 0.0 and p[3] == 1.0
    last, half = lanes - 1, lanes // 2
    rise, slip = dy * last, (dx - 1.0) * last
    down, up, left, right = min(rise, 0.0), max(rise, 0.0), min(slip, 0.0), max(slip, 0.0)
    ty, tx = (np.float32(0), np.float32(dy), np.float32(0)), (np.float32(0), np.float32(dx - 1.0), np.float32(0))
    first = 0
    while True:
        j = start + first
        ya, xa = ys + dy * j, xs + dx * j
        if not plain:  # lines of view that meet far away: over a few pixels as good as a parabola
            a, b, c = 1.0 / (ps + dp * j), 1.0 / (ps + dp * (j + half)), 1.0 / (ps + dp * (j + last))
            ym, yb = (ya + dy * half) * b, (ya + dy * last) * c
            xm, xb = (xa + dx * half) * b - half, (xa + dx * last) * c - last
            ya, xa = ya * a, xa * a
            down, up, left, right = min(yb - ya, 0.0), max(yb - ya, 0.0), min(xb - xa, 0.0), max(xb - xa, 0.0)
            ty, tx = _along(0.0, ym - ya, yb - ya, half, last), _along(0.0, xm - xa, xb - xa, half, last)
        y, x = np.int64(ya + down + 1.0) - 1, np.int64(xa + left + 1.0) - 1  # rounding may leave -1e-9
        fy, fx = ya - y, xa - x
        base = np.uint64((y + PAD - 1) * stride + x + PAD - 1)
        part = out[first : first + lanes]
        wy, wx = (np.float32(fy), ty[1], ty[2]), (np.float32(fx), tx[1], tx[2])
        near = max(fy + up, fx + right) < 1.0
        if lanes == LANES:  # written as a constant: see above
            if near:
                _combine_one(LANES, flat, stride, base, wy, wx, part)
            else:
                _combine_two(LANES, flat, stride, base, wy, wx, part)
        elif near:
            _combine_one(lanes, flat, stride, base, wy, wx, part)
        else:
            _combine_two(lanes, flat, stride, base, wy, wx, part)
        if first + lanes >= count:
            break
        first = min(first + lanes, count - lanes)  # the last block overlaps the one before


@inlined
def read_line(flat, plane, stride, solid, matrix, k, i, start, count, at, first, w, out):
    """Read a spline at the sources of one line of pixels.

    Parameters
    ----------
    flat : float32 (n,)
        Coefficients, padded by ``PAD`` pixels along y and x (and z of volumes), as one line.
    plane, stride : int
        Distance of neighbours along z and y.
    solid : bool
        Whether it is a volume.
    matrix : float64 (4, 4)
        Pixel -> source, over (z, y, x, 1).
    k, i, start, count : int
        Plane and row of the line, first pixel, how many. All sources lie in the image.
    at, first, w : float64 (n,), int32 (3, n), float32 (3, 4, n)
        Room to work in.
    out : float32 (n,)
        The first ``count`` are written.
    """
    steepest = 1.0 if solid else _steepest(matrix, k, i, start, count)
    lanes = LANES
    if not (steepest * (LANES - 1) < 0.999 and count >= LANES):
        lanes = 2 * w.shape[1]  # eight; a loop over a constant as small would be unrolled, and not become vectors
    if steepest * (lanes - 1) < 0.999 and count >= lanes:
        _read_blocks(lanes, flat, stride, matrix, k, i, start, count, out)
        return
    for axis in range(0 if solid else 1, 3):
        _sources(matrix, k, i, axis, start, count, at)
        _weights(at, count, first[axis], w[axis, 0], w[axis, 1], w[axis, 2], w[axis, 3])
    if solid:
        _combine_3d(flat, plane, stride, first[0], first[1], first[2], w[0], w[1], w[2], count, out)
    else:
        _combine_2d(
            flat, stride, first[1], first[2], w[1, 0], w[1, 1], w[1, 2], w[1, 3], w[2, 0], w[2, 1], w[2, 2], w[2, 3],
            count, out,
        )  # fmt: skip
