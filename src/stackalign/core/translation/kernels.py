"""Numba kernels of sub-pixel translation: frames and templates as B-splines, compared in one pass.

`normal_equations` serves frames with holes: the template's spline is read on the frame's grid. (Whole frames have
kernels of their own, in `shift_kernels`.)

The point x of a frame lies at x + shift of the template. The template is a cubic B-spline, so value and gradient are
exact at any shift, and the frame is never interpolated: its noise stays white, which keeps the estimate unbiased.
Images are passed as (z, y, x) with one plane in 2-D; a shift along an axis of one pixel must be zero.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, inlined, kernel

# Sums of one pass: for the four or five parameters (z, y, x, gain, offset) the weighted normal equations, and plain
# moments for the correlation. Their places in the returned vector:
NORMAL = 15  # upper triangle of the 5 x 5 matrix, row by row
RIGHT = NORMAL  # 5 entries
CHI2, COUNT = 20, 21  # weighted residual sum of squares, number of pixels
MOMENTS = 22  # sums of m, f, r, f f, r r, f r (m: pixels that count; f: frame; r: template)
SUMS = 28


@kernel
def spline_weights(fraction):
    """Return values and slopes (2, 4) of the cubic B-spline's pieces at ``fraction`` in [0, 1), taps -1 .. 2."""
    out = np.zeros((2, 4), np.float32)
    t = fraction
    u = 1.0 - t
    out[0, 0] = u * u * u / 6.0
    out[0, 1] = 2.0 / 3.0 - t * t * (2.0 - t) / 2.0
    out[0, 2] = 2.0 / 3.0 - u * u * (2.0 - u) / 2.0
    out[0, 3] = t * t * t / 6.0
    out[1, 0] = -u * u / 2.0
    out[1, 1] = t * (1.5 * t - 2.0)
    out[1, 2] = -u * (1.5 * u - 2.0)
    out[1, 3] = t * t / 2.0
    return out


@fast_inlined
def _line(coefficients, plane, row, start, weights_z, weights_y, out):
    """Combine the 4 x 4 (or 4) lines around (plane, row) into ``out``, columns start - 1 .. start + len(out) - 2."""
    out[:] = 0.0
    flat = coefficients.shape[0] == 1
    for i in range(1 if flat else 4):
        z = 0 if flat else plane + i - 1
        for j in range(4):
            w = weights_y[j] if flat else weights_z[i] * weights_y[j]
            if w != 0.0:
                source = coefficients[z, row + j - 1, start - 1 : start - 1 + out.shape[0]]
                for x in range(out.shape[0]):
                    out[x] += w * source[x]


@fast_inlined
def _row_2d(value, slope, f, m, wx, sx, gain, offset, variance, slope_of_variance, floor, cut, sums):
    yy = yx = yr = yo = xx = xr = xo = rr = ro = oo = np.float32(0)
    ey = ex = er = eo = chi = n = np.float32(0)
    mm = mf = mr = mff = mrr = mfr = np.float32(0)
    for i in range(f.shape[0]):
        r = wx[0] * value[i] + wx[1] * value[i + 1] + wx[2] * value[i + 2] + wx[3] * value[i + 3]
        gy = wx[0] * slope[i] + wx[1] * slope[i + 1] + wx[2] * slope[i + 2] + wx[3] * slope[i + 3]
        gx = sx[0] * value[i] + sx[1] * value[i + 1] + sx[2] * value[i + 2] + sx[3] * value[i + 3]
        model = gain * r + offset
        e = f[i] - model
        w = m[i] / max(variance + slope_of_variance * model, floor)
        w = w if e * e * w <= cut else np.float32(0)
        wy = w * gy
        wgx = w * gx
        wr = w * r
        yy += wy * gy
        yx += wy * gx
        yr += wy * r
        yo += wy
        xx += wgx * gx
        xr += wgx * r
        xo += wgx
        rr += wr * r
        ro += wr
        oo += w
        ey += wy * e
        ex += wgx * e
        er += wr * e
        eo += w * e
        chi += w * e * e
        n += np.float32(1) if w > 0 else np.float32(0)
        mm += m[i]
        mf += m[i] * f[i]
        mr += m[i] * r
        mff += m[i] * f[i] * f[i]
        mrr += m[i] * r * r
        mfr += m[i] * f[i] * r
    sums[5] += yy
    sums[6] += yx
    sums[7] += yr
    sums[8] += yo
    sums[9] += xx
    sums[10] += xr
    sums[11] += xo
    sums[12] += rr
    sums[13] += ro
    sums[14] += oo
    sums[16] += ey
    sums[17] += ex
    sums[18] += er
    sums[19] += eo
    sums[20] += chi
    sums[21] += n
    sums[22] += mm
    sums[23] += mf
    sums[24] += mr
    sums[25] += mff
    sums[26] += mrr
    sums[27] += mfr


@fast_inlined
def _row_3d(value, slope, slope_z, f, m, wx, sx, gain, offset, variance, slope_of_variance, floor, cut, sums):
    _row_2d(value, slope, f, m, wx, sx, gain, offset, variance, slope_of_variance, floor, cut, sums)
    zz = zy = zx = zr = zo = ez = np.float32(0)
    for i in range(f.shape[0]):
        r = wx[0] * value[i] + wx[1] * value[i + 1] + wx[2] * value[i + 2] + wx[3] * value[i + 3]
        gz = wx[0] * slope_z[i] + wx[1] * slope_z[i + 1] + wx[2] * slope_z[i + 2] + wx[3] * slope_z[i + 3]
        gy = wx[0] * slope[i] + wx[1] * slope[i + 1] + wx[2] * slope[i + 2] + wx[3] * slope[i + 3]
        gx = sx[0] * value[i] + sx[1] * value[i + 1] + sx[2] * value[i + 2] + sx[3] * value[i + 3]
        model = gain * r + offset
        e = f[i] - model
        w = m[i] / max(variance + slope_of_variance * model, floor)
        w = w if e * e * w <= cut else np.float32(0)
        wz = w * gz
        zz += wz * gz
        zy += wz * gy
        zx += wz * gx
        zr += wz * r
        zo += wz
        ez += wz * e
    sums[0] += zz
    sums[1] += zy
    sums[2] += zx
    sums[3] += zr
    sums[4] += zo
    sums[15] += ez


@kernel
def overlap(shape, other, shift):
    """Return the box (3, 2) of frame pixels whose 4 taps per axis lie inside a template of shape ``other``."""
    box = np.empty((3, 2), np.int64)
    for axis in range(3):
        n = int(np.floor(shift[axis]))
        if other[axis] == 1:
            box[axis, 0], box[axis, 1] = 0, 1
        else:
            box[axis, 0] = max(0, 1 - n)
            box[axis, 1] = max(min(shape[axis], other[axis] - 2 - n), box[axis, 0])
    return box


@kernel
def normal_equations(frame, seen, coefficients, valid, shift, brightness, noise, cut):
    """Linearise ``frame = gain * template(x + shift) + offset`` at the given values.

    Parameters
    ----------
    frame : float32 (z, y, x)
    seen : float32 (z, y, x), or (1, 1, 1) if every pixel of the frame counts
    coefficients, valid : float32, uint8 (Z, Y, X)
        Spline coefficients of the template, and 1 where all taps around a pixel are known, else 0.
    shift : float64 (3,)
        Frame -> template, pixels.
    brightness : (gain, offset)
    noise : (variance at zero, variance per intensity, least variance)
    cut : float
        Squared standardised residual above which a pixel is left out.

    Returns
    -------
    float64 (28,)
        See the constants of this module. The derivatives are those of the template: the caller scales by the gain.
    """
    sums = np.zeros(SUMS)
    box = overlap(frame.shape, coefficients.shape, shift)
    width = box[2, 1] - box[2, 0]
    if width < 1:
        return sums
    n = np.floor(shift).astype(np.int64)
    wz, wy, wx = spline_weights(shift[0] - n[0]), spline_weights(shift[1] - n[1]), spline_weights(shift[2] - n[2])
    value, slope = np.empty(width + 3, np.float32), np.empty(width + 3, np.float32)
    slope_z, mask = np.empty(width + 3, np.float32), np.empty(width, np.float32)
    gain, offset = np.float32(brightness[0]), np.float32(brightness[1])
    v0, v1, floor, limit = np.float32(noise[0]), np.float32(noise[1]), np.float32(noise[2]), np.float32(cut)
    start = box[2, 0] + n[2]
    for z in range(box[0, 0], box[0, 1]):
        for y in range(box[1, 0], box[1, 1]):
            mask[:] = valid[z + n[0], y + n[1], start : start + width]
            if seen.size > 1:
                mask *= seen[z, y, box[2, 0] : box[2, 1]]
            if not mask.any():
                continue
            f = frame[z, y, box[2, 0] : box[2, 1]]
            _line(coefficients, z + n[0], y + n[1], start, wz[0], wy[0], value)
            _line(coefficients, z + n[0], y + n[1], start, wz[0], wy[1], slope)
            if coefficients.shape[0] == 1:
                _row_2d(value, slope, f, mask, wx[0], wx[1], gain, offset, v0, v1, floor, limit, sums)
            else:
                _line(coefficients, z + n[0], y + n[1], start, wz[1], wy[0], slope_z)
                _row_3d(value, slope, slope_z, f, mask, wx[0], wx[1], gain, offset, v0, v1, floor, limit, sums)
    return sums


@fast_inlined
def _residuals(frame, seen, coefficients, valid, shift, brightness, step):
    box = overlap(frame.shape, coefficients.shape, shift)
    n = np.floor(shift).astype(np.int64)
    wz, wy, wx = spline_weights(shift[0] - n[0]), spline_weights(shift[1] - n[1]), spline_weights(shift[2] - n[2])
    size = 1
    for axis in range(3):
        size *= max((box[axis, 1] - box[axis, 0] + step - 1) // step, 0)
    out = np.empty((size, 2))
    w0, w1, w2, w3 = wx[0, 0], wx[0, 1], wx[0, 2], wx[0, 3]
    line = np.empty(max(box[2, 1] - box[2, 0], 0) + 3, np.float32)
    start = box[2, 0] + n[2]
    k = 0
    for z in range(box[0, 0], box[0, 1], step):
        for y in range(box[1, 0], box[1, 1], step):
            if len(line) == 3:
                break
            _line(coefficients, z + n[0], y + n[1], start, wz[0], wy[0], line)
            for x in range(box[2, 0], box[2, 1], step):
                if valid[z + n[0], y + n[1], x + n[2]] == 0.0 or (seen.size > 1 and seen[z, y, x] == 0.0):
                    continue
                i = x - box[2, 0]
                total = w0 * line[i] + w1 * line[i + 1] + w2 * line[i + 2] + w3 * line[i + 3]
                model = brightness[0] * total + brightness[1]
                out[k, 0], out[k, 1] = model, frame[z, y, x] - model
                k += 1
    return out[:k]


@kernel
def residuals(frame, seen, coefficients, valid, shift, brightness, step):
    """Return (model, residual) pairs (N, 2) on every ``step``-th pixel along each axis, for noise and cut-offs."""
    return _residuals(frame, seen, coefficients, valid, shift, brightness, step)


@inlined
def judged(frame, seen, coefficients, valid, shift, brightness, noise, step):
    """Return what `statistics` says of the `residuals` of a frame; parameters as there."""
    pairs = _residuals(frame, seen, coefficients, valid, shift, brightness, step)
    return statistics(pairs, brightness[0], brightness[1], noise)


@kernel
def solved(normal, right, out):
    """Solve a small symmetric system by Gaussian elimination on its scaled matrix; False if it is singular."""
    n = len(right)
    scale = np.empty(n)
    for i in range(n):
        if not normal[i, i] > 0.0:
            return False
        scale[i] = 1.0 / np.sqrt(normal[i, i])
    a = np.empty((n, n + 1))
    for i in range(n):
        for j in range(n):
            a[i, j] = normal[i, j] * scale[i] * scale[j]
        a[i, n] = right[i] * scale[i]
    for k in range(n):
        p = k
        for i in range(k + 1, n):
            if abs(a[i, k]) > abs(a[p, k]):
                p = i
        if abs(a[p, k]) < 1e-9:
            return False
        if p != k:
            for j in range(n + 1):
                a[k, j], a[p, j] = a[p, j], a[k, j]
        for i in range(k + 1, n):
            f = a[i, k] / a[k, k]
            for j in range(k, n + 1):
                a[i, j] -= f * a[k, j]
    for i in range(n - 1, -1, -1):
        total = a[i, n]
        for j in range(i + 1, n):
            total -= a[i, j] * out[j] / scale[j]
        out[i] = total / a[i, i] * scale[i]
    return True


@kernel
def statistics(pairs, gain, offset, noise):
    """Return count, correlation, mean squared residual, and that over the noise, of (model, residual) pairs."""
    n = len(pairs)
    sm = sv = smm = svv = smv = srr = chi = 0.0
    for k in range(n):
        m, r = pairs[k, 0], pairs[k, 1]
        v = m + r
        sm += m
        sv += v
        srr += r * r
        chi += r * r / max(noise[0] + noise[1] * (m - offset) / gain, noise[2])
    if n == 0:
        return 0, 0.0, 0.0, 0.0
    sm, sv = sm / n, sv / n
    for k in range(n):
        m, v = pairs[k, 0] - sm, pairs[k, 0] + pairs[k, 1] - sv
        smm += m * m
        svv += v * v
        smv += m * v
    below = np.sqrt(smm * svv)
    return n, smv / below if below > 0.0 else 0.0, srr / n, chi / n
