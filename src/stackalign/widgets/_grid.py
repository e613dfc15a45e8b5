"""The pixels of a movie in the coordinates of the viewer: where to draw on it, where the mouse is on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.widgets._layers import data_to_physical, spatial_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Image, Layer
    from numpy.typing import NDArray


class MovieGrid:
    """The pixels of a movie in the coordinates of the viewer.

    Parameters
    ----------
    viewer : Viewer
        Whose layers show the movie.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._layer: Image | None = None
        self._drawn: list[Layer] = []
        self.axes = "tyx"

    @property
    def layer(self) -> Image | None:
        """The layer of the movie."""
        return self._layer

    @layer.setter
    def layer(self, layer: Image | None) -> None:
        if self._layer is not None:
            self._layer.events.affine.disconnect(self._on_affine)
        self._layer = layer
        if layer is not None:
            layer.events.affine.connect(self._on_affine)

    def _on_affine(self, _event: Any = None) -> None:
        """Keep what is drawn on the movie while a preview moves it."""
        self._drawn = [drawn for drawn in self._drawn if drawn in self._viewer.layers]
        for drawn in self._drawn:
            drawn.affine = self.place()["affine"]

    def place(self) -> dict[str, Any]:
        """Return scale, units and affine that put (y, x) pixels of the movie where the movie is."""
        layer = self.layer
        assert layer is not None
        planes = [axis % layer.ndim for axis in spatial_axes(self.axes)[-2:]]
        whole = np.asarray(layer.affine.affine_matrix, float) @ data_to_physical(layer)
        places = [*planes, layer.ndim]
        wanted = whole[np.ix_(places, places)]
        scale = np.asarray(layer.scale, float)[planes]
        own = np.diag([*scale, 1.0])
        return {
            "scale": scale,
            "affine": wanted @ np.linalg.inv(own),
            "units": [layer.units[k] for k in planes],
            "axis_labels": [layer.axis_labels[k] for k in planes],
        }

    def add(self, layer: Layer) -> None:
        """Add a drawing; the layer that was active stays it: drawing must not take the movie from the user's hands."""
        active = self._viewer.layers.selection.active
        self._viewer.add_layer(layer)
        self._drawn.append(layer)
        if active is not None and active in self._viewer.layers:
            self._viewer.layers.selection.active = active

    def pixel(self, position: Sequence[float]) -> NDArray[np.float64] | None:
        """Return world coordinates as (z,) y, x pixels of the movie; None outside of it."""
        layer = self.layer
        if layer is None or layer not in self._viewer.layers:
            return None
        point = np.asarray(layer.world_to_data(position), float)[-layer.ndim :]
        spatial = np.array([point[axis] for axis in spatial_axes(self.axes)])
        shape = np.array([layer.data.shape[axis - bool(layer.rgb)] for axis in spatial_axes(self.axes)])
        if len(spatial) == 3:
            spatial[0] = np.clip(spatial[0], 0, shape[0] - 1)
        return spatial if (spatial > -0.5).all() and (spatial < shape - 0.5).all() else None

    @property
    def screen(self) -> float:
        """Return how many pixels of the movie one pixel of the screen covers."""
        layer = self.layer
        scale = 1.0 if layer is None else float(abs(layer.scale[spatial_axes(self.axes)[-1]]))
        return 1.0 / max(float(camera_of(self._viewer).zoom) * scale, 1e-9)


def camera_of(viewer: Any) -> Any:
    """Return the camera, which moved in napari 0.9."""
    return viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera


def mark_size(layer: Layer) -> float:
    """Return the size of a mark, pixels of the movie."""
    return max(float(max(layer.data.shape[-2:])) / 100.0, 2.0)
