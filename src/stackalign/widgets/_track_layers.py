"""Tracks layers and tables of tracks, to and from the session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.spots.tracks import TrackSet
from stackalign.widgets._layers import data_to_physical, spatial_axes, time_axis
from stackalign.widgets._preview import own_affine

if TYPE_CHECKING:
    from napari.layers import Image, Tracks

    from stackalign.runs import Movie


def layer_of(viewer: Any, movie: Movie) -> Image | None:
    """Return the layer of a movie, if it is still there."""
    return next((layer for layer in viewer.layers if layer.unique_id == movie.key), None)


def add_tracks_layer(viewer: Any, movie: Movie, tracks: TrackSet, first: int = 0) -> Tracks:
    """Add tracks as a layer on top of their movie, in its coordinates.

    Raises
    ------
    ValueError
        If the movie has axes that a Tracks layer of it cannot have (channels).
    """
    from napari.layers import Tracks

    layer = layer_of(viewer, movie)
    points = tracks.to_points()
    points[:, 1] += first
    keywords: dict[str, Any] = {}
    if layer is not None:
        axes = [time_axis(layer, movie.axes) % layer.ndim, *(a % layer.ndim for a in spatial_axes(movie.axes))]
        places = [*axes, layer.ndim]
        whole = own_affine(layer) @ data_to_physical(layer)
        scale = np.asarray(layer.scale, float)[axes]
        keywords = {
            "scale": scale,
            "affine": whole[np.ix_(places, places)] @ np.linalg.inv(np.diag([*scale, 1.0])),
            "units": [layer.units[k] for k in axes],
            "axis_labels": [layer.axis_labels[k] for k in axes],
        }
    made = Tracks(points, name=f"{movie.name} [tracks]", **keywords)
    viewer.add_layer(made)
    return made


def tracks_from_layer(viewer: Any, layer: Tracks, movie: Movie, length: int, first: int = 0) -> TrackSet:
    """Return the tracks of a layer in pixels of the movie; frames count from ``first``.

    Raises
    ------
    ValueError
        If they lie outside of the movie's frames or have other axes.
    """
    image = layer_of(viewer, movie)
    data = np.asarray(layer.data, float)
    if image is None:
        return TrackSet.from_points(data, length=length)
    places = data[:, 1:]
    ndim = movie.stack.ndim
    if places.shape[1] != ndim + 1:
        raise ValueError(
            f"the tracks of {layer.name} have {places.shape[1]} axes, time and {places.shape[1] - 1} of space; the"
            f" movie has {ndim} of space"
        )
    own = np.asarray(layer.affine.affine_matrix, float) @ data_to_physical(layer)
    axes = [time_axis(image, movie.axes) % image.ndim, *(a % image.ndim for a in spatial_axes(movie.axes))]
    rows = [*axes, image.ndim]
    whole = (own_affine(image) @ data_to_physical(image))[np.ix_(rows, rows)]
    world = places @ own[:-1, :-1].T + own[:-1, -1]
    back = np.linalg.inv(whole)
    pixels = world @ back[:-1, :-1].T + back[:-1, -1]
    pixels[:, 0] = np.round(pixels[:, 0]) - first
    return TrackSet.from_points(np.column_stack([data[:, 0], pixels]), length=length)


def tracks_from_table(path: str, length: int) -> TrackSet:
    """Return the tracks of a table.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, lacks a column or does not fit the movie; the text names the file.
    """
    from stackalign.io.tables import read_table

    table = read_table(path)
    try:
        return TrackSet.from_frame(table, length=length)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
