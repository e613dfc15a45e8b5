"""The panel "Validate alignment": the verdict first, then particles, numbers, mean images and the worst frames."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QFileDialog,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
)

from stackalign.validation import WORST, Validation, validate_work
from stackalign.widgets._image_view import Tiles, levels_of
from stackalign.widgets._panel import Panel, titled
from stackalign.widgets._plot import BAD, GOOD
from stackalign.widgets._preview import FrameCursor
from stackalign.widgets._rows import fit_height, prepare
from stackalign.widgets._side_by_side import SideBySide
from stackalign.widgets._style import narrow_combo, note, row, say, small_button
from stackalign.widgets._track_layers import layer_of
from stackalign.widgets._track_plot import TrackPlot, along_direction, offer_directions

if TYPE_CHECKING:
    import napari
    from qtpy.QtWidgets import QWidget

    from stackalign.runs import Run

_HEIGHT = 150
_MEANING = {
    "particles, rms": "Held-out particles: root mean square distance from their mean place, per axis",
    "particles, most": "Held-out particles: greatest distance from their mean place",
    "fitted again": "The same particles, fitted in the aligned images",
    "correlation": "Mean correlation of the frames with their mean image",
    "crispness": "Root mean square gradient of the mean image, relative to the movie as it is",
    "residual": "Root mean square difference of the frames to their mean image, intensity units",
}
_KEYS = {
    "In plots and pictures": {"Click": "go to that frame"},
    "In the panel": {"Ctrl+Return": "validate", "Ctrl+Z, Ctrl+Shift+Z": "undo, redo", "F1": "this list"},
}


class ValidateAlignment(Panel):
    """Puts the run on show to the proof.

    Parameters
    ----------
    napari_viewer : Viewer
        Injected by napari.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, "stackalign-validate-alignment", _KEYS, parent)
        self.validation: Validation | None = None
        self._of: Run | None = None  # what the validation on show belongs to
        self._cursor = FrameCursor(napari_viewer, self)
        self._build()
        self._cursor.moved.connect(self._on_frame)
        for plot in (self.before, self.after):
            plot.chosen.connect(self._choose)
            plot.frame_clicked.connect(self._cursor.go_to)
        self.worst.clicked.connect(self._go_to_worst)
        self.axis.currentIndexChanged.connect(self._show_curves)
        self.run.start.connect(self.validate)
        self.listen("current", self._on_current)
        self.listen("movie", self._on_movie)
        self.listen("particles", lambda _: self.show_ready())
        self.listen("job", lambda _: self.show_ready())
        self.at_end(self._cursor.close)
        self._on_movie(self.session.movie)

    def _build(self) -> None:
        self.save = small_button("Save tables…", "Summary, particles and frames as CSV", self._ask_save)
        self.top.insertWidget(2, self.save)
        self.about = note()
        self.verdict = note(strong=True)
        self.verdict.setObjectName("verdict")
        self.how = note()
        self.table = _table()
        self.axis = narrow_combo()
        self.axis_row = row("Direction", self.axis, tip="Which direction the curves show")
        self.before = TrackPlot("px", _HEIGHT, "Where each particle lies off its mean place in the movie as it is")
        self.after = TrackPlot("px", _HEIGHT, "The same after the alignment")
        self.after.item.setXLink(self.before.item)
        self.plots = SideBySide(
            titled("Particles, doing nothing", self.before), titled("Particles, aligned", self.after)
        )
        self.means = Tiles(3, 110)
        self.means_box = titled("Mean images", self.means)
        self.worst = Tiles(WORST, 84)
        self.worst.setToolTip("Click: go to that frame")
        self.worst_box = titled("Frames that fit the others least: click to go there", self.worst)
        self.fill(
            self.about, self.run, self.message, self.verdict, self.how, self.table, self.axis_row, self.plots,
            self.means_box, self.worst_box,
        )  # fmt: skip
        self.column.addStretch(1)
        self.run.button.setObjectName("validate")
        self.shortcut("Ctrl+Return", self.validate)

    # the session speaks

    def _on_movie(self, movie: Any) -> None:
        layer = None if movie is None else layer_of(self._viewer, movie)
        self._cursor.follow(layer, "tyx" if movie is None else movie.axes)
        self._on_current(self.session.current)

    def _on_current(self, run: Run | None) -> None:
        if run is not self._of:
            self._of, self.validation = run, None
        say(self.about, "" if run is None else f"Run {run.number} of {run.movie.name}: {run.choices.registrar.method}")
        self._show()
        self.show_ready()

    def _obstacle(self) -> str:
        if self.session.current is None:
            return "There is no alignment yet: align first"
        if self.runner.busy or self.session.busy:
            return "Something is running: wait, or cancel it"
        return ""

    def show_ready(self) -> None:
        """Name what the button does."""
        run, obstacle = self.session.current, self._obstacle()
        words = "Validate" if run is None else f"Validate run {run.number}"
        self.run.show_ready(words, obstacle, visible=not self.runner.busy)
        if not obstacle:
            self.run.button.setToolTip("Measure particles that took no part, and the images, before and after")
        self.save.setEnabled(self.validation is not None)

    # validating

    def validate(self) -> None:
        """Put the run on show to the proof."""
        run = self.session.current
        if self._obstacle() or run is None:
            return
        tracks = self.session.particles.tracks if run.movie is self.session.movie else None
        self.start("Validating", partial(validate_work, run, tracks), partial(self._on_validated, run))

    def _on_validated(self, run: Run, validation: Validation) -> None:
        if run is not self.session.current:
            say(self.message, f"Run {run.number} is validated, but another result is on show now.")
            return
        self._of, self.validation = run, validation
        self._show()
        self.show_ready()

    # what is seen

    def _show(self) -> None:
        validation = self.validation
        for part in (self.table, self.means_box, self.worst_box):
            part.setVisible(validation is not None)
        held = None if validation is None else validation.held_out
        for part in (self.axis_row, self.plots):
            part.setVisible(held is not None)
        if validation is None:
            say(self.verdict, "")
            say(self.how, "")
            return
        colour = {True: GOOD, False: BAD, None: ""}[validation.passed]
        mark = {True: "✓", False: "✗", None: "○"}[validation.passed]
        self.verdict.setStyleSheet(f"font-size: 15px; font-weight: 600;{f' color: {colour};' if colour else ''}")
        say(self.verdict, f"{mark} {validation.verdict}")
        floor = "" if held is None else f"\nTheir fit errors alone would leave {held.floor:.2g} px."
        say(self.how, f"Held out: {validation.how}.{floor}" if held is not None else "")
        self._show_table(validation)
        if held is not None:
            offer_directions(self.axis, held.before.shape[2])
            self._show_curves()
        q = validation.quality
        levels = levels_of(q.mean_before, q.mean_after)
        change = q.mean_after - q.mean_before
        reach = float(np.nanmax(np.abs(change))) or 1.0
        self.means.show_images(
            [
                ("doing nothing", q.mean_before, levels, False),
                ("aligned", q.mean_after, levels, False),
                ("difference", change, (-reach, reach), True),
            ]
        )
        self.worst.show_images([(f"{w.frame}: {w.correlation:.2f}", w.image, levels, False) for w in validation.worst])

    def _show_table(self, validation: Validation) -> None:
        rows = validation.rows
        self.table.setRowCount(len(rows))
        for k, line in enumerate(rows):
            unit = f" {line.unit}" if line.unit else ""
            mark = {True: "✓ better", False: "✗ worse", None: "same"}[line.better]
            words = (line.name, f"{line.before:.3g}{unit}", f"{line.after:.3g}{unit}", mark)
            for column, text in enumerate(words):
                item = QTableWidgetItem(text)
                item.setToolTip(_MEANING.get(line.name, text))
                if column == 3 and line.better is not None:
                    item.setForeground(QColor(GOOD if line.better else BAD))
                self.table.setItem(k, column, item)
        fit_height(self.table, len(rows))

    def _show_curves(self, _index: int = 0) -> None:
        held = None if self.validation is None else self.validation.held_out
        if held is None or self.validation is None:
            return
        along = self.axis.currentData()
        for plot, values in ((self.before, held.before), (self.after, held.after)):
            plot.show_curves([int(k) for k in held.ids], along_direction(values, along), self.validation.first)
        # one scale for both: the eye compares
        known = [v for v in (held.before, held.after) if np.isfinite(v).any()]
        reach = max(float(np.nanmax(np.abs(v))) for v in known) if known else 1.0
        for plot in (self.before, self.after):
            plot.item.setYRange(0.0 if along == -1 else -reach, reach, padding=0.05)
        self._on_frame(self._cursor.frame)

    def _choose(self, number: int) -> None:
        for plot in (self.before, self.after):
            plot.mark(set(), number)

    def _on_frame(self, frame: int) -> None:
        for plot in (self.before, self.after):
            plot.show_frame(frame)

    def _go_to_worst(self, place: int) -> None:
        if self.validation is not None and place < len(self.validation.worst):
            self._cursor.go_to(self.validation.worst[place].frame)

    # files

    def save_tables(self, path: str) -> None:
        """Write summary, particles and frames as CSV."""
        validation = self.validation
        if path and validation is not None:

            def write() -> None:
                written = validation.save_tables(path)
                say(self.message, f"Saved {', '.join(p.name for p in written)} in {written[0].parent}.")

            self.attempt("Saving the tables", write)

    def _ask_save(self) -> None:
        self.save_tables(QFileDialog.getSaveFileName(self, "Save the tables", "validation.csv", "CSV (*.csv)")[0])


def _table() -> QTableWidget:
    table = QTableWidget(0, 4)
    prepare(table, ("", "do nothing", "aligned", ""), selects=False)
    header = table.horizontalHeader()
    header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
    header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
    return table
