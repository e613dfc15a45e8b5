"""The motion that most blocks of an image agree on, for many places at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.geometry import centre
from stackalign.core.multimodal.corners import plausible

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_ROUNDS = 4  # of weights that follow the residuals
_STEPS = 3  # of Gauss-Newton between them
_STEEPEST = 4.0  # a motion that magnifies or shrinks any part by more is none


def agreed_motions(where: Array, found: Array, weights: Array, give: Array, shape: tuple[int, int]) -> Array:
    """Return the homographies, or else the affine motions, that most blocks agree on.

    Weighted least squares on where blocks went, with Cauchy weights that follow the residuals: affine first, then
    projective by Gauss-Newton.

    Parameters
    ----------
    where : ndarray (N, 2)
        Centres of the blocks, pixels of the moving image.
    found : ndarray (B, N, 2)
        Where each of them went, pixels of the fixed image.
    weights : ndarray (B, N)
        Not negative; 0: does not count.
    give : ndarray (B,)
        How far blocks could go from where they were expected, pixels.
    shape : (int, int)
        Of the moving image.

    Returns
    -------
    ndarray (B, 3, 3)
        Moving -> fixed; NaN where the blocks fix no motion.
    """
    middle, radius = centre(shape), max(shape) / 2
    here, there = (where - middle) / radius, (found - middle) / radius
    limit = (0.2 * give[:, None] + 1) / radius
    rows = np.c_[here, np.ones(len(here))]
    current, used = np.tile(np.eye(3), (len(found), 1, 1)), weights
    fixed = np.ones(len(found), bool)
    for _ in range(_ROUNDS):
        normal = np.einsum("bn,ni,nj->bij", used, rows, rows)
        mean = np.maximum(used.sum(1), 1e-12)
        fixed &= np.linalg.det(normal / mean[:, None, None]) > 1e-6
        normal[~fixed] = np.eye(3)
        right = np.einsum("bn,ni,bnk->bik", used, rows, there)
        current[:, :2] = np.swapaxes(np.linalg.solve(normal, right), -1, -2)
        used = weights * _agreement(current, rows, there, limit)
    affine = current.copy()
    for _ in range(_ROUNDS):
        for _ in range(_STEPS):
            current = current + _projective_step(current, rows, there, used)
        used = weights * _agreement(current, rows, there, limit)
    to_unit = np.diag([1 / radius, 1 / radius, 1.0])
    to_unit[:2, 2] = -middle / radius
    back = np.linalg.inv(to_unit)
    out = np.full(current.shape, np.nan)
    for k in np.flatnonzero(fixed):
        for motion in (affine[k], current[k]):
            matrix = back @ motion @ to_unit
            if not (np.isfinite(matrix).all() and plausible(matrix, shape, _STEEPEST)):
                break
            out[k] = matrix / matrix[2, 2]
    return out


def _projected(motions: Array, rows: Array) -> tuple[Array, Array]:
    """Return where motions (B, 3, 3) carry points (N, 3), (B, N, 2), and the depth there, (B, N, 1)."""
    mapped = rows @ np.swapaxes(motions, -1, -2)
    depth = np.maximum(mapped[..., 2:], 1e-3)
    return mapped[..., :2] / depth, depth


def _agreement(motions: Array, rows: Array, there: Array, limit: Array) -> Array:
    """Return weights (B, N) that fall with the distance between where blocks went and where a motion puts them."""
    apart = ((_projected(motions, rows)[0] - there) ** 2).sum(-1)
    return np.asarray(1 / (1 + apart / limit**2))


def _projective_step(motions: Array, rows: Array, there: Array, weights: Array) -> Array:
    """Return one step of Gauss-Newton, (B, 3, 3); the last entry stays."""
    put, depth = _projected(motions, rows)
    slopes = np.zeros((*put.shape, 9))  # of (y, x) to the nine entries
    over = rows / depth
    slopes[..., 0, 0:3] = slopes[..., 1, 3:6] = over
    slopes[..., 6:9] = -put[..., None] * over[..., None, :]
    slopes = slopes[..., :8].reshape(len(motions), -1, 8)
    scaled = slopes * np.repeat(weights, 2, axis=1)[..., None]
    normal = np.swapaxes(scaled, -1, -2) @ slopes
    normal += (1e-9 * np.trace(normal, axis1=1, axis2=2)[:, None, None] + 1e-12) * np.eye(8)
    right = np.swapaxes(scaled, -1, -2) @ (there - put).reshape(len(motions), -1, 1)
    step = np.zeros((len(motions), 9))
    step[:, :8] = np.linalg.solve(normal, right)[..., 0]
    return step.reshape(-1, 3, 3)
