"""The vocabulary of thunder-registration: fit -> model -> transform, with displacements in its sign.

A displacement says how far the *moving* image is displaced, (y, x) or (z, y, x) pixels: minus the translation that
aligns it. thunder's own estimate is in whole pixels; ours is not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.stack import ImageStack
from stackalign.core.transform import Transform
from stackalign.core.warping.resample import warp_frame
from stackalign.core.warping.warp import warp
from stackalign.core.work import drain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from stackalign.core.transform_series import TransformSeries
    from stackalign.core.translation.registrar import CrossCorrelation


@dataclass(frozen=True, slots=True, eq=False)
class Displacement:
    """The displacement of one image.

    Attributes
    ----------
    delta : ndarray (d,), or (planes, d)
        How far the moving image is displaced, pixels; one row for each plane along ``axis``.
    axis : int or None
        Axis of the volume whose planes move on their own.
    """

    delta: NDArray[np.float64]
    axis: int | None = None

    def toarray(self) -> NDArray[np.float64]:
        """Return the displacement, pixels."""
        return np.array(self.delta)

    def apply(self, image: ArrayLike) -> NDArray[Any]:
        """Return the image moved back by the displacement."""
        frame = np.asarray(image)
        if self.axis is None:
            return warp_frame(frame, Transform.from_translation(-self.delta))
        planes = np.moveaxis(frame, self.axis, 0)
        if len(planes) != len(self.delta):
            raise ValueError(f"{len(self.delta)} displacements for {len(planes)} planes along axis {self.axis}")
        moved = [warp_frame(p, Transform.from_translation(-s)) for p, s in zip(planes, self.delta, strict=True)]
        return np.moveaxis(np.stack(moved), 0, self.axis)


@dataclass(frozen=True, slots=True, eq=False)
class DisplacementModel:
    """Displacements of all images of a stack.

    Attributes
    ----------
    transformations : mapping of (k,) to Displacement
        One for each image.
    transforms : TransformSeries or None
        The same as matrices, moving -> reference; None where planes move on their own.
    """

    transformations: Mapping[tuple[int], Displacement]
    transforms: TransformSeries | None

    def toarray(self) -> NDArray[np.float64]:
        """Return all displacements, (T, d) or (T, planes, d), pixels."""
        return np.stack([self.transformations[(k,)].toarray() for k in range(len(self.transformations))])

    def transform(self, images: ImageStack | ArrayLike) -> ImageStack:
        """Return the images moved back by their displacements, lazily where planes move together.

        Raises
        ------
        ValueError
            If the number of images differs from that which the model was fitted to.
        """
        stack = ImageStack.of(images)
        if len(stack) != len(self.transformations):
            raise ValueError(
                f"the model holds {len(self.transformations)} displacements, the stack {len(stack)} images"
            )
        if self.transforms is not None:
            return warp(stack, self.transforms)
        moved = np.stack([self.transformations[(k,)].apply(frame) for k, frame in enumerate(stack)])
        return replace(stack, frames=moved, source=None)


def fit_displacements(
    registrar: CrossCorrelation, images: Any, reference: Any = None, axis: int | None = None
) -> DisplacementModel:
    """Estimate displacements; see `CrossCorrelation.fit_model`.

    Raises
    ------
    ValueError
        If ``axis`` is named for 2-D images, or does not exist.
    """
    stack = ImageStack.of(images)
    if axis is None:
        series = _series(registrar, stack, reference)
        moves = {(k,): Displacement(-series.translations[k]) for k in range(len(series))}
        return DisplacementModel(moves, series)
    if stack.ndim != 3 or not -3 <= axis < 3:
        raise ValueError(f"axis {axis} of frames of shape {stack.frame_shape}: only volumes have planes to move apart")
    number = axis % 3
    count = stack.frame_shape[number]
    pixels = np.moveaxis(stack.asarray(), 1 + number, 1)
    target = None if reference is None else np.moveaxis(np.asarray(reference), number, 0)
    planes = [
        _series(registrar, ImageStack(pixels[:, z]), None if target is None else target[z]).translations
        for z in range(count)
    ]
    deltas = -np.stack(planes, axis=1)
    return DisplacementModel({(k,): Displacement(deltas[k], number) for k in range(len(stack))}, None)


def _series(registrar: CrossCorrelation, stack: ImageStack, reference: Any) -> TransformSeries:
    image = None if reference is None else np.asarray(reference)
    return drain(registrar.fit(stack, reference=image)).unwrap().transforms
