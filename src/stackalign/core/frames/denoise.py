"""Wiener filter of a reference image: frequencies count as far as signal stands above noise in them.

Noise in a reference adds to its gradients, which makes Gauss-Newton steps too short and, where a frame is part of its
own reference, holds it where it is. A filter whose gain is the share of signal in each frequency takes both away: the
cross-power with a frame then equals the filtered power, so that steps have the right length.
"""

from __future__ import annotations

from dataclasses import dataclass
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
_SCATTER = 2.33  # relative standard deviation of the median of a squared normal number, times the root of their count
_FAINT = 0.1  # of the noise: a signal of that power may be taken for it; noise that is taken for signal does harm
_SURE = 2.0  # standard deviations by which power must exceed that of the noise to count as signal


@dataclass(frozen=True, slots=True, eq=False)
class Denoised:
    """A filtered image, and what of its noise is left.

    Attributes
    ----------
    image : ndarray (y, x) or (z, y, x), float32
    gain : ndarray (96,)
        By which each bin of frequencies was scaled.
    left : ndarray (96,)
        Covariance of the noise before and after the filter in each bin of frequencies, over the variance of a pixel
        before it.
    passed : float
        Variance of the noise that a pixel still has, over that before.
    heard : float
        What this noise adds to the variance of a shift that is fitted to the image's slopes, over what the same noise
        in a frame adds.
    """

    image: NDArray[np.float32]
    gain: NDArray[np.float64]
    left: NDArray[np.float64]
    passed: float
    heard: float

    @property
    def axes(self) -> list[int]:
        """Axes along which there are frequencies to tell."""
        return _transformed(self.image.shape)

    def value_noise(self) -> float:
        """Return the covariance of the noise of a pixel before and after the filter, for variance 1."""
        bins, _ = _coarse_bins(self.image.shape, self.axes)
        return float(self.left[bins].mean())

    def slope_noise(self, *, after: bool = False) -> NDArray[np.float64]:
        """Return the covariance of the slopes of the noise before and after the filter, per axis (d,), variance 1.

        If ``after``, the variance of those after it. Slopes are those of a cubic spline: ``3 sin w / (2 + cos w)``
        times a wave of frequency w.
        """
        bins, lines = _coarse_bins(self.image.shape, self.axes)
        left = (self.gain * self.left if after else self.left)[bins]
        slopes = np.zeros(self.image.ndim)
        for k, axis in enumerate(self.axes):
            slope = (3 * np.sin(np.pi * lines[k]) / (2 + np.cos(np.pi * lines[k]))) ** 2
            slopes[axis] = float((left * slope.reshape([-1 if a == k else 1 for a in range(left.ndim)])).mean())
        return slopes


def wiener(image: NDArray[np.float32], variance: float | None = None, *, resampled: bool = False) -> Denoised:
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
    Denoised
        With the image itself where signal cannot be told from noise: a spectrum that is as high at the corner as
        everywhere.
    """
    from stackalign.core.frames.denoise_kernels import radial_power, scale_radially

    axes = _transformed(image.shape)
    as_it_is = Denoised(image, np.ones(_BINS), np.ones(_BINS), 1.0, 1.0)
    if not axes:
        return as_it_is
    spectrum: NDArray[Any] = np.asarray(fft.dctn(image, axes=axes, norm="ortho", workers=spare()), np.float32)
    volume = spectrum if spectrum.ndim == 3 else spectrum[None]
    # frequencies in units of the width of a bin; axes that are not transformed have none
    steps = np.zeros(3)
    for axis in axes:
        steps[3 - image.ndim + axis] = _BINS / np.sqrt(len(axes)) / image.shape[axis]
    power, count = radial_power(volume, steps, _BINS)
    power /= np.maximum(count, 1)
    low = float(power[: _BINS // 3].mean())
    corner, scatter = _corner_power(spectrum, axes)
    floor = np.full(_BINS, corner)
    if variance is not None:
        found = corner / variance if variance > 0 else 1.0
        # what fits to few residuals may miss
        floor *= np.clip(found, 0.25, _MORE) / found if found > 0 else 0.0
        if resampled:
            floor = variance * _noise_shape(image.shape, axes, found)
    elif corner <= 0 or corner > 0.5 * low:
        return as_it_is if corner > 0 else Denoised(image, np.ones(_BINS), np.zeros(_BINS), 0.0, 0.0)
    # averages over neighbouring bins: a single one is as noisy as its few coefficients
    counts = np.maximum(np.convolve(np.pad(count, 2, mode="edge"), np.ones(5), "valid"), 1)
    smooth = np.convolve(np.pad(power * count, 2, mode="edge"), np.ones(5), "valid") / counts
    smooth[:4], counts[:4] = power[:4], np.maximum(count[:4], 1)
    gain = np.clip(1 - floor / np.maximum(smooth, 1e-30), 0.0, 1.0)
    # slopes at the many high frequencies are steep: some per cent of their noise would outweigh a faint scene
    gain[smooth < floor * (1 + _SURE * np.hypot(np.sqrt(2 / counts), scatter))] = 0.0
    if gain.max() < 0.02:
        return as_it_is
    scale_radially(volume, steps, gain.astype(np.float32))
    known = max(corner if variance is None else variance, 1e-30)
    left = gain * floor / known
    passed = float((count * gain * left).sum() / count.sum())
    steep = np.arange(_BINS) ** 2 * count * power * gain**2
    heard = float((steep * left).sum() / max(steep.sum(), 1e-300))
    filtered = fft.idctn(spectrum, axes=axes, norm="ortho", workers=spare(), overwrite_x=True)
    return Denoised(np.asarray(filtered, np.float32), gain, left, passed, heard)


def _transformed(shape: tuple[int, ...]) -> list[int]:
    return [a for a, n in enumerate(shape) if n >= 8]


def _coarse_bins(shape: tuple[int, ...], axes: list[int]) -> tuple[NDArray[np.intp], list[NDArray[np.float64]]]:
    """Return the bins of a coarse grid of frequencies, and these along each axis in units of Nyquist's."""
    lines, radius = [], np.zeros((1,) * len(axes))
    for k, axis in enumerate(axes):
        n = min(shape[axis], _COARSE)
        lines.append((np.arange(n) + 0.5) / n)
        radius = radius + (lines[k] ** 2).reshape([-1 if a == k else 1 for a in range(len(axes))])
    return np.minimum(np.sqrt(radius / max(len(axes), 1)) * _BINS, _BINS - 1).astype(np.intp), lines


def _noise_shape(shape: tuple[int, ...], axes: list[int], corner: float) -> NDArray[np.float64]:
    """Return the power of the noise in each bin, in units of the variance of a pixel.

    A mean of frames that were resampled by cubic B-splines at any fraction of a pixel has less noise at high
    frequencies: ``|sum_k b3(k - f) exp(-iwk)|^2``, averaged over the fractions f, is ``sum_k b7(k) exp(-iwk)``, divided
    by ``((2 + cos w) / 3)^2`` for the filter that turns pixels into coefficients. How far this holds is told by the
    noise found at the ``corner`` of the spectrum: frames that moved by whole pixels were not smoothed.
    """
    total: NDArray[np.float64] = np.ones((1,) * len(axes))
    at_corner = 1.0
    bins, lines = _coarse_bins(shape, axes)
    for k, line in enumerate(lines):
        w = np.pi * line
        left = (2416 + 2382 * np.cos(w) + 240 * np.cos(2 * w) + 2 * np.cos(3 * w)) / 5040 / ((2 + np.cos(w)) / 3) ** 2
        at_corner *= float(left[int(_CORNERS[0] * len(line)) :].mean())
        total = total * left.reshape([-1 if a == k else 1 for a in range(len(axes))])
    smoothed = float(np.clip(np.log(max(corner, 1e-6)) / np.log(at_corner), 0.0, 1.0))
    more = float(np.clip(corner / at_corner**smoothed, 0.25, _MORE))
    count = np.bincount(bins.ravel(), minlength=_BINS)
    level = np.bincount(bins.ravel(), (total**smoothed).ravel(), _BINS) / np.maximum(count, 1)
    known = np.flatnonzero(count)
    return np.asarray(more * np.interp(np.arange(_BINS), known, level[known]), np.float64)


def _corner_power(spectrum: NDArray[np.float32], axes: list[int]) -> tuple[float, float]:
    """Return the power of the noise: that of the highest frequencies, and of lower ones as far as these agree.

    Second, its relative standard error.
    """
    found, scatter = 0.0, np.inf
    for edge in _CORNERS:
        part = tuple(slice(int(edge * n), n) if a in axes else slice(None) for a, n in enumerate(spectrum.shape))
        corner = np.square(spectrum[part])
        if not corner.size:
            continue
        # the mean of squared normal numbers is 2.2 times their median; a median forgives single bright frequencies
        level, near = float(np.median(corner)) * 2.198, _SCATTER / np.sqrt(corner.size)
        if np.isfinite(scatter) and level > found * (1 + _FAINT + 3 * np.hypot(scatter, near)):
            break  # signal begins
        found, scatter = level, near
    return found, float(min(scatter, 1.0))
