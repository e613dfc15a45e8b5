"""Frames that do not agree with each other where they were found: a mean of them is no scene.

Where frames follow a scene, most of what each shows of a place is alike, but for noise and what passes. Where some
follow the scene and others what walks through it, or one part of it and another, no mean tells: each frame resembles it
a little. The median of frames does: most of them differ from it by more than noise, all over the field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.references.chained import shares_in_view
from stackalign.core.run_state import spread
from stackalign.core.verdicts.block_votes import can_vote
from stackalign.core.verdicts.cell_evidence import laid, reduced_frame
from stackalign.core.verdicts.cells import CELLS, cell_numbers
from stackalign.core.verdicts.consensus import apart
from stackalign.core.verdicts.continuity import followed_another, followed_others
from stackalign.core.verdicts.median_scene import JUDGES, median_scene, strange

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stackalign.core.run_state import RunState
    from stackalign.core.work import Work

_AS_MANY = 0.8  # times the frames that were found, that must have followed something else to doubt them all
_FOLLOWED = 0.1  # of the frames: as many followed something else
_LEAST_FRAMES = 5
_HOME = 0.6  # of the field, that frames show that are asked
_SEEN = 0.5  # of the frames that must show half of a cell
_HALF = 0.5  # of these, that show something else there than their median: they do not agree on it
_MOST = 0.1  # of the cells, on which they may not agree
_LEAST = 0.25  # of the field on which they must: less is what walks through it
_STEP = 0.06  # of the field from frame to frame: farther it jumps
_PARTS = 2  # from which it is begun
_FOUND = 0.5  # of the frames that were found before, that must be found again
MINORITY = "most frames were not found, as something else was followed: which of the others lie right is not known"
REASON = "the frames do not agree with each other where they were found: some followed something else"


def doubt_discord(run: RunState, judged: Callable[[RunState], Work[None]]) -> Work[None]:
    """Align frames again if they do not agree with each other where they were found.

    That is so where most followed something else, where most differ from each other in a tenth of the field, or where
    what they show alike is little of it. They are begun from those alone that were found beside each other in time:
    what these followed, the scene or something else, is one and the same. If frames do not agree then either, all are
    given up. Whether they differ is asked where something was hidden, or frames followed something else: a scene may
    change as well, and is no reason for doubt then.

    Parameters
    ----------
    run : RunState
        Aligned, and judged; its results are replaced.
    judged : callable
        Aligns the frames of a run from its ``starts``, and judges them.
    """
    if run.policy.kind not in ("mean", "median"):
        return
    reason = yield from _discordant(run)
    if not reason:
        return
    for part in _parts(run)[:_PARTS] if can_vote(run) else []:
        twin = run.anew()
        twin.starts = part
        yield from judged(twin)
        if twin.good().sum() >= _FOUND * run.good().sum() and not (yield from _discordant(twin)):
            run.become(twin)
            return
    run.give_up(reason)


def _discordant(run: RunState) -> Work[str]:
    """Return why the frames of a run are not believed; empty if they are."""
    found, lost, followed = followed_others(run)
    if lost > found and followed >= _AS_MANY * found:
        return MINORITY
    if not can_vote(run) or (run.hidden is None and followed < _FOLLOWED * (found + lost)):
        return ""
    shape = run.stack.frame_shape
    home = [t for t, matrix in run.places().items() if shares_in_view(shape, matrix[None])[0] >= _HOME]
    if len(home) < _LEAST_FRAMES:
        return ""
    agree, differ = yield from _agreement(run, spread(home, JUDGES))
    return REASON if differ > _MOST * (agree + differ) or agree < _LEAST else ""


def _parts(run: RunState) -> list[dict[int, NDArray[np.float64]]]:
    """Return the frames that were found, whatever they followed, cut where they jump: most frames first."""
    shape = run.stack.frame_shape
    places = {t: r.matrix for t, r in enumerate(run.results) if r and (not r.reason or followed_another(r))}
    parts: list[dict[int, NDArray[np.float64]]] = []
    last = None
    for t, matrix in places.items():
        if last is None or apart(matrix, places[last], shape) > _STEP * max(shape) * (t - last):
            parts.append({})
        parts[-1][t] = matrix
        last = t
    return sorted((part for part in parts if len(part) >= _LEAST_FRAMES), key=len, reverse=True)


def _agreement(run: RunState, sample: list[int]) -> Work[tuple[float, float]]:
    """Return on what share of the field half of the frames, or more, agree with their median, and on what they do not.

    What is hidden of frames does not count, nor what fewer show.
    """
    scene = yield from median_scene(run, sample)
    cell, n = cell_numbers(scene.image.shape), CELLS[2] ** 2
    whole = np.bincount(cell.ravel(), minlength=n)
    other = np.full((len(sample), n), np.nan)
    for k, t in enumerate(sample):
        result = run.results[t]
        assert result is not None
        small, noise = reduced_frame(run.load(t), result, scene.factors)
        shown = laid(small, result, scene.factors)
        enough = np.bincount(cell[np.isfinite(shown)], minlength=n) > whole / 2
        cells = strange(shown, noise, scene, 1.0)
        if cells is not None:
            other[k, enough] = cells.ravel()[enough]
        yield run.progress(k + 1, len(sample), "Comparing frames with each other")
    told = np.isfinite(other).mean(0) >= _SEEN
    differ = np.nanmean(other[:, told], axis=0) >= _HALF if told.any() else np.zeros(0, bool)
    return float((~differ).sum() / n), float(differ.sum() / n)
