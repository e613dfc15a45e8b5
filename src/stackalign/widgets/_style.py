"""How our panels look: rows that shrink to a narrow dock, one primary button, folds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QPushButton, QSizePolicy, QToolButton, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from collections.abc import Callable

# legible on napari's dark and light ground alike
_PRIMARY = """
QPushButton { background: #1f6fb4; color: white; font-weight: 600; padding: 6px; border-radius: 3px; }
QPushButton:hover { background: #2a82cc; }
QPushButton:pressed { background: #185a92; }
QPushButton:disabled { background: #7a828c; color: #e0e0e0; font-weight: 400; }
"""
_SMALL = """
QToolButton { border: 1px solid rgba(128, 128, 128, 90); border-radius: 3px; padding: 2px 5px; }
QToolButton:checked { border: 1px solid #2a82cc; background: rgba(42, 130, 204, 90); }
QToolButton:disabled { border: 1px solid rgba(128, 128, 128, 40); }
QToolButton::menu-indicator { image: none; width: 0; }
"""
_LABEL_WIDTH = 76
_INDENT = 8


class _IgnoreWheel(QObject):
    """Scrolling a panel must not change the value that happens to be under the mouse."""

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        if (
            event is not None
            and event.type() == QEvent.Type.Wheel
            and isinstance(watched, QWidget)
            and not watched.hasFocus()
        ):
            event.ignore()
            return True
        return False


_WHEEL = _IgnoreWheel()


def keep_wheel_away(widget: QWidget) -> None:
    """Let the wheel scroll the panel instead of changing ``widget``, until it has the focus."""
    widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    widget.installEventFilter(_WHEEL)


def narrow(box: QWidget) -> None:
    """Let a spin box shrink: two of napari's own width do not fit beside each other in a narrow panel."""
    box.setStyleSheet("QAbstractSpinBox { min-width: 44px; }")
    box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)


def narrow_combo() -> QComboBox:
    """Return a box that shrinks with the panel and that the wheel passes over."""
    box = QComboBox()
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(6)
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    keep_wheel_away(box)
    return box


def primary_button(text: str) -> QPushButton:
    """Return the one button of a panel that does its work."""
    button = QPushButton(text)
    button.setStyleSheet(_PRIMARY)
    button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return button


def small_button(text: str, tip: str, action: Callable[[], object]) -> QToolButton:
    """Return a flat button for what is done now and then."""
    button = QToolButton()
    button.setText(text)
    button.setToolTip(tip)
    button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextOnly)
    button.setStyleSheet(_SMALL)
    button.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
    button.clicked.connect(lambda: action())
    return button


def menu_button(text: str, tip: str) -> QToolButton:
    """Return a button that opens a menu at once; the mark for it is in its text, where it cannot cover the words."""
    button = QToolButton()
    button.setText(text)
    button.setToolTip(tip)
    button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
    button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextOnly)
    button.setStyleSheet(_SMALL)
    return button


def note(text: str = "", strong: bool = False) -> QLabel:
    """Return a label whose words wrap; hidden as long as it is empty."""
    label = QLabel(text)
    if strong:
        label.setStyleSheet("font-weight: 600;")
    label.setWordWrap(True)
    label.setVisible(bool(text))
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    return label


def say(label: QLabel, text: str) -> None:
    """Put words on a note, or hide it."""
    label.setText(text)
    label.setVisible(bool(text))


def row(label: str, *widgets: QWidget, tip: str = "") -> QWidget:
    """Return a labelled row; the first widget takes the room that is left."""
    line = QWidget()
    box = QHBoxLayout(line)
    box.setContentsMargins(0, 0, 0, 0)
    box.setSpacing(4)
    if label:
        words = QLabel(label)
        words.setMinimumWidth(_LABEL_WIDTH)
        words.setToolTip(tip)
        box.addWidget(words)
    for k, widget in enumerate(widgets):
        box.addWidget(widget, 0 if k else 1)
        if tip and not widget.toolTip():
            widget.setToolTip(tip)
    return line


class Fold(QWidget):
    """A section that opens on a click; as high as its content, whatever that grows to.

    Parameters
    ----------
    title : str
        On the line that is always there.
    content : QWidget
        Below it while the section is open.
    opened : bool
        Whether it starts open.
    """

    def __init__(self, title: str, content: QWidget, opened: bool = False, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.content = content
        self.button = QToolButton()
        self.button.setText(title)
        self.button.setCheckable(True)
        self.button.setAutoRaise(True)
        self.button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.button.setStyleSheet("QToolButton { border: none; background: transparent; font-weight: 600; }")
        self.button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addWidget(self.button)
        column.addWidget(content)
        content.setContentsMargins(_INDENT, 0, 0, 0)
        self.button.toggled.connect(self._toggle)
        self.button.setChecked(opened)
        self._toggle(opened)

    @property
    def opened(self) -> bool:
        """Whether the content is shown."""
        return self.button.isChecked()

    def open(self, opened: bool = True) -> None:
        """Show or hide the content."""
        self.button.setChecked(opened)

    def _toggle(self, opened: bool) -> None:
        self.content.setVisible(opened)
        self.button.setArrowType(Qt.ArrowType.DownArrow if opened else Qt.ArrowType.RightArrow)
