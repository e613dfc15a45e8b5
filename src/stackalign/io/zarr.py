"""Open and write OME-Zarr images (NGFF 0.4 and 0.5) through the zarr library, lazily."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.io.axes import LETTERS, UNKNOWN
from stackalign.io.calibration import Calibration, normal_unit
from stackalign.io.errors import StackReadError
from stackalign.io.source import Source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MARKS = ("zarr.json", ".zgroup", ".zattrs", ".zarray")


def is_zarr(path: Path) -> bool:
    """Tell whether a folder is a zarr array or group."""
    return any((path / mark).is_file() for mark in _MARKS)


def open_zarr(path: Path) -> Source:
    """Open the full resolution of an OME-Zarr image, or a bare zarr array.

    Raises
    ------
    StackReadError
        If the folder holds no image, or its metadata make no sense.
    """
    import zarr

    try:
        node = zarr.open(str(path), mode="r")
    except Exception as error:  # zarr raises its own kinds
        raise StackReadError(f"{path} is no zarr folder that can be read ({error})") from error
    if isinstance(node, zarr.Array):
        labels = UNKNOWN * (node.ndim - 2) + "yx"
        return _source(path, node, labels, Calibration(), "zarr")
    attributes = dict(node.attrs)
    ome = attributes.get("ome", attributes)
    scales = ome.get("multiscales") or []
    if not scales:
        raise StackReadError(f"{path} holds no OME-Zarr image: its attributes list no multiscales")
    try:
        image = scales[0]
        array = node[image["datasets"][0]["path"]]
        letters, scale = _axes(image, array.ndim, ome)
        version = str(ome.get("version") or image.get("version") or "0.4")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise StackReadError(f"{path}: its OME-Zarr metadata make no sense ({error!r})") from error
    notes = (f"the folder holds {len(scales)} images: the first is read",) if len(scales) > 1 else ()
    return _source(path, array, letters, scale, f"OME-Zarr {version}", notes, settled=bool(ome.get("stackalign_axes")))


def _source(
    path: Path,
    array: Any,
    labels: str,
    scale: Calibration,
    kind: str,
    notes: tuple[str, ...] = (),
    *,
    settled: bool = False,
) -> Source:
    name = path.name.removesuffix(".zarr").removesuffix(".ome")
    if array.ndim < 2 or 0 in array.shape or np.dtype(array.dtype).kind not in "uifb":
        raise StackReadError(f"{path} is no image: {tuple(array.shape)} {array.dtype}")
    pixels = ZarrPixels(array, tuple(k for k, n in enumerate(array.shape) if n > 1 or labels[k] in "yx"))
    kept = "".join(labels[k] for k in pixels.kept)
    return Source(
        pixels,
        kept,
        name=name,
        kind=kind,
        path=path,
        calibration=scale,
        notes=notes,
        lazy_files=(path,),
        settled=settled,
    )


class ZarrPixels:
    """A zarr array without its axes of length 1."""

    def __init__(self, array: Any, kept: tuple[int, ...]) -> None:
        self.array, self.kept = array, kept
        self.shape = tuple(int(array.shape[k]) for k in kept)
        self.dtype = np.dtype(array.dtype)

    def __getitem__(self, index: tuple[Any, ...]) -> Any:
        full: list[Any] = [0] * self.array.ndim
        for k, part in zip(self.kept, index, strict=True):
            full[k] = part
        return self.array[tuple(full)]


def _axes(image: Mapping[str, Any], ndim: int, ome: Mapping[str, Any]) -> tuple[str, Calibration]:
    """Return the letters and the calibration of a multiscales entry."""
    described = [a if isinstance(a, dict) else {"name": a} for a in image.get("axes") or "tczyx"[-ndim:]]
    names = [str(a["name"]).lower() for a in described]
    if len(names) != ndim:
        raise ValueError(f"{len(names)} axes for an array of {ndim}")
    letters = "".join(n if n in LETTERS else UNKNOWN for n in names)
    factors = np.ones(ndim)
    for step in (
        *image["datasets"][0].get("coordinateTransformations", ()),
        *image.get("coordinateTransformations", ()),
    ):
        if step.get("type") == "scale":
            factors = factors * np.asarray(step["scale"], float)
    units = {n: normal_unit(a.get("unit")) for n, a in zip(names, described, strict=True)}
    factor = dict(zip(names, map(float, factors), strict=True))
    sizes = {a: factor[a] for a in "zyx" if a in factor} if units.get("x") else {}
    channels = (ome.get("omero") or {}).get("channels") or []
    labels = tuple(str(c.get("label", "")) for c in channels)
    return letters, Calibration(
        sizes,
        units.get("x") or "µm",
        factor["t"] if units.get("t") else None,
        units.get("t") or "s",
        labels if any(labels) else (),
    )
