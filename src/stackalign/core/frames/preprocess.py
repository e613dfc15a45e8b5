"""What is done to frames before their motion is measured: region, repair, band-pass. The output never sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from stackalign.core.geometry import Box
from stackalign.core.parameters import Parameters
from stackalign.core.registration import RegistrarParameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Region = tuple[int, int, int, int] | tuple[tuple[float, float], ...]
Despike = Literal["none", "fixed", "all"]
Window = Literal["none", "hann", "tukey"]


class Preprocess(Parameters):
    """Which part of the frames counts when their motion is measured."""

    region: Region | None = Field(
        None,
        title="Region",
        description="Part of the reference that is used: y0, y1, x0, x1 (the last ones excluded), or three or more"
        " corners (y, x) of a polygon; none: the whole frame",
        json_schema_extra={"unit": "px"},
    )
    bad_frames: bool = Field(
        True,
        title="Find bad frames",
        description="Frames that are half read, torn, out of focus or a copy of the one before are flagged and"
        " interpolated; frames that hold nothing always are",
        json_schema_extra={"advanced": True},
    )

    despike: Despike = Field(
        "fixed",
        title="Repair pixels",
        description="fixed: pixels that are hot or dead in every frame, which would hold the motion back, are replaced"
        " by their neighbours while it is measured; all: single bright or dark pixels of each frame, too (cosmic"
        " rays); none: frames are taken as they are",
        json_schema_extra={"advanced": True},
    )

    @field_validator("region", mode="before")
    @classmethod
    def _as_tuples(cls, value: Any) -> Any:
        if isinstance(value, Box):
            return value.bounds
        if isinstance(value, list | tuple | np.ndarray):
            return tuple(tuple(float(v) for v in part) if hasattr(part, "__len__") else int(part) for part in value)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Preprocess:
        region = self.region
        if region is not None and hasattr(region[0], "__len__"):
            if len(region) < 3:
                raise ValueError("a polygon needs at least three corners (y, x)")
        elif region is not None and (region[0] >= region[1] or region[2] >= region[3]):
            raise ValueError(f"a region is y0, y1, x0, x1 with y0 < y1 and x0 < x1, not {region}")
        return self

    def mask(self, frame_shape: Sequence[int]) -> NDArray[np.bool_] | None:
        """Return True where a pixel of the reference counts, of ``frame_shape``; None if all do.

        Raises
        ------
        ValueError
            If no pixel of the frame lies in the region.
        """
        region = self.region
        if region is None:
            return None
        h, w = int(frame_shape[-2]), int(frame_shape[-1])
        plane = np.zeros((h, w), bool)
        if hasattr(region[0], "__len__"):
            from skimage.draw import polygon

            corners = np.asarray(region, float)
            plane[polygon(corners[:, 0], corners[:, 1], (h, w))] = True
        else:
            y0, y1, x0, x1 = (int(v) for v in region)
            plane[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = True
        if not plane.any():
            raise ValueError(f"the region {region} holds no pixel of a frame of {h} x {w} pixels")
        return np.broadcast_to(plane, tuple(frame_shape)).copy()


class FilteredRegistrar(RegistrarParameters):
    """Base of the methods that compare intensities: they may filter and weight frames first."""

    low_sigma: float = Field(
        0.0,
        title="Smooth",
        description="Band-pass: standard deviation of a Gaussian that takes away finer detail; 0: none",
        ge=0,
        le=1000,
        json_schema_extra={"unit": "px", "advanced": True},
    )
    high_sigma: float = Field(
        0.0,
        title="Remove background",
        description="Band-pass: standard deviation of a Gaussian whose result is subtracted, so that coarser shades do"
        " not count; 0: none",
        ge=0,
        le=10_000,
        json_schema_extra={"unit": "px", "advanced": True},
    )
    window: Window = Field(
        "none",
        title="Window",
        description="Weight that falls towards the borders of the reference",
        json_schema_extra={"advanced": True},
    )

    @model_validator(mode="after")
    def _band(self) -> FilteredRegistrar:
        if self.high_sigma and self.high_sigma <= self.low_sigma:
            raise ValueError("the background's sigma must be larger than that of the smoothing")
        return self

    def filtered(self, frame: NDArray[Any]) -> NDArray[Any]:
        """Return the band-passed frame, float32, NaN where the frame has them; the frame itself if nothing is to do."""
        if self.low_sigma == 0 and self.high_sigma == 0:
            return frame
        from scipy.ndimage import gaussian_filter

        image = np.asarray(frame, np.float32)
        known = np.isfinite(image)
        holes = not known.all()
        if holes:
            level = float(image[known].mean()) if known.any() else 0.0
            image = np.where(known, image, np.float32(level))
        out = gaussian_filter(image, self.low_sigma) if self.low_sigma > 0 else image
        if self.high_sigma > 0:
            out = out - gaussian_filter(image, self.high_sigma)
        return np.where(known, out, np.float32(np.nan)) if holes else np.asarray(out, np.float32)

    def weights(self, frame_shape: Sequence[int]) -> NDArray[np.float32] | None:
        """Return the window, of ``frame_shape``; None if every pixel weighs the same."""
        if self.window == "none":
            return None
        from scipy.signal import windows

        out = np.ones(tuple(frame_shape), np.float32)
        for axis, n in enumerate(frame_shape):
            if n < 4:
                continue
            line = windows.hann(n + 2)[1:-1] if self.window == "hann" else windows.tukey(n + 2, 0.25)[1:-1]
            out *= line.astype(np.float32).reshape([-1 if a == axis else 1 for a in range(len(frame_shape))])
        return out


class PairRegistrar(FilteredRegistrar):
    """Base of the methods that align one frame to one image, under every reference policy."""

    rolling: float = Field(
        0.1,
        title="Rolling weight",
        description="Weight of a new frame in the rolling mean",
        gt=0,
        le=1,
        json_schema_extra={"advanced": True},
    )
    lag: int = Field(
        5,
        title="Lag",
        description="Reference all-pairs: each frame is aligned to as many before it",
        ge=1,
        le=100,
        json_schema_extra={"unit": "frames", "advanced": True},
    )
