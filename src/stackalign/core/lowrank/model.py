"""The low-rank part of aligned frames: rows ``X (T, P)``, a basis ``W (k, P)`` and coefficients ``C (T, k)``.

REALS (Cho et al., WACV 2023) asks for ``min_W || X - X W^T W ||_1`` with orthonormal rows. Here ``X W^T`` becomes
the coefficients that minimise the same loss over the pixels that each frame really covers, so that zeros outside the
field never enter; where every frame covers everything and the loss is squared, both are the same. Alternating weighted
least squares (Huber weights) decreases the loss at every half-step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """A basis of ``k`` images and what each frame takes of them.

    Attributes
    ----------
    basis : ndarray (k, P) float32
        Orthonormal rows; pixels that no frame covers are 0.
    coefficients : ndarray (T, k) float64
        Per frame: its brightness lies in here.
    """

    basis: Floats
    coefficients: NDArray[np.float64]

    @property
    def rank(self) -> int:
        """Number of basis images."""
        return len(self.basis)

    def frame(self, t: int) -> Floats:
        """Return the low-rank part of frame ``t``, (P,), intensity units of the input."""
        return np.asarray(self.coefficients[t].astype(np.float32) @ self.basis, np.float32)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _coefficients(x: Any, basis: Any, start: Any, clip: float, rounds: int, out: Any) -> None:
    """Weighted least squares of one frame on the basis, Huber weights, NaN pixels left out."""
    k, p = basis.shape
    c = start.copy()
    for _ in range(rounds):
        a = np.zeros((k, k))
        b = np.zeros(k)
        for i in range(p):
            value = x[i]
            if np.isnan(value):
                continue
            fit = 0.0
            for j in range(k):
                fit += c[j] * basis[j, i]
            r = abs(value - fit)
            w = 1.0 if r <= clip else clip / r
            for j in range(k):
                wb = w * basis[j, i]
                b[j] += wb * value
                for m in range(j + 1):
                    a[j, m] += wb * basis[m, i]
        trace = 0.0
        for j in range(k):
            trace += a[j, j]
            for m in range(j):
                a[m, j] = a[j, m]
        if trace <= 0:
            break
        for j in range(k):
            a[j, j] += 1e-9 * trace
        c = np.linalg.solve(a, b)
    out[:] = c


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _basis(x: Any, c: Any, basis: Any, clip: Any, ridge: float, first: int, last: int) -> None:
    """Weighted least squares of every pixel ``first .. last-1`` over the frames, Huber weights; in place."""
    t, k = c.shape
    a = np.empty((k, k))
    b = np.empty(k)
    for i in range(first, last):
        a[:] = 0
        b[:] = 0
        n = 0
        for s in range(t):
            value = x[s, i]
            if np.isnan(value):
                continue
            n += 1
            fit = 0.0
            for j in range(k):
                fit += c[s, j] * basis[j, i]
            r = abs(value - fit)
            w = 1.0 if r <= clip[s] else clip[s] / r
            for j in range(k):
                wc = w * c[s, j]
                b[j] += wc * value
                for m in range(j + 1):
                    a[j, m] += wc * c[s, m]
        if n == 0:
            basis[:, i] = 0
            continue
        for j in range(k):
            a[j, j] += ridge
            for m in range(j):
                a[m, j] = a[j, m]
        if k == 1:
            basis[0, i] = b[0] / a[0, 0]
        else:
            solution = np.linalg.solve(a, b)
            for j in range(k):
                basis[j, i] = solution[j]


def robust_scale(residual: NDArray[Any]) -> float:
    """Return 1.4826 x the median absolute residual of a sample of the finite pixels."""
    flat = residual.ravel()
    sample = np.abs(flat[:: max(1, flat.size // 20_000)])
    sample = sample[np.isfinite(sample)]
    return 1.4826 * float(np.median(sample)) if sample.size else 0.0


def initial_low_rank(x: Floats, rank: int) -> LowRank:
    """Return a start: the median over the frames, then the leading directions of what it leaves."""
    with np.errstate(invalid="ignore"):
        covered = np.isfinite(x)
        filled = np.where(covered, x, 0)
        mean = filled.sum(0) / np.maximum(covered.sum(0), 1)
    rows = [mean]
    if rank > 1:
        rest = np.where(covered, x - mean, 0)
        values, vectors = np.linalg.eigh(rest @ rest.T)
        order = np.argsort(values)[::-1][: rank - 1]
        rows.extend(vectors[:, order].T @ rest)
    return _orthonormal(np.asarray(rows, np.float64), np.zeros((len(x), rank)))


def _orthonormal(basis: NDArray[np.float64], coefficients: NDArray[np.float64]) -> LowRank:
    """Return the same product ``C W`` with orthonormal rows of W."""
    q, r = np.linalg.qr(basis.T)
    sign = np.where(np.diag(r) < 0, -1.0, 1.0)
    return LowRank(np.ascontiguousarray((q * sign).T, np.float32), coefficients @ (r.T * sign))


def fit_low_rank(x: Floats, start: LowRank | None, rank: int, *, huber: float = 1.345, rounds: int = 2) -> LowRank:
    """Fit the low-rank part of aligned frames.

    Parameters
    ----------
    x : ndarray (T, P) float32
        Aligned frames as rows; NaN where a frame does not cover a pixel.
    start : LowRank or None
        Where to start; None: from the mean.
    rank : int
        Number of basis images, at most T.
    huber : float
        Residuals beyond this many robust standard deviations count linearly.
    rounds : int
        Alternations.
    """
    rank = max(1, min(rank, len(x)))
    low = start if start is not None and start.rank == rank else initial_low_rank(x, rank)
    c = np.array(low.coefficients)
    for _ in range(rounds):
        clip = np.full(len(x), np.inf)
        for t, row in enumerate(x):
            if np.isfinite(row).any():
                if c[t].any():
                    clip[t] = max(huber * robust_scale(row - c[t].astype(np.float32) @ low.basis), 1e-12)
                _coefficients(row, low.basis, c[t], clip[t], 3, c[t])
        basis = np.array(low.basis, np.float64)
        _basis(x, c, basis, clip, 1e-9 * float((c**2).sum() + 1e-30), 0, x.shape[1])
        low = _orthonormal(basis, c)
        c = np.array(low.coefficients)
    return low
