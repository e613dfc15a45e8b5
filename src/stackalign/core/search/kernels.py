"""Numba kernel of the search over all shifts of a whole frame: the correlation of what overlaps, and its peak.

What a frame holds of the overlap is a rectangle at every shift: running sums tell its mean and its square, where
masked frames need a Fourier transform each.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, inlined, kernel

_BACKGROUND = 2048  # shifts from which the height and the spread of chance correlation are told, at least


@inlined
def _running(image, power):
    """Return sums (z + 1, y + 1, x + 1) of the image, or of its square, over boxes that begin at the first pixel."""
    nz, ny, nx = image.shape
    out = np.zeros((nz + 1, ny + 1, nx + 1))
    for z in range(nz):
        for y in range(ny):
            line = 0.0
            for x in range(nx):
                value = float(image[z, y, x])
                line += value * value if power == 2 else value
                out[z + 1, y + 1, x + 1] = out[z, y + 1, x + 1] + out[z + 1, y, x + 1] - out[z, y, x + 1] + line
    return out


@inlined
def _shift(index, n, size):
    return index if index < n else index - size


@inlined
def _line(sums, z0, z1, y0, y1, out):
    """Reduce running sums to those along x of the box from (z0, y0) to (z1, y1)."""
    for x in range(out.shape[0]):
        out[x] = sums[z1, y1, x] - sums[z0, y1, x] - sums[z1, y0, x] + sums[z0, y0, x]


@fast_inlined
def _below(sums, squares, low, sign, share, out):
    """Fill ``out`` with n times the variance of a frame where a row of shifts along x overlaps; returns the largest.

    ``low`` is the first shift and ``sign`` its direction: the box then ends, or begins, where the frame does.
    """
    nx = sums.shape[0] - 1
    most = np.float32(0)
    for k in range(out.shape[0]):
        total = sums[nx - low - k] - sums[0] if sign > 0 else sums[nx] - sums[low - k]
        square = squares[nx - low - k] - squares[0] if sign > 0 else squares[nx] - squares[low - k]
        below = np.float32(square - total * total * share[k])
        out[k] = below
        most = max(most, below)
    return most


@fast_inlined
def _scored(sums, low, sign, mean, variance, root, least, both, score):
    """Turn ``score`` from n times the variance of the frame into Fisher's z over its standard deviation."""
    nx = sums.shape[0] - 1
    steep = np.float32(0)
    for k in range(score.shape[0]):
        total = np.float32(sums[nx - low - k] - sums[0] if sign > 0 else sums[nx] - sums[low - k])
        c = (both[k] - total * mean[k]) / np.sqrt(max(score[k] * variance[k], least))
        c = min(max(c, np.float32(-0.9999)), np.float32(0.9999))
        both[k] = c
        steep = max(steep, abs(c))
        # the series of the area tangent: what most shifts need, many at a time
        q = c * c
        z = np.float32(1 / 13)
        for n in (11, 9, 7, 5, 3):
            z = z * q + np.float32(1 / n)
        score[k] = (z * q + np.float32(1)) * c * root[k]
    if steep > np.float32(0.45):
        for k in range(score.shape[0]):
            c = both[k]
            if abs(c) > np.float32(0.45):
                score[k] = np.float32(0.5) * np.log((np.float32(1) + c) / (np.float32(1) - c)) * root[k]


@inlined
def _score_overlap(both, frame, allowed, share, mean, variance, root, most, score):
    """Turn the correlation of a frame with a template into that of the overlap at each shift.

    Parameters
    ----------
    both : float32 (Z, Y, X)
        Sum of products at each shift; becomes the Pearson correlation.
    frame : float32 (z, y, x)
        Without its mean.
    allowed : bool (Z, Y, X)
        Where a shift may be; elsewhere the score is minus infinity.
    share, mean, variance, root : float32 (Z, Y, X)
        Of the template: 1 / n, mean, n times variance and sqrt(n - 3) over the n pixels that overlap.
    most : float
        The largest of ``variance``.
    score : float32 (Z, Y, X)
        Filled with Fisher's z over its standard deviation: a small overlap correlates well by chance.
    """
    nz, ny, nx = frame.shape
    width = both.shape[2]
    first, second = _running(frame, 1), _running(frame, 2)
    sums, squares = np.empty(nx + 1), np.empty(nx + 1)
    # shifts to the right come first, those to the left last; between them nothing overlaps
    right, left = min(nx, width), max(width - nx + 1, nx)
    least = np.float32(0)
    for turn in range(2):  # how much contrast there is at most must be known before it is divided by
        for i in range(both.shape[0]):
            sz = _shift(i, nz, both.shape[0])
            for j in range(both.shape[1]):
                sy = _shift(j, ny, both.shape[1])
                if not allowed[i, j].any():
                    if turn == 1:
                        score[i, j] = -np.inf
                    continue
                z0, z1 = max(0, -sz), min(nz, nz - sz)
                y0, y1 = max(0, -sy), min(ny, ny - sy)
                _line(first, z0, z1, y0, y1, sums)
                if turn == 0:
                    _line(second, z0, z1, y0, y1, squares)
                    score[i, j] = 0.0
                    if allowed[i, j, :right].any():
                        top = _below(sums, squares, 0, 1, share[i, j, :right], score[i, j, :right])
                        least = max(least, top)
                    if allowed[i, j, left:].any():
                        top = _below(sums, squares, width - left, -1, share[i, j, left:], score[i, j, left:])
                        least = max(least, top)
                    continue
                for low, high, sign in ((0, right, 1), (left, width, -1)):
                    _scored(
                        sums, 0 if sign > 0 else width - left, sign, mean[i, j, low:high], variance[i, j, low:high],
                        root[i, j, low:high], least, both[i, j, low:high], score[i, j, low:high],
                    )  # fmt: skip
                for k in range(width):
                    if not allowed[i, j, k]:
                        score[i, j, k] = -np.inf
        if turn == 0:
            # a part of the frame without contrast correlates with anything: rounding must not make it a peak
            least = np.float32(max(1e-6 * least * max(most, 0.0), 1e-30))


@inlined
def _within(index, shape, size, limits):
    inside = True
    for a in range(3):
        inside = inside and abs(_shift(index[a], shape[a], size[a])) < limits[a]
    return inside


@inlined
def _highest(score, allowed, shape, limits, index):
    """Find the peak of a score, and how far it stands out.

    Parameters
    ----------
    score, allowed : float32 and bool (Z, Y, X)
        At each shift.
    shape : int64 (3,)
        Of the frame.
    limits : float64 (3,)
        Shifts below these are looked at. What is usual is told from all, as within a few pixels there is little but the
        peak itself.
    index : int64 (3,)
        Filled with the place of the peak.

    Returns
    -------
    significance, runner_up : float
        Height of the peak, and of the highest one elsewhere, over all shifts, in standard deviations of those.
    """
    size = np.array(score.shape)
    at = np.zeros(3, np.int64)
    count, top = 0, -np.inf
    for i in range(size[0]):
        for j in range(size[1]):
            for k in range(size[2]):
                if not allowed[i, j, k]:
                    continue
                count += 1
                if score[i, j, k] > top:
                    at[0], at[1], at[2] = i, j, k
                    if _within(at, shape, size, limits):
                        top = score[i, j, k]
                        index[:] = at
    step = max(count // _BACKGROUND, 1)
    background = np.empty((count + step - 1) // step)
    second, seen = -np.inf, 0
    for i in range(size[0]):
        for j in range(size[1]):
            for k in range(size[2]):
                if not allowed[i, j, k]:
                    continue
                if seen % step == 0:
                    background[seen // step] = score[i, j, k]
                seen += 1
                if score[i, j, k] > second:
                    at[0], at[1], at[2] = i, j, k
                    near = True
                    for a in range(3):
                        apart = abs(at[a] - index[a])
                        near = near and min(apart, size[a] - apart) <= 3
                    if not near and _within(at, shape, size, limits):
                        second = score[i, j, k]
    middle = np.median(background)
    spread = 1.4826 * np.median(np.abs(background - middle)) + 1e-12
    return (top - middle) / spread, (second - middle) / spread if second > -np.inf else 0.0


@inlined
def _parabola(score, index, axis):
    """Return how far from its whole pixel a peak lies along an axis, from the pixels beside it."""
    size = score.shape[axis]
    if size < 3:
        return 0.0
    before, after = index.copy(), index.copy()
    before[axis], after[axis] = (index[axis] - 1) % size, (index[axis] + 1) % size
    left = score[before[0], before[1], before[2]]
    right = score[after[0], after[1], after[2]]
    curve = left - 2 * score[index[0], index[1], index[2]] + right
    if not (np.isfinite(curve) and curve < 0):
        return 0.0
    return min(max(0.5 * (left - right) / curve, -0.5), 0.5)


@inlined
def _peak(score, correlation, allowed, shape, limits, out):
    index = np.zeros(3, np.int64)
    out[0], out[1] = _highest(score, allowed, shape, limits, index)
    out[2] = correlation[index[0], index[1], index[2]]
    for axis in range(3):
        out[3 + axis] = _shift(index[axis], shape[axis], score.shape[axis]) + _parabola(score, index, axis)


@kernel
def peak(score, correlation, allowed, shape, limits, out):
    """Find the peak of a score, and how far it stands out.

    Parameters
    ----------
    score, correlation : float32 (Z, Y, X)
        At each shift; the score may be minus infinity.
    allowed : bool (Z, Y, X)
    shape : int64 (3,)
        Of the frame.
    limits : float64 (3,)
        Shifts below these are looked at.
    out : float64 (6,)
        Filled with the height of the peak and of the highest one elsewhere, in standard deviations of all shifts, the
        correlation there, and the shift along the axes.
    """
    _peak(score, correlation, allowed, shape, limits, out)


@kernel
def overlap_peaks(both, frames, allowed, share, mean, variance, root, most, limits, out):
    """Turn the correlation of frames with a template into that of the overlap at each shift, and find the peaks.

    Parameters
    ----------
    both : float32 (n, Z, Y, X)
        Sums of products at each shift; become the Pearson correlations.
    frames : float32 (n, z, y, x)
        Without their means.
    allowed, share, mean, variance, root, most
        See `_score_overlap`.
    limits : float64 (3,)
    out : float64 (n, 6)
        See `peak`.
    """
    score, shape = np.empty_like(both[0]), np.array(frames[0].shape)
    for n in range(frames.shape[0]):
        _score_overlap(both[n], frames[n], allowed, share, mean, variance, root, most, score)
        _peak(score, both[n], allowed, shape, limits, out[n])
