"""Data, fit and residual of one spot side by side, and cuts through its centre."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from stackalign.widgets._plot import CURVE, DATA, ThemedPlot, colour_of, ground, is_dark, key_html

if TYPE_CHECKING:
    from stackalign.core.spots.gaussian import SpotFit
    from stackalign.picking import Patches

_SIDE = 96  # pixels
_PROFILE = 126


class PatchView(QWidget):
    """Three images and a profile plot; cheap enough to follow the mouse."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._images: list[pg.ImageItem] = []
        self._views: list[pg.ViewBox] = []
        self._grounds: list[pg.GraphicsView] = []
        images = QHBoxLayout()
        images.setContentsMargins(0, 0, 0, 0)
        images.setSpacing(4)
        diverging = pg.ColorMap([0.0, 0.5, 1.0], [(230, 97, 1), (247, 247, 247), (94, 60, 153)])
        for title, colours in (("data", "viridis"), ("fit", "viridis"), ("residual", diverging)):
            view = pg.ViewBox(enableMouse=False, enableMenu=False, lockAspect=True, invertY=True)
            image = pg.ImageItem(axisOrder="row-major")
            image.setColorMap(pg.colormap.get(colours) if isinstance(colours, str) else colours)
            view.addItem(image)
            frame = pg.GraphicsView()
            frame.setCentralItem(view)
            frame.setFixedHeight(_SIDE)
            frame.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            label = QLabel(title)
            label.setAlignment(Qt.AlignmentFlag.AlignCenter)
            stack = QVBoxLayout()
            stack.setSpacing(1)
            stack.addWidget(label)
            stack.addWidget(frame)
            images.addLayout(stack, 1)
            self._images.append(image)
            self._views.append(view)
            self._grounds.append(frame)
        self._centre = pg.ScatterPlotItem(symbol="+", size=12, pen=pg.mkPen("#ffffff", width=1.5))
        self._views[0].addItem(self._centre)
        self.profile = ThemedPlot("pixels from the middle of the box", "", _PROFILE)
        self.profile.setMouseEnabled(x=False, y=False)
        self._key = QLabel()
        self._key.setTextFormat(Qt.TextFormat.RichText)
        self._cuts: list[tuple[Any, Any]] = []
        for symbol, style in (("o", Qt.PenStyle.SolidLine), ("s", Qt.PenStyle.DashLine)):
            dots = pg.PlotDataItem(pen=None, symbol=symbol, symbolSize=5, symbolPen=None)
            line = pg.PlotDataItem()
            line.stroke = style
            self.profile.addItem(line)
            self.profile.addItem(dots)
            self._cuts.append((dots, line))
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addLayout(images)
        column.addWidget(self._key)
        column.addWidget(self.profile)
        self.patches: Patches | None = None
        self._paint()

    def show_patches(self, patches: Patches | None, fit: SpotFit | None = None) -> None:
        """Show a fit; None empties the view."""
        self.patches = patches
        self._key.setVisible(patches is not None)
        if patches is None or fit is None:
            for image in self._images:
                image.clear()
            self._centre.clear()
            for dots, line in self._cuts:
                dots.clear()
                line.clear()
            return
        data = np.nan_to_num(patches.data, nan=float(np.nanmin(patches.data)) if np.isfinite(patches.data).any() else 0)
        low, high = float(data.min()), float(data.max())
        levels = (low, high if high > low else low + 1.0)
        self._images[0].setImage(data, levels=levels)
        known = bool(np.isfinite(patches.model).all())
        if known:
            self._images[1].setImage(patches.model, levels=levels)
            reach = float(np.nanmax(np.abs(patches.residual))) or 1.0
            self._images[2].setImage(np.nan_to_num(patches.residual), levels=(-reach, reach))
            self._centre.setData([fit.x - patches.start[1] + 0.5], [fit.y - patches.start[0] + 0.5])
        else:
            self._images[1].clear()
            self._images[2].clear()
            self._centre.clear()
        height, width = data.shape
        for view in self._views:
            view.setRange(xRange=(0, width), yRange=(0, height), padding=0.0)
        for (dots, line), (places, values, fine, curve) in zip(
            self._cuts, (patches.rows, patches.columns), strict=True
        ):
            middle = (places[0] + places[-1]) / 2
            dots.setData(places - middle, np.nan_to_num(values))
            line.setData(fine - middle, curve, connect="finite")

    def paint_theme(self) -> None:
        """Take the colours of the theme."""
        self._paint()

    def changeEvent(self, event: Any) -> None:
        """Follow the theme."""
        super().changeEvent(event)
        if event is not None and event.type() in (event.Type.PaletteChange, event.Type.StyleChange):
            self._paint()

    def _paint(self) -> None:
        for frame in self._grounds:
            frame.setBackground(ground(self))
        colours = (colour_of(0, self), CURVE)
        for (dots, line), colour in zip(self._cuts, colours, strict=True):
            dots.setSymbolBrush(colour)
            line.setPen(pg.mkPen(colour, width=1.6, style=line.stroke))
        dark = DATA if not is_dark(self) else colours[0]
        self._key.setText(key_html([("● ━ along y", dark), ("■ ╍ along x", CURVE)]))
