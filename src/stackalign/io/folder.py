"""Open many TIFF files or pictures as one lazy stack, in natural order; what cannot be read is a missing frame."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.stack import FrameError
from stackalign.io import picture
from stackalign.io.errors import AmbiguousAxesError, StackReadError
from stackalign.io.source import Source
from stackalign.io.tiff import ENDINGS, open_tiff

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_DIGITS = re.compile(r"(\d+)")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key that puts 2 before 10; names that differ in leading zeros or capitals keep a fixed order."""
    parts = [part for part in _DIGITS.split(name) if part]
    return [(0, int(p), "") if p.isdigit() else (1, 0, p.lower()) for p in parts] + [(2, 0, name)]


def stack_files(folder: Path) -> list[Path]:
    """Return the TIFF files of a folder, else its pictures; StackReadError says what is there instead."""
    inside = [p for p in folder.iterdir() if not p.name.startswith(".")]
    there = [p for p in inside if p.is_file()]
    for endings in (ENDINGS, picture.ENDINGS):  # pictures beside TIFF files are previews of them
        if found := [p for p in there if p.suffix.lower() in endings]:
            return found
    if not inside:
        raise StackReadError(f"the folder {folder} is empty")
    kinds = Counter(p.suffix.lower() or "without ending" for p in there)
    listed = (
        ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(4)) or f"{len(inside)} folder{'s' * (len(inside) > 1)}"
    )
    raise StackReadError(f"the folder {folder} holds no TIFF, PNG or JPEG file, only {listed}")


def open_one(path: Path) -> Source:
    """Open one file of a folder; the errors of `open_tiff` and `open_picture`."""
    return picture.open_picture(path) if path.suffix.lower() in picture.ENDINGS else open_tiff(path)


class FolderPixels:
    """The pixels of many files, an array that opens a file when it is indexed.

    Either (file, ...) or, ``joined``, the files one after the other along their first axis.
    """

    def __init__(self, files: tuple[Path, ...], lengths: tuple[int, ...], shape: tuple[int, ...], dtype: Any) -> None:
        self.files, self.dtype = files, np.dtype(dtype)
        self.joined = bool(lengths)
        self._inner = shape
        self._starts = np.concatenate([[0], np.cumsum(lengths)]).astype(int) if lengths else np.arange(len(files) + 1)
        self.shape = (int(self._starts[-1]), *shape)

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        first, *rest = index
        if isinstance(first, slice):
            return np.stack([self._read(k, tuple(rest)) for k in range(self.shape[0])[first]])
        return self._read(int(first), tuple(rest))

    def _read(self, number: int, index: tuple[Any, ...]) -> NDArray[Any]:
        k = int(np.searchsorted(self._starts, number, side="right")) - 1
        path = self.files[k]
        try:
            pixels = open_one(path).pixels
            if tuple(pixels.shape)[-len(self._inner) :] != self._inner:
                raise ValueError(f"its shape became {tuple(pixels.shape)} since the folder was opened")
            inside = (number - int(self._starts[k]),) if self.joined and len(pixels.shape) > len(self._inner) else ()
            return np.asarray(pixels[(*inside, *index)])
        except FrameError:
            raise
        except (OSError, ValueError, IndexError) as error:
            raise FrameError(_reason(path, error)) from error


def open_files(files: list[Path], folder: Path, axes: str | None = None) -> Source:
    """Open files alike as one stack, in natural order of their names.

    Each file is a moment, or the files follow each other in time where each holds a time axis.

    Parameters
    ----------
    files : list of Path
        At least two.
    folder : Path
        What holds them, for messages and the stack's name.
    axes : str, optional
        What the user says about the axes of the stack; decides how files of several pages are read.

    Raises
    ------
    StackReadError
        If no file can be read, or two differ in shape or dtype: the first odd one is named with both.
    AmbiguousAxesError
        If ``axes`` does not fit the files.
    """
    ordered = tuple(sorted(files, key=lambda p: natural_key(str(p))))
    opened: dict[int, Source] = {}
    lost: dict[int, str] = {}
    for number, path in enumerate(ordered):
        try:
            opened[number] = open_one(path)
        except OSError as error:
            lost[number] = _reason(path, error)
    if not opened:
        raise StackReadError(f"none of the {len(ordered)} files in {folder} can be read: {lost[0]}")
    one = next(iter(opened.values()))
    notes = [*one.notes]
    if gaps := missing_numbers([p.name for p in ordered]):
        notes.append(_gap_note(gaps))
    joined = _joined(one, folder, axes)
    _check_alike(list(opened.values()), joined)
    if joined:
        usual = Counter(_pages(s) for s in opened.values()).most_common(1)[0][0]
        lengths = tuple(_pages(opened[k]) if k in opened else usual for k in range(len(ordered)))
        inner = one.shape[1:] if len(one.axes) > _frame_axes(one) else one.shape
        pixels = FolderPixels(ordered, lengths, inner, _dtype(one))
        labels = "t" + one.axes[-len(inner) :]
        notes.append(f"the pages of the {len(ordered)} files follow each other in time")
    else:
        pixels = FolderPixels(ordered, (), one.shape, _dtype(one))
        labels = ("z" if axes is not None and "t" not in axes else "t") + one.axes
    return Source(
        pixels,
        labels,
        name=folder.name or "folder",
        kind=f"folder of {len(ordered)} files ({one.kind})",
        path=folder,
        calibration=one.calibration,
        lost=_lost(pixels, labels, ordered, opened, lost),
        notes=tuple(notes),
        lazy_files=ordered,
        compression=one.compression,
    )


def missing_numbers(names: list[str]) -> list[int]:
    """Return the numbers missing in the one place where otherwise equal names count up."""
    split = [_DIGITS.split(name) for name in names]
    if len({tuple(parts[::2]) for parts in split}) != 1:
        return []
    columns = [[int(parts[k]) for parts in split] for k in range(1, len(split[0]), 2)]
    varying = [column for column in columns if len(set(column)) > 1]
    if len(varying) != 1:
        return []
    there = sorted(set(varying[0]))
    steps = np.diff(there)
    step = int(np.gcd.reduce(steps))  # every tenth one, where that is the rule
    gaps = int((steps // step - 1).sum())
    if gaps > len(there):  # time stamps rather than a count
        return []
    present = set(there)
    return [n for n in range(there[0], there[-1], step) if n not in present]


def _gap_note(gaps: list[int]) -> str:
    shown = ", ".join(map(str, gaps[:5])) + (f" and {len(gaps) - 5} more" if len(gaps) > 5 else "")
    return f"the numbering of the files leaves out {shown}: the frames around it follow each other"


def _reason(path: Path, error: Exception) -> str:
    text = str(error)
    return text if str(path) in text else f"{path} cannot be read ({text})"


def _frame_axes(source: Source) -> int:
    return sum(a in "yxs" for a in source.axes)


def _pages(source: Source) -> int:
    return source.shape[0] if len(source.axes) > _frame_axes(source) else 1


def _dtype(source: Source) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(source.pixels.dtype).newbyteorder("=")
    return dtype


def _joined(one: Source, folder: Path, axes: str | None) -> bool:
    """Tell whether the files are joined along their own time axis, rather than each being a moment."""
    if axes is None:
        return one.axes.startswith("t")
    own = sum(a not in "yxs" for a in one.axes)
    stated = sum(a in "tzc" for a in axes) + ("c" in one.axes and "c" not in axes)  # named channels need no letter
    if stated not in (own, own + 1) or (stated == own and own and not axes.startswith("t")):
        raise AmbiguousAxesError(
            f"{folder}: axes={axes!r} does not fit files of {' x '.join(map(str, one.shape))} ({one.axes})",
            ["tyx", "tzyx"],
        )
    return stated == own and own > 0


def _check_alike(sources: list[Source], joined: bool) -> None:
    """Raise for the first file that differs; files that are joined in time may hold more or fewer pages."""
    first = sources[0]

    def form(source: Source) -> tuple[Any, ...]:
        skipped = len(source.axes) - _frame_axes(source) if joined else 0
        return source.shape[min(skipped, 1) :], source.axes[min(skipped, 1) :], _dtype(source)

    for other in sources[1:]:
        if form(other) != form(first):
            raise StackReadError(
                f"{other.path} is {' x '.join(map(str, other.shape))} {_dtype(other)}, but {first.path} is"
                f" {' x '.join(map(str, first.shape))} {_dtype(first)}: the frames of a stack must be alike"
            )


def _lost(
    pixels: FolderPixels,
    labels: str,
    files: tuple[Path, ...],
    opened: Mapping[int, Source],
    unreadable: Mapping[int, str],
) -> dict[tuple[int, ...], str]:
    """Return the places along the axes other than y, x and s that cannot be read."""
    lengths = [n for a, n in zip(labels, pixels.shape, strict=True) if a not in "yxs"]
    found: dict[tuple[int, ...], str] = {}
    for k in range(len(files)):
        start, stop = int(pixels._starts[k]), int(pixels._starts[k + 1])
        if k in unreadable:
            found |= {(t, *rest): unreadable[k] for t in range(start, stop) for rest in np.ndindex(*lengths[1:])}
            continue
        for place, why in opened[k].lost.items():
            reason = why if str(files[k]) in why else f"{files[k]}: {why}"
            found[(start + place[0], *place[1:]) if pixels.joined else (k, *place)] = reason
    return found
