"""What a viewer works on: movie, choices, results, undo. No Qt, no napari; changed on the main thread only."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from psygnal import Signal, SignalGroup

from stackalign.core.stack import ImageStack
from stackalign.history import Edit, History
from stackalign.runs import Choices as Choices
from stackalign.runs import Motion as Motion
from stackalign.runs import Movie as Movie
from stackalign.runs import Run as Run
from stackalign.runs import RunOutput as RunOutput
from stackalign.runs import frames_text, region_within, run_work

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stackalign.core.registration import Registrar
    from stackalign.core.spots.tracks import TrackSet
    from stackalign.core.transform_series import TransformSeries
    from stackalign.core.work import Work
    from stackalign.picking import Particles
    from stackalign.runs import Vertices

REFERENCES = {
    "mean": "mean of all frames",
    "median": "median of all frames",
    "first": "first frame",
    "previous": "previous frame",
    "rolling": "rolling mean",
    "all-pairs": "all pairs of frames",
}


def methods() -> dict[str, type[Any]]:
    """Return the parameter record of every method, by its name."""
    from stackalign.config import METHODS

    return dict(METHODS)


def default_choices(method: str = "cross-correlation") -> Choices:
    """Return the choices of a session that nobody has touched."""
    from stackalign.core.frames.preprocess import Preprocess
    from stackalign.core.warping.warp import WarpOptions

    return Choices(methods()[method](), preprocess=Preprocess(), warp=WarpOptions())


class SessionEvents(SignalGroup):
    """Emitted after a change, with the new value."""

    movie = Signal(object)
    choices = Signal(object)
    runs = Signal(object)
    current = Signal(object)
    particles = Signal(object)
    placements = Signal(object)
    job = Signal(object)
    history = Signal()


class AlignmentSession:
    """The state that all panels of one viewer share.

    Every change goes through a command here, is announced by an event and can be undone. A run works on the frozen
    values that it was begun with; `accept` drops its result if another one was begun since.

    Examples
    --------
    >>> import numpy as np
    >>> session = AlignmentSession()
    >>> session.open_stack(np.zeros((4, 32, 32), np.uint16))
    >>> session.change(frames=(0, 3))
    >>> session.undo(), session.choices.frames
    (True, None)
    """

    def __init__(self, method: str = "cross-correlation") -> None:
        self.events = SessionEvents(self)
        self.history = History(self)
        self._values: dict[str, Any] = {
            "movie": None, "choices": default_choices(method), "runs": (), "current": None, "particles": None,
            "placements": {},
        }  # fmt: skip
        self._generation = 0
        self._job: tuple[int, Movie, Choices] | None = None
        self._numbers = 0
        self._remembered: dict[str, Any] = {}

    # state

    @property
    def movie(self) -> Movie | None:
        """What is being worked on."""
        movie: Movie | None = self._values["movie"]
        return movie

    @property
    def choices(self) -> Choices:
        """How it will be aligned."""
        choices: Choices = self._values["choices"]
        return choices

    @property
    def runs(self) -> tuple[Run, ...]:
        """Results so far, oldest first."""
        runs: tuple[Run, ...] = self._values["runs"]
        return runs

    @property
    def current(self) -> Run | None:
        """The result that is looked at."""
        run: Run | None = self._values["current"]
        return run

    @property
    def particles(self) -> Particles:
        """What is picked, followed and excluded."""
        from stackalign.picking import Particles

        if self._values["particles"] is None:  # made when it is first asked for: it brings compiled code along
            self._values["particles"] = Particles()
        particles: Particles = self._values["particles"]
        return particles

    @property
    def placements(self) -> Mapping[str, Any]:
        """Where layers were put, by their id: the affine of each one that was registered to another."""
        placements: Mapping[str, Any] = self._values["placements"]
        return placements

    @property
    def busy(self) -> bool:
        """Whether a run was begun whose end is not known yet."""
        return self._job is not None

    @property
    def stack(self) -> ImageStack | None:
        """The frames that a run will see: the movie within the time range."""
        if self.movie is None:
            return None
        return _selected(self.movie, self.choices)

    @property
    def obstacle(self) -> str:
        """Why no run can begin, in words; empty if one can."""
        if self.movie is None:
            return "Choose a movie first"
        if self.busy:
            return "A run is going on"
        stack = self.stack
        if stack is not None and len(stack) < 2:
            return "There is only one frame: nothing to align"
        return str(getattr(self.choices.registrar, "missing", ""))  # what has to be installed first

    # commands

    def open_movie(self, movie: Movie | None) -> None:
        """Work on another movie: the result on show and a time range that does not fit are put away."""
        if movie is self.movie:
            return
        values: dict[str, Any] = {"movie": movie}
        if self.current is not None:
            values["current"] = None
        old = self.movie
        same = (
            movie is not None and old is not None
            and movie.key == old.key and movie.stack.frame_shape == old.stack.frame_shape
        )  # fmt: skip
        choices = self.choices
        if choices.frames is not None and (movie is None or choices.frames[1] > len(movie.stack) or not same):
            choices = replace(choices, frames=None)
        if not same and choices.preprocess is not None and choices.preprocess.region is not None:
            choices = replace(choices, preprocess=choices.preprocess.model_copy(update={"region": None}))
        if not same and self._values["particles"] is not None and old is not None:
            values["particles"] = self.particles.with_picks(()).without_tracks()
            if choices.registrar.method == "particles":
                choices = replace(choices, registrar=values["particles"].registrar)
        if choices != self.choices:
            values["choices"] = choices
        if old is None or movie is None:  # the viewer's doing, not the user's: nothing to take back
            self._exchange(values)
        else:
            self._do(Edit(f"open {movie.name}", values))

    def open_stack(self, stack: Any, path: str | None = None) -> None:
        """Work on a stack or an array that has no layer."""
        self.open_movie(Movie(ImageStack.of(stack), path=path))

    def change(self, *, merge: str = "", **values: Any) -> None:
        """Change some of the `Choices`, by name.

        Parameters
        ----------
        merge : str
            Consecutive changes with the same tag are one step for `undo`.
        **values
            Fields of `Choices`.
        """
        choices = replace(self.choices, **values)
        self._remembered[choices.registrar.method] = choices.registrar
        if choices.frames is not None and self.movie is not None:
            start, stop = choices.frames
            count = len(self.movie.stack)
            if not 0 <= start < stop <= count:
                raise ValueError(f"frames {start} to {stop - 1} do not lie within 0 to {count - 1}")
            if (start, stop) == (0, count):
                choices = replace(choices, frames=None)
        if choices != self.choices:
            self._do(Edit("change " + " and ".join(values), self._with_particles(choices), merge))

    def adopt(self, choices: Choices) -> None:
        """Take all choices over, of a recipe for instance; a time range beyond the movie's frames is left out."""
        movie = self.movie
        if choices.frames is not None and movie is not None and choices.frames[1] > len(movie.stack):
            choices = replace(choices, frames=None)
        self._remembered[choices.registrar.method] = choices.registrar
        if choices != self.choices:
            self._do(Edit("take the choices of a recipe", self._with_particles(choices, shift=False)))

    def change_particles(self, name: str, particles: Particles, *, merge: str = "") -> None:
        """Replace what is picked, followed or excluded; a recipe of this method changes with it.

        Parameters
        ----------
        name : str
            What was done, for the history.
        particles : Particles
            The new record.
        merge : str
            Consecutive changes with the same tag are one step for `undo`.
        """
        if particles is self._values["particles"]:
            return
        values: dict[str, Any] = {"particles": particles}
        if self.choices.registrar.method == "particles" and self.choices.registrar != particles.registrar:
            values["choices"] = replace(self.choices, registrar=particles.registrar)
        self._do(Edit(name, values, merge))

    def place_layer(self, name: str, key: str, before: NDArray[Any], after: NDArray[Any]) -> None:
        """Put a layer somewhere else; `events.placements` tells who shows it.

        Parameters
        ----------
        name : str
            What was done, for the history.
        key : str
            The layer's id.
        before, after : ndarray (n+1, n+1)
            Its affine as it is now, and as it is to be.
        """
        self._exchange({"placements": {**self.placements, key: before}})  # undo leads back to what was done by hand
        self._do(Edit(name, {"placements": {**self.placements, key: after}}))

    def take_tracks(self, movie: Movie, begun: Particles, tracks: TrackSet, complete: bool = True) -> bool:
        """Keep where particles were found; False if movie or picks are others by now.

        Parameters
        ----------
        movie, begun
            What following them was begun with.
        tracks : TrackSet
            What it found.
        complete : bool
            False if it was cancelled.
        """
        if movie is not self.movie or begun.picks != self.particles.picks:
            return False
        self.change_particles(f"follow {len(tracks)} particles", self.particles.with_tracks(tracks, complete))
        return True

    def _with_particles(self, choices: Choices, shift: bool = True) -> dict[str, Any]:
        """Return the values that change with ``choices``: particles follow their method's record and the time range."""
        values: dict[str, Any] = {"choices": choices}
        if self._values["particles"] is None and choices.registrar.method != "particles":
            return values
        particles = self.particles
        if choices.registrar.method == "particles" and choices.registrar != particles.registrar:
            particles = particles.with_registrar(choices.registrar)
        before, after = (0 if c.frames is None else c.frames[0] for c in (self.choices, choices))
        if self.movie is not None and choices.frames != self.choices.frames:
            if shift:
                particles = particles.shifted(after - before, len(_selected(self.movie, choices)))
            particles = particles.without_tracks()
            if choices.registrar.method == "particles":
                values["choices"] = replace(choices, registrar=particles.registrar)
        if particles is not self.particles:
            values["particles"] = particles
        return values

    def set_region(self, vertices: Vertices | None) -> None:
        """Use only what is inside a polygon or rectangle of (y, x) pixels; None: whole frames."""
        region = None
        if vertices is not None:
            if self.movie is None:
                raise ValueError("Choose a movie first: a region is a part of its frames.")
            region = region_within(vertices, self.movie.stack.frame_shape)
        self.change(merge="region", preprocess=self.choices.preprocess.model_copy(update={"region": region}))

    def default_registrar(self, method: str) -> Registrar:
        """Return a method with the parameters that it was last given here, or its defaults."""
        if method == "particles" and self._values["particles"] is not None:
            return self.particles.registrar
        if method not in self._remembered:
            self._remembered[method] = methods()[method]()
        registrar: Registrar = self._remembered[method]
        return registrar

    def begin(self, work: Work[RunOutput] | None = None) -> tuple[int, Work[RunOutput]]:
        """Begin a run.

        Parameters
        ----------
        work : Work of RunOutput, optional
            What to run with the present choices, where a part of it is done already.

        Returns
        -------
        token : int
            To hand to `accept` or `end`.
        work : generator
            Runs in any thread, on frozen values; returns a `RunOutput`, and yields one as its partial result.

        Raises
        ------
        ValueError
            If there is an `obstacle`.
        """
        if self.obstacle:
            raise ValueError(self.obstacle)
        stack, movie = self.stack, self.movie
        assert stack is not None
        assert movie is not None
        self._generation += 1
        self._job = (self._generation, movie, self.choices)
        self.history.seal()
        self.events.job.emit(self._generation)
        return self._generation, run_work(stack, self.choices) if work is None else work

    def accept(self, token: int, output: RunOutput) -> Run | None:
        """Keep the result of a run, with what it was begun with, and show it; None if it is stale.

        Parameters
        ----------
        token : int
            What `begin` returned.
        output : RunOutput
            What its work returned, or its partial result.
        """
        if self._job is None or token != self._job[0]:
            return None
        _, movie, choices = self._job
        self._numbers += 1
        run = Run(self._numbers, movie, choices, output.registration, output.quality, output.seconds, output.complete)
        values: dict[str, Any] = {"runs": (*self.runs, run)}
        if movie is self.movie:  # else the user has gone on to another movie: the run waits in the list
            values["current"] = run
            values |= self._followed(run)
        self._do(Edit(f"align {frames_text(len(output.registration))}", values))
        self.end(token)
        return run

    def end(self, token: int) -> None:
        """Note that a run is over, with or without a result."""
        if self._job is not None and token == self._job[0]:
            self._job = None
            self.events.job.emit(None)

    def show_run(self, number: int) -> None:
        """Open a past result again, with its movie and choices."""
        run = next((r for r in self.runs if r.number == number), None)
        if run is None:
            raise ValueError(f"there is no run {number}: there are {[r.number for r in self.runs]}")
        if run is not self.current:
            values = {"movie": run.movie, "choices": run.choices, "current": run, **self._followed(run)}
            self._do(Edit(f"open run {number}", values))

    def _followed(self, run: Run) -> dict[str, Any]:
        """Return the particles that a run followed, as a value; nothing if it followed none or they stand already."""
        details = run.registration.details
        tracks, picks = details.get("tracks"), details.get("picks")
        if tracks is None or not picks or tracks is self.particles.tracks or not run.complete:
            return {}
        registrar = run.choices.registrar.model_copy(update={"picks": tuple(picks)})
        return {"particles": self.particles.with_registrar(registrar).with_tracks(tracks)}

    def remove_run(self, number: int) -> None:
        """Take a result off the list."""
        runs = tuple(r for r in self.runs if r.number != number)
        values: dict[str, Any] = {"runs": runs}
        if self.current is not None and self.current.number == number:
            values["current"] = runs[-1] if runs and runs[-1].movie is self.movie else None
        self._do(Edit(f"remove run {number}", values))

    def edit_transforms(self, name: str, transforms: TransformSeries, reasons: Mapping[int, str] | None = None) -> None:
        """Replace the transforms of the result on show, made by hand or by smoothing; it can be undone.

        Parameters
        ----------
        name : str
            What was done, for the history.
        transforms : TransformSeries
            Of the same length.
        reasons : mapping of int to str, optional
            Frames (counted from the run's first) that are flagged by this.
        """
        run = self.current
        if run is None:
            raise ValueError("there is no result to edit: align first")
        if len(transforms) != len(run.registration):
            raise ValueError(f"{len(transforms)} transforms for {len(run.registration)} frames")
        quality = run.registration.quality.with_reasons(reasons or {})
        edits = (*run.registration.provenance.get("edits", ()), name)
        registration = replace(
            run.registration,
            transforms=transforms,
            quality=quality,
            provenance={**run.registration.provenance, "edits": edits},
        )
        self.replace_run(name, replace(run, registration=registration, quality=None))

    def replace_run(self, name: str, edited: Run, *, merge: str = "") -> None:
        """Put an edited result in the place of the one on show; it can be undone.

        Parameters
        ----------
        name : str
            What was done, for the history.
        edited : Run
            Of the same number as the result on show.
        merge : str
            Consecutive changes with the same tag are one step for `undo`.
        """
        run = self.current
        if run is None or run.number != edited.number:
            raise ValueError(f"run {edited.number} is not the one on show")
        runs = tuple(edited if r.number == run.number else r for r in self.runs)
        self._do(Edit(name, {"runs": runs, "current": edited}, merge))

    def undo(self) -> bool:
        """Take back the last change; False if there is none."""
        done = self.history.undo()
        self.events.history.emit()
        return done

    def redo(self) -> bool:
        """Make the change again that was taken back last; False if there is none."""
        done = self.history.redo()
        self.events.history.emit()
        return done

    def _do(self, edit: Edit) -> None:
        self.history.do(edit)
        self.events.history.emit()

    def _exchange(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Take new values over, all of them before the first event; return the old ones."""
        old = {name: self._values[name] for name in values}
        self._values.update(values)
        for name, value in values.items():
            if value is not old[name]:
                self.events[name].emit(value)
        return old


def _selected(movie: Movie, choices: Choices) -> ImageStack:
    return movie.stack if choices.frames is None else movie.stack.selected(slice(*choices.frames))
