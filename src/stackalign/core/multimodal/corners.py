"""Four corners of an image and the homography that moves them: batched, in pixels (y, x)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.geometry import corners

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

# corners in the order of `geometry.corners`, walked around the image, and what follows each of them, and each side
_ROUND, _NEXT, _AFTER = [0, 1, 3, 2], [1, 3, 2, 0], [1, 2, 3, 0]


def matrices_of(offsets: ArrayLike, shape: Sequence[int]) -> Array:
    """Return the homographies that move the corners of an image by ``offsets``.

    Normalised direct linear transform (Hartley & Zisserman, Multiple View Geometry, 2nd ed., alg. 4.2): four pairs fix
    the eight numbers exactly, so that no singular value decomposition is needed.

    Parameters
    ----------
    offsets : array_like (..., 4, 2)
        (y, x) in pixels, of the corners in the order of `stackalign.core.geometry.corners`.
    shape : sequence of int (2,)
        Of the image.

    Returns
    -------
    ndarray (..., 3, 3)
        NaN where three of the moved corners lie on a line: there is no such homography.

    Examples
    --------
    >>> matrices_of(np.full((4, 2), 3.0), (40, 50)).round(6).tolist()
    [[1.0, 0.0, 3.0], [0.0, 1.0, 3.0], [0.0, 0.0, 1.0]]
    """
    still = corners(shape)
    moved = still + np.asarray(offsets, float)
    middle, radius = still.mean(0), float(np.abs(still - still.mean(0)).max())
    a, b = (still - middle) / radius, (moved - middle) / radius
    rows = np.zeros((*b.shape[:-2], 8, 8))
    for k in range(2):  # coordinate k of H a against b_k times its last row
        part = rows[..., 4 * k : 4 * k + 4, :]
        part[..., 3 * k : 3 * k + 2], part[..., 3 * k + 2] = a, 1.0
        part[..., 6:] = -b[..., k, None] * a
    right = np.concatenate([b[..., 0], b[..., 1]], -1)
    out = np.full((*b.shape[:-2], 3, 3), np.nan)
    fixed = np.isfinite(right).all(-1) & (_smallest_triangle(np.nan_to_num(b)) > 1e-6)
    out[fixed, 2, 2] = 1.0
    out.reshape(-1, 9)[fixed.ravel(), :8] = np.linalg.solve(rows[fixed], right[fixed][..., None])[..., 0]
    here = np.diag([1 / radius, 1 / radius, 1.0])
    here[:2, 2] = -middle / radius
    out = np.linalg.inv(here) @ out @ here
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(out / out[..., 2:, 2:])


def _smallest_triangle(points: Array) -> Array:
    """Return the smallest of the doubled areas of the triangles of four points (..., 4, 2)."""
    areas = []
    for i, j, k in ((0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)):
        a, c = points[..., j, :] - points[..., i, :], points[..., k, :] - points[..., i, :]
        areas.append(np.abs(a[..., 0] * c[..., 1] - a[..., 1] * c[..., 0]))
    return np.asarray(np.min(areas, axis=0))


def offsets_of(matrices: ArrayLike, shape: Sequence[int]) -> Array:
    """Return by how much homographies (..., 3, 3) move the corners of an image, (..., 4, 2); inverse of `matrices_of`.

    NaN where a corner is carried to infinity or beyond it.
    """
    h, still = np.asarray(matrices, float), corners(shape)
    mapped = still @ np.swapaxes(h[..., :2, :2], -1, -2) + h[..., None, :2, 2]
    depth = still @ h[..., 2, :2, None] + h[..., 2:, 2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(depth > 0, mapped / depth, np.nan) - still)


def corner_distance(first: ArrayLike, second: ArrayLike, shape: Sequence[int]) -> Array:
    """Return the mean distance (...) of the corners of an image under two homographies, pixels."""
    apart = offsets_of(first, shape) - offsets_of(second, shape)
    return np.asarray(np.sqrt((apart**2).sum(-1)).mean(-1))


def plausible(matrix: ArrayLike, shape: Sequence[int], most: float = 3.0) -> bool:
    """Return whether a homography shows an image from its front, each part at most ``most`` times larger or smaller.

    The moved corners must form a convex quadrilateral that is not mirrored; ``most`` bounds what it does to areas (as
    the square) at each corner, and to the sides.
    """
    still = corners(shape).T
    moved = np.asarray(matrix, float) @ np.vstack([still, np.ones(4)])
    if not (np.isfinite(moved).all() and moved[2].min() > 0):
        return False
    sides, before = (ends[:, _NEXT] - ends[:, _ROUND] for ends in (moved[:2] / moved[2], still))
    turns, flat = (s[0] * s[1, _AFTER] - s[1] * s[0, _AFTER] for s in (sides, before))
    areas, lengths = turns / flat, np.sqrt((sides**2).sum(0) / (before**2).sum(0))
    return bool(most**-2 < areas.min() and areas.max() < most**2 and 1 / most < lengths.min() and lengths.max() < most)
