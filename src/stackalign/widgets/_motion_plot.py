"""The motion over time: drift and angle with their error bands, flagged frames, a cursor tied to the time slider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import QEvent, Qt, Signal
from qtpy.QtGui import QColor, QPalette
from qtpy.QtWidgets import QLabel, QSizePolicy, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from stackalign.session import Motion

# Okabe & Ito's colours, told apart with every kind of colour vision; the dashes tell the lines apart without colour
_STYLE: dict[str, tuple[str, Qt.PenStyle]] = {
    "z": ("#cc79a7", Qt.PenStyle.DotLine),
    "y": ("#0072b2", Qt.PenStyle.SolidLine),
    "x": ("#e69f00", Qt.PenStyle.DashLine),
    "angle": ("#009e73", Qt.PenStyle.DashDotLine),
}
_STROKE = {"z": "┈┈", "y": "━━", "x": "╍╍", "angle": "━·"}  # the dashes of the lines, as letters
_ON_DARK = {"y": "#56b4e9"}  # the dark blue cannot be read on a dark ground
_FLAG = "#d55e00"
_LEAST_RANGE = 0.2  # px: noise of a thousandth must not fill the plot
_HEIGHT = 190  # pixels: high enough to read, low enough to leave the result below in sight


class MotionPlot(QWidget):
    """A plot of drift (px) and, where frames turn, angle (degrees) against the frame number.

    Signals
    -------
    frame_clicked(int)
        The user wants to see this frame.
    """

    frame_clicked = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._motion: Motion | None = None
        self._first = 0
        self._plot = pg.PlotWidget()
        self._plot.setFixedHeight(_HEIGHT)
        self._plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._plot.setMenuEnabled(False)
        self._plot.hideButtons()
        self._plot.setMouseEnabled(x=True, y=False)
        self._item = self._plot.getPlotItem()
        self._item.setLabel("bottom", "frame")
        self._item.setLabel("left", "drift (px)")
        self._item.showGrid(x=False, y=True, alpha=0.25)
        for side in ("left", "bottom", "right"):
            self._item.getAxis(side).enableAutoSIPrefix(False)  # no "(x0.001)": pixels and degrees as they are
        self._item.vb.setLimits(minYRange=_LEAST_RANGE)
        self._turn = pg.ViewBox()
        self._turn.setMouseEnabled(x=False, y=False)
        self._cursor = pg.InfiniteLine(angle=90, movable=False)
        self._item.scene().addItem(self._turn)
        self._item.getAxis("right").linkToView(self._turn)
        self._turn.setXLink(self._item.vb)
        self._item.vb.sigResized.connect(lambda: self._turn.setGeometry(self._item.vb.sceneBoundingRect()))
        self._item.addItem(self._cursor)
        self._plot.scene().sigMouseClicked.connect(self._on_click)
        self._plot.setToolTip(
            "How far the scene moved. Click: go to that frame. Wheel: zoom in time; double click: all."
        )
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(0)
        self._key = QLabel()  # above the plot: a legend inside would cover the curves
        self._key.setTextFormat(Qt.TextFormat.RichText)
        box.addWidget(self._key)
        box.addWidget(self._plot)
        self._paint()

    @property
    def motion(self) -> Motion | None:
        """What is plotted."""
        return self._motion

    def show_motion(self, motion: Motion | None, first: int = 0) -> None:
        """Plot a motion whose first frame has the number ``first``; None empties the plot."""
        self._motion, self._first = motion, first
        for item in [i for i in self._item.items if i is not self._cursor]:
            self._item.removeItem(item)
        self._turn.clear()
        turning = motion is not None and bool(np.abs(np.nan_to_num(motion.angle)).max(initial=0.0) > 0.0005)
        self._item.showAxis("right", turning)
        self._key.setVisible(motion is not None)
        if motion is None:
            return
        names = [*motion.axes, *(["angle"] if turning else [])]
        key = [f'<span style="color:{self._colour(name)}">{_STROKE[name]} {name}</span>' for name in names]
        frames = np.arange(len(motion.drift)) + first
        for k, name in enumerate(motion.axes):
            self._curve(self._item, frames, motion.drift[:, k], motion.error[:, k], name)
        if turning:
            self._item.setLabel("right", "angle (°)")
            curve = pg.PlotDataItem(frames, motion.angle, pen=self._pen("angle"), connect="finite")
            self._turn.addItem(curve)
            self._turn.enableAutoRange(axis=pg.ViewBox.YAxis)
        flagged = np.flatnonzero(motion.flagged)
        if len(flagged):
            height = np.nan_to_num(motion.drift).max(axis=1)[flagged]
            marks = pg.ScatterPlotItem(
                frames[flagged], height, symbol="t", size=11, brush=_FLAG, pen=pg.mkPen(self._ink(), width=0.5),
                hoverable=True, tip=lambda x, y, data: f"frame {x:.0f}: {data}",
                data=[motion.reasons[t] for t in flagged],
            )  # fmt: skip
            self._item.addItem(marks)
            key.append(f'<span style="color:{_FLAG}">▼ {len(flagged)} flagged</span>')
        self._key.setText("&nbsp;&nbsp;&nbsp;".join(key))
        self.show_all()

    def show_all(self) -> None:
        """Zoom out to all frames."""
        if self._motion is not None:
            low, high = self._first, self._first + max(len(self._motion.drift) - 1, 1)
            self._item.setXRange(low, high, padding=0.02)
            self._item.enableAutoRange(axis=pg.ViewBox.YAxis)

    def show_frame(self, frame: int) -> None:
        """Put the cursor on ``frame``."""
        self._cursor.setPos(frame)

    def _curve(self, target: Any, frames: Any, values: Any, error: Any, name: str) -> None:
        known = np.isfinite(values)
        if np.isfinite(error[known]).any():
            half = np.nan_to_num(error[known])
            low = pg.PlotDataItem(frames[known], values[known] - half, pen=None)
            high = pg.PlotDataItem(frames[known], values[known] + half, pen=None)
            shade = QColor(self._colour(name))
            shade.setAlpha(70)
            target.addItem(pg.FillBetweenItem(low, high, brush=shade))
        symbol = {"symbol": "o", "symbolSize": 5, "symbolBrush": self._colour(name), "symbolPen": None}
        few = symbol if len(frames) <= 30 else {}
        target.addItem(pg.PlotDataItem(frames, values, pen=self._pen(name), connect="finite", **few))

    def _on_click(self, event: Any) -> None:
        if event.double():
            self.show_all()
        elif self._motion is not None and event.button() == Qt.MouseButton.LeftButton:
            x = self._item.vb.mapSceneToView(event.scenePos()).x()
            last = self._first + len(self._motion.drift) - 1
            self.frame_clicked.emit(int(np.clip(round(x), self._first, last)))

    # colours follow the theme

    def changeEvent(self, event: QEvent | None) -> None:
        """Follow the theme."""
        super().changeEvent(event)
        if event is not None and event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange):
            self._paint()

    def _dark(self) -> bool:
        return self.palette().color(QPalette.ColorRole.Window).lightness() < 128

    def _ink(self) -> QColor:
        return QColor("#d6d6d6" if self._dark() else "#303030")

    def _colour(self, name: str) -> str:
        return _ON_DARK.get(name, _STYLE[name][0]) if self._dark() else _STYLE[name][0]

    def _pen(self, name: str) -> Any:
        return pg.mkPen(self._colour(name), width=1.8, style=_STYLE[name][1])

    def _paint(self) -> None:
        dark = self._dark()
        self._plot.setBackground("#1b1e23" if dark else "#ffffff")
        for side in ("left", "bottom", "right"):
            axis = self._item.getAxis(side)
            axis.setPen(self._ink())
            axis.setTextPen(self._ink())
        self._cursor.setPen(pg.mkPen(self._ink(), width=1))
        if self._motion is not None:
            self.show_motion(self._motion, self._first)
