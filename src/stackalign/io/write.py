"""Write stacks to disk: streamed frame by frame, beside the target and renamed when whole, losing nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from stackalign.core.stack import FrameError, ImageStack
from stackalign.core.work import Progress, Work, drain
from stackalign.io.atomic import replacing
from stackalign.io.errors import StackWriteError
from stackalign.io.stream import stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from os import PathLike

    from numpy.typing import ArrayLike, NDArray

logger = logging.getLogger(__name__)
Compression: TypeAlias = Literal["none", "deflate", "zstd"]
_TIFF_ENDINGS = (".tif", ".tiff", ".btf", ".tf8")


def write_stack(
    path: str | PathLike[str],
    stack: ImageStack | ArrayLike | Sequence[ImageStack],
    *,
    compression: Compression = "none",
    bigtiff: bool | None = None,
    ngff: Literal["0.4", "0.5"] = "0.4",
    on_progress: Callable[[Progress], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Path:
    """Write a stack, or the stacks of several channels, to one file; see `write_stack_work` for the parameters.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    StackWriteError
        If the target cannot be written, the disk is full, or the target is what the stack is read from.
    WorkCancelled
        If ``should_stop`` said so: the old file stands.
    """
    work = write_stack_work(path, stack, compression=compression, bigtiff=bigtiff, ngff=ngff)
    return drain(work, on_progress, should_stop).unwrap()


def write_stack_work(
    path: str | PathLike[str],
    stack: ImageStack | ArrayLike | Sequence[ImageStack],
    *,
    compression: Compression = "none",
    bigtiff: bool | None = None,
    ngff: Literal["0.4", "0.5"] = "0.4",
) -> Work[Path]:
    """Write a stack frame by frame, as work that reports its progress and can be cancelled.

    Parameters
    ----------
    path : path
        ``.tif`` becomes an ImageJ hyperstack (uint8, uint16, float32 under 3.9 GB) or else an OME-TIFF; ``.ome.tif``
        an OME-TIFF; ``.zarr`` an OME-Zarr folder; ``.npy`` a bare array. Pixel size, interval, axes, channel names and
        dtype are kept, in ``.npy`` the dtype alone.
    stack : ImageStack, array (t, y, x) or (t, z, y, x), or sequence of ImageStack
        Several stacks of one shape and dtype become the channels of one file.
    compression : {"none", "deflate", "zstd"}
        Lossless. "none" can be read through a memory map, "deflate" by every program, "zstd" is the fastest.
    bigtiff : bool, optional
        Force 64-bit offsets; None: where the pixels take over 3.9 GB.
    ngff : {"0.4", "0.5"}
        Version of the OME-Zarr metadata (zarr format 2 or 3).

    Yields
    ------
    Progress
        After every frame.

    Returns
    -------
    Path
        The file, whole: it is written as ``<path>.part`` and renamed at the end.

    Raises
    ------
    StackWriteError
        If the target cannot be written, the disk is full, or the target is what the stack is read from.
    """
    target = Path(path).expanduser()
    stacks = _channels(stack)
    _refuse_source(target, stacks)
    ending = target.suffix.lower()
    size = sum(int(np.prod(s.shape, dtype=np.int64)) * s.dtype.itemsize for s in stacks)
    if compression not in ("none", "deflate", "zstd"):
        raise ValueError(f"compression must be 'none', 'deflate' or 'zstd', not {compression!r}")
    if ngff not in ("0.4", "0.5"):
        raise ValueError(f"ngff must be '0.4' or '0.5', not {ngff!r}")
    with replacing(target, needed=size if compression == "none" else 0) as part:
        if ending in _TIFF_ENDINGS:
            yield from _write_tiff(target, part, stacks, size, compression, bigtiff)
        elif ending == ".zarr":
            from stackalign.io.zarr_write import write_zarr

            yield from write_zarr(
                part, stacks, _frames(stacks), compression=compression, version=ngff, name=target.stem
            )
        elif ending == ".npy" and len(stacks) == 1:
            yield from _write_npy(part, stacks[0], _frames(stacks))
        else:
            what = "one channel fits in a .npy file" if ending == ".npy" else f"the ending {ending!r} is not known"
            raise StackWriteError(f"cannot write {target}: {what}; choose .tif, .ome.tif, .zarr or .npy")
    return target


def _channels(stack: Any) -> list[ImageStack]:
    """Return the stacks of all channels, of one shape and dtype."""
    if isinstance(stack, list | tuple) and stack and all(isinstance(s, ImageStack) for s in stack):
        stacks = list(stack)
    else:
        stacks = [ImageStack.of(stack)]
    first = stacks[0]
    for k, other in enumerate(stacks):
        if other.shape != first.shape or other.dtype != first.dtype:
            raise ValueError(
                f"channels of one file must be alike: channel {k} is {other.shape} {other.dtype},"
                f" channel 0 is {first.shape} {first.dtype}"
            )
    return stacks


def _refuse_source(target: Path, stacks: Sequence[ImageStack]) -> None:
    """Raise if a lazily read stack would lose its own pixels."""
    there = target.resolve()
    for stack in stacks:
        if isinstance(stack.frames, np.ndarray) and not isinstance(stack.frames, np.memmap):
            continue
        for name in stack.metadata.get("lazy_files", ()):
            source = Path(name).resolve()
            if there == source or there in source.parents:
                raise StackWriteError(
                    f"cannot write {target}: the stack is being read from this very file; choose another name"
                )


def _frames(stacks: Sequence[ImageStack]) -> Iterator[list[NDArray[Any]]]:
    """Yield the frames of all channels, moment by moment; what cannot be read is written as missing."""
    for t in range(len(stacks[0])):
        yield [_frame(stack, t) for stack in stacks]


def _frame(stack: ImageStack, t: int) -> NDArray[Any]:
    try:
        return stack[t]
    except FrameError as error:
        logger.warning("frame %d is written empty: %s", t, error)
        return np.full(stack.frame_shape, np.nan if stack.dtype.kind == "f" else 0, stack.dtype)


def _write_tiff(
    target: Path, part: Path, stacks: list[ImageStack], size: int, compression: str, bigtiff: bool | None
) -> Work[None]:
    from stackalign.io.tiff_write import BIGTIFF_FROM, tiff_format, write_tiff

    kind = tiff_format(target, stacks[0], size, compression, bigtiff)
    big = bigtiff if bigtiff is not None else size > BIGTIFF_FROM

    def pages() -> Iterator[list[NDArray[Any]]]:
        for frames in _frames(stacks):
            volumes = [f if f.ndim == 3 else f[None] for f in frames]
            yield [np.ascontiguousarray(v[z]) for z in range(len(volumes[0])) for v in volumes]

    def consume(stream_of_pages: Iterator[NDArray[Any]]) -> None:
        write_tiff(part, stream_of_pages, stacks, kind=kind, bigtiff=big, compression=compression)

    yield from stream(consume, pages(), len(stacks[0]))


def _write_npy(part: Path, stack: ImageStack, frames: Iterator[list[NDArray[Any]]]) -> Work[None]:
    with part.open("wb") as file:
        header = {"descr": stack.dtype.str, "fortran_order": False, "shape": stack.shape}
        np.lib.format.write_array_header_2_0(file, header)
        for done, [frame] in enumerate(frames, start=1):
            file.write(np.ascontiguousarray(frame).data)
            yield Progress(done, len(stack), "Writing")
