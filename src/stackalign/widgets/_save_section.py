"""What leaves the viewer: the aligned movie, everything in a folder, transforms, report, recipe, script."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QApplication, QFileDialog, QHBoxLayout, QMenu, QMessageBox, QWidget

from stackalign.export import (
    choices_of,
    config_of,
    report_work,
    save_folder_work,
    save_movie_work,
    save_transforms_as,
    script_of,
)
from stackalign.io.run_folder import RunFolder
from stackalign.widgets._errors import show_error
from stackalign.widgets._style import menu_button, small_button

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackalign.core.stack import ImageStack
    from stackalign.export import Saved
    from stackalign.session import AlignmentSession

_MOVIES = "TIFF (*.tif *.tiff);;OME-TIFF (*.ome.tif);;OME-Zarr (*.zarr);;NumPy (*.npy)"
_TRANSFORMS = "Transforms (*.json);;Table (*.csv);;Matrices (*.npy)"
_RECIPES = "Recipe (*.yaml *.yml)"


class SaveSection(QWidget):
    """The row of small actions at the foot of the panel; ``button`` and ``report`` stand beside "Add aligned layer".

    Parameters
    ----------
    session : AlignmentSession
        Whose result is saved.
    start : callable (what, work, done)
        Runs work with the panel's progress and Cancel.
    companions : callable
        Returns the stacks of the ticked channels.
    say : callable
        Writes a sentence into the panel.
    """

    def __init__(
        self,
        session: AlignmentSession,
        start: Callable[..., None],
        companions: Callable[[], tuple[ImageStack, ...]],
        say: Callable[[str], None],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._session, self._start, self._companions, self._say = session, start, companions, say
        self.button = menu_button("Save ▾", "")
        menu = QMenu(self.button)
        menu.setToolTipsVisible(True)
        for text, tip, action in (
            ("Aligned movie…", "One file; ticked channels go into it too", self._ask_movie),
            ("Everything into a folder…", "Movie, transforms, quality, recipe and report", self._ask_folder),
            ("Transforms…", "One matrix a frame, as JSON, CSV or NumPy", self._ask_transforms),
        ):
            menu.addAction(text, action).setToolTip(tip)
        self.button.setMenu(menu)
        self.report = small_button("Report", "", self.open_report)
        self.recipe = menu_button("Recipe ▾", "A file that holds all choices and repeats them on other data")
        recipes = QMenu(self.recipe)
        self.save_action = recipes.addAction("Save recipe…", self._ask_recipe)
        recipes.addAction("Open recipe…", self._ask_open_recipe)
        self.recipe.setMenu(recipes)
        self.script = small_button("Copy as script", "The same in Python, on the clipboard", self.copy_script)
        line = QHBoxLayout(self)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(4)
        line.addWidget(self.recipe)
        line.addWidget(self.script)
        line.addStretch(1)

    def show_ready(self, ready: bool, why: str) -> None:
        """Allow saving, or say why there is nothing to save."""
        for widget, tip in (
            (self.button, "Write the result to disk"),
            (self.report, "Open a page with the motion, before and after, and the worst frames"),
        ):
            widget.setEnabled(ready)
            widget.setToolTip(why or tip)
        movie = self._session.movie is not None
        self.save_action.setEnabled(movie)
        self.script.setEnabled(movie)

    # each action, without the dialog that asks for its path

    def save_movie(self, path: str) -> None:
        """Write the aligned movie, with the ticked channels, to a file."""
        run = self._session.current
        if path and run is not None:
            others = self._companions()
            self._start("Saving", lambda: save_movie_work(run, path, others), self._done)

    def save_folder(self, path: str) -> None:
        """Write everything into a folder."""
        from stackalign.report import write_report

        run = self._session.current
        if path and run is not None:
            others = self._companions()
            self._start("Saving", lambda: save_folder_work(run, Path(path), write_report, others), self._done)

    def save_transforms(self, path: str) -> None:
        """Write the transforms to a file."""
        run = self._session.current
        if path and run is not None:
            self._try("Saving the transforms", lambda: self._done(save_transforms_as(run, path)))

    def open_report(self) -> None:
        """Write the report to a temporary file and open it in the browser."""
        from stackalign.report import write_report

        run = self._session.current
        if run is not None:
            place = Path(tempfile.mkdtemp(prefix="stackalign-")) / f"report-{run.number}.html"
            self._start("Making the report", lambda: report_work(run, place, write_report), self._show)

    def save_recipe(self, path: str) -> None:
        """Write the choices as a recipe."""
        from stackalign.config import save_recipe

        movie = self._session.movie
        if not path or movie is None:
            return

        def write() -> None:
            save_recipe(path, config_of(movie, self._session.choices))
            self._say(f"Saved to {path}.")

        self._try("Saving the recipe", write)

    def open_recipe(self, path: str) -> None:
        """Take the choices from a recipe; the movie stays."""
        from stackalign.config import load_recipe

        if not path:
            return

        def read() -> None:
            self._session.adopt(choices_of(load_recipe(path)))
            self._say(f"Choices of {Path(path).name}; the movie is still yours to choose.")

        self._try("Opening the recipe", read)

    def copy_script(self) -> None:
        """Put a script that does the same on the clipboard."""
        movie = self._session.movie
        if movie is not None:
            run = self._session.current
            choices = self._session.choices if run is None else run.choices
            QApplication.clipboard().setText(script_of(movie, choices))
            self._say("The script is on the clipboard.")

    def _try(self, what: str, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:
            show_error(f"{what} failed", error, self.window())

    def _done(self, saved: Saved) -> None:
        self._say(saved.sentence)

    def _show(self, saved: Saved) -> None:
        self._say(f"The report is at {saved.path}.")
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(saved.path)))

    # the dialogs

    def _suggested(self, ending: str) -> str:
        movie = self._session.movie
        if movie is None:
            return f"aligned{ending}"
        folder = Path(movie.path).parent if movie.path else Path()
        return str(folder / f"{_plain(movie.name)} aligned{ending}")

    def _ask_movie(self) -> None:
        self.save_movie(_ask_file(self, "Save the aligned movie", self._suggested(".tif"), _MOVIES))

    def _ask_transforms(self) -> None:
        self.save_transforms(_ask_file(self, "Save the transforms", self._suggested(".json"), _TRANSFORMS))

    def _ask_recipe(self) -> None:
        self.save_recipe(_ask_file(self, "Save the recipe", self._suggested(".yaml"), _RECIPES))

    def _ask_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Save everything into a folder")
        there = [file.name for file in RunFolder(Path(path)).files if path and file.exists()]
        if there:
            words = f"{path} holds an earlier run ({', '.join(there)}). Replace it?"
            if QMessageBox.question(self, "Replace the earlier run?", words) != QMessageBox.StandardButton.Yes:
                return
        self.save_folder(path)

    def _ask_open_recipe(self) -> None:
        self.open_recipe(QFileDialog.getOpenFileName(self, "Open a recipe", "", _RECIPES)[0])


def _ask_file(parent: QWidget, title: str, suggested: str, kinds: str) -> str:
    """Ask for a file's name; a name without an ending gets that of the kind that was chosen."""
    path, kind = QFileDialog.getSaveFileName(parent, title, suggested, kinds)
    if path and not Path(path).suffix:
        path += kind.partition("*")[2].partition(" ")[0].rstrip(")")
    return path


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in " -_.[]()" else "_" for c in name).strip() or "movie"


def stacks_of(layers: list[Any], axes_of: Callable[[Any], str]) -> tuple[ImageStack, ...]:
    """Return the stacks of image layers that a file can hold as channels; labels and points go their own ways."""
    from napari.layers import Image

    from stackalign.widgets._layers import movie_of

    found = []
    for layer in layers:
        axes = axes_of(layer) if isinstance(layer, Image) else ""
        if axes and not set(axes) & set("cs"):
            found.append(movie_of(layer, axes).stack)
    return tuple(found)
