"""RASL as published (Peng, Ganesh, Wright, Xu, Ma, PAMI 2012), to compare with: a nuclear norm instead of a rank.

Minimise ``||A||_* + lambda ||E||_1`` so that the warped frames, as unit columns, are ``A + E``, linearised in the
motion, solved by the inexact augmented Lagrange method, warped anew. The sum runs over a region that all frames show,
here the middle of the field, and from coarse to fine, or large motion is never found. Each of its many steps needs the
singular values of all frames at once, held in memory: that is why it is no solver of the package.
"""

from __future__ import annotations

import numpy as np

from stackalign.core.frames.reduction import binned, enlarged, reduced
from stackalign.core.generators import exponential, generators, velocities
from stackalign.core.geometry import centre
from stackalign.core.transform import TransformModel
from stackalign.core.warping.resample import warp_frame

MARGIN = 0.15  # of the field, on each side: left out


def rasl(frames: np.ndarray, factors: tuple[int, ...] = (4, 2, 1), outer: int = 40) -> np.ndarray:
    """Return moving -> reference, (T, 3, 3), of images (T, y, x)."""
    matrices = np.tile(np.eye(3), (len(frames), 1, 1))
    for factor in factors:
        both = (factor, factor)
        small = np.array([binned(np.asarray(f, np.float32), both) for f in frames], np.float32)
        matrices = np.array([reduced(m, both) for m in matrices])
        before = np.inf
        for _ in range(outer):
            matrices, cost = _linearised(small, matrices)
            if abs(before - cost) < 1e-4 * cost:
                break
            before = cost
        matrices = np.array([enlarged(m, both) for m in matrices])
    return np.linalg.inv(matrices[0]) @ matrices


def _linearised(frames: np.ndarray, matrices: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the motion after one convex problem around the present one, and its value."""
    shape = frames.shape[1:]
    inside = tuple(slice(round(MARGIN * n), n - round(MARGIN * n)) for n in shape)
    points = np.stack(np.meshgrid(*[np.arange(n, dtype=float)[s] for n, s in zip(shape, inside, strict=True)],
                                  indexing="ij"), -1).reshape(-1, 2)  # fmt: skip
    group = generators(TransformModel.EUCLIDEAN, centre(shape), min(shape) / 4, np.ones(2))
    flow = velocities(group, points)
    columns, motions = [], []
    for frame, matrix in zip(frames, matrices, strict=True):
        warped = warp_frame(frame, matrix, fill="edge").astype(float)
        slopes = np.stack([g[inside].ravel() for g in np.gradient(warped)], -1)
        column, size = warped[inside].ravel(), np.linalg.norm(warped[inside])
        jacobian = np.einsum("nd,ndk->nk", slopes, flow) / size
        column = column / size
        columns.append(column)
        motions.append(jacobian - np.outer(column, column @ jacobian))  # a unit column stays one
    d = np.array(columns).T
    bases, triangles = zip(*(np.linalg.qr(j) for j in motions), strict=True)
    moved, cost = _inexact_lagrange(d, bases)
    steps = [np.linalg.solve(r, m) for r, m in zip(triangles, moved, strict=True)]
    # warped by exp(p) on top of its motion, a frame changes by minus its slope along the flow
    return np.array([exponential(group, -s) @ m for s, m in zip(steps, matrices, strict=True)]), cost


def _inexact_lagrange(d: np.ndarray, bases: tuple[np.ndarray, ...]) -> tuple[np.ndarray, float]:
    """Solve ``min ||A||_* + lambda ||E||_1, d + J t = A + E`` for the motion in orthonormal directions (T, k)."""
    weight = 1 / np.sqrt(len(d))
    top = np.linalg.norm(d, 2)
    y = d / max(top, np.abs(d).max() / weight)
    mu, e, moved = 1.25 / top, np.zeros_like(d), np.zeros((d.shape[1], bases[0].shape[1]))
    shift = np.zeros_like(d)
    for _ in range(100):
        wanted = d + shift - e + y / mu
        squares, right = np.linalg.eigh(wanted.T @ wanted)  # few frames, many pixels: as good as their singular values
        values = np.sqrt(np.maximum(squares, 1e-30))
        a = wanted @ ((right * np.maximum(1 - 1 / (mu * values), 0)) @ right.T)
        rest = d + shift - a + y / mu
        e = np.sign(rest) * np.maximum(np.abs(rest) - weight / mu, 0)
        wanted = a + e - d - y / mu
        for k, q in enumerate(bases):
            moved[k] = q.T @ wanted[:, k]
            shift[:, k] = q @ moved[k]
        gap = d + shift - a - e
        y += mu * gap
        mu *= 1.25
        if np.linalg.norm(gap) < 1e-5 * np.linalg.norm(d):
            break
    return moved, float(np.maximum(values - 1 / mu, 0).sum() + weight * np.abs(e).sum())
