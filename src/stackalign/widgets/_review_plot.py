"""The motion plot with a brush: a drag selects frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt, Signal

from stackalign.widgets._motion_plot import MotionPlot
from stackalign.widgets._plot import LIVE, shade

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from stackalign.runs import Motion


class ReviewPlot(MotionPlot):
    """Drift and angle over time; dragging with the left button selects frames, the wheel zooms.

    Signals
    -------
    brushed(int, int)
        First and last frame of what was dragged over.
    """

    brushed = Signal(int, int)

    def __init__(self, parent: QWidget | None = None) -> None:
        self._brush = pg.LinearRegionItem(brush=shade(LIVE, 60), movable=False)
        self._brush.hide()
        super().__init__(parent)
        self._item.addItem(self._brush, ignoreBounds=True)
        self._item.vb.mouseDragEvent = self._on_drag
        self._plot.setToolTip("Drag: select frames. Click: go to that frame. Wheel: zoom in time; double click: all.")

    def show_motion(self, motion: Motion | None, first: int = 0) -> None:
        """Plot a motion; what is selected stays."""
        super().show_motion(motion, first)
        if self._brush not in self._item.items:
            self._item.addItem(self._brush, ignoreBounds=True)

    def select(self, first: int | None, last: int = 0) -> None:
        """Mark the frames ``first`` to ``last``; None: no frames."""
        self._brush.setVisible(first is not None)
        if first is not None:
            self._brush.setRegion((first - 0.5, last + 0.5))

    def frames_between(self, begin: float, end: float) -> tuple[int, int]:
        """Return the first and the last frame between two places of the plot."""
        count = 1 if self.motion is None else len(self.motion.drift)
        low, high = sorted((begin, end))
        first = int(np.clip(np.ceil(low - 0.5), self._first, self._first + count - 1))
        last = int(np.clip(np.floor(high + 0.5), self._first, self._first + count - 1))
        return min(first, last), max(first, last)

    def _on_drag(self, event: Any, axis: int | None = None) -> None:
        if event.button() != Qt.MouseButton.LeftButton or self.motion is None:
            event.ignore()
            return
        event.accept()
        view = self._item.vb
        begin = view.mapSceneToView(event.buttonDownScenePos()).x()
        end = view.mapSceneToView(event.scenePos()).x()
        first, last = self.frames_between(begin, end)
        self.select(first, last)
        if event.isFinish():
            self.brushed.emit(first, last)
