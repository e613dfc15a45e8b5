"""Find a homography from features of two images: coarse ones say where, fine ones say exactly. No network in here.

Coarse features of chosen places of the moving image are compared with those of all places of the reference: that
volume of likenesses gives matches, pairs of matches give similarities, and each is judged by the likeness of all chosen
places where it puts them. The best are refined in the volume, then on fine features, by weighted least squares on where
places fit best nearby (soft maxima). Pixels (y, x) throughout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.deep.pairs import corners_of
from stackalign.core.multimodal.corners import corner_distance, plausible

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Maps = NDArray[np.float32]

CELL, DOT = 4, 2  # pixels of the image in a cell of the coarse and of the fine features, along each axis
_QUERIES = 600  # places of the moving image that are looked for
_GUESSES = 1500  # pairs of matches that are tried
_BEST = 6  # guesses that are refined
_COARSE_REACH = (4, 3, 2, 2)  # cells around the expected place, round after round
_FINE_REACH = (5, 4, 3, 2, 2)  # fine features, the same
_RIDGE = 1e-3  # share of the mean curvature that holds a fit back


@dataclass(frozen=True, slots=True, eq=False)
class FeatureMaps:
    """Features of one image.

    Attributes
    ----------
    coarse : ndarray (channels, ceil(y / 4), ceil(x / 4)), float32
        Their length is the weight of the place. The centre of cell k lies at 4 k + 1.5.
    fine : ndarray (channels, ceil(y / 2), ceil(x / 2)), float32
        The same; the centre of feature k lies at 2 k + 0.5.
    shape : (int, int)
        Pixels of the image along y and x.
    sharpness : tuple of float
        Of the soft maxima over coarse and fine likenesses.
    """

    coarse: Maps
    fine: Maps
    shape: tuple[int, int]
    sharpness: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """A homography and what speaks for it.

    Attributes
    ----------
    matrix : ndarray (3, 3)
        Moving -> reference, pixels.
    places : tuple of ndarray (3, 3)
        All that were refined in the coarse volume, to some pixels, the best first.
    coarse : float
        Mean log-likelihood ratio of the chosen places against chance, weighted: how much better they fit where the
        matrix puts them than anywhere.
    rival : float
        The same of the best other place, over ``coarse``.
    agreement : float
        Weighted share of the fine matches that lie within a pixel and a half of the homography.
    spread : float
        Standard error of the corners that the scatter of the fine matches implies, pixels.
    """

    matrix: Array
    places: tuple[Array, ...]
    coarse: float
    rival: float
    agreement: float
    spread: float


def match_features(
    reference: FeatureMaps, moving: FeatureMaps, *, seed: int = 0, start: Array | None = None
) -> Matched:
    """Find where the moving image lies in the reference.

    Parameters
    ----------
    reference, moving : FeatureMaps
        Of any sizes.
    seed : int
        Of the guesses.
    start : ndarray (3, 3), optional
        A guess, moving -> reference, that is tried beside the others.
    """
    rng = np.random.default_rng(seed)
    volume = _Volume.of(reference, moving)
    guesses = volume.guesses(rng, _GUESSES)
    if start is not None:
        guesses = np.concatenate([np.asarray(start, float)[None], guesses])
    scores = volume.score(guesses)
    places: list[tuple[float, Array]] = []
    for k in np.argsort(-scores, kind="stable"):
        if all(corner_distance(guesses[k], other, moving.shape) > 3 * CELL for _, other in places):
            places.append((float(scores[k]), guesses[k]))
            if len(places) == _BEST:
                break
    refined = []
    for _, matrix in places:
        better = volume.refined(matrix, moving.shape)
        refined.append((float(volume.score(better[None])[0]), better))
    refined.sort(key=lambda p: -p[0])
    best_score, best = refined[0]
    others = [s for s, m in refined[1:] if corner_distance(m, best, moving.shape) > 2 * CELL]
    rival = max(max(others, default=0.0), 0.0) / max(best_score, 1e-6) if best_score > 0 else 1.0
    matrix, agreement, spread = refine_on_fine(reference, moving, best)
    return Matched(matrix, tuple(m for _, m in refined), best_score, float(rival), agreement, spread)


def refine_on_fine(reference: FeatureMaps, moving: FeatureMaps, matrix: Array) -> tuple[Array, float, float]:
    """Refine a homography on fine features; returns it, the share of matches that agree, and its standard error."""
    places, weight = _spread_places(moving.fine, 900)
    query = _unit(moving.fine[:, places[:, 0], places[:, 1]].T)
    points = np.asarray(DOT * places + (DOT - 1) / 2, np.float64)
    current, agreement, spread = matrix, 0.0, np.inf
    for round_, reach in enumerate(_FINE_REACH):
        expected, front = _mapped(current, points)
        cells = (expected - (DOT - 1) / 2) / DOT
        found, sure = _nearby(reference.fine, query, cells, reach, reference.sharpness[1])
        found = DOT * found + (DOT - 1) / 2
        total = weight * sure * front
        if (total > 0).sum() < 12:
            return current, 0.0, float("inf")
        limit = max(DOT * reach / (1.5 + round_), 1.0)
        following = _fitted(points, found, total, current, limit)
        if following is None or not plausible(following, moving.shape, 8.0):
            break
        current = following
        apart = np.linalg.norm(found - _mapped(current, points)[0], axis=1)
        agreement = float(total[apart < 1.5].sum() / total.sum())
        spread = _standard_error(points, apart, total, moving.shape)
    return current, agreement, spread


@dataclass(frozen=True, slots=True, eq=False)
class _Volume:
    """Likenesses of chosen cells of the moving image to all cells of the reference, as log-likelihood ratios."""

    points: Array  # (Q, 2), pixels of the moving image
    weight: Array  # (Q,)
    ratio: NDArray[np.float32]  # (Q, h, w)
    size: tuple[int, int]

    @classmethod
    def of(cls, reference: FeatureMaps, moving: FeatureMaps) -> _Volume:
        cells, weight = _spread_places(moving.coarse, _QUERIES)
        query = _unit(moving.coarse[:, cells[:, 0], cells[:, 1]].T)
        h, w = reference.coarse.shape[1:]
        keys = reference.coarse.reshape(len(reference.coarse), -1)
        length = np.linalg.norm(keys, axis=0)
        likeness = np.float32(reference.sharpness[0]) * (query @ (keys / np.maximum(length, np.float32(1e-6))))
        top = likeness.max(1, keepdims=True)
        mass = np.exp(likeness - top).mean(1, keepdims=True)
        ratio = (likeness - top - np.log(mass)).reshape(-1, h, w)  # log of the chance here over that anywhere
        return cls(np.asarray(CELL * cells + 1.5, np.float64), weight, ratio, (h, w))

    def guesses(self, rng: np.random.Generator, count: int) -> Array:
        """Return similarities through pairs of matches, likely ones more often."""
        flat = self.ratio.reshape(len(self.ratio), -1)
        best = flat.argmax(1)
        there = CELL * np.stack([best // self.size[1], best % self.size[1]], -1) + 1.5
        chance = self.weight * np.maximum(flat[np.arange(len(flat)), best], 0.05) ** 2
        chance = chance / chance.sum()
        i, j = (rng.choice(len(flat), 3 * count, p=chance) for _ in range(2))
        here = [(self.points[k][:, 0] + 1j * self.points[k][:, 1]) for k in (i, j)]
        onto = [(there[k][:, 0] + 1j * there[k][:, 1]) for k in (i, j)]
        extent = float(np.ptp(self.points, axis=0).max())
        far = np.abs(here[1] - here[0]) > 0.2 * extent
        turn = (onto[1] - onto[0])[far] / (here[1] - here[0])[far]
        keep = (np.abs(turn) > 0.4) & (np.abs(turn) < 2.5)
        turn, first = turn[keep][:count], here[0][far][keep][:count]
        shift = onto[0][far][keep][:count] - turn * first
        out = np.tile(np.eye(3), (len(turn) + 1, 1, 1))
        a, b = turn.real, turn.imag
        out[1:, 0, 0], out[1:, 0, 1], out[1:, 1, 0], out[1:, 1, 1] = a, -b, b, a
        out[1:, 0, 2], out[1:, 1, 2] = shift.real, shift.imag
        middle = (np.array(self.size) - 1) * CELL / 2 + 1.5 - self.points.mean(0)
        out[0, :2, 2] = middle
        return out

    def score(self, matrices: Array) -> Array:
        """Return the weighted mean of the ratios, none counted below chance or outside: (N,)."""
        out = np.empty(len(matrices))
        total = self.weight.sum()
        rows = np.arange(len(self.points))
        for k, matrix in enumerate(matrices):
            places, front = _mapped(matrix, self.points)
            cells = np.round((places - 1.5) / CELL)
            inside = front & (cells >= 0).all(1) & (cells < self.size).all(1)
            y, x = np.where(inside[:, None], cells, 0).astype(int).T
            out[k] = (self.weight * inside * np.maximum(self.ratio[rows, y, x], 0)).sum() / total
        return out

    def refined(self, matrix: Array, shape: tuple[int, int]) -> Array:
        """Refine by where cells fit best nearby."""
        current = matrix
        for round_, reach in enumerate(_COARSE_REACH):
            expected, front = _mapped(current, self.points)
            cells = (expected - 1.5) / CELL
            found, sure = _peak_nearby(self.ratio, cells, reach)
            total = self.weight * sure * front
            if (total > 0).sum() < 8:
                break
            limit = CELL * max(reach / (1 + round_), 1.0)
            following = _fitted(self.points, CELL * found + 1.5, total, current, limit)
            if following is None or not plausible(following, shape, 8.0):
                break
            current = following
        return current


def _spread_places(maps: Maps, count: int) -> tuple[NDArray[np.intp], Array]:
    """Return places (N, 2) all over the maps, in each block the one that weighs most, and their weights."""
    weight = np.linalg.norm(maps, axis=0)
    h, w = weight.shape
    step = max(int(np.sqrt(h * w / count)), 1)
    rows, columns = max(h // step, 1), max(w // step, 1)
    part = weight[: rows * step, : columns * step].reshape(rows, step, columns, step).swapaxes(1, 2)
    best = part.reshape(rows, columns, -1).argmax(-1)
    y = np.arange(rows)[:, None] * step + best // step
    x = np.arange(columns) * step + best % step
    places = np.stack([y, x], -1).reshape(-1, 2)
    return places, weight[places[:, 0], places[:, 1]].astype(float)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32(1e-6))
    return np.asarray(vectors / length, np.float32)


def _mapped(matrix: Array, points: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Return where points go, and which stay in front of the horizon."""
    depth = points @ matrix[2, :2] + matrix[2, 2]
    front = depth > 1e-3 * abs(matrix[2, 2])
    return (points @ matrix[:2, :2].T + matrix[:2, 2]) / np.where(front, depth, 1.0)[:, None], front


def _window(reach: int) -> NDArray[np.intp]:
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.stack([y.ravel(), x.ravel()], -1)


def _nearby(
    maps: Maps, query: NDArray[np.float32], expected: Array, reach: int, sharpness: float
) -> tuple[Array, Array]:
    """Return the soft maximum of the likeness around each expected place, and how sure it is (0 to 1)."""
    h, w = maps.shape[1:]
    window = _window(reach)
    middle = np.round(expected).astype(int)
    places = middle[:, None] + window
    inside = np.all((places >= 0) & (places < (h, w)), axis=-1)
    y, x = np.where(inside[..., None], places, 0).transpose(2, 0, 1)
    keys = maps[:, y, x]
    length = np.sqrt((keys * keys).sum(0))
    likeness = sharpness * np.einsum("cqm,qc->qm", keys, query, optimize=True) / np.maximum(length, 1e-6)
    likeness = np.where(inside, likeness, -np.inf)
    usable = inside.mean(1) > 0.6
    found, sure = _soft_peak(likeness, window, usable)
    at = np.clip(np.round(found + middle).astype(int), 0, (h - 1, w - 1))
    return found + middle, sure * np.linalg.norm(maps[:, at[:, 0], at[:, 1]], axis=0)


def _peak_nearby(ratio: NDArray[np.float32], cells: Array, reach: int) -> tuple[Array, Array]:
    """Do as `_nearby` does, in the volume."""
    h, w = ratio.shape[1:]
    window = _window(reach)
    middle = np.round(cells).astype(int)
    places = middle[:, None] + window
    inside = np.all((places >= 0) & (places < (h, w)), axis=-1)
    y, x = np.where(inside[..., None], places, 0).transpose(2, 0, 1)
    values = np.where(inside, ratio[np.arange(len(ratio))[:, None], y, x], -np.inf)
    top = np.where(np.isfinite(values), values, -np.inf).max(1)
    found, sure = _soft_peak(values.astype(float), window, np.any(inside, axis=1))
    return found + middle, sure * np.clip(top, 0, 6) / 6


def _soft_peak(values: Array, window: NDArray[np.intp], usable: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Return the mean place over the 3 x 3 values around the largest one, and the share of chance that lies there."""
    safe = np.where(usable[:, None], values, 0.0)
    chance = np.exp(safe - safe.max(1, keepdims=True))
    chance /= chance.sum(1, keepdims=True)
    best = window[chance.argmax(1)]
    near = np.abs(window[None] - best[:, None]).max(-1) <= 1
    local = chance * near
    mass = local.sum(1)
    mean = (local[..., None] * window).sum(1) / mass[:, None]
    edge = np.abs(best).max(1) == np.abs(window).max()
    return mean, np.where(usable & ~edge, mass, 0.25 * mass * usable)


def _fitted(points: Array, found: Array, weight: Array, matrix: Array, limit: float, rounds: int = 8) -> Array | None:
    """Return the homography nearest to matches, by Gauss-Newton with weights that fall off beyond ``limit`` pixels.

    The weights are those of Geman and McClure; a small ridge holds what the matches leave open.
    """
    middle, unit = points.mean(0), max(float(np.ptp(points, axis=0).max()) / 2, 1.0)
    u, v = ((points - middle) / unit).T
    to_points = np.array([[unit, 0, middle[0]], [0, unit, middle[1]], [0, 0, 1.0]])
    current = matrix @ to_points
    current = current / current[2, 2]
    one, zero = np.ones_like(u), np.zeros_like(u)
    for _ in range(rounds):
        depth = current[2, 0] * u + current[2, 1] * v + 1
        if (depth <= 1e-3).any():
            return None
        y = (current[0, 0] * u + current[0, 1] * v + current[0, 2]) / depth
        x = (current[1, 0] * u + current[1, 1] * v + current[1, 2]) / depth
        left_y, left_x = found[:, 0] - y, found[:, 1] - x
        robust = weight / (1 + (left_y**2 + left_x**2) / limit**2) ** 2
        rows_y = np.stack([u, v, one, zero, zero, zero, -y * u, -y * v], -1) / depth[:, None]
        rows_x = np.stack([zero, zero, zero, u, v, one, -x * u, -x * v], -1) / depth[:, None]
        normal = (rows_y * robust[:, None]).T @ rows_y + (rows_x * robust[:, None]).T @ rows_x
        right = rows_y.T @ (robust * left_y) + rows_x.T @ (robust * left_x)
        scale = np.diag(normal) + 1e-12
        try:
            step = np.linalg.solve(normal + _RIDGE * np.diag(scale), right)
        except np.linalg.LinAlgError:
            return None
        current = current + np.append(step, 0.0).reshape(3, 3)
        if not np.isfinite(current).all():
            return None
        if np.abs(step[:6]).max() < 1e-3:
            break
    out = current @ np.linalg.inv(to_points)
    if abs(out[2, 2]) < 1e-9:
        return None
    return np.asarray(out / out[2, 2])


def _standard_error(points: Array, apart: Array, weight: Array, shape: tuple[int, int]) -> float:
    """Return the standard error of the corners, pixels, that weighted residuals imply: eight numbers of N matches."""
    near = apart < 3
    effective = weight[near].sum() ** 2 / max((weight[near] ** 2).sum(), 1e-12)
    if effective < 8:
        return float("inf")
    variance = (weight[near] * apart[near] ** 2).sum() / weight[near].sum() / 2
    reach = np.linalg.norm(corners_of(shape) - points.mean(0), axis=1).mean() / max(float(points.std()), 1e-6)
    return float(np.sqrt(variance * (1 + reach**2) / effective))
