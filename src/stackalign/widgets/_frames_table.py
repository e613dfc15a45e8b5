"""The transforms as a table, one row a frame; quick with any number of frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QAbstractTableModel, QItemSelection, QItemSelectionModel, QModelIndex, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QSizePolicy, QTableView, QWidget

from stackalign.widgets._plot import BAD

if TYPE_CHECKING:
    from stackalign.runs import Motion, Run

_ROW, _SHOWN = 20, 8


class _Model(QAbstractTableModel):
    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.motion: Motion | None = None
        self.valid: Any = np.zeros(0, bool)
        self.first = 0
        self.columns: tuple[str, ...] = ()

    def show(self, run: Run | None) -> None:
        self.beginResetModel()
        self.motion = None if run is None else run.motion
        if run is not None and self.motion is not None:
            self.valid, self.first = run.registration.transforms.valid, run.first
            self.columns = ("frame", *self.motion.axes, "angle", "±", "")
        self.endResetModel()

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if self.motion is None else len(self.motion.drift)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        return len(self.columns)

    def headerData(self, section: int, orientation: Any, role: int = 0) -> Any:
        if role == Qt.ItemDataRole.DisplayRole and orientation == Qt.Orientation.Horizontal:
            return self.columns[section]
        return None

    def data(self, index: QModelIndex, role: int = 0) -> Any:
        motion = self.motion
        if motion is None:
            return None
        t, column = index.row(), index.column()
        last = column == len(self.columns) - 1
        if role == Qt.ItemDataRole.DisplayRole:
            return self._words(motion, t, column)
        if role == Qt.ItemDataRole.ToolTipRole:
            return motion.reasons[t] or ("interpolated" if not self.valid[t] else "")
        if role == Qt.ItemDataRole.ForegroundRole and (motion.reasons[t] and (last or column == 0)):
            return QColor(BAD)
        return None

    def _words(self, motion: Motion, t: int, column: int) -> str:
        ndim = motion.drift.shape[1]
        if column == 0:
            return str(t + self.first)
        if column <= ndim:
            return _number(motion.drift[t, column - 1], 2)
        if column == ndim + 1:
            return _number(motion.angle[t], 3)
        if column == ndim + 2:
            return _number(float(np.sqrt(np.mean(motion.error[t] ** 2))), 2, signed=False)
        return ("▼ " + motion.reasons[t]) if motion.reasons[t] else "" if self.valid[t] else "interpolated"


class FramesTable(QTableView):
    """Lists the frames of a run.

    Signals
    -------
    selected(tuple of int)
        Rows (frames counted from the run's first) that the user selected.
    """

    selected = Signal(tuple)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows = _Model(self)
        self.setModel(self._rows)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(_ROW)
        self.setWordWrap(False)
        self.setFixedHeight(24 + _SHOWN * _ROW)
        self._filling = False
        self.selectionModel().selectionChanged.connect(self._on_selection)

    def show_run(self, run: Run | None) -> None:
        """List the frames of a run; what is selected stays as far as it is there."""
        rows = self.rows()
        self._filling = True
        self._rows.show(run)
        if self._rows.columnCount():
            header = self.horizontalHeader()
            header.setMinimumSectionSize(24)
            header.setStretchLastSection(True)
            for column, width in enumerate((46, *(52,) * (self._rows.columnCount() - 3), 40)):
                header.resizeSection(column, width)
        self._filling = False
        self.select(rows)

    def rows(self) -> tuple[int, ...]:
        """Return the rows that are selected."""
        return tuple(sorted({index.row() for index in self.selectionModel().selectedRows()}))

    def select(self, rows: tuple[int, ...]) -> None:
        """Select rows without telling anybody."""
        self._filling = True
        chosen = QItemSelection()
        count = self._rows.rowCount()
        there = [row for row in rows if 0 <= row < count]
        for first, last in stretches(there):
            chosen.select(self._rows.index(first, 0), self._rows.index(last, self._rows.columnCount() - 1))
        self.selectionModel().select(chosen, QItemSelectionModel.SelectionFlag.ClearAndSelect)
        if there:
            self.scrollTo(self._rows.index(there[0], 0))
        self._filling = False

    def _on_selection(self, *_: Any) -> None:
        if not self._filling:
            self.selected.emit(self.rows())


def stretches(rows: list[int]) -> list[tuple[int, int]]:
    """Return the first and the last of each run of neighbouring rows."""
    out: list[tuple[int, int]] = []
    for row in rows:
        if out and row == out[-1][1] + 1:
            out[-1] = (out[-1][0], row)
        else:
            out.append((row, row))
    return out


def _number(value: float, digits: int, signed: bool = True) -> str:
    if not np.isfinite(value):
        return "–"
    return f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
