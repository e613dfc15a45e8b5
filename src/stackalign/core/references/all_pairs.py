"""All pairs of frames within a lag, aligned to each other and solved together: no drift adds up, no bad pair counts.

The unknown matrices are found as one sparse least-squares problem over the corners of the frames, with weights that are
re-estimated so that pairs which contradict the others lose theirs (iteratively re-weighted, Cauchy).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve

from stackalign.core.generators import exponential, generators, nearest, velocities
from stackalign.core.geometry import centre, corners
from stackalign.core.references.chained import pair_noise
from stackalign.core.references.reference import PairResult
from stackalign.core.run_state import safely
from stackalign.core.threads import map_frames
from stackalign.core.transform import TransformModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.run_state import RunState
    from stackalign.core.work import Work

_ROUNDS = 15


def align_pairs(run: RunState, lag: int) -> Work[None]:
    """Align every frame to the ``lag`` frames before it, and solve for one transform per frame.

    ``run.details["pairs"]`` then holds arrays of one entry a pair: ``moving``, ``onto``, ``closure`` (how far the pair
    contradicts the solution, px rms at the corners) and ``weight`` (0 to 1).
    """
    count, d = len(run.stack), run.stack.ndim
    message = f"Aligning pairs within {lag} frames"
    pair_noise(run)
    found: list[tuple[int, int, PairResult]] = []
    reasons: dict[int, str] = {}

    def onto(t: int) -> list[tuple[int, int, PairResult]]:
        return _aligned_onto(run, t, range(t + 1, min(t + lag + 1, count)))

    for done, pairs in enumerate(map_frames(onto, range(count)), start=1):
        for moving, base, result in pairs:
            if result.reason:
                reasons.setdefault(moving, result.reason)
            else:
                found.append((moving, base, result))
        yield run.progress(done, count, message)
    matrices, closure, weights, linked = solve_pairs(
        found, count, run.stack.frame_shape, run.aligner.model, run.stack.pixel_size
    )
    run.details |= {
        "rounds": 1,
        "pairs": {
            "moving": np.array([m for m, _, _ in found], int),
            "onto": np.array([b for _, b, _ in found], int),
            "closure": closure,
            "weight": weights,
        },
    }
    mine: list[list[int]] = [[] for _ in range(count)]
    for k, (moving, base, _) in enumerate(found):
        mine[moving].append(k)
        mine[base].append(k)
    for t in range(count):
        if t in run.unusable or not linked[t]:
            reason = run.unusable.get(t, reasons.get(t, "no pair links it to the other frames"))
            run.results[t] = PairResult.failed(d, reason)
            continue
        own = [found[k][2] for k in mine[t]]
        total = float(sum(weights[k] for k in mine[t]))
        quality = max((r for r in own), key=lambda r: r.correlation)
        reason = "all its pairs contradict the other frames" if mine[t] and total < 0.1 else ""
        # half of a pair's variance is the frame's own noise, the same in all its pairs: more pairs do not lessen it
        spread = np.sqrt(np.mean([r.error**2 for r in own], axis=0) * 0.5 * (1 + 1 / max(total, 1.0)))
        run.results[t] = replace(quality, matrix=matrices[t], error=spread, reason=reason, gain=1.0, offset=0.0)


def _aligned_onto(run: RunState, t: int, others: range) -> list[tuple[int, int, PairResult]]:
    d = run.stack.ndim
    image = run.load(t)
    if t in run.unusable:
        return []
    try:
        template = run.aligner.prepare(np.asarray(image, np.float32), run.mask, noise=run.noise, frames=1.0)
    except ValueError as error:
        return [(k, t, PairResult.failed(d, f"frame {t} cannot be its reference: {error}")) for k in others]
    out = []
    start = None
    for k in others:
        frame = run.load(k)
        if k in run.unusable:
            continue
        result = safely(run.aligner, frame, template, start)
        if result.reason and start is not None:
            result = safely(run.aligner, frame, template, None)
        start = None if result.reason else result.matrix
        out.append((k, t, result))
    return out


def solve_pairs(
    pairs: list[tuple[int, int, PairResult]],
    count: int,
    frame_shape: tuple[int, ...],
    model: TransformModel,
    pixel_size: Sequence[float] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Solve for the transforms of all frames.

    Parameters
    ----------
    pairs : list of (moving, onto, PairResult)
        Each with the matrix moving -> onto.
    count : int
        Frames.
    frame_shape : tuple of int
        Whose corners the errors are measured at.
    model : TransformModel
        Family of the result.
    pixel_size : sequence of float (d,), optional
        Rotations are rigid in these units; pixels are cubes if left out.

    Returns
    -------
    matrices : ndarray (T, d+1, d+1)
        Frame -> the first frame of the largest linked group.
    closure : ndarray (N,)
        rms contradiction of each pair at the corners, pixels.
    weights : ndarray (N,)
        What the pair counts, 0 to 1.
    linked : ndarray (T,) of bool
        Whether pairs link the frame to the largest group.
    """
    d = len(frame_shape)
    matrices = np.tile(np.eye(d + 1), (count, 1, 1))
    if not pairs:
        return matrices, np.zeros(0), np.zeros(0), np.zeros(count, bool)
    moving = np.array([m for m, _, _ in pairs])
    onto = np.array([b for _, b, _ in pairs])
    graph = sparse.coo_matrix((np.ones(len(pairs)), (moving, onto)), (count, count))
    _, label = connected_components(graph, directed=False)
    linked = label == np.bincount(label).argmax()
    used = linked[moving]
    base = int(np.argmax(linked))
    shape = np.maximum(frame_shape, 2).tolist()  # a single plane still has two sides
    points = np.column_stack([corners(shape), np.ones(2**d)])
    steps = np.array([r.matrix for _, _, r in pairs])
    mapped = points @ np.swapaxes(steps, 1, 2)
    mapped = mapped / mapped[..., -1:]
    sigma = np.array(
        [max(float(np.sqrt(np.nanmean(r.error**2))) if np.isfinite(r.error).any() else 0.01, 1e-4) for _, _, r in pairs]
    )
    weights = np.where(used, 1.0, 0.0)
    closure = np.zeros(len(pairs))
    group = generators(model, centre(shape), float(np.linalg.norm(centre(shape))), pixel_size)
    for k in range(_ROUNDS):
        told = weights / sigma**2
        if k == 0 or model is TransformModel.TRANSLATION:
            matrices = _solve(moving, onto, steps, mapped, points, told, count, base, linked, model)
            matrices = np.array([nearest(m, model, shape, pixel_size) for m in matrices])
        if model is not TransformModel.TRANSLATION:
            matrices = _refine(matrices, moving, onto, mapped, points, told, base, linked, group)
        ahead = np.einsum("nij,npj->npi", matrices[onto], mapped)
        there = np.einsum("nij,pj->npi", matrices[moving], points)
        gap = ahead[..., :-1] / ahead[..., -1:] - there[..., :-1] / there[..., -1:]
        closure = np.sqrt((gap**2).mean(axis=(1, 2)))
        scale = 2.5 * max(float(np.median(closure[used])), 1e-4)
        fresh = np.where(used, 1 / (1 + (closure / scale) ** 2) ** 2, 0.0)
        if np.abs(fresh - weights).max() < 1e-3:
            weights = fresh
            break
        weights = fresh
    return matrices, closure, weights, linked


def _solve(
    moving: NDArray[np.int_],
    onto: NDArray[np.int_],
    steps: NDArray[np.float64],
    mapped: NDArray[np.float64],
    points: NDArray[np.float64],
    weights: NDArray[np.float64],
    count: int,
    base: int,
    linked: NDArray[np.bool_],
    model: TransformModel,
) -> NDArray[np.float64]:
    d = points.shape[1] - 1
    free = np.flatnonzero(linked & (np.arange(count) != base))
    place = np.full(count, -1)
    place[free] = np.arange(len(free))
    matrices = np.tile(np.eye(d + 1), (count, 1, 1))
    if not len(free):
        return matrices
    if model is TransformModel.TRANSLATION:
        rows = _difference(moving, onto, place, np.ones(1), np.ones((len(moving), 1)), weights)
        a, w = rows
        solution = _least_squares(a, w, -np.repeat(steps[:, :-1, -1], 1, axis=0))
        matrices[free, :-1, -1] = solution.reshape(len(free), 1, d)[:, 0]
        return matrices
    # one row of the matrices at a time: all rows share the same equations, M_onto (step c) - M_moving c = 0
    k = d + 1
    blocks = [_difference(moving, onto, place, point, mapped[:, p], weights) for p, point in enumerate(points)]
    a = sparse.vstack([m for m, _ in blocks]).tocsr()
    w = np.concatenate([v for _, v in blocks])
    # the frame that stays fixed goes to the right-hand side
    right = []
    for p in range(len(points)):
        side = np.zeros((len(moving), d))
        side[onto == base] -= mapped[onto == base, p, :-1]
        side[moving == base] += points[p, :-1]
        right.append(side)
    solution = _least_squares(a, w, np.concatenate(right))
    rows_of = solution.reshape(len(free), k, d)
    matrices[free, :-1, :] = np.swapaxes(rows_of, 1, 2)
    return matrices


def _refine(
    matrices: NDArray[np.float64],
    moving: NDArray[np.int_],
    onto: NDArray[np.int_],
    mapped: NDArray[np.float64],
    points: NDArray[np.float64],
    weights: NDArray[np.float64],
    base: int,
    linked: NDArray[np.bool_],
    group: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Take one Gauss-Newton step of all frames within the model: the linear solution knows no rigid motion."""
    count, parameters, d = len(matrices), len(group), points.shape[1] - 1
    free = np.flatnonzero(linked & (np.arange(count) != base))
    if not len(free):
        return matrices
    place = np.full(count, -1)
    place[free] = np.arange(len(free))
    n, corners_ = len(moving), len(points)
    ahead = np.einsum("nij,npj->npi", matrices[onto], mapped)
    there = np.einsum("nij,pj->npi", matrices[moving], points)
    ahead, there = ahead[..., :-1] / ahead[..., -1:], there[..., :-1] / there[..., -1:]
    rows = np.arange(n * corners_ * d).reshape(n, -1)
    data, row, column = [], [], []
    for frame, where, sign in ((onto, ahead, 1.0), (moving, there, -1.0)):
        slopes = sign * velocities(group, where.reshape(-1, d)).reshape(n, corners_ * d, parameters)
        known = place[frame] >= 0
        data.append(slopes[known].ravel())
        row.append(np.repeat(rows[known].ravel(), parameters))
        at = place[frame][known][:, None, None] * parameters + np.arange(parameters)
        column.append(np.broadcast_to(at, slopes[known].shape).ravel())
    size = len(free) * parameters
    a = sparse.coo_matrix(
        (np.concatenate(data), (np.concatenate(row), np.concatenate(column))), (n * corners_ * d, size)
    ).tocsr()
    gap = (ahead - there).reshape(-1, 1)
    solution = _least_squares(a, np.repeat(weights, corners_ * d), -gap).reshape(len(free), parameters)
    out = matrices.copy()
    for t, step in zip(free, solution, strict=True):
        moved = exponential(group, step) @ matrices[t]
        out[t] = moved / moved[-1, -1]
    return out


def _difference(
    moving: NDArray[np.int_],
    onto: NDArray[np.int_],
    place: NDArray[np.int_],
    point: NDArray[np.float64],
    mapped: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> tuple[Any, NDArray[np.float64]]:
    """Return the sparse equations ``x_onto . mapped - x_moving . point`` of all pairs, and their weights."""
    n, k = len(moving), len(point)
    row = np.repeat(np.arange(n), k)
    columns, values, lines = [], [], []
    for frame, value in ((onto, mapped), (moving, np.broadcast_to(-point, (n, k)))):
        there = np.repeat(place[frame] >= 0, k)
        column = (place[frame][:, None] * k + np.arange(k)).ravel()
        columns.append(column[there])
        values.append(np.asarray(value).ravel()[there])
        lines.append(row[there])
    size = (int(place.max()) + 1) * k
    matrix = sparse.coo_matrix((np.concatenate(values), (np.concatenate(lines), np.concatenate(columns))), (n, size))
    return matrix.tocsr(), weights


def _least_squares(a: Any, weights: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled = a.multiply((weights / weights.max())[:, None]).tocsr()
    normal = (scaled.T @ a).tocsc()
    normal = normal + sparse.identity(normal.shape[0], format="csc") * (1e-12 * normal.diagonal().max())
    return np.asarray(spsolve(normal, scaled.T @ right)).reshape(normal.shape[0], -1)
