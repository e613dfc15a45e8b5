"""Layers as images in one world: what is on show of them, where it lies, and the affine that moves a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.comparison import resampled
from stackalign.core.frames.preprocess import Preprocess
from stackalign.core.warping.common_grid import PairImage
from stackalign.pairing import luminance
from stackalign.widgets._layers import _WORDS, KEY, data_to_physical, embedded, look_of, region_of, source_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer
    from numpy.typing import NDArray

    from stackalign.pairing import Pairing

    Array = NDArray[np.float64]

_AXES = {"t": "frames", "z": "planes", "c": "channels"}
_COLOURS = ("red", "green", "blue")


def is_pairable(layer: Layer) -> bool:
    """Return whether a layer can be registered to another: an image, not a pyramid."""
    from napari.layers import Image

    return isinstance(layer, Image) and not layer.multiscale and layer.ndim >= 2


def letters_of(layer: Layer) -> str:
    """Return a letter for each axis of a layer, "?" where nothing says what it is; the last two are y and x then."""
    noted = source_of(layer).get("axes")
    if isinstance(noted, str) and len(noted) == layer.ndim:
        return noted
    named = "".join(_WORDS.get(str(label).strip().lower(), "?") for label in layer.axis_labels)
    if len(named) == layer.ndim and {"y", "x"} <= set(named) and len(set(named)) + named.count("?") > layer.ndim - 1:
        return named
    return "?" * (layer.ndim - 2) + "yx"


def may_be_volume(layer: Layer) -> bool:
    """Return whether a layer has an axis that is, or may be, z."""
    letters = letters_of(layer)
    return "z" in letters or "?" in letters


def has_depth(layer: Layer) -> bool:
    """Return whether a layer says that one of its axes is z."""
    return "z" in letters_of(layer)


def axes_used(layer: Layer, volume: bool) -> tuple[int, ...]:
    """Return the positions, from the end (negative), of (z,) y and x."""
    letters = letters_of(layer)
    places = [letters.index(a) for a in "yx"]
    if volume:
        places.insert(0, letters.index("z") if "z" in letters else letters.rindex("?"))
    return tuple(place - layer.ndim for place in places)


def channels_in(layer: Layer) -> dict[str, int | str]:
    """Return what is registered of a layer with channels, by its words; empty if it has but one."""
    letters = letters_of(layer)
    if getattr(layer, "rgb", False):
        return {"brightness": "luminance", **{word: k for k, word in enumerate(_COLOURS)}}
    if "c" in letters:
        count = int(layer.data.shape[letters.index("c")])
        return {"the one on show": "shown", **{f"channel {k}": k for k in range(count)}}
    return {}


def world_scale(viewer: ViewerModel, layer: Layer) -> Array:
    """Return how many units of the viewer's world a layer's unit is, for each axis (n,)."""
    world = viewer.layers.extent.units
    if world is None:  # layers with and without units: napari shows their numbers as they stand
        return np.ones(layer.ndim)
    pairs = zip(layer.units, world[-layer.ndim :], strict=True)
    return np.array([1.0 if own == shown else float((1 * own).to(shown).magnitude) for own, shown in pairs])


def length_of(viewer: ViewerModel, layer: Layer) -> float | None:
    """Return the length, in metres, of what is one unit of the world for this layer; None if it has no unit."""
    own = layer.units[-1]
    if not own.is_compatible_with("meter"):
        return None
    return float((1 * own).to("meter").magnitude) / float(world_scale(viewer, layer)[-1])


def unit_text(layer: Layer) -> str:
    """Return the unit of a layer along x, as it is written."""
    text = f"{layer.units[-1]:~P}"
    return "px" if text in ("pixel", "pix") else text


def pixel_to_world(viewer: ViewerModel, layer: Layer) -> Array:
    """Return the homogeneous matrix from the layer's pixels to the viewer's world (n+1, n+1)."""
    units = np.diag([*world_scale(viewer, layer), 1.0])
    return np.asarray(units @ layer.affine.affine_matrix @ data_to_physical(layer))


def shown_index(viewer: ViewerModel, layer: Layer, to_world: Array) -> NDArray[np.int_]:
    """Return the pixel of a layer (n,) that the viewer's sliders stand on."""
    point = np.asarray(viewer.dims.point, float)
    point = np.concatenate([np.zeros(max(layer.ndim - len(point), 0)), point])[-layer.ndim :]
    index = np.rint((np.linalg.inv(to_world) @ np.append(point, 1.0))[:-1])
    return np.clip(index, 0, np.array(layer.data.shape[: layer.ndim]) - 1).astype(int)


def pair_image(viewer: ViewerModel, layer: Layer, volume: bool, channel: int | str | None = None) -> PairImage:
    """Return what is on show of a layer, as an image or a volume in the world."""
    to_world, axes = pixel_to_world(viewer, layer), axes_used(layer, volume)
    letters, rgb = letters_of(layer), bool(getattr(layer, "rgb", False))
    index = shown_index(viewer, layer, to_world)
    if isinstance(channel, int) and not rgb:
        index[letters.index("c")] = channel
    places = [axis % layer.ndim for axis in axes]
    kept = [slice(None) if k in places else int(i) for k, i in enumerate(index)]
    pixels: Any = layer.data[tuple(kept)]
    if rgb:
        pixels = pixels[..., channel] if isinstance(channel, int) else luminance(pixels)
    order = sorted(places)
    if order != places:
        pixels = np.asarray(pixels).transpose([order.index(place) for place in places])
    rest = np.where([k in places for k in range(layer.ndim)], 0, index)
    corner = (to_world @ np.append(rest, 1.0))[:-1]
    place = np.eye(len(places) + 1)
    place[:-1, :-1] = to_world[np.ix_(places, places)]
    place[:-1, -1] = corner[places]
    return PairImage(pixels, place, layer.name, length_of(viewer, layer))


def plane_on_show(viewer: ViewerModel, layer: Layer) -> int:
    """Return the plane of a volume that the viewer's slider stands on."""
    return int(shown_index(viewer, layer, pixel_to_world(viewer, layer))[axes_used(layer, True)[0]])


def corrected_affine(viewer: ViewerModel, layer: Layer, axes: tuple[int, ...], correction: Array) -> Array:
    """Return the ``layer.affine`` with which a layer lies corrected (n+1, n+1).

    ``layer.affine`` acts in the layer's own units, before napari turns them into those of the world.
    """
    units = np.diag([*world_scale(viewer, layer), 1.0])
    whole = embedded(correction, layer.ndim, axes)
    return np.asarray(np.linalg.inv(units) @ whole @ units @ layer.affine.affine_matrix)


def mask_in(viewer: ViewerModel, chosen: Layer, layer: Image, image: PairImage, volume: bool) -> NDArray[np.bool_]:
    """Return a Shapes or Labels layer as a mask of the reference.

    Raises
    ------
    ValueError
        If it holds no closed shape, no label, or nothing of it lies on the reference.
    """
    from napari.layers import Labels

    if isinstance(chosen, Labels):
        marked = pair_image(viewer, chosen, volume and chosen.ndim > 2)
        there = np.asarray(marked.pixels) > 0
        place, shape = image.place, image.shape
        if there.ndim < len(shape):  # one plane of labels counts in every plane of a volume
            place, shape = np.delete(np.delete(place, 0, 0), 0, 1), shape[1:]
        matrix = np.linalg.inv(place) @ marked.place
        inside = resampled(there.view(np.uint8), range(there.ndim), matrix, shape, order=0) > 0
        inside = np.broadcast_to(inside, image.shape).copy()
    else:
        vertices = region_of(chosen, layer, letters_of(layer), np.asarray(layer.affine.affine_matrix))
        if vertices is None:
            raise ValueError(f"“{chosen.name}” holds no closed shape: draw a rectangle, a polygon or an ellipse in it")
        inside = Preprocess(region=vertices).mask(image.shape)
    if not inside.any():
        raise ValueError(f"nothing in “{chosen.name}” lies on “{layer.name}”")
    return np.asarray(inside)


def resampled_layer(pairing: Pairing, moving: Image, reference: Image, volume: bool) -> Image:
    """Return the moving layer resampled to the pixels of the reference: all of its frames, with its provenance."""
    from napari.layers import Image

    rgb = bool(moving.rgb)
    own, fixed = axes_used(moving, volume), axes_used(reference, volume)
    places = [axis - rgb for axis in own]
    data = resampled(moving.data, places, pairing.matrix, pairing.reference.shape)
    scale, translate = np.array(moving.scale, float), np.array(moving.translate, float)
    units = list(moving.units)
    for here, there in zip(own, fixed, strict=True):
        scale[here], translate[here] = reference.scale[there], reference.translate[there]
        units[here] = reference.units[there]
    # what lies rotated or sheared is drawn so: the rest of the reference's place becomes the affine
    upright = np.diag([*(reference.scale[axis] for axis in fixed), 1.0])
    upright[:-1, -1] = [reference.translate[axis] for axis in fixed]
    shown = np.asarray(reference.affine.affine_matrix) @ data_to_physical(reference)
    across = [axis % reference.ndim for axis in fixed]
    whole = np.eye(len(fixed) + 1)
    whole[:-1, :-1], whole[:-1, -1] = shown[np.ix_(across, across)], shown[across, -1]
    affine = embedded(whole @ np.linalg.inv(upright), moving.ndim, own)
    noted = {
        "registered_to": reference.name,
        "registered_from": moving.name,
        "axes": letters_of(moving),
        "matrix": pairing.matrix.tolist(),
        "model": pairing.model.value,
        "probability": pairing.probability,
    }
    metadata = {**moving.metadata, KEY: noted if "?" not in noted["axes"] else {**noted, "axes": None}}
    return Image(
        data, name=f"{moving.name} [registered]", scale=scale, translate=translate, units=units, affine=affine,
        axis_labels=moving.axis_labels, opacity=moving.opacity, rgb=rgb, metadata=metadata, **look_of(moving),
    )  # fmt: skip


def summary_of(layer: Image) -> str:
    """Return size and pixel size of a layer, for a user."""
    letters, shape = letters_of(layer), layer.data.shape
    y, x = (letters.index(a) for a in "yx")
    size = f"{shape[y]} × {shape[x]}"
    more = [f"{shape[k]} {_AXES.get(a, 'frames or planes')}" for k, a in enumerate(letters) if a not in "yx"]
    unit = f"{layer.units[x]:~P}"
    if not layer.units[x].is_compatible_with("meter"):
        scale = "pixel size not known"
    else:
        sizes = np.abs(np.asarray(layer.scale, float)[[y, x]])
        equal = abs(sizes[0] - sizes[1]) <= 1e-6 * max(sizes)
        scale = (f"{sizes[1]:.4g}" if equal else f"{sizes[0]:.4g} × {sizes[1]:.4g}") + f" {unit}/px"
    return " · ".join([size, *more, scale])
