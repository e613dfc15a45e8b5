"""How many images the low-rank part needs: singular values of aligned frames that stand above noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.frames.noise import NoiseModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST = 5
_SPARSE = 3.0  # standard deviations of what is left, further images included
_SHARE = 0.02  # of what rank one leaves
_SPREAD = 0.1  # of the pixels: what is confined to fewer is sparse
_FRAMES = 2.5  # what is confined to fewer is a frame that differs


def found_rank(x: NDArray[np.float32]) -> int:
    """Return the rank of the part that aligned frames have in common.

    Parameters
    ----------
    x : ndarray (T, P), float32
        Aligned frames as rows, at full resolution or a sample of its pixels (binning would alias); NaN where a frame
        does not cover a pixel.

    Returns
    -------
    int
        From 1 to 5: the mean image with a brightness for each frame, and each further component whose singular value
        lies above the edge of what noise alone gives, ``sqrt(T) + sqrt(P)`` standard deviations (Marchenko-Pastur),
        that explains a fiftieth of what is left, and that is spread over a tenth of the pixels and some frames. Pixels
        that flicker are left out: they are the sparse part.
    """
    count = len(x)
    covered = np.isfinite(x).all(axis=0)
    if covered.sum() < 64 or count < 4:
        return 1
    y = x[:, covered].astype(np.float64)
    mean = np.median(y, axis=0)
    # brightness may change from frame to frame: that is rank one still
    gain = (y @ mean) / max(float(mean @ mean), 1e-30)
    rest = y - gain[:, None] * mean
    for turn in range(
        8
    ):  # what flickers moves neither brightness nor mean by more than its clip, in the end not at all
        clip = _SPARSE * 1.4826 * float(np.median(np.abs(rest)))
        for axis in (1, 0):
            kept = np.clip(rest, -clip, clip) if turn < 4 else np.where(np.abs(rest) > clip, 0, rest)
            if axis:
                gain = gain + kept @ mean / max(float(mean @ mean), 1e-30)
            else:
                mean = mean + gain @ kept / max(float(gain @ gain), 1e-30)
            rest = y - gain[:, None] * mean
    bright = np.broadcast_to(mean, rest.shape).ravel()
    step = max(1, rest.size // 200_000)
    noise = NoiseModel.fitted(bright[::step], rest.ravel()[::step])
    rest /= np.sqrt(noise.variance(mean.astype(np.float32)))
    # resampling smooths the noise of some frames more than that of others
    sigma = 1.4826 * np.median(np.abs(rest), axis=1, keepdims=True)
    if (sigma <= 0).any():
        return 1
    rest = rest / sigma
    rest[np.abs(rest) > _SPARSE] = 0
    frames, values, pixels = np.linalg.svd(rest, full_matrices=False)
    power_left = values**2
    edge = 1.1 * (np.sqrt(count) + np.sqrt(rest.shape[1]))
    extra = (
        (values > edge)
        & (power_left > _SHARE * power_left.sum())
        & (_participation(pixels) > _SPREAD * rest.shape[1])
        & (_participation(frames.T) > _FRAMES)
    )
    return int(1 + min(int(extra.sum()), LARGEST - 1, count - 2))


def _participation(unit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return over how many entries each unit row is spread, 1 to their number."""
    return np.asarray(1 / np.maximum((unit**4).sum(axis=1), 1e-300))
