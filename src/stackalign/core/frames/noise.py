"""How noisy a pixel of a given brightness is: a camera's variance, constant plus proportional to the signal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CUT = 4.0  # standard deviations from which a residual does not count
_KEPT = 0.99893  # share of the variance of normal numbers that lies within


@dataclass(frozen=True, slots=True)
class NoiseModel:
    """Variance of a pixel: ``constant + slope * intensity``, at least ``floor``; squared intensity units.

    For photon counts with gain g and read noise r: slope g, constant r^2 - g * offset.
    """

    constant: float = 1.0
    slope: float = 0.0
    floor: float = 1e-12

    def variance(self, intensity: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the variance at each intensity."""
        variance = np.maximum(self.constant + self.slope * intensity, self.floor)
        return np.asarray(variance, np.float32)

    def above(self, level: float) -> NDArray[np.float64]:
        """Return constant, slope and floor (3,) for intensities less a level, as kernels take them."""
        return np.array([self.constant + self.slope * level, self.slope, self.floor])

    def even(self, intensity: float) -> NoiseModel:
        """Return the model of pixels that are all as noisy as one of this intensity."""
        return NoiseModel(max(self.constant + self.slope * intensity, self.floor), 0.0, self.floor)

    @classmethod
    def fitted(cls, intensity: NDArray[np.floating], residual: NDArray[np.floating]) -> NoiseModel:
        """Return the model of residuals (N,) at intensities (N,).

        The variance of each of up to 24 intensity classes is taken without outliers, so that a few pixels that really
        changed do not count; a weighted line goes through them. A falling line is none: constant.
        """
        count = len(intensity)
        overall = _variance(residual) if count else 0.0
        spread = max(float(np.ptp(intensity)) if count else 0.0, 1.0)
        floor = max(0.02 * overall, 1e-10 * spread * spread)
        if count < 400 or overall <= 0:
            return cls(max(overall, floor), 0.0, floor)
        order = np.argsort(intensity)
        classes = np.array_split(order, min(24, count // 100))
        x = np.array([float(np.median(intensity[c])) for c in classes])
        v = np.array([_variance(residual[c]) for c in classes])
        n = np.array([len(c) for c in classes], float)
        slope, constant = 0.0, overall
        for _ in range(3):  # the variance of a variance grows with its square
            w = n / np.maximum(constant + slope * x, floor) ** 2
            mx, mv = np.average(x, weights=w), np.average(v, weights=w)
            sxx = float((w * (x - mx) ** 2).sum())
            slope = max(float((w * (x - mx) * (v - mv)).sum()) / sxx, 0.0) if sxx > 0 else 0.0
            constant = float(mv - slope * mx)
        return cls(constant, slope, floor)


def _variance(residual: NDArray[np.floating]) -> float:
    """Return the variance without outliers; the median alone would understate that of skew noise, as of few photons."""
    apart = residual - np.median(residual)
    spread = 1.4826 * float(np.median(np.abs(apart)))
    kept = apart[np.abs(apart) < _CUT * spread]
    if len(kept) < 2:
        return spread**2
    return float(np.var(kept, dtype=np.float64)) / _KEPT
