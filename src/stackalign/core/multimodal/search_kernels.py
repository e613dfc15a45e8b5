"""Compiled parts of the search: spectra of correlations, and best scores nearby."""

# mypy: allow-untyped-defs, allow-untyped-calls
import numpy as np

from stackalign.core.compiled import fast_kernel


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
def weighted_maps(values, weight, out):
    """Write features (y, x, channel) times weights, their squares times weights, and the weights if there is room.

    ``out`` is (channel + 1 or 2, y, x), all float32.
    """
    h, w, channels = values.shape
    for i in range(h):
        for j in range(w):
            known, energy = weight[i, j], np.float32(0)
            for k in range(channels):
                v = values[i, j, k]
                out[k, i, j] = known * v
                energy += known * v * v
            out[channels, i, j] = energy
            if len(out) > channels + 1:
                out[channels + 1, i, j] = known


@fast_kernel
def normalised(sums, of_fixed, seen, least, out):
    """Write correlations: sums of products over the roots of the sums of squares; 0 where too little is seen.

    Parameters
    ----------
    sums : float32 (2 or more, y, x)
        Of the products, and of the block's squares.
    of_fixed, seen : float32 (y, x)
        Sums of the fixed squares, and of the weights of both.
    least : float32
        Of the weights.
    out : float32 (y, x)
    """
    tiny = np.float32(1e-9)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            norm = np.sqrt(max(sums[1, i, j], tiny) * max(of_fixed[i, j], tiny))
            out[i, j] = sums[0, i, j] / norm if seen[i, j] > least else np.float32(0)


@fast_kernel
def gathered(best, score, dy, dx, total, counted):
    """Add the best scores, moved circularly by (dy, dx), to a total, and count where there is any score."""
    h, w = total.shape
    for i in range(h):
        row = (i - dy) % h
        for j in range(w):
            column = (j - dx) % w
            total[i, j] += best[row, column]
            counted[i, j] += np.float32(1) if score[row, column] != 0 else np.float32(0)
