"""The panel "Pick particles": click, draw or suggest; see the fit; follow them through the movie."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QSizePolicy, QSpinBox

from stackalign.picking import (
    BOX,
    LEAST_SIDE,
    Particles,
    box_around,
    drawn_box,
    fit_box,
    follow_work,
    grown,
    inside,
    load_frame,
    nudged,
    numbers_of,
    particles_text,
    patches_of,
    propose_box,
    reason_of,
    suggest_work,
)
from stackalign.runs import frames_text
from stackalign.widgets._form import ParameterForm
from stackalign.widgets._frame_reader import LatestOnly
from stackalign.widgets._keys import CanvasKeys
from stackalign.widgets._movie_section import MovieSection
from stackalign.widgets._panel import Panel
from stackalign.widgets._patch_view import PatchView
from stackalign.widgets._pick_canvas import BoxView, PickCanvas
from stackalign.widgets._pick_files import PicksFiles
from stackalign.widgets._pick_rows import box_view, pair, pick_row
from stackalign.widgets._picks_table import PicksTable
from stackalign.widgets._plot import BAD, GOOD
from stackalign.widgets._preview import FrameCursor
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

_FOLLOW_MS = 16  # the fit under the mouse is drawn at most 60 times a second
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
        self._image: NDArray[Any] | None = None
        self._image_of: tuple[Movie, int] | None = None
        self._fits: dict[tuple[Pick, Any], SpotFit] = {}
        self._chosen: int | None = None
        self._mouse: tuple[float, ...] | None = None
        self._hover: Box | None = None
        self._gesture = itertools.count()
        self._grip: tuple[int, Box, str] | None = None
        self._movie_of_layer: Movie | None = None

        self.movie = MovieSection(napari_viewer, self.session)
        self._cursor = FrameCursor(napari_viewer, self)
        self._reader = LatestOnly(self)
        self.canvas = PickCanvas(napari_viewer, self)
        self._build()
        self._follow_mouse = QTimer(self, singleShot=True, interval=_FOLLOW_MS)
        self._follow_mouse.timeout.connect(self._fit_under_mouse)

        self._cursor.moved.connect(self._on_frame)
        self._reader.done.connect(self._on_read)
        self.canvas.hovered.connect(self._on_hover)
        self.canvas.clicked.connect(self.pick_at)
        self.canvas.chosen.connect(self.choose)
        self.canvas.drawing.connect(self._on_drawing)
        self.canvas.dragged.connect(self._on_dragged)
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
        for closer in (self._cursor.close, self.movie.close_section, self._reader.close, self.canvas.close, keys.close):
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
        self.patches = PatchView()
        self.numbers = note()
        self.verdict = note(strong=True)
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
            self.movie, line, self.patches, self.numbers, self.verdict, self.table, below, self.options, self.run,
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
        return self._image is not None and self._image_of == (self.session.movie, self._cursor.frame)

    @property
    def _shape(self) -> tuple[int, ...]:
        movie = self.session.movie
        return () if movie is None else movie.stack.frame_shape

    def fit_of(self, pick: Pick) -> SpotFit | None:
        """Return the fit of a pick in its own frame; None as long as that frame has not been read."""
        return self._fits.get((pick, _fit_key(self.particles)))

    # picking

    def pick_at(self, point: tuple[float, ...]) -> None:
        """Pick the particle next to a point, (z,) y, x pixels."""
        if (image := self._image_or_say()) is None:
            return
        reach = max(8.0, 10 * self.canvas.grid.screen)
        box, _ = propose_box(image, point, self.particles.registrar, min(reach, 40.0))
        twin = self._pick_like(box)
        if twin is not None:
            self.choose(twin.id)
            say(self.message, f"That is particle {twin.id}.")
            return
        self._add(box)

    def _pick_like(self, box: Box) -> Pick | None:
        """Return the pick of this frame in whose middle a new box lies."""
        middle = (np.array(box.start) + np.array(box.stop) - 1) / 2
        for pick in self.particles.picks:
            near = np.abs(np.array(pick.centre) - middle) <= 0.25 * np.array(pick.box.shape)
            if pick.frame == self.frame and near.all():
                return pick
        return None

    def _add(self, box: Box) -> None:
        changed = self.particles.added([box], self.frame)
        self._chosen = changed.picks[-1].id
        self._hover = None  # the pick is looked at until the mouse moves on
        self.session.change_particles(f"pick particle {self._chosen}", changed)
        say(self.message, "")

    def choose(self, number: int) -> None:
        """Look at a particle."""
        self._chosen = number
        self._hover = None
        self._show()

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
            box = nudged(self.particles.pick(self.chosen).box, (y, x), self._shape)
            self._move(box, f"move particle {self.chosen}", f"nudge {self.chosen}")

    def grow(self, pixels: int) -> None:
        """Make the chosen box larger or smaller on every side."""
        if self.chosen is not None:
            box = grown(self.particles.pick(self.chosen).box, pixels, self._shape)
            self._move(box, f"resize particle {self.chosen}", f"grow {self.chosen}")

    def pick_anew(self) -> None:
        """Put the box of the chosen particle on what is under the mouse, or at its place, in the frame on show."""
        number, image = self.chosen, self._image_or_say()
        if number is None or image is None:
            return
        point = self._mouse or self.particles.pick(number).centre
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
            self._hover = self._mouse = None
            self._show()

    def _on_hover(self, point: tuple[float, ...]) -> None:
        self._mouse = point
        if not self._follow_mouse.isActive():
            self._follow_mouse.start()

    def _fit_under_mouse(self) -> None:
        image = self._image if self.ready else None
        if self._mouse is None or image is None or not self.canvas.picking or self._grip is not None:
            return
        picks = self.particles.picks
        size = picks[-1].box.shape if picks else (BOX,) * image.ndim
        self._hover = box_around(self._mouse, size, image.shape)
        self._show_fit(fit_box(image, self._hover, self.particles.registrar))
        self._draw()

    def _on_drawing(self, begin: tuple[float, ...], end: tuple[float, ...], done: bool) -> None:
        if (image := self._image_or_say()) is None:
            return
        self._hover = box = drawn_box(begin, end, image.shape)
        if done:
            self._hover = None
            self._add(box)
            return
        self._show_fit(fit_box(image, box, self.particles.registrar))
        self._draw()

    def _on_dragged(self, number: int, part: str, shift: tuple[float, float], done: bool) -> None:
        if self._grip is None or self._grip[0] != number:
            self._grip = (number, self.particles.pick(number).box, f"drag {next(self._gesture)}")
            self._chosen = number
            if self._tracked(number) is not None or self.particles.pick(number).frame != self.frame:
                # what is seen is where it was followed to: the box is taken up there
                view = next(b for b in self.canvas.boxes if b.number == number)
                start = np.array([*self._grip[1].start[:-2], *view.start])
                self._grip = (number, inside(start, self._grip[1].shape, self._shape), self._grip[2])
        _, box, tag = self._grip
        step = np.round(shift).astype(int)
        if part == "move":
            new, name = nudged(box, tuple(step), self._shape), f"move particle {number}"
        else:
            new, name = _resized(box, part, step, self._shape), f"resize particle {number}"
        old = self.particles.pick(number)
        if new != old.box or old.frame != self.frame:
            self.session.change_particles(name, self.particles.moved(number, new, self.frame), merge=tag)
        if done:
            self._grip = None
            self.session.history.seal()
            self._draw()

    # frames

    def _on_frame(self, _frame: int = 0) -> None:
        self._hover = None
        self._read()
        self._show()

    def _read(self) -> None:
        movie = self.session.movie
        if movie is None:
            self._image = self._image_of = None
            return
        tag = (movie, self._cursor.frame)
        if self._image_of != tag:
            self._reader.ask(tag, partial(load_frame, movie.stack, self._cursor.frame, self.particles.registrar))

    def _on_read(self, tag: Any, result: Any) -> None:
        if tag != (self.session.movie, self._cursor.frame):
            self._read()
            return
        if isinstance(result, Exception):
            self._image = self._image_of = None
            say(self.message, f"Frame {tag[1]} cannot be read: {result}")
            return
        image, why = result
        self._image, self._image_of = image, tag
        if why:
            say(self.message, f"Frame {tag[1]} is {why}")
        self._show()

    def _image_or_say(self) -> NDArray[Any] | None:
        stack = self.session.stack
        if stack is None:
            return None
        if not 0 <= self.frame < len(stack):
            say(self.message, f"Frame {self._cursor.frame} is outside of the time range: nothing is picked there.")
            return None
        if not self.ready:
            say(self.message, "The frame is still being read: try again in a moment.")
            return None
        return self._image

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
        self._fits.clear()
        self._hover = self._mouse = None
        self._read()
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
        if self._tracked(number) is None and pick.frame != self.frame:
            self._cursor.go_to(pick.frame + self._first)

    def _tracked(self, number: int) -> NDArray[np.float64] | None:
        """Return where a particle was followed to in the frame on show; None if it was not followed there."""
        tracks = self.particles.tracks
        if tracks is None or not 0 <= self.frame < tracks.length:
            return None
        rows = np.flatnonzero(tracks.ids == number)
        followed = next((pick for pick in self.particles.followed if pick.id == number), None)
        if not len(rows) or followed is None or followed not in self.particles.picks:
            return None
        place = tracks.position[int(rows[0]), self.frame]
        return place if np.isfinite(place).all() else None

    def _show(self) -> None:
        self._fit_missing()
        rows = [pick_row(pick, self.fit_of(pick), self.particles, self._first) for pick in self.particles.picks]
        self.table.show_rows(rows, self.chosen)
        say(self.sentence, self.particles.sentence if not self.particles.stale else "")
        self.next.setVisible(self.particles.tracks is not None)
        self.show_ready()
        number = self.chosen
        if self._hover is None:
            self._show_fit(self._seen_fit(number) if number is not None else None)
        self._draw()

    def _fit_missing(self) -> None:
        """Fit the picks of the frame on show that have no fit yet; those of other frames wait until it is shown."""
        if not self.ready or self._image is None:
            return
        key = _fit_key(self.particles)
        for pick in self.particles.picks:
            if pick.frame == self.frame and (pick, key) not in self._fits:
                self._fits[(pick, key)] = fit_box(self._image, pick.box, self.particles.registrar)

    def _seen_fit(self, number: int) -> SpotFit | None:
        """Return the fit of a particle in the frame on show: in its own box, or where it was followed to."""
        pick = self.particles.pick(number)
        if not self.ready or self._image is None:
            return None
        if pick.frame == self.frame:
            return self.fit_of(pick)
        place = self._tracked(number)
        if place is None:
            return None
        return fit_box(self._image, box_around(place, pick.box.shape, self._shape), self.particles.registrar)

    def _show_fit(self, fit: SpotFit | None) -> None:
        image = self._image if self.ready else None
        if fit is None or image is None:
            self.patches.show_patches(None)
            empty = not self.particles.picks
            say(self.numbers, "Click a particle, draw a box around it, or let some be suggested." if empty else "")
            say(self.verdict, "")
            return
        stack = self.session.stack
        self.patches.show_patches(patches_of(image, fit), fit)
        size, unit = (None, "") if stack is None else (stack.pixel_size, stack.unit)
        say(self.numbers, numbers_of(fit, size, unit))
        reason = reason_of(fit)
        self.verdict.setStyleSheet(f"font-weight: 600; color: {BAD if reason else GOOD};")
        who = "Under the mouse" if self._hover is not None else f"Particle {self.chosen}"
        say(self.verdict, f"✗ {who}: {reason}" if reason else f"✓ {who}: good fit")

    def _draw(self) -> None:
        boxes = [self._view(pick) for pick in self.particles.picks]
        if self._hover is not None:
            start, stop = self._hover.start[-2:], self._hover.stop[-2:]
            boxes.append(BoxView(0, pair(start), pair(stop), "live", False, (0.0, 0.0)))
        self.canvas.show(boxes, moving=self._grip is not None or self._hover is not None)

    def _view(self, pick: Pick) -> BoxView:
        here = pick.frame == self.frame
        place = None if here else self._tracked(pick.id)
        return box_view(pick, self.fit_of(pick) if here else None, here, place, pick.id == self.chosen, self._shape)

    @property
    def _first(self) -> int:
        return (self.session.choices.frames or (0, 0))[0]


def _fit_key(particles: Particles) -> Any:
    """Return what a fit depends on besides the pick."""
    registrar = particles.registrar
    return (registrar.polarity, *registrar.fit_options.values())


def _resized(box: Box, part: str, step: NDArray[Any], shape: tuple[int, ...]) -> Box:
    """Return a box of which some borders were dragged; no border passes the opposite one."""
    start, stop = np.array(box.start), np.array(box.stop)
    for name in part.split("-"):
        axis = -2 if name in ("top", "bottom") else -1
        if name in ("top", "left"):
            start[axis] = np.clip(start[axis] + step[axis], 0, stop[axis] - LEAST_SIDE)
        else:
            stop[axis] = np.clip(stop[axis] + step[axis], start[axis] + LEAST_SIDE, shape[axis])
    return inside(start, stop - start, shape)
