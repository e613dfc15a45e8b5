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

SIMILARITIES, EDGES = 8, 3
#: channels of `describe` that stand for each family
FAMILIES = (slice(0, SIMILARITIES), slice(SIMILARITIES, SIMILARITIES + EDGES))
_EDGE_SHARE = 0.25  # of energy, against self-similarity, which ranks right places higher and is the more exact
MARGIN = 2  # px: features so close to a hole know of what it was filled with


def describe(image: NDArray[Any]) -> FeatureImage:
    """Return the features of an image: self-similarities of mean energy 1, then edges with a quarter of that.

    Parameters
    ----------
    image : ndarray (y, x)
        Not a number: not known.

    Returns
    -------
    FeatureImage
        11 channels; pixels that are not known, and their neighbours, weigh nothing.
    """
    from stackalign.core.multimodal.feature_kernels import interleaved

    plane, known = contrast_plane(image)
    known = away_from_holes(known, MARGIN)
    (similar, edges), gains = families(plane, known)
    values = np.empty((*plane.shape, SIMILARITIES + EDGES), np.float32)
    interleaved(similar, edges, np.repeat(gains, (SIMILARITIES, EDGES)), values)
    return FeatureImage(values, known.astype(np.float32))


def families(
    plane: NDArray[np.float32], known: NDArray[np.bool_]
) -> tuple[tuple[Features, Features], NDArray[np.float32]]:
    """Return self-similarity and edges of a plane, and the gains (2,) that bring each to its share of energy."""
    both, gains = (self_similarity(plane), oriented_edges(plane)), np.ones(2, np.float32)
    for k, (maps, share) in enumerate(zip(both, (1.0, _EDGE_SHARE), strict=True)):
        energy = np.einsum("kyx,kyx->yx", maps, maps)
        level = float(energy[known].mean()) if known.any() else 0.0
        if level > 0:
            gains[k] = np.sqrt(share / level)
    return both, gains


def away_from_holes(known: NDArray[np.bool_], margin: int) -> NDArray[np.bool_]:
    """Return where an image is known and ``margin`` pixels from where it is not."""
    from scipy.ndimage import binary_erosion

    return known if known.all() else np.asarray(binary_erosion(known, iterations=margin, border_value=1))


def self_similarity(plane: NDArray[np.float32], *, sigma: float = 1.0) -> Features:
    """Return how alike the patch around each pixel is to those around its eight neighbours, (8, y, x), zero mean.

    The modality independent neighbourhood descriptor: Heinrich et al., Medical Image Analysis 16, 2012, eq. 4 to 6,
    with a Gaussian patch of ``sigma`` pixels. A patch is as far from its left neighbour as that one from its right
    neighbour: four blurred maps of squared differences give all eight.
    """
    from stackalign.core.multimodal.feature_kernels import blurred, exponents, squared_differences

    h, w = plane.shape
    padded = np.pad(np.ascontiguousarray(plane, np.float32), 2, mode="edge")
    squares = np.empty((4, h + 2, w + 2), np.float32)
    squared_differences(padded, squares)
    apart = np.empty_like(squares)
    blurred(squares, _taps(sigma, 3.0), apart)
    level = float(apart[:, 1:-1, 1:-1].mean())
    out = np.zeros((SIMILARITIES, h, w), np.float32)
    if level <= 0:
        return out
    exponents(apart, np.float32(0.01 * level), np.float32(1000 * level), out)
    np.exp(out, out=out)
    out -= out.mean((1, 2), keepdims=True)
    return out


def oriented_edges(
    plane: NDArray[np.float32], *, sigma: float = 0.7, pool: float = 1.0, background: float = 4.0, window: float = 5.0
) -> Features:
    """Return how strong edges of each orientation are against all those around, (3, y, x), zero mean.

    Oriented gradients after Ye et al. (CFOG), IEEE Trans. Geoscience and Remote Sensing 57, 2019, eq. 4 to 6;
    orientations are modulo 180 degrees. The root of the gradient is taken, which brings strong and weak edges closer,
    and each map is freed from its local mean and divided by the local strength of all of them. The squared cosine to
    any direction is a combination of 1, cos and sin of twice the orientation: these three maps, weighted, have the
    inner products of six maps of directions, which is all that is made of them.

    Parameters
    ----------
    plane : ndarray (y, x)
    sigma, pool, background, window : float
        Standard deviations, pixels: of the derivative, of the pooling of each map, of the mean that is taken away, of
        the window that the strength is measured in.
    """
    from stackalign.core.multimodal.feature_kernels import blurred, harmonics

    soft, raw = np.empty((1, *plane.shape), np.float32), np.empty((EDGES, *plane.shape), np.float32)
    blurred(np.ascontiguousarray(plane, np.float32)[None], _taps(sigma, 3.0), soft)
    harmonics(soft[0], raw)
    out, around = np.empty_like(raw), np.empty_like(raw)
    blurred(raw, _taps(pool, 3.0), out)
    blurred(out, _taps(background, 2.5), around)
    out -= around
    energy = np.einsum("kyx,kyx->yx", out, out)
    local = np.empty((1, *plane.shape), np.float32)
    blurred(energy[None], _taps(window, 2.5), local)
    out /= np.sqrt(local[0] + np.float32(0.01 * float(energy.mean()) + 1e-20))
    return out


def blurred_once(plane: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Return an image (y, x) blurred by a Gaussian of ``sigma`` pixels."""
    from stackalign.core.multimodal.feature_kernels import blurred

    out = np.empty((1, *plane.shape), np.float32)
    blurred(np.ascontiguousarray(plane, np.float32)[None], _taps(sigma, 2.5), out)
    return np.asarray(out[0])


def _taps(sigma: float, truncate: float) -> NDArray[np.float32]:
    """Return a Gaussian kernel that sums to 1, an odd number of taps."""
    reach = int(truncate * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.asarray(taps / taps.sum(), np.float32)


def contrast_plane(image: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return an image in units of its own contrast, holes filled from their neighbours, and where it is known."""
    from stackalign.core.frames.holes import filled_along_lines

    values = np.asarray(image, np.float32)
    known = np.isfinite(values)
    if not known.any():
        return np.zeros(values.shape, np.float32), known
    if not known.all():
        values = filled_along_lines(values, known)
    some = values[known][::3]
    middle, contrast = float(some.mean()), float(some.std()) or float(np.ptp(values)) or 1.0
    return ((values - np.float32(middle)) / np.float32(contrast)).astype(np.float32), known
