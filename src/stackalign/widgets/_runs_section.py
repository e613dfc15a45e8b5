"""The runs so far: a click opens one again, with its movie and choices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QListWidget, QListWidgetItem, QSizePolicy, QVBoxLayout, QWidget

from stackalign.widgets._style import Fold

if TYPE_CHECKING:
    from stackalign.session import AlignmentSession

_SHOWN = 4


class RunsSection(QWidget):
    """Lists the session's runs."""

    def __init__(self, session: AlignmentSession, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.list = QListWidget()
        self.list.setToolTip("Click: look at this run again, with its choices. Delete: take it off the list")
        self.list.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.section = Fold("Runs", self.list, opened=True)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.section)
        self.list.itemClicked.connect(self._on_click)
        self.list.itemActivated.connect(self._on_click)
        session.events.runs.connect(self._fill)
        session.events.current.connect(self._mark)
        self._fill()

    def _fill(self, _runs: object = None) -> None:
        self.list.clear()
        for run in self._session.runs:
            item = QListWidgetItem(run.label)
            item.setToolTip(f"{run.movie.name}: {run.sentence}")
            item.setData(Qt.ItemDataRole.UserRole, run.number)
            self.list.addItem(item)
        rows = min(max(len(self._session.runs), 1), _SHOWN)
        self.list.setFixedHeight(rows * max(self.list.sizeHintForRow(0), 18) + 2 * self.list.frameWidth() + 2)
        self.setVisible(bool(self._session.runs))
        self._mark()

    def _mark(self, _run: object = None) -> None:
        current = self._session.current
        numbers = [run.number for run in self._session.runs]
        self.list.setCurrentRow(
            -1 if current is None or current.number not in numbers else numbers.index(current.number)
        )

    def _on_click(self, item: QListWidgetItem) -> None:
        self._session.show_run(item.data(Qt.ItemDataRole.UserRole))

    def close_section(self) -> None:
        """Let go of the session."""
        self._session.events.runs.disconnect(self._fill, missing_ok=True)
        self._session.events.current.disconnect(self._mark, missing_ok=True)

    def remove_chosen(self) -> None:
        """Take the marked run off the list; it can be undone."""
        item = self.list.currentItem()
        if item is not None:
            self._session.remove_run(item.data(Qt.ItemDataRole.UserRole))
