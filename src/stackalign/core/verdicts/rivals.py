"""Frames that fit as well elsewhere: of the little that is not hidden, the best place is not the only one.

What walks through a scene is left out of the frames; of one that shows a part of the scene, too, little is left. A
search without a start then may end at another place of the mean of the others, and correlate as well there. Its own
share in a mean would hold it where it was laid.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.references.chained import seen_in_part
from stackalign.core.references.draft import SAMPLE, last_value
from stackalign.core.references.mean_image import Aligned, mean_image
from stackalign.core.references.reference import PairResult
from stackalign.core.run_state import spread
from stackalign.core.verdicts.consensus import apart

if TYPE_CHECKING:
    from stackalign.core.run_state import RunState
    from stackalign.core.work import Work

_ELSEWHERE = 3.0  # px at the corners
_SURE = 2.0  # standard errors between the correlations of two places
REASON = "of what it shows of the scene, another place fits as well"


def doubt_rivals(run: RunState) -> Work[None]:
    """Give up frames that fit as well elsewhere, where something is hidden of them and they show a part of the scene.

    Correlations are compared after Fisher's transformation, which has a variance of one over the pixels.
    """
    if run.hidden is None or run.policy.kind not in ("mean", "median"):
        return
    shape, places = run.stack.frame_shape, run.places()
    sample, part = spread(list(places), SAMPLE), seen_in_part(shape, places)
    doubted = []
    for done, (t, share) in enumerate(part.items()):
        template = _of_others(run, [u for u in sample if u != t])
        here, there = (run.align(t, template, start) for start in (places[t], None))
        pixels = share * np.isfinite(run.load(t)).sum()
        if (
            not there.reason
            and apart(there.matrix, places[t], shape) > _ELSEWHERE
            and (here.reason or (_transformed(here) - _transformed(there)) * math.sqrt(pixels) < _SURE)
        ):
            doubted.append(t)
        yield run.progress(done + 1, len(part), "Looking for other places")
    for t in doubted:
        run.results[t] = replace(PairResult.failed(run.stack.ndim, REASON), matrix=places[t])


def _of_others(run: RunState, frames: list[int]) -> Any:
    """Return the mean of some frames as a template."""
    placed = [Aligned.of(r) for t in frames if (r := run.results[t]) is not None]
    image = last_value(mean_image(run.load, frames, placed, run.stack.frame_shape, run.aligner.model))
    return run.aligner.prepare(
        np.asarray(image, np.float32), None, noise=run.details.get("noise"), frames=float(len(frames))
    )


def _transformed(result: PairResult) -> float:
    return math.atanh(min(max(result.correlation, 0.0), 0.9999))
