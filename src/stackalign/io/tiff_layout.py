"""How the images of a TIFF file lie in it: axes, shape, pages, and what of them is not there."""

from __future__ import annotations

import struct
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stackalign.io.axes import UNKNOWN
from stackalign.io.errors import StackReadError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import tifffile

_LETTERS = {"T": "t", "Z": "z", "C": "c", "Y": "y", "X": "x", "S": "s"}
_NO_PAGE = "no file that is there holds it: a part of the set is missing, or it was never written"
SHORT = "the file ends before this frame: it was cut off"


class Layout(NamedTuple):
    """How the image is laid out in the file.

    Attributes
    ----------
    labels : str
        One letter per axis of ``shape``, axes of length 1 left out.
    page_ndim : int
        How many of the last axes one page holds.
    pages : sequence of tifffile pages
        In the order of the other axes, the last one fastest.
    offset : int or None
        Where the pixels start, if all lie in one piece and as they are in memory.
    lost : dict of int to str
        Pages that cannot be read, with the reason.
    files : tuple of Path
        All that hold a page; the file that was opened first.
    """

    labels: str
    shape: tuple[int, ...]
    page_ndim: int
    pages: Sequence[Any]
    offset: int | None
    lost: dict[int, str]
    notes: tuple[str, ...]
    files: tuple[Path, ...]


def layout_of(tif: tifffile.TiffFile) -> Layout:
    """Find shape, axes and pages, also of a file whose end is missing."""
    path = Path(tif.filehandle.path)
    size = tif.filehandle.size
    series = [s for s in tif.series if not s.keyframe.is_reduced] or tif.series
    if not series:
        raise StackReadError(f"{path} holds no image")
    image = _own(tif, series)
    first = image.keyframe
    notes: list[str] = []
    pages: Sequence[Any] = image
    labels = image.get_axes(False)
    shape = image.get_shape(False)
    if image.kind in ("uniform", "generic") and tif.is_imagej and not image.parent.is_ome:
        labels, shape = _announced(tif)  # ImageJ's header stands, but the file is too short for it
    elif image.kind == "shaped":
        labels, shape = _shaped(tif, labels, shape)
    elif image.kind in ("uniform", "generic"):
        pages = _alike(path, series)
        shape, labels = (len(pages), *first.shape), "I" + first.axes
    elif len(series) > 1:
        notes.append(f"the file holds {len(series)} images: number {series.index(image) + 1} is read")
    letters, lengths = _squeezed(labels, shape)
    if 0 in lengths:
        raise StackReadError(f"{path} holds no image: its size is {' x '.join(map(str, lengths))}")
    page_ndim = _page_axes(lengths, first.size)
    count = prod(lengths[: len(lengths) - page_ndim])
    offset = None if image.is_multifile else _contiguous(image, pages, count)
    lost: dict[int, str] = {}
    plain = image.kind in ("uniform", "generic") and not tif.is_imagej  # nothing says how many pages there should be
    broken = (plain or offset is None) and not image.is_multifile and _chain_broken(tif)
    if offset is not None:
        there = max(0, size - offset) // first.nbytes
        lost = dict.fromkeys(range(there, count), SHORT)
    else:
        if len(pages) < count or (broken and len(tif.pages) < count):  # a series announces pages that were cut off
            pages = list(tif.pages)[:count]
        lost = _lost_pages(pages, count, size, check_all=broken)
    if broken and plain and len(pages) >= count:
        if count == 1:
            raise StackReadError(f"{path} was cut off and the list of its pages is lost; copy it from its source again")
        notes.append(f"the file was cut off: the pages after the first {count} are lost")
    if len(lost) >= count:
        raise StackReadError(f"{path}: no frame can be read ({next(iter(lost.values()))})")
    files: tuple[Path, ...] = (path,)
    if image.is_multifile:
        others = {Path(p.parent.filehandle.path) for p in image if p is not None}
        files = (path, *sorted(others - {path}))
    return Layout(letters, lengths, page_ndim, pages, offset, lost, tuple(notes), files)


def _own(tif: tifffile.TiffFile, series: Sequence[Any]) -> Any:
    """Return the first image of which this very file holds pages: each file of an OME set describes all its images."""
    if len(series) > 1 and tif.is_ome:
        for image in series:
            if any(page is not None and page.parent is tif for page in image):
                return image
    return series[0]


def _announced(tif: tifffile.TiffFile) -> tuple[str, tuple[int, ...]]:
    """Return the axes and shape that ImageJ's description announces."""
    meta = tif.imagej_metadata or {}
    sizes = tuple(int(meta.get(key, 1)) for key in ("frames", "slices", "channels"))
    if prod(sizes) == 1:
        sizes = (1, int(meta.get("images", 1)), 1)
    first = tif.pages.first
    return "TZC" + first.axes, (*sizes, *first.shape)


def _shaped(tif: tifffile.TiffFile, labels: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Return the axes and shape that tifffile's description announces, where the pages are fewer."""
    meta: dict[str, Any] = (tif.shaped_metadata or ({},))[0]
    announced = tuple(int(n) for n in meta.get("shape", ()))
    first = tif.pages.first
    if prod(announced) <= prod(shape) or announced[-len(first.shape) :] != first.shape:
        return labels, shape
    named = str(meta.get("axes", ""))
    if len(named) != len(announced):
        named = "Q" * (len(announced) - len(first.shape)) + first.axes
    return named, announced


def _alike(path: Path, series: Sequence[Any]) -> list[Any]:
    """Return all pages in order of the file; StackReadError names the first that differs in shape or pixel type."""
    pages = sorted((p for s in series for p in s if p is not None), key=lambda p: p.index)
    first = pages[0]
    for page in pages:
        if (page.shape, page.dtype) != (first.shape, first.dtype):
            raise StackReadError(
                f"{path}: page {_number(page)} is {_size(page.shape, page.dtype)}, but page {_number(first)} is"
                f" {_size(first.shape, first.dtype)}: the frames of a stack must be alike"
            )
    return pages


def _number(page: Any) -> int:
    return int(np.ravel(page.index)[0]) + 1


def _size(shape: tuple[int, ...], dtype: Any) -> str:
    return f"{' x '.join(map(str, shape))} {dtype}"


def _squeezed(labels: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Leave out axes of length 1 but y and x, and use our letters."""
    kept = [(_LETTERS.get(a, UNKNOWN), int(n)) for a, n in zip(labels, shape, strict=True) if n > 1 or a in "YX"]
    return "".join(a for a, _ in kept), tuple(n for _, n in kept)


def _page_axes(shape: tuple[int, ...], size: int) -> int:
    """Return how many of the last axes one page of ``size`` pixels holds."""
    for ndim in range(1, len(shape) + 1):
        if prod(shape[-ndim:]) >= size and ndim >= 2:
            return ndim
    return len(shape)


def _contiguous(image: Any, pages: Sequence[Any], count: int) -> int | None:
    """Return the offset of the pixels if all lie in one piece and as they are in memory."""
    first = image.keyframe
    if image.kind == "generic" and len(pages) == 1 and count > 1:  # announced by ImageJ, cut off
        return int(first.dataoffsets[0]) if first.is_final else None
    if image.kind in ("uniform", "generic") and len(pages) != len(image):
        return None
    offset = image.dataoffset
    if offset is None or not first.is_final:
        return None
    if len(image) < count and len(image._pages) > 1:
        return None
    return int(offset)


def _chain_broken(tif: tifffile.TiffFile) -> bool:
    """Tell whether the list of pages leads past the end of the file."""
    handle = tif.filehandle
    len(tif.pages)  # walks the list to its end
    place = tif.pages.next_page_offset
    if place is None:
        return False
    handle.seek(place)
    raw = handle.read(tif.tiff.offsetsize)
    if len(raw) < tif.tiff.offsetsize:
        return True
    return bool(struct.unpack(tif.tiff.offsetformat, raw)[0] >= handle.size)


def _lost_pages(pages: Sequence[Any], count: int, size: int, *, check_all: bool) -> dict[int, str]:
    lost = dict.fromkeys(range(len(pages), count), SHORT)
    known = min(len(pages), count)
    for number in range(known) if check_all else {0, known - 1}:
        page = pages[number]
        if page is not None and any(
            o + n > size for o, n in zip(page.dataoffsets[-1:], page.databytecounts[-1:], strict=True)
        ):
            lost[number] = SHORT
    if hasattr(pages, "_pages") or isinstance(pages, list):
        lost |= {n: _NO_PAGE for n, p in enumerate(getattr(pages, "_pages", pages)) if p is None}
    return dict(sorted(lost.items()))
