"""Numba kernel of the noise estimate: the median size of numbers, without sorting them."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, inlined, kernel

_BINS = 1024
_MEDIAN_BINS = 512
_CROWDED = 0.02  # of all numbers: bins that hold more are too coarse
_RANGE = np.float32(4.0)  # times the mean size: beyond lies no median


@inlined
def binned_median(values, low, high):
    """Return the median of numbers most of which lie between two, without sorting them where bins are fine enough."""
    n, width = len(values), (high - low) / _MEDIAN_BINS
    if n < _MEDIAN_BINS or not width > 0.0:
        return np.median(values)
    count, below = np.zeros(_MEDIAN_BINS, np.int64), 0
    for k in range(n):
        place = (values[k] - low) / width
        if place < 0.0:
            below += 1
        elif place < _MEDIAN_BINS:
            count[int(place)] += 1
    half = 0.5 * n
    if below > half:
        return np.median(values)
    for k in range(_MEDIAN_BINS):
        if below + count[k] >= half:
            # outliers may spread the bins so far that most of the rest lies in a few
            if count[k] > _CROWDED * n:
                return np.median(values)
            return low + width * (k + (half - below) / count[k])  # spread evenly within a bin
        below += count[k]
    return np.median(values)


@fast_inlined
def _curves(a, b, c, out):
    two, total = np.float32(2), np.float32(0)
    for x in range(out.shape[0]):
        left = np.float32(a[x]) - two * np.float32(b[x]) + np.float32(c[x])
        here = np.float32(a[x + 1]) - two * np.float32(b[x + 1]) + np.float32(c[x + 1])
        right = np.float32(a[x + 2]) - two * np.float32(b[x + 2]) + np.float32(c[x + 2])
        size = abs(left - two * here + right)
        out[x] = size
        total += size
    return total


@inlined
def _finite(line):
    count = 0
    for x in range(line.shape[0]):
        count += line[x] < np.inf
    return count


@inlined
def middle_curve(image, planes, rows):
    """Return what `median_curve` does; for other kernels."""
    height, width = image.shape[1] - 2, image.shape[2] - 2
    deep, step = max(image.shape[0] // planes, 1), max(height // rows, 1)
    lines = (image.shape[0] + deep - 1) // deep * ((height + step - 1) // step)
    size, line = np.empty(max(lines * width, 0), np.float32), np.empty(width, np.float32)
    n = 0
    total = np.float64(0)
    for z in range(0, image.shape[0], deep):
        for y in range(0, height, step):
            part = _curves(image[z, y], image[z, y + 1], image[z, y + 2], line)
            if _finite(line) == width:  # fast arithmetic must not be asked: it holds that there are no NaN
                for x in range(width):
                    size[n + x] = line[x]
                n += width
                total += part
                continue
            for x in range(width):
                if line[x] < np.inf:
                    size[n] = line[x]
                    n += 1
                    total += line[x]
    if n == 0:
        return np.nan
    if total == 0.0:
        return 0.0
    # a histogram up to a few times the mean holds the median; within its bin values are taken to be spread evenly
    bin_size = _RANGE * np.float32(total / n) / np.float32(_BINS)
    scale = np.float32(1) / bin_size
    count, zeros = np.zeros(_BINS + 1, np.int64), 0
    for k in range(n):
        zeros += size[k] == 0
        count[int(min(size[k] * scale, np.float32(_BINS)))] += 1
    half = 0.5 * n
    if zeros > half:
        return 0.0
    below_bin = 0
    for k in range(_BINS):
        if below_bin + count[k] >= half:
            return float(bin_size) * (k + (half - below_bin) / count[k])
        below_bin += count[k]
    return float(bin_size) * _BINS


@kernel
def median_curve(image, planes, rows):
    """Return the median absolute second difference along both axes; NaN do not count, and NaN comes of nothing.

    Parameters
    ----------
    image : (z, y, x)
    planes, rows : int
        How many of them are looked at, spread evenly, if there are more.
    """
    return middle_curve(image, planes, rows)
