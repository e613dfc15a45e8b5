"""Refine a homography on feature maps: inverse-compositional Gauss-Newton with robust weights and bounded corners.

Baker & Matthews, Int. J. Computer Vision 56, 2004, sec. 3.2, on several channels. The step is solved for the offsets of
the four corners, where damping and bounds have the same meaning in every direction; less than a homography is a
subspace of those.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.reduction import enlarged, reduced
from stackalign.core.geometry import centre, corners
from stackalign.core.multimodal.corners import corner_distance, plausible
from stackalign.core.transform import TransformModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]
    Features = NDArray[np.float32]

ALIKE = 9.0  # px: residuals of neighbours are not independent, features are smooth over about 3 x 3 pixels


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """Where the features fit best.

    Attributes
    ----------
    matrix : ndarray (3, 3)
        Moving -> fixed, pixels.
    score : float
        Correlation of the features over what both show, in [-1, 1]; -1 where too little is in view.
    overlap : float
        Share of the smaller image, as it lies, that both show.
    moved : float
        Mean distance of the corners from where they started, pixels.
    converged : bool
        Whether the last step was small.
    spread : float
        Standard error of the corners that the curvature and the residual imply, pixels; residuals of neighbours are
        taken as alike over a few pixels. NaN if it is not fixed.
    """

    matrix: Array
    score: float
    overlap: float
    moved: float
    converged: bool
    spread: float


@dataclass(frozen=True, eq=False)
class FeatureImage:
    """Feature maps as the kernels take them: (y, x, channel), with the weight of each pixel."""

    values: Features
    weight: NDArray[np.float32]

    @classmethod
    def of(cls, features: Features | FeatureImage, weight: NDArray[Any] | None = None) -> FeatureImage:
        """Return maps (channel, y, x) in the other order; ValueError if they are no such maps."""
        if isinstance(features, cls):
            return features
        maps = np.asarray(features, np.float32)
        if maps.ndim != 3 or min(maps.shape[1:]) < 4:
            raise ValueError(f"features must be (channels, y, x) with at least 4 pixels a side, got {maps.shape}")
        if weight is not None and weight.shape != maps.shape[1:]:
            raise ValueError(f"the weights are {weight.shape}, the features are {maps.shape[1:]}: they must be alike")
        known = np.isfinite(maps).all(0)
        counts = np.where(known, 1.0 if weight is None else weight, 0.0).astype(np.float32)
        values = np.where(known, maps, np.float32(0)) if not known.all() else maps
        return cls(np.ascontiguousarray(np.moveaxis(values, 0, -1)), counts)

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels along y and x."""
        return self.values.shape[:2]

    @cached_property
    def known(self) -> int:
        """How many pixels count."""
        return int(np.count_nonzero(self.weight))

    def halved(self) -> FeatureImage:
        """Return means over 2 x 2 pixels."""
        from stackalign.core.multimodal.feature_kernels import halved

        h, w = (n // 2 for n in self.shape)
        values = np.empty((h, w, self.values.shape[2]), np.float32)
        weight = np.empty((h, w), np.float32)
        halved(self.values, self.weight, values, weight)
        return FeatureImage(values, weight)


def refine(
    fixed: Features | FeatureImage,
    moving: Features | FeatureImage,
    matrix: ArrayLike,
    *,
    model: TransformModel | str = TransformModel.PROJECTIVE,
    levels: int = 1,
    iterations: int = 20,
    robust: float = 1.0,
    damping: float = 1e-3,
    max_change: float = 0.25,
    tolerance: float = 0.01,
    least_overlap: float = 0.25,
    step: int = 1,
) -> Refined:
    """Refine a homography on feature maps.

    Parameters
    ----------
    fixed, moving : ndarray (channels, y, x) float32, or FeatureImage
        Zero-mean features of the same channels, any sizes; a pixel with a NaN does not count.
    matrix : array_like (3, 3)
        Moving -> fixed, pixels, where to begin.
    model : TransformModel or str
        What may change: the result is ``change @ matrix`` with a change of this family.
    levels : int
        Resolutions, each half of the next; 1: this one only.
    iterations : int
        At most, at each resolution.
    robust : float
        Where weights of pixels that do not fit fall off, in units of the mean squared distance; 0: all weigh the same.
    damping : float
        Share of the mean curvature that is added in every direction.
    max_change : float
        How far each corner may go from where it started, as a share of the smaller image's size as it lies.
    tolerance : float
        Pixels of the finest resolution: a step shorter than this is the last.
    least_overlap : float
        Share of the smaller image that both must show.
    step : int
        Every step-th row and column is used.

    Returns
    -------
    Refined
        Where it started, with its score, if every step leads astray.

    Raises
    ------
    ValueError
        If the arrays are no feature maps, or have different channels.
    """
    pyramid = [(FeatureImage.of(fixed), FeatureImage.of(moving))]
    if pyramid[0][0].values.shape[2] != pyramid[0][1].values.shape[2]:
        raise ValueError(
            f"both need the same channels: fixed has {pyramid[0][0].values.shape[2]}, moving"
            f" {pyramid[0][1].values.shape[2]}"
        )
    while len(pyramid) < levels and min(*pyramid[-1][0].shape, *pyramid[-1][1].shape) >= 16:
        pyramid.append((pyramid[-1][0].halved(), pyramid[-1][1].halved()))
    begun = current = np.asarray(matrix, float)
    converged, spread = False, np.nan
    for level in reversed(range(len(pyramid))):
        factors = (2**level, 2**level)
        matrix, converged, spread = _descend(
            *pyramid[level], reduced(current, factors), TransformModel(model), iterations, robust, damping, max_change,
            tolerance, step,
        )  # fmt: skip
        current = enlarged(matrix, factors)
    score, overlap = score_of(*pyramid[0], current, least_overlap=least_overlap, step=step)
    moved = corner_distance(begun, current, pyramid[0][1].shape)
    return Refined(current, score, overlap, float(moved), converged, spread)


def score_of(
    fixed: FeatureImage, moving: FeatureImage, matrix: Array, *, least_overlap: float = 0.25, step: int = 1
) -> tuple[float, float]:
    """Return (score, overlap) of a homography moving -> fixed; see `Refined`."""
    from stackalign.core.multimodal.descent_kernels import overlap_sums

    try:
        backward = np.linalg.inv(matrix)
    except np.linalg.LinAlgError:
        return -1.0, 0.0
    sums = overlap_sums(fixed.values, moving.values, fixed.weight, moving.weight, backward / backward[2, 2], step)
    smaller = _smaller(fixed, moving, matrix)
    if not smaller > 0:
        return -1.0, 0.0
    overlap = float(sums[3] * step * step / smaller)
    if overlap < least_overlap or not np.isfinite(sums).all():
        return -1.0, overlap
    return float(sums[0] / np.sqrt(max(sums[1] * sums[2], 1e-30))), overlap


def flow_of(shape: Sequence[int]) -> tuple[Array, Array, float]:
    """Return what the eight first-order motions of a homography do to the corners of an image.

    With u, v the coordinates about the centre over the radius, the displacement is p0 + p1 u + p2 v + u (p6 u + p7 v)
    along y and p3 + p4 u + p5 v + v (p6 u + p7 v) along x.

    Returns
    -------
    matrix : ndarray (8, 8)
        Rows: offsets of the corners in the order of `geometry.corners`, y before x; columns: p.
    middle : ndarray (2,)
    radius : float
    """
    middle, radius = centre(shape), max(shape) / 2
    u, v = ((corners(shape) - middle) / radius).T
    zero, one = np.zeros(4), np.ones(4)
    along_y = np.stack([one, u, v, zero, zero, zero, u * u, u * v], -1)
    along_x = np.stack([zero, zero, zero, one, u, v, u * v, v * v], -1)
    return np.stack([along_y, along_x], 1).reshape(8, 8), middle, radius


def _subspace(model: TransformModel) -> Array:
    """Return the combinations of the eight motions, as columns, that a model allows."""
    free = np.eye(8)
    match model:
        case TransformModel.TRANSLATION:
            return free[:, [0, 3]]
        case TransformModel.EUCLIDEAN:
            return np.column_stack([free[:, 0], free[:, 3], free[:, 4] - free[:, 2]])
        case TransformModel.SIMILARITY:
            return np.column_stack([free[:, 0], free[:, 3], free[:, 4] - free[:, 2], free[:, 1] + free[:, 5]])
        case TransformModel.AFFINE:
            return free[:, :6]
        case _:
            return free


def _smaller(fixed: FeatureImage, moving: FeatureImage, matrix: Array) -> float:
    """Return the area, in pixels of fixed, of the smaller of both images as they lie."""
    middle = np.append(centre(moving.shape), 1.0)
    depth = float(matrix[2] @ middle)
    area = abs(np.linalg.det(matrix)) / max(abs(depth) ** 3, 1e-9) * moving.known
    return float(min(area, fixed.known))


def _descend(
    fixed: FeatureImage,
    moving: FeatureImage,
    matrix: Array,
    model: TransformModel,
    iterations: int,
    robust: float,
    damping: float,
    max_change: float,
    tolerance: float,
    step: int,
) -> tuple[Array, bool, float]:
    """Return a refined homography, whether the last step was small, and the standard error of the corners."""
    from stackalign.core.multimodal.descent_kernels import descended

    to_corners, middle, radius = flow_of(fixed.shape)
    space, _ = np.linalg.qr(to_corners @ _subspace(model))  # columns: corner offsets
    reach = max_change * min(*fixed.shape, np.sqrt(_smaller(fixed, moving, matrix)))
    begun = matrix / matrix[2, 2]
    current, converged, spread = descended(
        fixed.values, moving.values, fixed.weight, moving.weight, begun, np.ascontiguousarray(space),
        np.linalg.inv(to_corners), middle, radius, corners(moving.shape), reach, ALIKE, iterations, robust, damping,
        tolerance, step,
    )  # fmt: skip
    if not plausible(current, moving.shape, 6.0):
        return begun, False, float(spread)
    return current, bool(converged), float(spread)
