"""Numba kernel of the search over all shifts of a whole frame: the correlation of what overlaps, and its peak.

What a frame holds of the overlap is a rectangle at every shift: running sums tell its mean and its square, where
masked frames need a Fourier transform each.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, inlined, kernel
from stackalign.core.frames.noise_kernels import binned_median

NOWHERE = np.float32(-1e30)  # the score of a shift that may not be


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
def _scored(sums, squares, low, sign, share, mean, variance, root, least, both, score):
    """Fill ``score`` with Fisher's z over its standard deviation where a row of shifts along x overlaps.

    ``low`` is the first shift and ``sign`` its direction: the box then ends, or begins, where the frame does.
    """
    nx = sums.shape[0] - 1
    steep = np.float32(0)  # counted: the largest one could not be found many at a time
    for k in range(score.shape[0]):
        total = sums[nx - low - k] - sums[0] if sign > 0 else sums[nx] - sums[low - k]
        square = squares[nx - low - k] - squares[0] if sign > 0 else squares[nx] - squares[low - k]
        below = np.float32(square - total * total * share[k])
        c = (both[k] - np.float32(total) * mean[k]) / np.sqrt(max(below * variance[k], least))
        c = min(max(c, np.float32(-0.9999)), np.float32(0.9999))
        both[k] = c
        steep += np.float32(1) if abs(c) > np.float32(0.45) else np.float32(0)
        # the series of the area tangent: what most shifts need, many at a time
        q = c * c
        z = np.float32(1 / 13)
        for n in (11, 9, 7, 5, 3):
            z = z * q + np.float32(1 / n)
        score[k] = (z * q + np.float32(1)) * c * root[k]
    if steep > 0:
        for k in range(score.shape[0]):
            c = both[k]
            if abs(c) > np.float32(0.45):
                score[k] = np.float32(0.5) * np.log((np.float32(1) + c) / (np.float32(1) - c)) * root[k]


@inlined
def _score_overlap(both, frame, reach, share, mean, variance, root, most, score):
    """Turn the correlation of a frame with a template into that of the overlap at each shift.

    Parameters
    ----------
    both : float32 (Z, Y, X)
        Sum of products at each shift; becomes the Pearson correlation where a shift may be.
    frame : float32 (z, y, x)
        Without its mean.
    reach : int64 (Z, Y, 2)
        How many shifts along x may be, to the right and to the left; elsewhere the score is `NOWHERE`.
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
    # a part of the frame without contrast correlates with anything: rounding must not make it a peak. No part has more
    # of it than the whole
    whole = second[nz, ny, nx] - first[nz, ny, nx] ** 2 / frame.size
    least = np.float32(max(1e-6 * whole * max(most, 0.0), 1e-30))
    for i in range(both.shape[0]):
        sz = _shift(i, nz, both.shape[0])
        for j in range(both.shape[1]):
            right, left = reach[i, j, 0], reach[i, j, 1]
            score[i, j, right : width - left] = NOWHERE
            if right + left == 0:
                continue
            sy = _shift(j, ny, both.shape[1])
            z0, z1 = max(0, -sz), min(nz, nz - sz)
            y0, y1 = max(0, -sy), min(ny, ny - sy)
            _line(first, z0, z1, y0, y1, sums)
            _line(second, z0, z1, y0, y1, squares)
            for low, high, sign in ((0, right, 1), (width - left, width, -1)):
                _scored(
                    sums, squares, 0 if sign > 0 else left, sign, share[i, j, low:high], mean[i, j, low:high],
                    variance[i, j, low:high], root[i, j, low:high], least, both[i, j, low:high], score[i, j, low:high],
                )  # fmt: skip


@inlined
def _within(index, shape, size, limits):
    inside = True
    for a in range(3):
        inside = inside and abs(_shift(index[a], shape[a], size[a])) < limits[a]
    return inside


@fast_inlined
def _any_above(row, level):
    count = np.float32(0)
    for x in range(row.shape[0]):
        count += np.float32(1) if row[x] > level else np.float32(0)
    return count > 0


@inlined
def _highest_in(score, shape, limits, index, apart, least):
    """Return the highest score within ``limits`` and over ``least``, and ``apart`` pixels from ``index`` along an axis.

    ``index`` is filled with its place if it may be anywhere (``apart`` 0).
    """
    size = np.array(score.shape)
    at, found = np.zeros(3, np.int64), index.copy()
    top = least
    for i in range(size[0]):
        for j in range(size[1]):
            if not _any_above(score[i, j], top):
                continue
            for k in range(size[2]):
                if not score[i, j, k] > top:
                    continue
                at[0], at[1], at[2] = i, j, k
                near = apart > 0
                for a in range(3):
                    way = abs(at[a] - index[a])
                    near = near and min(way, size[a] - way) < apart
                if not near and _within(at, shape, size, limits):
                    top = score[i, j, k]
                    found[:] = at
    if apart == 0:
        index[:] = found
    return top


@inlined
def _highest(score, places, shape, limits, index):
    """Find the peak of a score, and how far it stands out.

    Parameters
    ----------
    score : float32 (Z, Y, X)
        At each shift; `NOWHERE` where it may not be.
    places : int64 (N,)
        Places of shifts, counted through all, from which it is told what is usual: as many as there are, or some of
        these spread evenly.
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
    top = _highest_in(score, shape, limits, index, 0, NOWHERE)
    second = _highest_in(score, shape, limits, index, 4, NOWHERE)
    flat, background = score.reshape(-1), np.empty(len(places), np.float32)
    for k in range(len(places)):
        background[k] = flat[places[k]]
    reach = 4.0 * background.std()
    middle = binned_median(background, background.mean() - reach, background.mean() + reach)
    spread = 1.4826 * binned_median(np.abs(background - middle), 0.0, reach) + 1e-12
    return (top - middle) / spread, (second - middle) / spread if second > NOWHERE else 0.0


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
    if not (min(left, right) > NOWHERE and curve < 0):
        return 0.0
    return min(max(0.5 * (left - right) / curve, -0.5), 0.5)


@inlined
def _peak(score, correlation, places, shape, limits, out):
    index = np.zeros(3, np.int64)
    out[0], out[1] = _highest(score, places, shape, limits, index)
    out[2] = correlation[index[0], index[1], index[2]]
    for axis in range(3):
        out[3 + axis] = _shift(index[axis], shape[axis], score.shape[axis]) + _parabola(score, index, axis)


@kernel
def peak(score, correlation, places, shape, limits, out):
    """Find the peak of a score, and how far it stands out.

    Parameters
    ----------
    score, correlation : float32 (Z, Y, X)
        At each shift; the score is `NOWHERE` where a shift may not be.
    places : int64 (N,)
        See `_highest`.
    shape : int64 (3,)
        Of the frame.
    limits : float64 (3,)
        Shifts below these are looked at.
    out : float64 (6,)
        Filled with the height of the peak and of the highest one elsewhere, in standard deviations of all shifts, the
        correlation there, and the shift along the axes.
    """
    _peak(score, correlation, places, shape, limits, out)


@kernel
def overlap_peaks(both, frames, reach, places, share, mean, variance, root, most, limits, out):
    """Turn the correlation of frames with a template into that of the overlap at each shift, and find the peaks.

    Parameters
    ----------
    both : float32 (n, Z, Y, X)
        Sums of products at each shift; become the Pearson correlations where shifts may be.
    frames : float32 (n, z, y, x)
        Without their means.
    reach, share, mean, variance, root, most
        See `_score_overlap`.
    places : int64 (N,)
        See `_highest`.
    limits : float64 (3,)
    out : float64 (n, 6)
        See `peak`.
    """
    score, shape = np.empty_like(both[0]), np.array(frames[0].shape)
    for n in range(frames.shape[0]):
        _score_overlap(both[n], frames[n], reach, share, mean, variance, root, most, score)
        _peak(score, both[n], places, shape, limits, out[n])
