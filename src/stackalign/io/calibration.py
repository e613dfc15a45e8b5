"""Pixel size, interval and channel names as ImageJ, OME, NGFF and bare TIFF tags state them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tifffile import TiffFile

_LENGTH = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "µm": 1e-6, "nm": 1e-9, "pm": 1e-12, "Å": 1e-10, "inch": 0.0254}
_TIME = {"h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
_SPELLINGS = {
    **dict.fromkeys(("um", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre"), "µm"),
    **dict.fromkeys(("nanometer", "nanometers", "nanometre"), "nm"),
    **dict.fromkeys(("millimeter", "millimeters", "millimetre"), "mm"),
    **dict.fromkeys(("centimeter", "centimeters", "centimetre"), "cm"),
    **dict.fromkeys(("meter", "meters", "metre"), "m"),
    **dict.fromkeys(("picometer", "picometre"), "pm"),
    **dict.fromkeys(("angstrom", "ångström"), "Å"),
    **dict.fromkeys(("inches", "in"), "inch"),
    **dict.fromkeys(("sec", "second", "seconds"), "s"),
    **dict.fromkeys(("msec", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("us", "μs", "usec", "microsecond", "microseconds"), "µs"),
    **dict.fromkeys(("nanosecond", "nanoseconds"), "ns"),
    **dict.fromkeys(("minute", "minutes"), "min"),
    **dict.fromkeys(("hr", "hour", "hours"), "h"),
}
_NO_UNIT = ("", "pixel", "pixels", "px", "reference frame", "null", "none")


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a file says about the size of its pixels and the time between its frames.

    Attributes
    ----------
    pixel_size : mapping of str to float
        Per axis letter (z, y, x), in ``unit``; empty if the file does not say.
    interval : float or None
        From frame to frame, in ``interval_unit``.
    channel_names : tuple of str
        Empty if the file names none.
    notes : tuple of str
        What had to be assumed.
    """

    pixel_size: Mapping[str, float] = field(default_factory=dict)
    unit: str = "µm"
    interval: float | None = None
    interval_unit: str = "s"
    channel_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def sizes(self, axes: str) -> tuple[float, ...] | None:
        """Return the pixel size along the spatial axes of ``axes``, or None; an unstated z counts as one unit."""
        if "y" not in self.pixel_size or "x" not in self.pixel_size:
            return None
        return tuple(self.pixel_size.get(a, 1.0) for a in axes if a in "zyx")


def normal_unit(unit: object) -> str:
    """Return a unit's usual symbol ("micron" and "um" are "µm"); "" for pixels or none; others as they are."""
    text = str(unit or "").strip()
    text = re.sub(r"\\u([0-9A-Fa-f]{4})", lambda m: chr(int(m[1], 16)), text).replace("μ", "µ")
    if text.lower() in _NO_UNIT:
        return ""
    return _SPELLINGS.get(text.lower(), text)


def from_imagej(tif: TiffFile) -> Calibration:
    """Read ImageJ's description: unit, spacing, finterval or fps, and the resolution tags (pixels per unit)."""
    meta = tif.imagej_metadata or {}
    unit = normal_unit(meta.get("unit"))
    sizes: dict[str, float] = {}
    if unit:
        x, y = _resolution(tif, "XResolution"), _resolution(tif, "YResolution")
        if x and y:
            own = normal_unit(meta.get("yunit")) or unit
            sizes = {"y": 1 / y * _ratio(own, unit), "x": 1 / x}
            spacing = _positive(meta.get("spacing"))
            depth_unit = normal_unit(meta.get("zunit")) or unit
            sizes["z"] = (spacing or 1.0) * _ratio(depth_unit, unit)  # ImageJ leaves a spacing of 1 out
    interval_unit = normal_unit(meta.get("tunit")) or "s"
    interval = _positive(meta.get("finterval"))
    if interval is None and (rate := _positive(meta.get("fps"))) is not None and "finterval" not in meta:
        interval, interval_unit = 1 / rate, "s"
    return Calibration(sizes, unit or "µm", interval, interval_unit, _names_of_labels(meta))


def from_shaped(meta: Mapping[str, Any]) -> Calibration:
    """Read what stackalign adds to tifffile's JSON description, for pixel types that neither ImageJ nor OME knows."""
    sizes = meta.get("pixel_size")
    return Calibration(
        {a: float(s) for a, s in sizes.items()} if isinstance(sizes, dict) else {},
        str(meta.get("unit", "µm")),
        _positive(meta.get("interval")),
        str(meta.get("interval_unit", "s")),
        tuple(map(str, meta.get("channel_names", ()))),
    )


def from_ome(image: Mapping[str, Any]) -> Calibration:
    """Read an OME ``Image`` element as a dict: PhysicalSize, TimeIncrement or the planes' DeltaT, channel names."""
    pixels = image.get("Pixels", {})
    unit = normal_unit(pixels.get("PhysicalSizeXUnit", "µm")) or "µm"
    sizes: dict[str, float] = {}
    for letter in "xyz":
        size = _positive(pixels.get(f"PhysicalSize{letter.upper()}"))
        if size is not None:
            own = normal_unit(pixels.get(f"PhysicalSize{letter.upper()}Unit", "µm")) or unit
            sizes[letter] = size * _ratio(own, unit)
    interval_unit = normal_unit(pixels.get("TimeIncrementUnit", "s")) or "s"
    interval = _positive(pixels.get("TimeIncrement"))
    notes: tuple[str, ...] = ()
    if interval is None and (found := _mean_step(pixels)) is not None:
        interval, interval_unit = found
        notes = ("the interval is the mean step of the planes' time stamps",)
    names = [str(c.get("Name", "")) for c in _listed(pixels.get("Channel"))]
    if sizes and "z" not in sizes and int(pixels.get("SizeZ", 1)) > 1:
        notes += (f"the file states no step in z: 1 {unit} is assumed",)
    return Calibration(sizes, unit, interval, interval_unit, tuple(names) if any(names) else (), notes)


def from_tags(tif: TiffFile) -> Calibration:
    """Read bare resolution tags where they can only mean a microscope (pixels under 10 µm), never a printer's dpi."""
    tag = tif.pages.first.tags.get("ResolutionUnit")
    metres = {2: 0.0254, 3: 0.01}.get(int(tag.value) if tag is not None else 1)
    x, y = _resolution(tif, "XResolution"), _resolution(tif, "YResolution")
    if metres is None or not x or not y or metres / x > 1e-5 or metres / y > 1e-5:
        return Calibration()
    return Calibration({"y": metres / y * 1e6, "x": metres / x * 1e6}, "µm")


def convert(value: float, unit: str, to: str) -> float:
    """Return a length or a time in another unit; ValueError if the units are not of one kind."""
    for table in (_LENGTH, _TIME):
        if unit in table and to in table:
            return value if unit == to else value * table[unit] / table[to]
    if unit == to:
        return value
    raise ValueError(f"cannot convert {unit!r} to {to!r}")


def _ratio(unit: str, to: str) -> float:
    try:
        return convert(1.0, unit, to)
    except ValueError:
        return 1.0


def _resolution(tif: TiffFile, name: str) -> float | None:
    tag = tif.pages.first.tags.get(name)
    if tag is None:
        return None
    numerator, denominator = tag.value
    return numerator / denominator if numerator and denominator else None


def _positive(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if 0 < number < float("inf") else None


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _names_of_labels(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the channels' names where the slice labels of ImageJ repeat one name a channel, else ()."""
    labels, channels = _listed(meta.get("Labels")), int(meta.get("channels", 1))
    names = labels[:channels]
    if channels < 2 or len(labels) % channels or labels != names * (len(labels) // channels):
        return ()
    return tuple(map(str, names))


def _mean_step(pixels: Mapping[str, Any]) -> tuple[float, str] | None:
    """Return the mean step of DeltaT over the planes of the first channel and slice, with its unit."""
    planes = [p for p in _listed(pixels.get("Plane")) if "DeltaT" in p]
    planes = [p for p in planes if not int(p.get("TheC", 0)) and not int(p.get("TheZ", 0))]
    if len(planes) < 2:
        return None
    planes.sort(key=lambda p: int(p.get("TheT", 0)))
    first, last = planes[0], planes[-1]
    steps = int(last.get("TheT", 0)) - int(first.get("TheT", 0))
    if steps <= 0:
        return None
    step = (float(last["DeltaT"]) - float(first["DeltaT"])) / steps
    return (step, normal_unit(first.get("DeltaTUnit", "s")) or "s") if step > 0 else None
