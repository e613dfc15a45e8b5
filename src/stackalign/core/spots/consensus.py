"""Robust rigid motion of a few points between two frames, for prediction while tracking; pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


def predict(matrix: Array, points: Array) -> Array:
    """Map points (N, d) by a homogeneous matrix without a projective part."""
    return np.asarray(points @ matrix[:-1, :-1].T + matrix[:-1, -1])


def robust_rigid(scene: Array, seen: Array, start: Array, tolerance: float) -> tuple[Array, NDArray[np.bool_]]:
    """Return the rigid motion that carries ``scene`` (N, d) onto ``seen``, and who follows it.

    The consensus comes first: the residual displacement to ``start`` that most points share within ``tolerance``; then
    a rigid fit (translation in 3-D, or of fewer than three points) to those, reweighted until it settles.
    """
    ndim = scene.shape[1]
    offset = seen - predict(start, scene)
    votes = np.asarray((np.abs(offset[:, None] - offset[None]) <= tolerance).all(2))
    best = int(votes.sum(1).argmax())
    follow = votes[best]
    for _ in range(3):
        shift = offset[follow].mean(0)
        matrix = start.copy()
        matrix[:-1, -1] += shift
        if ndim == 2 and follow.sum() >= 3:
            matrix = _procrustes(scene[follow], seen[follow])
        residual = np.sqrt(((seen - predict(matrix, scene)) ** 2).sum(1))
        fresh = residual <= tolerance
        if not fresh.any() or (fresh == follow).all():
            break
        follow = fresh
    return matrix, follow


def _procrustes(scene: Array, seen: Array) -> Array:
    a, b = scene - scene.mean(0), seen - seen.mean(0)
    along, across = float((a * b).sum()), float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum())
    length = np.hypot(along, across)
    out = np.eye(3)
    if length > 0:
        # turning y towards x by the angle: (y, x) -> (c y - s x, s y + c x)
        c, s = along / length, across / length
        out[:2, :2] = [[c, -s], [s, c]]
    out[:2, 2] = seen.mean(0) - out[:2, :2] @ scene.mean(0)
    return out


def choose_candidates(
    scene: Array, candidates: list[Array], start: Array, tolerance: float, most: int = 2000
) -> tuple[Array, NDArray[np.int64]]:
    """Return the rigid motion that most particles can follow, and which candidate each one then is (-1: none).

    Parameters
    ----------
    scene : ndarray (P, d)
        Where the particles lie in the scene.
    candidates : list of ndarray (C, d)
        Where each particle may be in this frame, the likeliest first.
    start : ndarray (d+1, d+1)
        Expected motion, scene -> frame: of two motions followed by as many, the nearer one wins.
    tolerance : float
        How far from the motion a particle may lie, pixels.
    most : int
        Most motions tried.

    Notes
    -----
    Motions are proposed by single candidates (a shift) and, in 2-D, by pairs whose distance is that of the scene.
    """
    ndim = scene.shape[1]
    expected = predict(start, scene)
    proposals = [_shifted(start, c - expected[i]) for i, found in enumerate(candidates) for c in found]
    pairs: list[Array] = []
    if ndim == 2:
        for i in range(len(scene)):
            for j in range(i + 1, len(scene)):
                if not len(candidates[i]) or not len(candidates[j]):
                    continue
                far = float(np.hypot(*(scene[j] - scene[i])))
                if far < 8 * tolerance:  # too near each other to tell a rotation
                    continue
                apart = candidates[j][None] - candidates[i][:, None]
                fits = np.abs(np.sqrt((apart**2).sum(2)) - far) <= 1.5 * tolerance
                pairs += [
                    _procrustes(scene[[i, j]], np.stack([candidates[i][a], candidates[j][b]]))
                    for a, b in zip(*np.nonzero(fits), strict=True)
                ]
    if len(pairs) > most:  # evenly, so that it is the same each time
        pairs = [pairs[k] for k in np.linspace(0, len(pairs) - 1, most).astype(int)]
    nobody = np.full(len(scene), -1, np.int64)
    if not proposals:
        return start, nobody
    tried = np.stack(proposals + pairs)
    mapped = np.einsum("hij,pj->hpi", tried[:, :-1, :-1], scene) + tried[:, None, :-1, -1]
    score = np.zeros(len(tried))
    for p, found in enumerate(candidates):
        if len(found):
            distance = np.sqrt(((mapped[:, p, None] - found[None]) ** 2).sum(2)).min(1)
            score += np.where(distance <= tolerance, 1.0 - 0.1 * distance / tolerance, 0.0)
    jump = np.sqrt(((mapped - expected[None]) ** 2).sum(2)).mean(1)
    best = int(np.argmax(score - 0.3 * jump / (jump.max() + 1e-9)))
    matrix = tried[best]
    choice = nobody.copy()
    for _ in range(2):
        for p, found in enumerate(candidates):
            if len(found):
                distance = np.sqrt(((found - predict(matrix, scene[p : p + 1])) ** 2).sum(1))
                k = int(distance.argmin())
                choice[p] = k if distance[k] <= tolerance else -1
        chosen = np.flatnonzero(choice >= 0)
        if not len(chosen):
            break
        seen = np.stack([candidates[p][choice[p]] for p in chosen])
        matrix, _ = robust_rigid(scene[chosen], seen, matrix, tolerance)
    return matrix, choice


def _shifted(matrix: Array, shift: Array) -> Array:
    out = matrix.copy()
    out[:-1, -1] += shift
    return out
