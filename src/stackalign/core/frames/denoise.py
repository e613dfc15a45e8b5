"""Wiener filter of a reference image: frequencies count as far as signal stands above noise in them.

Noise in a reference adds to its gradients, which makes Gauss-Newton steps too short and, where a frame is part of its
own reference, holds it where it is. A filter whose gain is the share of signal in each frequency takes both away: the
cross-power with a frame then equals the filtered power, so that steps have the right length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import fft

from stackalign.core.threads import spare

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BINS = 96
# of Nyquist along every axis: beyond, an image behind a lens holds next to nothing but noise
_CORNERS = (0.85, 0.7, 0.55, 0.4)
_MORE = 1.25  # times the stated variance
_COARSE = 128  # frequencies along an axis at which a smooth function of them is looked up


def wiener(
    image: NDArray[np.float32], variance: float | None = None, *, resampled: bool = False
) -> NDArray[np.float32]:
    """Return the image with each frequency scaled by its share of signal.

    Parameters
    ----------
    image : ndarray (y, x) or (z, y, x), float32
        Without a mean.
    variance : float, optional
        Of the noise of a pixel, before it was resampled; taken from the highest frequencies if it is not known.
    resampled : bool
        Whether the image is a mean of frames that were resampled.

    Returns
    -------
    ndarray, float32
        The image itself where signal cannot be told from noise: a spectrum that is as high at the corner as everywhere.
    """
    from stackalign.core.frames.denoise_kernels import radial_power, scale_radially

    axes = [a for a, n in enumerate(image.shape) if n >= 8]
    if not axes:
        return image
    spectrum: NDArray[Any] = np.asarray(fft.dctn(image, axes=axes, norm="ortho", workers=spare()), np.float32)
    volume = spectrum if spectrum.ndim == 3 else spectrum[None]
    # frequencies in units of the width of a bin; axes that are not transformed have none
    steps = np.zeros(3)
    for axis in axes:
        steps[3 - image.ndim + axis] = _BINS / np.sqrt(len(axes)) / image.shape[axis]
    power, count = radial_power(volume, steps, _BINS)
    power /= np.maximum(count, 1)
    low = float(power[: _BINS // 3].mean())
    corner = _corner_power(spectrum, axes)
    floor = np.full(_BINS, corner)
    if variance is not None:
        found = corner / variance if variance > 0 else 1.0
        # what fits to few residuals may miss
        floor *= np.clip(found, 0.25, _MORE) / found if found > 0 else 0.0
        if resampled:
            floor = variance * _noise_shape(image.shape, axes, found)
    elif corner <= 0 or corner > 0.5 * low:
        return image
    # averages over neighbouring bins: a single one is as noisy as its few coefficients
    smooth = np.convolve(np.pad(power * count, 2, mode="edge"), np.ones(5), "valid") / np.maximum(
        np.convolve(np.pad(count, 2, mode="edge"), np.ones(5), "valid"), 1
    )
    smooth[:4] = power[:4]
    gain = np.clip(1 - floor / np.maximum(smooth, 1e-30), 0.0, 1.0)
    if gain.max() < 0.02:
        return image
    scale_radially(volume, steps, gain.astype(np.float32))
    return np.asarray(fft.idctn(spectrum, axes=axes, norm="ortho", workers=spare(), overwrite_x=True), np.float32)


def _noise_shape(shape: tuple[int, ...], axes: list[int], corner: float) -> NDArray[np.float64]:
    """Return the power of the noise in each bin, in units of the variance of a pixel.

    A mean of frames that were resampled by cubic B-splines at any fraction of a pixel has less noise at high
    frequencies: ``|sum_k b3(k - f) exp(-iwk)|^2``, averaged over the fractions f, is ``sum_k b7(k) exp(-iwk)``, divided
    by ``((2 + cos w) / 3)^2`` for the filter that turns pixels into coefficients. How far this holds is told by the
    noise found at the ``corner`` of the spectrum: frames that moved by whole pixels were not smoothed.
    """
    total: NDArray[np.float64] = np.ones((1,) * len(axes))
    radius: NDArray[np.float64] = np.zeros((1,) * len(axes))
    at_corner = 1.0
    for k, axis in enumerate(axes):
        n = min(shape[axis], _COARSE)
        line = (np.arange(n) + 0.5) / n
        w = np.pi * line
        left = (2416 + 2382 * np.cos(w) + 240 * np.cos(2 * w) + 2 * np.cos(3 * w)) / 5040 / ((2 + np.cos(w)) / 3) ** 2
        at_corner *= float(left[int(_CORNERS[0] * n) :].mean())
        where = [-1 if a == k else 1 for a in range(len(axes))]
        total = total * left.reshape(where)
        radius = radius + (line**2).reshape(where)
    smoothed = float(np.clip(np.log(max(corner, 1e-6)) / np.log(at_corner), 0.0, 1.0))
    more = float(np.clip(corner / at_corner**smoothed, 0.25, _MORE))
    bins = np.minimum(np.sqrt(radius / len(axes)) * _BINS, _BINS - 1).astype(int).ravel()
    count = np.bincount(bins, minlength=_BINS)
    level = np.bincount(bins, (total**smoothed).ravel(), _BINS) / np.maximum(count, 1)
    known = np.flatnonzero(count)
    return np.asarray(more * np.interp(np.arange(_BINS), known, level[known]), np.float64)


def _corner_power(spectrum: NDArray[np.float32], axes: list[int]) -> float:
    """Return the power of the noise: that of the highest frequencies, and of lower ones as far as these agree."""
    found, spread = 0.0, np.inf
    for edge in _CORNERS:
        part = tuple(slice(int(edge * n), n) if a in axes else slice(None) for a, n in enumerate(spectrum.shape))
        corner = np.square(spectrum[part])
        if not corner.size:
            continue
        # the mean of squared normal numbers is 2.2 times their median; a median forgives single bright frequencies
        level = float(np.median(corner)) * 2.198
        if level > found + 3 * spread:  # signal begins
            break
        found, spread = level, 1.8 * level / np.sqrt(corner.size)
    return found
