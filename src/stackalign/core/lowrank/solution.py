"""What joint alignment is asked, and what it answers: `SolverOptions` and `Solution`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.transform import TransformModel

    Floats = NDArray[np.float32]

UNPLACED = "it could not be placed on what the others have in common"


@dataclass(slots=True, eq=False)
class Solution:
    """Where the frames lie, and what they have in common.

    Attributes
    ----------
    matrices : ndarray (T, d+1, d+1)
        Moving -> reference, full-size pixels.
    basis : ndarray (k, frame shape), float32
        Images of the low-rank part, full size; 0 where too few frames cover a pixel.
    known : ndarray of bool, frame shape
        Pixels of the basis that enough frames cover.
    coefficients : ndarray (T, k)
        What each frame takes of the basis.
    scale : ndarray (T,)
        Robust standard deviation of each frame's residual, intensity units.
    error : ndarray (T, d)
        Standard error of the motion of the frame's centre, pixels.
    overlap : ndarray (T,)
        Fraction of the known pixels that a frame covers.
    trouble : dict of int to str
        Frames whose equations could not be solved, with the reason.
    loss : list of float
        Mean Huber loss a pixel after each round, intensity units.
    rounds : int
        Passes over the frames.
    change : float
        rms motion of the corners in the last round, pixels.
    """

    matrices: NDArray[np.float64]
    basis: Floats
    known: NDArray[np.bool_]
    coefficients: NDArray[np.float64]
    scale: NDArray[np.float64]
    error: NDArray[np.float64]
    overlap: NDArray[np.float64]
    trouble: dict[int, str] = field(default_factory=dict)
    loss: list[float] = field(default_factory=list)
    rounds: int = 0
    change: float = np.inf


@dataclass(frozen=True, slots=True)
class SolverOptions:
    """What `solve` needs to know; see `Reals` for the meaning of each.

    ``least_noise``: standard deviation of a pixel of a frame that noise cannot be below, as that of rounding.
    ``window``: weights of the pixels of the reference, frame shape. ``device``: where torch computes on pixels, as it
    names devices; None: the compiled functions do, on the processor.
    """

    model: TransformModel
    rank: int = 1
    huber: float = 1.345
    tail: float = np.inf
    iterations: int = 30
    levels: int | None = None
    batch_size: int | None = None
    tolerance: float = 2e-3
    spacing: tuple[float, ...] | None = None
    max_rotation: float = 20.0
    max_shift: float | None = None
    least_noise: float = 0.0
    window: NDArray[np.float32] | None = None
    seed: int = 0
    device: str | None = None
