"""Find a homography from coarse to fine: candidates of a global search, refined, disturbed, thinned out, and judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.reduction import enlarged
from stackalign.core.multimodal.corners import corner_distance, offsets_of
from stackalign.core.multimodal.evidence import collected, height, places_searched
from stackalign.core.multimodal.features import FAMILIES
from stackalign.core.multimodal.judge import OTHERWISE, RIGHT, Verdict, among
from stackalign.core.multimodal.places import Noisy, Place, all_improved, distinct, disturbed, improved, settled, within
from stackalign.core.multimodal.search import search
from stackalign.core.multimodal.views import levels_of
from stackalign.core.threads import map_threads
from stackalign.core.transform import TransformModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.multimodal.judge import Evidence
    from stackalign.core.multimodal.search import Candidate
    from stackalign.core.multimodal.views import Views

    Array = NDArray[np.float64]

_BEYOND = 0.26  # rad, and share of a scale: by how much a place may lie outside the ranges that are searched
_APART = 0.02  # of the image's side: places closer together are one


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """The best place, and what speaks for it."""

    matrix: Array
    evidence: Evidence


def match(
    views: Views,
    *,
    angles: Sequence[float] = (0.0,),
    scales: Sequence[float] = (1.0,),
    model: TransformModel = TransformModel.PROJECTIVE,
    starts: Sequence[Array] = (),
    max_shift: float | None = None,
    least_overlap: float = 0.4,
    families: Sequence[slice] = FAMILIES,
    seed: int = 0,
    blocks: int = 3,
    block_size: float = 0.45,
    candidates: int = 32,
    keep: int = 3,
    restarts: int = 3,
    pursued: int = 8,
    disturb: float = 0.06,
    by_energy: bool = False,
    noisy: Noisy | None = None,
    second: Views | None = None,
    rounds: int = 1,
) -> Match | None:
    """Find where the moving image lies on the fixed one.

    Parameters
    ----------
    views : Views
        Of both images.
    angles, scales : sequence of float
        Rotations (radians) and magnifications to look through.
    model : TransformModel
        Of the motion.
    starts : sequence of ndarray (3, 3)
        Moving -> fixed; are tried beside what the search finds.
    max_shift : float, optional
        Of the centre, pixels.
    least_overlap : float
        Share of the smaller image that both must show.
    families : sequence of slice
        Channels that make up independent descriptions: their results are compared.
    seed : int
        Of the disturbances.
    blocks, block_size : int, float
        Of the search; see `search`.
    candidates, keep, restarts, pursued : int
        Of the search that are refined; of those that are disturbed; disturbed copies of each; places that are refined
        at the next resolution, too: at the coarsest one a wrong place, bent to fit, often scores as high as the right.
    disturb : float
        Standard deviation of a disturbance of the corners, as a share of the image's side.
    by_energy : bool
        Of the search; see `search`.
    noisy : "fixed" or "moving", optional
        The image that holds most of the noise; see `improved`.
    second : Views, optional
        Of other features, whose result is compared as well.
    rounds : int
        How often the best places are disturbed.

    Returns
    -------
    Match or None
        None if nothing can be compared.
    """
    rng = np.random.default_rng(seed)
    top, bottom = levels_of(views)
    factors, full = (2**top, 2**top), views.shapes(0)[1]
    side = float(np.sqrt(full[0] * full[1]))
    found = found_places(
        views, angles=angles, scales=scales, count=candidates, blocks=blocks, block_size=block_size,
        max_shift=max_shift, least_overlap=least_overlap, by_energy=by_energy,
    )  # fmt: skip
    begun = [enlarged(within(c.matrix, views.shapes(top)[1], model), factors) for c in found]
    begun += [within(start, full, model) for start in starts]
    allowed = _Ranges.of(angles, scales, starts, full)

    def coarse(matrix: Array) -> Place | None:
        place = improved(
            views, matrix, top, model=model, levels=2, iterations=12, damping=0.02, least_overlap=least_overlap, step=2,
            noisy=noisy,
        )  # fmt: skip
        return place if place is None or allowed.hold(place.matrix) else None

    places = distinct(map_threads(coarse, begun), full, _APART * side, len(begun))
    if not places:
        return None
    for _ in range(rounds):
        again = [disturbed(p.matrix, full, rng, disturb, model) for p in places[:keep] for _ in range(restarts)]
        places = distinct([*places, *map_threads(coarse, again)], full, _APART * side, len(begun))
    chosen, heights = places[:pursued], [p.value for p in places[:pursued]]
    rivals = chosen
    shared: dict[str, Any] = {"model": model, "least_overlap": least_overlap, "noisy": noisy}
    for level in reversed(range(bottom, top + 1)):
        if level < top:
            few: dict[str, Any] = {"passes": 1, "iterations": 10} if len(chosen) > 1 else {}  # enough to rank them
            refined = all_improved(views, chosen, level, **shared, **few)
            chosen = distinct(refined, full, 0.5 * _APART * side, pursued) or chosen
        if level == max(top - 1, bottom):
            heights = map_threads(lambda p: height(views, p, level, least_overlap, noisy), chosen)  # noqa: B023
            order = np.argsort(-np.array(heights), kind="stable")
            rivals, heights = [chosen[k] for k in order], [heights[k] for k in order]
            chosen = rivals[:1]
            if level == bottom and level < top:
                finished = all_improved(views, chosen, level, **shared)
                chosen = [p for p in finished if p is not None] or chosen
    best = chosen[0]
    ended = settled(views, best, bottom, **shared)
    if corner_distance(ended.matrix, best.matrix, full) < RIGHT:  # else the images fit better where nothing was sought
        best = ended
    searched = places_searched(views.shapes(bottom), max_shift and max_shift / 2**bottom, angles, scales, model)
    evidence = collected(
        views, best, rivals, heights, top, bottom, model, families, rng, side, least_overlap, searched, noisy, second
    )
    # steps are exact to first order only: what has to be rigid is made so
    return Match(within(best.matrix, full, model) if model is TransformModel.EUCLIDEAN else best.matrix, evidence)


def likeliest(
    answers: Sequence[tuple[Match, Verdict]], shape: tuple[int, int], threshold: float
) -> tuple[Match, Verdict] | None:
    """Return the likeliest of some answers, which is less likely by those that exclude it; None if there are none.

    ``shape`` is that of the moving image, ``threshold`` the probability below which an answer is refused.
    """
    if not answers:
        return None
    found, verdict = max(answers, key=lambda answer: answer[1].probability)
    apart = [
        other.probability
        for match, other in answers
        if not corner_distance(match.matrix, found.matrix, shape) <= 2 * RIGHT  # else both may be right
    ]
    if verdict.refused or not apart:
        return found, verdict
    probability = among(verdict.probability, apart)
    refused = not probability >= threshold
    return found, Verdict(probability, refused, OTHERWISE if refused else "")


def found_places(views: Views, *, max_shift: float | None = None, **options: Any) -> list[Candidate]:
    """Return what `search`, whose options these are, finds at the coarsest resolution, in pixels of that one."""
    top, _ = levels_of(views)
    return search(
        views.fixed(top), views.moved(top, np.eye(3), views.shapes(top)[1]),
        turned=lambda matrix, shape: views.moved(top, matrix, shape),
        max_shift=None if max_shift is None else max_shift / 2**top, **options,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Ranges:
    """The rotations (radians) and magnifications that were asked for, with what is reached from the outermost ones."""

    middle: float
    turn: float
    least: float
    most: float
    shape: tuple[int, int]

    @classmethod
    def of(
        cls, angles: Sequence[float], scales: Sequence[float], starts: Sequence[Array], shape: tuple[int, int]
    ) -> _Ranges:
        reached = [_turn_and_scale(start, shape) for start in starts]
        turns, sizes = [*angles, *(turn for turn, _ in reached)], [*scales, *(size for _, size in reached)]
        reach = 0.5 * (max(turns) - min(turns)) + _BEYOND
        return cls(
            0.5 * (max(turns) + min(turns)), reach, min(sizes) / (1 + _BEYOND), max(sizes) * (1 + _BEYOND), shape
        )

    def hold(self, matrix: Array) -> bool:
        """Return whether a motion turns and magnifies the image by no more than that."""
        if np.isfinite(offsets_of(matrix, self.shape)).all(1).sum() < 2:
            return False  # most of the image lies beyond the horizon
        turn, scale = _turn_and_scale(matrix, self.shape)
        apart = abs((turn - self.middle + np.pi) % (2 * np.pi) - np.pi)
        return bool(apart <= self.turn and self.least <= scale <= self.most)


def _turn_and_scale(matrix: Array, shape: tuple[int, int]) -> tuple[float, float]:
    """Return the rotation (radians) and magnification of the similarity nearest to a motion."""
    near = within(matrix, shape, TransformModel.SIMILARITY)
    return float(np.arctan2(near[1, 0], near[0, 0])), float(np.hypot(near[0, 0], near[1, 0]))
