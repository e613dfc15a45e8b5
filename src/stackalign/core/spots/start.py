"""Starting values of a spot fit, from the region above half height around the extremum; patch pixels (y, x)."""

# mypy: allow-untyped-defs, allow-untyped-calls
# numba infers the types of what it compiles
from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, inlined, kernel
from stackalign.core.spots.approximations import bits, number
from stackalign.core.spots.moments import CIRCULAR, ROTATED

_F = np.float32
_ZERO, _HALF, _ONE = _F(0), _F(0.5), _F(1)


@kernel
def _sorted_middle(a, b, c, d):
    """Return the mean of the two middle ones of four numbers, which one neighbour at the border cannot spoil."""
    return (a + b + c + d - max(max(a, b), max(c, d)) - min(min(a, b), min(c, d))) / 2.0


@kernel
def rim_weights(h, w, out):
    """Write a weight of each pixel: 1 in the middle, .2 in the corners. A box is drawn around its spot."""
    cy, cx = (h - 1) / 2, (w - 1) / 2
    for i in range(h):
        for j in range(w):
            out[i * w + j] = 1.0 - 0.4 * ((i - cy) / cy) ** 2 - 0.4 * ((j - cx) / cx) ** 2


@fast_inlined
def weigh_rim(smooth, base, rim, out):
    """Write the contrast, less towards the rim; return its greatest and least value, if they are above and below 0."""
    high = low = np.int32(-(2**31))
    for k in range(rim.shape[0]):
        v = (smooth[k] - base) * rim[k]
        out[k] = v
        # of whole numbers LLVM makes vector code, of the numbers themselves not: one might be NaN
        high = max(high, bits(v))
        low = max(low, bits(-v))
    return number(high), -number(low)


@inlined
def side(data, mask, first, step, count):
    """Return how many pixels of a border count, and their sum."""
    n = s = 0.0
    for k in range(count):
        n += mask[first + k * step]
        s += data[first + k * step] * mask[first + k * step]
    return n, s


@fast_inlined
def mean_of_nine(data, h, w, room, out):
    """Write the mean of 3 x 3 pixels, borders repeated."""
    size = h * w
    ninth = _F(1.0 / 9.0)
    before, here, after, line = data[: size - 2], data[1 : size - 1], data[2:size], room[1 : size - 1]
    for k in range(size - 2):  # across the ends of rows too: those are mended below
        line[k] = before[k] + here[k] + after[k]
    for i in range(h):
        row = i * w
        room[row] = data[row] + data[row] + data[row + 1]
        room[row + w - 1] = data[row + w - 2] + data[row + w - 1] + data[row + w - 1]
    above, mid, below, inner = room[: size - 2 * w], room[w : size - w], room[2 * w : size], out[w : size - w]
    for k in range(size - 2 * w):
        inner[k] = (above[k] + mid[k] + below[k]) * ninth
    for j in range(w):
        out[j] = (room[j] + room[j] + room[w + j]) * ninth
        last = size - w + j
        out[last] = (room[last - w] + room[last] + room[last]) * ninth


@inlined
def grow(smooth, base, sign, cut, h, w, peak, direction, sums):
    """Add to ``sums`` the pixels that stand out by over ``cut`` around the peak, row by row away from it.

    In each row those count that stand out above or below the row before and what hangs together with them.
    ``sums``: number, y, x, y^2, x^2, x y, and excess, excess y, excess x. The peak's own row counts downwards only.
    """
    i = peak // w
    left = right = peak % w
    while 0 <= i < h:
        row = i * w
        while left <= right and not (smooth[row + left] - base) * sign > cut:
            left += 1
        if left > right:
            return
        while not (smooth[row + right] - base) * sign > cut:
            right -= 1
        while left > 0 and (smooth[row + left - 1] - base) * sign > cut:
            left -= 1
        while right < w - 1 and (smooth[row + right + 1] - base) * sign > cut:
            right += 1
        if direction > 0 or i != peak // w:
            n = nx = nxx = v = vx = 0.0
            for j in range(left, right + 1):
                excess = float((smooth[row + j] - base) * sign - cut)
                if excess > 0.0:
                    n += 1.0
                    nx += j
                    nxx += j * j
                    v += excess
                    vx += excess * j
            sums[0] += n
            sums[1] += n * i
            sums[2] += nx
            sums[3] += n * i * i
            sums[4] += nxx
            sums[5] += nx * i
            sums[6] += v
            sums[7] += v * i
            sums[8] += vx
        i += direction


@inlined
def start(data, mask, h, w, polarity, rim, smooth, queue, sums, p):
    """Estimate y, x, L, amplitude, offset (7 numbers in ``p``) from the region above half height around the extremum.

    Fills the masked pixels of ``data`` with the border's level. Returns False if the patch is flat. ``rim``: see
    `rim_weights`; ``smooth``, ``queue`` and ``sums`` (9) are room to work in.
    """
    n0, s0 = side(data, mask, 0, w, h)
    n1, s1 = side(data, mask, w - 1, w, h)
    n2, s2 = side(data, mask, 0, 1, w)
    n3, s3 = side(data, mask, (h - 1) * w, 1, w)
    counted = n0 + n1 + n2 + n3
    if counted > 0:
        mean = (s0 + s1 + s2 + s3) / counted
        level = _sorted_middle(
            s0 / n0 if n0 > 0 else mean, s1 / n1 if n1 > 0 else mean, s2 / n2 if n2 > 0 else mean,
            s3 / n3 if n3 > 0 else mean,
        )  # fmt: skip
    else:
        level = 0.0
        for k in range(h * w):
            counted += mask[k]
            level += data[k] * mask[k]
        level /= max(counted, 1.0)
    base = _F(level)
    for k in range(h * w):
        if mask[k] == _ZERO:
            data[k] = base
    mean_of_nine(data, h, w, queue, smooth)
    high, low = weigh_rim(smooth, base, rim, queue)
    dark = polarity < 0 or (polarity == 0 and -low > high)
    sign, extremum = (-_ONE, low) if dark else (_ONE, high)
    peak = 0
    while peak < h * w - 1 and queue[peak] != extremum:
        peak += 1
    height = (smooth[peak] - base) * sign
    if not height > _ZERO:
        return False
    for k in range(9):
        sums[k] = 0.0
    grow(smooth, base, sign, height * _HALF, h, w, peak, 1, sums)
    grow(smooth, base, sign, height * _HALF, h, w, peak, -1, sums)
    n, my, mx = sums[0], sums[1] / sums[0], sums[2] / sums[0]
    # a uniform ellipse cut at half height has 2 ln 2 / 4 of the covariance; the 3 x 3 mean added 2/3 to each width
    scale = 1.0 / 0.34657
    vyy = max((sums[3] / n - my * my) * scale - 0.667, 0.3)
    vxx = max((sums[4] / n - mx * mx) * scale - 0.667, 0.3)
    vxy = (sums[5] / n - my * mx) * scale
    limit = 0.8 * np.sqrt(vyy * vxx)
    vxy = min(max(vxy, -limit), limit)
    p[0] = sums[7] / sums[6]
    p[1] = sums[8] / sums[6]
    lower(vyy, vxy, vxx, p)
    gain = np.sqrt((vyy + 0.667) * (vxx + 0.667) / (vyy * vxx))  # what the 3 x 3 mean took from the height
    p[5] = sign * height * min(gain, 3.0)
    p[6] = level
    return True


@kernel
def lower(vyy, vxy, vxx, p):
    """Put L (l11, l21, l22) of a covariance matrix into p[2:5]: L L^T is its inverse."""
    det = vyy * vxx - vxy * vxy
    a, b, c = vxx / det, -vxy / det, vyy / det
    p[2] = np.sqrt(a)
    p[3] = b / p[2]
    p[4] = np.sqrt(max(c - p[3] * p[3], 1e-300))


@kernel
def to_model(model, p):
    """Restrict L to the model: no tilt, or no tilt and one width."""
    if model == ROTATED:
        return
    det = (p[2] * p[4]) ** 2
    vyy, vxx = (p[3] * p[3] + p[4] * p[4]) / det, p[2] * p[2] / det
    if model == CIRCULAR:
        vyy = vxx = np.sqrt(vyy * vxx)
    lower(vyy, 0.0, vxx, p)
