"""Starting values of a spot fit, from the region above half height around the extremum; patch pixels (y, x)."""

# mypy: allow-untyped-defs, allow-untyped-calls
# numba infers the types of what it compiles
from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, inlined, kernel
from stackalign.core.spots.moments import CIRCULAR, ROTATED

_F = np.float32
_ZERO, _HALF, _ONE = _F(0), _F(0.5), _F(1)


@kernel
def _sorted_middle(a, b, c, d):
    """Return the mean of the two middle ones of four numbers, which one neighbour at the border cannot spoil."""
    return (a + b + c + d - max(max(a, b), max(c, d)) - min(min(a, b), min(c, d))) / 2.0


@fast_inlined
def weigh_rim(smooth, base, h, w, out):
    """Write the contrast, less towards the rim; return its greatest and least value."""
    cy, cx = _F((h - 1) / 2), _F((w - 1) / 2)
    sy, sx = _F(0.4) / (cy * cy), _F(0.4) / (cx * cx)
    high, low = _F(-1e30), _F(1e30)
    for i in range(h):
        fy = _ONE - (_F(i) - cy) * (_F(i) - cy) * sy
        row = i * w
        for j in range(w):
            x = _F(j) - cx
            v = (smooth[row + j] - base) * (fy - x * x * sx)
            out[row + j] = v
            high = max(high, v)
            low = min(low, v)
    return high, low


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
def start(data, mask, h, w, polarity, smooth, queue, seen, p):
    """Estimate y, x, L, amplitude, offset (7 numbers in ``p``) from the region above half height around the extremum.

    Fills the masked pixels of ``data`` with the border's level. Returns False if the patch is flat.
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
    # a box is drawn around its spot: what lies at the rim counts less
    high, low = weigh_rim(smooth, base, h, w, queue)
    dark = polarity < 0 or (polarity == 0 and -low > high)
    sign, extremum = (-_ONE, low) if dark else (_ONE, high)
    peak = 0
    while peak < h * w - 1 and queue[peak] != extremum:
        peak += 1
    height = (smooth[peak] - base) * sign
    if not height > _ZERO:
        return False
    # grow the region above half height from the extremum
    cut = height * _HALF
    for k in range(h * w):
        seen[k] = False
    count = 1
    queue[0] = _F(peak)
    seen[peak] = True
    head = 0
    my = mx = weight = 0.0
    n = my1 = mx1 = myy = mxx = mxy = 0.0
    while head < count:
        k = int(queue[head])
        head += 1
        i, j = k // w, k % w
        v = float((smooth[k] - base) * sign - cut)
        weight += v
        my += v * i
        mx += v * j
        n += 1.0
        my1 += i
        mx1 += j
        myy += i * i
        mxx += j * j
        mxy += i * j
        for step in range(4):
            ii = i + (1 if step == 0 else (-1 if step == 1 else 0))
            jj = j + (1 if step == 2 else (-1 if step == 3 else 0))
            if ii < 0 or jj < 0 or ii >= h or jj >= w:
                continue
            kk = ii * w + jj
            if not seen[kk] and (smooth[kk] - base) * sign > cut:
                seen[kk] = True
                queue[count] = _F(kk)
                count += 1
    # a uniform ellipse cut at half height has 2 ln 2 / 4 of the covariance; the 3 x 3 mean added 2/3 to each width
    scale = 1.0 / 0.34657
    vyy = max(((myy - my1 * my1 / n) / n + 1 / 12) * scale - 0.667, 0.3)
    vxx = max(((mxx - mx1 * mx1 / n) / n + 1 / 12) * scale - 0.667, 0.3)
    vxy = ((mxy - my1 * mx1 / n) / n) * scale
    limit = 0.8 * np.sqrt(vyy * vxx)
    vxy = min(max(vxy, -limit), limit)
    p[0] = my / weight if weight > 0 else peak // w
    p[1] = mx / weight if weight > 0 else peak % w
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
