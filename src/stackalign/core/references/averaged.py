"""Align to the mean or the median of the aligned frames, re-estimated until it settles.

Its gauge: the sample's most central frame stays where it is until the end, when the series is rebased to the anchor.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.generators import fitted, moved_points
from stackalign.core.geometry import corners
from stackalign.core.references.chained import in_view
from stackalign.core.references.draft import SAMPLE, central_frame, drafted
from stackalign.core.references.first_noise import aligned_few, aligned_in_part
from stackalign.core.references.mean_image import Aligned, mean_image, median_image
from stackalign.core.references.reference import NoiseTeller, PairResult
from stackalign.core.run_state import NOISE_REACH, align_all, spread
from stackalign.core.warping.resample import warp_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.references.reference import PairAligner
    from stackalign.core.run_state import RunState
    from stackalign.core.work import Work

MAX_ROUNDS = 12
_BLUR = 0.2  # pixels: a motion of the sample from which the next mean is as sharp as it gets
_NEGLIGIBLE = 0.2  # standard errors of a frame that the next round would still move it: it is not worth a round
_LEAST = 2e-4  # pixels: no round is worth less
_MOST = 0.9  # of the frames that make the mean


def align_to_average(run: RunState) -> Work[None]:
    """Align to the mean or median, re-estimated until it settles."""
    starts = run.starts or (yield from drafted(run))
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
    sample = spread(usable, SAMPLE)
    base = _central(run, sample, starts)
    home = np.linalg.inv(starts[base])
    starts = {t: home @ m for t, m in starts.items()}
    # what has drifted out of view would be taken for another part of the scene, and spoil the mean
    seen = in_view(run.stack.frame_shape, np.array([starts[t] for t in usable]))
    sample = spread([t for t, there in zip(usable, seen, strict=True) if there], SAMPLE)
    run.keep(sample)
    mask = _moved_mask(run, starts)
    known: list[PairResult | None] = [None] * len(run.stack)
    for t in sample:
        gain, offset = run.brightness.get(t, (1.0, 0.0))
        known[t] = replace(PairResult.failed(run.stack.ndim, ""), matrix=starts[t], gain=gain, offset=offset)
    some = yield from aligned_in_part(run, sample, starts, base)
    for t, result in some.items():
        known[t] = result
    _release(known, list(some), starts)
    # of a long movie a sample makes the mean; once it lies well, the mean is renewed and every frame is aligned to it
    every = len(sample) == len(usable)
    last = every or len(some) > _MOST * len(sample)  # of what lies well the first mean is as good as the next
    frames = list(range(len(run.stack))) if last else list(sample)
    rounds, change, previous, rate = 0, np.inf, np.inf, 1.0
    while True:
        template = None  # the next one may have its memory
        image = yield from _estimate(run, sample, known)
        count = float(sum(1 for t in sample if (r := known[t]) is not None and not r.reason))
        tried: list[PairResult] = []
        if rounds == 0 and not some:
            # starts come from reduced frames: align before the noise is read off the residuals
            few = spread(sample, 8)
            tried = aligned_few(run, image, mask, few, starts, max(count, 1.0))
        template = run.aligner.prepare(image, mask, noise=run.noise, frames=max(count, 1.0))
        if rounds == 0:
            rate = _rate(run.aligner, template, len(sample))
        if tried and not every:
            put: list[PairResult | None] = [None] * len(run.stack)
            for t, result in zip(few, tried, strict=True):
                put[t] = result
            # where they lie well from the beginning, the first mean is as good as the next
            last = _ahead(*_change(run, starts, put, few), rate)
            frames = list(range(len(run.stack))) if last else frames
        rounds += 1
        run.details |= {"reference": image, "noise": run.noise, "rounds": rounds}
        before = {t: r.matrix for t in sample if (r := known[t]) is not None}
        begun = {**starts, **_matrices(run.results, frames), **_matrices(known, sample)}
        yield from align_all(run, frames, template, begun, f"Aligning to the {run.policy.kind}, round {rounds}")
        known = run.results
        _release(known, sample, before)
        _settle_gauge(run, known, frames, sample, before)
        change, error = _change(run, before, known, sample)
        # steps shrink by the same factor from round to round: the next one is known beforehand
        rate = min(change / previous, 1.0) if np.isfinite(previous) else rate
        if every:
            settled = _ahead(change, error, rate) or (rounds > 3 and change > 0.9 * previous)
        else:
            settled = last and (rounds > 1 or _ahead(change, error, rate))
            last = last or change < _BLUR or rounds >= MAX_ROUNDS - 1
            frames = list(range(len(run.stack))) if last else frames
        if settled or rounds >= MAX_ROUNDS:
            break
        previous = change
    run.keep([])
    run.details["change"] = change
    for t in range(len(run.stack)):
        if run.results[t] is None:
            run.results[t] = run.align(t, template, starts.get(t))


def _rate(aligner: PairAligner[Any], template: Any, count: int) -> float:
    """Return what of its first step a frame will go once more: its share in the mean pulls it to where it lay.

    What all frames show moves along with them, so that it is noise alone that does.
    """
    return min(1 / count, aligner.pull(template) if isinstance(aligner, NoiseTeller) else np.inf)


def _estimate(run: RunState, sample: Sequence[int], known: Sequence[PairResult | None]) -> Work[NDArray[np.float32]]:
    """Work out the mean or median of the sample where it lies now."""
    used = [t for t in sample if (r := known[t]) is not None and not r.reason]
    places = [Aligned.of(r) for t in used if (r := known[t]) is not None]
    shape, message = run.stack.frame_shape, f"Estimating the {run.policy.kind}"
    if run.policy.kind == "median":
        work = median_image(run.load, used[:64], places[:64], shape)
    else:
        work = mean_image(run.load, used, places, shape, run.aligner.model)
    return np.asarray((yield from run.counted(work, len(used), message)), np.float32)


def _central(run: RunState, sample: Sequence[int], starts: dict[int, NDArray[np.float64]]) -> int:
    return central_frame({t: starts[t] for t in sample}, run.stack.frame_shape)


def _moved_mask(run: RunState, starts: dict[int, NDArray[np.float64]]) -> NDArray[np.bool_] | None:
    """Return the mask, drawn on the anchor frame, where the reference has it."""
    if run.mask is None:
        return None
    anchor = run.anchor if isinstance(run.anchor, int | np.integer) else min(starts)
    matrix = starts.get(int(anchor) % len(run.stack), starts[min(starts)])
    return warp_frame(run.mask.astype(np.uint8), matrix, order=0).astype(bool)


def _matrices(known: Sequence[PairResult | None], frames: Sequence[int]) -> dict[int, NDArray[np.float64]]:
    """Return where frames lie; those that failed are searched for again."""
    return {t: r.matrix for t in frames if (r := known[t]) is not None and not r.reason}


def _release(known: list[PairResult | None], sample: Sequence[int], before: dict[int, NDArray[np.float64]]) -> None:
    """Let frames go as far as they would if their own noise, a share of the mean, did not hold them where they lay.

    Near its former place a frame correlates with its own noise: it asks ``hold`` times as much for the way back as the
    scene alone does, and stops at that fraction of the way.
    """
    for t in sample:
        r = known[t]
        if r is None or r.reason or r.hold is None or t not in before:
            continue
        step = r.matrix[:-1, -1] - before[t][:-1, -1]
        share = np.diag(r.hold)
        if np.abs(step).max() > NOISE_REACH or share.max() <= 1:
            continue
        matrix = r.matrix.copy()
        matrix[:-1, -1] = before[t][:-1, -1] + r.hold @ step
        known[t] = replace(r, matrix=matrix, error=r.error * np.maximum(share, 1.0))


def _settle_gauge(
    run: RunState,
    known: list[PairResult | None],
    frames: Sequence[int],
    sample: Sequence[int],
    before: dict[int, NDArray[np.float64]],
) -> None:
    """Keep the mean from wandering: the motion that its frames made together in this round is taken back from all."""
    shape = np.maximum(run.stack.frame_shape, 2).tolist()
    points = corners(shape)
    there, _ = _both(before, known, sample)
    if not there:
        return
    then, now = np.array([before[t] for t in there]), np.array(list(there.values()))
    places = moved_points(now @ np.linalg.inv(then), points)
    common = fitted(points, np.median(places, axis=0), run.aligner.model, run.stack.pixel_size)
    back = np.linalg.inv(common)
    for t in frames:
        r = known[t]
        if r is not None and not r.reason:
            matrix = back @ r.matrix
            known[t] = replace(r, matrix=matrix / matrix[-1, -1])


def _ahead(change: float, error: float, rate: float) -> bool:
    """Return whether the next round would move frames by less than matters, if this one moved them by ``change``."""
    return change * rate < max(_NEGLIGIBLE * error, _LEAST) and change < _BLUR


def _change(
    run: RunState, before: dict[int, NDArray[np.float64]], known: Sequence[PairResult | None], sample: Sequence[int]
) -> tuple[float, float]:
    """Return how far the corners of the frames moved in this round (rms, px), and their median standard error."""
    now, errors = _both(before, known, sample)
    if not now:
        return 0.0, 0.0
    points, matrices = corners(run.stack.frame_shape), np.array(list(now.values()))
    way = moved_points(matrices, points) - moved_points(np.array([before[t] for t in now]), points)
    told = np.isfinite(errors)
    sizes = np.sqrt((np.where(told, errors, 0) ** 2).sum(-1) / np.maximum(told.sum(-1), 1))[told.any(-1)]
    return float(np.sqrt((way**2).mean())), float(np.median(sizes)) if len(sizes) else 0.0


def _both(
    before: dict[int, NDArray[np.float64]], known: Sequence[PairResult | None], sample: Sequence[int]
) -> tuple[dict[int, NDArray[np.float64]], NDArray[np.float64]]:
    """Return where frames lie now that were aligned before, too, and their standard errors (T, d)."""
    there = {t: r for t in sample if (r := known[t]) is not None and not r.reason and t in before}
    return {t: r.matrix for t, r in there.items()}, np.array([r.error for r in there.values()])
