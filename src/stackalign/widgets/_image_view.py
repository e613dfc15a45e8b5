"""Small images in a row that narrow with the panel: mean images, thumbnails that can be clicked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QGridLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from stackalign.widgets._plot import ground

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

DIVERGING = pg.ColorMap([0.0, 0.5, 1.0], [(230, 97, 1), (247, 247, 247), (94, 60, 153)])


class ImageTile(QWidget):
    """One image with a line of words above it.

    Signals
    -------
    clicked()
    """

    clicked = Signal()

    def __init__(self, height: int = 96, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.words = QLabel()
        self.words.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.words.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._view = pg.ViewBox(enableMouse=False, enableMenu=False, lockAspect=True, invertY=True)
        self.image = pg.ImageItem(axisOrder="row-major")
        self._view.addItem(self.image)
        self._frame = pg.GraphicsView()
        self._frame.setCentralItem(self._view)
        self._frame.setFixedHeight(height)
        self._frame.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._frame.scene().sigMouseClicked.connect(lambda _: self.clicked.emit())
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(1)
        column.addWidget(self.words)
        column.addWidget(self._frame)
        self._paint()

    def show_image(self, words: str, image: NDArray[Any], levels: tuple[float, float], diverging: bool = False) -> None:
        """Show an image (h, w) or the greatest values along z of a volume."""
        flat = np.nan_to_num(image.max(0) if image.ndim == 3 else image)
        self.words.setText(words)
        self.image.setColorMap(DIVERGING if diverging else pg.colormap.get("viridis"))
        low, high = levels
        self.image.setImage(flat, levels=(low, high if high > low else low + 1.0))
        height, width = flat.shape
        self._view.setRange(xRange=(0, width), yRange=(0, height), padding=0.0)

    def changeEvent(self, event: Any) -> None:
        """Follow the theme."""
        super().changeEvent(event)
        if event is not None and event.type() in (event.Type.PaletteChange, event.Type.StyleChange):
            self._paint()

    def _paint(self) -> None:
        self._frame.setBackground(ground(self))


class Tiles(QWidget):
    """Images in rows of three.

    Signals
    -------
    clicked(int)
        Which one.
    """

    clicked = Signal(int)

    def __init__(self, count: int, height: int = 96, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        self.tiles = [ImageTile(height) for _ in range(count)]
        for k, tile in enumerate(self.tiles):
            grid.addWidget(tile, k // 3, k % 3)
            tile.clicked.connect(lambda k=k: self.clicked.emit(k))

    def show_images(self, images: Sequence[tuple[str, NDArray[Any], tuple[float, float], bool]]) -> None:
        """Show so many of the tiles as there are images: words, image, levels, diverging or not."""
        for k, tile in enumerate(self.tiles):
            tile.setVisible(k < len(images))
            if k < len(images):
                tile.show_image(*images[k])


def levels_of(*images: NDArray[Any]) -> tuple[float, float]:
    """Return levels that suit all of the images: all but the extreme half percent."""
    low = min(float(np.nanpercentile(image, 0.5)) for image in images)
    high = max(float(np.nanpercentile(image, 99.5)) for image in images)
    return low, high
