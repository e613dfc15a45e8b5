"""How our panels look: rows that shrink to a narrow dock, one primary button, folds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QPushButton, QSizePolicy, QToolButton, QWidget
from superqt import QCollapsible

from stackalign.widgets._form import keep_wheel_away

if TYPE_CHECKING:
    from collections.abc import Callable

# legible on napari's dark and light ground alike
_PRIMARY = """
QPushButton { background: #1f6fb4; color: white; font-weight: 600; padding: 6px; border-radius: 3px; }
QPushButton:hover { background: #2a82cc; }
QPushButton:pressed { background: #185a92; }
QPushButton:disabled { background: #7a828c; color: #e0e0e0; font-weight: 400; }
"""
_LABEL_WIDTH = 62


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
    button.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
    button.clicked.connect(lambda: action())
    return button


def note(text: str = "") -> QLabel:
    """Return a label whose words wrap; hidden as long as it is empty."""
    label = QLabel(text)
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


def fold(title: str, content: QWidget, opened: bool = False) -> QCollapsible:
    """Return a section that opens on a click."""
    section = QCollapsible(title)
    section.setDuration(0)
    section.layout().setContentsMargins(0, 0, 0, 0)
    section.setContent(content)
    if opened:
        section.expand(animate=False)
    else:
        section.collapse(animate=False)
    return section
