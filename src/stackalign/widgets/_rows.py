"""What the panels' small tables share: read-only, as wide as the panel, as high as their rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QSizePolicy, QTableWidget

if TYPE_CHECKING:
    from collections.abc import Sequence

ROW = 22  # pixels


def prepare(table: QTableWidget, columns: Sequence[str], tips: Sequence[str] = (), *, selects: bool = True) -> None:
    """Give a table its columns, each with what it means; one row at a time can be selected, or none."""
    table.setHorizontalHeaderLabels(list(columns))
    for k, tip in enumerate(tips):
        item = table.horizontalHeaderItem(k)
        if item is not None:
            item.setToolTip(tip)
    view = QAbstractItemView
    table.setEditTriggers(view.EditTrigger.NoEditTriggers)
    table.setSelectionBehavior(view.SelectionBehavior.SelectRows)
    table.setSelectionMode(view.SelectionMode.SingleSelection if selects else view.SelectionMode.NoSelection)
    table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    table.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    table.verticalHeader().hide()
    table.verticalHeader().setDefaultSectionSize(ROW)
    header = table.horizontalHeader()
    header.setMinimumSectionSize(24)
    header.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
    header.setSectionResizeMode(0, QHeaderView.ResizeMode.ResizeToContents)


def fit_height(table: QTableWidget, rows: int) -> None:
    """Make a table as high as so many rows."""
    table.setFixedHeight(table.horizontalHeader().sizeHint().height() + rows * ROW + 4)


def selected_row(table: QTableWidget) -> int | None:
    """Return the row that is selected; None unless it is one."""
    rows = {index.row() for index in table.selectedIndexes()}
    return rows.pop() if len(rows) == 1 else None
