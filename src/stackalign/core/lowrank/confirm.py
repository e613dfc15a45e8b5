"""Frames that may lie anywhere: confirmed by what the others show there, or given up.

A search over all shifts always finds a place, also for a frame that shows nothing of what the others do; and where a
place is shown by few frames, a wrong one fits the low-rank image because it is part of it. Where light is so little
that the low-rank image is mostly the noise of the frames, all of them fit it wherever they lie. So each frame is
compared with the mean of the others only, and must be found again where it lies, far more clearly than anywhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.frames.holes import filled_from_nearest
from stackalign.core.generators import moved_points
from stackalign.core.geometry import centre
from stackalign.core.lowrank.placing import Placed, weighed
from stackalign.core.lowrank.rescue import quiet
from stackalign.core.lowrank.solution import UNPLACED
from stackalign.core.search.correlation import prepare_search, search
from stackalign.core.threads import map_ahead
from stackalign.core.work import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.lowrank.state import State
    from stackalign.core.work import Work

    Floats = NDArray[np.float32]

_FAR = 0.1  # of the field, from the median frame
_MANY = 0.25  # of the frames that lie so far: then those near the median may be there by chance, too
_NOISY = 0.3  # share of noise in the squared slopes of the low-rank image: then it holds frames by their own noise
_CLEAR = 5.5  # standard deviations of the correlations at all shifts: random images reach less
_CLEARER = 1.6  # times the next peak
_REST = 1.5  # reduced pixels between the peak and where the frame lies
_FINE, _COARSE = 0.7, 3.0  # reduced pixels: shades correlate everywhere, and single pixels are noise
_LEAST_OVERLAP = 0.15


def confirmed(state: State) -> Work[list[int]]:
    """Give up doubtful frames that the others do not confirm; what is left of these is asked again.

    Returns
    -------
    list of int
        Frames that have lost their place.
    """
    lost: list[int] = []
    asked = state.present if _noise_share(state) > _NOISY else _far(state)
    while asked and len(state.present) > 1:
        yield Progress(0, 1, "Joint alignment: do the others confirm where a frame lies?")
        clear = _clearness(state, asked)
        # the least sure first: it may be what contradicts the others
        worst = sorted((k for k in asked if clear[k] < 1), key=clear.__getitem__)
        worst = worst[: max(len(worst) // 2, 1)][: len(state.present) - 1]
        if not worst:
            break
        for k in worst:
            state.matrices[k] = np.nan
            state.trouble[k] = UNPLACED
        lost += worst
        asked = [k for k in asked if k not in worst]
    return lost


def _noise_share(state: State) -> float:
    """Return the share of the squared slopes of the low-rank image that the noise of the frames accounts for."""
    there, inside = state.present, state.images.known > 0
    sigma = state.scale[there]
    if not inside.any() or not np.isfinite(sigma).any():
        return 0.0
    shares = []
    for image, taken in zip(state.images.basis, state.coefficients[there].T, strict=True):
        filled = filled_from_nearest(image, inside)
        slopes = (np.gradient(filled, axis=axis)[inside] for axis, n in enumerate(image.shape) if n > 1)
        steep = float(np.mean([np.square(slope).mean() for slope in slopes]))
        variance = float(np.nanmedian(sigma)) ** 2 / max(float(np.sum(taken**2)), 1e-30)
        # central differences halve the variance
        shares.append(variance / 2 / steep if steep > 0 else 0.0)
    return max(shares)


def _far(state: State) -> list[int]:
    """Return the frames that lie far from most; all frames if they are many."""
    there, shape = state.present, state.level.shape
    middle = centre(shape)[None]
    places = moved_points(state.matrices[there], middle)[:, 0]
    away = (np.abs(places - np.median(places, axis=0)) / np.asarray(shape)).max(axis=1)
    far = [k for k, share in zip(there, away, strict=True) if share > _FAR]
    return there if len(far) > _MANY * len(there) else far


def _clearness(state: State, asked: Sequence[int]) -> dict[int, float]:
    """Return how clearly each frame is found where it lies on the mean of the others; below 1: not clearly."""
    there = state.present
    weight, total, shown = np.zeros((3, *state.level.volume), np.float32)
    for _, own in map_ahead(lambda k: _shown(state, k), there):
        for sum_, part in zip((weight, total, shown), own, strict=True):
            sum_ += part

    def ask(k: int) -> float:
        image, (w, f, n) = _shown(state, k)
        others = (shown - n >= 1) & (weight - w > 1e-3)
        mean = np.where(others, (total - f) / np.where(others, weight - w, 1), np.float32(np.nan))
        return _found(quiet(image, mean).reshape(state.level.shape), mean.reshape(state.level.shape))

    return dict(zip(asked, map_ahead(ask, asked), strict=True))


def _shown(state: State, k: int) -> tuple[Floats, Floats]:
    """Return a frame where it lies, NaN outside its field, and its robust weights, with it and without, and field."""
    level, images = state.level, state.images
    place = Placed(state.matrices[k], state.coefficients[k])
    seen, own = images.compare([level.frame(k)], [place.matrix]), images.new_totals(1)
    (placed,) = weighed(state, seen, [0], [place])
    if isinstance(placed, str):
        return np.full(level.volume, np.nan, np.float32), images.weights(own)
    seen.add([0], [placed.matrix], [np.ones(1)], [placed.limit], own)
    return seen.seen(0), images.weights(own)


def _found(image: Floats, mean: Floats) -> float:
    """Return how clearly an image correlates best with another at rest, in units of what is clear; 0 if elsewhere."""
    known, others = np.isfinite(image), np.isfinite(mean)
    if (known & others).sum() < 50:
        return 0.0
    peak = search(
        _detail(image, known), known, prepare_search(_detail(mean, others), others, min_overlap=_LEAST_OVERLAP)
    )
    if not np.isfinite(peak.significance) or np.abs(peak.shift).max() > _REST:
        return 0.0
    return min(peak.significance / _CLEAR, peak.significance / max(_CLEARER * peak.runner_up, 1e-12))


def _detail(image: Floats, known: NDArray[np.bool_]) -> Floats:
    """Return an image without its shades and its single pixels, 0 where it is not known."""
    from scipy.ndimage import gaussian_filter

    there = known.astype(np.float32)
    filled = np.where(known, image, np.float32(0))

    def smooth(sigma: float) -> Floats:
        return np.asarray(gaussian_filter(filled, sigma) / np.maximum(gaussian_filter(there, sigma), 1e-3), np.float32)

    return np.where(known, smooth(_FINE) - smooth(_COARSE), np.float32(0))
