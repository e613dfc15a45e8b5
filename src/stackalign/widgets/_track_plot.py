"""Curves of many particles over time in one plot: drift or residual, linked by what is chosen and excluded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt, Signal

from stackalign.widgets._plot import ELSEWHERE, ThemedPlot, colour_of, ground, ink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from qtpy.QtWidgets import QComboBox, QWidget

_MOST = 1200  # points a curve is drawn with: more cannot be told apart on a screen
_NEAR = 14.0  # screen pixels within which a click finds a curve


class TrackPlot(ThemedPlot):
    """One curve a particle against the frame.

    Signals
    -------
    chosen(int)
        A curve was clicked.
    toggled(int)
        A curve was clicked with Ctrl: include or exclude it.
    frame_clicked(int)
        Where the click was.
    """

    chosen = Signal(int)
    toggled = Signal(int)
    frame_clicked = Signal(int)

    def __init__(self, left: str, height: int, tip: str, parent: QWidget | None = None) -> None:
        super().__init__("frame", left, height, parent)
        self.setToolTip(tip)
        self._numbers: tuple[int, ...] = ()
        self._values: NDArray[np.float64] = np.zeros((0, 0))
        self._first = 0
        self._curves: list[Any] = []
        self._looks: list[tuple[bool, bool]] = []
        self._cursor = pg.InfiniteLine(angle=90, movable=False)
        self._label = pg.TextItem("", anchor=(0.5, 1.1), fill=pg.mkBrush(128, 128, 128, 60))
        self._label.setZValue(9)
        self._label.hide()
        self.item.addItem(self._cursor, ignoreBounds=True)
        self.item.addItem(self._label, ignoreBounds=True)
        self.scene().sigMouseClicked.connect(self._on_click)
        self.paint_theme()

    def show_curves(self, numbers: Sequence[int], values: NDArray[np.float64], first: int = 0) -> None:
        """Plot curves (P, T) of these particles; the first point belongs to the frame ``first``."""
        for curve in self._curves:
            self.item.removeItem(curve)
        self._numbers, self._values, self._first = tuple(numbers), values, first
        self._curves, self._looks = [], []
        for row in values:
            x, y = _thinned(row)
            curve = pg.PlotDataItem(x + first, y, connect="finite", skipFiniteCheck=True)
            self.item.addItem(curve)
            self._curves.append(curve)
            self._looks.append((False, False))
        length = values.shape[1] if values.ndim == 2 else 0
        self.item.setXRange(first, first + max(length - 1, 1), padding=0.02)
        self.item.enableAutoRange(axis=pg.ViewBox.YAxis)
        self._style(force=True)

    def mark(self, excluded: set[int], chosen: int | None) -> None:
        """Draw excluded curves grey and dashed, the chosen one thick."""
        looks = [(number in excluded, number == chosen) for number in self._numbers]
        changed = [k for k, look in enumerate(looks) if look != self._looks[k]]
        self._looks = looks
        for k in changed:
            self._paint_curve(k)
        self._place_label()

    def show_frame(self, frame: int) -> None:
        """Put the cursor on a frame."""
        self._cursor.setPos(frame)

    def paint_theme(self) -> None:
        """Take the colours of the theme."""
        super().paint_theme()
        if hasattr(self, "_label"):
            self._cursor.setPen(pg.mkPen(ink(self), width=1))
            self._style(force=True)

    def _style(self, force: bool = False) -> None:
        for k in range(len(self._curves)):
            self._paint_curve(k)
        self._place_label()

    def _paint_curve(self, k: int) -> None:
        excluded, chosen = self._looks[k]
        colour = ELSEWHERE if excluded else colour_of(self._numbers[k] - 1, self)
        style = Qt.PenStyle.DashLine if excluded else Qt.PenStyle.SolidLine
        self._curves[k].setPen(pg.mkPen(colour, width=3 if chosen else 1, style=style))
        self._curves[k].setZValue(2 if chosen else 0 if excluded else 1)

    def _place_label(self) -> None:
        k = next((k for k, look in enumerate(self._looks) if look[1]), None)
        known = np.flatnonzero(np.isfinite(self._values[k])) if k is not None else np.zeros(0, int)
        self._label.setVisible(len(known) > 0)
        if k is not None and len(known):
            t = int(known[len(known) // 4])
            self._label.fill = pg.mkBrush(ground(self))
            self._label.setText(f"{self._numbers[k]}", color=ink(self))
            self._label.setPos(t + self._first, float(self._values[k, t]))

    def curve_at(self, x: float, y: float) -> int | None:
        """Return the particle whose curve passes near a point of the plot; None if there is none."""
        if not self._values.size:
            return None
        t = int(np.clip(round(x) - self._first, 0, self._values.shape[1] - 1))
        (_, (low, high)) = self.item.vb.viewRange()
        per_pixel = (high - low) / max(self.item.vb.height(), 1)
        around = self._values[:, max(t - 2, 0) : t + 3]
        off = np.where(np.isfinite(around), np.abs(around - y), np.inf).min(1) / per_pixel
        k = int(np.argmin(off))
        return self._numbers[k] if off[k] <= _NEAR else None

    def _on_click(self, event: Any) -> None:
        if event.button() != Qt.MouseButton.LeftButton or not self._values.size:
            return
        point = self.item.vb.mapSceneToView(event.scenePos())
        number = self.curve_at(point.x(), point.y())
        if number is not None and event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self.toggled.emit(number)
            return
        if number is not None:
            self.chosen.emit(number)
        last = self._first + self._values.shape[1] - 1
        self.frame_clicked.emit(int(np.clip(round(point.x()), self._first, last)))


def _thinned(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return places and values that draw the same: the least and the greatest value of each of many short pieces."""
    n = len(values)
    if n <= _MOST:
        return np.arange(n, dtype=float), values
    step = -(-2 * n // _MOST)
    whole = n // step * step
    blocks = values[:whole].reshape(-1, step)
    lost = ~np.isfinite(blocks)
    low = np.where(lost, np.inf, blocks).argmin(1)
    high = np.where(lost, -np.inf, blocks).argmax(1)
    places = np.sort(np.stack([low, high], 1), axis=1) + np.arange(len(blocks))[:, None] * step
    index = np.concatenate([places.ravel(), np.arange(whole, n)])
    return index.astype(float), values[index]


def offer_directions(combo: QComboBox, ndim: int) -> None:
    """Offer the axes and the distance in a choice of what curves show; y is chosen first, and a choice is kept."""
    if combo.count() == ndim + 1:
        return
    combo.blockSignals(True)
    combo.clear()
    for k, axis in enumerate("zyx"[-ndim:]):
        combo.addItem(f"along {axis}", k)
    combo.addItem("distance", -1)
    combo.setCurrentIndex(ndim - 2)
    combo.blockSignals(False)


def along_direction(values: NDArray[np.float64], direction: int) -> NDArray[np.float64]:
    """Return what is drawn of (P, T, d) values: one axis, or the distance (-1)."""
    return np.asarray(np.sqrt((values**2).sum(2)) if direction == -1 else values[:, :, direction])
