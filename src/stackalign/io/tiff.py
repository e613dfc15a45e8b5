"""Open TIFF files (plain, ImageJ, OME, BigTIFF) as lazy arrays; nothing but tags is read until a frame is asked for."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from itertools import product
from math import prod
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from stackalign.core.stack import FrameError
from stackalign.io import calibration
from stackalign.io.errors import StackReadError
from stackalign.io.source import Source
from stackalign.io.tiff_layout import SHORT, layout_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ENDINGS = (".tif", ".tiff", ".btf", ".tf8", ".ome", ".lsm", ".stk")
# what tifffile says about a damaged file, our own messages say with the frame's number; without a handler it would go
# to stderr in a script that sets up no logging
logging.getLogger("tifffile").addHandler(logging.NullHandler())
_COMPRESSIONS = {1: "none", 5: "lzw", 7: "jpeg", 8: "deflate", 32946: "deflate", 32773: "packbits", 50000: "zstd"}


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
                try:
                    there = (self.path.stat().st_size - (self._offset or 0)) // (count * self.dtype.itemsize)
                    pages = min(there, prod(self.shape[: self._lead]))
                    self._map = np.memmap(self.path, self.dtype, "r", self._offset or 0, (pages, count))
                except (OSError, ValueError) as error:
                    raise FrameError(f"{self.path}: page {number} cannot be read ({error})") from error
        if number >= len(self._map):
            raise FrameError(f"{self.path}: page {number} cannot be read ({SHORT})")
        return np.asarray(self._map[number]).reshape(self.shape[self._lead :])

    def keep(self, tif: tifffile.TiffFile, pages: Any) -> None:
        """Read from this open file, whose list of pages is known."""
        tif.filehandle.set_lock(True)
        self._open = tif, pages

    def _pages(self) -> Any:
        if self._open is None:
            tif = tifffile.TiffFile(self.path)
            self.keep(tif, layout_of(tif).pages)
        return self._open[1]  # type: ignore[index]


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
    except OSError as error:
        raise StackReadError(error.errno, f"{path} cannot be opened: {error.strerror}") from error
    except Exception as error:  # a damaged header raises errors of many kinds
        raise StackReadError(f"{path} is not a TIFF file, whatever its name says ({error})") from error
    with ExitStack() as handles:
        handles.enter_context(tif)
        try:
            layout = layout_of(tif)
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
            compression=_compression(int(page.compression)),
        )


def stem(path: Path) -> str:
    """Return a file's name without its endings (``.ome.tif`` counts as one)."""
    return path.name.removesuffix(path.suffix).removesuffix(".ome")


def _compression(code: int) -> str:
    """Return the name of a compression, or its number if nobody knows it."""
    if code in _COMPRESSIONS:
        return _COMPRESSIONS[code]
    try:
        return str(tifffile.COMPRESSION(code).name).lower()
    except ValueError:
        return f"unknown ({code})"


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
