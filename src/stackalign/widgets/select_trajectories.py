"""The panel "Select trajectories": which of the followed particles make the motion, seen at once."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSize, QTimer
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QWidget

from stackalign.picking import particles_text
from stackalign.runs import frames_text
from stackalign.trajectories import Trajectories, align_tracks_work
from stackalign.widgets._frame_reader import LatestOnly
from stackalign.widgets._keys import CanvasKeys
from stackalign.widgets._motion_plot import MotionPlot
from stackalign.widgets._panel import Panel, titled
from stackalign.widgets._preview import FrameCursor
from stackalign.widgets._side_by_side import SideBySide
from stackalign.widgets._style import narrow_combo, note, row, say, small_button
from stackalign.widgets._track_canvas import TrackCanvas
from stackalign.widgets._track_layers import layer_of
from stackalign.widgets._track_plot import TrackPlot, along_direction, offer_directions
from stackalign.widgets._track_table import TrackTable
from stackalign.widgets._tracks_menu import TracksMenu

if TYPE_CHECKING:
    import napari

    from stackalign.core.spots.tracks import TrackSet
    from stackalign.picking import Particles
    from stackalign.runs import Motion, RunOutput

_HEIGHT = 140
SHOWN = 4  # particles that a sentence names
_MODELS = {
    "translation": "shift",
    "euclidean": "shift and rotation",
    "similarity": "shift, rotation and scale",
    "affine": "shift, rotation, scale and shear",
}
_KEYS = {
    "In plots, table and canvas": {
        "Click": "look at a particle; in a plot also go to that frame",
        "Ctrl + click": "exclude it, or include it again",
    },
    "On the canvas": {"E": "exclude or include the chosen particle", "N": "next particle"},
    "In the table": {"Tick": "takes part in the motion", "Header": "sort"},
    "In the panel": {"Ctrl+Return": "align", "Ctrl+Z, Ctrl+Shift+Z": "undo, redo", "F1": "this list"},
}


class SelectTrajectories(Panel):
    """Shows how each particle moved and lets the user choose which of them count.

    Parameters
    ----------
    napari_viewer : Viewer
        Injected by napari.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, "stackalign-select-trajectories", _KEYS, parent)
        self.trajectories: Trajectories | None = None
        self._shown: Any = None  # the tracks and the model that are on show or being worked out
        self._excluded: tuple[int, ...] | None = None
        self._chosen: int | None = None
        self._token = 0
        self._cursor = FrameCursor(napari_viewer, self)
        self._thread = LatestOnly(self)
        self.canvas = TrackCanvas(napari_viewer, self)
        self._build()
        self._later = QTimer(self, singleShot=True, interval=0)  # the motion is seen first, the canvas next
        self._later.timeout.connect(self._draw)

        self._thread.done.connect(self._on_thread)
        self._cursor.moved.connect(self._on_frame)
        for part in (self.drift, self.residual, self.table, self.canvas):
            part.chosen.connect(self.choose)
            part.toggled.connect(self.toggle)
        for plot in (self.drift, self.residual):
            plot.frame_clicked.connect(self._go_to)
        self.motion.frame_clicked.connect(self._cursor.go_to)
        self.axis.currentIndexChanged.connect(self._show_curves)
        self.model.activated.connect(self._on_model)
        self.run.start.connect(self.align)
        self.listen("particles", self._on_particles)
        self.listen("movie", self._on_movie)
        self.listen("choices", self._on_choices)
        self.listen("job", self._on_choices)
        keys = CanvasKeys(
            napari_viewer,
            {
                "e": lambda: None if self._chosen is None else self.toggle(self._chosen),
                "n": self.choose_next,
                "Control-Z": self.session.undo,
                "Control-Shift-Z": self.session.redo,
            },
        )
        for closer in (self._cursor.close, self._thread.close, self.canvas.close, keys.close):
            self.at_end(closer)
        self._on_movie(self.session.movie)

    def _build(self) -> None:
        self.about = note()
        self.pick = QPushButton("Pick particles…")
        self.pick.setToolTip("Open the panel where particles are picked and followed")
        self.pick.clicked.connect(partial(self.open_panel, "Pick particles"))
        self.files = TracksMenu(self)
        self.top.insertWidget(2, self.files)
        self.axis = narrow_combo()
        self.model = narrow_combo()
        for name, words in _MODELS.items():
            self.model.addItem(words, name)
        self.choices = QWidget()
        choices = QHBoxLayout(self.choices)
        choices.setContentsMargins(0, 0, 0, 0)
        choices.addWidget(row("", self.axis, tip="Which direction the curves show"), 1)
        choices.addWidget(row("", self.model, tip="What the particles' common motion may be"), 2)
        tip = "Click: choose a particle and go to the frame. Ctrl + click: exclude or include it. Wheel: zoom in time"
        self.drift = TrackPlot("drift (px)", _HEIGHT, f"How far each particle moved. {tip}")
        self.residual = TrackPlot("residual (px)", _HEIGHT, f"What the common motion does not explain. {tip}")
        self.residual.item.setXLink(self.drift.item)
        self.table = TrackTable()
        self.parts = SideBySide(
            titled("Drift of each", self.drift),
            titled("Beside the common motion", self.residual),
            titled("Particles", self.table),
        )
        self.suggestion = note()
        self.follow_suggestion = small_button("Exclude them", "Leave out what is suggested", self.exclude_suggested)
        self.include_all = small_button("Include all", "All particles take part again", lambda: self.exclude(()))
        self.buttons = QWidget()
        line = QHBoxLayout(self.buttons)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.follow_suggestion)
        line.addWidget(self.include_all)
        line.addStretch(1)
        self.count = note(strong=True)
        self.motion = MotionPlot()
        self.sentence = note(strong=True)
        self.next = QPushButton("Validate alignment…")
        self.next.setToolTip("Prove it on particles that took no part, and on the images")
        self.next.clicked.connect(partial(self.open_panel, "Validate alignment"))
        self.next.hide()
        self.fill(
            self.about, self.pick, self.choices, self.suggestion, self.buttons, self.parts, self.count, self.motion,
            self.run, self.message, self.sentence, self.next,
        )  # fmt: skip
        self.column.addStretch(1)
        self.run.button.setObjectName("align-tracks")
        self.shortcut("Ctrl+Return", self.align)

    # choosing

    @property
    def particles(self) -> Particles:
        """The session's record."""
        return self.session.particles

    @property
    def excluded(self) -> set[int]:
        """Particles that take no part."""
        return set(self.particles.registrar.exclude)

    @property
    def chosen(self) -> int | None:
        """The particle that is looked at."""
        return self._chosen

    def choose(self, number: int) -> None:
        """Look at a particle, in plots, table and canvas."""
        self._chosen = number
        self._mark()

    def choose_next(self) -> None:
        """Look at the next particle, round the end."""
        if self.trajectories is not None:
            names = self.trajectories.numbers
            at = names.index(self._chosen) + 1 if self._chosen in names else 0
            self.choose(names[at % len(names)])

    def toggle(self, number: int) -> None:
        """Exclude a particle, or include it again."""
        self._chosen = number
        out = self.excluded
        verb = "include" if number in out else "exclude"
        self._exclude(f"{verb} particle {number}", out ^ {number})

    def exclude(self, numbers: Any) -> None:
        """Exclude these particles and no others."""
        self._exclude("choose particles", set(numbers))

    def exclude_suggested(self) -> None:
        """Exclude what is suggested, besides what is excluded already."""
        if self.trajectories is not None:
            self._exclude("exclude what is suggested", self.excluded | set(self.trajectories.suggested))

    def _exclude(self, name: str, numbers: set[int]) -> None:
        if numbers != self.excluded:
            self.session.change_particles(name, self.particles.excluding(numbers))

    def take_tracks(self, name: str, tracks: TrackSet) -> None:
        """Work on tracks made elsewhere; it can be undone."""
        self._chosen = None
        particles = self.particles.with_picks(()).excluding(()).with_tracks(tracks)
        self.session.change_particles(f"take tracks of {name}", particles)

    def _on_model(self) -> None:
        model = self.model.currentData()
        if model != self.particles.registrar.model:
            registrar = self.particles.registrar.model_copy(update={"model": model})
            self.session.change_particles(f"motion: {_MODELS[model]}", self.particles.with_registrar(registrar))

    # the session speaks

    def _on_movie(self, movie: Any) -> None:
        layer = None if movie is None else layer_of(self._viewer, movie)
        self.canvas.remove()
        self.canvas.grid.layer, self.canvas.grid.axes = layer, "tyx" if movie is None else movie.axes
        self._cursor.follow(layer, self.canvas.grid.axes)
        self._on_particles(self.particles)

    def _on_particles(self, particles: Particles) -> None:
        movie, tracks, model = self.session.movie, particles.tracks, particles.registrar.model
        self.model.setCurrentIndex(self.model.findData(model))
        wanted = None if tracks is None or movie is None else (tracks, model)
        if wanted is None:
            self._shown = self.trajectories = None
            self._show_trajectories()
        elif self._shown is None or self._shown[0] is not tracks or self._shown[1] != model:
            self._shown = wanted
            assert movie is not None
            assert tracks is not None
            shape = movie.stack.frame_shape
            self._thread.ask(("all", wanted), partial(Trajectories.of, tracks, model, shape))
        else:
            self._show_choice()
        self.show_ready()

    def _on_thread(self, tag: Any, result: Any) -> None:
        kind, about = tag
        if isinstance(result, Exception):
            if kind == "all" and about is self._shown:
                self.fail(result, "Reading the tracks")
            elif kind == "exact":
                say(self.count, str(result))
            return
        if kind == "all" and about is self._shown:
            self.trajectories = result
            self._show_trajectories()
        elif kind == "exact" and about == (id(self.trajectories), tuple(sorted(self.excluded))):
            self._show_motion(result)

    def _on_choices(self, _value: Any = None) -> None:
        self.show_ready()

    # what is seen

    def _show_trajectories(self) -> None:
        trajectories = self.trajectories
        some = trajectories is not None
        for part in (self.choices, self.parts, self.buttons, self.motion):
            part.setVisible(some)
        self.pick.setVisible(not some)
        self.table.show_particles(trajectories)
        self._excluded = None
        if trajectories is None:
            say(self.about, "There are no tracks yet: pick particles and follow them, or take tracks from elsewhere.")
            say(self.suggestion, "")
            say(self.count, "")
            self.canvas.remove()
            self.show_ready()
            return
        tracks = trajectories.tracks
        share = float(tracks.found.mean()) if tracks.found.size else 0.0
        say(self.about, f"{particles_text(len(tracks))} through {frames_text(tracks.length)}, found in {share:.0%}")
        if self._chosen not in trajectories.numbers:
            self._chosen = None
        offer_directions(self.axis, tracks.ndim)
        self._show_curves()
        self._show_choice()
        self.show_ready()

    def _show_curves(self, _index: int = 0) -> None:
        trajectories = self.trajectories
        if trajectories is None:
            return
        along = self.axis.currentData()
        for plot, values in ((self.drift, trajectories.drift), (self.residual, trajectories.residual)):
            plot.show_curves(trajectories.numbers, along_direction(values, along), self._first)
        self._mark()

    def _show_choice(self) -> None:
        """Show what the excluded particles change: a draft of the motion at once, the exact one when it is there."""
        trajectories = self.trajectories
        if trajectories is None:
            return
        out = tuple(sorted(self.excluded))
        if out != self._excluded:
            self._excluded = out
            left = trajectories.included(out)
            words = f"{len(left)} of {particles_text(len(trajectories.numbers))}"
            if left:
                self._show_motion(trajectories.draft(out))
                self._thread.ask(("exact", (id(trajectories), out)), partial(trajectories.exact, out))
            else:
                self.motion.show_motion(None)
                words += ": include one at least"
            why = trajectories.suggested
            gone = [f"{k} ({why[k]})" if k in why else f"{k}" for k in out if k in trajectories.numbers]
            more = f" and {len(gone) - SHOWN} more" if len(gone) > SHOWN else ""
            words += f"; left out: {', '.join(gone[:SHOWN])}{more}" if gone and left else ""
            say(self.count, f"Motion of {words}")
        open_ = {k: why for k, why in trajectories.suggested.items() if k not in out}
        words = "; ".join(f"{k} ({why})" for k, why in open_.items())
        say(self.suggestion, f"Suggested to leave out: {words}." if open_ else "")
        self.follow_suggestion.setVisible(bool(open_))
        self.include_all.setVisible(bool(out))
        self.buttons.setVisible(bool(open_ or out))
        self._mark()
        self.show_ready()

    def _show_motion(self, motion: Motion) -> None:
        self.motion.show_motion(motion, self._first)
        self.motion.show_frame(self._cursor.frame)

    def _mark(self) -> None:
        out = self.excluded
        for part in (self.drift, self.residual, self.table):
            part.mark(out, self._chosen)
        self._later.start()

    @property
    def _first(self) -> int:
        return (self.session.choices.frames or (0, 0))[0]

    def _on_frame(self, frame: int) -> None:
        for plot in (self.drift, self.residual, self.motion):
            plot.show_frame(frame)
        self._draw()

    def _draw(self) -> None:
        if self.closed:
            return
        tracks = None if self.trajectories is None else self.trajectories.tracks
        self.canvas.show(tracks, self._cursor.frame - self._first, self.excluded, self._chosen)

    def _go_to(self, frame: int) -> None:
        self._cursor.go_to(frame)

    def sizeHint(self) -> QSize:
        """As wide as the other panels; wider where it is drawn out."""
        return QSize(360, 760)

    # aligning

    def _obstacle(self) -> str:
        if self.trajectories is None:
            return "There are no tracks yet"
        if self.runner.busy or self.session.busy:
            return "Something is running: wait, or cancel it"
        if not self.trajectories.included(self.excluded):
            return "Include one particle at least"
        stack = self.session.stack
        if stack is None or len(stack) != self.trajectories.tracks.length:
            return "The time range has changed since the particles were followed: follow them again"
        return ""

    def show_ready(self) -> None:
        """Name what the button does."""
        trajectories, obstacle = self.trajectories, self._obstacle()
        text = "Align"
        if trajectories is not None:
            left = trajectories.included(self.excluded)
            text = f"Align {frames_text(trajectories.tracks.length)} with {particles_text(len(left))}"
        self.run.show_ready(text, obstacle, visible=trajectories is not None and not self.runner.busy)
        run = self.session.current
        aligned = run is not None and run.registration.details.get("tracks") is not None
        say(self.sentence, run.sentence if aligned and run is not None else "")
        self.next.setVisible(aligned)

    def align(self) -> None:
        """Align with the included particles; nothing is followed again."""
        trajectories, stack = self.trajectories, self.session.stack
        if self._obstacle() or trajectories is None or stack is None:
            return
        particles = self.particles
        if self.session.choices.registrar != particles.registrar:
            self.session.change(registrar=particles.registrar)
        picks = particles.followed or particles.picks
        work = align_tracks_work(stack, self.session.choices, trajectories.tracks, picks)
        self._token, work = self.session.begin(work)
        self.start("Aligning", work, self._on_aligned, self._on_partial)

    def _on_aligned(self, output: RunOutput) -> None:
        self.session.accept(self._token, output)

    def _on_partial(self, output: RunOutput | None) -> None:
        if output is not None:
            self.session.accept(self._token, output)
        else:
            say(self.message, "Aligning was cancelled.")

    def finished(self) -> None:
        """Note that the run is over, however it ended."""
        self.session.end(self._token)
