"""The motions of a model near the identity: generators about a centre, their velocities at points, their exponentials.

Each generator is a homogeneous matrix G; ``expm(step @ G)`` is a motion of the model exactly, so that composing steps
never leaves it: rotations stay rigid (in physical units where pixels are not cubes), shears stay affine. Generators are
scaled by a radius so that each moves a point at that distance from the centre by about a pixel a unit.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.geometry import centre, corners
from stackalign.core.transform import Transform, TransformModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]


def generators(model: TransformModel, middle: Array, radius: float, spacing: Sequence[float] | None = None) -> Array:
    """Return the generators (K, d+1, d+1) of a model; the first d are shifts along each axis by a pixel.

    Parameters
    ----------
    model : TransformModel
        The family.
    middle : ndarray (d,)
        Point that rotations, stretches and perspective leave where it is.
    radius : float
        Distance from it at which they move a point by a pixel a unit.
    spacing : sequence of float (d,), optional
        Size of a pixel along each axis; rotations are rigid in these units. Equal if left out.

    Raises
    ------
    ValueError
        If the model has no meaning in as many dimensions.
    """
    d = len(middle)
    size = np.ones(d) if spacing is None else np.asarray(spacing, float)
    if model is TransformModel.PROJECTIVE and d != 2:
        raise ValueError("the projective model is for images, not for volumes: choose affine")
    out = []
    for axis in range(d):
        shift = np.zeros((d + 1, d + 1))
        shift[axis, -1] = 1
        out.append(shift)
    if model in (TransformModel.EUCLIDEAN, TransformModel.SIMILARITY):
        for i, j in combinations(range(d), 2):
            turn = np.zeros((d + 1, d + 1))
            turn[i, j], turn[j, i] = -size[j] / size[i], size[i] / size[j]
            out.append(turn / radius)
    if model is TransformModel.SIMILARITY:
        grow = np.eye(d + 1) / radius
        grow[-1, -1] = 0
        out.append(grow)
    if model in (TransformModel.AFFINE, TransformModel.PROJECTIVE):
        for i in range(d):
            for j in range(d):
                entry = np.zeros((d + 1, d + 1))
                entry[i, j] = 1 / radius
                out.append(entry)
    if model is TransformModel.PROJECTIVE:
        for j in range(d):
            tilt = np.zeros((d + 1, d + 1))
            tilt[-1, j] = 1 / radius**2
            out.append(tilt)
    there, back = np.eye(d + 1), np.eye(d + 1)
    there[:-1, -1], back[:-1, -1] = middle, -np.asarray(middle)
    return np.array([there @ g @ back for g in out])


def exponential(group: Array, step: Array) -> Array:
    """Return the motion (d+1, d+1) of a step (K,) along the generators."""
    flow = np.tensordot(step, group, 1)
    size = float(np.abs(flow[:, :-1]).max(initial=0))
    halvings = max(int(np.ceil(np.log2(size / 0.1))), 0) if size > 0.1 else 0
    flow = flow / 2**halvings
    # the series of a tiny matrix: a general routine is a hundred times slower, and this runs at every step of a fit
    motion = term = np.eye(len(flow))
    for k in range(1, 12):
        term = term @ flow / k
        motion = motion + term
    for _ in range(halvings):
        motion = motion @ motion
    return np.asarray(motion / motion[-1, -1])


def velocities(group: Array, points: Array) -> Array:
    """Return how points (N, d) move along each generator, (N, d, K), pixels a unit."""
    homogeneous = np.column_stack([points, np.ones(len(points))])
    flow = np.einsum("kij,nj->nik", group, homogeneous)
    return np.asarray(flow[:, :-1] - points[:, :, None] * flow[:, -1:])


def moved_points(matrix: Array, points: Array) -> Array:
    """Return points (N, d) mapped by one homogeneous matrix, or (T, N, d) by several."""
    homogeneous = np.column_stack([points, np.ones(len(points))])
    out = homogeneous @ np.swapaxes(matrix, -1, -2)
    return np.asarray(out[..., :-1] / out[..., -1:])


def fitted(
    before: Array,
    after: Array,
    model: TransformModel,
    spacing: Sequence[float] | None = None,
    weights: Array | None = None,
) -> Array:
    """Return the matrix of the model that carries points (N, d), pixels, onto others; rigid in units of ``spacing``."""
    size = np.ones(before.shape[1]) if spacing is None else np.asarray(spacing, float)
    matrix = Transform.from_points(before * size, after * size, model, weights=weights).matrix
    scale = np.append(size, 1.0)
    return np.asarray(matrix * scale[None, :] / scale[:, None])


def nearest(
    matrix: Array, model: TransformModel, frame_shape: Sequence[int], spacing: Sequence[float] | None = None
) -> Array:
    """Return the motion of the model that moves the corners of a frame most nearly as ``matrix`` does."""
    shape = np.maximum(frame_shape, 2).tolist()  # a single plane still has two sides
    points = corners(shape)
    if model is TransformModel.PROJECTIVE:
        points = np.concatenate([points, centre(shape)[None]])
    return fitted(points, moved_points(matrix, points), model, spacing)
