"""Wiener filter of a reference image: frequencies count as far as signal stands above noise in them.

Noise in a reference adds to its gradients, which makes Gauss-Newton steps too short and, where a frame is part of its
own reference, holds it where it is. A filter whose gain is the share of signal in each frequency takes both away: the
cross-power with a frame then equals the filtered power, so that steps have the right length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import fft

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BINS = 96
# of Nyquist along every axis: beyond, an image behind a lens holds next to nothing but noise
_CORNERS = (0.85, 0.7, 0.55, 0.4)
_MORE = 1.25  # times the stated variance: what fits to few residuals may miss


def wiener(image: NDArray[np.float32], variance: float | None = None) -> NDArray[np.float32]:
    """Return the image with each frequency scaled by its share of signal.

    Parameters
    ----------
    image : ndarray (y, x) or (z, y, x), float32
        Without a mean.
    variance : float, optional
        Of the noise of a pixel; taken from the highest frequencies if it is not known.

    Returns
    -------
    ndarray, float32
        The image itself where signal cannot be told from noise: a spectrum that is as high at the corner as everywhere.
    """
    axes = [a for a, n in enumerate(image.shape) if n >= 8]
    if not axes:
        return image
    spectrum: NDArray[Any] = fft.dctn(image, axes=axes, norm="ortho", workers=1)
    radius = _radius(image.shape, axes)
    bins = np.minimum((radius * (_BINS / np.sqrt(len(axes)))).astype(np.int32), _BINS - 1)
    power_of = np.square(spectrum)
    count = np.maximum(np.bincount(bins.ravel(), minlength=_BINS), 1)
    power = np.bincount(bins.ravel(), power_of.ravel(), _BINS) / count
    floor = _corner_power(power_of, axes)
    if variance is not None:
        # a mean of resampled frames has less noise at high frequencies than its variance says, never more
        floor = variance if floor <= 0 else min(max(floor, 0.25 * variance), _MORE * variance)
    if floor <= 0:
        return image
    low = power[: max(_BINS // 3, 1)].mean()
    if floor > 0.5 * low and variance is None:
        return image
    # averages over neighbouring bins: a single one is as noisy as its few coefficients
    smooth = np.convolve(np.pad(power * count, 2, mode="edge"), np.ones(5), "valid") / np.convolve(
        np.pad(count.astype(float), 2, mode="edge"), np.ones(5), "valid"
    )
    smooth[:4] = power[:4]
    gain = np.clip(1 - floor / np.maximum(smooth, 1e-30), 0.0, 1.0)
    if gain.max() < 0.02:
        return image
    spectrum *= gain.astype(np.float32)[bins]
    return np.asarray(fft.idctn(spectrum, axes=axes, norm="ortho", workers=1), np.float32)


def _radius(shape: tuple[int, ...], axes: list[int]) -> NDArray[np.float32]:
    """Return the spatial frequency of each coefficient of a cosine transform, in units of Nyquist."""
    total: NDArray[Any] = np.zeros((1,) * len(shape), np.float32)
    for axis in axes:
        n = shape[axis]
        line = (np.arange(n, dtype=np.float32) / n) ** 2
        total = total + line.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return np.broadcast_to(np.sqrt(total), shape)


def _corner_power(power: NDArray[np.float32], axes: list[int]) -> float:
    """Return the power of the noise: that of the highest frequencies, and of lower ones as far as these agree."""
    found, spread = 0.0, np.inf
    for edge in _CORNERS:
        corner = power[tuple(slice(int(edge * n), n) if a in axes else slice(None) for a, n in enumerate(power.shape))]
        if not corner.size:
            continue
        # the mean of squared normal numbers is 2.2 times their median; a median forgives single bright frequencies
        level = float(np.median(corner)) * 2.198
        if level > found + 3 * spread:  # signal begins
            break
        found, spread = level, 1.8 * level / np.sqrt(corner.size)
    return found
