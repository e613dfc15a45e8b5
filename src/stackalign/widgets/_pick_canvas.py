"""Boxes of particles on the canvas, and what the mouse does with them: pick, draw, move, resize."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from stackalign.widgets._layers import data_to_physical, spatial_axes
from stackalign.widgets._plot import BAD, CHOSEN, ELSEWHERE, GOOD, LIVE

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari.layers import Image, Layer, Points, Vectors
    from numpy.typing import NDArray

BOXES, MARKS = "particle boxes", "particles"
_GRIP = 7.0  # screen pixels within which a border is grabbed
_CLICK = 3.0  # screen pixels: a press that moves less is a click


@dataclass(frozen=True, slots=True)
class BoxView:
    """How one box is drawn.

    Attributes
    ----------
    number : int
        Of the particle; 0 for the box that follows the mouse.
    start, stop : tuple of int
        Rows and columns, half-open, pixels of the movie.
    state : "good", "bad", "elsewhere" or "live"
        Accepted, rejected, drawn in another frame, under the mouse.
    chosen : bool
        Whether it is the one that the panel shows.
    centre : tuple of float
        Where the mark goes.
    """

    number: int
    start: tuple[int, int]
    stop: tuple[int, int]
    state: str
    chosen: bool
    centre: tuple[float, float]


_COLOUR = {"good": GOOD, "bad": BAD, "elsewhere": ELSEWHERE, "live": LIVE}
_SYMBOL = {"good": "disc", "bad": "x", "elsewhere": "disc", "live": "cross"}


class PickCanvas(QObject):
    """Draws boxes over a movie and turns the mouse into intentions. Positions are (z,) y, x pixels of the movie.

    Signals
    -------
    hovered(tuple)
        The mouse is over this place; only while picking.
    clicked(tuple)
        A click beside all boxes.
    chosen(int)
        A click on the box of this particle.
    drawing(tuple, tuple, bool)
        A box is drawn between two corners; True at the end.
    dragged(int, str, tuple, bool)
        A box is moved or resized: number, "move" or the border ("top", "bottom", "left", "right", two joined by "-"),
        shift in pixels (y, x) since the press, True at the end.
    """

    hovered = Signal(tuple)
    clicked = Signal(tuple)
    chosen = Signal(int)
    drawing = Signal(tuple, tuple, bool)
    dragged = Signal(int, str, tuple, bool)

    def __init__(self, viewer: Any, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._layer: Image | None = None
        self._axes = "tyx"
        self._boxes: tuple[BoxView, ...] = ()
        self._vectors: Vectors | None = None
        self._points: Points | None = None
        self._picking = False
        viewer.mouse_drag_callbacks.append(self._on_drag)
        viewer.mouse_move_callbacks.append(self._on_move)

    @property
    def boxes(self) -> tuple[BoxView, ...]:
        """What is drawn."""
        return self._boxes

    @property
    def picking(self) -> bool:
        """Whether the mouse picks instead of moving the view."""
        return self._picking

    def follow(self, layer: Image | None, axes: str = "tyx") -> None:
        """Draw over ``layer``; None: nothing."""
        if layer is self._layer and axes == self._axes:
            return
        self._remove_layers()
        self._layer, self._axes = layer, axes
        self._boxes = ()

    def pick(self, on: bool) -> None:
        """Let the mouse pick, or move the view as ever."""
        self._picking = on and self._layer is not None
        self._viewer.cursor.style = "crosshair" if self._picking else "standard"

    def show(self, boxes: Sequence[BoxView]) -> None:
        """Draw these boxes and no others."""
        shown = tuple(boxes)
        if shown == self._boxes and (not shown or self._vectors in self._viewer.layers):
            return
        before, self._boxes = self._boxes, shown
        if self._layer is None or (not shown and self._vectors is None):
            return
        vectors, points = self._layers()
        edges = np.array([edge for box in shown for edge in _edges(box)]).reshape(-1, 2, 2)
        vectors.data = edges
        looks = [(box.number, box.state, box.chosen) for box in shown]
        if looks != [(box.number, box.state, box.chosen) for box in before] or len(shown) != len(before):
            colours = [CHOSEN if box.chosen else _COLOUR[box.state] for box in shown]
            if shown:
                vectors.edge_color = [c for c in colours for _ in range(4)]
        marked = [box for box in shown if box.number]
        points.data = np.array([box.centre for box in marked]).reshape(-1, 2)
        if marked:
            points.symbol = [_SYMBOL[box.state] for box in marked]
            points.face_color = [_COLOUR[box.state] for box in marked]
            points.features = {"label": [_label(box) for box in marked]}
        points.refresh_text()

    def close(self) -> None:
        """Let go of the viewer and take the drawing off."""
        self.pick(False)
        for callbacks, ours in (
            (self._viewer.mouse_drag_callbacks, self._on_drag),
            (self._viewer.mouse_move_callbacks, self._on_move),
        ):
            if ours in callbacks:
                callbacks.remove(ours)
        self._remove_layers()

    # layers

    def _remove_layers(self) -> None:
        for layer in (self._vectors, self._points):
            if layer is not None and layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        self._vectors = self._points = None

    def _layers(self) -> tuple[Vectors, Points]:
        from napari.layers import Points, Vectors

        layer = self._layer
        assert layer is not None
        active = self._viewer.layers.selection.active
        if self._vectors is None or self._vectors not in self._viewer.layers:
            self._vectors = Vectors(
                np.zeros((0, 2, 2)), name=BOXES, edge_width=_line(layer), vector_style="line", **self._place()
            )
            self._viewer.add_layer(self._vectors)
        if self._points is None or self._points not in self._viewer.layers:
            self._points = Points(
                np.zeros((0, 2)), name=MARKS, size=_mark(layer), border_width=0.0, features={"label": []},
                text={"string": "{label}", "color": "white", "size": 10, "anchor": "upper_left",
                      "translation": np.array([-1.0, 1.0]) * _mark(layer)},
                **self._place(),
            )  # fmt: skip
            self._viewer.add_layer(self._points)
        if active is not None and active in self._viewer.layers:
            self._viewer.layers.selection.active = active  # drawing must not take the movie from the user's hands
        return self._vectors, self._points

    def _place(self) -> dict[str, Any]:
        """Return scale, units and affine that put (y, x) pixels of the movie where the movie is."""
        layer = self._layer
        assert layer is not None
        planes = [axis % layer.ndim for axis in spatial_axes(self._axes)[-2:]]
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

    # the mouse

    def pixel(self, position: Sequence[float]) -> NDArray[np.float64] | None:
        """Return world coordinates as (z,) y, x pixels of the movie; None outside of it."""
        layer = self._layer
        if layer is None or layer not in self._viewer.layers:
            return None
        point = np.asarray(layer.world_to_data(position), float)[-layer.ndim :]
        spatial = np.array([point[axis] for axis in spatial_axes(self._axes)])
        shape = np.array([layer.data.shape[axis - bool(layer.rgb)] for axis in spatial_axes(self._axes)])
        if len(spatial) == 3:
            spatial[0] = np.clip(spatial[0], 0, shape[0] - 1)
        return spatial if (spatial > -0.5).all() and (spatial < shape - 0.5).all() else None

    @property
    def screen(self) -> float:
        """Return how many pixels of the movie one pixel of the screen covers."""
        layer = self._layer
        scale = 1.0 if layer is None else float(abs(layer.scale[spatial_axes(self._axes)[-1]]))
        return 1.0 / max(float(_camera(self._viewer).zoom) * scale, 1e-9)

    def _under(self, point: NDArray[np.float64]) -> tuple[int, str]:
        """Return which box is under a point and what a drag there does; (0, "") for none."""
        grip = _GRIP * self.screen
        y, x = point[-2:]
        for box in sorted(self._boxes, key=lambda b: not b.chosen):  # of boxes that overlap, the chosen one
            if not box.number:
                continue
            (y0, x0), (y1, x1) = box.start, box.stop
            reach = min(grip, 0.25 * (y1 - y0), 0.25 * (x1 - x0))
            off = {"top": y - y0 + 0.5, "bottom": y1 - 0.5 - y, "left": x - x0 + 0.5, "right": x1 - 0.5 - x}
            if min(off.values()) < -grip:
                continue
            part = [name for name, distance in off.items() if distance <= reach]
            return box.number, "-".join(part) or "move"
        return 0, ""

    def _on_move(self, _viewer: Any, event: Any) -> None:
        if self._picking and (point := self.pixel(event.position)) is not None:
            self.hovered.emit(tuple(point))

    def _on_drag(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        if not self._picking or event.button != 1:
            return
        begin = self.pixel(event.position)
        if begin is None:
            return
        number, part = self._under(begin)
        camera = _camera(viewer)
        pan, camera.mouse_pan = camera.mouse_pan, False
        last, moved = begin, False
        try:
            yield
            while event.type == "mouse_move":
                point = self.pixel(event.position)
                if point is not None:
                    last = point
                    moved = moved or float(np.abs(last - begin).max()) > _CLICK * self.screen
                    if moved:
                        self._emit_drag(number, part, begin, last, False)
                yield
        finally:
            camera.mouse_pan = pan
        if moved:
            self._emit_drag(number, part, begin, last, True)
        elif number:
            self.chosen.emit(number)
        else:
            self.clicked.emit(tuple(begin))

    def _emit_drag(
        self, number: int, part: str, begin: NDArray[np.float64], last: NDArray[np.float64], done: bool
    ) -> None:
        if number:
            self.dragged.emit(number, part, tuple((last - begin)[-2:]), done)
        else:
            self.drawing.emit(tuple(begin), tuple(last), done)


def _camera(viewer: Any) -> Any:
    """Return the camera, which moved in napari 0.9."""
    return viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera


def _edges(box: BoxView) -> list[list[list[float]]]:
    """Return the four borders as start and direction."""
    (y0, x0), (y1, x1) = box.start, box.stop
    height, width = y1 - y0, x1 - x0
    y, x = y0 - 0.5, x0 - 0.5
    return [
        [[y, x], [0, width]],
        [[y + height, x], [0, width]],
        [[y, x], [height, 0]],
        [[y, x + width], [height, 0]],
    ]


def _label(box: BoxView) -> str:
    return f"{box.number}{' ✗' if box.state == 'bad' else ''}"


def _line(layer: Layer) -> float:
    """Return a line width, pixels of the movie, that is seen when the whole frame is on the screen."""
    return max(float(max(layer.data.shape[-2:])) / 500.0, 0.4)


def _mark(layer: Layer) -> float:
    return max(float(max(layer.data.shape[-2:])) / 100.0, 2.0)
