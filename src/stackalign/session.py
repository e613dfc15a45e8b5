"""What a viewer works on: movie, choices, results, undo. No Qt, no napari; changed on the main thread only."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal, SignalGroup

from stackalign.core.geometry import centre
from stackalign.core.stack import ImageStack
from stackalign.history import Edit, History

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from numpy.typing import NDArray

    from stackalign.config import AlignmentConfig
    from stackalign.core.preprocess import Preprocess
    from stackalign.core.quality import Quality
    from stackalign.core.registration import Registrar, Registration
    from stackalign.core.transform_series import TransformSeries
    from stackalign.core.warp import WarpOptions
    from stackalign.core.work import Work

Vertices = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Movie:
    """A stack with all its frames, and where it comes from.

    Attributes
    ----------
    stack : ImageStack
        One channel.
    key : str
        What the viewer calls it; empty for a stack without a layer.
    axes, channel
        How the layer's array is read.
    path : str or None
        The file; None if the movie is only in memory.
    file_axes, file_channel
        What ``read_stack`` must be told to read the same from the file.
    """

    stack: ImageStack
    key: str = ""
    axes: str = ""
    channel: int | str | None = None
    path: str | None = None
    file_axes: str | None = None
    file_channel: int | str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """What a motion plot shows.

    Attributes
    ----------
    drift : ndarray (T, d)
        How far the centre of the frame moved, reference -> moving, pixels.
    angle : ndarray (T,)
        Rotation, degrees, of the scene (in 3-D its magnitude).
    error : ndarray (T, d)
        Standard error, pixels; NaN where unknown.
    reasons : tuple of str
        Why a frame is flagged; empty for a good one.
    axes : str
        "yx" or "zyx".
    """

    drift: NDArray[np.float64]
    angle: NDArray[np.float64]
    error: NDArray[np.float64]
    reasons: tuple[str, ...]
    axes: str

    @property
    def flagged(self) -> NDArray[np.bool_]:
        """(T,) True where a frame has a reason."""
        return np.array([bool(reason) for reason in self.reasons], bool)

    @classmethod
    def of(cls, registration: Registration, frame_shape: tuple[int, ...]) -> Motion:
        """Return the motion of a result on frames of ``frame_shape``."""
        series = registration.transforms
        middle = centre(frame_shape)
        back = np.linalg.inv(series.matrices) @ np.append(middle, 1.0)
        drift = back[:, :-1] / back[:, -1:] - middle
        angles = np.degrees(series.angles)
        angle = -angles if series.ndim == 2 else np.linalg.norm(angles, axis=1)
        error = np.asarray(registration.quality.error, float)[:, : series.ndim]
        return cls(drift, np.atleast_1d(angle), error, registration.quality.reasons, "zyx"[-series.ndim :])


@dataclass(frozen=True, slots=True)
class Choices:
    """Everything that a run depends on besides the movie; a recipe holds the same.

    Attributes
    ----------
    registrar : Registrar
        The method with its parameters.
    reference : str, int or None
        Which image is aligned to; None: the method's default.
    anchor : int, "mean" or None
        Which frame stays where it is.
    frames : (start, stop) or None
        Time range; None: all.
    preprocess : Preprocess
        Region and filters.
    warp : WarpOptions
        How frames are resampled when the result is applied.
    """

    registrar: Any
    reference: str | int | None = None
    anchor: int | str | None = None
    frames: tuple[int, int] | None = None
    preprocess: Any = None
    warp: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A result with what led to it.

    Attributes
    ----------
    number : int
        Counts the runs of a session, from 1.
    movie, choices
        What was aligned, and how.
    registration : Registration
        The result.
    quality : Quality or None
        Before and after on the same region; None where it was not measured.
    seconds : float
        Duration.
    complete : bool
        False if it was cancelled and holds only what was done until then.
    """

    number: int
    movie: Movie
    choices: Choices
    registration: Registration
    quality: Quality | None
    seconds: float
    complete: bool = True

    @property
    def motion(self) -> Motion:
        """What a plot shows."""
        return Motion.of(self.registration, self.movie.stack.frame_shape)

    @property
    def first(self) -> int:
        """Number of the movie's frame that the first transform belongs to."""
        return (self.choices.frames or (0, 0))[0]

    @property
    def flagged(self) -> tuple[int, ...]:
        """Frames of the movie that have a reason not to be trusted."""
        return tuple(int(t) + self.first for t in np.flatnonzero(self.registration.quality.flagged))

    @property
    def label(self) -> str:
        """One line for a list of runs."""
        words = [str(self.number), self.choices.registrar.method]
        if self.quality is not None:
            before, after = self.quality.correlation_before, self.quality.correlation_after
            words.append(f"{before:.2f} → {after:.2f}")
        if not self.complete:
            words.append("(cancelled)")
        return "  ".join(words)

    @property
    def sentence(self) -> str:
        """What came out, for a user."""
        count, flagged = len(self.registration), len(self.flagged)
        verb = "Aligned" if self.complete else "Cancelled; kept the result so far of"
        text = f"{verb} {_frames(count)}; {flagged or 'none'} flagged"
        if self.quality is not None:
            q = self.quality
            text += f"; correlation with the mean {q.correlation_before:.2f} → {q.correlation_after:.2f}"
        return text + "."


@dataclass(frozen=True, slots=True, eq=False)
class RunOutput:
    """What the work of a run returns, and yields as its partial result."""

    registration: Registration
    quality: Quality | None
    seconds: float
    complete: bool = True


class SessionEvents(SignalGroup):
    """Emitted after a change, with the new value."""

    movie = Signal(object)
    choices = Signal(object)
    runs = Signal(object)
    current = Signal(object)
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

    def __init__(self) -> None:
        self.events = SessionEvents(self)
        self.history = History(self)
        self._values: dict[str, Any] = {"movie": None, "choices": default_choices(), "runs": (), "current": None}
        self._generation = 0
        self._job: tuple[int, Movie, Choices] | None = None
        self._numbers = 0

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
        return ""

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
        if choices != self.choices:
            values["choices"] = choices
        self._do(Edit(f"open {movie.stack.name}" if movie else "close the movie", values))

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
        if choices.frames is not None and self.movie is not None:
            start, stop = choices.frames
            count = len(self.movie.stack)
            if not 0 <= start < stop <= count:
                raise ValueError(f"frames {start} to {stop - 1} do not lie within 0 to {count - 1}")
            if (start, stop) == (0, count):
                choices = replace(choices, frames=None)
        if choices != self.choices:
            self._do(Edit("change " + " and ".join(values), {"choices": choices}, merge))

    def set_region(self, vertices: Vertices | None) -> None:
        """Use only what is inside a polygon or rectangle of (y, x) pixels; None: whole frames."""
        region = None if vertices is None else _region(vertices)
        self.change(merge="region", preprocess=self.choices.preprocess.model_copy(update={"region": region}))

    def begin(self) -> tuple[int, Work[RunOutput]]:
        """Begin a run.

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
        return self._generation, run_work(stack, self.choices)

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
        self._do(Edit(f"align {_frames(len(output.registration))}", values))
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
            self._do(Edit(f"open run {number}", {"movie": run.movie, "choices": run.choices, "current": run}))

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
        edited = replace(run, registration=registration, quality=None)
        runs = tuple(edited if r.number == run.number else r for r in self.runs)
        self._do(Edit(name, {"runs": runs, "current": edited}))

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


def _frames(count: int) -> str:
    return f"{count} frame{'' if count == 1 else 's'}"
