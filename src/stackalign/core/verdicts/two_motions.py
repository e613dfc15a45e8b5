"""Two motions in one movie: the larger part of the field is the scene, not what has the most contrast.

Something that walks through a faint scene outweighs it in every correlation, and no block of the scene is clear enough
to contradict in one frame. Three questions, each asked only if the one before is answered with yes: does most of what
fixes the motion lie in a small part of the field? Does the rest change more than noise lets it, once the frames are
aligned? Aligned on its own, with that part left out of every frame, does the rest move otherwise, and does a larger
area look like it (evidence of all cells of the field, summed over several frames)?
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.holes import filled_smoothly
from stackalign.core.frames.reduction import binned, reduced, reduction
from stackalign.core.generators import moved_points
from stackalign.core.geometry import corners
from stackalign.core.references.draft import drafted
from stackalign.core.references.reference import PairResult
from stackalign.core.run_state import RunState, spread
from stackalign.core.verdicts.agreement import noise_variance
from stackalign.core.warping.resample import warp_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from stackalign.core.work import Work

    Array = NDArray[np.float64]
    Again = Callable[[RunState], Work[None]]

_CELLS = {2: 12, 3: 6}  # along each axis
_WIDE = {2: 48, 3: 12}  # pixels along each axis, at least
_COMPARED = {2: 64, 3: 48}  # pixels along an axis of the images that are compared
_MOST, _COMPACT = 0.8, 0.42  # of what fixes the motion; the share of the field that holds it, where it is compact
_FOLLOWED = 0.9  # of what fixes the motion: the cells that hold it are left out
_CLEAR = 3.0  # standard deviations of what noise adds to a cell
_HALF = 0.5  # of the field: what is left out must be less
_COMPANY = 3  # neighbours of a cell, with itself, that must be followed as well
_FRAMES = 8  # that are looked at
_LEAST_FRAMES = 5
_CHANGED = 5.0  # variance of a cell over time, beyond which it shows more than noise, in units of the noise's
_EXACT = 0.03  # of the contrast: what interpolation of reduced frames may change
_SHARE = 0.5  # of the other cells that must have changed
_FOUND = 0.6  # of the frames whose rest must be found
_APART = 1.0  # px at the corners between two motions that differ
_MOVES = 3.0  # standard errors that the rest must move by, beyond a share of the other motion
_SURE = 3.0  # standard deviations by which a cell of a frame must look more like one motion
_DIFFERS = 0.15  # of the contrast of the scene, by which the mean of a cell must differ to show something else
_STRANGE = 0.12  # of the cells in view that may show something else
_LARGER = 1.2  # times as many cells that look like the rest as like what was followed
_FIELD = 0.2  # of the field that must look like the rest
REASON = "the larger part of the field moves otherwise than what has the most contrast, and was not found in it"


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """A sample of a run, reduced: frames with what they lack of brightness, and where they lie."""

    shape: tuple[int, ...]
    factors: tuple[int, ...]
    frames: dict[int, NDArray[np.float32]]
    noise: dict[int, float]


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
    followed = compact(np.asarray(image, np.float32))
    if followed is None:
        return
    sample = spread(good.tolist(), _FRAMES)
    view = _seen(run, sample)
    if not _restless(run, view, followed):
        return
    twin, most = None, 0
    for starts in (yield from _starts(run, followed)):
        other = yield from _without(run, followed, starts, again)
        if other is None or not _independent(run, other):
            continue
        area, rest = _areas(run, other, view)
        if rest > max(_LARGER * area, _FIELD * followed.size, most):
            twin, most = other, rest
    if twin is not None:
        run.hidden, run.details = twin.hidden, twin.details
        image = binned(np.asarray(twin.details["reference"], np.float32), view.factors)
        for t, result in enumerate(twin.results):
            if result is None:
                result = PairResult.failed(run.stack.ndim, REASON)
            elif not result.reason and _unlike(twin, t, image, view.factors):
                result = replace(PairResult.failed(run.stack.ndim, REASON), matrix=result.matrix)
            run.results[t] = result
            yield run.progress(t + 1, len(run.results), "Comparing frames with the larger part of the field")


def _starts(run: RunState, followed: NDArray[np.bool_]) -> Work[list[dict[int, Array]]]:
    """Return where frames may begin once what was followed is left out: where they are found so, or at rest.

    A search places faint frames roughly, and their mean holds them there: what hardly moves is better begun at rest.
    """
    rest = dict.fromkeys(run.usable(), np.eye(run.stack.ndim + 1))
    twin = _hidden(run, followed)
    try:
        found = yield from drafted(twin)
    except ValueError:  # no reference can be made of what is left
        return [rest]
    return [found, rest] if len(found) >= _FOUND * run.good().sum() else [rest]


def _hidden(run: RunState, followed: NDArray[np.bool_]) -> RunState:
    """Return the run anew, without what was followed."""
    twin = RunState(run.stack, run.aligner, run.policy, run.anchor, None, unusable=dict(run.unusable))
    twin.hidden = _hiding(run, followed)
    return twin


def _without(
    run: RunState, followed: NDArray[np.bool_], starts: dict[int, Array], again: Again
) -> Work[RunState | None]:
    """Return the run aligned without what was followed; None if too little is left."""
    twin = _hidden(run, followed)
    twin.starts = starts
    try:
        yield from again(twin)
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
    factors = reduction(image.shape, _COMPARED[image.ndim] // 2)
    small = binned(image, factors)
    slopes = np.gradient(small)
    noise = image.ndim / 2 * noise_variance(image) / float(np.prod(factors))
    power = np.sum(np.square(slopes), axis=0) - noise
    cell, n = _cells(small.shape), _CELLS[image.ndim] ** image.ndim
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
    out = np.zeros(n, bool)
    out[order[: int(np.searchsorted(part, _FOLLOWED)) + 1]] = True
    out = _whole(out.reshape((_CELLS[image.ndim],) * image.ndim))
    return out if out.mean() < _HALF else None


def _whole(cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return cells without those that stand alone, and with what they enclose."""
    from scipy import ndimage

    near = np.ones((3,) * cells.ndim)
    cells = cells & (ndimage.convolve(cells.astype(np.uint8), near, output=np.int64, mode="constant") > _COMPANY)
    padded = np.pad(cells, 2)  # closing must not eat what touches the border
    closed = ndimage.binary_closing(padded, near, iterations=2)[(slice(2, -2),) * cells.ndim] | cells
    return np.asarray(ndimage.binary_fill_holes(closed), bool)


def _cells(shape: Sequence[int]) -> NDArray[np.intp]:
    """Return the number of the cell of each pixel."""
    n = _CELLS[len(shape)]
    out = np.zeros(shape, np.intp)
    for axis, size in enumerate(shape):
        along = np.arange(size) * n // size
        out = out * n + along.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return out


def _seen(run: RunState, sample: Sequence[int]) -> _View:
    """Read and reduce the frames of a sample, in the brightness of the reference."""
    factors = reduction(run.stack.frame_shape, _COMPARED[run.stack.ndim])
    frames, noise = {}, {}
    for t in sample:
        frames[t], noise[t] = _reduced_frame(run, t, factors)
    return _View(run.stack.frame_shape, factors, frames, noise)


def _reduced_frame(run: RunState, t: int, factors: tuple[int, ...]) -> tuple[NDArray[np.float32], float]:
    """Return a frame, reduced and in the brightness of the reference, and the variance of its noise then."""
    frame, result = run.load(t), run.results[t]
    assert result is not None
    small = (binned(frame, factors) - np.float32(result.offset)) / np.float32(result.gain)
    return small, noise_variance(frame) / result.gain**2 / float(np.prod(factors))


def _laid(view: _View, run: RunState, t: int) -> NDArray[np.float32]:
    """Return a frame of a view on the grid of the reference."""
    result, small = run.results[t], view.frames[t]
    assert result is not None
    return warp_frame(small, reduced(result.matrix, view.factors), order=3, fill="nan", output_shape=small.shape)


def _restless(run: RunState, view: _View, followed: NDArray[np.bool_]) -> bool:
    """Return whether most cells that are not followed change by more than noise."""
    laid = np.stack([_laid(view, run, t) for t in view.frames])
    count = np.isfinite(laid).sum(0)
    mean = np.where(count > 1, np.nansum(laid, 0) / np.maximum(count, 1), np.nan)
    if not count.max() > 1:
        return False
    least = (_EXACT * float(np.nanstd(mean))) ** 2
    cell, n = _cells(mean.shape), followed.size
    change, seen = np.zeros(n), np.zeros(n)
    for image, noise in zip(laid, view.noise.values(), strict=True):
        known = np.isfinite(image) & np.isfinite(mean)
        rest = image - mean
        pixels = np.bincount(cell[known], minlength=n)
        total = np.bincount(cell[known], rest[known], n)
        enough = pixels > 0.5 * known.size / n
        change += np.where(enough, total**2 / np.maximum(pixels, 1) / max(noise + least, 1e-30), 0)
        seen += enough
    asked = ~followed.ravel() & (seen > 2)
    return bool(asked.sum() > 0.25 * n and (change[asked] > _CHANGED * (seen[asked] - 1)).mean() > _SHARE)


def _hiding(run: RunState, followed: NDArray[np.bool_]) -> Callable[[int, NDArray[Any]], NDArray[Any]]:
    """Return what hides the followed part of a frame, where that was found."""
    places = {t: r.matrix for t, r in enumerate(run.results) if r is not None and not r.reason}
    shape = run.stack.frame_shape
    planar = len(shape) == 2

    def hidden(t: int, frame: NDArray[Any]) -> NDArray[Any]:
        if t not in places:
            return frame
        image = np.array(frame, np.float32)
        if planar:
            from stackalign.core.verdicts.consensus_kernels import punch

            punch(image, np.asarray(places[t], float), followed, np.asarray(shape, np.int64))
            return image
        image[warp_frame(_enlarged(followed, shape), np.linalg.inv(places[t]), order=0) > 0] = np.nan
        return image

    return hidden


def _enlarged(cells: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return cells as an image of a shape."""
    return cells.ravel()[_cells(shape)].astype(np.uint8)


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


def _areas(run: RunState, twin: RunState, view: _View) -> tuple[int, int]:
    """Return how many cells of the scene that either motion follows look like that motion, summed over the frames.

    Both scenes are laid on each frame, and the squares of what they leave are compared: where the frame is one of them
    and noise, the difference is normal, with a variance of four times that of the noise times the squared distance of
    the scenes.
    """
    runs = (run, twin)
    images = [np.asarray(r.details["reference"], np.float32) for r in runs]
    share = max(noise_variance(image) for image in images) / float(np.prod(view.factors))
    small = [binned(image, view.factors) for image in images]
    n = _CELLS[len(view.shape)] ** len(view.shape)
    gains, variances = np.zeros((2, n)), np.zeros((2, n))
    for t, frame in view.frames.items():
        one, other = (r.results[t] for r in runs)
        if one is None or other is None or other.reason:
            continue
        left, cells = [], []
        for image, result in zip(small, (one, other), strict=True):
            matrix = reduced(result.matrix, view.factors)
            bright = result.gain / one.gain, (result.offset - one.offset) / one.gain  # in that of the view
            left.append(
                frame - (_laid_back(image, matrix, frame.shape) * np.float32(bright[0]) + np.float32(bright[1]))
            )
            cells.append(_cells_at(image.shape, matrix, frame.shape))
        known = np.isfinite(left[0]) & np.isfinite(left[1])
        gain, apart = left[0] ** 2 - left[1] ** 2, (left[0] - left[1]) ** 2
        for k, cell in enumerate(cells):
            inside = known & (cell >= 0)
            gains[k] += np.bincount(cell[inside], gain[inside], n)
            variances[k] += 4 * (view.noise[t] + share) * np.bincount(cell[inside], apart[inside], n)
    sure = gains / np.sqrt(np.maximum(variances, 1e-30))
    return int((sure[0] < -_SURE).sum()), int((sure[1] > _SURE).sum())


def _unlike(run: RunState, t: int, image: NDArray[np.float32], factors: tuple[int, ...]) -> bool:
    """Return whether a frame shows something else than a reduced reference where most cells of that are in view."""
    result, (small, noise) = run.results[t], _reduced_frame(run, t, factors)
    assert result is not None
    rest = small - _laid_back(image, reduced(result.matrix, factors), small.shape)
    known = np.isfinite(rest)
    cell, n = _cells(small.shape), _CELLS[small.ndim] ** small.ndim
    pixels = np.bincount(cell[known], minlength=n)
    mean = np.bincount(cell[known], rest[known], n) / np.maximum(pixels, 1)
    limit = np.maximum(_SURE * np.sqrt(noise / np.maximum(pixels, 1)), _DIFFERS * float(np.nanstd(image)))
    asked = pixels > 0.5 * small.size / n
    return not asked.any() or bool((np.abs(mean) > limit)[asked].mean() > _STRANGE)


def _laid_back(image: NDArray[np.float32], matrix: Array, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return a reference on the grid of a frame that lies at ``matrix``; NaN where it is not known."""
    known, back = np.isfinite(image), np.linalg.inv(matrix)
    laid = warp_frame(filled_smoothly(image, known), back, order=3, fill="nan", output_shape=shape)
    laid[warp_frame(known.astype(np.uint8), back, order=0, output_shape=shape) == 0] = np.nan
    return laid


def _cells_at(scene: tuple[int, ...], matrix: Array, shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Return the cell of a scene that each pixel of a frame lies on; -1 beyond it."""
    n = _CELLS[len(shape)]
    lattice = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, len(shape))
    places = np.rint(moved_points(matrix, lattice.astype(float))).astype(np.intp)
    inside = ((places >= 0) & (places < scene)).all(-1)
    number = np.ravel_multi_index(tuple((np.clip(places, 0, np.array(scene) - 1) * n // scene).T), (n,) * len(shape))
    return np.where(inside, number, -1).reshape(shape)
