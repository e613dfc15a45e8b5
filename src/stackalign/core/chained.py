"""Align frames to their neighbours: each to the one before, to a running mean, or across a gap."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.noise import NoiseModel
from stackalign.core.reference import PairResult
from stackalign.core.resample import warp_frame
from stackalign.core.run_state import resting, safely, spread
from stackalign.core.threads import map_frames

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.run_state import RunState
    from stackalign.core.work import Work


def align_to_previous(run: RunState) -> Work[None]:
    """Align each frame to the one before; motion and variance add up. A gap is bridged to the last good one."""
    count, d = len(run.stack), run.stack.ndim
    message = "Aligning each frame to the one before"
    pair_noise(run)
    if run.mask is None:
        steps = map_frames(lambda t: pair(run, t, t - 1) if t else PairResult.failed(d, ""), range(count))
    else:
        steps = (PairResult.failed(d, "") for _ in range(count))  # the mask moves: it is known only one by one
    last = -1
    total, variance = np.eye(d + 1), np.zeros(d)
    for t, step in enumerate(steps):
        if t in run.unusable:
            run.results[t] = PairResult.failed(d, run.unusable[t])
        elif last < 0:
            last, run.results[t] = t, resting(d)
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


def align_to_rolling(run: RunState, weight: float) -> Work[None]:
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
            template, run.results[t], start = run.aligner.prepare(image, run.mask), resting(d), np.eye(d + 1)
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


def pair(run: RunState, t: int, onto: int, mask: NDArray[np.bool_] | None = None) -> PairResult:
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


def pair_noise(run: RunState) -> None:
    """Estimate the noise from some frames aligned to the one before."""
    count = len(run.stack)
    pairs = []
    for t in spread(range(1, count), 6):
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


def _carried(run: RunState, total: NDArray[np.float64]) -> NDArray[np.bool_] | None:
    """Return the mask where a frame that lies at ``total`` has it."""
    if run.mask is None:
        return None
    return warp_frame(run.mask.astype(np.uint8), np.linalg.inv(total), order=0).astype(bool)


def rescue(run: RunState) -> Work[None]:
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
