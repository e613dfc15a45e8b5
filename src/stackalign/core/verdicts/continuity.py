"""Frames that were found on the wrong part of the reference: told by comparing them with their neighbours directly.

A scene that has drifted out of the reference's view may still correlate with some other part of it (one bright star on
another). Such a frame seems to jump, while a direct comparison with the frame before shows a small step.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.generators import moved_points
from stackalign.core.geometry import corners
from stackalign.core.references.chained import pair
from stackalign.core.verdicts.consensus import FOLLOWED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from stackalign.core.references.reference import PairResult
    from stackalign.core.run_state import RunState
    from stackalign.core.work import Work

    Compare = Callable[[int, int], PairResult]  # frame, onto which

_LEAST = 3.0  # px: shorter steps are never doubted
_LONG = 6.0  # times the median step: such a step is doubted
_SURE = 0.7  # confidence of the direct comparison from which it is believed
REASON = "it was found on another part of the reference than its neighbours say"


def doubt(run: RunState) -> Work[None]:
    """Give up frames whose neighbours contradict where they were found; `rescue` then chains them to those."""
    if run.policy.kind in ("previous", "all-pairs"):
        return
    found = {t: r for t, r in enumerate(run.results) if r is not None and not r.reason}
    home = run.policy.frame if run.policy.kind == "frame" else min(found, default=0)
    trusted = home if run.policy.kind in ("frame", "rolling") else None
    for t in contradicted(found, run.stack.frame_shape, lambda t, onto: pair(run, t, onto), trusted):
        run.results[t] = found[t].given_up(REASON)
    yield run.progress(len(found), len(found), "Comparing neighbours")


def followed_others(run: RunState) -> tuple[int, int, int]:
    """Return how many frames were found, and lost, and how many of these followed something else than the scene.

    That is what neighbours say, or blocks of the field.
    """
    lost = [r for t in run.usable() if (r := run.results[t]) is not None and r.reason]
    return len(run.places()), len(lost), sum(followed_another(r) for r in lost)


def followed_another(result: PairResult) -> bool:
    """Return whether a frame was found, and given up as it followed something else than the scene."""
    return result.reason == REASON or result.reason.endswith(FOLLOWED)


def contradicted(
    found: Mapping[int, PairResult], shape: tuple[int, ...], compare: Compare, trusted: int | None = None
) -> list[int]:
    """Return the frames whose place does not agree with that of the others.

    Parameters
    ----------
    found : mapping of int to PairResult
        Frames in order of time, with where they were found.
    shape : tuple of int
        Of a frame.
    compare : callable
        Aligns a frame to another one directly; asked only where a step is far longer than usual.
    trusted : int, optional
        Frame whose place is right; else the places of most frames are.
    """
    frames = sorted(found)
    if len(frames) < 2:
        return []
    points = corners(shape)
    places = moved_points(np.array([found[t].matrix for t in frames]), points)
    steps = np.sqrt((np.diff(places, axis=0) ** 2).sum(-1).mean(-1)).tolist()
    limit = max(_LEAST, _LONG * float(np.median(steps)))
    groups = [[frames[0]]]
    for (a, b), step in zip(pairwise(frames), steps, strict=True):
        if step > limit and _jumps(found[a], found[b], compare(b, a), step, points):
            groups.append([b])
        else:
            groups[-1].append(b)
    if trusted is not None and any(trusted in group for group in groups):
        kept = next(group for group in groups if trusted in group)
    else:
        kept = max(groups, key=lambda group: sum(found[t].confidence for t in group))
    return [t for group in groups if group is not kept for t in group]


def _jumps(a: PairResult, b: PairResult, direct: PairResult, step: float, points: NDArray[np.float64]) -> bool:
    """Return whether the direct comparison of two frames shows that they cannot lie as far apart as they seem to."""
    if direct.reason or direct.confidence < _SURE:
        return False
    told = _apart(np.eye(len(direct.matrix)), direct.matrix, points)
    gap = _apart(a.matrix @ direct.matrix, b.matrix, points)
    return told < 0.5 * step and gap > _LEAST


def _apart(a: NDArray[np.float64], b: NDArray[np.float64], points: NDArray[np.float64]) -> float:
    """Return the rms distance of the corners of two frames that lie at ``a`` and ``b``, pixels."""
    return float(np.sqrt(((moved_points(a, points) - moved_points(b, points)) ** 2).sum(-1).mean()))
