"""Piecewise-rigid motion: one shift for each block of each frame on top of a translation, linear in between.

Coordinates are those of the reference. Its point ``p`` is found in the moving frame at ``p - t + u(p)``: ``t`` is the
frame's translation (moving -> reference), ``u`` the block shifts, (y, x) pixels, bilinear between block centres.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stackalign.core.transform import Transform, TransformModel
from stackalign.core.transform_series import TransformSeries

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """Block centres of a frame: ``shape`` nodes spread evenly from edge to edge.

    Parameters
    ----------
    frame_shape : tuple of int
        (y, x) of the frame.
    shape : tuple of int
        Number of nodes along y and x, each at least 2 and at most the pixels there.
    origin : tuple of float
        Where the frame's pixel (0, 0) lies in the reference, pixels.
    """

    frame_shape: tuple[int, int]
    shape: tuple[int, int]
    origin: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if len(self.frame_shape) != 2:
            raise ValueError(
                f"piecewise motion is for frames (y, x), not {self.frame_shape}; take a rigid model for volumes"
            )
        if any(not 2 <= n <= size for n, size in zip(self.shape, self.frame_shape, strict=True)):
            raise ValueError(
                f"blocks must be between 2 and the frame's {self.frame_shape} pixels along each axis, got {self.shape}"
            )

    @classmethod
    def with_spacing(cls, frame_shape: tuple[int, int], spacing: float) -> BlockGrid:
        """Return the grid whose nodes lie about ``spacing`` pixels apart."""
        if spacing <= 0:
            raise ValueError(f"the spacing of blocks must be positive, got {spacing} px")
        shape = tuple(min(max(2, round((n - 1) / spacing) + 1), n) for n in frame_shape)
        return cls(frame_shape, (shape[0], shape[1]))

    @property
    def nodes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Reference coordinates of the nodes along y and along x."""
        y, x = (
            np.linspace(0, size - 1, n) + start
            for size, n, start in zip(self.frame_shape, self.shape, self.origin, strict=True)
        )
        return y, x

    def moved(self, shift: ArrayLike) -> BlockGrid:
        """Return the same nodes in a reference whose coordinates are larger by ``shift``."""
        y, x = np.asarray(self.origin) + np.asarray(shift, float)
        return replace(self, origin=(float(y), float(x)))

    def field(
        self, shifts: NDArray[np.float64], shape: tuple[int, int], start: ArrayLike = (0.0, 0.0)
    ) -> NDArray[np.float64]:
        """Interpolate node ``shifts`` (gy, gx, 2) at the pixels of an output of ``shape`` that begins at ``start``.

        Returns (2, y, x), pixels; beyond the outer nodes the nearest value holds.
        """
        from stackalign.core.piecewise.block_template import interpolated

        low, share = [], []
        for axis in (0, 1):
            nodes, at = self.nodes[axis], np.arange(shape[axis]) + np.asarray(start, float)[axis]
            position = np.clip((at - nodes[0]) / (nodes[1] - nodes[0]), 0, len(nodes) - 1)
            low.append(np.minimum(position.astype(np.int64), len(nodes) - 2))
            share.append(position - low[-1])
        return np.asarray(interpolated(np.ascontiguousarray(shifts, np.float64), low[0], share[0], low[1], share[1]))


@dataclass(frozen=True, slots=True, eq=False)
class PiecewiseSeries(TransformSeries):
    """A series of translations with block shifts on top.

    It is a `TransformSeries`: ``matrices``, plots and the instant preview show the rigid part; `warp`, `measure` and
    `save_transforms` use the blocks too.

    Parameters
    ----------
    matrices, model, valid
        The rigid part, translations; see `TransformSeries`.
    grid : BlockGrid
        Where the nodes are.
    shifts : ndarray (T, gy, gx, 2)
        ``u`` of the module's first lines: added to the moving position, (y, x) pixels.

    Raises
    ------
    ValueError
        If the rigid part is no translation, or the shapes do not fit.
    """

    grid: BlockGrid = field(default=None)  # type: ignore[assignment]
    shifts: NDArray[np.float64] = field(default=None)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        # not super(): a slotted dataclass is a second class object that zero-argument super does not know
        TransformSeries.__post_init__(self)
        shifts = np.array(self.shifts, np.float64)
        if self.model is not TransformModel.TRANSLATION or self.ndim != 2:
            raise ValueError("the rigid part of piecewise motion is a translation in 2-D")
        expected = (len(self.matrices), *self.grid.shape, 2)
        if shifts.shape != expected or not np.isfinite(shifts).all():
            raise ValueError(f"block shifts must be finite and {expected}, got {shifts.shape}")
        shifts.setflags(write=False)
        object.__setattr__(self, "shifts", shifts)

    @property
    def rigid(self) -> TransformSeries:
        """The translations alone."""
        return TransformSeries(self.matrices, self.model, self.valid)

    def sources(self, t: int, shape: tuple[int, int], start: ArrayLike = (0.0, 0.0)) -> NDArray[np.float64]:
        """Return where the pixels of an output of ``shape`` that begins at ``start`` lie in frame ``t``, (2, y, x)."""
        begin = np.asarray(start, float)
        grid = np.indices(shape, dtype=np.float64) + (begin - self.translations[t])[:, None, None]
        return np.asarray(grid + self.grid.field(self.shifts[t], shape, begin))

    def __getitem__(self, t: int) -> Transform:
        return Transform(self.matrices[t], self.model)

    @property
    def inverse(self) -> TransformSeries:
        """Not defined: piecewise motion is known from the reference to the moving frame only."""
        raise ValueError("piecewise motion has no inverse series; take .rigid.inverse for its rigid part")

    def then(self, other: TransformSeries) -> TransformSeries:
        """Return this series followed by translations ``other``."""
        moved = self.rigid.then(other)
        if moved.model is not TransformModel.TRANSLATION or np.ptp(other.translations, axis=0).any():
            raise ValueError("piecewise motion can be followed only by one translation, the same for all frames")
        return replace(self, matrices=moved.matrices, valid=moved.valid, grid=self.grid.moved(other.translations[0]))

    def rebased(self, frame: int | Literal["mean"] = 0, *, centre: ArrayLike | None = None) -> TransformSeries:
        """Return the motion with the rigid part of ``frame`` (or their mean) as the identity."""
        moved = self.rigid.rebased(frame, centre=centre)
        return replace(
            self, matrices=moved.matrices, grid=self.grid.moved(moved.translations[0] - self.translations[0])
        )

    def interpolated(self, *, centre: ArrayLike | None = None) -> TransformSeries:
        """Return the motion whose frames that are not valid lie between their valid neighbours, blocks too."""
        if self.valid.all() or not self.valid.any():
            return replace(
                self, matrices=self.rigid.interpolated().matrices, shifts=self.shifts * bool(self.valid.any())
            )
        known = np.flatnonzero(self.valid)
        flat = self.shifts.reshape(len(self), -1)
        filled = np.column_stack([np.interp(np.arange(len(self)), known, column[known]) for column in flat.T])
        return replace(self, matrices=self.rigid.interpolated().matrices, shifts=filled.reshape(self.shifts.shape))

    def smoothed(self, sigma: float, *, centre: ArrayLike | None = None) -> TransformSeries:
        """Return the motion smoothed in time by a Gaussian of ``sigma`` frames."""
        filled = self.interpolated()
        shifts = filled.shifts if isinstance(filled, PiecewiseSeries) else self.shifts
        from scipy.ndimage import gaussian_filter1d

        smooth = gaussian_filter1d(shifts, sigma, axis=0, mode="nearest") if sigma > 0 else shifts
        return replace(self, matrices=self.rigid.smoothed(sigma).matrices, shifts=smooth)

    def replaced(self, t: int, transform: Transform, *, valid: bool = True) -> TransformSeries:
        """Return a series with the rigid part of frame ``t`` set by hand, a translation; its blocks stay."""
        rigid = self.rigid.replaced(t, transform, valid=valid)
        return replace(self, matrices=rigid.matrices, model=rigid.model, valid=rigid.valid)

    def selected(self, frames: slice | ArrayLike) -> TransformSeries:
        """Return some frames."""
        index = frames if isinstance(frames, slice) else np.asarray(frames)
        return replace(self, matrices=self.matrices[index], valid=self.valid[index], shifts=self.shifts[index])

    def about(self, origin: ArrayLike) -> TransformSeries:
        """Return the same motion in a frame of which the present one is a crop that starts at ``origin``."""
        return replace(self, grid=self.grid.moved(origin))

    def to_frame(self) -> pd.DataFrame:
        """Return the table of the rigid part with the spread of the block shifts, px rms about their mean."""
        table = self.rigid.to_frame()
        around = self.shifts - self.shifts.mean(axis=(1, 2), keepdims=True)
        table.insert(4, "blocks_rms_px", np.sqrt((around**2).sum(-1).mean(axis=(1, 2))))
        return table

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and strings, ready for JSON."""
        blocks = {
            "frame_shape": list(self.grid.frame_shape),
            "origin": list(self.grid.origin),
            "shape": list(self.grid.shape),
            "shifts": self.shifts.tolist(),
        }
        return self.rigid.to_dict() | {"blocks": blocks}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TransformSeries:
        """Return what `to_dict` wrote; ValueError says what is missing."""
        rigid = TransformSeries.from_dict(data)
        try:
            b = data["blocks"]
            grid = BlockGrid(tuple(b["frame_shape"]), tuple(b["shape"]), tuple(b["origin"]))
            shifts = np.asarray(b["shifts"], float)
        except (KeyError, TypeError) as error:
            raise ValueError(f"these piecewise transforms lack a part of 'blocks': {error}") from None
        return cls(rigid.matrices, rigid.model, rigid.valid, grid, shifts)
