"""The followed particles as a table: a tick includes, a click chooses, a header sorts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QTableWidget, QTableWidgetItem, QWidget

from stackalign.widgets._plot import BAD, ELSEWHERE
from stackalign.widgets._rows import fit_height, prepare, selected_row

if TYPE_CHECKING:
    from stackalign.trajectories import Trajectories

_COLUMNS = ("#", "found", "R²", "residual", "p", "Δσ")
_TIPS = (
    "Ticked: takes part in the motion", "Frames in which it was found", "Mean share of its boxes that the fits explain",
    "What it moves beside the common motion, px rms per axis", "How likely it follows the common motion (p-value)",
    "How its width changed over the movie, px: focus drift",
)  # fmt: skip
_SHOWN = 12


class TrackTable(QTableWidget):
    """Lists particles.

    Signals
    -------
    chosen(int)
        A row was clicked.
    toggled(int)
        A tick was changed.
    """

    chosen = Signal(int)
    toggled = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, len(_COLUMNS), parent)
        prepare(self, _COLUMNS, _TIPS)
        self.setSortingEnabled(True)
        self.horizontalHeader().setSortIndicator(0, Qt.SortOrder.AscendingOrder)
        self._filling = False
        self._suggested: dict[int, str] = {}
        self.itemSelectionChanged.connect(self._on_selection)
        self.itemChanged.connect(self._on_item)

    def show_particles(self, trajectories: Trajectories | None) -> None:
        """List the particles of tracks."""
        self._filling = True
        self.setSortingEnabled(False)
        particles = () if trajectories is None else trajectories.particles
        self._suggested = {} if trajectories is None else trajectories.suggested
        self.setRowCount(len(particles))
        for row, p in enumerate(particles):
            words = (
                (str(p.number), p.number), (str(p.found), p.found), (_number(p.r_squared, 2), p.r_squared),
                (_number(p.residual, 3), p.residual), (_chance(p.p_value), p.p_value),
                (_number(p.width_drift, 2, signed=True), p.width_drift),
            )  # fmt: skip
            for column, (text, value) in enumerate(words):
                item = _Item(text, value)
                item.setData(Qt.ItemDataRole.UserRole + 1, p.number)
                item.setToolTip(f"Particle {p.number}: {p.suggestion or 'follows the common motion'}")
                if column == 0:
                    item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
                    item.setCheckState(Qt.CheckState.Checked)
                elif p.suggestion and column in (3, 4):
                    item.setForeground(QColor(BAD))
                self.setItem(row, column, item)
        self.setSortingEnabled(True)
        fit_height(self, min(max(len(particles), 2), _SHOWN))
        self._filling = False

    def mark(self, excluded: set[int], chosen: int | None) -> None:
        """Tick the included particles and mark the chosen one."""
        self._filling = True
        for row in range(self.rowCount()):
            number = self._number(row)
            out = number in excluded
            first = self.item(row, 0)
            if first is not None:
                first.setCheckState(Qt.CheckState.Unchecked if out else Qt.CheckState.Checked)
            for column in range(self.columnCount()):
                item = self.item(row, column)
                if item is None:
                    continue
                font = item.font()
                if font.italic() != out:
                    font.setItalic(out)
                    item.setFont(font)
                    if out:
                        item.setForeground(QColor(ELSEWHERE))
                    elif number in self._suggested and column in (3, 4):
                        item.setForeground(QColor(BAD))
                    else:
                        item.setData(Qt.ItemDataRole.ForegroundRole, None)
            if number == chosen and self.currentRow() != row:
                self.selectRow(row)
        if chosen is None:
            self.clearSelection()
        self._filling = False

    def _number(self, row: int) -> int:
        item = self.item(row, 0)
        return -1 if item is None else int(item.data(Qt.ItemDataRole.UserRole + 1))

    def _on_selection(self) -> None:
        row = selected_row(self)
        if not self._filling and row is not None:
            self.chosen.emit(self._number(row))

    def _on_item(self, item: QTableWidgetItem) -> None:
        if not self._filling and item.column() == 0:
            self.toggled.emit(int(item.data(Qt.ItemDataRole.UserRole + 1)))


class _Item(QTableWidgetItem):
    """Sorts by its number instead of by its words; what is not known comes last."""

    def __init__(self, text: str, value: float) -> None:
        super().__init__(text)
        self.value = float(value)

    def __lt__(self, other: Any) -> bool:
        mine, theirs = (np.inf if np.isnan(v.value) else v.value for v in (self, other))
        return bool(mine < theirs)


def _number(value: float, digits: int, signed: bool = False) -> str:
    if not np.isfinite(value):
        return "–"
    return f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"


def _chance(value: float) -> str:
    if not np.isfinite(value):
        return "–"
    return f"{value:.2f}" if value >= 0.01 else "<.001" if value < 0.001 else f"{value:.3f}"
