"""Compiled scores of shifted copies, of whole images and of blocks: what chance alone reaches."""

# mypy: allow-untyped-defs, allow-untyped-calls
import numpy as np

from stackalign.core.compiled import fast_inlined, fast_kernel


@fast_inlined
def _overlap(fixed, moving, weight, moving_weight, box, dy, dx, step):
    """Return the correlation over a box of a copy shifted by whole pixels, and the weight that both show there."""
    h, w, channels = fixed.shape
    product = first = second = counted = 0.0
    for i in range(max(box[0], dy), min(box[1], h + dy), step):
        for j in range(max(box[2], dx), min(box[3], w + dx), step):
            known = weight[i, j] * moving_weight[i - dy, j - dx]
            if known <= 0.0:
                continue
            fm = ff = mm = np.float32(0)
            for k in range(channels):
                f, m = fixed[i, j, k], moving[i - dy, j - dx, k]
                fm += f * m
                ff += f * f
                mm += m * m
            product += known * fm
            first += known * ff
            second += known * mm
            counted += known
    below = first * second if first > 0.0 and second > 0.0 else 0.0
    return product / np.sqrt(below) if below > 0.0 else -1.0, counted * step * step if below > 0.0 else 0.0


@fast_kernel
def shifted_scores(fixed, moving, weight, moving_weight, shifts, least, step):
    """Return the correlations of features with copies of the moving ones shifted by whole pixels, (N,).

    Parameters
    ----------
    fixed, moving : float32 (y, x, channel)
        Of one shape.
    weight, moving_weight : float32 (y, x)
    shifts : int64 (N, 2)
        Of the copies.
    least : float
        Sum of weights that both must show; -1 where they do not.
    step : int
        Every step-th row and column counts.
    """
    h, w = weight.shape
    out = np.full(len(shifts), -1.0)
    for n in range(len(shifts)):
        score, shown = _overlap(fixed, moving, weight, moving_weight, (0, h, 0, w), shifts[n, 0], shifts[n, 1], step)
        if shown >= least and shown > 0.0:
            out[n] = score
    return out


@fast_kernel
def block_peaks(fixed, moving, weight, moving_weight, starts, side, reach, beside, least, step):
    """Find by how many whole pixels the moving features must be shifted to fit best, block by block.

    Parameters
    ----------
    fixed, moving : float32 (y, x, channel)
        Of one shape.
    weight, moving_weight : float32 (y, x)
    starts : int64 (N, 2)
        First pixels of the blocks.
    side : int
        Of a block, pixels.
    reach : int
        Shifts along each axis that are tried: from -reach to reach.
    beside : int
        Shifts that lie further than this from the best one, along y or x, are others.
    least : float
        Share of a block that both must show at a shift.
    step : int
        Every step-th row and column counts.

    Returns
    -------
    shifts : int64 (N, 2)
        The best ones.
    tops : float64 (N, 2)
        The scores of the best shift and of the best other one; -1: there is none.
    tried : int64 (N,)
        How many shifts could be compared.
    """
    h, w = weight.shape
    n = 2 * reach + 1
    shifts, tops = np.zeros((len(starts), 2), np.int64), np.full((len(starts), 2), -1.0)
    tried = np.zeros(len(starts), np.int64)
    scores = np.empty((n, n))
    for b in range(len(starts)):
        y, x = starts[b, 0], starts[b, 1]
        for p in range(n):
            for q in range(n):
                dy, dx = p - reach, q - reach
                score, shown = _overlap(
                    fixed, moving, weight, moving_weight, (y, min(y + side, h), x, min(x + side, w)), dy, dx, step
                )
                enough = shown >= least * side * side and shown > 0.0
                scores[p, q] = score if enough else -1.0
                if enough:
                    tried[b] += 1
                    if scores[p, q] > tops[b, 0]:
                        tops[b, 0] = scores[p, q]
                        shifts[b, 0], shifts[b, 1] = dy, dx
        for p in range(n):
            for q in range(n):
                if max(abs(p - reach - shifts[b, 0]), abs(q - reach - shifts[b, 1])) > beside:
                    tops[b, 1] = max(tops[b, 1], scores[p, q])
    return shifts, tops, tried
