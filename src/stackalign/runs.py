"""What a session holds: a movie, the choices of a run, and the runs with their results. Frozen, no Qt, no napari."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from stackalign.core.geometry import centre
from stackalign.core.registration import Registration

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.quality import Quality
    from stackalign.core.stack import ImageStack
    from stackalign.core.work import Work

Vertices: TypeAlias = tuple[tuple[float, float], ...]
_FEW = 0.0005  # a correlation that changes by less is the same in the digits that are shown
_LEAST = 8  # pixels: less than this along an axis cannot hold a shift


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
    title : str
        The layer's name; empty: the stack's own.
    """

    stack: ImageStack
    key: str = ""
    axes: str = ""
    channel: int | str | None = None
    path: str | None = None
    file_axes: str | None = None
    file_channel: int | str | None = None
    title: str = ""

    @property
    def name(self) -> str:
        """What the user calls it."""
        return self.title or self.stack.name or "movie"


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
    def of(cls, registration: Registration, frame_shape: tuple[int, ...], *, only_valid: bool = False) -> Motion:
        """Return the motion of a result on frames of ``frame_shape``.

        With ``only_valid`` frames that are not aligned yet have none (NaN) and are not flagged: for a run that is
        going on or was cancelled.
        """
        series = registration.transforms
        middle = centre(frame_shape)
        back = np.linalg.inv(series.matrices) @ np.append(middle, 1.0)
        drift = back[:, :-1] / back[:, -1:] - middle
        angles = np.degrees(series.angles)
        angle = -angles if series.ndim == 2 else np.linalg.norm(angles, axis=1)
        error = np.asarray(registration.quality.error, float)[:, : series.ndim]
        reasons = registration.quality.reasons
        if only_valid:
            drift, angle = np.where(series.valid[:, None], drift, np.nan), np.where(series.valid, angle, np.nan)
            reasons = tuple(r if ok else "" for r, ok in zip(reasons, series.valid, strict=True))
        return cls(drift, np.atleast_1d(angle), error, reasons, "zyx"[-series.ndim :])


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
    seed : int
        Of everything that is drawn at random.
    """

    registrar: Any
    reference: str | int | None = None
    anchor: int | str | None = None
    frames: tuple[int, int] | None = None
    preprocess: Any = None
    warp: Any = None
    seed: int = 0


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
        return Motion.of(self.registration, self.movie.stack.frame_shape, only_valid=not self.complete)

    @property
    def stack(self) -> ImageStack:
        """The frames that have a transform, of the channel that was measured."""
        whole, count = self.movie.stack, len(self.registration)
        return (
            whole if (self.first, count) == (0, len(whole)) else whole.selected(slice(self.first, self.first + count))
        )

    @property
    def first(self) -> int:
        """Number of the movie's frame that the first transform belongs to."""
        return (self.choices.frames or (0, 0))[0]

    @property
    def flagged(self) -> tuple[int, ...]:
        """Frames of the movie that have a reason not to be trusted."""
        flagged = self.registration.quality.flagged
        if not self.complete:
            flagged = flagged & self.registration.transforms.valid
        return tuple(int(t) + self.first for t in np.flatnonzero(flagged))

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
        if not self.complete:
            start, stop = self.choices.frames or (0, len(self.movie.stack))
            done, rounds = int(self.registration.transforms.valid.sum()), self.registration.details.get("rounds")
            if done == stop - start and rounds is not None:  # a joint alignment has something for all at any time
                return f"Cancelled after round {rounds}: {frames_text(done)} aligned, but they had not come to rest."
            return f"Cancelled: {done} of {frames_text(stop - start)} aligned; the others follow their neighbours."
        text = f"Aligned {frames_text(count)}; {flagged or 'none'} flagged"
        if self.quality is not None:
            q = self.quality
            text += (
                f"; correlation with the mean {q.correlation_before:.3f} → {q.correlation_after:.3f}, crispness"
                f" {q.crispness_before:.2f} → {q.crispness_after:.2f}"
            )
            if q.correlation_after < q.correlation_before - _FEW:
                text += ". That is worse than doing nothing: try another reference, a region, or filters"
        return text + "."


@dataclass(frozen=True, slots=True, eq=False)
class RunOutput:
    """What the work of a run returns, and yields as its partial result."""

    registration: Registration
    quality: Quality | None
    seconds: float
    complete: bool = True


def run_work(stack: ImageStack, choices: Choices) -> Work[RunOutput]:
    """Align and measure.

    Parameters
    ----------
    stack : ImageStack
        The frames within the time range.
    choices : Choices
        How.

    Yields
    ------
    Progress
        Whose ``partial`` is a `RunOutput` as soon as the method has one. Once all frames are aligned it counts as
        complete, even if measuring is cancelled.

    Returns
    -------
    RunOutput
        With before and after measured.
    """
    from stackalign.core.quality import measure_work
    from stackalign.pipeline import reference_of, register_work

    begun = time.perf_counter()

    def output(registration: Registration, quality: Quality | None = None, complete: bool = True) -> RunOutput:
        return RunOutput(registration, quality, time.perf_counter() - begun, complete)

    reference = reference_of(choices.reference, stack)
    registering = register_work(
        stack, choices.registrar, reference=reference, anchor=choices.anchor, preprocess=choices.preprocess
    )
    try:
        while True:
            progress = next(registering)
            part = progress.partial
            if isinstance(part, Registration):
                noted = {"method": choices.registrar.method, "cancelled": True, **part.provenance}
                part = output(replace(part, provenance=noted), complete=False)
            yield replace(progress, partial=part if isinstance(part, RunOutput) else None)
    except StopIteration as end:
        registration: Registration = end.value
        registration = replace(registration, provenance={**registration.provenance, "seed": choices.seed})
    finally:
        registering.close()
    measuring = measure_work(stack, registration.transforms)
    aligned = output(registration)
    try:
        while True:
            yield replace(next(measuring), partial=aligned)
    except StopIteration as end:
        return output(registration, end.value)
    finally:
        measuring.close()


def region_within(
    vertices: Vertices, frame_shape: tuple[int, ...]
) -> tuple[int, int, int, int] | tuple[tuple[float, float], ...]:
    """Return a drawn shape as a region.

    Parameters
    ----------
    vertices : tuple of (y, x)
        Corners, pixels.
    frame_shape : tuple of int
        (y, x) or (z, y, x).

    Returns
    -------
    tuple
        ``(y0, y1, x0, x1)``, half open, of the pixels whose centres lie inside, for an upright rectangle; else the
        vertices.

    Raises
    ------
    ValueError
        If next to nothing of the frame lies inside.
    """
    points = np.asarray(vertices, float)
    height, width = frame_shape[-2:]
    low = np.maximum(np.ceil(points.min(axis=0)), 0).astype(int)
    high = np.minimum(np.floor(points.max(axis=0)) + 1, (height, width)).astype(int)
    y, x = (max(int(n), 0) for n in high - low)
    if y < _LEAST or x < _LEAST:
        raise ValueError(f"The shape covers {y} × {x} pixels of the frame; it takes {_LEAST} × {_LEAST} at least.")
    upright = len(points) == 4 and all(len(set(np.round(points[:, k], 3))) == 2 for k in range(2))
    if upright:
        return int(low[0]), int(high[0]), int(low[1]), int(high[1])
    return tuple((float(py), float(px)) for py, px in points)


def frames_text(count: int) -> str:
    """Return "1 frame", "2 frames"."""
    return f"{count} frame{'' if count == 1 else 's'}"
