"""Align frames to their neighbours: each to the one before, to a running mean, or across a gap."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.noise import NoiseModel
from stackalign.core.generators import moved_points
from stackalign.core.geometry import corners
from stackalign.core.references.reference import PairResult
from stackalign.core.run_state import resting, safely, spread
from stackalign.core.threads import map_frames
from stackalign.core.warping.resample import warp_frame

_VIEW = 0.35  # share of the field that a frame must cover to be compared with the others there
_WHOLE, _LATTICE = 0.75, 32  # share of a frame from which it is seen whole; places along each axis that tell it
_AWAY = 1.0  # px: a frame that lies farther from where its neighbour says was found on something else

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    """Chain frames that failed through their neighbours: a drift may have left nothing of the reference in view.

    Where the reference is in view, the frame is then fitted to it, so that no errors add up.
    """
    if run.policy.kind in ("previous", "all-pairs") or not run.good().any():
        return
    if run.policy.kind in ("mean", "median") and "reference" not in run.details:
        return  # frames that make no mean: nothing would confirm what they are chained to
    lost = [t for t, r in enumerate(run.results) if t not in run.unusable and (r is None or r.reason)]
    good = run.good()
    waiting, done = set(lost), 0
    frontier = [(t, near) for t in lost if (near := _neighbour(t, good)) is not None]
    tried = set(frontier)
    template = _reference(run) if frontier else None
    while frontier:
        t, near = frontier.pop(0)
        if t not in waiting:
            continue
        done += 1
        before = run.results[near]
        assert before is not None
        result = _chained(run, t, near, before, template)
        if not result.reason:
            run.results[t] = result
            good[t] = True
            waiting.discard(t)
            for k in sorted(waiting & {t - 2, t - 1, t + 1, t + 2}):  # one that failed before may know this one
                closest = _neighbour(k, good)
                if closest is not None and (k, closest) not in tried:
                    tried.add((k, closest))
                    frontier.append((k, closest))
        yield run.progress(min(done, len(lost)), len(lost), "Chaining frames through their neighbours")


def _reference(run: RunState) -> Any:
    """Return the reference of the run as a template; None if it has none that holds for all frames."""
    image = run.details.get("reference")
    if image is None or run.policy.kind == "rolling":  # there it has changed since
        return None
    frames = {"image": np.inf, "frame": 1.0}.get(run.policy.kind, float(max(run.good().sum(), 1)))
    try:
        # a mask lies in the anchor's frame, the reference in that of the mean: there, chains alone are used
        return run.aligner.prepare(np.asarray(image, np.float32), None, noise=run.details.get("noise"), frames=frames)
    except ValueError:
        return None


def in_view(shape: tuple[int, ...], matrices: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which of the frames that lie at ``matrices`` (T, ...) cover a good part of the field, (T,)."""
    return shares_in_view(shape, matrices) >= _VIEW


def shares_in_view(shape: tuple[int, ...], matrices: NDArray[np.float64], nodes: int = 9) -> NDArray[np.float64]:
    """Return the share of each frame at ``matrices`` (T, ...) that lies on the field, (T,), told by a lattice."""
    lattice = np.stack(np.meshgrid(*(np.linspace(0, n - 1, nodes) for n in shape), indexing="ij"), -1)
    places = moved_points(matrices, lattice.reshape(-1, len(shape)))
    inside = (places >= -0.5) & (places <= np.array(shape) - 0.5)
    return np.asarray(inside.all(-1).mean(-1))


def seen_in_part(shape: tuple[int, ...], places: Mapping[int, NDArray[np.float64]]) -> dict[int, float]:
    """Return the frames of ``places`` of which less than three quarters lie on the field, with their shares."""
    if not places:
        return {}
    frames, matrices = list(places), np.array(list(places.values()))
    ends, last = moved_points(matrices, corners(shape)), np.array(shape) - 1
    # what lies beyond along each axis, to a place of the lattice, is the most that is not in view: few are looked at
    beyond = np.maximum(-ends.min(1), 0) + np.maximum(ends.max(1) - last, 0)
    far = np.flatnonzero((beyond / shape + 1 / _LATTICE).sum(1) > 1 - _WHOLE)
    if not far.size:
        return {}
    shares = shares_in_view(shape, matrices[far], _LATTICE)
    return {frames[k]: float(share) for k, share in zip(far, shares, strict=True) if share < _WHOLE}


def _chained(run: RunState, t: int, near: int, before: PairResult, template: Any) -> PairResult:
    """Return where a frame lies by its neighbour, or by the reference if it is in view there."""
    result = pair(run, t, near)
    if result.reason:
        return result
    if not in_view(run.stack.frame_shape, result.matrix[None])[0]:
        return PairResult.failed(run.stack.ndim, "its neighbour shows too little of it to tell where it lies")
    error = np.sqrt(result.error**2 + np.nan_to_num(before.error) ** 2)
    chained = replace(
        result, matrix=before.matrix @ result.matrix, error=error, gain=before.gain * result.gain,
        offset=result.gain * before.offset + result.offset,
    )  # fmt: skip
    if template is None or run.mask is not None:
        return chained
    direct = run.align(t, template, chained.matrix)
    points = corners(run.stack.frame_shape)
    away = np.linalg.norm(moved_points(direct.matrix, points) - moved_points(chained.matrix, points), axis=1).max()
    if not direct.reason and away < max(_AWAY, 5 * float(np.nanmax(np.nan_to_num(error)))):
        return direct
    if in_view(run.stack.frame_shape, chained.matrix[None])[0]:
        # neighbours show the same object: what the reference does not confirm there is not believed
        return PairResult.failed(run.stack.ndim, "the reference does not confirm where its neighbour would have it")
    return chained


def _neighbour(t: int, good: NDArray[np.bool_]) -> int | None:
    for step in (1, 2):
        for k in (t - step, t + step):
            if 0 <= k < len(good) and good[k]:
                return k
    return None
