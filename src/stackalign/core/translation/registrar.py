"""Cross-correlation: a translation found over the whole range by FFT, then refined to the Cramer-Rao bound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from stackalign.core.frames.preprocess import PairRegistrar
from stackalign.core.ranges import MaxShift, MinOverlap
from stackalign.core.references.reference import Reference
from stackalign.core.references.rounds import align_stack
from stackalign.core.stack import ImageStack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from stackalign.core.displacement import DisplacementModel
    from stackalign.core.registration import ReferenceLike, Registration
    from stackalign.core.translation.aligner import TranslationAligner
    from stackalign.core.work import Work

Normalisation = Literal["overlap", "phase", "none"]


class CrossCorrelation(PairRegistrar):
    """Translation, 2-D and 3-D: found by cross-correlation, refined by weighted least squares."""

    method: Literal["cross-correlation"] = "cross-correlation"
    max_shift: MaxShift = None
    min_overlap: MinOverlap = 0.25
    subpixel: bool = Field(
        True,
        title="Sub-pixel",
        description="Refine below whole pixels; off: whole pixels, whose resampling changes no value",
    )
    normalisation: Normalisation = Field(
        "overlap",
        title="Normalisation",
        description="overlap: each shift judged by the correlation coefficient of what overlaps; phase: phase"
        " correlation; none: plain correlation",
        json_schema_extra={"advanced": True},
    )
    blocks: bool = Field(
        False,
        title="Blocks",
        description="Piecewise-rigid: after the translation each block of the frame gets a shift of its own (2-D)",
    )
    block_spacing: float = Field(
        64.0,
        title="Block spacing",
        description="Distance between the centres of neighbouring blocks, which overlap by half",
        ge=8,
        le=10_000,
        json_schema_extra={"unit": "px", "advanced": True},
    )
    block_difference: float = Field(
        1.0,
        title="Block difference",
        description="How much neighbouring blocks are expected to differ; smaller is smoother: blocks with little"
        " texture lean on their neighbours",
        gt=0,
        le=1000,
        json_schema_extra={"unit": "px", "advanced": True},
    )

    def fit(
        self,
        stack: ImageStack,
        *,
        reference: ReferenceLike | None = None,
        anchor: int | str | None = None,
        mask: NDArray[np.bool_] | None = None,
    ) -> Work[Registration]:
        """Estimate one translation per frame; see `Registrar.fit`.

        Raises
        ------
        ValueError
            If the reference, the anchor or the mask do not fit the stack, or the reference has no contrast; if blocks
            are asked for in volumes.
        """
        source = ImageStack.of(stack)
        if self.blocks and source.ndim != 2:
            raise ValueError("blocks are for frames (y, x): switch them off to align volumes")
        policy = Reference.of("mean" if reference is None else reference, len(source), source.frame_shape)
        rigid = yield from align_stack(
            source, self.aligner(), policy,
            anchor=anchor, mask=mask, rolling=self.rolling, lag=self.lag, bends=self.blocks,
        )  # fmt: skip
        if not self.blocks:
            return rigid
        from stackalign.core.piecewise.blocks import refine_blocks

        return (
            yield from refine_blocks(
                source, rigid, policy,
                spacing=self.block_spacing, difference=self.block_difference, mask=mask, filtered=self.filtered,
            )
        )  # fmt: skip

    def aligner(self) -> TranslationAligner:
        """Return what aligns one frame to one image."""
        from stackalign.core.translation.aligner import TranslationAligner

        return TranslationAligner(self)

    def fit_model(
        self, images: ImageStack | ArrayLike, reference: ArrayLike | None = None, *, axis: int | None = None
    ) -> DisplacementModel:
        """Estimate displacements in the vocabulary of thunder-registration.

        Parameters
        ----------
        images : ImageStack or array (t, y, x) / (t, z, y, x)
            The frames.
        reference : array, optional
            Image to align to; the mean of ``images``, re-estimated, if left out.
        axis : int, optional
            Axis of a volume: each plane along it gets its own displacement.

        Returns
        -------
        DisplacementModel
            ``transformations[(k,)]``, ``toarray()``, ``transform(images)``.
        """
        from stackalign.core.displacement import fit_displacements

        return fit_displacements(self, images, reference, axis)
