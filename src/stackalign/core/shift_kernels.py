"""Numba kernels that fit the shift of a whole frame: its spline, read on the template's grid, projected on images.

All derivatives are those of the template and worked out once (inverse compositional). How long a step really must be
is read off the frame's own slopes, on every few rows: noise that is left in a template makes its own slopes too steep.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, inlined, kernel
from stackalign.core.translation_kernels import judged, solved, spline_weights

NO_OVERLAP, NO_STRUCTURE, NO_CORRELATION, MOVED, SETTLED = -3, -2, -1, 0, 1

_NEAR = 0.2  # px: a step on every few rows, from which on all rows are taken
_CLOSE = 0.05  # px: what is left after a step that the frame's own slopes scaled is some thousandths of it
_CLOSER = 0.02  # px: the same, where slopes were taken on every few rows
_FAR = 0.3  # px: beyond, the slopes at a place say little about the way to the best one
_STEEP = 0.5  # of a step that slopes too steep leave: below, longer ones would be a guess
_LOST = 0.1  # below, nothing of the scene is there to answer


@inlined
def _mirrored(i, n):
    """Return the index of the pixel that stands for ``i`` beyond the border of ``n`` pixels."""
    period = max(2 * n - 2, 1)
    i = abs(i) % period
    return i if i < n else period - i


@fast_inlined
def weighted(a, b, c, d, w, out):
    """Fill ``out`` with the sum of four lines, weighted."""
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    for x in range(out.shape[0]):
        out[x] = w0 * np.float32(a[x]) + w1 * np.float32(b[x]) + w2 * np.float32(c[x]) + w3 * np.float32(d[x])


@fast_inlined
def _combined(a, b, c, d, first, w, out):
    """Combine four lines from column ``first`` on, mirrored beyond their ends."""
    n, width = a.shape[0], out.shape[0]
    low = min(max(-first, 0), width)
    high = max(min(n - first, width), low)
    if high > low:
        i, j = first + low, first + high
        weighted(a[i:j], b[i:j], c[i:j], d[i:j], w, out[low:high])
    for k in range(low + width - high):
        x = k if k < low else high + k - low
        i = _mirrored(first + x, n)
        out[x] = w[0] * np.float32(a[i]) + w[1] * np.float32(b[i]) + w[2] * np.float32(c[i]) + w[3] * np.float32(d[i])


@fast_inlined
def tapped(line, w, out):
    """Fill ``out`` with the sum of four neighbours along a line, weighted."""
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    for x in range(out.shape[0]):
        out[x] = w0 * line[x] + w1 * line[x + 1] + w2 * line[x + 2] + w3 * line[x + 3]


@fast_inlined
def _dot(a, b):
    total = np.float32(0)
    for x in range(a.shape[0]):
        total += np.float32(a[x]) * b[x]
    return total


@fast_inlined
def _plane_sums(line, w, phi, y, x0, nx, out):
    """Add the products of the frame's values in a row with four images."""
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    end = x0 + nx
    p0, p1, p2, p3 = phi[0, 0, y, x0:end], phi[1, 0, y, x0:end], phi[2, 0, y, x0:end], phi[3, 0, y, x0:end]
    a0 = a1 = a2 = a3 = np.float32(0)
    for x in range(nx):
        f = w0 * line[x] + w1 * line[x + 1] + w2 * line[x + 2] + w3 * line[x + 3]
        a0 += np.float32(p0[x]) * f
        a1 += np.float32(p1[x]) * f
        a2 += np.float32(p2[x]) * f
        a3 += np.float32(p3[x]) * f
    out[0, 0] += a0
    out[1, 0] += a1
    out[2, 0] += a2
    out[3, 0] += a3


@fast_inlined
def _sloped_plane_sums(line, slope, w, s, phi, y, x0, nx, out):
    """Add the products of the frame's values and slopes in a row with four images."""
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    s0, s1, s2, s3 = s[0], s[1], s[2], s[3]
    end = x0 + nx
    p0, p1, p2, p3 = phi[0, 0, y, x0:end], phi[1, 0, y, x0:end], phi[2, 0, y, x0:end], phi[3, 0, y, x0:end]
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = c0 = c1 = c2 = c3 = np.float32(0)
    for x in range(nx):
        i, j, k, m = line[x], line[x + 1], line[x + 2], line[x + 3]
        f = w0 * i + w1 * j + w2 * k + w3 * m
        gx = s0 * i + s1 * j + s2 * k + s3 * m
        gy = w0 * slope[x] + w1 * slope[x + 1] + w2 * slope[x + 2] + w3 * slope[x + 3]
        a0 += np.float32(p0[x]) * f
        a1 += np.float32(p1[x]) * f
        a2 += np.float32(p2[x]) * f
        a3 += np.float32(p3[x]) * f
        b0 += np.float32(p0[x]) * gy
        b1 += np.float32(p1[x]) * gy
        b2 += np.float32(p2[x]) * gy
        b3 += np.float32(p3[x]) * gy
        c0 += np.float32(p0[x]) * gx
        c1 += np.float32(p1[x]) * gx
        c2 += np.float32(p2[x]) * gx
        c3 += np.float32(p3[x]) * gx
    out[0, 0] += a0
    out[1, 0] += a1
    out[2, 0] += a2
    out[3, 0] += a3
    out[0, 1] += b0
    out[1, 1] += b1
    out[2, 1] += b2
    out[3, 1] += b3
    out[0, 2] += c0
    out[1, 2] += c1
    out[2, 2] += c2
    out[3, 2] += c3


@fast_inlined
def _volume_sums(f, phi, z, y, x0, a, out):
    """Add the products of a row with five images to column ``a``."""
    end = x0 + f.shape[0]
    p0, p1, p2 = phi[0, z, y, x0:end], phi[1, z, y, x0:end], phi[2, z, y, x0:end]
    p3, p4 = phi[3, z, y, x0:end], phi[4, z, y, x0:end]
    a0 = a1 = a2 = a3 = a4 = np.float32(0)
    for x in range(f.shape[0]):
        a0 += np.float32(p0[x]) * f[x]
        a1 += np.float32(p1[x]) * f[x]
        a2 += np.float32(p2[x]) * f[x]
        a3 += np.float32(p3[x]) * f[x]
        a4 += np.float32(p4[x]) * f[x]
    out[0, a] += a0
    out[1, a] += a1
    out[2, a] += a2
    out[3, a] += a3
    out[4, a] += a4


@fast_inlined
def _volume_values(c, z, y, first, weights, sloped, fresh, rows, line, values):
    """Read a row of a volume; ``rows`` (2, 4, width) keeps what is common to neighbouring rows unless ``fresh``."""
    nz, ny = c.shape[0], c.shape[1]
    for j in range(0 if fresh else 3, 4):
        at, slot = _mirrored(y + j, ny), (y + j) % 4
        a, b = c[_mirrored(z, nz), at], c[_mirrored(z + 1, nz), at]
        d, e = c[_mirrored(z + 2, nz), at], c[_mirrored(z + 3, nz), at]
        _combined(a, b, d, e, first, weights[0, 0], rows[0, slot])
        if sloped:
            _combined(a, b, d, e, first, weights[0, 1], rows[1, slot])
    p, q, r, s = y % 4, (y + 1) % 4, (y + 2) % 4, (y + 3) % 4
    weighted(rows[0, p], rows[0, q], rows[0, r], rows[0, s], weights[1, 0], line)
    tapped(line, weights[2, 0], values[0])
    if sloped:
        tapped(line, weights[2, 1], values[3])
        weighted(rows[0, p], rows[0, q], rows[0, r], rows[0, s], weights[1, 1], line)
        tapped(line, weights[2, 0], values[2])
        weighted(rows[1, p], rows[1, q], rows[1, r], rows[1, s], weights[1, 0], line)
        tapped(line, weights[2, 0], values[1])


@fast_inlined
def _project(c, first, weights, box, every, phi, scale, sloped, out):
    """Project a shifted frame, and its slopes, on the weighted basis images of a template.

    Parameters
    ----------
    c : (Z, Y, X)
        Spline coefficients of the frame, mirrored beyond its borders.
    first : int64 (3,)
        Index in ``c`` of the first tap of the box's first pixel.
    weights : float32 (3, 2, 4)
        Of the taps along each axis, for values and for slopes.
    box : int64 (2, 3)
        Start and size of the part of the template that is used.
    every : int
        Only rows ``every // 2``, ``every // 2 + every``, ... of the template count.
    phi, scale : int16 (K, z, y, x), float64 (K,)
        Basis images times weight, in units of the scale; the last one is the weight itself.
    sloped : bool
        Whether the slopes are asked for.
    out : float64 (K, 1 + d)
        Filled with the sums of ``phi_k`` times the frame, and times its slopes along the axes.
    """
    count, nx = phi.shape[0], box[1, 2]
    d = count - 2
    out[:] = 0.0
    columns = 1 + d if sloped else 1
    line, slope = np.empty(nx + 3, np.float32), np.empty(nx + 3, np.float32)
    rows = np.empty((2, 4, nx + 3 if d == 3 else 1), np.float32)
    values = np.empty((4, nx if d == 3 else 1), np.float32)
    start = (every // 2 - box[0, 1]) % every
    for z in range(box[1, 0]):
        fresh = True
        for y in range(start, box[1, 1], every):
            row, x0 = box[0, 1] + y, box[0, 2]
            if d == 3:
                _volume_values(
                    c, first[0] + z, first[1] + y, first[2], weights, sloped, fresh or every > 1, rows, line, values
                )
                fresh = False
                for a in range(columns):
                    _volume_sums(values[a], phi, box[0, 0] + z, row, x0, a, out)
                continue
            at, n = first[1] + y, c.shape[1]
            i, j = c[0, _mirrored(at, n)], c[0, _mirrored(at + 1, n)]
            k, m = c[0, _mirrored(at + 2, n)], c[0, _mirrored(at + 3, n)]
            _combined(i, j, k, m, first[2], weights[1, 0], line)
            if sloped:
                _combined(i, j, k, m, first[2], weights[1, 1], slope)
                _sloped_plane_sums(line, slope, weights[2, 0], weights[2, 1], phi, row, x0, nx, out)
            else:
                _plane_sums(line, weights[2, 0], phi, row, x0, nx, out)
    for k in range(count):
        out[k] *= scale[k]


@fast_inlined
def _gram(basis, phi, scale, every, inner, out):
    """Add the products ``phi_i * basis_j`` over the template's rows, without the ``inner`` box."""
    count, nz, ny, nx = phi.shape
    for z in range(nz):
        for y in range(every // 2, ny, every):
            within = inner[0, 0] <= z < inner[0, 0] + inner[1, 0] and inner[0, 1] <= y < inner[0, 1] + inner[1, 1]
            low, high = (inner[0, 2], inner[0, 2] + inner[1, 2]) if within else (nx, nx)
            for i in range(count):
                p = phi[i, z, y]
                for j in range(count - 1):
                    b = basis[j, z, y]
                    out[i, j] += scale[i] * (_dot(p[:low], b[:low]) + _dot(p[high:], b[high:]))
                total = np.float32(0)
                for x in range(low):
                    total += np.float32(p[x])
                for x in range(high, nx):
                    total += np.float32(p[x])
                out[i, count - 1] += scale[i] * total


@kernel
def gram(basis, phi, scale, every):
    """Return the products (K, K) of the weighted and the plain basis images of a template.

    Parameters
    ----------
    basis : float32 (K - 1, z, y, x)
        Gradient images, then the template; the constant image 1 comes last and is not stored.
    phi, scale : int16 (K, z, y, x), float64 (K,)
        Weighted basis images, in units of the scale.
    every : int
        Only rows ``every // 2``, ``every // 2 + every``, ... count.
    """
    out = np.zeros((phi.shape[0], phi.shape[0]))
    _gram(basis, phi, scale, every, np.zeros((2, 3), np.int64), out)
    return out


@fast_inlined
def _largest(image):
    top = np.float32(0)
    for x in range(image.shape[0]):
        top = max(top, abs(image[x]))
    return top


@kernel
def quantised(image, counted, out):
    """Fill ``out`` with an image in whole units, zero where it does not count; returns the unit.

    Images that frames are projected on need no more: all that matters is that the products of them with what frames are
    made of are those of the very same images. Half the memory is read for each frame.

    Parameters
    ----------
    image : float32 (z, y, x)
    counted : bool (z, y, x)
    out : int16 (z, y, x)
    """
    top = np.float32(0)
    for z in range(image.shape[0]):
        for y in range(image.shape[1]):
            top = max(top, _largest(image[z, y]))
    unit = top / np.float32(32767) if top > 0 else np.float32(1)
    scale = np.float32(1) / unit
    for z in range(image.shape[0]):
        for y in range(image.shape[1]):
            row, use, to = image[z, y], counted[z, y], out[z, y]
            for x in range(row.shape[0]):
                to[x] = np.int16(np.floor(row[x] * scale + np.float32(0.5))) if use[x] else np.int16(0)
    return float(unit)


@kernel
def products(basis, weight):
    """Return the weighted products (K, K) of the basis images of a template with each other and with 1, which is last.

    Parameters
    ----------
    basis : float32 (K - 1, z, y, x)
    weight : float32 (z, y, x)
    """
    count, nx = basis.shape[0] + 1, basis.shape[3]
    out = np.zeros((count, count))
    line = np.empty(nx, np.float32)
    for z in range(basis.shape[1]):
        for y in range(basis.shape[2]):
            w = weight[z, y]
            for i in range(count):
                if i == count - 1:
                    line[:] = w
                else:
                    b = basis[i, z, y]
                    for x in range(nx):
                        line[x] = w[x] * b[x]
                for j in range(i, count - 1):
                    out[i, j] += _dot(line, basis[j, z, y])
                total = np.float32(0)
                for x in range(nx):
                    total += line[x]
                out[i, count - 1] += total
    for i in range(count):
        for j in range(i):
            out[i, j] = out[j, i]
    return out


@inlined
def _boxed(shape, size, shift, d, box):
    """Fill ``box`` with the part of a template that a frame covers but for its outermost pixels; False: too little."""
    for axis in range(3):
        if axis < 3 - d:
            box[0, axis], box[1, axis] = 0, 1
            continue
        margin = 1 if shape[axis] > 8 else 0
        low = max(int(np.ceil(margin + shift[axis])), 0)
        high = min(int(np.floor(shape[axis] - 1 - margin + shift[axis])), size[axis] - 1)
        if high - low < min(3, size[axis] // 2):
            return False
        box[0, axis], box[1, axis] = low, high - low + 1
    return True


@inlined
def fit_shift(
    c,
    pad,
    shape,
    phi,
    scale,
    basis,
    whole,
    thinned,
    every,
    shift,
    tolerance,
    longest,
    iterations,
    normal,
    theta,
    answer,
):
    """Find the shift of a whole frame against a template by inverse compositional Gauss-Newton steps.

    Parameters
    ----------
    c : (Z, Y, X)
        The frame, mirrored beyond its borders: its pixels are read as the coefficients of a cubic B-spline, which
        smooths it as ``basis`` is smoothed.
    pad : int
        Pixels that ``c`` has around each axis of the frame.
    shape : int64 (3,)
        Of the frame.
    phi, scale, basis
        Images that the frame is projected on, and the smoothed gradients and values that it is made of; see `gram`.
    whole, thinned : float64 (K, K)
        Products over the whole template, and over every few rows of it.
    every : int
        Which rows these are; 1: all rows are taken from the first step on.
    shift : float64 (3,)
        Frame -> template, pixels; first guess, changed in place.
    tolerance, longest : float
        Step that ends the search, and the longest step taken, pixels.
    iterations : int
    normal, theta : float64 (K, K), (K,)
        Filled with the products over the overlap and the last solution: gain times step, gain, offset.
    answer : float64 (d, d)
        Filled with how far a step goes that the true displacement asks for; the identity if the template's slopes are
        those of the frame.

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
    first, weights = np.zeros(3, np.int64), np.zeros((3, 2, 4), np.float32)
    outside, sums, column = np.zeros((count, count)), np.zeros((count, 1 + d)), np.zeros(count)
    step, scaled = np.zeros(d), np.zeros(d)
    longest_step = np.inf
    thin, told = every, False
    for done in range(1, iterations + 1):
        if not np.abs(shift - boxed).max() <= 0.25:
            if not _boxed(shape, size, shift, d, box):
                return NO_OVERLAP, done
            outside[:] = 0.0
            _gram(basis, phi, scale, thin, box, outside)
            normal[:] = (whole if thin == 1 else thinned) - outside
            boxed[:] = shift
        for axis in range(3 - d, 3):
            n = int(np.floor(-shift[axis]))
            weights[axis] = spline_weights(-shift[axis] - n)
            first[axis] = box[0, axis] + n + pad - 1
        sloped = thin > 1 or every == 1 or not told
        _project(c, first, weights, box, thin, phi, scale, sloped, sums)
        if not solved(normal, sums[:, 0], theta):
            if thin > 1:  # all rows may tell what some do not
                thin, boxed[0] = 1, np.inf
                continue
            return NO_STRUCTURE, done
        if theta[d] <= 0.0:
            return NO_CORRELATION, done
        for k in range(d):
            step[k] = theta[k] / theta[d]
        longest_step = np.abs(step).max()
        if sloped:
            told = True
            for k in range(d):
                answer[:, k] = 0.0
                if solved(normal, sums[:, 1 + k], column):
                    answer[:, k] = column[:d] / theta[d]
                if size[3 - d + k] < 3:  # no slope is known
                    answer[:, k], answer[k, :], answer[k, k] = 0.0, 0.0, 1.0
        near, least = longest_step < _FAR, np.inf
        for k in range(d):
            least = min(least, answer[k, k])
        near = near and least > _STEEP and solved(answer, step, scaled)
        if near:
            step[:] = scaled
            longest_step = np.abs(step).max()
        elif not least > _LOST:
            answer[:] = np.eye(d)
        for k in range(d):
            shift[3 - d + k] += min(max(step[k], -longest), longest)
        if thin > 1:
            if longest_step < _NEAR:
                thin, boxed[0] = 1, np.inf
        elif longest_step < ((_CLOSE if sloped else _CLOSER) if near else tolerance):
            return SETTLED, done
    return (SETTLED if longest_step < 0.02 else MOVED), iterations


@kernel
def variances(normal, answer):
    """Return the variance (d,) of a shift in units of the noise; parameters as `fit_shift` fills them.

    With N the products of basis images and weights, and A how far a step goes for a unit of displacement, the solution
    has the covariance ``A^-1 N^-1 A^-T``.
    """
    d, count = answer.shape[0], normal.shape[0]
    even = 0.5 * (normal + normal.T)
    unit, column = np.zeros(count), np.zeros(count)
    some, part = np.zeros(d), np.zeros(d)
    inverse = np.full((count, count), np.nan)
    back = np.full((d, d), np.nan)
    for k in range(count):
        unit[:], unit[k] = 0.0, 1.0
        if solved(even, unit, column):
            inverse[:, k] = column
    for k in range(d):
        some[:], some[k] = 0.0, 1.0
        if solved(answer, some, part):
            back[:, k] = part
    out = np.zeros(d)
    for k in range(d):
        for i in range(d):
            for j in range(d):
                out[k] += back[k, i] * inverse[i, j] * back[k, j]
    return np.maximum(out, 0.0)


@kernel
def fit_whole(
    c, pad, volume, phi, scale, basis, whole, thinned, every, coefficients, known, noise, step,
    shift, tolerance, longest, iterations, answer,
):  # fmt: skip
    """Fit the shift of a whole frame, and judge it: `fit_shift`, the residuals and the standard error, in one call.

    Threads that work on a frame each then hardly wait for one another: Python is entered once a frame.

    Parameters
    ----------
    c, pad, phi, scale, basis, whole, thinned, every, shift, tolerance, longest, iterations, answer
        See `fit_shift`.
    volume : (z, y, x)
        The frame.
    coefficients, known : float32 (z, y, x)
        Of the template; volumes with one mirrored plane in front and two behind.
    noise : float64 (3,)
        Variance at zero, per intensity, and the least, of the template less its level.
    step : int
        Every which pixel is compared along each axis.

    Returns
    -------
    status : int
        See `fit_shift`.
    out : float64 (10,)
        Steps taken, gain, offset, pixels compared, correlation, mean squared residual, chi squared, and the variance of
        the shift along the axes in units of the noise.
    overlap : float
        Share of the template's weight in view.
    """
    count = phi.shape[0]
    d = count - 2
    normal, theta, out = np.zeros((count, count)), np.zeros(count), np.zeros(10)
    shape = np.array(volume.shape)
    status, done = fit_shift(
        c, pad, shape, phi, scale, basis, whole, thinned, every, shift, tolerance, longest, iterations, normal, theta,
        answer,
    )  # fmt: skip
    out[0] = done
    if status < 0:
        return status, out, 0.0
    out[1], out[2] = theta[d], theta[d + 1]
    there, first, last = shift.copy(), 0, shape[0]
    if d == 3:
        first = max(int(np.ceil(-shift[0] - 1e-6)), 0)
        last = max(min(int(np.floor(shape[0] - 1 - shift[0] + 1e-6)), shape[0] - 1) + 1, first)
        there[0] += first + 1.0
    nothing = np.zeros((1, 1, 1), np.float32)
    n, correlation, residual, chi2 = judged(
        volume[first:last], nothing, coefficients, known, there, theta[d:], noise, step
    )  # fmt: skip
    out[3], out[4], out[5], out[6] = n, correlation, residual, chi2
    out[7 : 7 + d] = variances(normal, answer)
    return status, out, normal[count - 1, count - 1] / whole[count - 1, count - 1]
