"""The menu that saves the boxes of particles, or takes them from a file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QMenu, QWidget

from stackalign.core.spots.picks import check_picks
from stackalign.picking import particles_text
from stackalign.widgets._style import menu_button, say

if TYPE_CHECKING:
    from stackalign.widgets.pick_particles import PickParticles

_FILES = "Picks (*.json);;All files (*)"


class PicksFiles(QWidget):
    """A button with a menu.

    Parameters
    ----------
    panel : PickParticles
        Whose picks come and go.
    """

    def __init__(self, panel: PickParticles) -> None:
        super().__init__()
        self._panel = panel
        self.button = menu_button("Picks ▾", "Save the boxes, or take them from a file")
        menu = QMenu(self.button)
        menu.addAction("Open picks…", self._ask_open)
        self.saving = menu.addAction("Save picks…", self._ask_save)
        self.button.setMenu(menu)
        self.sets = QMenu(self.button)
        line = QHBoxLayout(self)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.button)

    def open_picks(self, path: str, image_set: str | None = None) -> None:
        """Take the picks from a file; the old ones go, which can be undone.

        Where a selection file holds several image sets, a menu asks for one of them.
        """
        from stackalign.io.errors import ImageSetChoiceError
        from stackalign.io.picks import read_picks

        panel, stack = self._panel, self._panel.session.stack
        if not path or stack is None:
            return

        def read() -> None:
            try:
                picks = read_picks(path, image_set=image_set)
            except ImageSetChoiceError as error:
                self._ask_set(path, error.choices)
                return
            check_picks(picks, stack.shape)
            panel.session.change_particles(f"open {Path(path).name}", panel.particles.with_picks(picks))
            say(panel.message, f"{particles_text(len(picks))} from {Path(path).name}.")
            panel.show_particle(picks[0].id)

        panel.attempt("Opening the picks", read)

    def _ask_set(self, path: str, names: tuple[str, ...]) -> None:
        """Offer the image sets of a file; that of the movie's own folder first."""
        panel, movie = self._panel, self._panel.session.movie
        say(panel.message, f"{Path(path).name} holds {len(names)} image sets: choose one.")
        own = set() if movie is None or movie.path is None else set(Path(movie.path).parts)
        menu = self.sets
        menu.clear()
        menu.addSection(f"Image sets of {Path(path).name}")
        for name in names:
            action = menu.addAction(name, partial(self.open_picks, path, name))
            if set(Path(name).parts) & own:
                menu.setActiveAction(action)
        menu.popup(self.button.mapToGlobal(self.button.rect().bottomLeft()))

    def save_picks(self, path: str) -> None:
        """Write the picks to a file."""
        from stackalign.io.picks import write_picks

        panel = self._panel
        if path:
            panel.attempt(
                "Saving the picks",
                lambda: say(panel.message, f"Saved to {write_picks(path, panel.particles.picks)}."),
            )

    def _ask_open(self) -> None:
        self.open_picks(QFileDialog.getOpenFileName(self, "Open picks", "", _FILES)[0])

    def _ask_save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save picks", "picks.json", _FILES)
        if path and not Path(path).suffix:
            path += ".json"
        self.save_picks(path)
