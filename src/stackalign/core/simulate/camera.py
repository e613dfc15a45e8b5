"""The camera: expected photons become counts with shot noise, read noise, gain, offset and saturation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.simulate.parameters import Simulation

    Array = NDArray[np.float64]


def exposure(simulation: Simulation, frame: int) -> float:
    """Return the light of a frame relative to an unbleached one: 0 where it is blank."""
    if frame in simulation.blank:
        return 0.0
    return float((1 - simulation.bleaching) ** (frame / max(simulation.frames - 1, 1)))


def limits(simulation: Simulation) -> tuple[float, float]:
    """Return the least and the largest count that the camera writes."""
    dtype = np.dtype(simulation.dtype)
    low, high = (float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)) if dtype.kind in "ui" else (-np.inf, np.inf)
    if simulation.bit_depth is not None:
        high = min(high, 2.0**simulation.bit_depth - 1)
    return low, high


def photograph(photons: NDArray[np.floating], simulation: Simulation, rng: np.random.Generator) -> NDArray[Any]:
    """Return the counts, in the camera's pixel type, of a frame with these expected photons."""
    # a field interpolated below zero by a hair is dark
    counts = np.maximum(photons, 0.0, dtype=np.float64)
    if simulation.shot_noise:
        counts = rng.poisson(counts).astype(np.float64)
    if simulation.read_noise:
        counts += simulation.read_noise * rng.standard_normal(counts.shape)
    counts *= simulation.gain
    counts += simulation.offset
    np.clip(counts, *limits(simulation), out=counts)
    dtype = np.dtype(simulation.dtype)
    return np.asarray((np.rint(counts, out=counts) if dtype.kind in "ui" else counts).astype(dtype))


def variance(photons: NDArray[np.floating], simulation: Simulation) -> Array:
    """Return the variance of each pixel's counts; rounding to integers adds 1/12."""
    noise = np.maximum(photons, 0.0, dtype=np.float64) if simulation.shot_noise else np.zeros(np.shape(photons))
    rounding = 1 / 12 if np.dtype(simulation.dtype).kind in "ui" else 0.0
    return np.asarray((noise + simulation.read_noise**2) * simulation.gain**2 + rounding)
