"""Gradient alignment from translation to homography: searched on reduced frames, refined through a pyramid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from stackalign.core.frames.preprocess import PairRegistrar
from stackalign.core.lucas_kanade.aligner import MotionAligner
from stackalign.core.ranges import MaxRotation, MaxScale, MaxShift, MinOverlap
from stackalign.core.references.rounds import align_stack
from stackalign.core.stack import ImageStack
from stackalign.core.transform import TransformModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.registration import ReferenceLike, Registration
    from stackalign.core.work import Work


class LucasKanade(PairRegistrar):
    """Translation to homography, 2-D and 3-D: gradients, robust weights, brightness solved with the motion."""

    method: Literal["lucas-kanade"] = "lucas-kanade"
    model: TransformModel = Field(
        TransformModel.EUCLIDEAN,
        title="Model",
        description="Family of the motion: translation, euclidean, similarity, affine; projective for images only",
    )
    robust: Literal["none", "huber", "tukey"] = Field(
        "tukey",
        title="Robust",
        description="Weight of pixels that contradict the motion, where residuals are larger than noise: as any other,"
        " less (huber), or none at all (tukey)",
    )
    weighting: Literal["noise", "equal"] = Field(
        "noise",
        title="Weighting",
        description="Of pixels by their brightness: the less, the larger residuals are there (noise), or all alike"
        " (equal): with robust none plain least squares, as StackReg has it",
        json_schema_extra={"advanced": True},
    )
    max_rotation: MaxRotation = 10.0
    max_scale: MaxScale = 1.0
    max_shift: MaxShift = None
    min_overlap: MinOverlap = 0.25
    iterations: int = Field(
        30,
        title="Steps",
        description="At most as many at each scale",
        ge=1,
        le=1000,
        json_schema_extra={"advanced": True},
    )

    def fit(
        self,
        stack: ImageStack,
        *,
        reference: ReferenceLike | None = None,
        anchor: int | str | None = None,
        mask: NDArray[np.bool_] | None = None,
    ) -> Work[Registration]:
        """Estimate one transform per frame; see `Registrar.fit`.

        Raises
        ------
        ValueError
            If the reference, the anchor or the mask do not fit the stack, the reference has no contrast, or the model
            is projective and the frames are volumes.
        """
        source = ImageStack.of(stack)
        chosen = "mean" if reference is None else reference
        aligner = self.aligner(source.frame_shape, source.pixel_size)
        return (
            yield from align_stack(
                source, aligner, chosen, anchor=anchor, mask=mask, rolling=self.rolling, lag=self.lag
            )
        )

    def aligner(self, frame_shape: Sequence[int], pixel_size: Sequence[float] | None = None) -> MotionAligner:
        """Return what aligns one frame to one image.

        Parameters
        ----------
        frame_shape : sequence of int (d,)
            Of the reference at full size.
        pixel_size : sequence of float (d,), optional
            Rotations are rigid in these units; pixels are cubes if left out.
        """
        if self.model is TransformModel.PROJECTIVE and len(frame_shape) != 2:
            raise ValueError("the projective model is for images, not for volumes: choose affine")
        spacing = np.ones(len(frame_shape)) if pixel_size is None else np.asarray(pixel_size, float)
        return MotionAligner(self, tuple(frame_shape), tuple((spacing / spacing[-1]).tolist()))
