"""The button that aligns, its progress with stage and time left, and Cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from stackalign.widgets._style import note, primary_button, say

if TYPE_CHECKING:
    from stackalign.widgets._runner import Report


class RunSection(QWidget):
    """Starts and cancels; shows how far it is. Knows nothing of what runs.

    Signals
    -------
    start(), cancel()
        The user's clicks.
    """

    start = Signal()
    cancel = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.button = primary_button("Align")
        self.button.setObjectName("align")
        self.stop = QPushButton("Cancel")
        self.stop.setObjectName("cancel")
        self.stop.setEnabled(False)
        self.stop.setSizePolicy(QSizePolicy.Policy.Minimum, QSizePolicy.Policy.Fixed)
        self.why = note()
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(8)
        self.stage, self.count, self.left = QLabel(), QLabel(), QLabel()
        self.stage.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        self.stage.setWordWrap(True)
        self.left.setAlignment(Qt.AlignmentFlag.AlignRight)
        buttons, words = QHBoxLayout(), QHBoxLayout()
        for line in (buttons, words):
            line.setContentsMargins(0, 0, 0, 0)
        buttons.addWidget(self.button, 1)
        buttons.addWidget(self.stop)
        words.addWidget(self.count, 1)
        words.addWidget(self.left)
        self.progress = QWidget()
        inner = QVBoxLayout(self.progress)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.setSpacing(2)
        inner.addWidget(self.bar)
        inner.addLayout(words)
        inner.addWidget(self.stage)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(buttons)
        column.addWidget(self.why)
        column.addWidget(self.progress)
        self.progress.hide()
        self.button.clicked.connect(self.start)
        self.stop.clicked.connect(self.cancel)

    def show_ready(self, text: str, obstacle: str, visible: bool = True) -> None:
        """Name what the button does, or why it cannot be pressed.

        Parameters
        ----------
        text : str
            Verb and object.
        obstacle : str
            Empty if the button can be pressed.
        visible : bool
            Whether the obstacle is written under the button too, not only in its tooltip.
        """
        self.button.setText(text)
        self.button.setEnabled(not obstacle)
        self.button.setToolTip(obstacle or "Measure the motion of every frame; nothing is changed yet")
        say(self.why, obstacle if visible else "")

    def begin(self, stage: str) -> None:
        """Show that something has begun, before its first step is known."""
        self.stop.setEnabled(True)
        self.stop.setText("Cancel")
        self.bar.setRange(0, 0)
        self.stage.setText(stage)
        self.count.setText("")
        self.left.setText("")
        self.progress.show()

    def report(self, report: Report) -> None:
        """Show a step."""
        progress = report.progress
        self.bar.setRange(0, progress.total)  # of no steps: busy
        self.bar.setValue(progress.done)
        self.stage.setText(progress.message or "Working")
        self.count.setText(f"{progress.done} of {progress.total}" if progress.total else "")
        self.left.setText("" if report.left is None else f"{clock(report.left)} left")

    def cancelling(self) -> None:
        """Answer the click at once."""
        self.stop.setEnabled(False)
        self.stop.setText("Stopping…")

    def end(self) -> None:
        """Be idle again."""
        self.stop.setEnabled(False)
        self.stop.setText("Cancel")
        self.progress.hide()


def clock(seconds: float) -> str:
    """Return "0:07", "12:30" or "1:02:03"."""
    whole = round(max(seconds, 0.0))
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"
