"""Numba kernel of the search over all shifts of a whole frame: the correlation of what overlaps, and its peak.

What a frame holds of the overlap is a rectangle at every shift: running sums tell its mean and its square, where
masked frames need a Fourier transform each.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import inlined, kernel

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


@kernel
def score_overlap(both, frame, allowed, share, mean, variance, root, most, score):
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
    first, second = _running(frame, 1), _running(frame, 2)
    sums, squares = np.empty(nx + 1), np.empty(nx + 1)
    least = 0.0
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
                _line(second, z0, z1, y0, y1, squares)
                for k in range(both.shape[2]):
                    if not allowed[i, j, k]:
                        score[i, j, k] = -np.inf
                        continue
                    sx = _shift(k, nx, both.shape[2])
                    x0, x1 = max(0, -sx), min(nx, nx - sx)
                    total = sums[x1] - sums[x0]
                    below = squares[x1] - squares[x0] - total * total * share[i, j, k]
                    if turn == 0:
                        least = max(least, below)
                        continue
                    # a part of the frame without contrast correlates with anything: rounding must not make it a peak
                    below = max(below * variance[i, j, k], least)
                    c = (both[i, j, k] - total * mean[i, j, k]) / np.sqrt(below)
                    c = min(max(c, -0.9999), 0.9999)
                    both[i, j, k] = c
                    score[i, j, k] = 0.5 * np.log((1.0 + c) / (1.0 - c)) * root[i, j, k]
        if turn == 0:
            least = max(1e-6 * least * max(most, 0.0), 1e-30)


@inlined
def _within(index, shape, size, limits):
    inside = True
    for a in range(3):
        inside = inside and abs(_shift(index[a], shape[a], size[a])) < limits[a]
    return inside


@kernel
def highest(score, allowed, shape, limits, index):
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
