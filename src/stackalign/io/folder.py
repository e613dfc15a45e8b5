"""Open a folder of TIFF files as one lazy stack, in natural order; files that cannot be read become missing frames."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.stack import FrameError
from stackalign.io.axes import UNKNOWN
from stackalign.io.errors import AmbiguousAxesError, StackReadError
from stackalign.io.source import Source
from stackalign.io.tiff import ENDINGS, open_tiff

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_DIGITS = re.compile(r"(\d+)")


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Return a sort key that puts 2 before 10."""
    return [(0, int(part)) if part.isdigit() else (1, part.lower()) for part in _DIGITS.split(name) if part]


def stack_files(folder: Path) -> list[Path]:
    """Return the TIFF files of a folder; StackReadError says what is there instead."""
    there = [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
    found = [p for p in there if p.suffix.lower() in ENDINGS]
    if found:
        return found
    inside = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    if not there and not inside:
        raise StackReadError(f"the folder {folder} is empty")
    kinds = Counter(p.suffix.lower() or "without ending" for p in there)
    listed = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(4)) or f"{len(inside)} folders"
    raise StackReadError(f"the folder {folder} holds no TIFF file, only {listed}")


class FolderPixels:
    """The pixels of many files of one shape, an array (file, ...) that opens a file when it is indexed."""

    def __init__(self, files: tuple[Path, ...], shape: tuple[int, ...], dtype: Any) -> None:
        self.files, self.dtype = files, np.dtype(dtype)
        self.shape = (len(files), *shape)

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        first, *rest = index
        if isinstance(first, slice):
            return np.stack([self._read(k, tuple(rest)) for k in range(len(self.files))[first]])
        return self._read(int(first), tuple(rest))

    def _read(self, number: int, index: tuple[Any, ...]) -> NDArray[Any]:
        path = self.files[number]
        try:
            pixels = open_tiff(path).pixels
            if pixels.shape != self.shape[1:]:
                raise ValueError(f"its shape became {pixels.shape} since the folder was opened")
            return np.asarray(pixels[index])
        except FrameError:
            raise
        except (OSError, ValueError) as error:
            raise FrameError(f"{path} cannot be read ({error})") from error


def open_files(files: list[Path], folder: Path, axes: str | None = None) -> Source:
    """Open files of one shape and dtype as frames, in natural order of their names.

    Parameters
    ----------
    files : list of Path
        At least two.
    folder : Path
        What holds them, for messages and the stack's name.
    axes : str, optional
        What the user says about the axes of the stack; decides how files of several unnamed pages are read.

    Raises
    ------
    StackReadError
        If no file can be read, or two differ in shape or dtype: the first odd one is named with both.
    AmbiguousAxesError
        If each file holds several pages and nobody says whether these are a volume or moments.
    """
    ordered = sorted(files, key=lambda p: natural_key(str(p)))
    opened: dict[int, Source] = {}
    lost: dict[int, str] = {}
    for number, path in enumerate(ordered):
        try:
            opened[number] = open_tiff(path)
        except OSError as error:
            lost[number] = _reason(path, error)
    if not opened:
        raise StackReadError(f"none of the {len(ordered)} files in {folder} can be read: {lost[0]}")
    _check_alike([opened[k] for k in sorted(opened)])
    one = next(iter(opened.values()))
    lost |= {k: f"{ordered[k]}: {next(iter(s.lost.values()))}" for k, s in opened.items() if s.lost}
    notes = list(one.notes)
    if gaps := missing_numbers([p.name for p in ordered]):
        notes.append(_gap_note(gaps))
    labels = _labels(one, folder, len(ordered), axes)
    inner = sum(a not in "yxs" for a in one.axes)
    places = {(k, *rest): why for k, why in lost.items() for rest in np.ndindex(one.shape[:inner])}
    return Source(
        FolderPixels(tuple(ordered), one.shape, one.pixels.dtype),
        labels,
        name=folder.name or "folder",
        kind=f"folder of {len(ordered)} files ({one.kind})",
        path=folder,
        calibration=one.calibration,
        lost=places,
        notes=tuple(notes),
        lazy_files=tuple(ordered),
        compression=one.compression,
    )


def missing_numbers(names: list[str]) -> list[int]:
    """Return the numbers missing in the one place where otherwise equal names count up."""
    split = [_DIGITS.split(name) for name in names]
    if len({len(parts) for parts in split}) != 1 or len({tuple(parts[::2]) for parts in split}) != 1:
        return []
    columns = [[int(parts[k]) for parts in split] for k in range(1, len(split[0]), 2)]
    varying = [column for column in columns if len(set(column)) > 1]
    if len(varying) != 1:
        return []
    there = set(varying[0])
    steps = np.diff(sorted(there))
    step = int(np.bincount(steps).argmax()) if steps.max() < 10**6 else 1  # every second one, where that is the rule
    return [n for n in range(min(there), max(there), step) if n not in there]


def _gap_note(gaps: list[int]) -> str:
    shown = ", ".join(map(str, gaps[:5])) + (f" and {len(gaps) - 5} more" if len(gaps) > 5 else "")
    return f"the numbering of the files leaves out {shown}: the frames around it follow each other"


def _reason(path: Path, error: OSError) -> str:
    text = str(error)
    return text if str(path) in text else f"{path} cannot be read ({text})"


def _check_alike(sources: list[Source]) -> None:
    first = sources[0]
    for other in sources[1:]:
        if (other.shape, other.axes) != (first.shape, first.axes) or _dtype(other) != _dtype(first):
            raise StackReadError(
                f"{other.path} is {' x '.join(map(str, other.shape))} {_dtype(other)}, but {first.path} is"
                f" {' x '.join(map(str, first.shape))} {_dtype(first)}: the frames of a stack must be alike"
            )


def _dtype(source: Source) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(source.pixels.dtype).newbyteorder("=")
    return dtype


def _labels(one: Source, folder: Path, count: int, axes: str | None) -> str:
    """Return the letters of (file, ...): the files are time unless their own pages are, or the user says else."""
    if axes is not None or UNKNOWN not in one.axes:
        return ("?" if "t" in one.axes else "t") + one.axes
    pages = one.shape[one.axes.index(UNKNOWN)]
    choices = [("t" + one.axes).replace(UNKNOWN, a) for a in "zc" if a not in one.axes]
    raise AmbiguousAxesError(
        f"{folder}: each of its {count} files holds {pages} pages, which no file names. Say what they are with axes="
        f" (--axes on the command line): {' or '.join(f'{c!r}' for c in choices)}"
        " (a volume or channels at each moment)",
        choices,
    )
