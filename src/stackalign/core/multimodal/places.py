"""Places where the moving image may belong: refined at one resolution, disturbed, thinned out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stackalign.core.frames.reduction import enlarged, reduced
from stackalign.core.geometry import corners
from stackalign.core.multimodal.corners import matrices_of, offsets_of, plausible
from stackalign.core.multimodal.refine import FeatureImage, Refined, refine, score_of
from stackalign.core.threads import map_threads
from stackalign.core.transform import TransformModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.multimodal.views import Views

    Array = NDArray[np.float64]

Noisy = Literal["fixed", "moving"]
_ENDED = 0.03  # px of the level: a pass that goes less is the last
_STRETCHES, _FARTHEST = 6, 6.0  # how often at most, and by how many times, steps are stretched
_DENSE = 100_000  # px: of larger images every other row and column is enough


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A homography moving -> fixed at full size, with its fit at the resolution that it was refined at."""

    matrix: Array
    fit: Refined

    @property
    def value(self) -> float:
        """The score times the root of the overlap: chance alone reaches the same height for any overlap."""
        return self.fit.score * float(np.sqrt(np.clip(self.fit.overlap, 0, 1)))


def improved(
    views: Views,
    matrix: Array,
    level: int,
    *,
    passes: int = 2,
    channels: slice | None = None,
    noisy: Noisy | None = None,
    **options: Any,
) -> Place | None:
    """Refine a homography at one resolution; the moving image is described anew, as it lies, before each pass.

    ``noisy`` names the image that holds most of the noise: the slopes are taken from the other one, and both are
    compared on the pixels of this one, where a motion that shrinks empty parts does not seem better than the right one;
    None: slopes and pixels are those of the fixed image. ``options`` are those of `refine`. None is returned where the
    images do not overlap, or the motion is none of a flat image.
    """
    if noisy == "fixed":
        if not _seen_from_front(matrix, views.shapes(0)):
            return None
        other = improved(
            views.swapped(), inverse(matrix), level, passes=passes, channels=channels, noisy="moving", **options
        )
        return other and Place(inverse(other.matrix), other.fit)
    fixed, shapes = views.fixed(level), views.shapes(level)
    if channels is not None:
        fixed = _part(fixed, channels)
    factors = (2**level, 2**level)
    current, fit = reduced(matrix, factors), None
    for _ in range(passes):
        if not _seen_from_front(current, shapes):
            return None
        moved = views.moved(level, current, shapes[0])
        if moved.known < 64:
            return None
        if channels is not None:
            moved = _part(moved, channels)
        fit = refine(fixed, moved, np.eye(3), **options)
        current = fit.matrix @ current
        if fit.moved < 0.02:
            break
    if fit is None or fit.score <= -1 or not _seen_from_front(current, shapes):
        return None
    if noisy:
        fit = _fit_at_rest(views.swapped(), inverse(current), level, fit, channels=channels, **options)
    return Place(enlarged(current, factors), fit)


def settled(
    views: Views, place: Place, level: int, model: TransformModel, *, noisy: Noisy | None = None, **options: Any
) -> Place:
    """Return where passes of `improved` end, if the images fit better there.

    Features of two modalities agree less in fine detail than a Gauss-Newton step assumes, so that a pass goes a part of
    the way only, always about the same. Steps are stretched by that, as squared extrapolation does (SQUAREM, Varadhan &
    Roland, Scand. J. Statistics 35, 2008, sec. 4, steplength S3), in the offsets of the corners.
    """
    shape = views.shapes(0)[1]
    still = _ENDED * 2**level

    def onward(matrix: Array) -> Place | None:
        return improved(views, matrix, level, passes=1, model=model, noisy=noisy, **options)

    def ends(matrix: Array) -> Array:
        return offsets_of(matrix, shape)

    def length(offsets: Array) -> float:
        return float(np.sqrt((offsets**2).sum(-1)).mean())

    begun, last = ends(place.matrix), place
    for _ in range(_STRETCHES):
        first = onward(matrices_of(begun, shape))
        second = first and onward(first.matrix)
        if not (first and second):
            break
        last = second
        step = ends(first.matrix) - begun
        following = ends(second.matrix) - ends(first.matrix)
        if not length(following) > still:
            break
        bend = float(np.linalg.norm(following - step))
        stretch = float(np.clip(np.linalg.norm(step) / max(bend, 1e-12), 1.0, _FARTHEST))
        begun = begun + 2 * stretch * step + stretch**2 * (following - step)
        at = matrices_of(begun, shape)
        if not np.isfinite(at).all():
            break
        begun = ends(within(at, shape, model))
    # on the pixels of the image that holds the noise
    around, turned = (views.swapped(), True) if noisy == "moving" else (views, False)

    def value(of: Place) -> float:
        matrix = reduced(inverse(of.matrix) if turned else of.matrix, (2**level, 2**level))
        return Place(of.matrix, _fit_at_rest(around, matrix, level, of.fit, **options)).value

    return last if value(last) > value(place) else place


def _fit_at_rest(
    views: Views,
    matrix: Array,
    level: int,
    fit: Refined,
    *,
    channels: slice | None = None,
    least_overlap: float = 0.25,
    **_: Any,
) -> Refined:
    """Return how well both images fit, described where they lie: features that are warped seem to fit better."""
    still, seen = views.fixed(level), views.moved(level, matrix, views.shapes(level)[0])
    if channels is not None:
        still, seen = _part(still, channels), _part(seen, channels)
    score, overlap = score_of(still, seen, np.eye(3), least_overlap=least_overlap)
    return replace(fit, score=score, overlap=overlap)


def inverse(matrix: Array) -> Array:
    """Return the motion back, its last entry 1."""
    back = np.linalg.inv(matrix)
    return np.asarray(back / back[2, 2], np.float64)


def all_improved(views: Views, places: Sequence[Place], level: int, **options: Any) -> list[Place | None]:
    """Refine places at one resolution, a large image on every other pixel; see `improved`."""
    step = thinned(views, level)
    return map_threads(lambda p: improved(views, p.matrix, level, step=step, **options), places)


def thinned(views: Views, level: int) -> int:
    """Return which rows and columns of an image are enough: every one, or every other one of a large image."""
    return 2 if max(float(np.prod(s)) for s in views.shapes(level)) > _DENSE else 1


def disturbed(
    matrix: Array, shape: tuple[int, int], rng: np.random.Generator, amount: float, model: TransformModel
) -> Array:
    """Return a motion whose corners lie ``amount`` (a share of the side, standard deviation) beside."""
    noise = rng.normal(0, amount * np.sqrt(shape[0] * shape[1]), (4, 2))
    if model is TransformModel.TRANSLATION:
        noise[:] = noise.mean(0)
    moved = matrices_of(offsets_of(matrix, shape) + noise, shape)
    return within(moved, shape, model) if np.isfinite(moved).all() else matrix


def within(matrix: Array, shape: tuple[int, int], model: TransformModel) -> Array:
    """Return the motion of a model that carries the corners of an image about where ``matrix`` carries them."""
    from stackalign.core.transform_fit import fit_matrix

    if model is TransformModel.PROJECTIVE:
        return matrix
    still = corners(shape)
    return fit_matrix(still, still + offsets_of(matrix, shape), model.value)


def distinct(places: Sequence[Place | None], shape: tuple[int, int], apart: float, count: int) -> list[Place]:
    """Return the best places, none close to a better one."""
    ranked = sorted((p for p in places if p is not None), key=lambda p: -p.value)
    ends = offsets_of(np.array([p.matrix for p in ranked]).reshape(-1, 3, 3), shape)
    chosen: list[int] = []
    for k in range(len(ranked)):
        if (np.sqrt(((ends[chosen] - ends[k]) ** 2).sum(-1)).mean(-1) > apart).all():
            chosen.append(k)
    return [ranked[k] for k in chosen[:count]]


def _seen_from_front(matrix: Array, shapes: tuple[tuple[int, int], tuple[int, int]]) -> bool:
    """Return whether a motion moving -> fixed is one of a flat image: a small view of a large one need not show all."""
    if abs(np.linalg.det(matrix)) < 1e-9:
        return False
    return plausible(matrix, shapes[1], 8.0) or plausible(np.linalg.inv(matrix), shapes[0], 8.0)


def _part(features: FeatureImage, channels: slice) -> FeatureImage:
    return FeatureImage(np.ascontiguousarray(features.values[..., channels]), features.weight)
