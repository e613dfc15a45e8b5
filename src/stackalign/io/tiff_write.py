"""Write stacks as TIFF, page by page: ImageJ hyperstack, OME-TIFF or BigTIFF, with pixel size, interval and axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import tifffile

from stackalign.io.calibration import convert

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from stackalign.core.stack import ImageStack

TiffFormat: TypeAlias = Literal["imagej", "ome", "plain"]
BIGTIFF_FROM = 3_900_000_000
_IMAGEJ_DTYPES = ("uint8", "uint16", "float32")
_OME_DTYPES = ("bool", "int8", "int16", "int32", "uint8", "uint16", "uint32", "float32", "float64")
_SECONDS = ("h", "min", "s", "ms", "µs", "ns")


def tiff_format(path: Path, stack: ImageStack, size: int, compression: str, bigtiff: bool | None) -> TiffFormat:
    """Return the flavour for a file: ImageJ where it can hold the stack, else OME, else TIFF with axes in JSON."""
    big = bigtiff if bigtiff is not None else size > BIGTIFF_FROM
    dtype = stack.dtype.name
    if path.name.lower().endswith((".ome.tif", ".ome.tiff", ".ome.btf")) and dtype in _OME_DTYPES:
        return "ome"
    if not big and compression != "zstd" and dtype in _IMAGEJ_DTYPES:
        return "imagej"
    return "ome" if dtype in _OME_DTYPES else "plain"


def write_tiff(
    path: Path,
    pages: Iterator[NDArray[Any]],
    stacks: Sequence[ImageStack],
    *,
    kind: TiffFormat,
    bigtiff: bool,
    compression: str,
) -> None:
    """Write pages that come in the order t, z, channel to ``path``; each is (y, x) in the stacks' dtype."""
    first = stacks[0]
    names = _channel_names(stacks)
    depth = first.frame_shape[:-2]
    shape = (len(first), *depth, len(stacks), *first.frame_shape[-2:])
    axes = "TZCYX" if depth else "TCYX"
    metadata, resolution = {"imagej": _imagej, "ome": _ome, "plain": _plain}[kind](first, names, axes)
    with tifffile.TiffWriter(path, bigtiff=bigtiff, imagej=kind == "imagej", ome=kind == "ome") as tif:
        tif.write(
            pages,
            shape=shape,
            dtype=first.dtype,
            photometric="minisblack",
            compression=None if compression == "none" else {"deflate": "adobe_deflate"}.get(compression, compression),
            predictor=compression != "none" and first.dtype.kind in "ui" and first.dtype.itemsize <= 4,
            metadata={"axes": axes, **metadata},
            **resolution,
        )


def _channel_names(stacks: Sequence[ImageStack]) -> list[str]:
    names = [str(s.metadata.get("channel", "")) for s in stacks]
    return names if any(names) else []


def _imagej(stack: ImageStack, names: list[str], axes: str) -> tuple[dict[str, Any], dict[str, Any]]:
    metadata: dict[str, Any] = {}
    resolution: dict[str, Any] = {}
    if stack.pixel_size is not None:
        y, x = stack.pixel_size[-2:]
        resolution = {"resolution": (1 / x, 1 / y), "resolutionunit": "NONE"}
        metadata["unit"] = stack.unit.replace("µ", "\\u00B5").replace("Å", "\\u00C5")
        if stack.ndim == 3:
            metadata["spacing"] = stack.pixel_size[0]
    if stack.interval is not None:
        metadata |= {"finterval": stack.interval, "tunit": stack.interval_unit.replace("µ", "u")}
    if len(stack) == 1:
        metadata["stackalign_axes"] = axes  # ImageJ has no word for one moment of a time series
    if names:
        metadata["Labels"] = names * (len(stack) * (stack.frame_shape[0] if stack.ndim == 3 else 1))
        metadata["mode"] = "composite" if 1 < len(names) <= 7 else "grayscale"
    return metadata, resolution


def _ome(stack: ImageStack, names: list[str], axes: str) -> tuple[dict[str, Any], dict[str, Any]]:
    metadata: dict[str, Any] = {}
    resolution: dict[str, Any] = {}
    if stack.pixel_size is not None:
        for letter, size in zip(reversed("zyx"[-stack.ndim :]), reversed(stack.pixel_size), strict=True):
            metadata |= {f"PhysicalSize{letter.upper()}": size, f"PhysicalSize{letter.upper()}Unit": stack.unit}
        try:
            y, x = (convert(s, stack.unit, "cm") for s in stack.pixel_size[-2:])
            resolution = {"resolution": (1 / x, 1 / y), "resolutionunit": "CENTIMETER"}
        except ValueError:
            resolution = {}
    if stack.interval is not None:
        metadata |= {"TimeIncrement": stack.interval, "TimeIncrementUnit": stack.interval_unit}
    if names:
        metadata["Channel"] = {"Name": names}
    if len(stack) == 1:
        metadata["Description"] = f"stackalign_axes={axes}"
    return metadata, resolution


def _plain(stack: ImageStack, names: list[str], axes: str) -> tuple[dict[str, Any], dict[str, Any]]:
    metadata: dict[str, Any] = {}
    if stack.pixel_size is not None:
        sizes = dict(zip("zyx"[-stack.ndim :], map(float, stack.pixel_size), strict=True))
        metadata |= {"pixel_size": sizes, "unit": stack.unit}
    if stack.interval is not None:
        metadata |= {"interval": float(stack.interval), "interval_unit": stack.interval_unit}
    if names:
        metadata["channel_names"] = names
    if len(stack) == 1:
        metadata["stackalign_axes"] = axes
    return metadata, {}


def page_bytes(stack: ImageStack) -> int:
    """Return the uncompressed size of a stack."""
    return int(np.prod(stack.shape, dtype=np.int64)) * stack.dtype.itemsize
