"""The loss of a joint alignment, round by round: it falls, rises where the frames get larger, and comes to rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import QEvent
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from stackalign.widgets._style import note, say

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEIGHT = 80  # pixels: enough to see whether it still falls
_TICKS = 8


class LossPlot(QWidget):
    """A small plot of the loss against the round; hidden for methods that have none."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._loss: tuple[float, ...] = ()
        self._key = note()
        self._plot = pg.PlotWidget()
        self._plot.setFixedHeight(_HEIGHT)
        self._plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._plot.setMenuEnabled(False)
        self._plot.hideButtons()
        self._plot.setMouseEnabled(x=False, y=False)
        self._plot.setToolTip(
            "Mean loss a pixel after each round, in the movie's units. It steps up where larger frames are taken: these"
            " are noisier."
        )
        item = self._plot.getPlotItem()
        for side in ("left", "bottom"):
            item.getAxis(side).enableAutoSIPrefix(False)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(0)
        box.addWidget(self._key)
        box.addWidget(self._plot)
        self._paint()
        self.hide()

    @property
    def loss(self) -> tuple[float, ...]:
        """What is plotted."""
        return self._loss

    def show_loss(self, loss: Sequence[float]) -> None:
        """Plot a loss a round; an empty one hides the plot."""
        self._loss = tuple(loss)
        self.setVisible(bool(self._loss))
        self._plot.clear()
        if self._loss:
            ink = self.palette().color(QPalette.ColorRole.WindowText)
            rounds = np.arange(1, len(self._loss) + 1)
            dots = {"symbol": "o", "symbolSize": 4, "symbolBrush": ink, "symbolPen": None} if len(rounds) <= 60 else {}
            self._plot.plot(rounds, np.array(self._loss), pen=pg.mkPen(ink, width=1.5), **dots)
            apart = max(1, -(-len(rounds) // _TICKS))  # there is no half a round
            self._plot.getPlotItem().getAxis("bottom").setTickSpacing(apart, apart)
            finer = ", higher in finer frames" if bool((np.diff(self._loss) > 0).any()) else ""
            say(self._key, f"loss {self._loss[-1]:.4g} after round {len(self._loss)}{finer}")

    # colours follow the theme

    def changeEvent(self, event: QEvent | None) -> None:
        """Follow the theme."""
        super().changeEvent(event)
        if event is not None and event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange):
            self._paint()

    def _paint(self) -> None:
        ink = self.palette().color(QPalette.ColorRole.WindowText)
        dark = self.palette().color(QPalette.ColorRole.Window).lightness() < 128
        self._plot.setBackground("#1b1e23" if dark else "#ffffff")
        for side in ("left", "bottom"):
            axis = self._plot.getPlotItem().getAxis(side)
            axis.setPen(ink)
            axis.setTextPen(ink)
        if self._loss:
            self.show_loss(self._loss)
