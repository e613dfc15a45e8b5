"""An opened file: a lazy array whose axes carry letters, and the stacks (t, [z], y, x) that it holds, one a channel."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.stack import ImageStack
from stackalign.io.axes import resolved
from stackalign.io.calibration import Calibration
from stackalign.io.errors import ChannelChoiceError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

logger = logging.getLogger(__name__)
LUMINANCE = np.array([0.2125, 0.7154, 0.0721])  # ITU-R BT.709, as scikit-image's rgb2gray
_COLOURS = ("red", "green", "blue", "alpha")


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A file, a folder or an array, opened and not yet read.

    Attributes
    ----------
    pixels : array-like
        Has ``shape``, ``dtype``, and reads on ``pixels[index]``, index a tuple of numbers and slices, one per axis.
    axes : str
        One letter per axis: t, z, c, y, x, s (colour samples) or "?" where nobody says. Axes of length 1 are left out.
    name : str
        For messages and as the stack's name.
    kind : str
        The format, as people call it.
    lost : mapping of tuple to str
        Index along the axes other than y, x and s of what cannot be read, with the reason.
    settled : bool
        The file itself says that a missing time axis means one moment.
    lazy_files : tuple of Path
        Files that reads go to as long as the stack lives: not to be overwritten.
    """

    pixels: Any
    axes: str
    name: str
    kind: str
    path: Path | None = None
    calibration: Calibration = field(default_factory=Calibration)
    lost: Mapping[tuple[int, ...], str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    lazy_files: tuple[Path, ...] = ()
    compression: str = "none"
    settled: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return tuple(int(n) for n in self.pixels.shape)

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.name if self.path is None else str(self.path)

    def channel_names(self, axes: str) -> tuple[str, ...]:
        """Return the names of the channels or colours along ``axes``; () if there is but one."""
        letter = "c" if "c" in axes else "s" if "s" in axes else ""
        if not letter:
            return ()
        count = self.shape[axes.index(letter)]
        if letter == "s" and count in (3, 4):
            return _COLOURS[:count]
        named = self.calibration.channel_names
        return named if len(named) == count else tuple(f"channel {k}" for k in range(count))

    def stack(self, axes: str | None = None, channel: int | str | None = None) -> ImageStack:
        """Return the stack of one channel.

        Raises
        ------
        AmbiguousAxesError
            If the file leaves open which axis is time.
        ChannelChoiceError
            If there are several channels and ``channel`` names none of them.
        """
        letters, notes = self.resolved(axes)
        return self._stack(letters, notes, self._index(letters, channel))

    def channels(self, axes: str | None = None) -> tuple[ImageStack, ...]:
        """Return the stack of every channel; of a colour file red, green and blue, without alpha."""
        letters, notes = self.resolved(axes)
        names = [n for n in self.channel_names(letters) if n != "alpha"]
        indices: list[int | str | None] = list(range(len(names))) if names else [None]
        return tuple(self._stack(letters, notes, k) for k in indices)

    def resolved(self, axes: str | None) -> tuple[str, tuple[str, ...]]:
        """Return one letter per axis and the notes of the reader; AmbiguousAxesError if that stays open."""
        letters, notes = resolved(
            self.label, self.axes, self.shape, axes, settled=self.settled, joinable=len(self.lazy_files) > 1
        )
        for note in notes:
            logger.info("%s: %s", self.label, note)
        if "c" in letters and "s" in letters:
            raise ChannelChoiceError(f"{self.label}: channels of colour images cannot be read; split the colours first")
        return letters, (*self.notes, *notes, *self.calibration.notes)

    def _index(self, axes: str, channel: int | str | None) -> int | str | None:
        names = self.channel_names(axes)
        colours = "s" in axes and len(names) in (3, 4)
        choices: list[int | str] = [*range(len(names)), *(["luminance"] if colours else [])]
        if not names:
            if channel in (None, 0, "0"):
                return None
            raise ChannelChoiceError(f"{self.label} has one channel: leave channel={channel!r} out", (0,))
        if isinstance(channel, str):
            if channel in names:
                return names.index(channel)
            if channel.isdigit():
                channel = int(channel)
        if channel in choices:
            return channel
        listed = ", ".join(f"{k} ({n})" for k, n in enumerate(names))
        if colours:
            said = "holds colour (RGB) frames" if channel is None else f"has no channel {channel!r}"
            raise ChannelChoiceError(
                f"{self.label} {said}: choose one with channel= (--channel), {listed}, or channel='luminance' for grey",
                choices,
            )
        said = f"holds {len(names)} channels" if channel is None else f"has no channel {channel!r}"
        raise ChannelChoiceError(f"{self.label} {said}: choose one with channel= (--channel), {listed}", choices)

    def _stack(self, axes: str, notes: tuple[str, ...], channel: int | str | None) -> ImageStack:
        frames = SourceFrames(self.pixels, axes, channel)
        names = self.channel_names(axes)
        lost = self.missing(axes, channel)
        metadata: dict[str, Any] = {"format": self.kind, "file_axes": axes}
        if self.path is not None:
            metadata["source"] = str(self.path)
        if self.lazy_files:
            metadata["lazy_files"] = tuple(map(str, self.lazy_files))
        if notes:
            metadata["notes"] = notes
        if names:
            metadata["channel_names"] = names
            metadata["channel"] = names[channel] if isinstance(channel, int) else channel
        stack_axes = "tzyx" if "z" in axes else "tyx"
        suffix = f" {metadata['channel']}" if names else ""
        return ImageStack(
            frames,
            pixel_size=self.calibration.sizes(stack_axes),
            interval=self.calibration.interval,
            axes=stack_axes,
            name=self.name + suffix,
            unit=self.calibration.unit,
            interval_unit=self.calibration.interval_unit,
            missing=lost,
            metadata=metadata,
        )

    def missing(self, axes: str, channel: int | str | None = None) -> dict[int, str]:
        """Return the frames of which a part is lost, with the reason."""
        leading = [a for a in axes if a not in "yxs"]
        missing: dict[int, str] = {}
        for index, reason in self.lost.items():
            place = dict(zip(leading, index, strict=True))
            if isinstance(channel, int) and place.get("c", channel) != channel:
                continue
            missing.setdefault(place.get("t", 0), reason)
        return missing


class SourceFrames:
    """Frames (t, [z], y, x) of one channel of a source: ``frames[t]`` reads that frame, native byte order, a copy.

    Also takes a slice, or a tuple of numbers and slices, so that viewers and dask can use it as an array.
    """

    def __init__(self, pixels: Any, axes: str, channel: int | str | None = None) -> None:
        self._pixels, self._axes, self._channel = pixels, axes, channel
        order = [a for a in axes if a in "zyx"]
        self._transpose = [order.index(a) for a in ("z", "y", "x") if a in order]
        length = dict(zip(axes, pixels.shape, strict=True))
        self.shape: tuple[int, ...] = tuple(int(length.get(a, 1)) for a in ("tzyx" if "z" in axes else "tyx"))
        self.dtype: np.dtype[Any] = np.dtype(pixels.dtype).newbyteorder("=")

    def __repr__(self) -> str:
        return f"SourceFrames({' x '.join(map(str, self.shape))} {self.dtype}, {type(self._pixels).__name__})"

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        first, *rest = index if isinstance(index, tuple) else (index,)
        if first is Ellipsis:
            first, rest = slice(None), [Ellipsis, *rest]
        if isinstance(first, slice):
            frames = [self._frame(t) for t in range(len(self))[first]]
            read = np.stack(frames) if frames else np.empty((0, *self.shape[1:]), self.dtype)
            return read[(slice(None), *rest)] if rest else read
        t = int(first)
        if not -len(self) <= t < len(self):
            raise IndexError(f"frame {t} of {len(self)} frames")
        frame = self._frame(t % len(self))
        return np.asarray(frame[tuple(rest)]) if rest else frame

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        read = self[:]
        return read if dtype is None else read.astype(dtype, copy=False)

    def _frame(self, t: int) -> NDArray[Any]:
        grey = self._channel == "luminance"
        place = {"t": t} if grey or self._channel is None else {"t": t, "c": self._channel, "s": self._channel}
        read = np.asarray(self._pixels[tuple(place.get(a, slice(None)) for a in self._axes)])
        if grey:
            colour = [a for a in self._axes if a in "zyxs"].index("s")
            mean = np.moveaxis(read, colour, -1)[..., :3] @ LUMINANCE
            read = np.rint(mean).astype(self.dtype) if self.dtype.kind in "ui" else mean.astype(self.dtype)
        read = read.transpose(self._transpose)
        return np.array(read, dtype=self.dtype, order="C")
