"""How many images the low-rank part needs: singular values of aligned frames that stand above noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST = 5


def found_rank(x: NDArray[np.float32]) -> int:
    """Return the rank of the part that aligned frames have in common.

    Parameters
    ----------
    x : ndarray (T, P), float32
        Aligned frames as rows; NaN where a frame does not cover a pixel.

    Returns
    -------
    int
        From 1 to 5: the first component, and each further one whose singular value lies above the edge of what noise of
        the residual's (robust) size gives, ``sigma (sqrt(T) + sqrt(P))`` (Marchenko-Pastur), and explains a fiftieth of
        what the mean leaves. Pixels that flicker are clipped first: they are the sparse part.
    """
    count = len(x)
    known = np.isfinite(x)
    covered = known.all(axis=0)
    if covered.sum() < 64 or count < 4:
        return 1
    y = x[:, covered].astype(np.float64)
    mean = np.median(y, axis=0)
    # brightness may change from frame to frame: that is rank one still
    gain = (y @ mean) / max(float(mean @ mean), 1e-30)
    rest = y - gain[:, None] * mean
    sigma = 1.4826 * float(np.median(np.abs(rest)))
    if sigma <= 0:
        return 1
    rest = np.clip(rest, -3 * sigma, 3 * sigma)
    values = np.linalg.svd(rest @ rest.T, compute_uv=False)
    singular = np.sqrt(np.maximum(values, 0))
    edge = 1.1 * sigma * (np.sqrt(count) + np.sqrt(rest.shape[1]))
    share = values / max(float(values.sum()), 1e-30)
    extra = int(np.sum((singular > edge) & (share > 0.02)))
    return int(1 + min(extra, LARGEST - 1, count - 2))
