"""Write stacks as OME-Zarr (NGFF 0.4 on zarr format 2, 0.5 on format 3), one plane a chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackalign.core.work import Progress, Work

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from stackalign.core.stack import ImageStack

_UNITS = {
    "m": "meter",
    "cm": "centimeter",
    "mm": "millimeter",
    "µm": "micrometer",
    "nm": "nanometer",
    "pm": "picometer",
    "Å": "angstrom",
    "inch": "inch",
    "h": "hour",
    "min": "minute",
    "s": "second",
    "ms": "millisecond",
    "µs": "microsecond",
    "ns": "nanosecond",
}


def write_zarr(
    path: Path,
    stacks: Sequence[ImageStack],
    frames: Iterable[list[NDArray[Any]]],
    *,
    compression: str,
    version: str,
    name: str,
) -> Work[None]:
    """Write (t, c, [z], y, x) to the folder ``path``; ``frames`` yields the channels' frames, moment by moment."""
    import zarr

    first = stacks[0]
    v3 = version == "0.5"
    axes = "tc" + "zyx"[-first.ndim :]
    shape = (len(first), len(stacks), *first.frame_shape)
    group = zarr.open_group(str(path), mode="w", zarr_format=3 if v3 else 2)
    array = group.create_array(
        "0",
        shape=shape,
        chunks=(1,) * (len(shape) - 2) + shape[-2:],
        dtype=first.dtype,
        compressors=_compressors(compression, v3),
        chunk_key_encoding={"name": "default" if v3 else "v2", "separator": "/"},
        **({"dimension_names": list(axes)} if v3 else {}),
    )
    described = _attributes(stacks, axes, version, name)
    group.attrs.update({"ome": described} if v3 else described)
    for done, channels in enumerate(frames, start=1):
        for c, frame in enumerate(channels):
            array[done - 1, c] = frame
        yield Progress(done, len(first), "Writing")


def _compressors(compression: str, v3: bool) -> Any:
    if compression == "none":
        return None
    if v3:
        from zarr.codecs import GzipCodec, ZstdCodec

        return [ZstdCodec(level=3) if compression == "zstd" else GzipCodec(level=5)]
    from numcodecs import GZip, Zstd  # type: ignore[import-untyped]

    return [Zstd(level=3) if compression == "zstd" else GZip(level=5)]


def _attributes(stacks: Sequence[ImageStack], axes: str, version: str, name: str) -> dict[str, Any]:
    first = stacks[0]
    described: list[dict[str, str]] = []
    scale: list[float] = []
    sizes = dict(zip(axes[2:], first.pixel_size or (1.0,) * first.ndim, strict=True))
    for a in axes:
        kind = {"t": "time", "c": "channel"}.get(a, "space")
        entry = {"name": a, "type": kind}
        if a == "t" and first.interval is not None:
            entry["unit"] = _UNITS.get(first.interval_unit, first.interval_unit)
        elif kind == "space" and first.pixel_size is not None:
            entry["unit"] = _UNITS.get(first.unit, first.unit)
        described.append(entry)
        scale.append(first.interval or 1.0 if a == "t" else float(sizes.get(a, 1.0)))
    transform = [{"type": "scale", "scale": scale}]
    image = {"name": name, "axes": described, "datasets": [{"path": "0", "coordinateTransformations": transform}]}
    names = [str(s.metadata.get("channel", "")) for s in stacks]
    attributes: dict[str, Any] = {"multiscales": [image]}
    if len(first) == 1:
        attributes["stackalign_axes"] = axes  # else one volume could be taken for a series
    if version == "0.5":
        attributes["version"] = version
    else:
        image["version"] = version
    if any(names):
        attributes["omero"] = {"channels": [{"label": n, "active": True} for n in names]}
    return attributes
