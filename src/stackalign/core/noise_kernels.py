"""Numba kernel of the noise estimate: the median size of numbers, without sorting them."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import kernel

_BINS = 1024
_RANGE = np.float32(4.0)  # times the mean size: beyond lies no median


@kernel
def median_curve(above, middle, below):
    """Return the median absolute second difference along both axes; NaN do not count, and NaN comes of nothing.

    Parameters
    ----------
    above, middle, below : float32 (N, x)
        Rows, with those before and after them.
    """
    rows, width = above.shape[0], above.shape[1] - 2
    size = np.empty(max(rows * width, 0), np.float32)
    n = 0
    total = 0.0
    for y in range(rows):
        a, b, c = above[y], middle[y], below[y]
        part = np.float32(0)
        for x in range(width):
            left = a[x] - np.float32(2) * b[x] + c[x]
            here = a[x + 1] - np.float32(2) * b[x + 1] + c[x + 1]
            right = a[x + 2] - np.float32(2) * b[x + 2] + c[x + 2]
            value = abs(left - np.float32(2) * here + right)
            if value < np.inf:
                size[n] = value
                n += 1
                part += value
        total += part
    if n == 0:
        return np.nan
    if total == 0.0:
        return 0.0
    # a histogram up to a few times the mean holds the median; within its bin values are taken to be spread evenly
    step = _RANGE * np.float32(total / n) / np.float32(_BINS)
    scale = np.float32(1) / step
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
            return float(step) * (k + (half - below_bin) / count[k])
        below_bin += count[k]
    return float(step) * _BINS
