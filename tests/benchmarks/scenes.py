"""Scenes of the benchmarks, the Cramer-Rao bound of each, and the error of an estimate against the truth."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import stackalign as sa
from stackalign.core.evaluation import corner_bound

if TYPE_CHECKING:
    from stackalign.core.simulate.movie import Simulated

SCALE = float(os.environ.get("STACKALIGN_BENCH", "1"))  # share of the frames: 0.1 takes about three minutes


def frames(full: int, least: int = 10) -> int:
    return max(round(full * SCALE), min(least, full))


@dataclass(frozen=True)
class Scene:
    """One row of the table: a simulation, read into memory once."""

    name: str
    simulated: Simulated
    movie: np.ndarray
    bound: float  # px rms at the corners, all frames

    @property
    def axes(self) -> float:
        return float(np.sqrt(self.movie.ndim - 1))


def scene(name: str, **record: Any) -> Scene:
    simulated = sa.simulate(**record)
    few = np.unique(np.linspace(0, record["frames"] - 1, 6).astype(int))  # the bound hardly differs between frames
    bound = corner_bound(simulated.truth, few.tolist())
    return Scene(name, simulated, simulated.stack.asarray(), float(np.sqrt((bound**2).mean())))


def errors(scene: Scene, matrices: dict[int, np.ndarray]) -> np.ndarray:
    """Return the corner errors, px, of the frames that were estimated, after the common transform is removed."""
    truth = scene.simulated.truth
    count = len(truth.transforms)
    every = np.tile(np.eye(scene.movie.ndim), (count, 1, 1))
    valid = np.zeros(count, bool)
    for t, matrix in matrices.items():
        every[t], valid[t] = matrix, True
    return truth.error(sa.TransformSeries(every, truth.simulation.model, valid))[valid]
