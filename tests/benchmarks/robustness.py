"""Movies that go wrong in the ways that movies do, and what became of each frame: aligned, flagged or wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import stackalign as sa
from stackalign.core.generators import generators, moved_points, velocities
from stackalign.core.geometry import centre, corners
from stackalign.core.simulate.images import photograph, window

KINDS = ("jumps", "blank", "brightness", "object", "all")
SCENES = ("hubble_deep_field", "camera", "coins", "gravel", "retina")
JUMP = 0.4  # of the frame
BLANK = 0.2  # of the frames
FALL = 0.3  # of the brightness
OBJECT = 0.25  # of the field
WRONG = 1.0  # px rms at the corners from which a frame is grossly wrong; or, in a scene that tells less,
BOUNDS = 5.0  # as many times the Cramer-Rao bound of the scene
SIGMAS = (1.3, 1.3)
_READ_NOISE, _OFFSET = 2.0, 100.0


@dataclass(frozen=True)
class Movie:
    """Frames, where they lie, and which hold nothing."""

    frames: np.ndarray
    transforms: sa.TransformSeries
    blank: frozenset[int]
    bound: float  # px rms at the corners, of a frame against the scene known


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
    series = _series(drift, angles, shape)
    light = np.ones(count)
    if kind in ("brightness", "all"):
        light[rng.integers(count // 4, 3 * count // 4) :] = 1 - FALL
    blank = frozenset[int]()
    if kind in ("blank", "all"):
        blank = frozenset(int(t) for t in 1 + rng.choice(count - 1, round(BLANK * count), replace=False))
    still = _field(scene, series, shape)
    views = np.stack([still.render(m) for m in series.matrices])
    if kind in ("object", "all"):
        _cover(views, scene, rng)
    views *= 100.0 / views[0].mean()
    bound = _bound(still.render(np.eye(3)) * (100.0 / still.render(np.eye(3)).mean()), rotation > 0)
    views *= light[:, None, None]
    views[list(blank)] = 0
    counts = rng.poisson(np.maximum(views, 0)) + rng.normal(0, _READ_NOISE, views.shape) + _OFFSET
    return Movie(np.clip(np.rint(counts), 0, 65535).astype(np.uint16), series, blank, bound)


def outcome(movie: Movie, result: sa.Registration) -> dict[str, Any]:
    """Return what became of the frames: wrong ones unseen, those that were not found and flagged, good ones flagged.

    A flag is needless where the motion that was found, before it was doubted, is right; a flagged frame is
    interpolated, and that it lies off then is what the flag says.
    """
    shape = movie.frames.shape[1:]
    flagged = np.asarray(result.quality.flagged)
    lost = np.isin(np.arange(len(movie.frames)), list(movie.blank))
    good = ~flagged & ~lost
    limit = max(WRONG, BOUNDS * movie.bound)
    error = _error(movie, result.transforms.matrices, good, shape)
    wrong = lost | ~(error <= limit)
    unseen = wrong & ~flagged
    found = np.asarray(result.details.get("found", result.transforms.matrices))
    known = np.isfinite(found).all((1, 2))
    at = _error(movie, np.where(known[:, None, None], found, np.eye(3)), good if good.any() else known & ~lost, shape)
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
        "bound": movie.bound,
    }


def _error(movie: Movie, found: np.ndarray, good: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the rms corner errors of matrices, px, in the gauge in which most frames agree."""
    points = corners(shape)
    best: np.ndarray | None = None
    for t in np.flatnonzero(good)[:: max(good.sum() // 12, 1)]:
        gauge = movie.transforms.matrices[t] @ np.linalg.inv(found[t])
        off = [
            float(np.sqrt(((moved_points(gauge @ f, points) - moved_points(m, points)) ** 2).sum(-1).mean()))
            for f, m in zip(found, movie.transforms.matrices, strict=True)
        ]
        if best is None or np.median(np.array(off)[good]) < np.median(best[good]):
            best = np.array(off)
    return np.full(len(good), np.inf) if best is None else best


def _bound(photons: np.ndarray, turns: bool) -> float:
    """Return the Cramer-Rao bound of the corners of a frame, px rms: sum of S S^T over variance, S the changes."""
    shape = photons.shape
    middle = centre(shape)
    model = sa.TransformModel.EUCLIDEAN if turns else sa.TransformModel.TRANSLATION
    group = generators(model, middle, float(np.linalg.norm(middle)))
    slopes = np.stack(np.gradient(photons.astype(float)), -1).reshape(-1, 2)
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 2).astype(float)
    changes = np.einsum("ni,nik->nk", slopes, velocities(group, points))
    noise = np.maximum(photons, 0).ravel() + _READ_NOISE**2 + 1 / 12
    covariance = np.linalg.inv(changes.T @ (changes / noise[:, None]))
    swing = velocities(group, corners(shape))
    return float(np.sqrt(np.einsum("cik,kl,cil->c", swing, covariance, swing).mean()))


def _series(drift: np.ndarray, angles: np.ndarray, shape: tuple[int, int]) -> sa.TransformSeries:
    matrices = np.tile(np.eye(3), (len(drift), 1, 1))
    middle = centre(shape)
    for m, shift, angle in zip(matrices, drift, angles, strict=True):
        c, s = np.cos(angle), np.sin(angle)
        m[:2, :2] = [[c, -s], [s, c]]
        m[:2, 2] = middle - m[:2, :2] @ middle - shift
    return sa.TransformSeries(matrices, "euclidean" if angles.any() else "translation")


def _field(scene: str, series: sa.TransformSeries, shape: tuple[int, int], aside: float = 0.0) -> Any:
    image = photograph(scene)
    start = ((np.asarray(image.shape) - np.asarray(shape)) * (0.5 + aside)).astype(int)
    return window(image, start, series, shape, SIGMAS)


def _cover(views: np.ndarray, scene: str, rng: np.random.Generator) -> None:
    """Lay another part of the scene, as bright and rich in contrast, over a quarter of the field; it walks across."""
    count, size = len(views), views.shape[1]
    side = round(np.sqrt(OBJECT) * size)
    ahead = rng.uniform(0, 2 * np.pi)
    walk = np.linspace(-0.25, 0.25, count)[:, None] * size * np.array([np.sin(ahead), np.cos(ahead)])
    walk = walk + rng.normal(0, 1, (count, 2))
    skin = _field(scene, _series(0 * walk, np.zeros(count), (side, side)), (side, side), -0.25).render(np.eye(3))
    skin = (skin - skin.mean()) / skin.std() * views[0].std() + views[0].mean()
    for view, place in zip(views, np.rint((size - side) / 2 + walk).astype(int), strict=True):
        y, x = np.clip(place, 0, size - side)
        view[y : y + side, x : x + side] = skin
