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
from stackalign.core.verdicts.cell_evidence import EXACT, laid, reduced_frame
from stackalign.core.verdicts.cells import CELLS, cell_numbers
from stackalign.core.verdicts.continuity import followed_others
from stackalign.core.verdicts.median_scene import JUDGES, median_scene

if TYPE_CHECKING:
    from stackalign.core.run_state import RunState
    from stackalign.core.work import Work

_FOLLOWED = 0.1  # of the frames: as many followed something else
_LEAST_FRAMES = 5
_HOME = 0.6  # of the field, that frames show that are asked
_SEEN = 0.5  # of the frames that must show a cell, and half of it
_DIFFERS = 2.0  # times the variance of the noise, that half of the frames leave in a cell that they do not agree on
_MOST = 0.1  # of the cells, on which they may not agree
_LEAST = 0.25  # of the field on which they must: less is what walks through it
REASON = "the frames do not agree with each other where they were found: some followed something else"


def doubt_discord(run: RunState) -> Work[None]:
    """Give up all frames of a run if most of them differ from each other in a tenth of the field, or show little alike.

    It is asked where something was hidden, or frames followed something else: a scene may change as well, and is no
    reason for doubt then.
    """
    if run.policy.kind not in ("mean", "median") or run.stack.ndim != 2 or run.mask is not None:
        return
    found, lost, followed = followed_others(run)
    if run.hidden is None and followed < _FOLLOWED * (found + lost):
        return
    places, shape = run.places(), run.stack.frame_shape
    home = [t for t, matrix in places.items() if shares_in_view(shape, matrix[None])[0] >= _HOME]
    if len(home) < _LEAST_FRAMES:
        return
    agree, differ = yield from _agreement(run, spread(home, JUDGES))
    if differ > _MOST * (agree + differ) or agree < _LEAST:
        run.give_up(REASON)


def _agreement(run: RunState, sample: list[int]) -> Work[tuple[float, float]]:
    """Return on what share of the field half of the frames, or more, agree with their median, and on what they do not.

    What is hidden of frames does not count, nor what fewer show.
    """
    scene = yield from median_scene(run, sample)
    cell, n = cell_numbers(scene.image.shape), CELLS[2] ** 2
    whole = np.bincount(cell.ravel(), minlength=n)
    left = np.full((len(sample), n), np.nan)
    for k, t in enumerate(sample):
        result = run.results[t]
        assert result is not None
        small, noise = reduced_frame(run.load(t), result, scene.factors)
        rest = laid(small, result, scene.factors) - scene.image
        known = np.isfinite(rest)
        pixels = np.bincount(cell[known], minlength=n)
        squares = np.bincount(cell[known], rest[known] ** 2, n) / np.maximum(pixels, 1)
        enough = pixels > whole / 2
        left[k, enough] = squares[enough] / (noise + scene.noise + (EXACT * scene.contrast) ** 2)
        yield run.progress(k + 1, len(sample), "Comparing frames with each other")
    told = np.isfinite(left).mean(0) >= _SEEN
    differ = np.nanmedian(left[:, told], axis=0) > _DIFFERS if told.any() else np.zeros(0, bool)
    return float((~differ).sum() / n), float(differ.sum() / n)
