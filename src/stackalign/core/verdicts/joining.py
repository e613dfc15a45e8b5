"""Frames that show different parts of a scene, as where something walks through it: aligned until all of them agree.

The rounds that take a mean and align to it stop early there: see `joint_places`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.frames.reduction import binned, enlarged, reduced, reduction
from stackalign.core.generators import generators, moved_points
from stackalign.core.geometry import centre, corners
from stackalign.core.references.chained import seen_in_part
from stackalign.core.references.draft import SAMPLE
from stackalign.core.run_state import spread
from stackalign.core.verdicts.agreement import noise_variance
from stackalign.core.verdicts.joint_places import PlacedFrame, place_together

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stackalign.core.run_state import RunState
    from stackalign.core.work import Work

_COMPARED = {2: 64, 3: 24}  # pixels along an axis of the images that are compared
_PLACED = {2: 128, 3: 32}  # of those that are placed for good
_FIELDS = 3.0  # that all frames together show, up to which it is so
_PASSES = 3  # alignments
_EXACT = 0.1  # reduced pixels: what is read off reduced frames is no better
_FARTHEST = 10.0  # standard errors: a frame that would go farther by what few others show stays
_CONTRADICTED = 2.0  # standard errors between where a frame lies and where it does by the others
REASON = "the other frames together would have it elsewhere"


def join(run: RunState, again: Callable[[RunState], Work[None]], *, doubts: bool = True) -> Work[None]:
    """Align the frames of a run to their mean until they lie where they do by each other.

    Parameters
    ----------
    run : RunState
        Aligned; its results are replaced. Their errors become those against all other frames, and frames that still lie
        elsewhere are given up.
    again : callable
        Aligns the frames of a run from its ``starts``.
    doubts : bool
        Whether frames are given up.
    """
    if run.policy.kind not in ("mean", "median"):
        return
    factors = reduction(run.stack.frame_shape, _COMPARED[run.stack.ndim])
    for passes in range(_PASSES + 1):
        places = yield from _together(run, factors)
        ways = _ways(run, places, factors)
        if passes == _PASSES or all(ways[t] < max(place.error, _EXACT) for t, place in places.items()):
            break
        run.starts = {t: enlarged(place.matrix, factors) for t, place in places.items()}
        run.brightness = {t: (place.gain, place.offset) for t, place in places.items()}
        yield from again(run)
    for t, place in places.items():
        result = run.results[t]
        assert result is not None
        if doubts and ways[t] > _CONTRADICTED * max(place.error, _EXACT):
            run.results[t] = result.given_up(REASON)
        else:
            error = np.fmax(result.error, place.shift_error * np.asarray(factors))
            run.results[t] = replace(result, error=error)


def begin_together(run: RunState) -> Work[None]:
    """Begin a run anew, which was aligned with more or less of its frames hidden, where these lie by each other."""
    factors = _finest(run)
    places = yield from _together(run, factors, beyond=True)
    run.starts = run.places() | {t: enlarged(place.matrix, factors) for t, place in places.items()}
    run.brightness = run.brightness | {t: (place.gain, place.offset) for t, place in places.items()}
    run.results = [None] * len(run.results)


def _finest(run: RunState) -> tuple[int, ...]:
    """Return how frames are reduced where they are placed for good: less the fewer fields they show together."""
    shape = run.stack.frame_shape
    points = moved_points(np.array(list(run.places().values())), corners(shape))
    fields = np.prod((points.max((0, 1)) - points.min((0, 1))) / shape)
    return reduction(shape, _PLACED[len(shape)] / max(1.0, fields / _FIELDS) ** (1 / len(shape)))


def place_parts(run: RunState) -> Work[frozenset[int]]:
    """Place frames that show more than the reference does by all that they show of each other.

    Parameters
    ----------
    run : RunState
        Aligned, with what walks through the scene hidden; results of such frames are replaced. Where nothing is hidden
        nothing is done.

    Returns
    -------
    frozenset of int
        Frames that were placed at full size: of the few that show the same, each on what the others show is known less
        well than all together.
    """
    if run.policy.kind != "mean" or run.mask is not None or run.hidden is None:
        return frozenset()
    shape, found = run.stack.frame_shape, run.places()
    part = set(seen_in_part(shape, found))
    if len(part) < 2:
        return frozenset()
    factors = _finest(run)
    places = yield from _together(run, factors, beyond=True)
    ways, placed = _ways(run, places, factors), set()
    for t in part & set(places):
        result, place = run.results[t], places[t]
        assert result is not None
        alone = np.nan_to_num(result.error)
        if ways[t] > _FARTHEST * max(place.error, float(np.linalg.norm(alone / factors)), _EXACT):
            continue
        matrix, error = enlarged(place.matrix, factors), place.shift_error * np.asarray(factors)
        # where the reference alone contradicts, something is left of what walks through: it may be either's error
        way = np.abs(moved_points(matrix, centre(shape)[None]) - moved_points(result.matrix, centre(shape)[None]))[0]
        contradicted = way > _CONTRADICTED * np.hypot(error, alone)
        error = np.where(contradicted, np.fmax(error, way / 2), error)
        run.results[t] = replace(result, matrix=matrix, error=error, gain=place.gain, offset=place.offset)
        placed.add(t)
    return frozenset(placed if max(factors) == 1 else ())


def _together(run: RunState, factors: tuple[int, ...], *, beyond: bool = False) -> Work[dict[int, PlacedFrame]]:
    """Return frames of a run, reduced, where they lie by each other."""
    frames: dict[int, PlacedFrame] = {}
    sample = spread([t for t in np.flatnonzero(run.good()).tolist() if t not in run.unusable], SAMPLE)
    for t in sample:
        frame, result = run.load(t), run.results[t]
        assert result is not None
        noise = noise_variance(frame) / float(np.prod(factors))
        matrix = reduced(result.matrix, factors)
        frames[t] = PlacedFrame(binned(frame, factors), noise, matrix, result.gain, result.offset)
        yield run.progress(len(frames), len(sample), "Placing frames by each other")
    if len(frames) < 2:
        return {}
    shape = next(iter(frames.values())).image.shape
    middle = centre(shape)
    spacing = (np.asarray(run.stack.pixel_size or (1.0,) * len(shape)) * factors).tolist()
    group = generators(run.aligner.model, middle, float(np.linalg.norm(middle)), spacing)
    place_together(list(frames.values()), group, beyond=beyond)
    return frames


def _ways(run: RunState, places: Mapping[int, PlacedFrame], factors: tuple[int, ...]) -> dict[int, float]:
    """Return how far the corners of frames lie from where these are placed, rms, reduced pixels."""
    ways = {}
    for t, place in places.items():
        result, points = run.results[t], corners(place.image.shape)
        assert result is not None
        way = moved_points(place.matrix, points) - moved_points(reduced(result.matrix, factors), points)
        ways[t] = float(np.sqrt((way**2).sum(-1).mean()))
    return ways
