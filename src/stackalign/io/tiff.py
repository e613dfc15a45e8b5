"""Open TIFF files (plain, ImageJ, OME, BigTIFF) as lazy arrays; nothing but tags is read until a frame is asked for."""

from __future__ import annotations

import logging
import struct
from contextlib import ExitStack
from itertools import product
from math import prod
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tifffile

from stackalign.core.stack import FrameError
from stackalign.io import calibration
from stackalign.io.axes import UNKNOWN
from stackalign.io.errors import StackReadError
from stackalign.io.source import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ENDINGS = (".tif", ".tiff", ".btf", ".tf8", ".ome", ".lsm", ".stk")
# what tifffile says about a damaged file, our own messages say with the frame's number; without a handler it would go
# to stderr in a script that sets up no logging
logging.getLogger("tifffile").addHandler(logging.NullHandler())
_LETTERS = {"T": "t", "Z": "z", "C": "c", "Y": "y", "X": "x", "S": "s"}
_COMPRESSIONS = {1: "none", 5: "lzw", 7: "jpeg", 8: "deflate", 32946: "deflate", 32773: "packbits", 50000: "zstd"}
_NO_PAGE = "no file that is there holds it: a part of the set is missing, or it was never written"
_SHORT = "the file ends before this frame: it was cut off"


class TiffPixels:
    """The pixels of one image in a TIFF file, an array that reads pages as they are indexed. Safe for threads.

    Contiguous pixels go through a memory map, others through pages that tifffile decodes.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: Any, page_ndim: int, offset: int | None) -> None:
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype)
        self._lead = len(shape) - page_ndim
        self._offset = offset
        self._open: tuple[tifffile.TiffFile, Any] | None = None
        self._map: NDArray[Any] | None = None
        self._lock = Lock()

    def __del__(self) -> None:
        if (opened := getattr(self, "_open", None)) is not None:
            opened[0].close()

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)  # a process of a cluster opens the file itself
        state.update(_open=None, _map=None, _lock=None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = Lock()

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        lead, rest = index[: self._lead], index[self._lead :]
        ranges = [range(n)[i] if isinstance(i, slice) else (int(i),) for i, n in zip(lead, self.shape, strict=False)]
        pages = [self._page(tuple(place))[rest] for place in product(*ranges)]
        kept = [len(r) for r, i in zip(ranges, lead, strict=True) if isinstance(i, slice)]
        return pages[0] if not kept else np.stack(pages).reshape(*kept, *pages[0].shape)

    def _page(self, place: tuple[int, ...]) -> NDArray[Any]:
        number = int(np.ravel_multi_index(place, self.shape[: self._lead])) if self._lead else 0
        if self._offset is not None:
            return self._mapped(number)
        try:
            with self._lock:
                page = self._pages()[number]
                if page is None:
                    raise ValueError("the file holds no page for it")
                if page.parent.filehandle.closed:  # an OME set spread over several files
                    with page.parent.filehandle.open() or page.parent.filehandle:
                        return np.asarray(page.asarray(maxworkers=1)).reshape(self.shape[self._lead :])
            return np.asarray(page.asarray(maxworkers=1)).reshape(self.shape[self._lead :])
        except Exception as error:  # decoders raise errors of many kinds
            raise FrameError(f"{self.path}: page {number} cannot be read ({error})") from error

    def _mapped(self, number: int) -> NDArray[Any]:
        count = prod(self.shape[self._lead :])
        with self._lock:
            if self._map is None:
                there = (self.path.stat().st_size - (self._offset or 0)) // (count * self.dtype.itemsize)
                pages = min(there, prod(self.shape[: self._lead]))
                self._map = np.memmap(self.path, self.dtype, "r", self._offset or 0, (pages, count))
        if number >= len(self._map):
            raise FrameError(f"{self.path}: page {number} cannot be read ({_SHORT})")
        return np.asarray(self._map[number]).reshape(self.shape[self._lead :])

    def keep(self, tif: tifffile.TiffFile, pages: Any) -> None:
        """Read from this open file, whose list of pages is known."""
        tif.filehandle.set_lock(True)
        self._open = tif, pages

    def _pages(self) -> Any:
        if self._open is None:
            tif = tifffile.TiffFile(self.path)
            self.keep(tif, _layout(tif).pages)
        return self._open[1]  # type: ignore[index]


class _Layout(NamedTuple):
    """How the image is laid out in the file."""

    labels: str
    shape: tuple[int, ...]
    page_ndim: int
    pages: Sequence[Any]
    offset: int | None
    lost: dict[int, str]
    notes: tuple[str, ...]
    files: tuple[Path, ...]


def open_tiff(path: Path, *, keep_open: bool = False) -> Source:
    """Open a TIFF file; only its tags are read.

    Parameters
    ----------
    path : Path
        The file.
    keep_open : bool
        Keep the list of pages for the frames that will be read: spares a second walk through a long file, and takes
        a file handle as long as the source lives. Files that are memory-mapped do without.

    Raises
    ------
    StackReadError
        If it is no TIFF file, holds no image, or holds images of different shapes or pixel types.
    """
    try:
        tif = tifffile.TiffFile(path)
    except (tifffile.TiffFileError, ValueError, struct.error) as error:
        raise StackReadError(f"{path} is not a TIFF file, whatever its name says ({error})") from error
    with ExitStack() as handles:
        handles.enter_context(tif)
        try:
            layout = _layout(tif)
            scale = _calibration(tif)
        except StackReadError:
            raise
        except Exception as error:  # tags that make no sense raise errors of many kinds
            raise StackReadError(f"{path}: its TIFF tags make no sense ({type(error).__name__}: {error})") from error
        page = tif.pages.first
        dtype = np.dtype(page.dtype)
        if layout.offset is not None:
            dtype = dtype.newbyteorder(tif.byteorder)
        pixels = TiffPixels(path, layout.shape, dtype, layout.page_ndim, layout.offset)
        if keep_open and layout.offset is None:
            pixels.keep(tif, layout.pages)
            handles.pop_all()
        lead = layout.shape[: len(layout.shape) - layout.page_ndim]
        outer = [k for k, a in enumerate(layout.labels[: len(lead)]) if a not in "yxs"]
        lost: dict[tuple[int, ...], str] = {}
        for number, reason in layout.lost.items():
            place = np.unravel_index(number, lead) if lead else ()
            inner = tuple(0 for a in layout.labels[len(lead) :] if a not in "yxs")
            lost[(*(int(place[k]) for k in outer), *inner)] = reason
        return Source(
            pixels,
            layout.labels,
            name=stem(path),
            kind=_kind(tif),
            path=path,
            calibration=scale,
            lost=lost,
            notes=layout.notes,
            lazy_files=layout.files,
            settled=_settled(tif),
            compression=_COMPRESSIONS.get(int(page.compression), tifffile.COMPRESSION(page.compression).name.lower()),
        )


def stem(path: Path) -> str:
    """Return a file's name without its endings (``.ome.tif`` counts as one)."""
    return path.name.removesuffix(path.suffix).removesuffix(".ome")


def _layout(tif: tifffile.TiffFile) -> _Layout:
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
    page_ndim = _page_axes(lengths, first.size)
    count = prod(lengths[: len(lengths) - page_ndim])
    offset = None if image.is_multifile else _contiguous(image, pages, count)
    lost: dict[int, str] = {}
    plain = image.kind in ("uniform", "generic") and not tif.is_imagej  # nothing says how many pages there should be
    broken = (plain or offset is None) and not image.is_multifile and _chain_broken(tif)
    if offset is not None:
        there = max(0, size - offset) // first.nbytes
        lost = dict.fromkeys(range(there, count), _SHORT)
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
    return _Layout(letters, lengths, page_ndim, pages, offset, lost, tuple(notes), files)


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
    lost = dict.fromkeys(range(len(pages), count), _SHORT)
    known = min(len(pages), count)
    for number in range(known) if check_all else {0, known - 1}:
        page = pages[number]
        if page is not None and any(
            o + n > size for o, n in zip(page.dataoffsets[-1:], page.databytecounts[-1:], strict=True)
        ):
            lost[number] = _SHORT
    if hasattr(pages, "_pages") or isinstance(pages, list):
        lost |= {n: _NO_PAGE for n, p in enumerate(getattr(pages, "_pages", pages)) if p is None}
    return dict(sorted(lost.items()))


def _calibration(tif: tifffile.TiffFile) -> calibration.Calibration:
    if tif.is_ome and tif.ome_metadata:
        image = tifffile.xml2dict(tif.ome_metadata).get("OME", {}).get("Image", {})
        return calibration.from_ome(image[0] if isinstance(image, list | tuple) else image)
    if tif.is_imagej:
        return calibration.from_imagej(tif)
    if tif.is_shaped:
        return calibration.from_shaped((tif.shaped_metadata or ({},))[0])
    return calibration.from_tags(tif)


def _settled(tif: tifffile.TiffFile) -> bool:
    """Tell whether our own writer says that there is one moment, which neither ImageJ nor OME can."""
    return "stackalign_axes" in (tif.pages.first.description or "")


def _kind(tif: tifffile.TiffFile) -> str:
    base = "OME-TIFF" if tif.is_ome else "ImageJ TIFF" if tif.is_imagej else "TIFF"
    return f"{base}, BigTIFF" if tif.is_bigtiff else base
