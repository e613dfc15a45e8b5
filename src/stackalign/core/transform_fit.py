"""Weighted least-squares estimation of a homogeneous matrix from pairs of points, any dimension."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]


def needed_points(model: str, ndim: int) -> int:
    """Return the least number of point pairs that fixes ``model`` in ``ndim`` dimensions."""
    return {"translation": 1, "euclidean": ndim, "similarity": ndim, "affine": ndim + 1, "projective": ndim + 2}[model]


def fit_matrix(moving: ArrayLike, reference: ArrayLike, model: str, weights: ArrayLike | None = None) -> Array:
    """Return the homogeneous matrix that carries ``moving`` (N, d) onto ``reference`` (N, d)."""
    src, dst = np.asarray(moving, float), np.asarray(reference, float)
    if src.ndim != 2 or src.shape != dst.shape or src.shape[1] not in (2, 3):
        raise ValueError(f"moving and reference must both be (N, 2) or (N, 3), got {src.shape} and {dst.shape}")
    w = np.ones(len(src)) if weights is None else np.asarray(weights, float)
    if w.shape != (len(src),):
        raise ValueError(f"weights must be ({len(src)},), one per point, got {w.shape}")
    if np.any(w < 0):
        raise ValueError("weights must not be negative")
    keep = np.isfinite(src).all(1) & np.isfinite(dst).all(1) & np.isfinite(w) & (w > 0)
    src, dst, w = src[keep], dst[keep], w[keep] / max(w[keep].max(initial=0), 1e-300)
    ndim, needed = src.shape[1], needed_points(model, src.shape[1])
    if len(src) < needed:
        raise ValueError(f"a {model} transform in {ndim}-D needs {needed} points, got {len(src)} usable")
    if model == "translation":
        out = np.eye(ndim + 1)
        out[:-1, -1] = np.average(dst - src, axis=0, weights=w)
        return out
    if model in ("euclidean", "similarity"):
        return _umeyama(src, dst, w, scaled=model == "similarity")
    if model == "affine":
        return _affine(src, dst, w)
    return _projective(src, dst, w)


def _centred(points: Array, w: Array) -> tuple[Array, Array]:
    mean = np.average(points, axis=0, weights=w)
    return mean, points - mean


def _umeyama(src: Array, dst: Array, w: Array, *, scaled: bool) -> Array:
    ndim = src.shape[1]
    mean_src, a = _centred(src, w)
    mean_dst, b = _centred(dst, w)
    covariance = (b * w[:, None]).T @ a / w.sum()
    u, singular, vt = np.linalg.svd(covariance)
    if singular[0] <= 0 or (ndim == 3 and singular[1] < 1e-12 * singular[0]):
        raise ValueError("the points do not fix a rotation: all coincide or lie on one line")
    sign = np.ones(ndim)
    sign[-1] = np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0
    rotation = u @ np.diag(sign) @ vt
    scale = 1.0
    if scaled:
        scale = float((singular * sign).sum() / ((a**2 * w[:, None]).sum() / w.sum()))
    out = np.eye(ndim + 1)
    out[:-1, :-1] = scale * rotation
    out[:-1, -1] = mean_dst - scale * rotation @ mean_src
    return out


def _affine(src: Array, dst: Array, w: Array) -> Array:
    ndim = src.shape[1]
    mean_src, a = _centred(src, w)
    mean_dst, b = _centred(dst, w)
    root = np.sqrt(w)[:, None]
    if np.linalg.matrix_rank(a * root, tol=1e-9 * max(np.abs(a).max(), 1e-300)) < ndim:
        raise ValueError(
            "the points do not fix an affine transform: they lie on one " + ("line" if ndim == 2 else "plane")
        )
    linear = np.linalg.lstsq(a * root, b * root, rcond=None)[0].T
    out = np.eye(ndim + 1)
    out[:-1, :-1] = linear
    out[:-1, -1] = mean_dst - linear @ mean_src
    return out


def _normaliser(points: Array, w: Array) -> Array:
    mean, centred = _centred(points, w)
    spread = np.sqrt(np.average((centred**2).sum(1), weights=w) / points.shape[1])
    if spread <= 0:
        raise ValueError("the points all coincide")
    out = np.diag([1 / spread] * points.shape[1] + [1.0])
    out[:-1, -1] = -mean / spread
    return out


def _projective(src: Array, dst: Array, w: Array, iterations: int = 10) -> Array:
    n, ndim = src.shape
    norm_src, norm_dst = _normaliser(src, w), _normaliser(dst, w)
    a = src @ norm_src[:-1, :-1].T + norm_src[:-1, -1]
    b = dst @ norm_dst[:-1, :-1].T + norm_dst[:-1, -1]
    homogeneous = np.column_stack([a, np.ones(n)])
    size, root = ndim + 1, np.sqrt(w)
    rows = np.zeros((ndim, n, size, size))
    for k in range(ndim):  # row k of H against b_k times its last row
        rows[k, :, k] = homogeneous * root[:, None]
        rows[k, :, ndim] = -b[:, k, None] * homogeneous * root[:, None]
    _, singular, vt = np.linalg.svd(rows.reshape(ndim * n, size * size), full_matrices=True)
    if (np.sum(singular > 1e-10 * singular[0])) < size * size - 1:
        raise ValueError("the points do not fix a projective transform: too many lie on one line")
    h = vt[-1].reshape(size, size)
    if abs(h[-1, -1]) < 1e-12:
        raise ValueError("the points do not fix a projective transform: they are degenerate")
    h = h / h[-1, -1]
    for _ in range(iterations):  # Gauss-Newton on the weighted distance in the (normalised) reference
        mapped = homogeneous @ h.T
        depth = mapped[:, -1:]
        predicted = mapped[:, :-1] / depth
        jacobian = np.zeros((ndim, n, size, size))
        for k in range(ndim):
            jacobian[k, :, k] = homogeneous / depth
            jacobian[k, :, ndim] = -predicted[:, k, None] * homogeneous / depth
        scaled = (jacobian * root[None, :, None, None]).reshape(ndim * n, -1)[:, :-1]
        residual = ((b - predicted) * root[:, None]).T.ravel()
        step = np.append(np.linalg.lstsq(scaled, residual, rcond=None)[0], 0.0).reshape(size, size)
        h = h + step
        if np.abs(step).max() < 1e-14:
            break
    out = np.linalg.inv(norm_dst) @ h @ norm_src
    return np.asarray(out / out[-1, -1])
