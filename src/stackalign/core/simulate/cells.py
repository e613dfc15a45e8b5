"""Cells: ellipses (ellipsoids) with a nucleus and an edge as soft as the point spread function, drawn analytically."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation
from scipy.special import erfc

from stackalign.core.simulate.beads import scatter
from stackalign.core.transform import Transform, TransformModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.simulate.parameters import Simulation
    from stackalign.core.transform_series import TransformSeries

    Array = NDArray[np.float64]

COVERED = 0.3  # of the frame's area, about, before overlaps
REACH = 5.0  # standard deviations beyond the edge to which a cell is drawn


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Soft ellipses over a background of 1; the edges move with the scene.

    Parameters
    ----------
    positions : (P, d)
        Centres in the reference, pixels.
    shapes : (P, d, d)
        Symmetric matrices A: the edge is where ``|A (p - centre)| = 1``.
    levels : (P,)
        Light over the background; negative: the cell absorbs that fraction.
    sigmas : tuple of float
        Softness of the edges along each axis, pixels.
    shape : tuple of int
        Of a frame.
    """

    positions: Array
    shapes: Array
    levels: Array
    sigmas: tuple[float, ...]
    shape: tuple[int, ...]

    def render(self, matrix: Array, frame: int | None = None) -> Array:
        """Return the frame (…, y, x) that sees the scene through ``matrix``; see `Scene.render`."""
        to_scene = Transform(matrix, TransformModel.PROJECTIVE)
        to_frame = to_scene.inverse
        out = np.ones(self.shape)
        signs = np.array(list(product((-1.0, 1.0), repeat=len(self.shape))))
        for centre, form, level in zip(self.positions, self.shapes, self.levels, strict=True):
            radii = np.sqrt(np.diag(np.linalg.inv(form @ form))) + REACH * np.asarray(self.sigmas)
            box = to_frame(centre + signs * radii)
            start = np.maximum(np.floor(box.min(0)).astype(int), 0)
            stop = np.minimum(np.ceil(box.max(0)).astype(int) + 1, self.shape)
            if (start >= stop).any():
                continue
            where = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
            pixels = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in where), indexing="ij"), axis=-1)
            body = level * _soft_ellipse(to_scene(pixels) - centre, form, self.sigmas)
            if level >= 0:
                out[where] += body
            else:
                out[where] *= 1 + body
        return out


def draw_cells(simulation: Simulation, transforms: TransformSeries, rng: np.random.Generator) -> Cells:
    """Draw the cells of a scene: sizes, directions and light vary, each has a nucleus twice as bright."""
    d = simulation.ndim
    ball = np.pi if d == 2 else 4 / 3 * np.pi
    radius = (COVERED * float(np.prod(simulation.shape)) / (simulation.spots * ball)) ** (1 / d)
    centres = scatter(simulation, transforms, rng, 1.5 * radius + REACH * max(simulation.sigmas), simulation.separation)
    count = len(centres)
    axes = radius * rng.uniform(0.65, 1.35, (count, d))
    if d == 2:
        angle = rng.uniform(0, np.pi, count)
        c, s = np.cos(angle), np.sin(angle)
        turns = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], 1)
    else:
        turns = Rotation.random(count, rng=rng).as_matrix()
    levels = simulation.contrast * rng.uniform(0.3, 0.7, count)
    shift = np.einsum("pij,pj->pi", turns, axes * rng.uniform(-0.3, 0.3, (count, d)))
    bodies = np.einsum("pij,pj,pkj->pik", turns, 1 / axes, turns)
    return Cells(
        np.concatenate([centres, centres + shift]),
        np.concatenate([bodies, bodies * 2.2]),
        np.concatenate([levels, np.full(count, simulation.contrast * 0.3)]),
        simulation.sigmas,
        simulation.shape,
    )


def _soft_ellipse(p: Array, form: Array, sigmas: tuple[float, ...]) -> Array:
    """1 inside, 0 outside; across the edge the step that a Gaussian blur makes of a straight one."""
    scaled = p @ form
    # the blur in units of the radius also rounds the cone that the distance to the centre has at its tip
    blur2 = float((form**2 @ np.square(sigmas)).sum()) / len(sigmas)
    r2 = (scaled**2).sum(-1)
    beyond = np.sqrt(r2 + blur2) - np.sqrt(1 + blur2)
    softness2 = ((scaled @ form) ** 2 @ np.square(sigmas) + blur2**2) / (r2 + blur2)
    return np.asarray(0.5 * erfc(beyond / np.sqrt(2 * softness2)))
