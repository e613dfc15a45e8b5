"""An image stack: frames read one at a time, with pixel size, interval and the frames that could not be read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from stackalign.core.geometry import Box


class FrameError(OSError):
    """A frame that cannot be read; the message names the file, the frame and the reason."""


@runtime_checkable
class Frames(Protocol):
    """What holds frames: numpy, memmap, dask, zarr, a reader. ``frames[t]`` reads one frame or raises `FrameError`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(t, y, x) or (t, z, y, x)."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type."""
        ...

    def __getitem__(self, index: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True, eq=False)
class ImageStack:
    """Frames over time, read lazily, one channel.

    Parameters
    ----------
    frames : array-like (t, y, x) or (t, z, y, x)
        numpy, memmap, dask, zarr or anything with ``shape``, ``dtype`` and ``[t]``.
    pixel_size : tuple of float, optional
        Size of a pixel along each spatial axis, in ``unit``; None if unknown.
    interval : float, optional
        Time from frame to frame, in ``interval_unit``; None if unknown.
    axes : str
        ``"tyx"`` or ``"tzyx"``.
    name : str
        What the user calls it; the file's name without its ending.
    unit, interval_unit : str
        Units of ``pixel_size`` and ``interval``.
    missing : mapping of int to str
        Frames that could not be read, with the reason; they read as NaN (zero for integers).
    metadata : mapping
        What a file said beyond that and a writer keeps (channel names, the source's path).
    rejected : mapping of int to str
        Frames that can be read but not aligned, with the reason; methods flag and interpolate them.
    checked : bool
        All frames but the missing and the rejected were read, and hold something.
    source : array-like, optional
        Holds the same frames as ``frames`` and is quicker to read: what a dask array was made from.

    Raises
    ------
    ValueError
        If the axes do not fit the array, or the array holds no frame.
    """

    frames: Any
    pixel_size: tuple[float, ...] | None = None
    interval: float | None = None
    axes: str = ""
    name: str = ""
    unit: str = "µm"
    interval_unit: str = "s"
    missing: Mapping[int, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    rejected: Mapping[int, str] = field(default_factory=dict, repr=False)
    checked: bool = field(default=False, repr=False)
    source: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        frames = self.frames if isinstance(self.frames, Frames) else np.asarray(self.frames)
        ndim = len(frames.shape)
        axes = self.axes or {3: "tyx", 4: "tzyx"}.get(ndim, "")
        if axes not in ("tyx", "tzyx") or len(axes) != ndim:
            raise ValueError(
                f"a stack is (t, y, x) or (t, z, y, x): got shape {tuple(frames.shape)}"
                f" with axes {self.axes or 'not stated'!r}"
            )
        if 0 in frames.shape:
            raise ValueError(f"the stack is empty: its shape is {tuple(frames.shape)}")
        if np.dtype(frames.dtype).kind not in "uifb":
            raise ValueError(f"pixels must be integers or real numbers, not {frames.dtype}")
        if self.pixel_size is not None and len(self.pixel_size) != ndim - 1:
            raise ValueError(f"pixel_size needs {ndim - 1} numbers for axes {axes!r}, got {self.pixel_size}")
        object.__setattr__(self, "frames", frames)
        object.__setattr__(self, "axes", axes)
        object.__setattr__(self, "missing", MappingProxyType(dict(self.missing)))
        object.__setattr__(self, "rejected", MappingProxyType(dict(self.rejected)))
        object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))

    @classmethod
    def of(cls, stack: Any) -> ImageStack:
        """Return ``stack`` itself, or the array (t, y, x) / (t, z, y, x) as a stack."""
        return stack if isinstance(stack, cls) else cls(stack)

    def __len__(self) -> int:
        return int(self.frames.shape[0])

    def __reduce__(self) -> tuple[Any, ...]:
        # mapping proxies cannot be pickled; of a lazy array only what it reads from travels
        kept = {f.name: getattr(self, f.name) for f in fields(self)}
        plain = {name: dict(kept[name]) for name in ("missing", "metadata", "rejected")}
        return _restored, (kept | plain | {"frames": self._readable, "source": None},)

    def __repr__(self) -> str:
        size = "" if self.pixel_size is None else f", {' x '.join(f'{s:g}' for s in self.pixel_size)} {self.unit}"
        name = f"{self.name!r}, " if self.name else ""
        return f"ImageStack({name}{' x '.join(map(str, self.shape))} {self.dtype}, {self.axes}{size})"

    @property
    def shape(self) -> tuple[int, ...]:
        """(t, y, x) or (t, z, y, x)."""
        return tuple(int(n) for n in self.frames.shape)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """(y, x) or (z, y, x)."""
        return self.shape[1:]

    @property
    def frame_bytes(self) -> int:
        """Size of a frame in memory."""
        return math.prod(self.frame_shape) * self.dtype.itemsize

    @property
    def ndim(self) -> int:
        """Spatial dimensions, 2 or 3."""
        return len(self.shape) - 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type of the source."""
        dtype: np.dtype[Any] = np.dtype(self.frames.dtype)
        return dtype

    def __getitem__(self, t: int) -> NDArray[Any]:
        """Read frame ``t`` in the stack's dtype. A missing frame is NaN, or zero where the dtype has no NaN.

        Raises
        ------
        IndexError
            If there is no such frame.
        FrameError
            If it turns out to be unreadable only now.
        """
        index = int(t)
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {t} of a stack of {len(self)} frames")
        index %= len(self)
        if index in self.missing:
            return np.full(self.frame_shape, np.nan if self.dtype.kind == "f" else 0, self.dtype)
        return np.asarray(self._readable[index])

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[t] for t in range(len(self)))

    @property
    def _readable(self) -> Any:
        return self.frames if self.source is None else self.source

    def asarray(self) -> NDArray[Any]:
        """Read all frames into memory, (t, ...)."""
        out = np.empty(self.shape, self.dtype)
        for t, frame in enumerate(self):
            out[t] = frame
        return out

    def selected(self, frames: slice) -> ImageStack:
        """Return a range of frames, lazily."""
        index = range(len(self))[frames]
        if not len(index):
            raise ValueError(f"no frame is left: {frames} of {len(self)} frames")
        lost, out = ({k: why[t] for k, t in enumerate(index) if t in why} for why in (self.missing, self.rejected))
        interval = None if self.interval is None else self.interval * abs(index.step)
        return replace(
            self, frames=_Selected(self._readable, index), missing=lost, rejected=out, interval=interval, source=None
        )

    def mapped(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> ImageStack:
        """Return the stack with each frame as ``change`` returns it, of the same shape and dtype, lazily."""
        return replace(self, frames=_Mapped(self._readable, change), source=None, checked=False)

    def cropped(self, box: Box) -> ImageStack:
        """Return the part of every frame inside ``box``, lazily."""
        frames = _Cropped(self._readable, box.clipped(self.frame_shape))
        return replace(self, frames=frames, source=None, checked=False)


def _restored(kept: dict[str, Any]) -> ImageStack:
    return ImageStack(**kept)


@dataclass(frozen=True, slots=True, eq=False)
class _Selected:
    """Some frames of a lazy array."""

    source: Any
    index: range

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.index), *self.source.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self.source.dtype)
        return dtype

    def __getitem__(self, t: int) -> NDArray[Any]:
        return np.asarray(self.source[self.index[t]])


@dataclass(frozen=True, slots=True, eq=False)
class _Mapped:
    """A lazy array whose frames are changed as they are read."""

    source: Any
    change: Callable[[NDArray[Any]], NDArray[Any]]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.source.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self.source.dtype)
        return dtype

    def __getitem__(self, t: int) -> NDArray[Any]:
        return self.change(np.asarray(self.source[t]))


@dataclass(frozen=True, slots=True, eq=False)
class _Cropped:
    """A box of every frame of a lazy array."""

    source: Any
    box: Box

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.source.shape[0], *self.box.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self.source.dtype)
        return dtype

    def __getitem__(self, t: int) -> NDArray[Any]:
        return np.asarray(self.source[t])[self.box.slices]
