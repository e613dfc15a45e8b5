"""What is true about a simulated movie: transforms, spots, noise-free frames, and the error of an estimate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.geometry import corners
from stackalign.core.simulate.camera import exposure, limits, variance
from stackalign.core.simulate.scene import mapped
from stackalign.core.transform import Transform

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.simulate.parameters import Simulation
    from stackalign.core.simulate.scene import Scene
    from stackalign.core.transform_series import TransformSeries

    Array = NDArray[np.float64]

STEP = 0.05  # pixels: difference quotients of the exact scene err by h^2 / 6 of its third derivative


@dataclass(frozen=True, eq=False)
class Truth:
    """The truth about a simulated movie.

    Parameters
    ----------
    simulation : Simulation
        What was simulated.
    transforms : TransformSeries
        Moving -> reference, pixels; frame 0 is the identity.
    scene : Scene
        What the camera looks at, in reference coordinates.
    """

    simulation: Simulation
    transforms: TransformSeries
    scene: Scene

    def __repr__(self) -> str:
        return f"Truth({self.simulation.scene}, {self.transforms!r})"

    @property
    def drift(self) -> Array:
        """(T, d) how far the scene's centre moved since frame 0, pixels, reference -> moving."""
        middle = (np.asarray(self.simulation.shape) - 1) / 2
        if self.simulation.model == "translation":
            return np.asarray(0.0 - self.transforms.translations)
        return np.asarray(mapped(self._inverse, middle[None])[:, 0] - middle)

    @cached_property
    def spots(self) -> Array | None:
        """(P, T, d) where each bead or cell is in each frame, pixels, also out of view; None in other scenes.

        The ``simulation.spots`` that lie in frame 0 come first.
        """
        positions = getattr(self.scene, "positions", None)
        if positions is None:
            return None
        if self.simulation.scene == "cells":
            positions = positions[: len(positions) // 2]  # the other half are the nuclei
        return np.ascontiguousarray(mapped(self._inverse, positions).swapaxes(0, 1))

    @cached_property
    def visible(self) -> NDArray[np.bool_] | None:
        """(P, T) whether a spot's centre is in the frame, it shines, and the frame is not blank; None as `spots`."""
        if self.spots is None:
            return None
        shape = np.asarray(self.simulation.shape)
        seen = np.asarray(((self.spots >= -0.5) & (self.spots < shape - 0.5)).all(axis=2))
        lit = getattr(self.scene, "lit", None)
        if lit is not None:
            seen &= lit.T
        seen[:, list(self.simulation.blank)] = False
        return seen

    def photons(self, t: int) -> NDArray[np.floating]:
        """Return the expected photons of frame ``t``, (…, y, x), before the camera."""
        index = self._index(t)
        return self.photons_at(self.transforms.matrices[index], index)

    def clean(self, t: int) -> Array:
        """Return the expected frame ``t``, (…, y, x), in counts: no noise, no rounding, no saturation."""
        counts = np.maximum(self.photons(t), 0, dtype=np.float64)
        return np.asarray(counts * self.simulation.gain + self.simulation.offset)

    def active(self, t: int) -> NDArray[np.bool_]:
        """Return which pixels of the reference lie in cells that are lit in frame ``t``, (y, x)."""
        cover = getattr(self.scene, "cover", None)
        if cover is None:
            return np.zeros(self.simulation.shape, bool)
        return np.asarray(cover(np.eye(self.simulation.ndim + 1), self._index(t)) > 0.5)

    @cached_property
    def cramer_rao(self) -> Array:
        """(T, d) least standard error, pixels, of a translation of each frame against the known, noise-free scene.

        From the Fisher information ``sum(grad grad^T / variance)`` of the expected counts, with the noise of the camera
        as Gaussian (Poisson noise included by its variance); saturated pixels tell nothing. Infinite where a frame
        tells nothing (blank), zero without noise. An estimate against another noisy frame, or with an unknown scene,
        cannot get below it.
        """
        return np.array([self._bound(t) for t in range(self.simulation.frames)])

    def error(self, transforms: TransformSeries) -> Array:
        """Return the error of estimated transforms, (T,): rms distance of the frame's corners from where they belong.

        The common transform that the choice of a reference leaves open is removed first: of the estimate's own family,
        fitted to the corners of all valid frames at once, by least absolute distances, so that one bad frame does not
        spoil the others. Divide by the square root of the dimensions for the error per axis of a translation.

        Parameters
        ----------
        transforms : TransformSeries
            Moving -> reference, pixels, one for each frame.

        Raises
        ------
        ValueError
            If the number of frames or dimensions differs.
        """
        if len(transforms) != len(self.transforms) or transforms.ndim != self.transforms.ndim:
            raise ValueError(
                f"the movie has {len(self.transforms)} frames in {self.transforms.ndim}-D,"
                f" the estimate {len(transforms)} in {transforms.ndim}-D"
            )
        # a volume of one plane still has a direction along z
        points = corners(np.maximum(self.simulation.shape, 2).tolist())
        true = mapped(self.transforms.matrices, points)
        found = mapped(transforms.matrices, points)
        known = np.flatnonzero(transforms.valid)
        if not len(known):
            known = np.arange(len(transforms))
        gauge = _common(found[known], true[known], transforms)
        return np.asarray(np.sqrt(((gauge(found) - true) ** 2).sum(-1).mean(-1)))

    @property
    def _inverse(self) -> Array:
        return self.transforms.inverse.matrices

    def _index(self, t: int) -> int:
        n = self.simulation.frames
        if not -n <= t < n:
            raise IndexError(f"frame {t} of a simulation of {n} frames")
        return int(t) % n

    @cached_property
    def _level(self) -> float:
        """Photons for a unit of the scene's light: frame 0, all lit, has the stated mean."""
        first = float(np.maximum(self.scene.render(self.transforms.matrices[0]), 0).mean(dtype=np.float64))
        if not first > 0:
            raise ValueError(f"scene {self.simulation.scene!r} is dark where a frame of {self.simulation.shape} looks")
        return self.simulation.photons / first

    def photons_at(self, matrix: Array, t: int) -> NDArray[np.floating]:
        """Return the expected photons of frame ``t`` if it lay at ``matrix`` (d+1, d+1), moving -> reference."""
        light = self._level * exposure(self.simulation, t)
        if light == 0:
            return np.zeros(self.simulation.shape)
        return self.scene.render(matrix, t) * light

    def _bound(self, t: int) -> Array:
        record, matrix = self.simulation, self.transforms.matrices[t]
        photons = self.photons_at(matrix, t)
        gradients = []
        for axis in range(record.ndim):
            step = np.zeros(record.ndim)
            step[axis] = STEP
            ahead, behind = (self.photons_at(Transform.from_translation(s).matrix @ matrix, t) for s in (step, -step))
            gradients.append((np.asarray(ahead, float) - behind).ravel() * (record.gain / (2 * STEP)))
        slopes = np.stack(gradients)
        low, high = limits(record)
        counts = (np.maximum(photons, 0) * record.gain + record.offset).ravel()
        slopes[:, (counts < low) | (counts > high)] = 0
        if not slopes.any():
            return np.full(record.ndim, np.inf)
        noise = variance(photons, record).ravel()
        if not noise.any():
            return np.zeros(record.ndim)
        told = noise > 0
        information = (slopes[:, told] / noise[told]) @ slopes[:, told].T
        if np.linalg.cond(information) > 1e12:
            return np.full(record.ndim, np.inf)
        return np.asarray(np.sqrt(np.diag(np.linalg.inv(information))))


def _common(found: Array, true: Array, transforms: TransformSeries) -> Transform:
    """Return the transform that carries the found corners (T, C, d) to the true ones with least absolute distances."""
    d = found.shape[-1]
    weights = np.ones(found.shape[0])
    gauge = Transform.identity(d)
    for _ in range(50):  # iteratively reweighted least squares, a frame a unit
        spread = np.repeat(weights, found.shape[1])
        gauge = Transform.from_points(found.reshape(-1, d), true.reshape(-1, d), transforms.model, weights=spread)
        distance = np.sqrt(((gauge(found) - true) ** 2).sum(-1).mean(-1))
        updated = 1 / np.maximum(distance, max(1e-3 * float(np.median(distance)), 1e-9))
        updated /= updated.max()
        if np.allclose(updated, weights, rtol=1e-6):
            break
        weights = updated
    return gauge
