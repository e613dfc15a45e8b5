"""Open many TIFF files or pictures as one lazy stack, in natural order; what cannot be read is a missing frame."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.stack import FrameError
from stackalign.io import picture
from stackalign.io.errors import AmbiguousAxesError, StackReadError
from stackalign.io.naming import Grid, missing_numbers, name_grid, natural_key, varying_numbers
from stackalign.io.source import Source
from stackalign.io.tiff import ENDINGS, open_tiff

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


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

    Either (file, ...) or, ``joined``, the files one after the other along their first axis. None stands for a file that
    is not there.
    """

    def __init__(
        self, files: Sequence[Path | None], lengths: tuple[int, ...], shape: tuple[int, ...], dtype: Any
    ) -> None:
        self.files, self.dtype = files, np.dtype(dtype)
        self.joined = bool(lengths)
        self._inner = shape
        self.starts = np.concatenate([[0], np.cumsum(lengths)]).astype(int) if lengths else np.arange(len(files) + 1)
        self.shape = (int(self.starts[-1]), *shape)

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        first, *rest = index
        if isinstance(first, slice):
            return np.stack([self._read(k, tuple(rest)) for k in range(self.shape[0])[first]])
        return self._read(int(first), tuple(rest))

    def _read(self, number: int, index: tuple[Any, ...]) -> NDArray[Any]:
        k = int(np.searchsorted(self.starts, number, side="right")) - 1
        path = self.files[k]
        if path is None:
            raise FrameError(f"there is no file for place {k}")
        try:
            pixels = open_one(path).pixels
            if tuple(pixels.shape)[-len(self._inner) :] != self._inner:
                raise ValueError(f"its shape became {tuple(pixels.shape)} since the folder was opened")
            inside = (number - int(self.starts[k]),) if self.joined and len(pixels.shape) > len(self._inner) else ()
            return np.asarray(pixels[(*inside, *index)])
        except FrameError:
            raise
        except (OSError, ValueError, IndexError) as error:
            raise FrameError(_reason(path, error)) from error


class GridPixels:
    """The pixels of files along several axes, (*grid, ...), from those of the files one after the other."""

    def __init__(self, pixels: FolderPixels, grid: tuple[int, ...]) -> None:
        self.pixels, self.grid, self.dtype = pixels, grid, pixels.dtype
        self.shape = (*grid, *pixels.shape[1:])

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        lead, rest = index[: len(self.grid)], index[len(self.grid) :]
        numbers = np.arange(prod(self.grid)).reshape(self.grid)[lead]
        if np.ndim(numbers) == 0:
            return self.pixels[(int(numbers), *rest)]
        files = [self.pixels[(int(k), *rest)] for k in numbers.ravel()]
        return np.stack(files).reshape(*numbers.shape, *files[0].shape)


def open_files(files: list[Path], folder: Path, axes: str | None = None) -> Source:
    """Open files alike as one stack, in natural order of their names.

    Each file is a moment, or the files follow each other in time where each holds a time axis. Names that count along
    several axes (``t001_z02_ch1``) say which file is what.

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
    ordered: tuple[Path | None, ...] = tuple(sorted(files, key=lambda p: natural_key(str(p))))
    grid = name_grid([p.name for p in ordered if p is not None])
    one = _first(ordered, folder)
    if len(one.lazy_files) > 1 and {p.resolve() for p in files} <= {p.resolve() for p in one.lazy_files}:
        return replace(one, name=folder.name or "folder", path=folder)  # one OME image spread over these very files
    if grid is not None and _fits(grid, one, axes):
        ordered = tuple(ordered[k] if k >= 0 else None for k in grid.order)
    else:
        grid = None
    opened, lost = _opened(ordered, grid)
    notes = [*one.notes, *_notes([p.name for p in ordered if p is not None], grid)]
    joined = grid is None and _joined(one, folder, axes)
    _check_alike(list(opened.values()), joined)
    pixels: FolderPixels | GridPixels
    scale = one.calibration
    if joined:
        usual = Counter(_pages(s) for s in opened.values()).most_common(1)[0][0]
        lengths = tuple(_pages(opened[k]) if k in opened else usual for k in range(len(ordered)))
        inner = one.shape[1:] if len(one.axes) > _frame_axes(one) else one.shape
        flat = pixels = FolderPixels(ordered, lengths, inner, _dtype(one))
        labels = "t" + one.axes[-len(inner) :]
        notes.append(f"the pages of the {len(ordered)} files follow each other in time")
    elif grid is not None:
        flat = FolderPixels(ordered, (), one.shape, _dtype(one))
        pixels = GridPixels(flat, grid.shape)
        labels = grid.axes + one.axes
        scale = replace(scale, channel_names=grid.channels or scale.channel_names)
    else:
        flat = pixels = FolderPixels(ordered, (), one.shape, _dtype(one))
        labels = ("z" if axes is not None and "t" not in axes else "t") + one.axes
    there = tuple(p for p in ordered if p is not None)
    return Source(
        pixels,
        labels,
        name=folder.name or "folder",
        kind=f"folder of {len(there)} files ({one.kind})",
        path=folder,
        calibration=scale,
        lost=_lost(flat, labels, pixels.shape, opened, lost, grid),
        notes=tuple(notes),
        lazy_files=there,
        compression=one.compression,
    )


def _first(files: Sequence[Path | None], folder: Path) -> Source:
    """Return the first file that can be read."""
    reasons = []
    for path in files:
        try:
            if path is not None:
                return open_one(path)
        except OSError as error:
            reasons.append(_reason(path, error) if path is not None else str(error))
    raise StackReadError(f"none of the {len(files)} files in {folder} can be read: {reasons[0]}")


def _opened(files: Sequence[Path | None], grid: Grid | None) -> tuple[dict[int, Source], dict[int, str]]:
    """Return what can be read and, of the other files, why not."""
    opened: dict[int, Source] = {}
    lost: dict[int, str] = {}
    for number, path in enumerate(files):
        if path is None:
            lost[number] = f"there is no file for {grid.place(number) if grid else number}"
            continue
        try:
            opened[number] = open_one(path)
        except OSError as error:
            lost[number] = _reason(path, error)
    return opened, lost


def _fits(grid: Grid, one: Source, axes: str | None) -> bool:
    """Tell whether the files are to be read along the axes that their names count."""
    if set(grid.axes) & set(one.axes):
        return False
    if axes is None:
        return True
    named = grid.axes + "".join(a for a in one.axes if a not in "yxs")
    stated = sum(a in "tzc" for a in axes)
    return stated == len(named) or ("c" in named and "c" not in axes and stated == len(named) - 1)


def _notes(names: list[str], grid: Grid | None) -> list[str]:
    if grid is not None:
        sizes = ", ".join(f"{n} {a}" for a, n in zip(grid.axes, grid.shape, strict=True))
        return [f"the names of the files count along several axes: {sizes}"]
    if gaps := missing_numbers(names):
        return [_gap_note(gaps)]
    count = len(varying_numbers(names))
    return [f"the names of the files count in {count} places: they are read in natural order"] if count > 1 else []


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
    flat: FolderPixels,
    labels: str,
    shape: tuple[int, ...],
    opened: Mapping[int, Source],
    unreadable: Mapping[int, str],
    grid: Grid | None,
) -> dict[tuple[int, ...], str]:
    """Return the places along the axes other than y, x and s that cannot be read."""
    lengths = [n for a, n in zip(labels, shape, strict=True) if a not in "yxs"]
    files = (1,) if grid is None else grid.shape

    def place(number: int) -> tuple[int, ...]:
        return (number,) if grid is None else tuple(int(k) for k in np.unravel_index(number, files))

    found: dict[tuple[int, ...], str] = {}
    for k, path in enumerate(flat.files):
        start, stop = int(flat.starts[k]), int(flat.starts[k + 1])
        if k in unreadable:
            inner = list(np.ndindex(*lengths[len(files) :]))
            found |= {(*place(t), *rest): unreadable[k] for t in range(start, stop) for rest in inner}
            continue
        for inside, why in opened[k].lost.items():
            reason = why if str(path) in why else f"{path}: {why}"
            found[(start + inside[0], *inside[1:]) if flat.joined else (*place(k), *inside)] = reason
    return found
