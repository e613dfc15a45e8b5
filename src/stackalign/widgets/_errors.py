"""One sentence for every error, and the dialog that shows it with its details folded away."""

from __future__ import annotations

import logging
import traceback

from qtpy.QtCore import Qt
from qtpy.QtGui import QFontDatabase
from qtpy.QtWidgets import (
    QApplication,
    QDialog,
    QDialogButtonBox,
    QGridLayout,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QSizePolicy,
    QStyle,
    QWidget,
)

logger = logging.getLogger(__name__)


def sentence(error: BaseException) -> str:
    """Return what happened, in one sentence for a user.

    Our own errors already say it; what comes from the system is translated.
    """
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "out of memory" in text.lower():
        return (
            "There is not enough memory for this. Close other data, choose a region or a shorter time range, or align"
            f" from the command line.{f' ({text})' if text else ''}"
        )
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}."
    if not text:
        return f"It stopped with a {type(error).__name__} that says nothing more; the details show where."
    if isinstance(error, KeyError | IndexError | TypeError | AttributeError | AssertionError):
        # their texts are fragments ("'t'"), made for programmers
        return f"It stopped with an unexpected error, {type(error).__name__}: {text}"
    return text[0].upper() + text[1:]


class ErrorDialog(QDialog):
    """A window that blocks nothing: what failed, the sentence, and the traceback behind "Details"."""

    def __init__(self, title: str, error: BaseException, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("stackalign-error")
        self.setWindowTitle(title)
        self.setModal(False)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setMinimumWidth(380)

        icon = QLabel()
        style = self.style() or QApplication.style()
        icon.setPixmap(style.standardIcon(QStyle.StandardPixmap.SP_MessageBoxWarning).pixmap(32, 32))
        self.message = QLabel(sentence(error))
        self.message.setWordWrap(True)
        self.message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.message.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.MinimumExpanding)
        self.details = QPlainTextEdit("".join(traceback.format_exception(error)))
        self.details.setReadOnly(True)
        self.details.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.details.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.details.setMinimumHeight(180)
        self.details.hide()

        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.close)
        self.fold = QPushButton("Show details")
        self.fold.setCheckable(True)
        self.fold.setAutoDefault(False)
        self.fold.toggled.connect(self._unfold)
        copy = QPushButton("Copy details")
        copy.setAutoDefault(False)
        copy.clicked.connect(lambda: QApplication.clipboard().setText(self.details.toPlainText()))
        buttons.addButton(self.fold, QDialogButtonBox.ButtonRole.ActionRole)
        buttons.addButton(copy, QDialogButtonBox.ButtonRole.ActionRole)

        grid = QGridLayout(self)
        grid.addWidget(icon, 0, 0, Qt.AlignmentFlag.AlignTop)
        grid.addWidget(self.message, 0, 1)
        grid.addWidget(self.details, 1, 0, 1, 2)
        grid.addWidget(buttons, 2, 0, 1, 2)
        grid.setColumnStretch(1, 1)

    def _unfold(self, shown: bool) -> None:
        self.details.setVisible(shown)
        self.fold.setText("Hide details" if shown else "Show details")
        self.adjustSize()


def show_error(title: str, error: BaseException, parent: QWidget | None = None) -> ErrorDialog:
    """Log the error and show it without blocking; returns the dialog."""
    logger.error("%s: %s", title, sentence(error), exc_info=error)
    dialog = ErrorDialog(title, error, parent)
    dialog.show()
    dialog.raise_()
    return dialog
