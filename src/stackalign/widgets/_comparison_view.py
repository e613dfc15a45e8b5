"""A picture of two layers on each other: magenta and green, squares in turns, or blinking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QRect, QSize, Qt, QTimer
from qtpy.QtGui import QColor, QImage, QPainter
from qtpy.QtWidgets import QSizePolicy, QSlider, QVBoxLayout, QWidget

from stackalign.widgets._plot import ground
from stackalign.widgets._style import keep_wheel_away, narrow_combo, note, row, say

if TYPE_CHECKING:
    from stackalign.comparison import Comparison

_BLINK_MS = 500
_WORDS = {
    "overlay": "magenta and green",
    "checkerboard": "checkerboard",
    "blink": "blink",
    "moving": "moving alone",
    "reference": "reference alone",
}


class ComparisonView(QWidget):
    """Shows a `Comparison`; the user chooses how."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.comparison: Comparison | None = None
        self.look = narrow_combo()
        for value, words in _WORDS.items():
            self.look.addItem(words, value)
        self.tiles = QSlider(Qt.Orientation.Horizontal)
        self.tiles.setRange(2, 24)
        self.tiles.setValue(6)
        keep_wheel_away(self.tiles)
        self.squares = row("Squares", self.tiles, tip="How many squares fit along the longer side")
        self.picture = _Picture()
        self.about = note()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(row("Compare", self.look, tip="How both layers are shown on each other, as they lie now"))
        for widget in (self.squares, self.picture, self.about):
            column.addWidget(widget)
        self._timer = QTimer(self, interval=_BLINK_MS)
        self._timer.timeout.connect(self._turn)
        self._second = False
        self.look.currentIndexChanged.connect(self._draw)
        self.tiles.valueChanged.connect(self._draw)
        self._draw()

    def show_comparison(self, comparison: Comparison | None, aspect: float = 1.0) -> None:
        """Show two images; None: nothing. ``aspect``: height of a pixel in widths."""
        self.comparison = comparison
        self.picture.aspect = aspect
        self.setVisible(comparison is not None)
        self._draw()

    def set_look(self, look: str) -> None:
        """Choose how they are compared."""
        self.look.setCurrentIndex(self.look.findData(look))

    def stop(self) -> None:
        """Blink no more."""
        self._timer.stop()

    def _turn(self) -> None:
        self._second = not self._second
        self._draw()

    def _draw(self) -> None:
        look = self.look.currentData()
        self.squares.setVisible(look == "checkerboard")
        blinking = look == "blink" and self.comparison is not None
        if blinking != self._timer.isActive():
            self._timer.start() if blinking else self._timer.stop()
        if self.comparison is None:
            self.picture.show_colours(None)
            return
        if look == "blink":
            look = "moving" if self._second else "reference"
        self.picture.show_colours(self.comparison.picture(look, self.tiles.value()))
        key = {
            "overlay": "Magenta: moving. Green: reference. Grey and white: both agree.",
            "checkerboard": "Squares of both in turns: lines run on where they agree.",
        }.get(look, f"{look.capitalize()}.")
        if self.comparison.part:
            key += " Only the part around the moving layer is shown."
        if self.comparison.shared == 0:
            key = "As they lie now, the layers do not meet: only the reference is seen."
        say(self.about, key)

    def changeEvent(self, event: Any) -> None:
        """Follow the theme."""
        super().changeEvent(event)
        if event is not None and event.type() in (event.Type.PaletteChange, event.Type.StyleChange):
            self.picture.update()


class _Picture(QWidget):
    """An image as wide as there is room, in its own proportions."""

    def __init__(self) -> None:
        super().__init__()
        self.aspect = 1.0
        self._image: QImage | None = None
        policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)
        self.setAccessibleName("Both layers on each other")

    def show_colours(self, colours: Any) -> None:
        """Show (h, w, 3) bytes."""
        if colours is None:
            self._image = None
        else:
            height, width = colours.shape[:2]
            self._image = QImage(colours.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888).copy()
        self.setFixedHeight(self.heightForWidth(self.width()))
        self.update()

    def hasHeightForWidth(self) -> bool:
        return True

    def heightForWidth(self, width: int) -> int:
        """As high as the image at this width; tall ones stop at a square."""
        if self._image is None:
            return 0
        return max(min(round(width * self._ratio()), width, 420), 24)

    def sizeHint(self) -> QSize:
        """Whatever there is."""
        return QSize(280, self.heightForWidth(280))

    def _ratio(self) -> float:
        assert self._image is not None
        return self._image.height() * self.aspect / max(self._image.width(), 1)

    def resizeEvent(self, event: Any) -> None:
        """Keep the proportions."""
        super().resizeEvent(event)
        height = self.heightForWidth(self.width())
        if height != self.height():
            self.setFixedHeight(height)

    def paintEvent(self, _event: Any) -> None:
        """Draw the image in the middle."""
        painter = QPainter(self)
        if self._image is None:
            return
        painter.fillRect(self.rect(), QColor(ground(self)))
        width = min(self.width(), round(self.height() / self._ratio()))
        height = min(self.height(), round(width * self._ratio()))
        left = (self.width() - width) // 2
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.drawImage(QRect(left, (self.height() - height) // 2, width, height), self._image)
