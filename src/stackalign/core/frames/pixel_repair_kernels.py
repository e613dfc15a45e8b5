"""Numba kernels that find single pixels that differ from all around them, and replace them."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, inlined, kernel

_SHARP = 5.0  # times the range of the middle neighbours: a point of light of .6 px (one sigma) stays below
_ABOVE = 3.0  # deviations of the noise


@inlined
def _sorted_in(values, count, value):
    """Insert a value into the first ``count`` values, which are sorted."""
    k = count
    while k > 0 and values[k - 1] > value:
        values[k] = values[k - 1]
        k -= 1
    values[k] = value


@inlined
def _neighbours(plane, y, x, values):
    """Fill ``values`` with the sorted known neighbours of a pixel; returns how many there are."""
    count = 0
    for j in range(max(y - 1, 0), min(y + 2, plane.shape[0])):
        for i in range(max(x - 1, 0), min(x + 2, plane.shape[1])):
            if (j != y or i != x) and np.isfinite(np.float64(plane[j, i])):
                _sorted_in(values, count, np.float64(plane[j, i]))
                count += 1
    return count


@inlined
def _stands_out(plane, y, x, noise, values):
    """Return whether a pixel differs from all around it.

    Two neighbours may differ as well: hot pixels have hot neighbours at times, and cosmic rays leave tracks.
    """
    height, width = plane.shape
    up, down = (y - 1 if y > 0 else y + 1), (y + 1 if y < height - 1 else y - 1)
    left, right = (x - 1 if x > 0 else x + 1), (x + 1 if x < width - 1 else x - 1)
    v, beyond = np.float64(plane[y, x]), _ABOVE * noise
    a, b = np.float64(plane[up, x]), np.float64(plane[down, x])
    c, d = np.float64(plane[y, left]), np.float64(plane[y, right])
    over = (v - a > beyond) + (v - b > beyond) + (v - c > beyond) + (v - d > beyond)
    under = (a - v > beyond) + (b - v > beyond) + (c - v > beyond) + (d - v > beyond)
    if over < 2 and under < 2:  # most pixels end here
        return False
    count = _neighbours(plane, y, x, values)
    if count < 3:
        return False
    middle = 0.5 * (values[(count - 1) // 2] + values[count // 2])
    cut = min(2, (count - 2) // 2)
    if v > middle:
        apart = values[count - 1 - cut] - values[cut - 1 if cut > 0 else 0]
    else:
        apart = values[count - cut if cut > 0 else count - 1] - values[cut]
    return abs(v - middle) > _SHARP * apart + _ABOVE * noise


@fast_inlined
def _suspected(row, up, down, beyond, out):
    """Mark the pixels of a row, but for its ends, that at least two neighbours differ from alike: many at a time."""
    beyond *= np.float32(0.9999)  # rounding must not lose what `_stands_out` would keep
    for x in range(1, row.shape[0] - 1):
        v = np.float32(row[x])
        a, b = v - np.float32(up[x]), v - np.float32(down[x])
        c, d = v - np.float32(row[x - 1]), v - np.float32(row[x + 1])
        over = np.int32(a > beyond) + np.int32(b > beyond) + np.int32(c > beyond) + np.int32(d > beyond)
        under = np.int32(a < -beyond) + np.int32(b < -beyond) + np.int32(c < -beyond) + np.int32(d < -beyond)
        out[x] = max(over, under) > 1


@kernel
def outliers(planes, noise, out):
    """Mark pixels that differ from all around them.

    Parameters
    ----------
    planes : (z, y, x)
        Looked at plane by plane.
    noise : float
        Standard deviation of a pixel.
    out : bool (z, y, x)
        True is written where a pixel stands out.
    """
    values = np.empty(9)
    depth, height, width = planes.shape
    suspect = np.ones(width, np.bool_)
    for z in range(depth):
        plane = planes[z]
        for y in range(height):
            up, down = (y - 1 if y > 0 else y + 1), (y + 1 if y < height - 1 else y - 1)
            _suspected(plane[y], plane[up], plane[down], np.float32(_ABOVE * noise), suspect)
            for x in range(width):
                if suspect[x] and _stands_out(plane, y, x, noise, values):
                    out[z, y, x] = True


@kernel
def outliers_among(planes, noise, places):
    """Return which of some pixels (N,), counted through all planes, differ from all around them; see `outliers`."""
    values, found = np.empty(9), np.zeros(len(places), np.bool_)
    height, width = planes.shape[1:]
    for k in range(len(places)):
        z, rest = places[k] // (height * width), places[k] % (height * width)
        found[k] = _stands_out(planes[z], rest // width, rest % width, noise, values)
    return found


@kernel
def refilled(planes, bad, which, out):
    """Write the median of good neighbours into bad pixels.

    Parameters
    ----------
    planes : (z, y, x)
    bad : bool (z, y, x)
    which : int64 (N,)
        Places of the bad pixels in the flat array.
    out : (z, y, x)
        A copy of the planes.
    """
    height, width = planes.shape[1], planes.shape[2]
    values = np.empty(81)
    for k in range(len(which)):
        z, rest = which[k] // (height * width), which[k] % (height * width)
        y, x = rest // width, rest % width
        for reach in range(1, 5):
            count = 0
            for j in range(max(y - reach, 0), min(y + reach + 1, height)):
                for i in range(max(x - reach, 0), min(x + reach + 1, width)):
                    if not bad[z, j, i] and np.isfinite(np.float64(planes[z, j, i])):
                        _sorted_in(values, count, np.float64(planes[z, j, i]))
                        count += 1
            if count >= 3:
                out[z, y, x] = values[count // 2]
                break
