"""Frames that fit as well elsewhere: of the little that is not hidden, the best place is not the only one.

What walks through a scene is left out of the frames; of one that shows a part of the scene, too, little is left. A
search without a start then may end at another place of the mean of the others, and correlate as well there. Its own
share in a mean would hold it where it was laid.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.references.chained import seen_in_part
from stackalign.core.references.draft import SAMPLE, last_value
from stackalign.core.references.mean_image import mean_in_place
from stackalign.core.run_state import spread
from stackalign.core.verdicts.consensus import apart

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from stackalign.core.references.reference import PairResult
    from stackalign.core.run_state import RunState
    from stackalign.core.work import Work

    Array = NDArray[np.float64]

_ELSEWHERE = 3.0  # px at the corners
_SAME = 1.0  # px at the corners: the same place
_COMPANY = 0.25  # of the field, that frames lie apart that show the same part
_LEAST_OTHERS = 3
_NEAR = 0.1  # of the field, that the others may move a frame
_VAGUE = 10.0  # times the standard error of most frames
_SURE = 2.0  # standard errors between the correlations of two places
REASON = "of what it shows of the scene, another place fits as well"
UNSURE = "what it shows of the scene tells where it lies ten times less well than that of most frames"


def doubt_rivals(run: RunState) -> Work[None]:
    """Give up frames that fit as well elsewhere, where something is hidden of them and they show a part of the scene.

    Correlations are compared after Fisher's transformation, which has a variance of one over the pixels. Frames that
    show the same part, as after a jump, may lie wrong together: they are compared with the others alone, if these show
    enough of it, and placed there if a search says so, too.
    """
    if run.hidden is None or run.policy.kind not in ("mean", "median"):
        return
    shape, places = run.stack.frame_shape, run.places()
    sample, part = spread(list(places), SAMPLE), seen_in_part(shape, places)
    found: dict[int, PairResult] = {}
    asked = 0
    for company in _companies(part, places, shape):
        others = [u for u in sample if u not in company]
        template = _of_others(run, others) if len(others) >= _LEAST_OTHERS else None
        for t in company:
            here = None if template is None else run.align(t, template, places[t])
            if here is None or (here.reason and len(company) > 1):  # its company is needed
                whole = _of_others(run, [u for u in sample if u != t])
                here, there = (run.align(t, whole, start) for start in (places[t], None))
            else:
                there = run.align(t, template, None)
            result = _judged(run, t, here, there, part[t] * np.isfinite(run.load(t)).sum())
            if result is not None:
                found[t] = result
            asked += 1
            yield run.progress(asked, len(part), "Looking for other places")
    usual = float(np.median([_error(run, t) for t in places])) if places else 0.0
    for t in part:
        result = run.results[t]
        if result is not None and _error(run, t) > _VAGUE * usual:
            found[t] = result.given_up(UNSURE)
    for t, result in found.items():
        run.results[t] = result


def _error(run: RunState, t: int) -> float:
    """Return the standard error of the place of a frame, along the worst axis."""
    result = run.results[t]
    return 0.0 if result is None else float(np.nan_to_num(result.error).max())


def _judged(run: RunState, t: int, here: PairResult, there: PairResult, pixels: float) -> PairResult | None:
    """Return what becomes of a frame by where others have it, begun from its place and searched for; None: it stays."""
    shape, before = run.stack.frame_shape, run.results[t]
    assert before is not None
    if there.reason:
        return None
    if not here.reason and apart(here.matrix, there.matrix, shape) < _SAME:
        way = apart(here.matrix, before.matrix, shape)
        if _ELSEWHERE < way < _NEAR * min(shape):
            return here
        if way <= _ELSEWHERE:
            return None
    if apart(there.matrix, before.matrix, shape) <= _ELSEWHERE:
        return None
    if here.reason or (_transformed(here) - _transformed(there)) * math.sqrt(pixels) < _SURE:
        return before.given_up(REASON)
    return None


def _companies(frames: Iterable[int], places: dict[int, Array], shape: tuple[int, ...]) -> list[list[int]]:
    """Return frames, those together that lie by a small part of the field beside the first of them."""
    companies: list[list[int]] = []
    for t in frames:
        near = (c for c in companies if apart(places[c[0]], places[t], shape) < _COMPANY * min(shape))
        company = next(near, None)
        if company is None:
            companies.append([t])
        else:
            company.append(t)
    return companies


def _of_others(run: RunState, frames: list[int]) -> Any:
    """Return the mean of some frames as a template."""
    image = last_value(mean_in_place(run, frames))
    return run.aligner.prepare(
        np.asarray(image, np.float32), None, noise=run.details.get("noise"), frames=float(len(frames))
    )


def _transformed(result: PairResult) -> float:
    return math.atanh(min(max(result.correlation, 0.0), 0.9999))
