"""What is known of every frame while a stack is aligned, and the registration that follows from it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from stackalign.core.frames.frame_check import read_frame
from stackalign.core.frames.noise import NoiseModel
from stackalign.core.generators import moved_points
from stackalign.core.geometry import centre, corners
from stackalign.core.references.reference import ManyAligner, PairResult, SplineReader
from stackalign.core.registration import FrameQuality, Registration
from stackalign.core.threads import batches, is_spread, map_frames
from stackalign.core.transform_series import TransformSeries
from stackalign.core.warping.splined import SplinedFrame
from stackalign.core.work import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from stackalign.core.references.reference import PairAligner, Reference
    from stackalign.core.stack import ImageStack
    from stackalign.core.verdicts.cells import Strangers
    from stackalign.core.work import Work

R = TypeVar("R")
NOISE_REACH = 0.5  # pixels: farther away a frame no longer correlates with its own noise in a mean
_KEPT_BYTES = 1 << 28  # of frames and their splines


@dataclass(slots=True, eq=False)
class RunState:
    """What is known so far of every frame."""

    stack: ImageStack
    aligner: PairAligner[Any]
    policy: Reference
    anchor: int | str | None
    mask: NDArray[np.bool_] | None
    results: list[PairResult | None] = field(default_factory=list)
    unusable: dict[int, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    noise: NoiseModel | None = None
    brightness: dict[int, tuple[float, float]] = field(default_factory=dict)  # gain and offset, from reduced frames
    hidden: Callable[[int, NDArray[Any]], NDArray[Any]] | None = None  # puts NaN where a frame must not count
    strangers: Strangers | None = None  # what was told apart from the scene, and is hidden by cells
    starts: dict[int, NDArray[np.float64]] = field(default_factory=dict)  # where to begin, instead of a search
    _kept: dict[int, SplinedFrame | None] = field(default_factory=dict)
    _sound: set[int] = field(default_factory=set)  # frames that were looked at, and hold something
    _shown: float = 0.0

    def __post_init__(self) -> None:
        self.results = [None] * len(self.stack)
        # known beforehand: what a worker process finds out about a frame stays there
        self.unusable |= {t: read_frame(self.stack, t)[1] for t in (*self.stack.missing, *self.stack.rejected)}

    def keep(self, frames: Sequence[int]) -> None:
        """Hold these frames, once read, and their splines in memory, as many as fit; those that were held are let go.

        Methods that read frames between their pixels would filter each anew in every round.
        """
        nbytes = math.prod(self.stack.frame_shape) * (4 + self.stack.dtype.itemsize)
        fit = _KEPT_BYTES // nbytes if isinstance(self.aligner, SplineReader) and not is_spread() else 0
        self._kept = dict.fromkeys(frames[:fit])

    def load(self, t: int) -> NDArray[Any]:
        """Read a frame, filtered as the aligner wants it; blank if it cannot be read."""
        held = self._kept.get(t)
        if held is not None:
            return held
        frame, reason = read_frame(self.stack, t, checked=t in self._sound)
        if reason:
            self.unusable[t] = reason
            return frame
        self._sound.add(t)
        frame = self.aligner.filtered(frame)
        if self.hidden is not None:
            frame = self.hidden(t, frame)
        if t in self._kept:
            frame = self._kept[t] = frame.view(SplinedFrame)
        return frame

    def usable(self) -> list[int]:
        """Return the frames that hold something to align, as far as they were read."""
        return [t for t in range(len(self.stack)) if t not in self.unusable]

    def align(self, t: int, template: Any, start: NDArray[np.float64] | None) -> PairResult:
        """Align one frame; whatever goes wrong with it is its reason."""
        frame = self.load(t)
        if t in self.unusable:
            return PairResult.failed(self.stack.ndim, self.unusable[t])
        return safely(self.aligner, frame, template, start)

    def align_many(
        self, frames: Sequence[int], template: Any, starts: Mapping[int, NDArray[np.float64]]
    ) -> list[PairResult]:
        """Align some frames; whatever goes wrong with one is its reason."""
        loaded = {t: self.load(t) for t in frames}
        sound = [t for t in frames if t not in self.unusable]
        found = safely_many(self.aligner, [loaded[t] for t in sound], template, [starts.get(t) for t in sound])
        results = dict(zip(sound, found, strict=True))
        return [results.get(t) or PairResult.failed(self.stack.ndim, self.unusable[t]) for t in frames]

    def good(self) -> NDArray[np.bool_]:
        """Return True where a frame is aligned, (T,)."""
        return np.array([r is not None and not r.reason for r in self.results])

    def places(self) -> dict[int, NDArray[np.float64]]:
        """Return the matrices of the frames that are aligned."""
        return {t: r.matrix for t, r in enumerate(self.results) if r is not None and not r.reason}

    def anew(self) -> RunState:
        """Return a run of the same frames, without a mask, of which it is known only which cannot be used."""
        return RunState(self.stack, self.aligner, self.policy, self.anchor, None, unusable=dict(self.unusable))

    def become(self, other: RunState) -> None:
        """Take over what is known in another run of the same frames."""
        self.results, self.unusable, self.details = other.results, other.unusable, other.details
        self.noise, self.brightness = other.noise, other.brightness
        self.hidden, self.strangers = other.hidden, other.strangers

    def give_up(self, reason: str) -> None:
        """Doubt all frames that are aligned."""
        self.results = [r if r is None or r.reason else r.given_up(reason) for r in self.results]

    def matrices(self) -> NDArray[np.float64]:
        """Return where the frames lie, the identity where that is not known, (T, d+1, d+1)."""
        eye = np.eye(self.stack.ndim + 1)
        return np.array([eye if r is None else r.matrix for r in self.results])

    def progress(self, done: int, total: int, message: str) -> Progress:
        """Return a step; a few times a second with the registration so far, for plots and for a cancel."""
        now = time.monotonic()
        if now - self._shown < 0.25 or not self.good().any():
            return Progress(done, total, message)
        self._shown = now
        return Progress(done, total, message, partial=self.registration())

    def counted(self, work: Generator[int, None, R], total: int, message: str) -> Work[R]:
        """Show how far work has come that yields how many of ``total`` are done; returns what it returns."""
        while True:
            try:
                done = next(work)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            yield self.progress(done, total, message)

    def registration(self) -> Registration:
        """Return what is known: frames without a result are flagged and interpolated."""
        n, d = len(self.stack), self.stack.ndim
        good = self.good()
        middle = centre(self.stack.frame_shape)
        found = self.matrices()
        series = _rebased(TransformSeries(found, self.aligner.model, good), self.policy, self.anchor, middle)
        if good.any():  # in the same gauge
            first = int(np.argmax(good))
            found = series.matrices[first] @ np.linalg.inv(found[first]) @ found
            found /= found[:, -1:, -1:]
        series = series.interpolated(centre=middle)
        nowhere = [r is None or (bool(r.reason) and np.array_equal(r.matrix, np.eye(d + 1))) for r in self.results]
        found[nowhere] = np.nan
        known = [r or PairResult.failed(d, "not aligned: the run ended before") for r in self.results]
        quality = FrameQuality(
            np.array([r.correlation for r in known]),
            np.array([r.residual for r in known]),
            np.array([r.confidence if good[t] else 0.0 for t, r in enumerate(known)]),
            np.array([r.error if good[t] else np.full(d, np.nan) for t, r in enumerate(known)]).reshape(n, d),
            tuple(r.reason for r in known),
        )
        # where frames were found, flagged ones before they were doubted; NaN where they were not
        return Registration(series, quality, {**self.details, "found": found})


def safely(
    aligner: PairAligner[Any], frame: NDArray[Any], template: Any, start: NDArray[np.float64] | None
) -> PairResult:
    """Align one frame to a template; numerical trouble becomes the frame's reason."""
    try:
        return aligner.align(frame, template, start)
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        return PairResult.failed(frame.ndim, f"cannot be aligned: {error}")


def safely_many(
    aligner: PairAligner[Any],
    frames: Sequence[NDArray[Any]],
    template: Any,
    starts: Sequence[NDArray[np.float64] | None],
) -> list[PairResult]:
    """Align some frames to a template, in one go where the aligner can; see `safely`."""
    if len(frames) > 1 and isinstance(aligner, ManyAligner):
        try:
            return aligner.align_many(frames, template, starts)
        except (ValueError, ArithmeticError, np.linalg.LinAlgError):
            pass  # one of them: below each is asked alone
    return [safely(aligner, frame, template, start) for frame, start in zip(frames, starts, strict=True)]


def batched(aligner: PairAligner[Any], frames: Sequence[int], nbytes: int) -> list[Sequence[int]]:
    """Split frames of ``nbytes`` into what is aligned in one go."""
    return batches(frames, nbytes) if isinstance(aligner, ManyAligner) else [[t] for t in frames]


def _rebased(
    series: TransformSeries, policy: Reference, anchor: int | str | None, middle: NDArray[np.float64]
) -> TransformSeries:
    if not series.valid.any():
        return series
    if anchor == "mean":
        return series.rebased("mean", centre=middle)
    if isinstance(anchor, int | np.integer):
        return _rebased_to(series, int(anchor) % len(series), middle)
    if policy.kind == "image":
        return series
    if policy.kind == "frame" and series.valid[policy.frame]:
        return _rebased_to(series, policy.frame, middle)
    return _rebased_to(series, int(np.argmax(series.valid)), middle)


def _rebased_to(series: TransformSeries, frame: int, middle: NDArray[np.float64]) -> TransformSeries:
    filled = series.interpolated(centre=middle)  # a frame that is not valid has no motion of its own
    return filled.rebased(frame, centre=middle)


def align_all(
    run: RunState,
    frames: Sequence[int],
    template: Any,
    starts: dict[int, NDArray[np.float64]],
    message: str,
    sink: list[PairResult | None] | None = None,
) -> Work[None]:
    """Align frames in threads; results go to the run, or to ``sink`` by frame number."""
    into = run.results if sink is None else sink
    yield run.progress(0, len(frames), message)
    done, some = 0, batched(run.aligner, frames, run.stack.frame_bytes)
    for batch, results in zip(some, map_frames(lambda b: run.align_many(b, template, starts), some), strict=True):
        for t, result in zip(batch, results, strict=True):
            into[t] = result
        done += len(batch)
        yield run.progress(done, len(frames), message)


def noise_of(
    run: RunState,
    template: Any,
    frames: Iterable[int],
    results: Iterable[PairResult | None],
    places: Mapping[int, NDArray[np.float64]] | None = None,
) -> NoiseModel | None:
    """Fit the camera's noise to the residuals of some frames; ``places``: where these lie in the reference, a mean."""
    pairs = []
    for t, result in zip(frames, results, strict=True):
        if result is None or result.reason:
            continue
        frame = run.load(t)
        if t not in run.unusable:
            own = places is not None and lies_there(result.matrix, places[t], run.stack.frame_shape)
            pairs.append(run.aligner.residuals(frame, template, result, own=own))
    if not pairs:
        return None
    both = np.concatenate(pairs)
    return NoiseModel.fitted(both[:, 0], both[:, 1])


def lies_there(matrix: NDArray[np.float64], place: NDArray[np.float64], shape: Sequence[int]) -> bool:
    """Return whether a frame lies so close to a place in a mean that it correlates with its own noise there."""
    points = corners(shape)
    return bool(np.abs(moved_points(matrix, points) - moved_points(place, points)).max() < NOISE_REACH)


def spread(frames: Sequence[int] | range, count: int) -> list[int]:
    """Return ``count`` of the frames, spread evenly over time."""
    if len(frames) <= count:
        return list(frames)
    return [frames[k] for k in np.linspace(0, len(frames) - 1, count).round().astype(int)]


def resting(d: int) -> PairResult:
    """Return the result of the frame that all others are aligned to."""
    return PairResult(np.eye(d + 1), 1.0, 0.0, 1.0, np.zeros(d))
