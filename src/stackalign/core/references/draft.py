"""Find the motion of a stack on reduced frames, held in memory, over the whole range of shifts and turns."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.noise import NoiseModel
from stackalign.core.frames.reduction import binned_frames, enlarged, reduction
from stackalign.core.generators import moved_points
from stackalign.core.geometry import corners
from stackalign.core.references.mean_image import Aligned, mean_image
from stackalign.core.references.reference import PairResult
from stackalign.core.run_state import batched, safely, safely_many, spread
from stackalign.core.threads import batches, map_ahead, map_frames, spread_over
from stackalign.core.verdicts.continuity import REASON, contradicted
from stackalign.core.work import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stackalign.core.references.reference import PairAligner
    from stackalign.core.run_state import RunState
    from stackalign.core.work import Work

SAMPLE = 80  # frames from which a mean is estimated: its noise then adds 0.6 per cent to the error of a frame
DRAFT = 128  # pixels along the longer axis of a reduced frame
_DRAFT_BYTES = 1 << 29
_BASES = (0.5, 0.25, 0.75, 0.125, 0.625, 0.375, 0.875, 0.0)  # where in a sample the frames are that others are laid on
_ALIKE = 0.45  # of a sample, that must be like one: then no other is tried
_FAINT = 0.25  # of the usual gain: such frames make no mean


def drafted(run: RunState) -> Work[dict[int, NDArray[np.float64]]]:
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

    def shrink(frames: Sequence[int]) -> list[NDArray[np.float32]]:
        return list(binned_frames([run.load(t) for t in frames], factors))

    some = batches(range(count), stack.frame_bytes)
    for batch, images in zip(some, map_frames(shrink, some), strict=True):
        small |= {t: image for t, image in zip(batch, images, strict=True) if t not in run.unusable}
        yield Progress(batch[-1] + 1, count, "Reading frames")
    usable = list(small)
    if len(usable) < 2:
        return {t: np.eye(stack.ndim + 1) for t in usable}
    sample = spread(usable, SAMPLE)
    results = yield from _draft_sample(run.aligner, small, sample)
    template: Any = _draft_mean(run.aligner, small, results, sample)
    yield from _draft_many(
        run.aligner, small, template, usable, results, dict(results), "Finding the motion on reduced frames"
    )
    _straighten(run.aligner, small, results)
    found = {t: results[t] for t in usable if not results[t].reason}
    run.brightness = {t: (r.gain, r.offset) for t, r in found.items()}
    return {t: enlarged(r.matrix, factors) for t, r in found.items()}


def _draft_sample(
    aligner: PairAligner[Any], small: dict[int, NDArray[np.float32]], sample: Sequence[int]
) -> Work[dict[int, PairResult]]:
    """Align a sample of reduced frames to one of them: the middle one, or another if that is like few of them.

    What fits badly counts less: onto a frame that shows something else, many are laid where it is faint.
    """
    best: dict[int, PairResult] = {}
    most = 0.0
    for base in dict.fromkeys(sample[int(part * len(sample))] for part in _BASES):
        try:
            template = aligner.prepare(small[base], None)
        except ValueError:
            continue
        results: dict[int, PairResult] = {}
        yield from _draft_many(aligner, small, template, sample, results, {}, "Comparing reduced frames")
        alike = sum(r.confidence for r in results.values() if not r.reason)
        if alike > most:
            best, most = results, alike
        if most > _ALIKE * len(sample):
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
    # what was laid on the wrong place fits best when it is faint there, and would be amplified by that in the mean
    usual = float(np.median([abs(results[t].gain) for t in kept]))
    for t in kept:
        if abs(results[t].gain) < _FAINT * usual:
            results[t] = replace(results[t], reason="it is far fainter where it was found than the other frames")
    kept = [t for t in kept if not results[t].reason]
    results.update(_recentred(results, kept, shape))
    places = [Aligned.of(results[t]) for t in kept]
    with spread_over(None):  # the reduced frames are here
        image = last_value(mean_image(small.__getitem__, kept, places, shape, aligner.model))
    template = aligner.prepare(image, None, frames=float(len(kept)))
    # weights that follow from the noise: without them bright pixels count too much, and look like outliers
    pairs = np.concatenate([aligner.residuals(small[t], template, results[t], own=True) for t in spread(kept, 6)])
    noise = NoiseModel.fitted(pairs[:, 0], pairs[:, 1])
    return aligner.prepare(image, None, noise=noise, frames=float(len(kept)))


def _straighten(
    aligner: PairAligner[Any], small: dict[int, NDArray[np.float32]], results: dict[int, PairResult]
) -> None:
    """Put frames that were found on the wrong part of the mean where their neighbours say."""

    def compare(t: int, onto: int) -> PairResult:
        try:
            return safely(aligner, small[t], aligner.prepare(small[onto], None), None)
        except ValueError as error:
            return PairResult.failed(small[t].ndim, str(error))

    found = {t: r for t, r in results.items() if not r.reason}
    shape = next(iter(small.values())).shape
    wrong = set(contradicted(found, shape, compare))
    if not wrong:
        return
    frames = sorted(found)
    for line in (frames, frames[::-1]):  # away from what is right, forwards and backwards in time
        for before, t in pairwise(line):
            if t in wrong and before not in wrong:
                step = compare(t, before)
                if not step.reason:
                    results[t] = replace(step, matrix=results[before].matrix @ step.matrix)
                    wrong.discard(t)
    for t in wrong:
        results[t] = PairResult.failed(len(shape), REASON)


def _draft_many(
    aligner: PairAligner[Any],
    small: dict[int, NDArray[np.float32]],
    template: Any,
    frames: Sequence[int],
    results: dict[int, PairResult],
    before: Mapping[int, PairResult],
    message: str,
) -> Work[None]:
    """Align reduced frames to a template; ``results`` are filled. ``before`` tells where some lay on a rougher one."""

    def align(batch: Sequence[int]) -> list[PairResult]:
        last = [r if (r := before.get(t)) is not None and not r.reason else None for t in batch]
        images = [small[t] for t in batch]
        found = safely_many(aligner, images, template, [None if r is None else r.matrix for r in last])
        return [
            safely(aligner, image, template, None)
            if r is not None and (result.reason or result.correlation < r.correlation - 0.05)
            else result
            for image, r, result in zip(images, last, found, strict=True)
        ]

    done, some = 0, batched(aligner, frames, small[frames[0]].nbytes)
    for batch, found in zip(some, map_ahead(align, some), strict=True):
        results.update(zip(batch, found, strict=True))
        done += len(batch)
        yield Progress(done, len(frames), message)


def _recentred(results: dict[int, PairResult], sample: Sequence[int], shape: tuple[int, ...]) -> dict[int, PairResult]:
    """Return the results in the gauge of the sample's most central frame: a mean there misses least of the others."""
    base = central_frame({t: results[t].matrix for t in sample}, shape)
    home = np.linalg.inv(results[base].matrix)
    return {t: r if r.reason else replace(r, matrix=home @ r.matrix) for t, r in results.items()}


def last_value(work: Any) -> Any:
    """Run work to its end in silence."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return stop.value


def central_frame(matrices: dict[int, NDArray[np.float64]], shape: tuple[int, ...]) -> int:
    """Return the frame whose corners lie closest to the median of all."""
    frames, points = list(matrices), corners(shape)
    places = moved_points(np.array([matrices[t] for t in frames]), points).reshape(len(frames), -1)
    return frames[int(np.argmin(np.linalg.norm(places - np.median(places, axis=0), axis=1)))]
