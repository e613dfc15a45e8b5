"""The low-rank part of aligned frames: rows ``X (T, P)``, a basis ``W (k, P)`` and coefficients ``C (T, k)``.

REALS (Cho et al., WACV 2023) asks for ``min_W || X - X W^T W ||_1`` with orthonormal rows. Here ``X W^T`` becomes
the coefficients that minimise the same loss over the pixels that each frame really covers, so that zeros outside the
field never enter; where every frame covers everything and the loss is squared, both are the same. Alternating weighted
least squares (Huber weights) decreases the loss at every half-step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

_WHOLE = 0.01  # how far from whole numbers of the least step the steps between values may be


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


def robust_scale(residual: NDArray[Any]) -> float:
    """Return 1.4826 x the median absolute residual of a sample of the finite pixels."""
    flat = residual.ravel()
    sample = np.abs(flat[:: max(1, flat.size // 20_000)])
    sample = sample[np.isfinite(sample)]
    return 1.4826 * float(np.median(sample)) if sample.size else 0.0


def rounding(frame: NDArray[Any]) -> float:
    """Return the standard deviation of rounding, from the step between the values of a frame; 0 if there is none."""
    sample = np.asarray(frame, np.float64).ravel()[:: max(1, frame.size // 20_000)]
    values = np.unique(sample[np.isfinite(sample)])
    if not 1 < len(values) < 0.5 * sample.size:
        return 0.0
    gaps = np.diff(values)
    steps = gaps / gaps.min()
    return float(gaps.min() / np.sqrt(12)) if np.abs(steps - np.round(steps)).max() < _WHOLE else 0.0


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
