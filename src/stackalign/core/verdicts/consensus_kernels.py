"""Numba kernels of the consensus: what the blocks of a reference say, and holes where they contradict."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, inlined, kernel
from stackalign.core.frames.reduction_kernels import block_means
from stackalign.core.translation.projection_kernels import combined, tapped
from stackalign.core.warping.kernels import POLES, filter_columns, filter_rows

_CUBIC = POLES[3]


@inlined
def _slope(before, here, after, first, last):
    """Return the central difference; one-sided at the ends."""
    if first:
        return after - here
    if last:
        return here - before
    return np.float32(0.5) * (after - before)


@inlined
def _inverse(m, out):
    """Invert a symmetric matrix (3, 3) by its cofactors; False if it is singular."""
    out[0, 0] = m[1, 1] * m[2, 2] - m[1, 2] * m[1, 2]
    out[0, 1] = m[0, 2] * m[1, 2] - m[0, 1] * m[2, 2]
    out[0, 2] = m[0, 1] * m[1, 2] - m[0, 2] * m[1, 1]
    out[1, 1] = m[0, 0] * m[2, 2] - m[0, 2] * m[0, 2]
    out[1, 2] = m[0, 1] * m[0, 2] - m[0, 0] * m[1, 2]
    out[2, 2] = m[0, 0] * m[1, 1] - m[0, 1] * m[0, 1]
    whole = m[0, 0] * out[0, 0] + m[0, 1] * out[0, 1] + m[0, 2] * out[0, 2]
    if not whole > 1e-12 * m[0, 0] * m[1, 1] * m[2, 2]:
        return False
    for i in range(3):
        for j in range(i, 3):
            out[i, j] /= whole
            out[j, i] = out[i, j]
    return True


@inlined
def _sums(laid, fixed, gain, offset, out):
    """Add up, for each block: gradient products with each other and with the rest, and squares; see `ask`."""
    height, width = fixed.shape
    blocks = out.shape[0]
    scale = 1.0 / gain
    for y in range(height):
        row = y * blocks // height
        up, down = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            left, right = max(x - 1, 0), min(x + 1, width - 1)
            v = fixed[y, x]
            e = (laid[y, x] - offset) * scale - v
            gy = _slope(fixed[up, x], v, fixed[down, x], y == 0, y == height - 1)
            gx = _slope(fixed[y, left], v, fixed[y, right], x == 0, x == width - 1)
            if not np.isfinite(gy + gx + v + e):
                continue
            to = out[row, x * blocks // width]
            to[0] += gy * gy
            to[1] += gy * gx
            to[2] += gy
            to[3] += gx * gx
            to[4] += gx
            to[5] += 1.0
            to[6] += gy * e
            to[7] += gx * e
            to[8] += e
            to[9] += e * e
            to[10] += v
            to[11] += v * v


@inlined
def _ask(laid, fixed, gain, offset, noise, scale, limits, told, still):
    """Tell which blocks of an image agree with another one that was laid on it.

    A step of a shift and an offset, by least squares in each block, tells how far it would rather go.

    Parameters
    ----------
    laid, fixed : float32 (y, x)
        NaN do not count.
    gain, offset : float
        Of the first against the second.
    noise : float
        Variance of the noise of both together.
    scale : float64 (2,)
        Pixels of the full size along each axis of these images.
    limits : float64 (5,)
        Least number of pixels; standard error that noise allows, px, below which a block could tell; share of a block's
        contrast that may be left of it; standard error found above which it contradicts; how far it may want to go.
    told, still : bool (blocks, blocks)
        Filled with whether a block could tell, and whether it stays.
    """
    sums = np.zeros((*told.shape, 12))
    _sums(laid, fixed, gain, offset, sums)
    normal, inverse, step, right = np.empty((3, 3)), np.empty((3, 3)), np.empty(3), np.empty(3)
    for j in range(told.shape[0]):
        for i in range(told.shape[1]):
            s = sums[j, i]
            told[j, i] = still[j, i] = False
            count = s[5]
            if count < limits[0]:
                continue
            normal[0, 0], normal[0, 1], normal[0, 2] = s[0], s[1], s[2]
            normal[1, 0], normal[1, 1], normal[1, 2] = s[1], s[3], s[4]
            normal[2, 0], normal[2, 1], normal[2, 2] = s[2], s[4], count
            if not _inverse(normal, inverse):
                continue
            right[0], right[1], right[2] = s[6], s[7], s[8]
            explained = 0.0
            for k in range(3):
                step[k] = inverse[k, 0] * right[0] + inverse[k, 1] * right[1] + inverse[k, 2] * right[2]
                explained += step[k] * right[k]
            left = max(s[9] - explained, 0.0) / max(count - 3, 1)
            unit = max(np.sqrt(inverse[0, 0]) * scale[0], np.sqrt(inverse[1, 1]) * scale[1])
            if not unit * np.sqrt(noise) < limits[1]:
                continue
            told[j, i] = True
            # two patches that have nothing in common differ by twice their contrast, the same patch next to nothing
            contrast, differs = s[11] - s[10] ** 2 / count, s[9] - s[8] ** 2 / count
            error = unit * np.sqrt(max(left, noise))
            away = np.sqrt((step[0] * scale[0]) ** 2 + (step[1] * scale[1]) ** 2)
            alike = differs - noise * count < limits[2] * contrast
            still[j, i] = alike and error < limits[3] and away < limits[4] + 2 * error


@fast_inlined
def _weigh(row, weight, line):
    for x in range(line.shape[0]):
        line[x] += weight * np.float32(row[x])


@fast_inlined
def _shifted_row(frame, y0, fraction, count, x0, line):
    """Add up ``count`` rows, shifted by a fraction of one, from column ``x0`` on."""
    line[:] = 0
    end = x0 + line.shape[0]
    for k in range(count + 1):
        weight = np.float32(1 - fraction if k == 0 else fraction if k == count else 1)
        if weight > 0:
            _weigh(frame[y0 + k, x0:end], weight, line)


@inlined
def _lay_shifted(frame, sy, sx, fy, fx, out):
    """As `_lay`, for a shift: a box of pixels moved by a fraction is a box with lighter ends."""
    height, width = frame.shape
    ny, nx = int(np.floor(sy)), int(np.floor(sx))
    fraction_y, fraction_x = sy - ny, np.float32(sx - nx)
    scale = np.float32(1.0 / (fy * fx))
    rest_y, rest_x = int(fraction_y > 0), int(fraction_x > 0)
    first = min(max(-(nx // fx), 0), out.shape[1])  # the first block that begins within the frame
    last = max(min((width - rest_x - nx) // fx, out.shape[1]), first)
    line = np.empty((last - first) * fx + rest_x, np.float32)
    for y in range(out.shape[0]):
        out[y] = np.nan
        y0 = y * fy + ny
        if y0 < 0 or y0 + fy + rest_y > height or last <= first:
            continue
        _shifted_row(frame, y0, fraction_y, fy, first * fx + nx, line)
        for x in range(first, last):
            at = (x - first) * fx
            total = (np.float32(1) - fraction_x) * line[at]
            for k in range(1, fx):
                total += line[at + k]
            if rest_x:
                total += fraction_x * line[at + fx]
            out[y, x] = scale * total


@inlined
def _is_shift(m):
    return m[0, 0] == 1 and m[1, 1] == 1 and m[0, 1] == 0 and m[1, 0] == 0 and m[2, 0] == 0 and m[2, 1] == 0


@inlined
def _lay(frame, backward, fy, fx, out):
    """Fill ``out`` with the mean over blocks of a frame that is laid on a reference; NaN where a block is not covered.

    A reduced frame cannot be moved instead: what is finer than its pixels would be taken for motion.

    Parameters
    ----------
    frame : (Y, X)
        Read between its pixels by linear interpolation.
    backward : float64 (3, 3)
        Reference -> frame, pixels.
    fy, fx : int
        Pixels of a block along each axis.
    out : float32 (y, x)
    """
    m = backward
    if _is_shift(m):
        _lay_shifted(frame, m[0, 2], m[1, 2], fy, fx, out)
        return
    height, width = frame.shape
    scale = 1.0 / (fy * fx)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            total, within = 0.0, True
            for j in range(y * fy, (y + 1) * fy):
                for i in range(x * fx, (x + 1) * fx):
                    depth = 1.0 / (m[2, 0] * j + m[2, 1] * i + m[2, 2])
                    v = (m[0, 0] * j + m[0, 1] * i + m[0, 2]) * depth
                    u = (m[1, 0] * j + m[1, 1] * i + m[1, 2]) * depth
                    if not (0 <= v <= height - 1 and 0 <= u <= width - 1):
                        within = False
                        break
                    a, b = min(int(v), height - 2), min(int(u), width - 2)
                    p, q = v - a, u - b
                    top = (1 - q) * frame[a, b] + q * frame[a, b + 1]
                    total += (1 - p) * top + p * ((1 - q) * frame[a + 1, b] + q * frame[a + 1, b + 1])
                if not within:
                    break
            out[y, x] = total * scale if within else np.nan


@inlined
def _taps(place, n, index, weight):
    """Fill ``index`` with the four pixels around a place on a line of ``n``, mirrored, and ``weight`` with theirs."""
    whole = min(int(place), max(n - 2, 0))
    t = np.float32(place - whole)
    s = np.float32(1) - t
    sixth, two_thirds = np.float32(1 / 6), np.float32(2 / 3)
    weight[0], weight[3] = sixth * s * s * s, sixth * t * t * t
    weight[1] = two_thirds - np.float32(0.5) * t * t * (np.float32(2) - t)
    weight[2] = two_thirds - np.float32(0.5) * s * s * (np.float32(2) - s)
    for k in range(4):
        at = abs(whole - 1 + k)
        index[k] = at if at < n else 2 * n - 2 - at


@inlined
def _read_shifted(c, sy, sx, out):
    """Fill ``out`` with a cubic spline of coefficients ``c`` at places that are shifted; NaN beyond its borders."""
    height, width = c.shape
    rows, columns = np.empty(4, np.int64), np.empty(4, np.int64)
    wy, wx = np.empty(4, np.float32), np.empty(4, np.float32)
    first = min(max(int(np.ceil(-sx)), 0), out.shape[1])  # the first column within the image
    last = max(min(int(np.floor(width - 1 - sx)) + 1, out.shape[1]), first)
    line = np.empty(last - first + 3, np.float32)
    start = int(np.floor(first + sx)) - 1
    _taps(first + sx - start, 4, columns, wx)
    for y in range(out.shape[0]):
        out[y] = np.nan
        if not 0 <= y + sy <= height - 1 or last <= first:
            continue
        _taps(y + sy, height, rows, wy)
        combined(c[rows[0]], c[rows[1]], c[rows[2]], c[rows[3]], start, wy, line)
        tapped(line, wx, out[y, first:last])


@inlined
def _lay_fine(frame, backward, fy, fx, out):
    """Fill ``out`` with a frame that is reduced and laid on a reference by its cubic spline; NaN beyond the frame.

    Parameters
    ----------
    frame : (Y, X)
    backward : float64 (3, 3)
        Reference -> frame, reduced pixels.
    fy, fx : int
        Pixels of a block along each axis.
    out : float32 (y, x)
    """
    height, width = frame.shape[0] // fy, frame.shape[1] // fx
    small = np.empty((1, height, width), np.float32)
    block_means(frame.reshape((1, frame.shape[0], frame.shape[1])), 1, fy, fx, small)
    c = small[0]
    filter_columns(c, 0, width, _CUBIC)
    filter_rows(c, 0, height, _CUBIC)
    m = backward
    if _is_shift(m):
        _read_shifted(c, m[0, 2], m[1, 2], out)
        return
    rows, columns = np.empty(4, np.int64), np.empty(4, np.int64)
    wy, wx = np.empty(4, np.float32), np.empty(4, np.float32)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            depth = 1.0 / (m[2, 0] * y + m[2, 1] * x + m[2, 2])
            v = (m[0, 0] * y + m[0, 1] * x + m[0, 2]) * depth
            u = (m[1, 0] * y + m[1, 1] * x + m[1, 2]) * depth
            out[y, x] = np.nan
            if not (0 <= v <= height - 1 and 0 <= u <= width - 1):
                continue
            _taps(v, height, rows, wy)
            _taps(u, width, columns, wx)
            total = np.float32(0)
            for j in range(4):
                line = c[rows[j]]
                total += wy[j] * (
                    wx[0] * line[columns[0]]
                    + wx[1] * line[columns[1]]
                    + wx[2] * line[columns[2]]
                    + wx[3] * line[columns[3]]
                )
            out[y, x] = total


@kernel
def lay(frame, backward, fy, fx, out):
    """Fill ``out`` with the mean over blocks of a frame that is laid on a reference; see `_lay`."""
    _lay(frame, backward, fy, fx, out)


@kernel
def ask(laid, fixed, gain, offset, noise, scale, limits, told, still):
    """Tell which blocks of an image agree with another one that was laid on it; see `_ask`."""
    _ask(laid, fixed, gain, offset, noise, scale, limits, told, still)


@kernel
def ask_frames(frames, fine, backwards, factors, fixed, brightness, noise, limits, told, still):
    """Lay frames without holes on a reference, and tell which of its blocks each agrees with.

    Parameters
    ----------
    frames : (n, Y, X)
    fine : bool
        Whether blocks are so small that frames are reduced first and read by a spline.
    backwards : float64 (n, 3, 3)
        Reference -> frame; in reduced pixels if ``fine``.
    factors : int64 (2,)
        Pixels of a block along each axis.
    fixed : float32 (y, x)
        The reduced reference.
    brightness : float64 (n, 2)
        Gain and offset of each frame against it.
    noise : float64 (n,)
        Variance of the noise of frame and reference together, reduced.
    limits : float64 (5,)
        See `_ask`.
    told, still : bool (n, blocks, blocks)
        Filled; see `_ask`.
    """
    laid, scale = np.empty_like(fixed), factors.astype(np.float64)
    for n in range(frames.shape[0]):
        if fine:
            _lay_fine(frames[n], backwards[n], factors[0], factors[1], laid)
        else:
            _lay(frames[n], backwards[n], factors[0], factors[1], laid)
        _ask(laid, fixed, brightness[n, 0], brightness[n, 1], noise[n], scale, limits, told[n], still[n])


@kernel
def punch(image, matrix, wrong, shape):
    """Write NaN into an image where it lies on blocks that contradict.

    Parameters
    ----------
    image : float32 (y, x)
        Changed in place.
    matrix : float64 (3, 3)
        Image -> reference.
    wrong : bool (blocks along y, along x)
    shape : int64 (2,)
        Of the reference.
    """
    rows, columns = wrong.shape
    sy, sx = rows / shape[0], columns / shape[1]
    for y in range(image.shape[0]):
        ay = matrix[0, 0] * y + matrix[0, 2]
        ax = matrix[1, 0] * y + matrix[1, 2]
        az = matrix[2, 0] * y + matrix[2, 2]
        for x in range(image.shape[1]):
            depth = 1.0 / (az + matrix[2, 1] * x)
            j = min(max(int((ay + matrix[0, 1] * x) * depth * sy), 0), rows - 1)
            i = min(max(int((ax + matrix[1, 1] * x) * depth * sx), 0), columns - 1)
            if wrong[j, i]:
                image[y, x] = np.nan
