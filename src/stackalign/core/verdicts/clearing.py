"""What walks through the scene is left out of the frames, and of the reference: once it is known where most frames lie.

A frame is fitted to the blocks that agree with it, but the mean that it is fitted to holds a ghost of everything that
walked through: frames are then pulled by tenths of a pixel, and more where little else is in view. The median of the
frames has no ghost where each place is free most of the time. Cells of a frame that differ from it by more than noise
and a small shift explain are hidden, and the frames are aligned again; a place that is never free is in no reference
then.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.generators import fitted, moved_points
from stackalign.core.geometry import corners
from stackalign.core.run_state import RunState, spread
from stackalign.core.verdicts.block_votes import can_vote
from stackalign.core.verdicts.cells import Strangers, hiding
from stackalign.core.verdicts.consensus import MOST_SUPPORT, Blocks, apart
from stackalign.core.verdicts.continuity import REASON as CONTRADICTED
from stackalign.core.verdicts.joining import join
from stackalign.core.verdicts.median_scene import JUDGES, median_scene, strange_cells
from stackalign.core.verdicts.second_look import NEAR, look_again

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stackalign.core.work import Work

    Array = NDArray[np.float64]

_ASKED = 8  # frames whose blocks tell whether something walks through the scene
_OFTEN = 0.5  # of these in which blocks must contradict
_LEAST_FRAMES = 5
_FOUND = 0.6  # of the frames that must be found again
ELSEWHERE = "where it lies, it shows little of what the other frames show"
REASON = "it was found elsewhere once what walks through the scene was left out"


def clear(run: RunState, again: Callable[[RunState], Work[None]]) -> Work[None]:
    """Align frames again without what walks through the scene, if something does in most of them.

    Parameters
    ----------
    run : RunState
        Aligned; its results, its details and what it hides of frames are replaced.
    again : callable
        Aligns the frames of a run.
    """
    good = np.flatnonzero(run.good()).tolist()
    if (
        not can_vote(run)
        or len(good) < _LEAST_FRAMES
        or "reference" not in run.details  # one frame was left, and the others were chained to it
        or not (run.hidden is not None or walked_through(run))
    ):
        return
    # what walks through may be what neighbours said, too: those that they contradict are asked
    found = {t: r for t, r in enumerate(run.results) if r is not None and r.reason in ("", CONTRADICTED)}
    scene = yield from median_scene(run, spread(good, JUDGES))
    cells = yield from strange_cells(run, found, scene)
    # less of the scene is left, on which a frame that was not found before would be found anywhere
    lost = {t: r.reason or ELSEWHERE for t, r in enumerate(run.results) if r is not None and t not in cells}
    twin = run.anew()
    twin.unusable |= lost
    strangers = {t: found[t].matrix for t, other in cells.items() if other.any()}
    twin.hidden = hiding(strangers, cells, run.stack.frame_shape, run.hidden)
    twin.starts = {t: found[t].matrix for t in cells}
    twin.brightness = {t: (found[t].gain, found[t].offset) for t in cells}
    try:
        yield from again(twin)
        if run.hidden is not None:  # the frames show different parts
            yield from join(twin, again)
    except ValueError:  # no reference can be made of what is left
        return
    if twin.good().sum() < _FOUND * len(good):
        return
    hidden, run.hidden, run.details, run.noise = run.hidden, twin.hidden, twin.details, twin.noise
    run.strangers = Strangers({t: m for t, m in strangers.items() if twin.good()[t]}, cells, hidden)
    common, eye = common_motion(run, twin), np.eye(run.stack.ndim + 1)
    near = NEAR * max(run.stack.frame_shape)
    for t, before in enumerate(run.results):
        if before is None or (before.reason and np.array_equal(before.matrix, eye)):  # it was found nowhere
            continue
        there = common @ before.matrix
        result = twin.results[t] if t in found else before
        reason = ELSEWHERE if result is None else result.reason
        if result is not None and not reason and apart(result.matrix, there, run.stack.frame_shape) < near:
            # that of where frames lie by each other, if it is known, is larger: their mean moves with them
            error = result.error if hidden is None else np.fmax(result.error, before.error)
            run.results[t] = replace(result, error=error)
        else:  # what it is given up for is where it was found before
            run.results[t] = replace(before, matrix=there).given_up(reason or REASON)
    known = run.good()
    yield from look_again(run, {t: place for t, place in strangers.items() if known[t]}, cells, hidden)


def common_motion(run: RunState, twin: RunState) -> Array:
    """Return how the reference of a run lies on that of another one, by the frames that both have."""
    both = run.good() & twin.good()
    points = corners(run.stack.frame_shape)
    places = moved_points(twin.matrices()[both] @ np.linalg.inv(run.matrices()[both]), points)
    return fitted(points, np.asarray(np.median(places, axis=0)), run.aligner.model, run.stack.pixel_size)


def walked_through(run: RunState) -> bool:
    """Return whether blocks contradict in most frames of a sample: something walks through the scene."""
    good = np.flatnonzero(run.good()).tolist()
    if len(good) < _LEAST_FRAMES or "reference" not in run.details:
        return False
    sample = spread(good, _ASKED)
    blocks = Blocks.of(np.asarray(run.details["reference"], np.float32))
    contradicted = 0
    for t in sample:
        result = run.results[t]
        assert result is not None
        found = blocks.consensus(run.load(t), result.matrix, result.gain, result.offset)
        contradicted += found.support < MOST_SUPPORT
    return contradicted >= _OFTEN * len(sample)
