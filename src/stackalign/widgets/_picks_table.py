"""The picked particles as a table: a click chooses, Delete removes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QHeaderView, QTableWidget, QTableWidgetItem, QWidget

from stackalign.widgets._plot import BAD, GOOD
from stackalign.widgets._rows import fit_height, prepare, selected_row

if TYPE_CHECKING:
    from collections.abc import Sequence

_COLUMNS = ("#", "y", "x", "σ", "R²", "found", "")
_TIPS = (
    "Number of the particle", "Fitted row, px", "Fitted column, px", "Width, px", "Share that the fit explains",
    "Frames in which it was found", "✓ accepted, ✗ rejected: the reason is in the tooltip",
)  # fmt: skip
_SHOWN = 7


@dataclass(frozen=True, slots=True)
class PickRow:
    """One line: the words of each column, and why the pick is rejected (empty: it is not)."""

    number: int
    words: tuple[str, ...]
    reason: str
    tip: str


class PicksTable(QTableWidget):
    """Lists picks.

    Signals
    -------
    chosen(int)
        The user clicked this particle.
    """

    chosen = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, len(_COLUMNS), parent)
        prepare(self, _COLUMNS, _TIPS)
        self.horizontalHeader().setMinimumSectionSize(20)
        self.horizontalHeader().setSectionResizeMode(len(_COLUMNS) - 1, QHeaderView.ResizeMode.ResizeToContents)
        self._filling = False
        self._rows: tuple[PickRow, ...] = ()
        self.itemSelectionChanged.connect(self._on_selection)

    def show_rows(self, rows: Sequence[PickRow], chosen: int | None) -> None:
        """List these picks and mark the chosen one."""
        self._filling = True
        if len(rows) != self.rowCount():
            self.setRowCount(len(rows))
        for k, row in enumerate(rows):
            if k < len(self._rows) and self._rows[k] == row:
                continue
            mark = "✗" if row.reason else "✓"
            for column, words in enumerate((*row.words, mark)):
                item = QTableWidgetItem(words)
                item.setToolTip(row.tip)
                if column == len(_COLUMNS) - 1:
                    item.setForeground(QColor(BAD if row.reason else GOOD))
                    item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                self.setItem(k, column, item)
        self._rows = tuple(rows)
        at = next((k for k, row in enumerate(rows) if row.number == chosen), -1)
        if at < 0:
            self.clearSelection()
        elif self.currentRow() != at or not self.selectedItems():
            self.selectRow(at)
        fit_height(self, min(max(len(rows), 2), _SHOWN))
        self._filling = False

    def _on_selection(self) -> None:
        row = selected_row(self)
        if not self._filling and row is not None:
            self.chosen.emit(self._rows[row].number)
