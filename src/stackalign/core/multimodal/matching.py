"""Find a homography from coarse to fine: candidates of a global search, refined, disturbed, thinned out, and judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stackalign.core.multimodal.corners import corner_distance, matrices_of, offsets_of, plausible
from stackalign.core.multimodal.features import FAMILIES, describe
from stackalign.core.multimodal.judge import Evidence
from stackalign.core.multimodal.refine import ALIKE, FeatureImage, Refined, refine, score_of
from stackalign.core.multimodal.search import search
from stackalign.core.reduction import binned, enlarged, reduced
from stackalign.core.resample import warp_frame
from stackalign.core.threads import map_threads
from stackalign.core.transform import TransformModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Image = NDArray[np.float32]

_SEARCHED = 52  # px: least side of the images that are searched
_FINEST = 300_000  # px: larger images are refined on reduced ones only
_DENSE = 100_000  # px: of larger images every other row and column is enough
_SHARP = 1.3  # px: length over which the score of wrong places changes
_BEYOND = 0.26  # rad, and share of a scale: by how much a place may lie outside the ranges that are searched
_BETWEEN = 0.2  # rad, and of the logarithm of a scale: reached from one that is searched
_APART = 0.02  # of the image's side: places closer together are one


class Views(Protocol):
    """Gives features of two images at each resolution; level k is reduced by 2**k."""

    def shapes(self, level: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the shapes of the fixed and of the moving image."""
        ...

    def fixed(self, level: int) -> FeatureImage:
        """Return the features of the fixed image."""
        ...

    def moved(self, level: int, matrix: Array, shape: tuple[int, int]) -> FeatureImage:
        """Return the features of the moving image as ``matrix`` (moving -> there) lays it on ``shape`` pixels."""
        ...

    def swapped(self) -> Views:
        """Return the same with both roles exchanged."""
        ...


@dataclass(slots=True, eq=False)
class ImageViews:
    """Views of two images whose features are worked out anew wherever an image is turned or distorted.

    Features that know about orientation are never turned themselves: the image is, and is described then.

    Parameters
    ----------
    first, second : ndarray (y, x)
        The fixed and the moving image; NaN: not known.
    features : callable
        Image (y, x) -> FeatureImage.
    """

    first: Image
    second: Image
    features: Callable[[Image], FeatureImage] = describe
    _described: dict[int, FeatureImage] = field(default_factory=dict)
    _binned: dict[tuple[int, int], Image] = field(default_factory=dict)

    def shapes(self, level: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the shapes of the fixed and of the moving image."""
        first, second = (tuple(self._image(which, level).shape) for which in (0, 1))
        return first, second

    def fixed(self, level: int) -> FeatureImage:
        """Return the features of the fixed image."""
        if level not in self._described:
            self._described[level] = self.features(self._image(0, level))
        return self._described[level]

    def moved(self, level: int, matrix: Array, shape: tuple[int, int]) -> FeatureImage:
        """Return the features of the moving image as ``matrix`` lays it on ``shape`` pixels."""
        return self.features(warp_frame(self._image(1, level), matrix, order=1, fill=np.nan, output_shape=shape))

    def swapped(self) -> ImageViews:
        """Return the same with both roles exchanged."""
        other = ImageViews(self.second, self.first, self.features)
        other._binned = {(1 - which, level): image for (which, level), image in self._binned.items()}
        return other

    def _image(self, which: int, level: int) -> Image:
        if (which, level) not in self._binned:
            self._binned[which, level] = binned((self.first, self.second)[which], (2**level, 2**level))
        return self._binned[which, level]


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A homography moving -> fixed at full size, with its fit at the resolution that it was refined at."""

    matrix: Array
    fit: Refined

    @property
    def value(self) -> float:
        """The score times the root of the overlap: chance alone reaches the same height for any overlap."""
        return self.fit.score * float(np.sqrt(np.clip(self.fit.overlap, 0, 1)))


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """The best place, and what speaks for it."""

    matrix: Array
    evidence: Evidence


def levels_of(views: Views) -> tuple[int, int]:
    """Return the coarsest level, which is searched, and the finest one that is refined."""
    top, shapes = 0, views.shapes(0)
    while min(min(s) for s in shapes) / 2 ** (top + 1) >= _SEARCHED:
        top += 1
    bottom = 0
    while max(float(np.prod(s)) for s in shapes) / 4**bottom > _FINEST:
        bottom += 1
    return max(top, bottom), bottom


def match(
    views: Views,
    *,
    angles: Sequence[float] = (0.0,),
    scales: Sequence[float] = (1.0,),
    model: TransformModel = TransformModel.PROJECTIVE,
    initial: Array | None = None,
    everywhere: bool = True,
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
    initial : ndarray (3, 3), optional
        Moving -> fixed; is tried as well.
    everywhere : bool
        Search the whole range; False: only around ``initial``.
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

    Returns
    -------
    Match or None
        None if nothing can be compared.
    """
    rng = np.random.default_rng(seed)
    top, bottom = levels_of(views)
    factors, full = (2**top, 2**top), views.shapes(0)[1]
    side = float(np.sqrt(full[0] * full[1]))
    starts: list[Array] = []
    if everywhere:
        found = search(
            views.fixed(top), views.moved(top, np.eye(3), views.shapes(top)[1]), angles=angles, scales=scales,
            turned=lambda matrix, shape: views.moved(top, matrix, shape), count=candidates, blocks=blocks,
            block_size=block_size, max_shift=None if max_shift is None else max_shift / factors[0],
            least_overlap=least_overlap,
        )  # fmt: skip
        starts = [enlarged(_within(c.matrix, views.shapes(top)[1], model), factors) for c in found]
    if initial is not None:
        starts.append(_within(initial, full, model))

    allowed = _Ranges.of(angles, scales, initial, full) if everywhere else None

    def coarse(matrix: Array) -> Place | None:
        place = improved(
            views, matrix, top, model=model, levels=2, iterations=12, damping=0.02, least_overlap=least_overlap, step=2
        )
        return place if place is None or allowed is None or allowed.hold(place.matrix) else None

    places = _distinct(map_threads(coarse, starts), full, _APART * side, len(starts))
    if not places:
        return None
    again = [_disturbed(p.matrix, full, rng, disturb, model) for p in places[:keep] for _ in range(restarts)]
    places = _distinct([*places, *map_threads(coarse, again)], full, _APART * side, len(starts))
    chosen, heights = places[:pursued], [p.value for p in places[:pursued]]
    rivals = chosen
    for level in reversed(range(bottom, top + 1)):
        if level < top:
            few: dict[str, Any] = {"passes": 1, "iterations": 10} if len(chosen) > 1 else {}  # enough to rank them
            refined = _refined(views, chosen, level, model=model, least_overlap=least_overlap, **few)
            chosen = _distinct(refined, full, 0.5 * _APART * side, pursued) or chosen
        if level == max(top - 1, bottom):
            heights = map_threads(lambda p: _height(views, p, level, least_overlap), chosen)  # noqa: B023
            order = np.argsort(-np.array(heights), kind="stable")
            rivals, heights = [chosen[k] for k in order], [heights[k] for k in order]
            chosen = rivals[:1]
            if level == bottom and level < top:
                finished = _refined(views, chosen, level, model=model, least_overlap=least_overlap)
                chosen = [p for p in finished if p is not None] or chosen
    best = chosen[0]
    searched = _searched(views.shapes(bottom), max_shift and max_shift / 2**bottom, angles, scales, model)
    evidence = _evidence(views, best, rivals, heights, top, bottom, model, families, rng, side, least_overlap, searched)
    # steps are exact to first order only: what has to be rigid is made so
    return Match(_within(best.matrix, full, model) if model is TransformModel.EUCLIDEAN else best.matrix, evidence)


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
        cls, angles: Sequence[float], scales: Sequence[float], initial: Array | None, shape: tuple[int, int]
    ) -> _Ranges:
        turns, sizes = list(angles), list(scales)
        if initial is not None:
            turn, size = _turn_and_scale(initial, shape)
            turns, sizes = [*turns, turn], [*sizes, size]
        reach = 0.5 * (max(turns) - min(turns)) + _BEYOND
        return cls(
            0.5 * (max(turns) + min(turns)), reach, min(sizes) / (1 + _BEYOND), max(sizes) * (1 + _BEYOND), shape
        )

    def hold(self, matrix: Array) -> bool:
        """Return whether a motion turns and magnifies the image by no more than that."""
        turn, scale = _turn_and_scale(matrix, self.shape)
        apart = abs((turn - self.middle + np.pi) % (2 * np.pi) - np.pi)
        return bool(apart <= self.turn and self.least <= scale <= self.most)


def _turn_and_scale(matrix: Array, shape: tuple[int, int]) -> tuple[float, float]:
    """Return the rotation (radians) and magnification of the similarity nearest to a motion."""
    near = _within(matrix, shape, TransformModel.SIMILARITY)
    return float(np.arctan2(near[1, 0], near[0, 0])), float(np.hypot(near[0, 0], near[1, 0]))


def improved(
    views: Views,
    matrix: Array,
    level: int,
    *,
    passes: int = 2,
    channels: slice | None = None,
    **options: Any,
) -> Place | None:
    """Refine a homography at one resolution; the moving image is described anew, as it lies, before each pass.

    ``options`` are those of `refine`. None where the images do not overlap, or the motion is none of a flat image.
    """
    fixed, shapes = views.fixed(level), views.shapes(level)
    if channels is not None:
        fixed = _part(fixed, channels)
    factors = (2**level, 2**level)
    current, fit = reduced(matrix, factors), None
    for _ in range(passes):
        if not _seen_from_front(current, shapes):
            return None
        moved = views.moved(level, current, shapes[0])
        if (moved.weight > 0).sum() < 64:
            return None
        if channels is not None:
            moved = _part(moved, channels)
        fit = refine(fixed, moved, np.eye(3), **options)
        current = fit.matrix @ current
        if fit.moved < 0.02:
            break
    if fit is None or fit.score <= -1 or not _seen_from_front(current, shapes):
        return None
    return Place(enlarged(current, factors), fit)


def _refined(views: Views, places: Sequence[Place], level: int, **options: Any) -> list[Place | None]:
    """Refine places at one resolution, a large image on every other pixel; see `improved`."""
    step = 2 if max(float(np.prod(s)) for s in views.shapes(level)) > _DENSE else 1
    return map_threads(lambda p: improved(views, p.matrix, level, step=step, **options), places)


def _evidence(
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
) -> Evidence:
    """Collect what speaks for and against the best place."""
    full = views.shapes(0)[1]
    judged = min(bottom + 1, top)
    options: dict[str, Any] = {"model": model, "least_overlap": least_overlap, "levels": 2, "step": 2}
    above, spread = _above_shifted(views, best.matrix, bottom, least_overlap)
    far = [corner_distance(p.matrix, best.matrix, full) > 0.1 * side for p in rivals]
    here = max((v for v, apart in zip(heights, far, strict=True) if not apart), default=best.value)
    rival = max((v for v, apart in zip(heights, far, strict=True) if apart), default=0.0) / max(here, 1e-3)
    starts = [_disturbed(best.matrix, full, rng, 0.04, model) for _ in range(3)]
    ended = map_threads(lambda m: improved(views, m, judged, **options), starts)
    mirrored = improved(views.swapped(), _inverse(starts[0]), judged, **options)
    alone = [improved(views, best.matrix, judged, channels=c, **options) for c in families]
    return Evidence(
        score=best.fit.score,
        chance=above / spread,
        rival=float(max(rival, 0.0)),
        inverse=_apart(best.matrix, mirrored and _inverse(mirrored.matrix), full),
        restarts=float(np.median([_apart(best.matrix, p and p.matrix, full) for p in ended])),
        subsets=max((_apart(best.matrix, p and p.matrix, full) for p in alone), default=np.inf),
        spread=best.fit.spread * 2**bottom,
        overlap=best.fit.overlap,
        size=side,
        places=searched[0],
        dimensions=searched[1],
    )


def _searched(
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
    count, dimensions = max(area / _SHARP**2, 1.0), 2
    arm = float(np.hypot(*shapes[1])) / np.sqrt(12)  # root mean square distance of a pixel from the middle
    spans = []
    if model.rank >= TransformModel.EUCLIDEAN.rank:
        spans.append(float(np.ptp(angles)) + _BETWEEN)
    if model.rank >= TransformModel.SIMILARITY.rank:
        spans.append(float(np.ptp(np.log(scales))) + _BETWEEN)
    for span in spans:
        count *= max(span * arm / _SHARP, 1.0)
    return count, dimensions + len(spans)


def _height(views: Views, place: Place, level: int, least_overlap: float) -> float:
    """Return the score above that of shifted copies, times the root of the overlap: what fits anywhere fits nowhere."""
    above, _ = _above_shifted(views, place.matrix, level, least_overlap, turns=8, sampled=60)
    return above * float(np.sqrt(np.clip(place.fit.overlap, 0, 1)))


def _above_shifted(
    views: Views, matrix: Array, level: int, least_overlap: float, *, turns: int = 24, sampled: int = 100
) -> tuple[float, float]:
    """Return by how much the score lies above the mean of those of shifted copies, and their standard deviation."""
    shape = views.shapes(level)[0]
    fixed, moved = views.fixed(level), views.moved(level, reduced(matrix, (2**level, 2**level)), shape)
    reach = float(np.sqrt(max((moved.weight > 0).sum(), 1)))
    step = max(int(reach / sampled), 1)  # so many pixels along a side are enough
    here, _ = score_of(fixed, moved, np.eye(3), least_overlap=least_overlap)
    wrong = []
    for distance in (0.12, 0.18, 0.24, 0.3):
        for angle in np.arange(turns) * 2 * np.pi / turns:
            shift = np.eye(3)
            shift[:2, 2] = distance * reach * np.array([np.sin(angle), np.cos(angle)])
            score, _ = score_of(fixed, moved, shift, least_overlap=0.5 * least_overlap, step=step)
            if score > -1:
                wrong.append(score)
    if len(wrong) < 6:
        return 0.0, 1.0
    # those of images without any structure scatter as much; less is seen where sparse structure misses itself
    least = float(np.sqrt(ALIKE)) / reach
    return float(here - np.mean(wrong)), max(float(np.std(wrong, ddof=1)), least)


def _inverse(matrix: Array) -> Array:
    return np.asarray(np.linalg.inv(matrix), np.float64)


def _apart(first: Array, second: Any, shape: tuple[int, int]) -> float:
    if second is None:
        return float("inf")
    distance = float(corner_distance(first, second, shape))
    return distance if np.isfinite(distance) else float("inf")


def _seen_from_front(matrix: Array, shapes: tuple[tuple[int, int], tuple[int, int]]) -> bool:
    """Return whether a motion moving -> fixed is one of a flat image: a small view of a large one need not show all."""
    if abs(np.linalg.det(matrix)) < 1e-9:
        return False
    return plausible(matrix, shapes[1], 8.0) or plausible(np.linalg.inv(matrix), shapes[0], 8.0)


def _part(features: FeatureImage, channels: slice) -> FeatureImage:
    return FeatureImage(np.ascontiguousarray(features.values[..., channels]), features.weight)


def _disturbed(
    matrix: Array, shape: tuple[int, int], rng: np.random.Generator, amount: float, model: TransformModel
) -> Array:
    """Return a motion whose corners lie ``amount`` (a share of the side, standard deviation) beside."""
    noise = rng.normal(0, amount * np.sqrt(shape[0] * shape[1]), (4, 2))
    if model is TransformModel.TRANSLATION:
        noise[:] = noise.mean(0)
    moved = matrices_of(offsets_of(matrix, shape) + noise, shape)
    return _within(moved, shape, model) if np.isfinite(moved).all() else matrix


def _within(matrix: Array, shape: tuple[int, int], model: TransformModel) -> Array:
    """Return the motion of a model that carries the corners of an image about where ``matrix`` carries them."""
    from stackalign.core.geometry import corners
    from stackalign.core.transform_fit import fit_matrix

    if model is TransformModel.PROJECTIVE:
        return matrix
    still = corners(shape)
    return fit_matrix(still, still + offsets_of(matrix, shape), model.value)


def _distinct(places: Sequence[Place | None], shape: tuple[int, int], apart: float, count: int) -> list[Place]:
    """Return the best places, none close to a better one."""
    out: list[Place] = []
    for place in sorted((p for p in places if p is not None), key=lambda p: -p.value):
        if all(corner_distance(place.matrix, other.matrix, shape) > apart for other in out):
            out.append(place)
    return out[:count]
