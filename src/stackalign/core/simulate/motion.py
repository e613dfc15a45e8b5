"""Motions: one transform per frame, moving -> reference, about the image centre; frame 0 is the identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from stackalign.core.geometry import centre, corners
from stackalign.core.transform import TransformModel
from stackalign.core.transform_series import TransformSeries

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.simulate.parameters import Simulation

    Array = NDArray[np.float64]


def draw_motion(simulation: Simulation, rng: np.random.Generator) -> TransformSeries:
    """Draw the motion of a simulation: the scene's drift is the inverse of what is returned.

    The parameters of the scene's motion (reference -> moving) are drawn: shift, angles, stretch, projective row. For
    translations the result is therefore exactly minus the drift.

    Raises
    ------
    ValueError
        If the perspective folds the image: the plane's horizon crosses a frame.
    """
    d, n = simulation.ndim, simulation.frames
    turns = 1 if d == 2 else 3
    sizes = [d, turns, d * (d + 1) // 2, d]
    scales = np.repeat(
        [simulation.amplitude, np.deg2rad(simulation.rotation), simulation.stretch, _projective_scale(simulation)],
        sizes,
    )
    # every family draws all numbers, so that a richer model moves the same way plus something
    motion = _course(simulation, rng, sum(sizes)) * scales
    shift, angles, stretch, row = np.split(motion, np.cumsum(sizes)[:-1], axis=1)
    shift = shift + np.arange(n)[:, None] * np.asarray(simulation.drift)
    rank = simulation.model.rank
    if simulation.model is TransformModel.TRANSLATION:
        return TransformSeries.from_translations(0.0 - shift)
    if rank < TransformModel.SIMILARITY.rank:
        stretch = np.zeros_like(stretch)
    if rank < TransformModel.PROJECTIVE.rank:
        row = np.zeros_like(row)
    symmetric = np.zeros((n, d, d))
    if simulation.model is TransformModel.SIMILARITY:
        symmetric[:] = (1 + stretch[:, :1])[..., None] * np.eye(d)
    else:
        i, j = np.triu_indices(d)
        symmetric[:, i, j] = symmetric[:, j, i] = stretch
        symmetric += np.eye(d)
    forward = np.tile(np.eye(d + 1), (n, 1, 1))  # reference -> moving, about the centre
    forward[:, :-1, :-1] = _rotations(angles) @ symmetric
    forward[:, -1, :-1] = row
    forward[:, :-1, -1] = 0
    moved = np.tile(np.eye(d + 1), (n, 1, 1))
    moved[:, :-1, -1] = shift
    to_centre, back = np.eye(d + 1), np.eye(d + 1)
    to_centre[:-1, -1], back[:-1, -1] = -centre(simulation.shape), centre(simulation.shape)
    matrices = np.asarray(np.linalg.inv(back @ moved @ forward @ to_centre), np.float64)
    matrices[0] = np.eye(d + 1)
    _check_horizon(matrices, simulation.shape)
    return TransformSeries(matrices, simulation.model)


def _course(simulation: Simulation, rng: np.random.Generator, columns: int) -> Array:
    """(T, columns) in units of the amplitude, zero at frame 0."""
    n = simulation.frames
    match simulation.motion:
        case "random-walk":
            out = np.cumsum(rng.standard_normal((n, columns)), axis=0)
        case "smooth":
            # drawn with reflecting ends and scaled to unit variance, whatever the filter leaves
            noise = rng.standard_normal((n, columns))
            gain = np.sqrt((gaussian_filter1d(np.eye(1, 8 * n + 1, 4 * n)[0], simulation.smoothness) ** 2).sum())
            out = gaussian_filter1d(noise, simulation.smoothness, axis=0) / max(gain, 1e-12)
        case "jumps":
            when = rng.random(n) < simulation.jump_rate
            out = np.cumsum(rng.standard_normal((n, columns)) * when[:, None], axis=0)
        case "uniform":
            out = rng.uniform(-1, 1, (n, columns))
            out[0] = 0
        case "rotation":
            # a steady turn while the centre runs once round a circle
            phase = np.linspace(0, 1, n)[:, None]
            out = np.zeros((n, columns))
            d, turns = simulation.ndim, 1 if simulation.ndim == 2 else 3
            out[:, d - 2 : d] = np.hstack([np.sin(2 * np.pi * phase), np.cos(2 * np.pi * phase) - 1])
            out[:, d : d + 1] = phase  # in 3-D about z, the first of the three
            out[:, d + turns :] = phase * rng.uniform(-1, 1, columns - d - turns)
        case _:
            out = np.zeros((n, columns))
    return np.asarray(out - out[:1])


def _rotations(angles: Array) -> Array:
    if angles.shape[1] == 1:
        c, s = np.cos(angles[:, 0]), np.sin(angles[:, 0])
        return np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], 1)
    return np.asarray(Rotation.from_rotvec(angles).as_matrix())


def _projective_scale(simulation: Simulation) -> float:
    """Entry of the last row that moves a corner by about ``perspective`` pixels: |p|^2 v, spread over the axes."""
    half = np.linalg.norm((np.asarray(simulation.shape) - 1) / 2)
    return float(simulation.perspective / half**2)


def _check_horizon(matrices: Array, shape: tuple[int, ...]) -> None:
    points = np.column_stack([corners(shape), np.ones(2 ** len(shape))])
    depth = points @ np.swapaxes(matrices, 1, 2)
    worst = depth[..., -1].min(axis=1)
    if (worst < 0.1).any():
        t = int(np.argmin(worst))
        raise ValueError(
            f"frame {t}: the perspective folds the image; choose a smaller 'perspective' or another motion"
        )
