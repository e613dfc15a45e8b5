"""What a joint alignment leaves: the aligned frames L, their low-rank part L_stat and the sparse rest S, lazily."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.frame_check import read_frame
from stackalign.core.warping.resample import warp_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stackalign.core.stack import ImageStack
    from stackalign.core.transform_series import TransformSeries


@dataclass(frozen=True, slots=True, eq=False)
class Decomposition:
    """Aligned, low-rank and sparse parts, float32 in the intensity units of the input: ``aligned = low_rank + sparse``.

    Attributes
    ----------
    basis : ndarray (k, frame shape), float32
        Images of the low-rank part.
    coefficients : ndarray (T, k)
        What each frame takes of them.
    known : ndarray of bool, frame shape
        Pixels that enough frames cover; elsewhere the low-rank part is NaN.
    stack : ImageStack
        The input.
    transforms : TransformSeries
        Moving -> reference.
    filtered : callable, optional
        The band-pass with which the frames were compared: the parts are those of the filtered frames then.
    """

    basis: NDArray[np.float32]
    coefficients: NDArray[np.float64]
    known: NDArray[np.bool_]
    stack: ImageStack
    transforms: TransformSeries
    filtered: Callable[[NDArray[Any]], NDArray[Any]] | None = None

    @property
    def rank(self) -> int:
        """Images in the basis."""
        return len(self.basis)

    @property
    def aligned(self) -> ImageStack:
        """L: the input frames on the reference, NaN outside their field."""
        return self._part("aligned")

    @property
    def low_rank(self) -> ImageStack:
        """L_stat: what a frame has in common with the others."""
        return self._part("low-rank")

    @property
    def sparse(self) -> ImageStack:
        """S = L - L_stat: what only this frame has."""
        return self._part("sparse")

    def _part(self, kind: str) -> ImageStack:
        import dask.array as da

        lazy = _Frames(self, kind)
        empty = np.empty((0,) * (1 + self.basis.ndim - 1), np.float32)
        frames = da.from_array(lazy, chunks=(1, *lazy.shape[1:]), name=False, asarray=False, meta=empty)
        return replace(self.stack, frames=frames, source=lazy, name=f"{self.stack.name} [{kind}]", missing={})


@dataclass(frozen=True, slots=True, eq=False)
class _Frames:
    """An array (t, ...) that works a frame out when it is indexed."""

    parts: Decomposition
    kind: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.parts.stack.shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        first, *rest = index if isinstance(index, tuple) else (index,)
        if isinstance(first, slice):
            frames = np.stack([self._frame(t) for t in range(self.shape[0])[first]])
            return np.asarray(frames[(slice(None), *rest)])
        return np.asarray(self._frame(int(first))[tuple(rest)])

    def _frame(self, t: int) -> NDArray[np.float32]:
        p = self.parts
        if self.kind != "aligned":
            common = np.tensordot(p.coefficients[t].astype(np.float32), p.basis, 1)
            common = np.where(p.known, common, np.float32(np.nan))
            if self.kind == "low-rank":
                return np.asarray(common, np.float32)
        frame, _ = read_frame(p.stack, t)
        if p.filtered is not None:
            frame = p.filtered(frame)
        aligned = warp_frame(np.asarray(frame, np.float32), p.transforms.matrices[t], fill="nan")
        return aligned if self.kind == "aligned" else np.asarray(aligned - common, np.float32)
