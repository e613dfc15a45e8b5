"""Colours and frames of our plots, which follow the theme."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyqtgraph as pg
from qtpy.QtCore import QEvent
from qtpy.QtGui import QColor, QPalette
from qtpy.QtWidgets import QSizePolicy, QWidget

if TYPE_CHECKING:
    from collections.abc import Sequence

# Okabe & Ito's colours, told apart with every kind of colour vision; words and shapes stand beside them
GOOD, BAD, LIVE, CHOSEN, ELSEWHERE = "#009e73", "#d55e00", "#56b4e9", "#f0e442", "#999999"
DATA, CURVE = "#0072b2", "#e69f00"
SERIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a500", "#8c6bb1")


def is_dark(widget: QWidget) -> bool:
    """Return whether a widget stands on a dark ground."""
    return widget.palette().color(QPalette.ColorRole.Window).lightness() < 128


def ink(widget: QWidget) -> QColor:
    """Return the colour of axes and words on the widget's ground."""
    return QColor("#d6d6d6" if is_dark(widget) else "#303030")


def ground(widget: QWidget) -> str:
    """Return the colour behind plots."""
    return "#1b1e23" if is_dark(widget) else "#ffffff"


def shade(colour: str, alpha: int) -> QColor:
    """Return a colour that lets the ground through; alpha 0 to 255."""
    out = QColor(colour)
    out.setAlpha(alpha)
    return out


class ThemedPlot(pg.PlotWidget):
    """A plot without a menu that narrows with its panel and follows the theme.

    Parameters
    ----------
    bottom, left : str
        What the axes show.
    height : int
        Pixels.
    """

    def __init__(self, bottom: str, left: str, height: int, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.item: Any = self.getPlotItem()
        self.setFixedHeight(height)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setMenuEnabled(False)
        self.hideButtons()
        self.setMouseEnabled(x=True, y=False)
        self.item.setLabel("bottom", bottom)
        self.item.setLabel("left", left)
        self.item.showGrid(x=False, y=True, alpha=0.25)
        self.paint_theme()

    def paint_theme(self) -> None:
        """Take the colours of the theme."""
        if not hasattr(self, "item"):  # while the base class sets itself up
            return
        self.setBackground(ground(self))
        for side in ("left", "bottom"):
            axis = self.item.getAxis(side)
            axis.setPen(ink(self))
            axis.setTextPen(ink(self))

    def changeEvent(self, event: QEvent | None) -> None:
        """Follow the theme."""
        super().changeEvent(event)
        if event is not None and event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange):
            self.paint_theme()


def colour_of(index: int, widget: QWidget) -> str:
    """Return the colour of the index-th curve; one that can be read on the ground."""
    colour = SERIES[index % len(SERIES)]
    return "#56b4e9" if colour == "#0072b2" and is_dark(widget) else colour


def key_html(parts: Sequence[tuple[str, str]]) -> str:
    """Return a line of coloured words, for above a plot."""
    return "&nbsp;&nbsp;&nbsp;".join(f'<span style="color:{colour}">{words}</span>' for words, colour in parts)
