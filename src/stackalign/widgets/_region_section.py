"""Which part of the frame counts: all of it, or a shape of a Shapes layer, followed while it is edited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QVBoxLayout, QWidget

from stackalign.widgets._layers import region_of
from stackalign.widgets._style import narrow_combo, note, row, say

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from napari.components import ViewerModel
    from napari.layers import Image, Shapes
    from numpy.typing import NDArray

    from stackalign.session import AlignmentSession, Choices

_WHOLE, _DRAW, _KEPT = "whole", "draw", "kept"


class RegionSection(QWidget):
    """Chooses the session's region."""

    def __init__(
        self,
        viewer: ViewerModel,
        session: AlignmentSession,
        movie_layer: Callable[[], Image | None],
        base_of: Callable[[Image], NDArray[np.float64]],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer, self._session, self._movie_layer = viewer, session, movie_layer
        self._base_of = base_of
        self._filling = False
        self._shapes: Shapes | None = None
        self.choice = narrow_combo()
        self.about = note()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(
            row("Region", self.choice, tip="The part of the frame that the motion is measured on; all of it is aligned")
        )
        column.addWidget(self.about)
        self._later = QTimer(self, singleShot=True, interval=60)  # a shape that is dragged speaks on every pixel
        self._later.timeout.connect(self._take_shape)
        self.choice.activated.connect(self._on_choice)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self._on_layers)
        session.events.choices.connect(self._show)
        session.events.movie.connect(self._on_movie)
        self._fill()

    def _on_layers(self, event: Any = None) -> None:
        if self._shapes is not None and self._shapes not in self._viewer.layers:
            self._follow(None)
        self._fill()

    def _on_movie(self, _movie: object = None) -> None:
        if self._shapes is not None:
            self._later.start()
        self._show()

    def _fill(self) -> None:
        from napari.layers import Shapes

        self._filling = True
        self.choice.clear()
        self.choice.addItem("Whole frame", _WHOLE)
        for layer in self._viewer.layers:
            if isinstance(layer, Shapes):
                self.choice.addItem(f"Inside the shape in “{layer.name}”", layer.unique_id)
        self.choice.addItem("Draw a rectangle…", _DRAW)
        self._filling = False
        self._show()

    def _show(self, _choices: Choices | None = None) -> None:
        region = self._session.choices.preprocess.region
        kept = self.choice.findData(_KEPT)
        if region is not None and self._shapes is None:
            if kept < 0:
                self.choice.insertItem(1, "Region of the recipe", _KEPT)
            self.choice.setCurrentIndex(self.choice.findData(_KEPT))
        else:
            if kept >= 0:
                self.choice.removeItem(kept)
            wanted = _WHOLE if self._shapes is None else self._shapes.unique_id
            self.choice.setCurrentIndex(max(self.choice.findData(wanted), 0))
        if region is not None:
            say(self.about, _words(region))
        elif self._shapes is not None:
            say(self.about, "Draw a rectangle or a polygon in this layer; until then the whole frame counts.")
        else:
            say(self.about, "")

    def _on_choice(self) -> None:
        from napari.layers import Shapes

        chosen = self.choice.currentData()
        if chosen == _KEPT:
            return
        if chosen == _DRAW:
            layer = self._movie_layer()
            units = {} if layer is None else {"units": layer.units[-2:], "axis_labels": layer.axis_labels[-2:]}
            shapes = Shapes(
                name="region", ndim=2, edge_color="#56b4e9", face_color="transparent", edge_width=_edge(layer), **units
            )
            self._viewer.add_layer(shapes)
            self._viewer.layers.selection.active = shapes
            shapes.mode = "add_rectangle"
            self._follow(shapes)
        else:
            self._follow(next((la for la in self._viewer.layers if la.unique_id == chosen), None))
        if self._shapes is None:
            self._session.set_region(None)
        self._take_shape()
        self._show()

    def _follow(self, shapes: Shapes | None) -> None:
        if self._shapes is not None:
            self._shapes.events.data.disconnect(self._on_shape)
            self._shapes.events.highlight.disconnect(self._on_shape)
        self._shapes = shapes
        if shapes is not None:
            shapes.events.data.connect(self._on_shape)
            shapes.events.highlight.connect(self._on_shape)

    def _on_shape(self, event: Any = None) -> None:
        self._later.start()

    def _take_shape(self) -> None:
        layer, movie = self._movie_layer(), self._session.movie
        if self._shapes is None or layer is None or movie is None:
            return
        try:
            self._session.set_region(region_of(self._shapes, layer, movie.axes, self._base_of(layer)))
        except ValueError as error:
            self._session.set_region(None)
            say(self.about, str(error))

    def close_section(self) -> None:
        """Let go of viewer and session."""
        self._session.events.movie.disconnect(self._on_movie, missing_ok=True)
        self._session.events.choices.disconnect(self._show, missing_ok=True)
        self._follow(None)
        for event in (self._viewer.layers.events.inserted, self._viewer.layers.events.removed):
            event.disconnect(self._on_layers)


def _edge(layer: Image | None) -> float:
    return 1.0 if layer is None else 2.0 * float(layer.scale[-1])


def _words(region: Any) -> str:
    """Return what a region covers; boxes as bounds, polygons by their corners."""
    if len(region) == 4 and not hasattr(region[0], "__len__"):
        y0, y1, x0, x1 = region
        return f"y {y0} to {y1 - 1}, x {x0} to {x1 - 1} ({y1 - y0} × {x1 - x0} px)"
    ys, xs = zip(*region, strict=True)
    return f"{len(region)} corners, y {min(ys):.0f} to {max(ys):.0f}, x {min(xs):.0f} to {max(xs):.0f}"
