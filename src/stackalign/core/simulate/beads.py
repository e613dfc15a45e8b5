"""Beads: point sources, each a Gaussian integrated over every pixel (erf) at its true position in the frame.

Their positions follow the motion; the point spread function belongs to the camera and neither turns nor stretches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import erf

from stackalign.core.simulate.scene import extent
from stackalign.core.transform import Transform, TransformModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.simulate.parameters import Simulation
    from stackalign.core.transform_series import TransformSeries

    Array = NDArray[np.float64]

REACH = 6.0  # standard deviations to which a bead is drawn: 2e-9 of its light is left out
DARK_SPELL = 3.0  # frames, mean
MOST = 5_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Beads:
    """Gaussian spots over a background of 1.

    Parameters
    ----------
    positions : (P, d)
        In the reference, pixels.
    sigmas : tuple of float
        Standard deviation of the point spread function along each axis, pixels.
    contrast : float
        Light of a bead at its centre, before the integration over a pixel. Bright beads add up; dark ones (negative)
        absorb one after the other, so that the brightness never gets below zero.
    shape : tuple of int
        Of a frame.
    lit : (T, P) bool, optional
        When each bead shines; None: always.
    """

    positions: Array
    sigmas: tuple[float, ...]
    contrast: float
    shape: tuple[int, ...]
    lit: NDArray[np.bool_] | None = None

    def render(self, matrix: Array, frame: int | None = None) -> Array:
        """Return the frame (…, y, x) that sees the scene through ``matrix``; see `Scene.render`."""
        positions = self.positions
        if self.lit is not None and frame is not None:
            positions = positions[self.lit[frame]]
        at = Transform(matrix, TransformModel.PROJECTIVE).inverse(positions)
        reach = np.ceil(REACH * np.asarray(self.sigmas)).astype(int) + 1
        at = at[((at > -reach) & (at < np.asarray(self.shape) - 1 + reach)).all(axis=1)]
        whole = np.zeros(self.shape) if self.contrast >= 0 else np.ones(self.shape)
        draw = self._draw_whole if np.prod(2 * reach + 1) > whole.size else self._draw_patches
        size = min(int(np.prod(2 * reach + 1)), whole.size)
        chunk = max(1, 4_000_000 // size)
        for start in range(0, len(at), chunk):
            whole = draw(whole, at[start : start + chunk], reach)
        return whole + 1 if self.contrast >= 0 else whole

    def _draw_patches(self, whole: Array, at: Array, reach: NDArray[np.int64]) -> Array:
        """Add beads, each within its reach."""
        # a canvas wide enough for every patch: no bead needs clipping at the border
        canvas = np.pad(whole, [(2 * r, 2 * r) for r in reach], constant_values=0.0 if self.contrast >= 0 else 1.0)
        first = np.round(at).astype(int) - reach
        pixels = [first[:, i, None] + np.arange(2 * r + 1) for i, r in enumerate(reach)]
        light = self._light(at, pixels)
        index = np.zeros(light.shape, np.int64)
        for axis, p in enumerate(pixels):
            index = index * canvas.shape[axis] + _spread(p + 2 * reach[axis], axis, at.shape[1])
        if self.contrast >= 0:
            canvas += np.bincount(index.ravel(), light.ravel(), canvas.size).reshape(canvas.shape)
        else:
            np.multiply.at(canvas.reshape(-1), index.ravel(), 1 + light.ravel())
        return canvas[tuple(slice(2 * r, 2 * r + n) for r, n in zip(reach, self.shape, strict=True))]

    def _draw_whole(self, whole: Array, at: Array, reach: NDArray[np.int64]) -> Array:
        """Add beads wider than the frame."""
        light = self._light(at, [np.broadcast_to(np.arange(n), (len(at), n)) for n in self.shape])
        return np.asarray(whole + light.sum(0) if self.contrast >= 0 else whole * (1 + light).prod(0))

    def _light(self, at: Array, pixels: list[NDArray[np.int64]]) -> Array:
        """(P, ...) light of each bead on its pixels."""
        light = np.full((len(at), *(1,) * at.shape[1]), self.contrast)
        for axis, (p, sigma) in enumerate(zip(pixels, self.sigmas, strict=True)):
            light = light * _spread(_integrated(p - at[:, axis, None], sigma), axis, at.shape[1])
        return light


def draw_beads(simulation: Simulation, transforms: TransformSeries, rng: np.random.Generator) -> Beads:
    """Draw the beads of a scene: those in frame 0 first, then, at the same density, all that ever come into view."""
    margin = REACH * max(simulation.sigmas)
    positions = scatter(simulation, transforms, rng, margin, simulation.separation)
    lit = _blinking(simulation, len(positions), rng) if simulation.blinking else None
    return Beads(positions, simulation.sigmas, simulation.contrast, simulation.shape, lit)


def scatter(
    simulation: Simulation, transforms: TransformSeries, rng: np.random.Generator, margin: float, separation: float
) -> Array:
    """Return positions (P, d): exactly ``spots`` in frame 0, the others around it as far as any frame sees.

    Raises
    ------
    ValueError
        If they cannot keep their distance, or the motion sweeps over more than five million of them.
    """
    shape = np.asarray(simulation.shape)
    low, high = extent(transforms, simulation.shape)
    inner = (np.full(len(shape), -0.5), shape - 0.5)
    outer = (low - 0.5 - margin, high + 0.5 + margin)
    outside = simulation.spots * (float(np.prod((outer[1] - outer[0]) / shape)) - 1)
    if simulation.spots + outside > MOST:
        raise ValueError(
            f"the motion sweeps over {simulation.spots + outside:.3g} spots, more than {MOST:,}:"
            " choose fewer 'spots', fewer 'frames' or a smaller 'amplitude' or 'drift_rate'"
        )
    near = _placed(np.empty((0, len(shape))), simulation.spots, inner, None, separation, rng)
    if len(near) < simulation.spots:
        raise ValueError(
            f"found room for only {len(near)} of {simulation.spots} spots {separation:g} px apart:"
            " choose fewer 'spots' or a smaller 'separation'"
        )
    # around the frame, fewer will do where they find no room
    return _placed(near, simulation.spots + round(outside), outer, inner, separation, rng)


def _placed(
    kept: Array,
    wanted: int,
    box: tuple[Array, Array],
    hole: tuple[Array, Array] | None,
    separation: float,
    rng: np.random.Generator,
) -> Array:
    """Add random points of ``box`` outside ``hole`` until there are ``wanted`` or no more room ``separation`` apart."""
    vain = 0
    while len(kept) < wanted and vain < 200:
        points = rng.uniform(*box, (max(wanted - len(kept), 16), len(box[0])))
        if hole is not None:
            points = points[~((points >= hole[0]) & (points < hole[1])).all(axis=1)]
        if separation > 0 and len(points):
            if len(kept):
                points = points[cKDTree(kept).query(points)[0] >= separation]
            points = _apart(points, separation)
        vain = 0 if len(points) else vain + 1
        kept = np.vstack([kept, points])
    return kept[:wanted]


def _apart(points: Array, separation: float) -> Array:
    """Drop each point that is too close to an earlier one that stays."""
    stays = np.ones(len(points), bool)
    for i, j in sorted(tuple(sorted(pair)) for pair in cKDTree(points).query_pairs(separation)):
        stays[j] &= not stays[i]
    return points[stays]


def _blinking(simulation: Simulation, count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(T, P): a two-state Markov chain that is dark the stated fraction of the time."""
    if simulation.frames * count > 2**31:
        raise ValueError(
            f"{count} blinking beads over {simulation.frames} frames take over 2 GB: choose fewer 'spots' or 'frames'"
        )
    dark = simulation.blinking
    wakes = 1 / DARK_SPELL
    sleeps = wakes * dark / (1 - dark)
    if sleeps > 1:  # mostly dark: a bead shines one frame, then sleeps as long as it takes
        sleeps, wakes = 1.0, (1 - dark) / dark
    lit = np.empty((simulation.frames, count), bool)
    lit[0] = rng.random(count) >= dark
    for t in range(1, simulation.frames):
        lit[t] = np.where(lit[t - 1], rng.random(count) >= sleeps, rng.random(count) < wakes)
    return lit


def _integrated(distance: Array, sigma: float) -> Array:
    """Mean over a pixel of a Gaussian of peak 1 whose centre lies at ``-distance`` from the pixel's."""
    scale = 1 / (np.sqrt(2) * sigma)
    area = np.sqrt(np.pi / 2) * sigma
    return np.asarray(area * (erf((distance + 0.5) * scale) - erf((distance - 0.5) * scale)))


def _spread(values: NDArray[np.generic], axis: int, ndim: int) -> NDArray[Any]:
    """Give (P, n) the shape of P patches that vary along one axis."""
    return values.reshape([len(values), *(values.shape[1] if i == axis else 1 for i in range(ndim))])
