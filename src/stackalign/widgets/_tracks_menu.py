"""The menu of tracks: from elsewhere, into a layer, into tables and a picture."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QMenu, QMessageBox, QWidget

from stackalign.widgets._style import menu_button, say
from stackalign.widgets._track_layers import add_tracks_layer, tracks_from_layer, tracks_from_table

if TYPE_CHECKING:
    from stackalign.runs import Run
    from stackalign.widgets.select_trajectories import SelectTrajectories

_TABLES = "Tables (*.csv *.tsv *.txt)"
_PICTURES = "Pictures (*.png *.svg *.pdf)"


class TracksMenu(QWidget):
    """A button with a menu.

    Parameters
    ----------
    panel : SelectTrajectories
        Whose tracks come and go.
    """

    def __init__(self, panel: SelectTrajectories) -> None:
        super().__init__()
        self._panel = panel
        self.button = menu_button("Tracks ▾", "Tracks from elsewhere, and ways out")
        self._menu = QMenu(self.button)
        self._menu.aboutToShow.connect(self._fill)
        self.button.setMenu(self._menu)
        line = QHBoxLayout(self)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.button)

    def _fill(self) -> None:
        from napari.layers import Tracks

        menu = self._menu
        menu.clear()
        menu.addAction("Open tracks (trackpy, CSV)…", self._ask_open)
        for layer in self._panel.viewer.layers:
            if isinstance(layer, Tracks):
                menu.addAction(f"Take tracks of “{layer.name}”", partial(self.take_layer, layer))
        menu.addSeparator()
        some = self._panel.trajectories is not None
        for text, action in (
            ("Add as a Tracks layer", self.add_layer),
            ("Save tables (CSV)…", self._ask_save),
            ("Save picture (PNG)…", self._ask_picture),
        ):
            menu.addAction(text, action).setEnabled(some)
        menu.setToolTipsVisible(True)
        folder = menu.addAction("Save script_output…", self._ask_script_output)
        folder.setEnabled(self._aligned is not None and not self._panel.runner.busy)
        folder.setToolTip(
            "The folder that the particle scripts leave: tables, aligned images, validation, selections"
            if self._aligned is not None
            else "Align with these tracks first"
        )

    @property
    def _aligned(self) -> Run | None:
        """The run on show, if particles made it."""
        run = self._panel.session.current
        return run if run is not None and run.registration.details.get("tracks") is not None else None

    @property
    def _length(self) -> int:
        stack = self._panel.session.stack
        return 0 if stack is None else len(stack)

    def take_layer(self, layer: Any) -> None:
        """Work on the tracks of a Tracks layer."""
        panel, movie = self._panel, self._panel.session.movie
        if movie is None:
            return
        first = (panel.session.choices.frames or (0, 0))[0]

        def take() -> None:
            panel.take_tracks(layer.name, tracks_from_layer(panel.viewer, layer, movie, self._length, first))

        panel.attempt("Taking the tracks", take)

    def open_tracks(self, path: str) -> None:
        """Work on the tracks of a table with the columns frame, particle, y, x."""
        panel = self._panel
        if path and panel.session.movie is not None:
            panel.attempt(
                "Opening the tracks",
                lambda: panel.take_tracks(Path(path).name, tracks_from_table(path, self._length)),
            )

    def add_layer(self) -> None:
        """Add the tracks as a napari layer."""
        panel, movie, trajectories = self._panel, self._panel.session.movie, self._panel.trajectories
        if movie is not None and trajectories is not None:
            first = (panel.session.choices.frames or (0, 0))[0]
            panel.attempt(
                "Adding the tracks",
                lambda: add_tracks_layer(panel.viewer, movie, trajectories.tracks, first),
            )

    def save_tables(self, path: str) -> None:
        """Write tracks, their average and the table of particles as CSV."""
        panel, trajectories = self._panel, self._panel.trajectories
        if path and trajectories is not None:

            def write() -> None:
                written = trajectories.save_tables(path, panel.excluded)
                say(panel.message, f"Saved {', '.join(p.name for p in written)} in {written[0].parent}.")

            panel.attempt("Saving the tables", write)

    def save_picture(self, path: str) -> None:
        """Write drift, residuals and motion as a picture."""
        from stackalign.track_figures import save_trajectories

        panel, trajectories = self._panel, self._panel.trajectories
        if path and trajectories is not None:
            panel.attempt(
                "Saving the picture",
                lambda: say(panel.message, f"Saved {save_trajectories(path, trajectories, panel.excluded)}."),
            )

    def save_script_output(self, path: str, overwrite: bool = False) -> None:
        """Write the run on show as the folder ``script_output`` inside a folder."""
        from stackalign.script_output import NAME, write_script_output_work

        panel, run = self._panel, self._aligned
        if path and run is not None:
            target = Path(path) / NAME
            work = write_script_output_work(
                target, run.stack, run.registration, resampling=run.choices.warp, overwrite=overwrite
            )
            panel.start(f"Saving {NAME}", work, lambda folder: say(panel.message, f"Saved {folder}."))

    def _ask_open(self) -> None:
        self.open_tracks(QFileDialog.getOpenFileName(self, "Open tracks", "", _TABLES)[0])

    def _ask_save(self) -> None:
        self.save_tables(QFileDialog.getSaveFileName(self, "Save the tables", "trajectories.csv", "CSV (*.csv)")[0])

    def _ask_picture(self) -> None:
        self.save_picture(QFileDialog.getSaveFileName(self, "Save a picture", "trajectories.png", _PICTURES)[0])

    def _ask_script_output(self) -> None:
        from stackalign.script_output import NAME, SELECTIONS

        path = QFileDialog.getExistingDirectory(self, f"Save {NAME} into a folder")
        there = Path(path) / NAME / SELECTIONS
        if path and there.exists():
            words = f"{there.parent} holds an earlier run. Replace its files?"
            if QMessageBox.question(self, "Replace the earlier run?", words) != QMessageBox.StandardButton.Yes:
                return
        self.save_script_output(path, overwrite=True)
