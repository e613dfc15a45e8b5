"""How much of the structure of two aligned images is common: what tells a right motion from one that only fits best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.reduction import as_read, binned, reduced, reduction
from stackalign.core.warping.resample import warp_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_AGREEMENT = 0.45  # below, a motion is not believed
SURE_AGREEMENT = 0.6  # the same of a motion that did not stand out in a search
_COMPARED = {2: 128, 3: 48}  # pixels along an axis of the images whose agreement is judged
NOISE_ROWS = 32  # of a plane, from which its noise is estimated
NOISE_PLANES = 8  # of a volume
_LEAST_RELIABLE = 0.6  # below, noise hides so much that a correlation must speak for itself


def agreement(moving: NDArray[Any], reference: NDArray[Any], matrix: NDArray[np.float64]) -> float:
    """Return how much of the structure of two images is common where one is laid on the other, 0 to 1.

    The correlation of reduced images whose brightest and darkest pixels are clipped, so that no single bright spot
    speaks for the rest, over the one that the noise of both allows.
    """
    factors = reduction(reference.shape, _COMPARED[reference.ndim])
    fixed = binned(reference, factors)
    laid = warp_frame(binned(moving, factors), reduced(matrix, factors), order=1, fill="nan", output_shape=fixed.shape)
    both = np.isfinite(fixed) & np.isfinite(laid)
    if both.sum() < 16:
        return 0.0
    reliable, parts = 1.0, []
    for image, values in ((reference, fixed[both]), (moving, laid[both])):
        part = np.clip(values, *np.percentile(values, [2, 98])).astype(float)
        part = part - part.mean()
        variance, noise = float(part.var()), noise_variance(image) / float(np.prod(factors))
        reliable *= np.sqrt(max(1 - noise / variance, 0.0)) if variance > 0 else 1.0
        parts.append(part)
    below = float(np.sqrt((parts[0] ** 2).sum() * (parts[1] ** 2).sum()))
    correlation = float((parts[0] * parts[1]).sum()) / below if below > 0 else 0.0
    return float(np.clip(correlation / max(reliable, _LEAST_RELIABLE), 0, 1))


def noise_variance(image: NDArray[Any]) -> float:
    """Return the variance of white noise, from what a plane through neighbours leaves (Immerkaer, CVIU 64, 1996).

    Of a large image, rows and planes spread over it are looked at.
    """
    from stackalign.core.frames.noise_kernels import median_curve

    if min(image.shape[-2:]) < 3:
        return 0.0
    curve = median_curve(as_read(image).reshape(-1, *image.shape[-2:]), NOISE_PLANES, NOISE_ROWS)
    return noise_of_curve(curve)


def noise_of_curve(curve: float) -> float:
    """Return the variance of white noise whose second differences have this median; 0 if there is none (NaN)."""
    return float((1.4826 * curve / 6) ** 2) if np.isfinite(curve) else 0.0
