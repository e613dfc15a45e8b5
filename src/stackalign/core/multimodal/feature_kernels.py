"""Compiled parts of the feature maps: blurring, self-similarity, edges, and how they are laid out."""

# mypy: allow-untyped-defs, allow-untyped-calls
import numpy as np

from stackalign.core.compiled import fast_inlined, fast_kernel


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
