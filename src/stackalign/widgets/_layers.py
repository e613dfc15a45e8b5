"""Layers as views: which axis of a layer is which, its stack, and the affine that shows a frame aligned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.transforms import Affine

from stackalign.io.read import read_stack
from stackalign.session import Movie

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Image, Layer, Shapes
    from numpy.typing import NDArray

KEY = "stackalign"  # under which our layers carry their source and provenance in ``layer.metadata``
_WORDS = {
    "t": "t", "time": "t", "frame": "t", "frames": "t",
    "z": "z", "depth": "z", "plane": "z",
    "c": "c", "ch": "c", "channel": "c", "channels": "c",
    "y": "y", "x": "x",
}  # fmt: skip
_CHOICES = {
    3: ("tyx",),
    4: ("tzyx", "ztyx", "tcyx", "ctyx"),
    5: ("tzcyx", "tczyx", "ctzyx", "ztcyx", "cztyx", "zctyx"),
}


def is_movie(layer: Layer) -> bool:
    """Return whether a layer can be aligned: an image, not a pyramid, with an axis before y and x."""
    from napari.layers import Image

    if not isinstance(layer, Image) or layer.multiscale:
        return False
    return len(layer.data.shape) - bool(layer.rgb) >= 3


def axes_choices(layer: Image) -> tuple[tuple[str, ...], bool]:
    """Return what the axes of a layer may be, the likeliest first, and whether that is settled without asking."""
    ndim = len(layer.data.shape) - bool(layer.rgb)
    colour = "s" if layer.rgb else ""
    stored = source_of(layer).get("axes")
    if isinstance(stored, str) and len(stored) == ndim and "t" in stored:
        return (stored + colour,), True
    named = "".join(_WORDS.get(str(label).strip().lower(), "?") for label in layer.axis_labels)
    if len(named) == ndim and "?" not in named and len(set(named)) == ndim and {"y", "x"} <= set(named):
        if "t" in named:
            return (named + colour,), True
        return tuple(named.replace(axis, "t") + colour for axis in "zc" if axis in named), False
    choices = tuple(choice + colour for choice in _CHOICES.get(ndim, ()))
    return choices, len(choices) == 1  # one axis before y and x, without a name: it is what frames are counted along


def source_of(layer: Layer) -> dict[str, Any]:
    """Return what our own reader or panel noted about where a layer comes from; empty for other layers."""
    noted = layer.metadata.get(KEY)
    return noted if isinstance(noted, dict) else {}


def channels_of(layer: Image, axes: str) -> tuple[int | str, ...]:
    """Return what the channel of a layer may be; () if it has but one."""
    if "s" in axes:
        return ("luminance", *range(min(int(layer.data.shape[-1]), 3)))
    return tuple(range(int(layer.data.shape[axes.index("c")]))) if "c" in axes else ()


def time_axis(layer: Image, axes: str) -> int:
    """Return which axis of the layer is time, counted from its last displayed axis (negative)."""
    letters = axes.replace("s", "")
    return letters.index("t") - len(letters)


def spatial_axes(axes: str) -> tuple[int, ...]:
    """Return the positions, from the end (negative), of z, y and x among the layer's axes, in this order."""
    letters = axes.replace("s", "")
    return tuple(letters.index(a) - len(letters) for a in "zyx" if a in letters)


def movie_of(layer: Image, axes: str, channel: int | str | None = None) -> Movie:
    """Return a layer as a movie: its frames as a stack, where they come from, and the layer's id.

    Raises
    ------
    ValueError
        If the axes do not fit the layer.
    """
    letters = axes.replace("s", "")
    source = source_of(layer)
    path, file_axes, file_channel = _file_of(layer, axes, channel)
    stack = read_stack(path or layer.data, axes=file_axes if path else axes, channel=file_channel if path else channel)
    scale = dict(zip(letters, np.asarray(layer.scale, float), strict=True))
    unit = dict(zip(letters, layer.units, strict=True))
    sized = f"{unit['x']:~}" not in ("pix", "pixel", "px", "")
    timed = f"{unit['t']:~}" not in ("pix", "pixel", "px", "")
    stack = replace(
        stack,
        name=stack.name if path else layer.name,  # provenance is the same as from the command line
        pixel_size=tuple(scale[a] for a in "zyx" if a in scale) if sized else None,
        unit=f"{unit['x']:~}" if sized else "µm",
        interval=float(scale["t"]) if timed else None,
        interval_unit=f"{unit['t']:~}" if timed else "s",
        missing=source.get("missing", stack.missing),
    )
    return Movie(
        stack=stack,
        key=layer.unique_id,
        axes=axes,
        channel=channel,
        path=path,
        file_axes=file_axes,
        file_channel=file_channel,
        title=layer.name,
    )


def _file_of(layer: Image, axes: str, channel: Any) -> tuple[str | None, str | None, int | str | None]:
    """Return the file that holds a layer's pixels, as it must be read; None if they are only in memory.

    Frames are then read from the file itself, and the recipe and the script name it. What another reader opened
    counts only if ours finds the same pixels there; what was changed since it was opened does not count.
    """
    source = source_of(layer)
    path = source.get("path")
    if path and source.get("data") is layer.data and Path(path).exists():
        return str(path), source.get("file_axes") or axes.replace("s", ""), source.get("channel", channel)
    path = layer.source.path
    if path and "path" not in source and Path(path).exists():
        try:
            again, here = (
                read_stack(path, axes=axes, channel=channel),
                read_stack(layer.data, axes=axes, channel=channel),
            )
            if again.shape == here.shape and again.dtype == here.dtype and np.array_equal(again[0], here[0]):
                return str(path), axes.replace("s", ""), channel
        except (OSError, ValueError):
            pass
    return None, None, None


def data_to_physical(layer: Layer) -> NDArray[np.float64]:
    """Return the homogeneous matrix from the layer's pixels to its physical coordinates, before ``layer.affine``."""
    own = Affine(scale=layer.scale, translate=layer.translate, rotate=layer.rotate, shear=layer.shear, ndim=layer.ndim)
    return np.asarray(own.affine_matrix, float)


def embedded(matrix: NDArray[np.float64], ndim: int, axes: Sequence[int]) -> NDArray[np.float64]:
    """Return a frame's matrix (d+1, d+1) as one of all axes of a layer; the others stay as they are.

    A projective matrix becomes its best affine near the origin: a layer can show no more.
    """
    out = np.eye(ndim + 1)
    places = [axis % ndim for axis in axes]
    out[np.ix_(places, places)] = matrix[:-1, :-1]
    out[places, -1] = matrix[:-1, -1]
    return out


def frame_affine(
    matrix: NDArray[np.float64], physical: NDArray[np.float64], base: NDArray[np.float64], axes: Sequence[int]
) -> NDArray[np.float64]:
    """Return the ``layer.affine`` that shows a frame aligned.

    ``layer.affine`` acts after scale and translate, so the pixel matrix is carried there and back.

    Parameters
    ----------
    matrix : ndarray (d+1, d+1)
        Moving -> reference, pixels.
    physical : ndarray (n+1, n+1)
        `data_to_physical` of the layer.
    base : ndarray (n+1, n+1)
        The layer's own affine.
    axes : sequence of int
        Which axes of the layer are z, y, x.
    """
    return base @ physical @ embedded(matrix, len(physical) - 1, axes) @ np.linalg.inv(physical)


def region_of(
    shapes: Shapes, layer: Image, axes: str, base: NDArray[np.float64]
) -> tuple[tuple[float, float], ...] | None:
    """Return the selected shape (the last one if none is) as (y, x) pixel vertices of the movie; None if there is none.

    Rectangles, polygons and ellipses count; lines and paths enclose nothing. ``base`` is the layer's own affine: while
    it is previewed, a shape is drawn on the aligned frame, in the coordinates of the reference.
    """
    closed = [k for k, kind in enumerate(shapes.shape_type) if kind in ("rectangle", "polygon", "ellipse")]
    if not closed:
        return None
    chosen = [k for k in closed if k in shapes.selected_data] or closed[-1:]
    vertices = np.asarray(shapes.data[chosen[0]], float)
    if shapes.shape_type[chosen[0]] == "ellipse":
        vertices = _ellipse(vertices)
    planes = spatial_axes(axes)[-2:]
    to_pixel = np.linalg.inv(base @ data_to_physical(layer))
    out = []
    for vertex in vertices:
        world = np.asarray(shapes.data_to_world(vertex), float)
        point = np.zeros(layer.ndim)
        n = min(len(world), layer.ndim)
        point[-n:] = world[-n:]
        pixel = (to_pixel @ np.append(point, 1.0))[:-1]
        out.append((round(float(pixel[planes[0]]), 3), round(float(pixel[planes[1]]), 3)))
    return tuple(out)


def _ellipse(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 48 points of the ellipse inside a box given by its corners."""
    middle = corners.mean(0)
    half = [(corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2]
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return middle + np.cos(turn)[:, None] * half[0] + np.sin(turn)[:, None] * half[1]


def look_of(layer: Image) -> dict[str, Any]:
    """Return how a layer looks, for one that shows the same scene."""
    look = {
        "colormap": layer.colormap.name if not layer.rgb else None,
        "contrast_limits": list(layer.contrast_limits) if not layer.rgb else None,
        "gamma": layer.gamma,
        "blending": layer.blending,
        "interpolation2d": layer.interpolation2d,
        "rendering": layer.rendering,
    }
    return {key: value for key, value in look.items() if value is not None}
