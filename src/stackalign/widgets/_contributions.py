"""What napari finds in the manifest besides the panels: reader, writers, samples, the command in the menu."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.work import drain
from stackalign.export import lazy_array
from stackalign.io.errors import AmbiguousAxesError, StackReadError
from stackalign.io.read import open_source, read_channels, read_stack
from stackalign.io.write import write_stack_work
from stackalign.widgets._layers import KEY

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from napari.types import FullLayerData, LayerData

    from stackalign.core.stack import ImageStack
    from stackalign.io.source import Source

_ENDINGS = (".tif", ".tiff", ".btf", ".tf8", ".npy", ".zarr")
_PANEL = "Align stack"


def get_reader(path: str | list[str]) -> Callable[[Any], list[LayerData]] | None:
    """Return the reader for a file, a folder or several files; None for what we do not read.

    What is wrong with a file is said when it is read, not here: napari asks every plugin.
    """
    first = Path(path[0] if isinstance(path, list) else path)
    if first.is_dir() or first.name.lower().endswith(_ENDINGS):
        return read
    return None


def read(path: str | list[str]) -> list[LayerData]:
    """Read a file or folder as lazy image layers, one a channel; colours as one RGB layer.

    Axes that the file leaves open stay without names: the panel asks.

    Raises
    ------
    StackReadError
        If it holds no stack that can be read.
    """
    if isinstance(path, list) and len(path) > 1:
        return [layer for one in path for layer in read(one)]
    place = str(path[0] if isinstance(path, list) else path)
    source = open_source(place)
    try:
        letters, _ = source.resolved(None)
    except AmbiguousAxesError:
        return [_open_axes(source, place)]
    if "s" in letters:
        return [_colours(place, letters)]
    stacks = read_channels(place)
    channels = [None] if len(stacks) == 1 else list(range(len(stacks)))
    return [
        layer_data(stack, path=place, file_axes=stack.metadata["file_axes"], channel=channel)
        for stack, channel in zip(stacks, channels, strict=True)
    ]


def layer_data(stack: ImageStack, **noted: Any) -> LayerData:
    """Return a stack as napari takes it: data, keywords, type."""
    data = lazy_array(stack)
    note = {"axes": stack.axes, "data": data, **noted}
    if stack.missing:
        note["missing"] = dict(stack.missing)
    return (
        data,
        {**_calibration(stack, stack.axes), "name": stack.name, "metadata": {KEY: note}, **_limits(stack)},
        "image",
    )


def _colours(place: str, letters: str) -> LayerData:
    import dask.array as da

    stacks = read_channels(place)[:3]
    data = da.stack([lazy_array(stack) for stack in stacks], axis=-1)
    axes = stacks[0].axes
    note = {"axes": axes, "data": data, "path": place, "file_axes": letters}
    keywords = {**_calibration(stacks[0], axes), "name": Path(place).stem, "rgb": True, "metadata": {KEY: note}}
    return data, keywords, "image"


def _open_axes(source: Source, place: str) -> LayerData:
    """Return the pixels as they lie in the file; the panel asks what their axes are."""
    import dask.array as da

    pixels = source.pixels
    shape = tuple(int(n) for n in pixels.shape)
    chunks = (1,) * (len(shape) - 2) + shape[-2:]
    data = da.from_array(pixels, chunks=chunks, name=False, asarray=False, lock=False, inline_array=True)
    return data, {"name": source.name, "metadata": {KEY: {"path": place, "data": data}}}, "image"


def _calibration(stack: ImageStack, axes: str) -> dict[str, Any]:
    size = dict(zip("zyx"[-stack.ndim :], stack.pixel_size or (1.0,) * stack.ndim, strict=True))
    unit = dict.fromkeys(size, stack.unit if stack.pixel_size is not None else "pixel")
    size["t"], unit["t"] = stack.interval or 1.0, stack.interval_unit if stack.interval is not None else "pixel"
    return {
        "scale": [size[a] for a in axes],
        "units": [_pint(unit[a]) for a in axes],
        "axis_labels": list(axes),
    }


def _pint(unit: str) -> str:
    """Return a unit as napari's library of units writes it; what it does not know becomes a pixel."""
    import pint

    word = {"Å": "angstrom", "min": "minute", "h": "hour"}.get(unit, unit)
    try:
        pint.get_application_registry().Unit(word)
    except Exception:  # pint has errors of many kinds for words that it does not know
        return "pixel"
    return word


def _limits(stack: ImageStack) -> dict[str, Any]:
    """Return contrast limits from a few frames: napari would look at the first one alone."""
    shown = [
        np.asarray(stack[t], float) for t in sorted({0, len(stack) // 2, len(stack) - 1}) if t not in stack.missing
    ]
    finite = np.concatenate([frame[np.isfinite(frame)].ravel()[::7] for frame in shown] or [np.zeros(0)])
    if not finite.size:
        return {}
    low, high = np.percentile(finite, (0.5, 99.8))
    return {"contrast_limits": [float(low), float(high)]} if high > low else {}


def write_image(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write one image layer; see `write_images`."""
    return write_images(path, [(data, attributes, "image")])


def write_images(path: str, layers: list[FullLayerData]) -> list[str]:
    """Write image layers of one shape as the channels of one file, frame by frame, with their calibration.

    Raises
    ------
    StackWriteError
        If the file cannot be written.
    """
    stacks = [_stack_of(data, attributes) for data, attributes, _ in layers]
    written: Path = drain(write_stack_work(path, stacks if len(stacks) > 1 else stacks[0])).unwrap()
    return [str(written)]


def _stack_of(data: Any, attributes: dict[str, Any]) -> ImageStack:
    if attributes.get("rgb") or isinstance(data, list | tuple) or getattr(data, "ndim", 0) not in (2, 3, 4):
        raise StackReadError(
            f"the layer {attributes.get('name', '')!r} is no stack of grey frames (t, y, x) or (t, z, y, x):"
            " save colours and pyramids with another writer"
        )
    labels = "".join(str(label).lower()[:1] for label in attributes.get("axis_labels", ()))
    noted = (attributes.get("metadata") or {}).get(KEY, {})
    axes = noted.get("axes") or labels
    if sorted(axes) not in (sorted("yx"), sorted("tyx"), sorted("tzyx"), sorted("zyx")) or len(axes) != data.ndim:
        axes = {2: "yx", 3: "tyx", 4: "tzyx"}[data.ndim]
    stack = read_stack(data, axes=axes)
    scale = dict(zip(axes, np.asarray(attributes.get("scale", ()), float), strict=False))
    units = dict(zip(axes, (f"{u:~}" for u in attributes.get("units", ())), strict=False))
    known = [a for a in "zyx" if a in axes and units.get(a, "pixel") not in ("pixel", "pix", "px", "")]
    timed = "t" in axes and units.get("t", "pixel") not in ("pixel", "pix", "px", "")
    return replace(
        stack,
        name=attributes.get("name", ""),
        pixel_size=tuple(scale[a] for a in stack.axes[1:]) if len(known) == stack.ndim else None,
        unit=units["x"] if known else "µm",
        interval=float(scale["t"]) if timed else None,
        interval_unit=units["t"] if timed else "s",
    )


def sample(name: str) -> list[LayerData]:
    """Return a sample movie as layers."""
    from stackalign.samples import sample_path

    return read(str(sample_path(name)))


# napari calls a sample without arguments
camera_shake = partial(sample, "camera_shake")
drifting_beads = partial(sample, "drifting_beads")
drifting_volume = partial(sample, "drifting_volume")
rotating_cells = partial(sample, "rotating_cells")


def open_align_stack(viewer: napari.viewer.Viewer) -> None:
    """Open the panel, from *Layers > Register*."""
    viewer.window.add_plugin_dock_widget("stackalign", _PANEL)


def open_register_layers(viewer: napari.viewer.Viewer) -> None:
    """Open the panel for two layers, from *Layers > Register*."""
    viewer.window.add_plugin_dock_widget("stackalign", "Register two layers")
