"""The panel "Pick particles": click, draw or suggest; see the fit; follow them through the movie."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QSizePolicy, QSpinBox

from stackalign.picking import (
    Particles,
    follow_work,
    grown,
    nudged,
    particles_text,
    propose_box,
    suggest_work,
)
from stackalign.runs import frames_text
from stackalign.widgets._fit_view import FitView
from stackalign.widgets._form import ParameterForm
from stackalign.widgets._keys import CanvasKeys
from stackalign.widgets._movie_section import MovieSection
from stackalign.widgets._panel import Panel
from stackalign.widgets._pick_canvas import BoxView, PickCanvas
from stackalign.widgets._pick_files import PicksFiles
from stackalign.widgets._pick_fits import PickFits, followed_to
from stackalign.widgets._pick_mouse import PickMouse
from stackalign.widgets._pick_rows import box_view, pair, pick_row
from stackalign.widgets._picks_table import PicksTable
from stackalign.widgets._preview import FrameCursor
from stackalign.widgets._seen_frame import SeenFrame
from stackalign.widgets._style import Fold, note, say, small_button

if TYPE_CHECKING:
    import napari
    from numpy.typing import NDArray
    from qtpy.QtWidgets import QWidget

    from stackalign.core.geometry import Box
    from stackalign.core.spots.gaussian import SpotFit
    from stackalign.core.spots.picks import Pick
    from stackalign.core.spots.tracks import TrackSet
    from stackalign.runs import Movie

_KEYS = {
    "On the canvas": {
        "P": "pick with the mouse, or move the view",
        "Click": "pick the particle there",
        "Drag": "draw a box; on a box: move it, at its border: resize it",
        "Delete": "delete the chosen particle",
        "Shift + arrows": "nudge the chosen box by a pixel",
        "+ and -": "larger, smaller box",
        "R": "pick the chosen particle anew in this frame",
        "N": "next particle",
        "Ctrl+Z, Ctrl+Shift+Z": "undo, redo",
    },
    "In the panel": {"Ctrl+Return": "follow the particles", "F1": "this list"},
}


class PickParticles(Panel):
    """Picks particles with a fit that follows the mouse, and follows them through the movie.

    Parameters
    ----------
    napari_viewer : Viewer
        Injected by napari.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, "stackalign-pick-particles", _KEYS, parent)
        self.fits = PickFits()
        self._chosen: int | None = None

        self.movie = MovieSection(napari_viewer, self.session)
        self._cursor = FrameCursor(napari_viewer, self)
        self.seen = SeenFrame(self.session, self._cursor, self)
        self.canvas = PickCanvas(napari_viewer, self)
        self._build()
        self.mouse = PickMouse(self)

        self._cursor.moved.connect(self._on_frame)
        self.seen.arrived.connect(self._show)
        self.seen.complained.connect(partial(say, self.message))
        self.canvas.clicked.connect(self.pick_at)
        self.canvas.chosen.connect(self.choose)
        self.table.chosen.connect(self.show_particle)
        self.run.start.connect(self.follow)
        self.form.changed.connect(self._on_form)
        self.listen("movie", self._on_movie)
        self.listen("particles", self._on_particles)
        self.listen("choices", self._on_choices)
        self.listen("job", self._on_choices)
        keys = CanvasKeys(
            napari_viewer,
            {
                "p": lambda: self.pick.toggle(),
                "Delete": self.delete,
                "Backspace": self.delete,
                "Shift-Up": lambda: self.nudge(-1, 0),
                "Shift-Down": lambda: self.nudge(1, 0),
                "Shift-Left": lambda: self.nudge(0, -1),
                "Shift-Right": lambda: self.nudge(0, 1),
                "+": lambda: self.grow(1),
                "=": lambda: self.grow(1),
                "-": lambda: self.grow(-1),
                "r": self.pick_anew,
                "n": self.choose_next,
                "Control-Z": self.session.undo,
                "Control-Shift-Z": self.session.redo,
            },
        )
        for closer in (self._cursor.close, self.movie.close_section, self.seen.close, self.canvas.close, keys.close):
            self.at_end(closer)
        # a layer without settled axes was there before anybody listened
        self.movie.layers.currentIndexChanged.emit(self.movie.layers.currentIndex())
        self._on_movie(self.session.movie)

    def _build(self) -> None:
        self.pick = QPushButton("Pick with the mouse")
        self.pick.setCheckable(True)
        self.pick.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.pick.setToolTip("Click a particle or draw a box around it (P). Off: the mouse moves the view")
        self.pick.toggled.connect(self._on_pick)
        self.suggest = small_button("Suggest", "Propose isolated particles of good contrast here", self.propose)
        self.count = QSpinBox()
        self.count.setRange(1, 200)
        self.count.setValue(12)
        self.count.setToolTip("How many particles to propose")
        self.count.setButtonSymbols(QSpinBox.ButtonSymbols.NoButtons)
        self.count.setStyleSheet("QAbstractSpinBox { min-width: 28px; max-width: 28px; }")
        self.count.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        line = QHBoxLayout()
        line.setSpacing(4)
        line.addWidget(self.pick, 1)
        line.addWidget(self.suggest)
        line.addWidget(self.count)
        self.fit_view = FitView()
        self.table = PicksTable()
        self.remove = small_button("Delete", "Delete the chosen particle (Delete)", self.delete)
        self.clear = small_button("Delete all", "Delete all particles; it can be undone", self.delete_all)
        self.files = PicksFiles(self)
        below = QHBoxLayout()
        below.setSpacing(4)
        for widget in (self.remove, self.clear):
            below.addWidget(widget)
        below.addStretch(1)
        below.addWidget(self.files)
        self.form = ParameterForm(self.session.particles.registrar, ("method", "picks", "auto", "exclude"))
        self.options = Fold("Fit and motion", self.form)
        self.sentence = note(strong=True)
        self.next = QPushButton("Select trajectories…")
        self.next.setToolTip("See how each particle moved, leave out those that move on their own, and align")
        self.next.clicked.connect(partial(self.open_panel, "Select trajectories"))
        self.next.hide()
        self.fill(
            self.movie, line, self.fit_view, self.table, below, self.options, self.run,
            self.message, self.sentence, self.next,
        )  # fmt: skip
        self.column.addStretch(1)
        self.run.button.setObjectName("follow")
        self.shortcut("Ctrl+Return", self.follow)
        self.shortcut("Delete", self.delete, self.table)

    # what there is

    @property
    def particles(self) -> Particles:
        """The session's record."""
        return self.session.particles

    @property
    def chosen(self) -> int | None:
        """The particle that is looked at."""
        names = [pick.id for pick in self.particles.picks]
        return self._chosen if self._chosen in names else None

    @property
    def frame(self) -> int:
        """The frame that the viewer shows, counted within the time range; may lie outside of it."""
        return self._cursor.frame - self._first

    @property
    def ready(self) -> bool:
        """Whether the frame on show has been read, so that fits can follow."""
        return self.seen.ready

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Pixels of a frame; empty without a movie."""
        movie = self.session.movie
        return () if movie is None else movie.stack.frame_shape

    def fit_of(self, pick: Pick) -> SpotFit | None:
        """Return the fit of a pick in its own frame; None as long as that frame has not been read."""
        return self.fits.of(pick, self.particles)

    # picking

    def pick_at(self, point: tuple[float, ...]) -> None:
        """Pick the particle next to a point, (z,) y, x pixels."""
        if (image := self.image_or_say()) is None:
            return
        reach = max(8.0, 10 * self.canvas.grid.screen)
        box, _ = propose_box(image, point, self.particles.registrar, min(reach, 40.0))
        twin = self._pick_like(box)
        if twin is not None:
            self.choose(twin.id)
            say(self.message, f"That is particle {twin.id}.")
            return
        self.add(box)

    def _pick_like(self, box: Box) -> Pick | None:
        """Return the pick of this frame in whose middle a new box lies."""
        middle = (np.array(box.start) + np.array(box.stop) - 1) / 2
        for pick in self.particles.picks:
            near = np.abs(np.array(pick.centre) - middle) <= 0.25 * np.array(pick.box.shape)
            if pick.frame == self.frame and near.all():
                return pick
        return None

    def add(self, box: Box) -> None:
        """Add a pick in the frame on show."""
        changed = self.particles.added([box], self.frame)
        self._chosen = changed.picks[-1].id
        self.mouse.hover = None  # the pick is looked at until the mouse moves on
        self.session.change_particles(f"pick particle {self._chosen}", changed)
        say(self.message, "")

    def choose(self, number: int) -> None:
        """Look at a particle."""
        self._chosen = number
        self.mouse.hover = None
        self._show()

    def take_up(self, number: int) -> None:
        """Make a particle the chosen one while its box is dragged."""
        self._chosen = number

    def choose_next(self) -> None:
        """Look at the next particle, round the end."""
        names = [pick.id for pick in self.particles.picks]
        if names:
            at = names.index(self._chosen) + 1 if self._chosen in names else 0
            self.show_particle(names[at % len(names)])

    def delete(self) -> None:
        """Delete the chosen particle."""
        number = self.chosen
        if number is None:
            return
        names = [pick.id for pick in self.particles.picks]
        at = names.index(number)
        left = names[at + 1 :] + names[:at][::-1]
        self._chosen = left[0] if left else None
        self.session.change_particles(f"delete particle {number}", self.particles.removed(number))

    def delete_all(self) -> None:
        """Delete all particles."""
        if self.particles.picks:
            self.session.change_particles("delete all particles", self.particles.with_picks(()))

    def nudge(self, y: int, x: int) -> None:
        """Move the chosen box by whole pixels."""
        if self.chosen is not None:
            box = nudged(self.particles.pick(self.chosen).box, (y, x), self.frame_shape)
            self._move(box, f"move particle {self.chosen}", f"nudge {self.chosen}")

    def grow(self, pixels: int) -> None:
        """Make the chosen box larger or smaller on every side."""
        if self.chosen is not None:
            box = grown(self.particles.pick(self.chosen).box, pixels, self.frame_shape)
            self._move(box, f"resize particle {self.chosen}", f"grow {self.chosen}")

    def pick_anew(self) -> None:
        """Put the box of the chosen particle on what is under the mouse, or at its place, in the frame on show."""
        number, image = self.chosen, self.image_or_say()
        if number is None or image is None:
            return
        point = self.mouse.position or self.particles.pick(number).centre
        box, _ = propose_box(image, point, self.particles.registrar)
        self.session.change_particles(
            f"pick particle {number} in frame {self._cursor.frame}", self.particles.moved(number, box, self.frame)
        )

    def _move(self, box: Box, name: str, merge: str) -> None:
        number = self.chosen
        if number is not None and box != self.particles.pick(number).box:
            self.session.change_particles(name, self.particles.moved(number, box), merge=merge)

    def propose(self) -> None:
        """Add particles that stand out in the frame on show."""
        stack = self.session.stack
        if stack is None or self.runner.busy:
            return
        if not 0 <= self.frame < len(stack):
            say(self.message, f"Frame {self._cursor.frame} is outside of the time range.")
            return
        mask = self.session.choices.preprocess.mask(stack.frame_shape)
        begun = self.particles
        work = partial(suggest_work, stack, self.count.value(), self.frame, begun, mask)
        self.start("Suggesting particles", work, partial(self._on_suggested, begun))

    def _on_suggested(self, begun: Particles, found: Particles) -> None:
        if begun is not self.particles:
            return  # picked by hand meanwhile
        count = len(found.picks) - len(begun.picks)
        self._chosen = found.picks[len(begun.picks)].id
        self.session.change_particles(f"suggest {particles_text(count)}", found)
        fewer = count < self.count.value()
        say(self.message, f"Proposed {particles_text(count)}{': no more stand out alone' if fewer else ''}.")

    # the mouse

    def _on_pick(self, on: bool) -> None:
        self.canvas.pick(on)
        self.pick.setText("Picking: click a particle" if on else "Pick with the mouse")
        if not on:
            self.mouse.leave()
            self._show()

    # frames

    def _on_frame(self, _frame: int = 0) -> None:
        self.mouse.hover = None
        self.seen.read()
        self._show()

    def image_or_say(self) -> NDArray[Any] | None:
        """Return the frame on show if something can be picked in it; else say why not."""
        stack = self.session.stack
        if stack is None:
            return None
        if not 0 <= self.frame < len(stack):
            say(self.message, f"Frame {self._cursor.frame} is outside of the time range: nothing is picked there.")
            return None
        if not self.ready:
            say(self.message, "The frame is still being read: try again in a moment.")
            return None
        return self.seen.image

    # following

    def follow(self) -> None:
        """Follow the picks through all frames, if nothing stands in the way."""
        movie, stack = self.session.movie, self.session.stack
        if self._obstacle() or movie is None or stack is None:
            return
        begun = self.particles
        self.pick.setChecked(False)
        self.start(
            f"Following {particles_text(len(begun.picks))}",
            partial(follow_work, stack, begun.registrar),
            partial(self._on_followed, movie, begun, True),
            partial(self._on_followed, movie, begun, False),
        )

    def _on_followed(self, movie: Movie, begun: Particles, complete: bool, tracks: TrackSet | None) -> None:
        if tracks is None or not tracks.found.any():
            say(self.message, "Cancelled before any particle was found." if not complete else "No particle was found.")
            return
        if not self.session.take_tracks(movie, begun, tracks, complete):
            say(self.message, "The particles were picked anew meanwhile: follow them again.")
        elif not self.closed:
            QTimer.singleShot(0, partial(self.scroll.ensureWidgetVisible, self.next, 0, 8))

    def _obstacle(self) -> str:
        if self.session.movie is None:
            return "Choose a movie first"
        if self.runner.busy:
            return "Something is running: wait, or cancel it"
        if not self.particles.picks:
            return "Pick a particle first, or let some be suggested"
        return ""

    # the session speaks

    def _on_movie(self, movie: Movie | None) -> None:
        layer = self.movie.layer
        axes = "tyx" if movie is None else movie.axes
        self.canvas.follow(layer, axes)
        self._cursor.follow(layer, axes)
        self.pick.setEnabled(layer is not None)
        if layer is None:
            self.pick.setChecked(False)
        self.fits.clear()
        self.mouse.leave()
        self.seen.read()
        self._on_choices()
        self._show()

    def _on_particles(self, particles: Particles) -> None:
        if self.form.record != particles.registrar:
            self.form.load(particles.registrar)
        self._show()

    def _on_choices(self, _value: Any = None) -> None:
        self.show_ready()
        self._show()

    def _on_form(self, record: Any) -> None:
        registrar = self.particles.registrar
        changes = {name: getattr(record, name) for name in self.form.rows}
        self.session.change_particles(
            f"change {self.form.last_edited.replace('_', ' ')}",
            self.particles.with_registrar(registrar.model_copy(update=changes)),
            merge=f"particle option {self.form.last_edited}",
        )

    def show_ready(self) -> None:
        """Name what following would do."""
        stack, count = self.session.stack, len(self.particles.picks)
        through = "" if stack is None else f" through {frames_text(len(stack))}"
        verb = "Follow again" if self.particles.stale else "Track"
        text = f"{verb} {particles_text(count) if count else 'particles'}{through}"
        obstacle = self._obstacle()
        self.run.show_ready(text, obstacle, visible=not self.runner.busy)
        if not obstacle:
            self.run.button.setToolTip("Find every particle in every frame; nothing is changed yet (Ctrl+Return)")
        self.suggest.setEnabled(self.session.movie is not None and not self.runner.busy)
        for widget in (self.remove, self.clear, self.files.saving):
            widget.setEnabled(bool(count))

    # what is seen

    def show_particle(self, number: int) -> None:
        """Look at a particle, in the frame in which it was picked unless it was followed."""
        self.choose(number)
        pick = self.particles.pick(number)
        if self.tracked(number) is None and pick.frame != self.frame:
            self._cursor.go_to(pick.frame + self._first)

    def tracked(self, number: int) -> NDArray[np.float64] | None:
        """Return where a particle was followed to in the frame on show; None if it was not followed there."""
        return followed_to(self.particles, number, self.frame)

    def _show(self) -> None:
        particles, image = self.particles, self.seen.image
        if image is not None:
            self.fits.fit_missing(image, self.frame, particles)
        rows = [pick_row(p, self.fits.of(p, particles), particles, self._first) for p in particles.picks]
        self.table.show_rows(rows, self.chosen)
        say(self.sentence, particles.sentence if not particles.stale else "")
        self.next.setVisible(particles.tracks is not None)
        self.show_ready()
        number = self.chosen
        if self.mouse.hover is None:
            fit = None
            if number is not None and image is not None:
                fit = self.fits.seen(image, self.frame, number, particles)
            self.show_fit(fit)
        self.draw()

    def show_fit(self, fit: SpotFit | None) -> None:
        """Show a fit of the frame on show, or none."""
        image, stack = self.seen.image, self.session.stack
        if fit is None or image is None:
            empty = not self.particles.picks
            self.fit_view.show_nothing(
                "Click a particle, draw a box around it, or let some be suggested." if empty else ""
            )
            return
        who = "Under the mouse" if self.mouse.hover is not None else f"Particle {self.chosen}"
        size, unit = (None, "") if stack is None else (stack.pixel_size, stack.unit)
        self.fit_view.show_fit(image, fit, who, size, unit)

    def draw(self) -> None:
        """Draw the boxes of the frame on show."""
        boxes = [self._view(pick) for pick in self.particles.picks]
        if self.mouse.hover is not None:
            start, stop = self.mouse.hover.start[-2:], self.mouse.hover.stop[-2:]
            boxes.append(BoxView(0, pair(start), pair(stop), "live", False, (0.0, 0.0)))
        self.canvas.show(boxes, moving=self.mouse.dragging or self.mouse.hover is not None)

    def _view(self, pick: Pick) -> BoxView:
        here = pick.frame == self.frame
        fit = self.fits.of(pick, self.particles) if here else None
        place = None if here else self.tracked(pick.id)
        return box_view(pick, fit, here, place, pick.id == self.chosen, self.frame_shape)

    @property
    def _first(self) -> int:
        return (self.session.choices.frames or (0, 0))[0]
