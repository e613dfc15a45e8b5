"""Compiled sums of Lucas-Kanade on feature maps, every channel of a pixel in one pass; and the maps themselves."""

# mypy: allow-untyped-defs, allow-untyped-calls
import numpy as np

from stackalign.core.compiled import fast_inlined, fast_kernel, kernel

FLOWS = 8  # first-order motions of a homography: see `flow_of`
# their powers of u and v along y, and along x; -1: none
_P, _Q = (0, 1, 0, -1, -1, -1, 2, 1), (0, 0, 1, 0, 0, 0, 0, 1)
_R, _S = (-1, -1, -1, 0, 1, 0, 1, 0), (0, 0, 0, 0, 0, 1, 1, 2)


@fast_inlined
def _read(moving, y, x, out):
    """Read all channels at (y, x), linearly; False outside."""
    h, w, channels = moving.shape
    if not (y >= 0.0 and x >= 0.0 and y <= h - 1.0 and x <= w - 1.0):
        return False
    i, j = min(int(y), h - 2), min(int(x), w - 2)
    fy, fx = np.float32(y - i), np.float32(x - j)
    one = np.float32(1)
    a, b, c, d = (one - fy) * (one - fx), (one - fy) * fx, fy * (one - fx), fy * fx
    for k in range(channels):
        out[k] = a * moving[i, j, k] + b * moving[i, j + 1, k] + c * moving[i + 1, j, k] + d * moving[i + 1, j + 1, k]
    return True


@fast_inlined
def _row_added(normal, right, curved, pulled, u):
    """Add the sums of a row to the upper half of the normal equations.

    Flow a is u^P[a] v^Q[a] along y where P[a] >= 0, and u^R[a] v^S[a] along x where R[a] >= 0.
    """
    for a in range(FLOWS):
        if _P[a] >= 0:
            right[a] += u ** _P[a] * pulled[0, _Q[a]]
        if _R[a] >= 0:
            right[a] += u ** _R[a] * pulled[1, _S[a]]
        for b in range(a, FLOWS):
            total = 0.0
            if _P[a] >= 0 and _P[b] >= 0:
                total += u ** (_P[a] + _P[b]) * curved[0, _Q[a] + _Q[b]]
            if _R[a] >= 0 and _P[b] >= 0:
                total += u ** (_R[a] + _P[b]) * curved[1, _S[a] + _Q[b]]
            if _P[a] >= 0 and _R[b] >= 0:
                total += u ** (_P[a] + _R[b]) * curved[1, _Q[a] + _S[b]]
            if _R[a] >= 0 and _R[b] >= 0:
                total += u ** (_R[a] + _R[b]) * curved[2, _S[a] + _S[b]]
            normal[a, b] += total


@fast_kernel
def normal_equations(fixed, moving, weight, moving_weight, backward, gain, cut, middle, radius, step, start, stop):
    """Return the normal equations of one Gauss-Newton step of the fixed features towards the moved ones.

    Parameters
    ----------
    fixed : float32 (y, x, channel)
        Whose gradients are taken.
    moving : float32 (y, x, channel)
    weight : float32 (y, x)
        Of the pixels of ``fixed``; 0: does not count.
    moving_weight : float32 (y, x)
        The same of ``moving``.
    backward : float64 (3, 3)
        Pixels of fixed -> pixels of moving.
    gain : float
        What the fixed features are multiplied with to be compared.
    cut : float
        Squared distance of features at which a pixel's weight has fallen to a quarter; 0: no robust weights.
    middle, radius : float64 (2,), float
        Normalise coordinates: u = (y - middle[0]) / radius, v likewise.
    step : int
        Every step-th row and column counts.
    start, stop : int
        Rows.

    Returns
    -------
    normal : float64 (8, 8)
        Symmetric; flows in the order of `flow_of`.
    right : float64 (8,)
    sums : float64 (6,)
        Of the robustly weighted products fixed x moving, fixed^2 and moving^2, of the weights before and after the
        robust weighting, and of the weighted squared distance.
    """
    h, w, channels = fixed.shape
    normal, right, sums = np.zeros((FLOWS, FLOWS)), np.zeros(FLOWS), np.zeros(6)
    seen = np.empty(channels, np.float32)
    # sums over a row of curvatures and right sides times powers of v: u is the same all along it
    curved, pulled = np.empty((3, 5)), np.empty((2, 3))
    half, g = np.float32(0.5), np.float32(gain)
    mh, mw = moving_weight.shape
    for i in range(max(start, 1), min(stop, h - 1), step):
        u = (i - middle[0]) / radius
        curved[:] = 0.0
        pulled[:] = 0.0
        for j in range(1, w - 1, step):
            known = weight[i, j]
            if known <= 0.0:
                continue
            depth = backward[2, 0] * i + backward[2, 1] * j + backward[2, 2]
            if depth <= 1e-6:
                continue
            y = (backward[0, 0] * i + backward[0, 1] * j + backward[0, 2]) / depth
            x = (backward[1, 0] * i + backward[1, 1] * j + backward[1, 2]) / depth
            if not _read(moving, y, x, seen):
                continue
            known *= moving_weight[min(int(y + 0.5), mh - 1), min(int(x + 0.5), mw - 1)]
            if known <= 0.0:
                continue
            fm = ff = mm = ry = rx = yy = yx = xx = distance = np.float32(0)
            for k in range(channels):
                f, m = fixed[i, j, k], seen[k]
                gy = half * (fixed[i + 1, j, k] - fixed[i - 1, j, k])
                gx = half * (fixed[i, j + 1, k] - fixed[i, j - 1, k])
                r = m - g * f
                distance += r * r
                fm += f * m
                ff += f * f
                mm += m * m
                ry += gy * r
                rx += gx * r
                yy += gy * gy
                yx += gy * gx
                xx += gx * gx
            used = np.float64(known)
            if cut > 0.0:
                share = cut / (cut + distance)
                used *= share * share
            sums[0] += used * fm
            sums[1] += used * ff
            sums[2] += used * mm
            sums[3] += known
            sums[4] += used
            sums[5] += known * distance
            v = (j - middle[1]) / radius
            power = used
            for k in range(5):
                curved[0, k] += power * yy
                curved[1, k] += power * yx
                curved[2, k] += power * xx
                if k < 3:
                    pulled[0, k] += power * ry
                    pulled[1, k] += power * rx
                power *= v
        _row_added(normal, right, curved, pulled, u)
    for a in range(FLOWS):
        for b in range(a):
            normal[a, b] = normal[b, a]
    return normal, right, sums


@kernel
def mean_distance(first, second, corners):
    """Return the mean distance of corners (4, 2) under two homographies (3, 3); infinite where one is not in front."""
    total = 0.0
    for k in range(corners.shape[0]):
        y, x = corners[k, 0], corners[k, 1]
        a = first[2, 0] * y + first[2, 1] * x + first[2, 2]
        b = second[2, 0] * y + second[2, 1] * x + second[2, 2]
        if not (a > 0.0 and b > 0.0):
            return np.inf
        dy = (first[0, 0] * y + first[0, 1] * x + first[0, 2]) / a
        dy -= (second[0, 0] * y + second[0, 1] * x + second[0, 2]) / b
        dx = (first[1, 0] * y + first[1, 1] * x + first[1, 2]) / a
        dx -= (second[1, 0] * y + second[1, 1] * x + second[1, 2]) / b
        total += np.sqrt(dy * dy + dx * dx)
    return total / corners.shape[0]


@fast_kernel
def overlap_sums(fixed, moving, weight, moving_weight, backward, step):
    """Return the weighted sums of fixed x moving, fixed^2, moving^2, and of the weights, over what both show."""
    h, w, channels = fixed.shape
    sums, seen = np.zeros(4), np.empty(channels, np.float32)
    mh, mw = moving_weight.shape
    for i in range(0, h, step):
        for j in range(0, w, step):
            known = weight[i, j]
            if known <= 0.0:
                continue
            depth = backward[2, 0] * i + backward[2, 1] * j + backward[2, 2]
            if depth <= 1e-6:
                continue
            y = (backward[0, 0] * i + backward[0, 1] * j + backward[0, 2]) / depth
            x = (backward[1, 0] * i + backward[1, 1] * j + backward[1, 2]) / depth
            if not _read(moving, y, x, seen):
                continue
            known *= moving_weight[min(int(y + 0.5), mh - 1), min(int(x + 0.5), mw - 1)]
            fm = ff = mm = np.float32(0)
            for k in range(channels):
                f, m = fixed[i, j, k], seen[k]
                fm += f * m
                ff += f * f
                mm += m * m
            sums[0] += known * fm
            sums[1] += known * ff
            sums[2] += known * mm
            sums[3] += known
    return sums


@fast_kernel
def pooled(score, reach, stiffness, best, along_y, along_x):
    """Write the best score within ``reach`` pixels, less what going there costs, and where it is.

    Quadratic costs are separable (Felzenszwalb & Huttenlocher, Theory of Computing 8, 2012), so rows come first and
    columns after; indices beyond the border are circular.

    Parameters
    ----------
    score : float32 (y, x)
    reach : int
    stiffness : float
        Cost of a squared pixel.
    best : float32 (y, x)
    along_y, along_x : int16 (y, x)
        How far the best one lies away.
    """
    h, w = score.shape
    wide, rows = np.empty(w + 2 * reach, np.float32), np.empty((h, w), np.float32)
    moves, one = np.zeros((h, w), np.int16), np.empty(w, np.int16)
    for i in range(h):
        for j in range(w + 2 * reach):
            wide[j] = score[i, (j - reach) % w]
        top, at = rows[i], moves[i]
        top[:] = np.float32(-1e9)
        for d in range(-reach, reach + 1):
            price, move = np.float32(stiffness * d * d), np.int16(d)
            for j in range(w):
                v = wide[j + d + reach] - price
                better = v > top[j]
                top[j] = v if better else top[j]
                at[j] = move if better else at[j]
    for i in range(h):
        top = best[i]
        top[:] = np.float32(-1e9)
        one[:] = 0
        for d in range(-reach, reach + 1):
            price, move, row = np.float32(stiffness * d * d), np.int16(d), rows[(i + d) % h]
            for j in range(w):
                v = row[j] - price
                better = v > top[j]
                top[j] = v if better else top[j]
                one[j] = move if better else one[j]
        for j in range(w):
            along_y[i, j] = one[j]
            along_x[i, j] = moves[(i + one[j]) % h, j]


@fast_kernel
def cross_spectra(values, energy, known, spectra, out):
    """Write the spectra of the sums that a correlation normalised on the overlap is made of.

    Parameters
    ----------
    values : complex64 (channel, y, x)
        Of the fixed features.
    energy, known : complex64 (y, x)
        Of their squares and of their weights.
    spectra : complex64 (channel + 1 or 2, y, x)
        Of a block: features, their squares, and its weights if those are not all 1.
    out : complex64 (2 or 4, y, x)
        Of the products, of the block's squares over what is seen, and if it has weights: of the fixed squares, and of
        the weights of both.
    """
    channels, h, w = values.shape
    for i in range(h):
        total = out[0, i]
        total[:] = 0
        for k in range(channels):
            first, second = values[k, i], spectra[k, i]
            for j in range(w):
                total[j] += first[j] * np.conj(second[j])
        for j in range(w):
            out[1, i, j] = known[i, j] * np.conj(spectra[channels, i, j])
        if len(out) == 4:
            for j in range(w):
                weight = np.conj(spectra[channels + 1, i, j])
                out[2, i, j] = energy[i, j] * weight
                out[3, i, j] = known[i, j] * weight


@fast_kernel
def blurred(maps, taps, out):
    """Write maps (k, y, x) blurred by a symmetric kernel along both axes; what lies outside mirrors the inside."""
    count, h, w = maps.shape
    reach = len(taps) // 2
    line = np.empty(w + 2 * reach, np.float32)
    for k in range(count):
        for i in range(h):
            middle = line[reach : reach + w]
            middle[:] = np.float32(0)
            for t in range(-reach, reach + 1):
                row, tap = maps[k, _mirrored(i + t, h)], taps[t + reach]
                for j in range(w):
                    middle[j] += tap * row[j]
            for j in range(reach):
                line[reach - 1 - j] = middle[_mirrored(-1 - j, w)]
                line[reach + w + j] = middle[_mirrored(w + j, w)]
            target = out[k, i]
            target[:] = np.float32(0)
            for t in range(2 * reach + 1):
                tap = taps[t]
                for j in range(w):
                    target[j] += tap * line[j + t]


@fast_inlined
def _mirrored(i, size):
    """Return the index inside that an index outside mirrors, the border doubled."""
    i = i % (2 * size)
    return i if i < size else 2 * size - 1 - i


@fast_kernel
def squared_differences(padded, out):
    """Write the squared differences to the neighbours below, right, below right and below left, (4, y + 2, x + 2).

    ``padded`` (y + 4, x + 4) has two more pixels on each side than the image.
    """
    _, h, w = out.shape
    for i in range(h):
        here, below = padded[i + 1], padded[i + 2] if i + 2 < padded.shape[0] else padded[i + 1]
        for j in range(w):
            value = here[j + 1]
            d, r, s, t = below[j + 1] - value, here[j + 2] - value, below[j + 2] - value, below[j] - value
            out[0, i, j], out[1, i, j], out[2, i, j], out[3, i, j] = d * d, r * r, s * s, t * t


@fast_kernel
def exponents(apart, least, most, out):
    """Write the exponents of self-similarity to eight neighbours, the largest of each pixel 0; see `self_similarity`.

    Parameters
    ----------
    apart : float32 (4, y + 2, x + 2)
        Distances of patches to those below, right, below right and below left.
    least, most : float32
        Bounds of the mean distance that they are divided by.
    out : float32 (8, y, x)
    """
    _, h, w = out.shape
    eighth = np.float32(0.125)
    for i in range(h):
        for j in range(w):
            a, b = apart[0, i + 1, j + 1], apart[0, i, j + 1]
            c, d = apart[1, i + 1, j + 1], apart[1, i + 1, j]
            e, f = apart[2, i + 1, j + 1], apart[2, i, j]
            g, k = apart[3, i + 1, j + 1], apart[3, i, j + 2]
            mean = min(max(eighth * (a + b + c + d + e + f + g + k), least), most)
            nearest = min(min(min(a, b), min(c, d)), min(min(e, f), min(g, k)))
            out[0, i, j], out[1, i, j], out[2, i, j] = (nearest - a) / mean, (nearest - b) / mean, (nearest - c) / mean
            out[3, i, j], out[4, i, j], out[5, i, j] = (nearest - d) / mean, (nearest - e) / mean, (nearest - f) / mean
            out[6, i, j], out[7, i, j] = (nearest - g) / mean, (nearest - k) / mean


@fast_kernel
def harmonics(plane, out):
    """Write the root of the gradient, and times cos and sin of twice its direction, weighted as `oriented_edges` says.

    ``plane`` is (y, x), ``out`` (3, y, x), both float32.
    """
    h, w = plane.shape
    whole, part = np.float32(np.sqrt(1.5)), np.float32(np.sqrt(0.75))
    half, one, tiny = np.float32(0.5), np.float32(1), np.float32(1e-20)
    for i in range(h):
        above, below = max(i - 1, 0), min(i + 1, h - 1)
        over = one if below - above == 1 else half
        for j in range(w):
            left, right = max(j - 1, 0), min(j + 1, w - 1)
            across = one if right - left == 1 else half
            y = over * (plane[below, j] - plane[above, j])
            x = across * (plane[i, right] - plane[i, left])
            square = y * y + x * x + tiny
            size = np.sqrt(square)
            root = np.sqrt(size)
            out[0, i, j] = whole * root
            out[1, i, j] = part * root * (x * x - y * y) / square
            out[2, i, j] = part * root * (np.float32(2) * x * y) / square


@fast_kernel
def interleaved(first, second, gains, out):
    """Write two families of maps (k, y, x), times a gain each, one channel after the other at each pixel (y, x, k)."""
    count = first.shape[0]
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            for k in range(count):
                out[i, j, k] = gains[k] * first[k, i, j]
            for k in range(second.shape[0]):
                out[i, j, count + k] = gains[count + k] * second[k, i, j]


@fast_kernel
def halved(values, weight, out, out_weight):
    """Write weighted means over 2 x 2 pixels of maps (y, x, channel), and the mean weights (y, x)."""
    h, w, channels = out.shape
    for i in range(h):
        for j in range(w):
            a, b = weight[2 * i, 2 * j], weight[2 * i, 2 * j + 1]
            c, d = weight[2 * i + 1, 2 * j], weight[2 * i + 1, 2 * j + 1]
            total = a + b + c + d
            out_weight[i, j] = np.float32(0.25) * total
            over = np.float32(1) / max(total, np.float32(1e-6))
            a, b, c, d = a * over, b * over, c * over, d * over
            for k in range(channels):
                upper = a * values[2 * i, 2 * j, k] + b * values[2 * i, 2 * j + 1, k]
                out[i, j, k] = upper + c * values[2 * i + 1, 2 * j, k] + d * values[2 * i + 1, 2 * j + 1, k]
