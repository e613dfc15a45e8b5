"""Where the followed particles are in the frame on show: discs for those that count, crosses for the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from stackalign.widgets._grid import MovieGrid, camera_of, mark_size
from stackalign.widgets._plot import CHOSEN, ELSEWHERE, GOOD

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari.layers import Points
    from numpy.typing import NDArray

    from stackalign.core.spots.tracks import TrackSet

NAME = "followed particles"
_NEAR, _STILL, _SIZE = 12.0, 3.0, 16.0  # screen pixels


class TrackCanvas(QObject):
    """Draws one mark a particle and finds the one that is clicked.

    Signals
    -------
    chosen(int), toggled(int)
        A particle was clicked; with Ctrl.
    """

    chosen = Signal(int)
    toggled = Signal(int)

    def __init__(self, viewer: Any, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self.grid = MovieGrid(viewer)
        self._points: Points | None = None
        self._numbers: NDArray[np.int64] = np.zeros(0, np.int64)
        self._places: NDArray[np.float64] = np.zeros((0, 2))
        self._looks: tuple[Any, ...] = ()
        viewer.mouse_drag_callbacks.append(self._on_drag)
        camera_of(viewer).events.zoom.connect(self._on_zoom)

    def show(self, tracks: TrackSet | None, frame: int, excluded: set[int], chosen: int | None) -> None:
        """Draw the particles that were found in a frame of the tracks."""
        layer = self.grid.layer
        if layer is None or tracks is None or not 0 <= frame < tracks.length:
            if self._points is not None and self._points in self._viewer.layers:
                self._points.data = np.zeros((0, 2))
            self._numbers, self._places, self._looks = np.zeros(0, np.int64), np.zeros((0, 2)), ()
            return
        here = tracks.found[:, frame]
        places = tracks.position[here, frame][:, -2:]
        points = self._layer()
        if not np.array_equal(places, self._places) or len(points.data) != len(places):
            points.data = places
            if len(places):
                points.size = _SIZE * self.grid.screen
        self._numbers, self._places = tracks.ids[here], places
        numbers = [int(k) for k in self._numbers]
        looks = tuple((k, k in excluded, k == chosen) for k in numbers)
        if looks != self._looks and looks:
            before = {number: out for number, out, _ in self._looks}
            if any(before.get(number) != out for number, out, _ in looks):
                points.symbol = ["x" if out else "ring" for _, out, _ in looks]
            points.face_color = [CHOSEN if now else ELSEWHERE if out else GOOD for _, out, now in looks]
            if [number for number, _, _ in self._looks] != numbers:
                points.features = {"label": [str(k) for k in numbers]}
                points.refresh_text()
        self._looks = looks

    def remove(self) -> None:
        """Take the drawing off."""
        if self._points is not None and self._points in self._viewer.layers:
            self._viewer.layers.remove(self._points)
        self._points, self._looks = None, ()

    def close(self) -> None:
        """Let go of the viewer."""
        if self._on_drag in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._on_drag)
        camera_of(self._viewer).events.zoom.disconnect(self._on_zoom)
        self.grid.layer = None
        self.remove()

    def _on_zoom(self, _event: Any = None) -> None:
        """Keep the marks as large on the screen as they are."""
        if self._points is not None and self._points in self._viewer.layers and len(self._points.data):
            self._points.size = _SIZE * self.grid.screen

    def _layer(self) -> Points:
        from napari.layers import Points

        if self._points is None or self._points not in self._viewer.layers:
            assert self.grid.layer is not None
            size = mark_size(self.grid.layer)
            self._looks = ()
            self._points = Points(
                np.zeros((0, 2)), name=NAME, size=_SIZE * self.grid.screen, border_width=0.0, symbol="ring",
                features={"label": []},
                text={"string": "{label}", "color": "white", "size": 10, "anchor": "upper_left",
                      "translation": np.array([-1.5, 1.5]) * size},
                **self.grid.place(),
            )  # fmt: skip
            self.grid.add(self._points)
        return self._points

    def at(self, point: NDArray[np.float64]) -> int | None:
        """Return the particle near a place, pixels; None if there is none."""
        if not len(self._places):
            return None
        away = np.sqrt(((self._places - point[-2:]) ** 2).sum(1))
        k = int(away.argmin())
        size = 0.0 if self.grid.layer is None else 1.5 * mark_size(self.grid.layer)
        return int(self._numbers[k]) if away[k] <= max(_NEAR * self.grid.screen, size) else None

    def _on_drag(self, _viewer: Any, event: Any) -> Generator[None, None, None]:
        if event.button != 1 or (begin := self.grid.pixel(event.position)) is None:
            return
        number, moved = self.at(begin), False
        yield
        while event.type == "mouse_move":
            point = self.grid.pixel(event.position)
            moved = moved or point is None or float(np.abs(point - begin).max()) > _STILL * self.grid.screen
            yield
        if number is not None and not moved:
            with_ctrl = "Control" in [str(getattr(m, "name", m)) for m in event.modifiers]
            (self.toggled if with_ctrl else self.chosen).emit(number)
