"""Movies that go wrong in the ways that movies do, and what became of each frame: aligned, flagged or wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import stackalign as sa
from stackalign.core.generators import fitted, generators, moved_points, velocities
from stackalign.core.geometry import centre, corners
from stackalign.core.simulate.images import photograph, window

KINDS = ("jumps", "blank", "brightness", "object", "all")
SCENES = ("hubble_deep_field", "camera", "coins", "gravel", "retina")
JUMP = 0.4  # of the frame
BLANK = 0.2  # of the frames
FALL = 0.3  # of the brightness
OBJECT = 0.25  # of the field
WRONG = 1.0  # px rms at the corners from which a frame is grossly wrong; or, where what it shows tells less,
BOUNDS = 5.0  # as many times its Cramer-Rao bound
SIGMAS = (1.3, 1.3)
_READ_NOISE, _OFFSET = 2.0, 100.0


@dataclass(frozen=True)
class Movie:
    """Frames, where they lie, and which hold nothing."""

    frames: np.ndarray
    transforms: sa.TransformSeries
    blank: frozenset[int]
    bounds: np.ndarray  # (T,), px rms at the corners, of each frame against what the others show of the scene


def movie(kind: str, scene: str, seed: int, *, count: int = 40, size: int = 160, rotation: float = 0.0) -> Movie:
    """Draw a movie of 100 photons a pixel that drifts by a few pixels (and turns), with the mishaps of ``kind``."""
    rng = np.random.default_rng((seed, KINDS.index(kind), SCENES.index(scene)))
    shape = (size, size)
    drift = np.cumsum(rng.normal(0, 0.4, (count, 2)), axis=0) + rng.normal(0, 1, (count, 2))
    if kind in ("jumps", "all"):
        way = rng.uniform(0, 2 * np.pi)
        away = np.zeros(count, bool)
        for start in rng.choice(np.arange(2, count - 6), 3, replace=False):
            away[start : start + rng.integers(1, 6)] = True
        drift[away] += JUMP * size * np.array([np.sin(way), np.cos(way)])
    angles = np.deg2rad(rotation) * rng.uniform(-1, 1, count)
    drift[0], angles[0] = 0, 0
    series = series_of(drift, angles, shape)
    light = np.ones(count)
    if kind in ("brightness", "all"):
        light[rng.integers(count // 4, 3 * count // 4) :] = 1 - FALL
    blank = frozenset[int]()
    if kind in ("blank", "all"):
        blank = frozenset(int(t) for t in 1 + rng.choice(count - 1, round(BLANK * count), replace=False))
    still = field_of(scene, series, shape)
    views = np.stack([still.render(m) for m in series.matrices])
    clean, shown = views.copy(), np.ones(views.shape, bool)
    if kind in ("object", "all"):
        _cover(views, shown, scene, rng)
    shown[list(blank)] = False
    level = 100.0 / views[0].mean()
    views *= level
    views *= light[:, None, None]
    bounds = _bounds(clean * level * light[:, None, None], shown, series.matrices, rotation > 0)
    views[list(blank)] = 0
    return Movie(photographed(views, rng), series, blank, bounds)


def photographed(photons: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return what a camera makes of light, photons a pixel: uint16 of the same shape."""
    counts = rng.poisson(np.maximum(photons, 0)) + rng.normal(0, _READ_NOISE, photons.shape) + _OFFSET
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)


def outcome(movie: Movie, result: sa.Registration) -> dict[str, Any]:
    """Return what became of the frames: wrong ones unseen, those that were not found and flagged, good ones flagged.

    A flag is needless where the motion that was found, before it was doubted, is right; a flagged frame is
    interpolated, and that it lies off then is what the flag says.
    """
    shape = movie.frames.shape[1:]
    flagged = np.asarray(result.quality.flagged)
    lost = np.isin(np.arange(len(movie.frames)), list(movie.blank))
    good = ~flagged & ~lost
    limit = np.maximum(WRONG, BOUNDS * movie.bounds)
    truth = movie.transforms.matrices
    error = corner_errors(truth, result.transforms.matrices, good, shape)
    wrong = lost | ~(error <= limit)
    unseen = wrong & ~flagged
    found = np.asarray(result.details.get("found", result.transforms.matrices))
    known = np.isfinite(found).all((1, 2))
    begun = np.where(known[:, None, None], found, np.eye(3))
    at = corner_errors(truth, begun, good if good.any() else known & ~lost, shape)
    right = known & (at <= limit)
    needless = flagged & ~lost & right
    refused = flagged & ~lost & ~right
    return {
        "frames": len(flagged),
        "lost": int(lost.sum()),
        "unseen": np.flatnonzero(unseen).tolist(),
        "needless": np.flatnonzero(needless).tolist(),
        "refused": np.flatnonzero(refused).tolist(),
        "reasons": {int(t): result.quality.reasons[t] for t in np.flatnonzero(needless | refused)},
        "error": error,
        "worst": float(error[~wrong & ~flagged].max(initial=0.0)),
        "bounds": movie.bounds,
        "ratios": (error / movie.bounds)[~wrong & ~flagged],
    }


def corner_errors(truth: np.ndarray, found: np.ndarray, good: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the rms corner errors of matrices, px, in the gauge of most frames: their median, about the best of some.

    The gauge of one frame would add its own error to that of every other.
    """
    points = corners(shape)
    model = sa.TransformModel.EUCLIDEAN

    def off(gauge: np.ndarray) -> np.ndarray:
        both = zip(found, truth, strict=True)
        ways = [moved_points(gauge @ f, points) - moved_points(m, points) for f, m in both]
        return np.sqrt(np.square(ways).sum(-1).mean(-1))

    gauges = [m @ np.linalg.inv(f) for f, m in zip(found, truth, strict=True)]
    some = np.flatnonzero(good)[:: max(good.sum() // 12, 1)]
    if not some.size:
        return np.full(len(good), np.inf)
    near = min((off(gauges[t]) for t in some), key=lambda error: float(np.median(error[good])))
    agree = good & (near <= np.median(near[good]))
    middle = np.median([moved_points(gauges[t], points) for t in np.flatnonzero(agree)], axis=0)
    return off(fitted(points, middle, model))


def _bounds(photons: np.ndarray, shown: np.ndarray, matrices: np.ndarray, turns: bool) -> np.ndarray:
    """Return the Cramer-Rao bound of the corners of each frame against the mean of the others, px rms.

    Of the pixels that show the scene: the inverse of the sum of S S^T over their variance, S the changes by the motion,
    and by a gain and an offset of brightness, which are not known either: a slope that is in view in parts shifts as it
    brightens. Where k others show the same place, their mean has one k-th of the variance.
    """
    shape = photons.shape[1:]
    middle = centre(shape)
    model = sa.TransformModel.EUCLIDEAN if turns else sa.TransformModel.TRANSLATION
    group = generators(model, middle, float(np.linalg.norm(middle)))
    swing = velocities(group, corners(shape))
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 2).astype(float)
    ways = velocities(group, points)
    places = np.rint([moved_points(m, points) for m in matrices]).astype(int)
    places -= places.min((0, 1))
    size = places.max((0, 1)) + 1
    number = np.ravel_multi_index((places[..., 0], places[..., 1]), size)
    seen = shown.reshape(len(shown), -1)
    count = np.zeros(size.prod(), int)
    for at, there in zip(number, seen, strict=True):
        np.add.at(count, at[there], 1)
    out = np.full(len(photons), np.inf)
    for t, (image, there) in enumerate(zip(photons, seen, strict=True)):
        others = count[number[t]] - 1
        use = there & (others > 0)
        if use.any():
            slopes = np.stack(np.gradient(image.astype(float)), -1).reshape(-1, 2)[use]
            light = image.ravel()[use]
            changes = np.column_stack(
                [np.einsum("ni,nik->nk", slopes, ways[use]), light - light.mean(), np.ones(len(light))]
            )
            noise = (np.maximum(image, 0).ravel()[use] + _READ_NOISE**2 + 1 / 12) * (1 + 1 / others[use])
            covariance = np.linalg.inv(changes.T @ (changes / noise[:, None]))[: len(group), : len(group)]
            out[t] = np.sqrt(np.einsum("cik,kl,cil->c", swing, covariance, swing).mean())
    return out


def series_of(drift: np.ndarray, angles: np.ndarray, shape: tuple[int, int]) -> sa.TransformSeries:
    matrices = np.tile(np.eye(3), (len(drift), 1, 1))
    middle = centre(shape)
    for m, shift, angle in zip(matrices, drift, angles, strict=True):
        c, s = np.cos(angle), np.sin(angle)
        m[:2, :2] = [[c, -s], [s, c]]
        m[:2, 2] = middle - m[:2, :2] @ middle - shift
    return sa.TransformSeries(matrices, "euclidean" if angles.any() else "translation")


def field_of(scene: str, series: sa.TransformSeries, shape: tuple[int, int], aside: float = 0.0) -> Any:
    image = photograph(scene)
    start = ((np.asarray(image.shape) - np.asarray(shape)) * (0.5 + aside)).astype(int)
    return window(image, start, series, shape, SIGMAS)


def _cover(views: np.ndarray, shown: np.ndarray, scene: str, rng: np.random.Generator) -> None:
    """Lay another part of the scene, as bright and rich in contrast, over a quarter of the field; it walks across.

    ``shown`` becomes False below it.
    """
    count, size = len(views), views.shape[1]
    side = round(np.sqrt(OBJECT) * size)
    ahead = rng.uniform(0, 2 * np.pi)
    walk = np.linspace(-0.25, 0.25, count)[:, None] * size * np.array([np.sin(ahead), np.cos(ahead)])
    walk = walk + rng.normal(0, 1, (count, 2))
    skin = field_of(scene, series_of(0 * walk, np.zeros(count), (side, side)), (side, side), -0.25).render(np.eye(3))
    skin = (skin - skin.mean()) / skin.std() * views[0].std() + views[0].mean()
    for view, free, place in zip(views, shown, np.rint((size - side) / 2 + walk).astype(int), strict=True):
        y, x = np.clip(place, 0, size - side)
        view[y : y + side, x : x + side] = skin
        free[y : y + side, x : x + side] = False
