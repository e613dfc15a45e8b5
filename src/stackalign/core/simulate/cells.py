"""Cells: ellipses (ellipsoids) with a nucleus and an edge as soft as the point spread function, drawn analytically."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from stackalign.core.simulate.beads import scatter
from stackalign.core.simulate.scene import mapped

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.simulate.parameters import Simulation
    from stackalign.core.transform_series import TransformSeries

    Array = NDArray[np.float64]

COVERED = 0.3  # of the frame's area, about, before overlaps
REACH = 5.0  # standard deviations beyond the edge to which a cell is drawn


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Soft ellipses over a background of 1, across whose edges the light falls as a Gaussian blur makes it fall.

    The edges move with the scene.

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
        from stackalign.core.simulate.cell_kernels import draw_ellipsoids

        d = len(self.shape)
        signs = np.array(list(product((-1.0, 1.0), repeat=d)))
        extents = np.sqrt(np.diagonal(np.linalg.inv(self.shapes @ self.shapes), axis1=1, axis2=2))
        extents = extents + REACH * np.asarray(self.sigmas)
        edges = self.positions[:, None] + signs * extents[:, None]  # (P, 2**d, d)
        inverse = np.asarray(np.linalg.inv(matrix), np.float64)
        boxes = mapped(inverse[None], edges.reshape(-1, d)).reshape(edges.shape)
        start = np.maximum(np.floor(boxes.min(1)).astype(np.int64), 0)
        stop = np.minimum(np.ceil(boxes.max(1)).astype(np.int64) + 1, self.shape)
        seen = (start < stop).all(axis=1)
        out = np.ones(self.shape)
        # a plane is drawn as a volume of one
        flat = 3 - d
        full = np.eye(4)
        full[flat:, flat:] = matrix
        draw_ellipsoids(
            out.reshape((1,) * flat + self.shape),
            full,
            np.pad(self.positions[seen], ((0, 0), (flat, 0))),
            np.pad(self.shapes[seen], ((0, 0), (flat, 0), (flat, 0))),
            self.levels[seen],
            np.pad(np.square(self.sigmas), (flat, 0)),
            np.pad(start[seen], ((0, 0), (flat, 0))),
            np.pad(stop[seen], ((0, 0), (flat, 0)), constant_values=1),
        )
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
