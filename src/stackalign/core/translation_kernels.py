"""Numba kernels of sub-pixel translation: frames and templates as B-splines, compared in one pass.

`projections` and `gram` serve whole frames: the frame's spline is read on the template's grid, where all derivatives
are worked out once (inverse compositional). `normal_equations` serves frames with holes: the template's spline is read
on the frame's grid.

The point x of a frame lies at x + shift of the template. The template is a cubic B-spline, so value and gradient are
exact at any shift, and the frame is never interpolated: its noise stays white, which keeps the estimate unbiased.
Images are passed as (z, y, x) with one plane in 2-D; a shift along an axis of one pixel must be zero.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, kernel

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
    coefficients, valid : float32 (Z, Y, X)
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


@kernel
def residuals(frame, seen, coefficients, valid, shift, brightness, step):
    """Return (model, residual) pairs (N, 2) on every ``step``-th pixel along each axis, for noise and cut-offs."""
    box = overlap(frame.shape, coefficients.shape, shift)
    n = np.floor(shift).astype(np.int64)
    wz, wy, wx = spline_weights(shift[0] - n[0]), spline_weights(shift[1] - n[1]), spline_weights(shift[2] - n[2])
    flat = coefficients.shape[0] == 1
    size = 1
    for axis in range(3):
        size *= max((box[axis, 1] - box[axis, 0] + step - 1) // step, 0)
    out = np.empty((size, 2))
    k = 0
    for z in range(box[0, 0], box[0, 1], step):
        for y in range(box[1, 0], box[1, 1], step):
            for x in range(box[2, 0], box[2, 1], step):
                if valid[z + n[0], y + n[1], x + n[2]] == 0.0 or (seen.size > 1 and seen[z, y, x] == 0.0):
                    continue
                total = 0.0
                for a in range(1 if flat else 4):
                    za, wa = (0, 1.0) if flat else (z + n[0] + a - 1, wz[0, a])
                    for b in range(4):
                        for c in range(4):
                            total += wa * wy[0, b] * wx[0, c] * coefficients[za, y + n[1] + b - 1, x + n[2] + c - 1]
                model = brightness[0] * total + brightness[1]
                out[k, 0], out[k, 1] = model, frame[z, y, x] - model
                k += 1
    return out[:k]


@fast_inlined
def _filter_row(line, wx, gain, offset, total):
    for i in range(total.shape[0]):
        smooth = wx[0] * line[i] + wx[1] * line[i + 1] + wx[2] * line[i + 2] + wx[3] * line[i + 3]
        total[i] += gain * smooth + offset


@fast_inlined
def _filter_row_weighted(line, seen, wx, gain, offset, total, weight):
    for i in range(total.shape[0]):
        smooth = wx[0] * line[i] + wx[1] * line[i + 1] + wx[2] * line[i + 2] + wx[3] * line[i + 3]
        known = wx[0] * seen[i] + wx[1] * seen[i + 1] + wx[2] * seen[i + 2] + wx[3] * seen[i + 3]
        full = np.float32(1) if known > np.float32(0.999) else np.float32(0)
        total[i] += full * (gain * smooth + offset)
        weight[i] += full


@kernel
def add_shifted(frame, seen, shift, gain, offset, total, weight):
    """Add ``gain * frame + offset``, smoothed by the cubic B-spline and shifted by ``shift``, to ``total``.

    The smoothing is that of a spline whose coefficients are the pixels themselves: one B-spline filter of the finished
    sum undoes it for all frames at once.

    Parameters
    ----------
    frame, seen : float32 (z, y, x)
        As in `normal_equations`.
    shift : float64 (3,)
        Frame -> total, pixels.
    gain, offset : float
    total, weight : float32 (Z, Y, X)
        Sum, and number of frames that went into each pixel; changed in place.
    """
    back = -shift
    box = overlap(total.shape, frame.shape, back)
    n = np.floor(back).astype(np.int64)
    width = box[2, 1] - box[2, 0]
    if width < 1:
        return
    wz, wy, wx = spline_weights(back[0] - n[0]), spline_weights(back[1] - n[1]), spline_weights(back[2] - n[2])
    line, known = np.empty(width + 3, np.float32), np.empty(width + 3, np.float32)
    a, b = np.float32(gain), np.float32(offset)
    start = box[2, 0] + n[2]
    for z in range(box[0, 0], box[0, 1]):
        for y in range(box[1, 0], box[1, 1]):
            row = total[z, y, box[2, 0] : box[2, 1]]
            count = weight[z, y, box[2, 0] : box[2, 1]]
            _line(frame, z + n[0], y + n[1], start, wz[0], wy[0], line)
            if seen.size > 1:
                _line(seen, z + n[0], y + n[1], start, wz[0], wy[0], known)
                _filter_row_weighted(line, known, wx[0], a, b, row, count)
            else:
                _filter_row(line, wx[0], a, b, row)
                count += np.float32(1)


@fast_inlined
def projections(c, first, weights, taps, box, phi):
    """Project a shifted frame on the weighted basis images of a template.

    Parameters
    ----------
    c : float32 (Z, Y, X)
        Spline coefficients of the frame, padded.
    first : int64 (3,)
        Index in ``c`` of the first tap of the box's first pixel.
    weights : float32 (3, 6)
        Of the taps along each axis.
    taps : int64 (3,)
        Number of taps along each axis: 4, or 1 along an axis of one pixel.
    box : int64 (2, 3)
        Start and size of the part of the template that is used.
    phi : float32 (K, z, y, x)
        Basis images times weight; the last one is the weight itself.

    Returns
    -------
    float64 (K,)
        Sums of ``phi_k * frame``.
    """
    count = phi.shape[0]
    out = np.zeros(count)
    nx = box[1, 2]
    width = nx + taps[2] - 1
    line, f = np.empty(width, np.float32), np.empty(nx, np.float32)
    w0, w1, w2, w3 = weights[2, 0], weights[2, 1], weights[2, 2], weights[2, 3]
    for z in range(box[1, 0]):
        for y in range(box[1, 1]):
            line[:] = 0
            for i in range(taps[0]):
                for j in range(taps[1]):
                    w = weights[0, i] * weights[1, j]
                    source = c[first[0] + z + i, first[1] + y + j][first[2] : first[2] + width]
                    for x in range(width):
                        line[x] += w * source[x]
            for x in range(nx):
                f[x] = w0 * line[x] + w1 * line[x + 1] + w2 * line[x + 2] + w3 * line[x + 3]
            for k in range(count):
                row = phi[k, box[0, 0] + z, box[0, 1] + y][box[0, 2] : box[0, 2] + nx]
                total = np.float32(0)
                for x in range(nx):
                    total += row[x] * f[x]
                out[k] += total
    return out


@fast_inlined
def gram(basis, phi, start, stop, inner, out):
    """Add the products ``phi_i * basis_j`` over template rows ``start`` to ``stop``, without the ``inner`` box.

    Parameters
    ----------
    basis : float32 (K - 1, z, y, x)
        Gradient images, then the template; the constant image 1 comes last and is not stored.
    phi : float32 (K, z, y, x)
        Weighted basis images.
    start, stop : int
        Rows, counted over (z, y).
    inner : int64 (2, 3)
        Start and size of a box that is left out; of size zero: none.
    out : float64 (K, K)
        ``out[i, j]`` gets the sum of ``phi_i * basis_j``.
    """
    count, ny, nx = phi.shape[0], phi.shape[2], phi.shape[3]
    for r in range(start, stop):
        z, y = r // ny, r % ny
        within = inner[0, 0] <= z < inner[0, 0] + inner[1, 0] and inner[0, 1] <= y < inner[0, 1] + inner[1, 1]
        gap0, gap1 = (inner[0, 2], inner[0, 2] + inner[1, 2]) if within else (nx, nx)
        for i in range(count):
            p = phi[i, z, y]
            for j in range(count):
                total = np.float32(0)
                if j == count - 1:
                    for x in range(gap0):
                        total += p[x]
                    for x in range(gap1, nx):
                        total += p[x]
                else:
                    b = basis[j, z, y]
                    for x in range(gap0):
                        total += p[x] * b[x]
                    for x in range(gap1, nx):
                        total += p[x] * b[x]
                out[i, j] += total


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


NO_OVERLAP, NO_STRUCTURE, NO_CORRELATION, MOVED, SETTLED = -3, -2, -1, 0, 1


@kernel
def fit_shift(c, pad, shape, phi, basis, whole, shift, tolerance, longest, iterations, normal, theta):
    """Find the shift of a whole frame against a template by inverse compositional Gauss-Newton steps.

    Parameters
    ----------
    c : float32 (Z, Y, X)
        The frame, with ``pad`` mirrored pixels around each axis that is longer than 1: its pixels are read as the
        coefficients of a cubic B-spline, which smooths it as ``basis`` is smoothed.
    pad : int
    shape : int64 (3,)
        Of the frame.
    phi, basis : float32
        Images that the frame is projected on, and the smoothed gradients and values that it is made of; see
        `projections` and `gram`.
    whole : float64 (K, K)
        Products over the whole template.
    shift : float64 (3,)
        Frame -> template, pixels; first guess, changed in place.
    tolerance, longest : float
        Step that ends the search, and the longest step taken, pixels.
    iterations : int
    normal, theta : float64 (K, K), (K,)
        Filled with the products over the overlap and the last solution: gain times step, gain, offset.

    Returns
    -------
    status : int
        `SETTLED`, `MOVED` (still moving by over 0.02 px) or what went wrong.
    done : int
        Steps taken.
    """
    count = phi.shape[0]
    d = count - 2
    size = np.array([phi.shape[1], phi.shape[2], phi.shape[3]])
    box, boxed = np.zeros((2, 3), np.int64), np.full(3, np.inf)
    first, taps, weights = np.zeros(3, np.int64), np.ones(3, np.int64), np.zeros((3, 6), np.float32)
    weights[:, 0] = 1.0
    outside = np.zeros((count, count))
    longest_step = np.inf
    for done in range(1, iterations + 1):
        if not np.abs(shift - boxed).max() <= 0.25:
            for axis in range(3):
                if axis < 3 - d:
                    box[0, axis], box[1, axis] = 0, 1
                    continue
                margin = 1 if shape[axis] > 8 else 0
                low = max(int(np.ceil(margin + shift[axis])), 0)
                high = min(int(np.floor(shape[axis] - 1 - margin + shift[axis])), size[axis] - 1)
                if high - low < min(3, size[axis] // 2):
                    return NO_OVERLAP, done
                box[0, axis], box[1, axis] = low, high - low + 1
            outside[:] = 0.0
            gram(basis, phi, 0, size[0] * size[1], box, outside)
            for i in range(count):
                for j in range(count):
                    normal[i, j] = whole[i, j] - outside[i, j]
            boxed[:] = shift
        for axis in range(3 - d, 3):
            n = int(np.floor(-shift[axis]))
            weights[axis, :4] = spline_weights(-shift[axis] - n)[0]
            first[axis] = box[0, axis] + n + pad - 1
            taps[axis] = 4
        sums = projections(c, first, weights, taps, box, phi)
        if not solved(normal, sums, theta):
            return NO_STRUCTURE, done
        if theta[d] <= 0.0:
            return NO_CORRELATION, done
        longest_step = 0.0
        for k in range(d):
            step = theta[k] / theta[d]
            longest_step = max(longest_step, abs(step))
            shift[3 - d + k] += min(max(step, -longest), longest)
        # what is left after a step is some hundredths of it
        if longest_step < tolerance:
            return SETTLED, done
    return (SETTLED if longest_step < 0.02 else MOVED), iterations


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
