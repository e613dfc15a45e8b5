"""Feature maps that hardly depend on the modality: how an image resembles itself, and how its edges lie.

Neither knows which side of an edge is brighter, so that inverted contrast changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.multimodal.refine import FeatureImage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Features = NDArray[np.float32]

_NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))
ORIENTATIONS = 6
#: channels of `describe` that stand for each family
FAMILIES = (slice(0, len(_NEIGHBOURS)), slice(len(_NEIGHBOURS), len(_NEIGHBOURS) + ORIENTATIONS))
_MARGIN = 2  # px: features so close to a hole know of what it was filled with


def describe(image: NDArray[Any]) -> FeatureImage:
    """Return the features of an image: self-similarities, then edges by orientation, each family of mean energy 1.

    Parameters
    ----------
    image : ndarray (y, x)
        Not a number: not known.

    Returns
    -------
    FeatureImage
        14 channels; pixels that are not known, and their neighbours, weigh nothing.
    """
    from scipy.ndimage import binary_erosion

    plane, known = _plane(image)
    if not known.all():
        known = binary_erosion(known, iterations=_MARGIN, border_value=1)
    families = [self_similarity(plane), oriented_edges(plane)]
    for maps in families:
        energy = (maps**2).sum(0)
        level = float(energy[known].mean()) if known.any() else 0.0
        if level > 0:
            maps /= np.float32(np.sqrt(level))
    return FeatureImage.of(np.concatenate(families), known)


def self_similarity(plane: NDArray[np.float32], *, sigma: float = 1.0) -> Features:
    """Return how alike the patch around each pixel is to those around its eight neighbours, (8, y, x), zero mean.

    The modality independent neighbourhood descriptor: Heinrich et al., Medical Image Analysis 16, 2012, eq. 4 to 6,
    with a Gaussian patch of ``sigma`` pixels.
    """
    from scipy.ndimage import gaussian_filter

    h, w = plane.shape
    padded = np.pad(plane, 1, mode="edge")
    apart = np.empty((len(_NEIGHBOURS), h, w), np.float32)
    for k, (y, x) in enumerate(_NEIGHBOURS):
        difference = padded[1 + y : 1 + y + h, 1 + x : 1 + x + w] - plane
        gaussian_filter(difference * difference, sigma, output=apart[k], truncate=3.0)
    variance = apart.mean(0)
    level = float(variance.mean())
    if level <= 0:
        return np.zeros_like(apart)
    apart /= np.clip(variance, 0.01 * level, 1000 * level)
    out = np.exp(-apart)
    out /= out.max(0)
    out -= out.mean((1, 2), keepdims=True)
    return out


def oriented_edges(
    plane: NDArray[np.float32], *, sigma: float = 0.7, pool: float = 1.0, background: float = 4.0, window: float = 5.0
) -> Features:
    """Return how strong edges of each orientation are against all those around, (6, y, x), zero mean.

    Oriented gradients after Ye et al. (CFOG), IEEE Trans. Geoscience and Remote Sensing 57, 2019, eq. 4 to 6;
    orientations are modulo 180 degrees. The root of the gradient is taken, which brings strong and weak edges closer,
    and each map is freed from its local mean and divided by the local strength of all of them.

    Parameters
    ----------
    plane : ndarray (y, x)
    sigma, pool, background, window : float
        Standard deviations, pixels: of the derivative, of the pooling of each map, of the mean that is taken away, of
        the window that the strength is measured in.
    """
    from scipy.ndimage import gaussian_filter

    gy, gx = np.gradient(gaussian_filter(plane, sigma, truncate=3.0))
    size = np.hypot(gy, gx) + np.float32(1e-12)
    share = size**-1.5  # root of the gradient times the squared cosine
    out = np.empty((ORIENTATIONS, *plane.shape), np.float32)
    for k in range(ORIENTATIONS):
        angle = np.pi * k / ORIENTATIONS
        along = gy * np.float32(np.sin(angle)) + gx * np.float32(np.cos(angle))
        gaussian_filter(along * along * share, pool, output=out[k], truncate=3.0)
        out[k] -= gaussian_filter(out[k], background, truncate=2.5)
    energy = gaussian_filter((out**2).sum(0), window, truncate=2.5)
    out /= np.sqrt(energy + np.float32(0.01 * float(energy.mean()) + 1e-20))
    return out


def _plane(image: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return an image in units of its own contrast, holes filled from their neighbours, and where it is known."""
    from stackalign.core.holes import filled_from_nearest

    values = np.asarray(image, np.float32)
    known = np.isfinite(values)
    if not known.any():
        return np.zeros(values.shape, np.float32), known
    if not known.all():
        values = filled_from_nearest(values, known)
    low, middle, high = np.percentile(values[known][::3], (1, 50, 99))
    contrast = float(high - low) or float(np.ptp(values)) or 1.0
    return ((values - np.float32(middle)) / np.float32(contrast)).astype(np.float32), known
