"""The next step: aligned layers beside their sources, for the movie and for whatever moves with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QLabel, QVBoxLayout, QWidget

from stackalign.export import aligned_like, config_of, origin_of
from stackalign.session import methods
from stackalign.widgets._layers import KEY, axes_choices, data_to_physical, embedded, look_of, source_of, spatial_axes

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Layer

    from stackalign.runs import Run

_ROOM = 30  # letters of a layer's name that fit in a narrow panel


class CompanionSection(QWidget):
    """Ticks the other layers that the transforms apply to as well."""

    def __init__(self, viewer: ViewerModel, changed: Callable[[], None], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer, self._changed = viewer, changed
        self._run: Run | None = None
        self.boxes: dict[str, QCheckBox] = {}
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(2)
        title = QLabel("Also apply to")
        title.setToolTip("Layers that moved with the movie: other channels, labels, points")
        self._column.addWidget(title)
        self._later = QTimer(self, singleShot=True, interval=0)
        self._later.timeout.connect(self._fill)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self._on_layers)
        self.hide()

    @property
    def layers(self) -> list[Layer]:
        """The layers that are ticked."""
        ticked = {key for key, box in self.boxes.items() if box.isChecked()}
        return [layer for layer in self._viewer.layers if layer.unique_id in ticked]

    def show_run(self, run: Run | None) -> None:
        """List what fits a result."""
        self._run = run
        self._fill()

    def _on_layers(self, event: Any = None) -> None:
        self._later.start()

    def _fill(self) -> None:
        fitting = [] if self._run is None else [la for la in self._viewer.layers if moves_with(self._run, la)]
        ticked = {key for key, box in self.boxes.items() if box.isChecked()}
        for box in self.boxes.values():
            self._column.removeWidget(box)
            box.deleteLater()
        self.boxes = {}
        for layer in fitting:
            name = layer.name if len(layer.name) <= _ROOM else layer.name[: _ROOM - 1] + "…"
            box = QCheckBox(name)
            box.setToolTip(layer.name)
            box.setChecked(layer.unique_id in ticked)
            box.toggled.connect(lambda _on: self._changed())
            self.boxes[layer.unique_id] = box
            self._column.addWidget(box)
        self.setVisible(bool(fitting))
        if ticked - set(self.boxes):
            self._changed()

    def close_section(self) -> None:
        """Let go of the viewer."""
        for event in (self._viewer.layers.events.inserted, self._viewer.layers.events.removed):
            event.disconnect(self._on_layers)


def moves_with(run: Run, layer: Layer) -> bool:
    """Return whether the transforms of a run can apply to another layer than its movie."""
    from napari.layers import Image, Labels, Points

    if layer.unique_id == run.movie.key or "provenance" in source_of(layer):
        return False
    if isinstance(layer, Points):
        return layer.ndim == len(run.movie.axes.replace("s", "")) and bool(len(layer.data))
    if not isinstance(layer, Image | Labels) or layer.multiscale:
        return False
    axes = axes_of(run, layer)
    shape = dict(zip(axes, layer.data.shape, strict=False))
    frame = tuple(shape[a] for a in "zyx" if a in shape)
    return bool(axes) and shape.get("t") == len(run.movie.stack) and frame == run.movie.stack.frame_shape


def axes_of(run: Run, layer: Any) -> str:
    """Return the letters of a layer's axes, read like the movie's where they have the same number; "" if unclear."""
    if layer.unique_id == run.movie.key:
        return run.movie.axes
    rgb = bool(getattr(layer, "rgb", False))
    if len(layer.data.shape) - rgb == len(run.movie.axes.replace("s", "")):
        return run.movie.axes.replace("s", "") + ("s" if rgb else "")
    if rgb or hasattr(layer, "contrast_limits"):
        choices, settled = axes_choices(layer)
        return choices[0] if settled else ""
    return ""


def aligned_layer(run: Run, layer: Layer) -> Layer:
    """Return a new layer that shows ``layer`` aligned: same place, units and look, with its provenance.

    Raises
    ------
    ValueError
        If its frames do not fit the run.
    """
    from napari.layers import Image, Labels, Points

    noted = {
        "aligned_from": layer.name,
        "axes": run.movie.axes.replace("s", ""),
        "first": run.first,
        "provenance": dict(run.registration.provenance),
        "transforms": run.registration.transforms.to_dict(),
    }
    if run.choices.registrar.method in methods():  # a method of somebody else's has no place in a recipe
        noted["recipe"] = config_of(run.movie, run.choices).model_dump(mode="json")
    common = {
        "name": f"{layer.name} [aligned]",
        "scale": layer.scale,
        "rotate": layer.rotate,
        "shear": layer.shear,
        "affine": layer.affine.affine_matrix.copy(),
        "units": layer.units,
        "axis_labels": layer.axis_labels,
        "opacity": layer.opacity,
        "metadata": {**layer.metadata, KEY: noted},
    }
    if isinstance(layer, Points):
        return Points(
            _moved(run, layer), translate=layer.translate, size=layer.size, symbol=layer.symbol, **common,
            face_color=layer.face_color, border_color=layer.border_color, features=layer.features,
        )  # fmt: skip
    axes = axes_of(run, layer)
    letters = axes.replace("s", "")
    start = np.zeros(len(letters))
    for letter, first in zip("zyx"[-run.movie.stack.ndim :], origin_of(run), strict=True):
        start[letters.index(letter)] = first
    start[letters.index("t")] = run.first
    common["translate"] = (data_to_physical(layer) @ np.append(start, 1.0))[:-1]
    if isinstance(layer, Labels):
        return Labels(aligned_like(run, layer.data, axes, order=0), colormap=layer.colormap, **common)
    assert isinstance(layer, Image)
    return Image(aligned_like(run, layer.data, axes), rgb=layer.rgb, visible=True, **look_of(layer), **common)


def _moved(run: Run, layer: Any) -> Any:
    """Return the points of a layer carried along, frame by frame; points of other frames stay."""
    letters = run.movie.axes.replace("s", "")
    points = np.array(layer.data, float)
    frames = np.rint(points[:, letters.index("t")]).astype(int) - run.first
    planes = spatial_axes(letters)
    for t in np.unique(frames[(frames >= 0) & (frames < len(run.registration))]):
        matrix = embedded(run.registration.transforms.matrices[t], points.shape[1], planes)
        chosen = frames == t
        points[chosen] = points[chosen] @ matrix[:-1, :-1].T + matrix[:-1, -1]
    return points
