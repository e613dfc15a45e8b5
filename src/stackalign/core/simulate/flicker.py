"""Cells that light up and go dark again on a scene that stays: what a decomposition should call sparse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.simulate.scene import extent

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.simulate.parameters import Simulation
    from stackalign.core.simulate.scene import Scene
    from stackalign.core.transform_series import TransformSeries

    Array = NDArray[np.float64]

DUTY = 0.2  # fraction of the time that a cell is lit
SOFT = 0.7  # pixels over which a cell's brightness falls at its border


@dataclass(frozen=True, eq=False)
class Flickering:
    """A plane scene with round cells that brighten it where they are.

    Attributes
    ----------
    scene : Scene
        What stays.
    centres : ndarray (N, 2)
        Cells, reference coordinates (y, x).
    lit : ndarray of bool (T, N)
        When they shine.
    radius : float
        Of a cell, pixels.
    brightness : float
        Of a lit cell, times that of the scene.
    """

    scene: Scene
    centres: Array
    lit: NDArray[np.bool_]
    radius: float
    brightness: float
    shape: tuple[int, ...]

    def render(self, matrix: Array, frame: int | None = None) -> NDArray[np.floating]:
        """Return a frame; the scene alone if ``frame`` is None."""
        image = self.scene.render(matrix, frame)
        if frame is None:
            return image
        return image * (1 + (self.brightness - 1) * self.cover(matrix, frame))

    def cover(self, matrix: Array, frame: int) -> Array:
        """Return how far each pixel lies in a lit cell, 0 to 1; at a cell's border it is a half."""
        h, w = self.shape
        y, x = np.mgrid[:h, :w].astype(float)
        down = matrix[2, 0] * y + matrix[2, 1] * x + matrix[2, 2]
        v = (matrix[0, 0] * y + matrix[0, 1] * x + matrix[0, 2]) / down
        u = (matrix[1, 0] * y + matrix[1, 1] * x + matrix[1, 2]) / down
        from scipy.spatial import cKDTree

        cells = self.centres[self.lit[frame]]
        if not len(cells):
            return np.zeros(self.shape)
        reach = self.radius + 6 * SOFT
        distance, _ = cKDTree(cells).query(np.stack([v, u], -1), distance_upper_bound=reach)
        edge = np.clip((distance - self.radius) / SOFT, -30, 30)
        return np.asarray(np.where(np.isfinite(distance), 1 / (1 + np.exp(edge)), 0.0))


def draw_flicker(
    simulation: Simulation, scene: Scene, transforms: TransformSeries, rng: np.random.Generator
) -> Flickering:
    """Put cells on a scene, everywhere that a frame sees, so that the wanted share of the pixels is lit at any time."""
    low, high = extent(transforms, simulation.shape)
    low, high = low - simulation.flicker_radius, high + simulation.flicker_radius
    # cells may overlap: of N in an area A, each of area a, exp(-N a / A) is left dark
    density = -np.log1p(-simulation.flicker) / (np.pi * simulation.flicker_radius**2)
    count = int(np.ceil(density / DUTY * float(np.prod(high - low))))
    centres = rng.uniform(low, high, (count, 2))
    lit = rng.random((simulation.frames, count)) < DUTY
    return Flickering(scene, centres, lit, simulation.flicker_radius, simulation.flicker_brightness, simulation.shape)
