"""Run a `PairAligner` over a stack: for each reference policy, the rounds in which the reference is re-estimated.

The mean and the median are found on reduced frames first, then at full size on a sample of frames until they settle;
then every frame is aligned once. Their gauge: the sample's most central frame stays where it is until the end, when the
series is rebased to the anchor.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frame_check import read_frame
from stackalign.core.geometry import centre, corners
from stackalign.core.mean_image import Aligned, mean_image, median_image
from stackalign.core.noise import NoiseModel
from stackalign.core.reduction import binned, enlarged, reduction
from stackalign.core.reference import PairResult, Reference
from stackalign.core.registration import FrameQuality, Registration
from stackalign.core.resample import warp_frame
from stackalign.core.threads import map_ahead
from stackalign.core.transform_series import TransformSeries
from stackalign.core.work import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from stackalign.core.reference import PairAligner
    from stackalign.core.registration import ReferenceLike
    from stackalign.core.stack import ImageStack
    from stackalign.core.work import Work

SAMPLE = 80  # frames from which a mean is estimated: its noise then adds 0.6 per cent to the error of a frame
DRAFT = 128  # pixels along the longer axis of a reduced frame
MAX_ROUNDS = 12
_DRAFT_BYTES = 1 << 29


def align_stack(
    stack: ImageStack,
    aligner: PairAligner[Any],
    reference: ReferenceLike | Reference,
    *,
    anchor: int | str | None = None,
    mask: NDArray[np.bool_] | None = None,
    rolling: float = 0.1,
    lag: int = 5,
) -> Work[Registration]:
    """Align every frame of a stack.

    Parameters
    ----------
    stack : ImageStack
        The frames.
    aligner : PairAligner
        Aligns one frame to one image.
    reference : str, int, ndarray or Reference
        See `Reference.of`.
    anchor : int or "mean", optional
        Frame that becomes the identity; None: the reference frame, else the first valid frame; nothing is rebased where
        the reference is an external image, unless an anchor is named.
    mask : ndarray of bool, frame shape, optional
        True where a pixel of the anchor frame (of the external image) counts; it moves with the scene.
    rolling : float
        Weight of a new frame in the rolling mean.
    lag : int
        Frames before it that each frame is aligned to, where all pairs are.

    Yields
    ------
    Progress
        With the registration so far as ``partial``, a few times a second.

    Raises
    ------
    ValueError
        If the policy, the anchor or the mask do not fit the stack, or the reference itself cannot serve.
    """
    policy = Reference.of(reference, len(stack), stack.frame_shape)
    if isinstance(anchor, int | np.integer) and not -len(stack) <= anchor < len(stack):
        raise ValueError(f"there is no frame {anchor} to anchor: the stack has frames 0 to {len(stack) - 1}")
    if isinstance(anchor, str) and anchor != "mean":
        raise ValueError(f"anchor must be a frame number or 'mean', not {anchor!r}")
    if mask is not None and mask.shape != stack.frame_shape:
        raise ValueError(f"the mask is {mask.shape}, the frames are {stack.frame_shape}: they must be alike")
    run = _Run(stack, aligner, policy, anchor, mask)
    match policy.kind:
        case "mean" | "median":
            yield from _averaged(run)
        case "frame" | "image":
            yield from _fixed(run)
        case "previous":
            yield from _chained(run)
        case "rolling":
            yield from _rolling(run, rolling)
        case _:
            from stackalign.core.all_pairs import align_pairs

            yield from align_pairs(run, lag)
    yield from _rescued(run)
    return run.registration()


@dataclass(slots=True, eq=False)
class _Run:
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
    _shown: float = 0.0

    def __post_init__(self) -> None:
        self.results = [None] * len(self.stack)

    def load(self, t: int) -> NDArray[Any]:
        """Read a frame, filtered as the aligner wants it; blank if it cannot be read."""
        frame, reason = read_frame(self.stack, t)
        if reason:
            self.unusable[t] = reason
            return frame
        return self.aligner.filtered(frame)

    def usable(self) -> list[int]:
        """Return the frames that hold something to align, as far as they were read."""
        return [t for t in range(len(self.stack)) if t not in self.unusable]

    def align(self, t: int, template: Any, start: NDArray[np.float64] | None) -> PairResult:
        """Align one frame; whatever goes wrong with it is its reason."""
        frame = self.load(t)
        if t in self.unusable:
            return PairResult.failed(self.stack.ndim, self.unusable[t])
        return safely(self.aligner, frame, template, start)

    def good(self) -> NDArray[np.bool_]:
        return np.array([r is not None and not r.reason for r in self.results])

    def matrices(self) -> NDArray[np.float64]:
        eye = np.eye(self.stack.ndim + 1)
        return np.array([eye if r is None else r.matrix for r in self.results])

    def progress(self, done: int, total: int, message: str) -> Progress:
        """Return a step; a few times a second with the registration so far, for plots and for a cancel."""
        now = time.monotonic()
        if now - self._shown < 0.25 or not self.good().any():
            return Progress(done, total, message)
        self._shown = now
        return Progress(done, total, message, partial=self.registration())

    def registration(self) -> Registration:
        """Return what is known: frames without a result are flagged and interpolated."""
        n, d = len(self.stack), self.stack.ndim
        good = self.good()
        middle = centre(self.stack.frame_shape)
        series = TransformSeries(self.matrices(), self.aligner.model, good)
        series = _rebased(series, self.policy, self.anchor, middle).interpolated(centre=middle)
        known = [r or PairResult.failed(d, "not aligned: the run ended before") for r in self.results]
        quality = FrameQuality(
            np.array([r.correlation for r in known]),
            np.array([r.residual for r in known]),
            np.array([r.confidence if good[t] else 0.0 for t, r in enumerate(known)]),
            np.array([r.error if good[t] else np.full(d, np.nan) for t, r in enumerate(known)]).reshape(n, d),
            tuple(r.reason for r in known),
        )
        return Registration(series, quality, dict(self.details))


def safely(
    aligner: PairAligner[Any], frame: NDArray[Any], template: Any, start: NDArray[np.float64] | None
) -> PairResult:
    """Align one frame to a template; numerical trouble becomes the frame's reason."""
    try:
        return aligner.align(frame, template, start)
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        return PairResult.failed(frame.ndim, f"cannot be aligned: {error}")


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


# one image that stays


def _fixed(run: _Run) -> Work[None]:
    """Align to one frame or to an external image."""
    policy = run.policy
    if policy.kind == "image":
        assert policy.image is not None
        image, mask = run.aligner.filtered(policy.image), run.mask
    else:
        image = run.load(policy.frame)
        if policy.frame in run.unusable:
            raise ValueError(
                f"frame {policy.frame} cannot be the reference: {run.unusable[policy.frame]}; choose another frame"
            )
        image, mask = np.asarray(image, np.float32), run.mask
    template = run.aligner.prepare(image, mask)
    sample = _spread(range(len(run.stack)), 8)
    drafts = [run.align(t, template, None) for t in sample]
    noise = _noise(run, template, sample, drafts)
    # a frame is as noisy as those that are aligned to it; an external image counts as free of noise
    frames = np.inf if policy.kind == "image" else 1.0
    template = run.aligner.prepare(image, mask, noise=noise, frames=frames)
    run.details |= {"reference": image, "noise": noise, "rounds": 1}
    starts: dict[int, NDArray[np.float64]] = {}
    if policy.kind == "frame":
        starts[policy.frame] = np.eye(run.stack.ndim + 1)
    yield from _align_all(run, range(len(run.stack)), template, starts, "Aligning")


def _align_all(
    run: _Run,
    frames: Sequence[int],
    template: Any,
    starts: dict[int, NDArray[np.float64]],
    message: str,
    sink: list[PairResult | None] | None = None,
) -> Work[None]:
    """Align frames in threads; results go to the run, or to ``sink`` by frame number."""
    into = run.results if sink is None else sink
    yield run.progress(0, len(frames), message)
    work = map_ahead(lambda t: run.align(t, template, starts.get(t)), frames)
    for done, (t, result) in enumerate(zip(frames, work, strict=True), start=1):
        into[t] = result
        yield run.progress(done, len(frames), message)


def _noise(run: _Run, template: Any, frames: Iterable[int], results: Iterable[PairResult | None]) -> NoiseModel | None:
    """Fit the camera's noise to the residuals of some frames."""
    pairs = []
    for t, result in zip(frames, results, strict=True):
        if result is None or result.reason:
            continue
        frame = run.load(t)
        if t not in run.unusable:
            pairs.append(run.aligner.residuals(frame, template, result))
    if not pairs:
        return None
    both = np.concatenate(pairs)
    return NoiseModel.fitted(both[:, 0], both[:, 1])


def _spread(frames: Sequence[int] | range, count: int) -> list[int]:
    """Return ``count`` of the frames, spread evenly over time."""
    if len(frames) <= count:
        return list(frames)
    return [frames[k] for k in np.linspace(0, len(frames) - 1, count).round().astype(int)]


# mean and median


def _averaged(run: _Run) -> Work[None]:
    """Align to the mean or median, re-estimated until it settles."""
    starts = yield from _drafted(run)
    usable = [t for t in starts if t not in run.unusable]
    if not usable:
        run.results = [
            PairResult.failed(run.stack.ndim, run.unusable.get(t, "it could not be aligned to the others"))
            for t in range(len(run.stack))
        ]
        return
    if len(usable) == 1:
        (only,) = usable
        run.results = [
            PairResult.failed(run.stack.ndim, run.unusable.get(t, "there is no other frame"))
            for t in range(len(run.stack))
        ]
        nan = np.full(run.stack.ndim, np.nan)
        run.results[only] = PairResult(np.eye(run.stack.ndim + 1), np.nan, np.nan, 1.0, nan)
        return
    sample = _spread(usable, SAMPLE)
    base = _central(run, sample, starts)
    home = np.linalg.inv(starts[base])
    starts = {t: home @ m for t, m in starts.items()}
    mask = _moved_mask(run, starts)
    template = None
    known: list[PairResult | None] = [None] * len(run.stack)
    for t in sample:
        known[t] = replace(PairResult.failed(run.stack.ndim, ""), matrix=starts[t])
    rounds, change, previous = 0, np.inf, np.inf
    while True:
        image = yield from _estimate(run, sample, known)
        if rounds == 0:
            template = run.aligner.prepare(image, mask)
            # starts come from reduced frames: align before the noise is read off the residuals
            few = _spread(sample, 8)
            run.noise = _noise(run, template, few, [run.align(t, template, starts[t]) for t in few])
        frames = float(sum(1 for t in sample if (r := known[t]) is not None and not r.reason))
        template = run.aligner.prepare(image, mask, noise=run.noise, frames=max(frames, 1.0))
        rounds += 1
        run.details |= {"reference": image, "noise": run.noise, "rounds": rounds}
        every = len(sample) == len(usable)
        before = {t: r.matrix for t in sample if (r := known[t]) is not None}
        sink = run.results if every else known
        message = f"Aligning to the {run.policy.kind}, round {rounds}"
        yield from _align_all(run, sample, template, _matrices(known, sample), message, sink)
        if every:
            known = run.results
        _settle_gauge(known, sample, base, before)
        change, error = _change(run, before, known, sample)
        # steps shrink by the same factor from round to round: the next one is known beforehand
        ahead = change * (min(change / previous, 1.0) if np.isfinite(previous) else 1.0)
        settled = ahead < max(0.1 * error, 2e-4) or (rounds > 3 and change > 0.9 * previous)
        if settled or rounds >= MAX_ROUNDS:
            break
        previous = change
    run.details["change"] = change
    if not every:
        others = range(len(run.stack))
        # frames of the sample are aligned anew with the rest, to the image that the last round left
        image = yield from _estimate(run, sample, known)
        frames = float(sum(1 for t in sample if (r := known[t]) is not None and not r.reason))
        template = run.aligner.prepare(image, mask, noise=run.noise, frames=max(frames, 1.0))
        run.details["reference"] = image
        begun = {**starts, **_matrices(known, sample)}
        yield from _align_all(run, others, template, begun, f"Aligning to the {run.policy.kind}")
    else:
        for t in range(len(run.stack)):
            if run.results[t] is None:
                run.results[t] = run.align(t, template, starts.get(t))


def _estimate(run: _Run, sample: Sequence[int], known: Sequence[PairResult | None]) -> Work[NDArray[np.float32]]:
    """Work out the mean or median of the sample where it lies now."""
    used = [t for t in sample if (r := known[t]) is not None and not r.reason]
    places = [Aligned(r.matrix, r.gain, r.offset) for t in used if (r := known[t]) is not None]
    shape, message = run.stack.frame_shape, f"Estimating the {run.policy.kind}"
    if run.policy.kind == "median":
        work = median_image(run.load, used[:64], places[:64], shape)
    else:
        work = mean_image(run.load, used, places, shape, run.aligner.model)
    while True:
        try:
            done = next(work)
        except StopIteration as stop:
            return np.asarray(stop.value, np.float32)
        yield run.progress(done, len(used), message)


def _drafted(run: _Run) -> Work[dict[int, NDArray[np.float64]]]:
    """Align reduced frames, held in memory, over the whole range of motion; returns full-size matrices."""
    stack = run.stack
    count, target = len(stack), DRAFT
    factors = reduction(stack.frame_shape, target if stack.ndim == 2 else target // 2)
    while count * np.prod([n // f for n, f in zip(stack.frame_shape, factors, strict=True)]) * 4 > _DRAFT_BYTES:
        finer = reduction([n // f for n, f in zip(stack.frame_shape, factors, strict=True)], target // 2)
        if all(f == 1 for f in finer) or target < 32:
            break
        factors, target = tuple(a * b for a, b in zip(factors, finer, strict=True)), target // 2
    small: dict[int, NDArray[np.float32]] = {}

    def shrink(t: int) -> NDArray[np.float32]:
        return binned(run.load(t), factors)

    for t, image in enumerate(map_ahead(shrink, range(count))):
        if t not in run.unusable:
            small[t] = image
        yield Progress(t + 1, count, "Reading frames")
    usable = list(small)
    if len(usable) < 2:
        return {t: np.eye(stack.ndim + 1) for t in usable}
    sample = _spread(usable, SAMPLE)
    results = yield from _draft_sample(run.aligner, small, sample)
    template: Any = _draft_mean(run.aligner, small, results, sample)
    work = map_ahead(partial(_draft_one, run.aligner, small, template, results), usable)
    for done, (t, result) in enumerate(zip(usable, work, strict=True), start=1):
        results[t] = result
        yield Progress(done, len(usable), "Finding the motion on reduced frames")
    return {t: enlarged(results[t].matrix, factors) for t in usable if not results[t].reason}


def _draft_sample(
    aligner: PairAligner[Any], small: dict[int, NDArray[np.float32]], sample: Sequence[int]
) -> Work[dict[int, PairResult]]:
    """Align a sample of reduced frames to one of them: the middle one, or another if most do not fit that."""
    best: dict[int, PairResult] = {}
    middle = len(sample) // 2
    for base in dict.fromkeys((sample[middle], sample[middle // 2], sample[0], sample[-1])):
        try:
            template = aligner.prepare(small[base], None)
        except ValueError:
            continue
        work = map_ahead(partial(_draft_one, aligner, small, template, {}), sample)
        results: dict[int, PairResult] = {}
        for done, (t, result) in enumerate(zip(sample, work, strict=True), start=1):
            results[t] = result
            yield Progress(done, len(sample), "Comparing reduced frames")
        if sum(not r.reason for r in results.values()) > sum(not r.reason for r in best.values()):
            best = results
        if sum(not r.reason for r in best.values()) > 0.5 * len(sample):
            break
    return best


def _draft_mean(
    aligner: PairAligner[Any],
    small: dict[int, NDArray[np.float32]],
    results: dict[int, PairResult],
    sample: Sequence[int],
) -> Any:
    """Return the mean of the sample as a template, in the gauge of its most central frame; ``results`` follow."""
    shape = small[sample[0]].shape
    kept = [t for t in results if not results[t].reason]
    if not kept:
        return aligner.prepare(small[sample[len(sample) // 2]], None)
    results.update(_recentred(results, kept, shape))
    places = [Aligned(results[t].matrix, results[t].gain, results[t].offset) for t in kept]
    image = _last(mean_image(small.__getitem__, kept, places, shape, aligner.model))
    return aligner.prepare(image, None, frames=float(len(kept)))


def _draft_one(
    aligner: PairAligner[Any],
    small: dict[int, NDArray[np.float32]],
    template: Any,
    before: dict[int, PairResult],
    t: int,
) -> PairResult:
    last = before.get(t)
    if last is not None and not last.reason:
        result = safely(aligner, small[t], template, last.matrix)
        if not result.reason and result.correlation >= last.correlation - 0.05:
            return result
    return safely(aligner, small[t], template, None)


def _recentred(results: dict[int, PairResult], sample: Sequence[int], shape: tuple[int, ...]) -> dict[int, PairResult]:
    """Return the results in the gauge of the sample's most central frame: a mean there misses least of the others."""
    base = _central_of({t: results[t].matrix for t in sample}, shape)
    home = np.linalg.inv(results[base].matrix)
    return {t: r if r.reason else replace(r, matrix=home @ r.matrix) for t, r in results.items()}


def _last(work: Any) -> Any:
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return stop.value


def _central(run: _Run, sample: Sequence[int], starts: dict[int, NDArray[np.float64]]) -> int:
    return _central_of({t: starts[t] for t in sample}, run.stack.frame_shape)


def _central_of(matrices: dict[int, NDArray[np.float64]], shape: tuple[int, ...]) -> int:
    """Return the frame whose centre lies closest to the median of all."""
    middle = np.append(centre(shape), 1.0)
    frames = list(matrices)
    places = np.array([matrices[t] @ middle for t in frames])[:, :-1]
    return frames[int(np.argmin(np.linalg.norm(places - np.median(places, axis=0), axis=1)))]


def _moved_mask(run: _Run, starts: dict[int, NDArray[np.float64]]) -> NDArray[np.bool_] | None:
    """Return the mask, drawn on the anchor frame, where the reference has it."""
    if run.mask is None:
        return None
    anchor = run.anchor if isinstance(run.anchor, int | np.integer) else min(starts)
    matrix = starts.get(int(anchor) % len(run.stack), starts[min(starts)])
    return warp_frame(run.mask.astype(np.uint8), matrix, order=0).astype(bool)


def _matrices(known: Sequence[PairResult | None], frames: Sequence[int]) -> dict[int, NDArray[np.float64]]:
    """Return where frames lie; those that failed are searched for again."""
    return {t: r.matrix for t in frames if (r := known[t]) is not None and not r.reason}


def _settle_gauge(
    known: list[PairResult | None], sample: Sequence[int], base: int, before: dict[int, NDArray[np.float64]]
) -> None:
    """Keep the mean from wandering: the average position of the frames stays what it was."""
    steps = [
        r.matrix[:-1, -1] - before[t][:-1, -1]
        for t in sample
        if (r := known[t]) is not None and not r.reason and t in before
    ]
    if not steps:
        return
    common = np.median(steps, axis=0)
    for t in sample:
        r = known[t]
        if r is not None and not r.reason:
            matrix = r.matrix.copy()
            matrix[:-1, -1] -= common
            known[t] = replace(r, matrix=matrix)


def _change(
    run: _Run, before: dict[int, NDArray[np.float64]], known: Sequence[PairResult | None], sample: Sequence[int]
) -> tuple[float, float]:
    """Return how far the corners of the frames moved in this round (rms, px), and their median standard error."""
    points = np.column_stack([corners(run.stack.frame_shape), np.ones(2**run.stack.ndim)])
    moved, errors = [], []
    for t in sample:
        r = known[t]
        if r is None or r.reason or t not in before:
            continue
        a, b = points @ r.matrix.T, points @ before[t].T
        moved.append(((a[:, :-1] / a[:, -1:] - b[:, :-1] / b[:, -1:]) ** 2).mean())
        errors.append(float(np.sqrt(np.nanmean(r.error**2))) if np.isfinite(r.error).any() else np.nan)
    if not moved:
        return 0.0, 0.0
    finite = [e for e in errors if np.isfinite(e)]
    return float(np.sqrt(np.mean(moved))), float(np.median(finite)) if finite else 0.0


# previous and rolling


def _chained(run: _Run) -> Work[None]:
    """Align each frame to the one before; motion and variance add up. A gap is bridged to the last good one."""
    count, d = len(run.stack), run.stack.ndim
    message = "Aligning each frame to the one before"
    pair_noise(run)
    if run.mask is None:
        steps = map_ahead(lambda t: pair(run, t, t - 1) if t else PairResult.failed(d, ""), range(count))
    else:
        steps = (PairResult.failed(d, "") for _ in range(count))  # the mask moves: it is known only one by one
    last = -1
    total, variance = np.eye(d + 1), np.zeros(d)
    for t, step in enumerate(steps):
        if t in run.unusable:
            run.results[t] = PairResult.failed(d, run.unusable[t])
        elif last < 0:
            last, run.results[t] = t, _identity(d)
        else:
            known = step
            if last != t - 1 or run.mask is not None:
                known = pair(run, t, last, _carried(run, total))
            if not known.reason:
                last, total = t, total @ known.matrix
                variance = variance + known.error**2
                known = replace(known, matrix=total, error=np.sqrt(variance))
            run.results[t] = known
        yield run.progress(t + 1, count, message)
    run.details["rounds"] = 1


def _rolling(run: _Run, weight: float) -> Work[None]:
    """Align each frame to a running mean of those before, so that a scene that changes slowly stays recognised."""
    count, d = len(run.stack), run.stack.ndim
    image: NDArray[np.float32] | None = None
    template: Any = None
    start: NDArray[np.float64] | None = None
    frames = 1.0
    for t in range(count):
        frame = run.load(t)
        if t in run.unusable:
            run.results[t] = PairResult.failed(d, run.unusable[t])
        elif image is None:
            image = np.asarray(frame, np.float32)
            template, run.results[t], start = run.aligner.prepare(image, run.mask), _identity(d), np.eye(d + 1)
        else:
            result = safely(run.aligner, frame, template, start)
            if result.reason:
                result = safely(run.aligner, frame, template, None)
            run.results[t] = result
            if not result.reason:
                start = result.matrix
                aligned = (np.asarray(frame, np.float32) - np.float32(result.offset)) / np.float32(result.gain)
                aligned = warp_frame(aligned, result.matrix, order=3, fill="nan")
                share = max(weight, 1 / (frames + 1))
                both = image + np.float32(share) * (aligned - image)
                image = np.where(np.isfinite(aligned), np.where(np.isfinite(image), both, aligned), image)
                frames = min(frames + 1, 2 / weight - 1)
                if run.noise is None:
                    pairs = run.aligner.residuals(frame, template, result)
                    run.noise = NoiseModel.fitted(pairs[:, 0], pairs[:, 1])
                template = run.aligner.prepare(image, run.mask, noise=run.noise, frames=frames)
        yield run.progress(t + 1, count, "Aligning to the rolling mean")
    run.details |= {"reference": image, "rounds": 1}


def pair(run: _Run, t: int, onto: int, mask: NDArray[np.bool_] | None = None) -> PairResult:
    """Align frame ``t`` to frame ``onto``."""
    d = run.stack.ndim
    image, frame = run.load(onto), run.load(t)
    for k in (t, onto):
        if k in run.unusable:
            return PairResult.failed(d, run.unusable[k])
    try:
        template = run.aligner.prepare(np.asarray(image, np.float32), mask, noise=run.noise, frames=1.0)
    except ValueError as error:
        return PairResult.failed(d, f"frame {onto} cannot be its reference: {error}")
    return safely(run.aligner, frame, template, None)


def pair_noise(run: _Run) -> None:
    """Estimate the noise from some frames aligned to the one before."""
    count = len(run.stack)
    pairs = []
    for t in _spread(range(1, count), 6):
        image, frame = run.load(t - 1), run.load(t)
        if t in run.unusable or t - 1 in run.unusable:
            continue
        try:
            template = run.aligner.prepare(np.asarray(image, np.float32), None, frames=1.0)
        except ValueError:
            continue
        result = safely(run.aligner, frame, template, None)
        if not result.reason:
            pairs.append(run.aligner.residuals(frame, template, result))
    if pairs:
        both = np.concatenate(pairs)
        run.noise = NoiseModel.fitted(both[:, 0], both[:, 1])


def _carried(run: _Run, total: NDArray[np.float64]) -> NDArray[np.bool_] | None:
    """Return the mask where a frame that lies at ``total`` has it."""
    if run.mask is None:
        return None
    return warp_frame(run.mask.astype(np.uint8), np.linalg.inv(total), order=0).astype(bool)


def _identity(d: int) -> PairResult:
    return PairResult(np.eye(d + 1), 1.0, 0.0, 1.0, np.zeros(d))


# frames that share too little with the reference


def _rescued(run: _Run) -> Work[None]:
    """Chain frames that failed through their neighbours: a drift may have left nothing of the reference in view."""
    if run.policy.kind in ("previous", "all-pairs") or not run.good().any():
        return
    lost = [t for t, r in enumerate(run.results) if t not in run.unusable and (r is None or r.reason)]
    good = run.good()
    waiting, done = set(lost), 0
    frontier = [t for t in lost if _neighbour(t, good) is not None]
    while frontier:
        t = frontier.pop(0)
        near = _neighbour(t, good)
        if t not in waiting or near is None:
            continue
        waiting.discard(t)
        done += 1
        result = pair(run, t, near)
        before = run.results[near]
        assert before is not None
        if not result.reason:
            error = np.sqrt(result.error**2 + np.nan_to_num(before.error) ** 2)
            run.results[t] = replace(result, matrix=before.matrix @ result.matrix, error=error)
            good[t] = True
            frontier += [k for k in (t - 1, t + 1) if k in waiting]
        yield run.progress(done, len(lost), "Chaining frames through their neighbours")


def _neighbour(t: int, good: NDArray[np.bool_]) -> int | None:
    for step in (1, 2):
        for k in (t - step, t + step):
            if 0 <= k < len(good) and good[k]:
                return k
    return None
