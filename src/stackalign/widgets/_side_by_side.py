"""Parts of a panel that stand beside each other where there is room, else below each other."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QBoxLayout, QWidget

from stackalign.widgets._panel import WIDE

_BORDER = 30  # pixels that a panel's margins and scroll bar take


class SideBySide(QWidget):
    """Holds parts of one width.

    Parameters
    ----------
    *parts : QWidget
        From left to right, or from top to bottom.
    """

    def __init__(self, *parts: QWidget) -> None:
        super().__init__()
        self._line = QBoxLayout(QBoxLayout.Direction.TopToBottom, self)
        self._line.setContentsMargins(0, 0, 0, 0)
        self._line.setSpacing(6)
        for part in parts:
            self._line.addWidget(part, 1)

    def resizeEvent(self, event: Any) -> None:
        """Turn the line."""
        super().resizeEvent(event)
        wide = self.width() >= WIDE - _BORDER
        self._line.setDirection(QBoxLayout.Direction.LeftToRight if wide else QBoxLayout.Direction.TopToBottom)
