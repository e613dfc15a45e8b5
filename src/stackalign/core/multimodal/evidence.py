"""Collect what speaks for and against a place: shifted copies, rivals, exchanged roles, restarts, families."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.reduction import reduced
from stackalign.core.multimodal.corners import corner_distance
from stackalign.core.multimodal.judge import PLACE_SIDE, Evidence
from stackalign.core.multimodal.places import disturbed, improved, inverse, thinned
from stackalign.core.multimodal.refine import ALIKE
from stackalign.core.threads import map_threads
from stackalign.core.transform import TransformModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.multimodal.places import Noisy, Place
    from stackalign.core.multimodal.views import Views

    Array = NDArray[np.float64]

_DISTANCES = (0.12, 0.18, 0.24, 0.3)  # of shifted copies, as shares of what is in view
_SIDE = 22  # px: of a block, if so many lie along each axis of what both show:
_FEWEST, _MOST = 6, 10
_WINDOW = 8  # px: how far around its place a block is looked for
_SHOWN = 0.8  # of a block that both must show
_CLEAR = 0.9  # a shift that fits a block tells only if no other reaches this share of its score
_BETWEEN = 0.2  # rad, and of the logarithm of a scale: reached from one that is searched


def collected(
    views: Views,
    best: Place,
    rivals: Sequence[Place],
    heights: Sequence[float],
    top: int,
    bottom: int,
    model: TransformModel,
    families: Sequence[slice],
    rng: np.random.Generator,
    side: float,
    least_overlap: float,
    searched: tuple[float, int],
    noisy: Noisy | None = None,
    second: Views | None = None,
) -> Evidence:
    """Collect what speaks for and against the best place; ``noisy`` and ``second`` as in `match`."""
    full = views.shapes(0)[1]
    judged = min(bottom + 1, top)
    options: dict[str, Any] = {"model": model, "least_overlap": least_overlap, "levels": 2, "step": 2}
    compared = _compared(views, best.matrix, noisy)
    above, spread = _above_shifted(*compared, bottom, least_overlap)
    told = agreement(*compared, bottom)
    # what shows relief is seen by the features that noise does not make alike everywhere
    relief = told if second is None else agreement(*_compared(second, best.matrix, noisy), bottom)
    far = [corner_distance(p.matrix, best.matrix, full) > 0.1 * side for p in rivals]
    here = max((v for v, apart in zip(heights, far, strict=True) if not apart), default=best.value)
    rival = max((v for v, apart in zip(heights, far, strict=True) if apart), default=0.0) / max(here, 1e-3)
    starts = [disturbed(best.matrix, full, rng, 0.04, model) for _ in range(3)]
    trials: list[tuple[Views, Array, slice | None]] = [
        *((views, start, None) for start in starts),
        *((views, best.matrix, family) for family in families),
    ]
    if noisy is None:  # else roles cannot be exchanged: slopes of noise lead nowhere
        trials.append((views.swapped(), inverse(starts[0]), None))

    def end(trial: tuple[Views, Array, slice | None]) -> Place | None:
        place = improved(trial[0], trial[1], judged, channels=trial[2], noisy=noisy, **options)
        if place is None or judged == bottom:
            return place
        # what half of the resolution tells differs by more than right places do
        return improved(
            trial[0], place.matrix, bottom, channels=trial[2], noisy=noisy, model=model, least_overlap=least_overlap,
            step=thinned(trial[0], bottom),
        )  # fmt: skip

    ended = map_threads(end, trials)
    restarts = float(np.median([_apart(best.matrix, p and p.matrix, full) for p in ended[: len(starts)]]))
    alone = ended[len(starts) : len(starts) + len(families)]
    exchanged = ended[-1]
    if second is not None:
        alone.append(improved(second, best.matrix, judged, **options))
    return Evidence(
        score=best.fit.score,
        chance=above / spread,
        rival=float(max(rival, 0.0)),
        inverse=restarts if noisy else _apart(best.matrix, exchanged and inverse(exchanged.matrix), full),
        restarts=restarts,
        subsets=max((_apart(best.matrix, p and p.matrix, full) for p in alone), default=np.inf),
        spread=best.fit.spread * 2**bottom,
        overlap=best.fit.overlap,
        size=side,
        places=searched[0],
        dimensions=searched[1],
        blocks=told.blocks,
        agreeing=told.agreeing,
        accident=told.accident,
        together=relief.together,
        freedom=max(model.parameters(2) - searched[1], 0),
    )


def places_searched(
    shapes: tuple[tuple[int, int], tuple[int, int]],
    max_shift: float | None,
    angles: Sequence[float],
    scales: Sequence[float],
    model: TransformModel,
) -> tuple[float, int]:
    """Return how many places, far enough apart to differ, the best one was chosen from, and of how many dimensions."""
    area = float(np.prod(shapes[0]))
    if max_shift is not None:
        area = min(area, np.pi * max_shift**2)
    count, dimensions = max(area / PLACE_SIDE**2, 1.0), 2
    arm = float(np.hypot(*shapes[1])) / np.sqrt(12)  # root mean square distance of a pixel from the middle
    spans = []
    if model.rank >= TransformModel.EUCLIDEAN.rank:
        spans.append(float(np.ptp(angles)) + _BETWEEN)
    if model.rank >= TransformModel.SIMILARITY.rank:
        spans.append(float(np.ptp(np.log(scales))) + _BETWEEN)
    for span in spans:
        count *= max(span * arm / PLACE_SIDE, 1.0)
    return count, dimensions + len(spans)


def height(views: Views, place: Place, level: int, least_overlap: float, noisy: Noisy | None = None) -> float:
    """Return the score above that of shifted copies, times the root of the overlap: what fits anywhere fits nowhere."""
    above, _ = _above_shifted(*_compared(views, place.matrix, noisy), level, least_overlap, turns=8, sampled=60)
    return above * float(np.sqrt(np.clip(place.fit.overlap, 0, 1)))


def _above_shifted(
    views: Views, matrix: Array, level: int, least_overlap: float, *, turns: int = 24, sampled: int = 100
) -> tuple[float, float]:
    """Return by how much the score lies above the mean of those of shifted copies, and their standard deviation."""
    from stackalign.core.multimodal.evidence_kernels import shifted_scores

    shape = views.shapes(level)[0]
    fixed, moved = views.fixed(level), views.moved(level, reduced(matrix, (2**level, 2**level)), shape)
    reach = float(np.sqrt(max(moved.known, 1)))
    angles = np.arange(turns) * 2 * np.pi / turns
    around = np.stack([np.sin(angles), np.cos(angles)], -1)
    shifts = np.concatenate([np.zeros((1, 2)), *(distance * reach * around for distance in _DISTANCES)])
    step = max(int(reach / sampled), 1)  # so many pixels along a side are enough
    least = 0.5 * least_overlap * min(moved.known, fixed.known)
    scores = shifted_scores(
        fixed.values, moved.values, fixed.weight, moved.weight, np.round(shifts).astype(np.int64), least, step
    )
    here, wrong = scores[0], scores[1:][scores[1:] > -1]
    if len(wrong) < 6:
        return 0.0, 1.0
    # those of images without any structure scatter as much; less is seen where sparse structure misses itself
    least = float(np.sqrt(ALIKE)) / reach
    return float(here - np.mean(wrong)), max(float(np.std(wrong, ddof=1)), least)


@dataclass(frozen=True, slots=True)
class Agreement:
    """What blocks say of a place.

    Attributes
    ----------
    blocks, agreeing, accident
        As of `Evidence`.
    together : float
        Share of neighbouring blocks that belong elsewhere both, by the same shift to a pixel.
    """

    blocks: int = 0
    agreeing: int = 0
    accident: float = 1.0
    together: float = 0.0


def agreement(views: Views, matrix: Array, level: int) -> Agreement:
    """Return how many blocks tell where they belong, how many of them lie there, and what the others say.

    A block tells if one shift fits it clearly better than all others; it lies there if that is a pixel at most.
    """
    from stackalign.core.multimodal.evidence_kernels import block_peaks

    shape = views.shapes(level)[0]
    fixed, moved = views.fixed(level), views.moved(level, reduced(matrix, (2**level, 2**level)), shape)
    both = (fixed.weight > 0) & (moved.weight > 0)
    extent = float(np.sqrt(both.sum()))
    side = max(int(np.clip(_SIDE, extent / _MOST, extent / _FEWEST)), 10)
    if min(shape) < side:
        return Agreement()
    rows, columns = (n // side for n in shape)
    cells = both[: rows * side, : columns * side].reshape(rows, side, columns, side).mean((1, 3))
    where = np.argwhere(cells > _SHOWN).astype(np.int64)
    step = max(side // 12, 1)
    shifts, tops, tried = block_peaks(
        fixed.values, moved.values, fixed.weight, moved.weight, where * side, side, _WINDOW, 2, 0.6, step
    )
    tell = (tops[:, 1] < _CLEAR * tops[:, 0]) & (tops[:, 1] > -1)
    if not tell.any():
        return Agreement()
    there = tell & (np.abs(shifts).max(1) <= 1)
    together = _together(where[tell], shifts[tell])
    return Agreement(int(tell.sum()), int(there.sum()), float(np.mean(9 / tried[tell])), together)


def _together(where: NDArray[np.int64], shifts: NDArray[np.int64]) -> float:
    """Return the share of neighbours among blocks that belong elsewhere, both by the same shift to a pixel."""
    first, second = np.nonzero(np.triu(np.abs(where[:, None] - where).max(-1) == 1))
    if not len(first):
        return 0.0
    away = np.abs(shifts).max(1) > 1
    same = np.abs(shifts[first] - shifts[second]).max(1) <= 1
    return float((away[first] & away[second] & same).mean())


def _compared(views: Views, matrix: Array, noisy: Noisy | None) -> tuple[Views, Array]:
    """Return the views and the motion of the image that is laid on the one on whose pixels both are compared."""
    return (views.swapped(), inverse(matrix)) if noisy == "moving" else (views, matrix)


def _apart(first: Array, second: Any, shape: tuple[int, int]) -> float:
    if second is None:
        return float("inf")
    distance = float(corner_distance(first, second, shape))
    return distance if np.isfinite(distance) else float("inf")
