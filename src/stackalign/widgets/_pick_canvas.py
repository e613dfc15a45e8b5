"""Boxes of particles on the canvas, and what the mouse does with them: pick, draw, move, resize."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from stackalign.widgets._grid import MovieGrid, camera_of, mark_size
from stackalign.widgets._plot import BAD, CHOSEN, ELSEWHERE, GOOD, LIVE

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari.layers import Image, Points, Vectors
    from numpy.typing import NDArray

BOXES, MARKS = "particle boxes", "particles"
_GRIP = 7.0  # screen pixels within which a border is grabbed
_LINE, _MARK = 1.6, 8.0  # screen pixels
_EVERY = 0.016  # seconds between two answers to a drag
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
        self.grid = MovieGrid(viewer)
        self._boxes: tuple[BoxView, ...] = ()
        self._vectors: Vectors | None = None
        self._points: Points | None = None
        self._looks: tuple[Any, ...] = ()  # of the boxes as they are drawn
        self._marks: tuple[Any, ...] = ()
        self._behind = False  # whether the marks lag behind the borders
        self._picking = False
        viewer.mouse_drag_callbacks.append(self._on_drag)
        viewer.mouse_move_callbacks.append(self._on_move)
        camera_of(viewer).events.zoom.connect(self._on_zoom)

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
        if layer is self.grid.layer and axes == self.grid.axes:
            return
        self._remove_layers()
        self.grid.layer, self.grid.axes = layer, axes
        self._boxes = ()

    def pick(self, on: bool) -> None:
        """Let the mouse pick, or move the view as ever."""
        self._picking = on and self.grid.layer is not None
        self._viewer.cursor.style = "crosshair" if self._picking else "standard"

    def show(self, boxes: Sequence[BoxView], moving: bool = False) -> None:
        """Draw these boxes and no others; while they are ``moving``, only their borders: it must be quick."""
        shown = tuple(boxes)
        there = self._vectors is not None and self._vectors in self._viewer.layers
        if shown == self._boxes and (not shown or there) and (moving or not self._behind):
            return
        self._boxes = shown
        if self.grid.layer is None or (not shown and self._vectors is None):
            return
        vectors, points = self._layers()
        edges = np.array([edge for box in shown for edge in _edges(box)]).reshape(-1, 2, 2)
        if not np.array_equal(edges, vectors.data):
            vectors.data = edges
        looks = tuple((box.number, box.state, box.chosen) for box in shown)
        if looks != self._looks and shown:
            colours = [CHOSEN if box.chosen else _COLOUR[box.state] for box in shown]
            vectors.edge_color = [c for c in colours for _ in range(4)]
        self._looks = looks
        self._behind = moving
        if not moving:
            self._show_marks(points, [box for box in shown if box.number])

    def _show_marks(self, points: Points, boxes: list[BoxView]) -> None:
        places = np.array([box.centre for box in boxes]).reshape(-1, 2)
        if not np.array_equal(places, points.data):
            points.data = places
        marks = tuple((box.number, box.state) for box in boxes)
        if marks and marks != self._marks:
            points.size = _MARK * self.grid.screen
            points.symbol = [_SYMBOL[box.state] for box in boxes]
            points.face_color = [_COLOUR[box.state] for box in boxes]
            points.features = {"label": [_label(box) for box in boxes]}
            points.refresh_text()
        self._marks = marks

    def close(self) -> None:
        """Let go of the viewer and take the drawing off."""
        self.pick(False)
        camera_of(self._viewer).events.zoom.disconnect(self._on_zoom)
        for callbacks, ours in (
            (self._viewer.mouse_drag_callbacks, self._on_drag),
            (self._viewer.mouse_move_callbacks, self._on_move),
        ):
            if ours in callbacks:
                callbacks.remove(ours)
        self._remove_layers()
        self.grid.layer = None

    def _on_zoom(self, _event: Any = None) -> None:
        """Keep lines and marks as thick on the screen as they are."""
        if self._vectors is not None and self._vectors in self._viewer.layers:
            self._vectors.edge_width = _LINE * self.grid.screen
        if self._points is not None and self._points in self._viewer.layers and len(self._points.data):
            self._points.size = _MARK * self.grid.screen

    # layers

    def _remove_layers(self) -> None:
        for layer in (self._vectors, self._points):
            if layer is not None and layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        self._vectors = self._points = None

    def _layers(self) -> tuple[Vectors, Points]:
        from napari.layers import Points, Vectors

        layer = self.grid.layer
        assert layer is not None
        if self._vectors is None or self._vectors not in self._viewer.layers:
            self._vectors = Vectors(
                np.zeros((0, 2, 2)),
                name=BOXES,
                edge_width=_LINE * self.grid.screen,
                vector_style="line",
                **self.grid.place(),
            )
            self.grid.add(self._vectors)
        if self._points is None or self._points not in self._viewer.layers:
            self._marks = ()
            self._points = Points(
                np.zeros((0, 2)), name=MARKS, size=_MARK * self.grid.screen, border_width=0.0, features={"label": []},
                text={"string": "{label}", "color": "white", "size": 10, "anchor": "upper_left",
                      "translation": np.array([-1.0, 1.0]) * mark_size(layer)},
                **self.grid.place(),
            )  # fmt: skip
            self.grid.add(self._points)
        return self._vectors, self._points

    # the mouse

    def _under(self, point: NDArray[np.float64]) -> tuple[int, str]:
        """Return which box is under a point and what a drag there does; (0, "") for none."""
        grip = _GRIP * self.grid.screen
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
        if self._picking and (point := self.grid.pixel(event.position)) is not None:
            self.hovered.emit(tuple(point))

    def _on_drag(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        if not self._picking or event.button != 1:
            return
        begin = self.grid.pixel(event.position)
        if begin is None:
            return
        number, part = self._under(begin)
        camera = camera_of(viewer)
        pan, camera.mouse_pan = camera.mouse_pan, False
        last, moved, drawn = begin, False, 0.0
        try:
            yield
            while event.type == "mouse_move":
                point = self.grid.pixel(event.position)
                if point is not None:
                    last = point
                    moved = moved or float(np.abs(last - begin).max()) > _CLICK * self.grid.screen
                    now = time.perf_counter()
                    if moved and now - drawn >= _EVERY:
                        drawn = now
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
