"""Two motions in one movie: the larger part of the field is the scene, not what has the most contrast.

Something that walks through a faint scene outweighs it in every correlation, and no block of the scene is clear enough
to contradict in one frame. Three questions, each asked only if the one before is answered with yes: does most of what
fixes the motion lie in a small part of the field? Does the rest change more than noise lets it, once the frames are
aligned? Aligned on its own, with that part left out of every frame, does the rest move otherwise, and does a larger
area look like it (evidence of all cells of the field, summed over several frames)?
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.reduction import binned, reduction
from stackalign.core.generators import moved_points
from stackalign.core.geometry import corners
from stackalign.core.references.draft import SAMPLE, drafted
from stackalign.core.references.mean_image import mean_in_place
from stackalign.core.references.reference import PairResult
from stackalign.core.run_state import RunState, align_all, spread
from stackalign.core.verdicts.agreement import noise_variance
from stackalign.core.verdicts.cell_evidence import COMPARED, ReducedScene, View, areas, restless, unlike
from stackalign.core.verdicts.cells import CELLS, cell_numbers, hiding, in_one_piece, over_pixels
from stackalign.core.verdicts.joining import join
from stackalign.core.verdicts.outline import outlined

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stackalign.core.verdicts.outline import Outline
    from stackalign.core.work import Work

    Array = NDArray[np.float64]
    Again = Callable[[RunState], Work[None]]

_WIDE = {2: 48, 3: 12}  # pixels along each axis, at least
_MOST, _COMPACT = 0.8, 0.42  # of what fixes the motion; the share of the field that holds it, where it is compact
_FOLLOWED = (0.9, 0.8)  # of what fixes the motion: the cells that hold it are left out; less where that were too many
_CLEAR = 3.0  # standard deviations of what noise adds to a cell
_CLEARER = 0.02  # of correlation, by which a place must fit better than the one that was begun from
_HALF = 0.5  # of the field: what is left out must be less
_FRAMES = 8  # that are looked at
_LEAST_FRAMES = 5
_FOUND = 0.6  # of the frames whose rest must be found
_APART = 1.0  # px at the corners between two motions that differ
_MOVES = 3.0  # standard errors that the rest must move by, beyond a share of the other motion
_LARGER = 1.2  # times as many cells that look like the rest as like what was followed
_SIMILAR = 0.8  # times as many, from which on its outline decides
_WIDEST = 0.6  # of the field, with what cannot be told: no more of it is hidden
_SMALLER = 0.42  # of the field: what was followed must cover less then
_KEPT = 0.8  # of the frames that must be found with a closer outline
_ALIKE = 0.02  # of the field, in which two outlines of it differ that are one
_OUTLINES = 3  # times that what was followed is outlined: more of the scene is known then
_FIELD = 0.2  # of the field that must look like the rest
REASON = "the larger part of the field moves otherwise than what has the most contrast, and was not found in it"


def settle(run: RunState, again: Again) -> Work[None]:
    """Place the frames by the larger part of the field, where what was followed is the smaller one.

    Parameters
    ----------
    run : RunState
        Aligned; its results, its details and what it hides of frames are replaced if the rest of the field decides.
    again : callable
        Aligns the frames of a run.
    """
    good = np.flatnonzero(run.good())
    image = run.details.get("reference")
    if (
        len(good) < _LEAST_FRAMES
        or image is None
        or run.mask is not None
        or min(run.stack.frame_shape) < _WIDE[run.stack.ndim]
    ):
        return
    image = np.asarray(image, np.float32)
    followed = compact(image)
    if followed is None:
        return
    sample = spread(good.tolist(), _FRAMES)
    view = View.of(run, sample)
    if not restless(run, view, followed):
        return
    small = yield from _followed(run, image, followed)
    good = np.flatnonzero(small.good())
    if len(good) < _LEAST_FRAMES:
        return
    view = View.of(small, spread(good.tolist(), _FRAMES))
    twin, best, unsure = None, (False, 0), 0
    for starts in (yield from _starts(small, followed)):
        other = yield from _without(small, followed, starts, again)
        if other is None or not _independent(small, other):
            continue
        area, rest = areas(small, other, view)
        sure = rest > _LARGER * area
        if rest > max(_SIMILAR * area, _FIELD * followed.size) and (sure, rest) > best:
            twin, best, unsure = other, (sure, rest), 0 if sure else area
    if twin is not None:
        twin = yield from _outlined(small, twin, followed, again, unsure)
    if twin is not None:
        yield from join(twin, again)
        run.hidden, run.details = twin.hidden, twin.details
        scene = ReducedScene.of(twin, view.factors)
        for t, result in enumerate(twin.results):
            if result is None:
                result = PairResult.failed(run.stack.ndim, REASON)
            elif t in twin.unusable:
                result = PairResult.failed(run.stack.ndim, twin.unusable[t])
            elif not result.reason and unlike(twin, t, scene, view.factors):
                result = result.given_up(REASON)
            run.results[t] = result
            yield run.progress(t + 1, len(run.results), "Comparing frames with the larger part of the field")


def _followed(run: RunState, image: NDArray[np.float32], followed: NDArray[np.bool_]) -> Work[RunState]:
    """Return the run by what was followed alone, looked for in every frame: it must be hidden in all of them.

    The mean holds a smear of the rest, too. Where that outweighs, as where the rest jumped, or in frames that were
    doubted since, what was followed lies elsewhere than the frame as a whole does.
    """
    small = run.anew()
    small.results, small.details = list(run.results), run.details
    part = np.where(over_pixels(followed, image.shape), image, np.float32(np.nan))
    try:
        template = run.aligner.prepare(part, None, noise=run.details.get("noise"), frames=float(run.good().sum()))
    except ValueError:  # too little of it for a reference
        return small
    # it may lie far from where the frame does; else its place is the better start
    yield from follow(small, template, run.places(), "Looking for what has the most contrast")
    return small


def follow(run: RunState, template: Any, starts: dict[int, Array], message: str) -> Work[None]:
    """Align the frames of a run to a template from given places, or by a search where that fits clearly better."""
    yield from align_all(run, run.usable(), template, {}, message)
    searched = list(run.results)
    yield from align_all(run, run.usable(), template, starts, message)
    for t, (there, here) in enumerate(zip(searched, run.results, strict=True)):
        if there is None or there.reason:
            continue
        if here is None or here.reason or there.correlation > here.correlation + _CLEARER:
            run.results[t] = there


def _starts(run: RunState, followed: NDArray[np.bool_]) -> Work[list[dict[int, Array]]]:
    """Return where frames may begin once what was followed is left out: where they are found so, or at rest.

    A search places faint frames roughly, and their mean holds them there: what hardly moves is better begun at rest.
    """
    rest = _at_rest(run)
    twin = _hidden(run, followed)
    try:
        found = yield from drafted(twin)
    except ValueError:  # no reference can be made of what is left
        return [rest]
    return [found, rest] if len(found) >= _FOUND * run.good().sum() else [rest]


def _at_rest(run: RunState) -> dict[int, Array]:
    return dict.fromkeys(run.usable(), np.eye(run.stack.ndim + 1))


def _hidden(run: RunState, followed: NDArray[np.bool_]) -> RunState:
    """Return the run anew, without what was followed; where that was not found it would pull: such frames are out."""
    places = run.places()
    lost = {t: r.reason for t, r in enumerate(run.results) if r is not None and r.reason}
    twin = run.anew()
    twin.unusable = lost | run.unusable
    twin.hidden = hiding(places, dict.fromkeys(places, followed), run.stack.frame_shape)
    return twin


def _without(
    run: RunState, followed: NDArray[np.bool_], starts: dict[int, Array], again: Again
) -> Work[RunState | None]:
    """Return the run aligned without what was followed, and by each other; None if too little is left."""
    twin = _hidden(run, followed)
    twin.starts = starts
    try:
        yield from again(twin)
        yield from join(twin, again, doubts=False)
    except ValueError:  # no reference can be made of what is left
        return None
    return twin


def compact(image: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """Return the cells that hold most of what fixes a motion, if these are a small part of the field; else None.

    Parameters
    ----------
    image : ndarray (y, x) or (z, y, x)
        The reference; NaN do not count.

    Returns
    -------
    ndarray of bool (cells, ...) or None
    """
    factors = reduction(image.shape, COMPARED[image.ndim] // 2)
    small = binned(image, factors)
    slopes = np.gradient(small)
    noise = image.ndim / 2 * noise_variance(image) / float(np.prod(factors))
    power = np.sum(np.square(slopes), axis=0) - noise
    cell, n = cell_numbers(small.shape), CELLS[image.ndim] ** image.ndim
    known = np.isfinite(power)
    pixels = np.bincount(cell[known], minlength=n)
    there = pixels > 0
    told = np.bincount(cell[known], power[known], n)
    told[told < _CLEAR * noise * np.sqrt(2 * pixels)] = 0
    if not told.sum() > 0:
        return None
    order = np.argsort(-told)
    part = np.cumsum(told[order]) / told.sum()
    if int(np.searchsorted(part, _MOST)) + 1 > _COMPACT * there.sum():
        return None
    for share in _FOLLOWED:
        out = np.zeros(n, bool)
        out[order[: int(np.searchsorted(part, share)) + 1]] = True
        out = in_one_piece(out.reshape((CELLS[image.ndim],) * image.ndim))
        if out.mean() < _HALF:
            return out
    return None


def _outlined(
    run: RunState, twin: RunState, followed: NDArray[np.bool_], again: Again, unsure: int
) -> Work[RunState | None]:
    """Return the twin with what was followed hidden to its outline; None if that is not the smaller part of the field.

    The better the rest is aligned, the closer the outline, and the other way round. Where nearly as many cells look
    like what was followed, so that it is ``unsure``, these must lie within it, and it must be clearly smaller.
    """
    last: Outline | None = None
    for _ in range(_OUTLINES if run.stack.ndim == 2 else 0):
        outline = yield from outlined(run, twin, followed)
        if outline is None or (last is not None and (outline.covered ^ last.covered).mean() < _ALIKE):
            break
        if outline.share > _HALF:
            return None
        many = last is None and unsure > outline.share * followed.size
        if unsure and (outline.covered.mean() > _HALF or many):
            return None
        last = outline
        if outline.covered.mean() > _WIDEST:
            break
        sample = spread(list(run.places()), SAMPLE)
        mean = yield from run.counted(mean_in_place(run, sample), len(sample), "Looking for what has the most contrast")
        closer = yield from _followed(run, mean, outline.covered)
        if closer.good().sum() >= _KEPT * run.good().sum():
            run = closer
        for starts in (twin.places(), _at_rest(run)):  # with less of them in view, frames may stay in two places
            other = yield from _without(run, outline.covered, starts, again)
            if other is not None and other.good().sum() >= _KEPT * twin.good().sum():
                twin = other
                break
        else:
            break
    return twin if not unsure or (last is not None and last.share < _SMALLER) else None


def _independent(run: RunState, twin: RunState) -> bool:
    """Return whether the rest was found, elsewhere than what was followed, and moves: what rests is the camera's."""
    both = run.good() & twin.good()
    if both.sum() < max(_FOUND * run.good().sum(), _LEAST_FRAMES):
        return False
    points = corners(run.stack.frame_shape)
    one, other = (moved_points(r.matrices()[both], points) for r in (run, twin))
    one, other = (p - np.median(p, axis=0) for p in (one, other))
    away = np.sqrt(((one - other) ** 2).sum(-1).mean(-1))
    error = np.array([np.nanmax(r.error) for r, b in zip(twin.results, both, strict=True) if b and r is not None])
    limit = np.maximum(_APART, _MOVES * np.nan_to_num(error))
    if not np.median(away / limit) > 1:
        return False
    # a rest that lies between the camera and what was followed is drawn by both, and no scene of its own
    pull = float((one * other).sum() / max((one**2).sum(), 1e-12))
    own = other - pull * one
    moves = np.sqrt((own**2).sum(-1).mean(-1))
    return bool(np.sqrt((moves**2).mean()) > _MOVES * np.sqrt(2) * np.median(np.nan_to_num(error)))
