"""Align a stack: each frame is resampled once, from the composed matrix, at exact float64 coordinates.

A matrix maps moving -> reference; pixels of the output lie on the reference's grid, shifted by ``origin``. A pixel is
valid where its source lies within the moving frame, [0, n - 1] along every axis; elsewhere it gets the fill value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from stackalign.core.cluster import WorkerFrames, check_client
from stackalign.core.parameters import Parameters
from stackalign.core.piecewise.series import PiecewiseSeries
from stackalign.core.stack import ImageStack
from stackalign.core.warping.region import common_box, expanded_box
from stackalign.core.warping.resample import Fill, check_options, valid_mask, warp_frame, warp_sources

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from stackalign.core.transform_series import TransformSeries

Crop = Literal["none", "valid", "expand"]
__all__ = ["Crop", "Fill", "WarpOptions", "output_box", "valid_mask", "warp", "warp_frame", "warp_sources"]


class WarpOptions(Parameters):
    """How frames are resampled when a result is applied."""

    order: Literal[0, 1, 3, 5] = Field(
        3,
        title="Interpolation",
        description="B-spline order: 0 nearest (labels), 1 linear, 3 cubic, 5 quintic. Shifts by whole pixels copy",
        json_schema_extra={"words": ["nearest (0)", "linear (1)", "cubic (3)", "quintic (5)"]},
    )
    fill: Fill = Field(
        0.0,
        title="Fill",
        description="Value of pixels that no part of the frame covers: a number, 'nan' (float images) or 'edge'",
        json_schema_extra={"unit": "intensity"},
    )
    crop: Crop = Field(
        "none",
        title="Crop",
        description="none: the frame's own field; valid: only what every frame covers; expand: what any frame covers",
    )


def warp(
    stack: ImageStack | ArrayLike,
    transforms: TransformSeries,
    *,
    order: int = 3,
    fill: Fill = 0.0,
    crop: Crop = "none",
    client: Any = None,
) -> ImageStack:
    """Return the aligned stack, lazily: a frame is read and resampled once, when it is asked for.

    Parameters
    ----------
    stack : ImageStack or array (t, y, x) / (t, z, y, x)
        The frames that move.
    transforms : TransformSeries
        One per frame, moving -> reference. Piecewise series are resampled with their blocks.
    order, fill
        As for `warp_frame`.
    crop : {"none", "valid", "expand"}
        The frame's own field; the largest box that every valid frame covers; the box that holds every valid frame.
    client : dask.distributed.Client, optional
        Its worker processes read and resample the frames, a few ahead of the one that is asked for.

    Returns
    -------
    ImageStack
        Its ``frames`` are a dask array of one frame a chunk, in the dtype of ``stack``; ``metadata["origin"]`` says
        where its first pixel lies in the reference.

    Raises
    ------
    ValueError
        If the numbers of frames differ, the options are unknown, or no pixel is covered by all frames.
    """
    import dask.array as da

    source = ImageStack.of(stack)
    check_options(source, order, fill)
    if len(transforms) != len(source):
        raise ValueError(f"{len(transforms)} transforms for {len(source)} frames")
    if transforms.ndim != source.ndim:
        raise ValueError(f"{transforms.ndim}-D transforms for {source.ndim}-D frames")
    origin, shape = output_box(source.frame_shape, transforms, crop)
    lazy: Any = _Warped(source, transforms, order, fill, origin, shape)
    if client is not None:
        check_client(client)
        lazy = WorkerFrames(client, lazy)
    chunks = (1, *lazy.shape[1:])
    frames = da.from_array(
        lazy, chunks=chunks, name=False, asarray=False, meta=np.empty((0,) * len(chunks), lazy.dtype)
    )
    metadata = {**source.metadata, "origin": tuple(float(v) for v in origin)}
    return replace(source, frames=frames, source=lazy, metadata=metadata)


def output_box(
    frame_shape: Sequence[int], transforms: TransformSeries, crop: Crop
) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """Return origin and shape of the output of `warp`."""
    if crop == "none":
        return np.zeros(len(frame_shape)), tuple(frame_shape)
    if crop not in ("valid", "expand"):
        raise ValueError(f"crop must be 'none', 'valid' or 'expand', not {crop!r}")
    box = common_box(frame_shape, transforms) if crop == "valid" else expanded_box(frame_shape, transforms)
    return np.asarray(box.start, float), box.shape


@dataclass(frozen=True, slots=True, eq=False)
class _Warped:
    """An array (t, ...) that resamples a frame when it is indexed."""

    stack: ImageStack
    transforms: TransformSeries
    order: int
    fill: Fill
    origin: NDArray[np.float64]
    frame_shape: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.stack), *self.frame_shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stack.dtype

    def __getitem__(self, index: Any) -> NDArray[Any]:
        first, *rest = index if isinstance(index, tuple) else (index,)
        if isinstance(first, slice):
            frames = [self._frame(t) for t in range(len(self.stack))[first]]
            whole = np.stack(frames) if len(frames) != 1 else frames[0][None]
            return np.asarray(whole[(slice(None), *rest)])
        return np.asarray(self._frame(int(first))[tuple(rest)])

    def _frame(self, t: int) -> NDArray[Any]:
        frame = self.stack[t]
        if isinstance(self.transforms, PiecewiseSeries):
            sources = self.transforms.sources(t, self.frame_shape, self.origin)  # type: ignore[arg-type]
            return warp_sources(frame, sources, order=self.order, fill=self.fill)
        return warp_frame(
            frame, self.transforms.matrices[t], order=self.order, fill=self.fill,
            output_shape=self.frame_shape, origin=self.origin,
        )  # fmt: skip
