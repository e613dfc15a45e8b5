"""What a file holds, told without reading its pixels: for ``stackalign info`` and the dialog that asks for axes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.io.atomic import readable
from stackalign.io.errors import AmbiguousAxesError
from stackalign.io.read import open_source

if TYPE_CHECKING:
    from os import PathLike

    from stackalign.io.source import Source


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What a file, folder or array holds.

    Attributes
    ----------
    path : str
        As given.
    format : str
        As people call it ("ImageJ TIFF", "OME-TIFF, BigTIFF", "folder of 5 files (TIFF)").
    axes : str
        One letter per axis: t, z, c, y, x, s (colour) or "?" where the file does not say; of length 1 are left out.
    shape : tuple of int
        Length of each axis.
    dtype : str
        Pixel type.
    size_bytes : int
        Of all pixels, uncompressed.
    frames : int or None
        Moments in time; None as long as nobody says which axis is time.
    channels : tuple of str
        Names of the channels or colours; empty if there is but one.
    pixel_size : dict of str to float
        Per axis letter, in ``unit``; empty if unknown.
    interval : float or None
        From frame to frame, in ``interval_unit``.
    compression : str
        "none", "deflate", "packbits", ...
    missing : dict of int to str
        Frames that cannot be read, with the reason.
    notes : tuple of str
        What was assumed, and what is odd about the file.
    choices : tuple of str
        What ``axes=`` may be, where the file leaves open which axis is time; else empty.
    """

    path: str
    format: str
    axes: str
    shape: tuple[int, ...]
    dtype: str
    size_bytes: int
    frames: int | None
    channels: tuple[str, ...]
    pixel_size: dict[str, float]
    unit: str
    interval: float | None
    interval_unit: str
    compression: str
    missing: dict[int, str]
    notes: tuple[str, ...]
    choices: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        sizes = " x ".join(f"{n} {a}" for a, n in zip(self.axes, self.shape, strict=True))
        lines = [
            ("file", self.path),
            ("format", self.format + ("" if self.compression == "none" else f", {self.compression} compression")),
            ("shape", f"{sizes}, {self.dtype}, {readable(self.size_bytes)}"),
            ("frames", "not known: which axis is time?" if self.frames is None else str(self.frames)),
            ("channels", ", ".join(self.channels)),
            ("pixel size", " x ".join(f"{s:.6g}" for s in self.pixel_size.values()) + f" {self.unit}"),
            ("interval", f"{self.interval:.6g} {self.interval_unit}" if self.interval is not None else ""),
            ("axes may be", ", ".join(self.choices)),
        ]
        if not self.pixel_size:
            lines = [("pixel size", "not stated") if key == "pixel size" else (key, text) for key, text in lines]
        lines += [("missing", f"frame {t}: {why}") for t, why in self.missing.items()]
        lines += [("note", note) for note in self.notes]
        return "\n".join(f"{key + ':':<12} {text}" for key, text in lines if text)


def describe(path: str | PathLike[str], *, axes: str | None = None) -> FileInfo:
    """Return what a file, folder or glob holds; reads tags only.

    Parameters
    ----------
    path : path
        As for `read_stack`.
    axes : str, optional
        As for `read_stack`.

    Raises
    ------
    StackReadError
        If it holds no stack that can be read. Axes that the file leaves open raise nothing: see ``choices``.
    """
    source = open_source(path, axes)
    try:
        letters, notes = source.resolved(axes)
        choices: tuple[str, ...] = ()
    except AmbiguousAxesError as error:
        if axes is not None:
            raise
        letters, notes, choices = source.axes, (*source.notes, *source.calibration.notes), error.choices
    return _info(path, source, letters, notes, choices)


def _info(path: Any, source: Source, letters: str, notes: tuple[str, ...], choices: tuple[str, ...]) -> FileInfo:
    length = dict(zip(letters, source.shape, strict=True))
    scale = source.calibration
    known = scale.pixel_size
    return FileInfo(
        path=str(path) if isinstance(path, str | Path) else source.name,
        format=source.kind,
        axes=letters,
        shape=source.shape,
        dtype=np.dtype(source.pixels.dtype).name,
        size_bytes=int(np.prod(source.shape, dtype=np.int64)) * np.dtype(source.pixels.dtype).itemsize,
        frames=None if choices else length.get("t", 1),
        channels=source.channel_names(letters),
        pixel_size={a: known[a] for a in "zyx" if a in known and (a != "z" or "z" in letters)},
        unit=scale.unit,
        interval=scale.interval,
        interval_unit=scale.interval_unit,
        compression=source.compression,
        missing={} if choices else source.missing(letters),
        notes=notes,
        choices=choices,
    )
