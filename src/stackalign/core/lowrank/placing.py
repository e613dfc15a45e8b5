"""Frames against their low-rank images: robust steps in the motion and the coefficients of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.generators import exponential

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.lowrank.pixels import Comparison, Equations
    from stackalign.core.lowrank.state import State

_NO_STRUCTURE = "what it shares with the other frames has no structure"
_SHORT = 0.02  # pixels: after such a step a frame waits for the others, and is added to the basis where it was read


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """Where a frame lies: motion, what it takes of the basis, and what was found on the way; see `Solution`.

    ``rests``: where it was read last is as good as where it lies.
    """

    matrix: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    limit: float = np.inf  # residual from which the loss is linear
    scale: float = np.nan
    error: NDArray[np.float64] | float = np.nan
    loss: float = 0.0
    pixels: float = 0.0
    rests: bool = False


def weighed(
    state: State, seen: Comparison, which: Sequence[int], places: Sequence[Placed], frames: Sequence[int] = ()
) -> list[Placed | str]:
    """Return frames where they lie with the scale of their residual, from which their robust weights follow.

    ``which`` of the frames compared, and their places; ``frames``: their numbers, if some of their residuals may tell
    the noise. In place of a frame that shows too little stands why.
    """
    seen.place(which, [p.matrix for p in places], [p.coefficients for p in places])
    found: list[Placed | str] = []
    for n, (i, place, (count, spread)) in enumerate(zip(which, places, seen.spreads(which), strict=True)):
        if count < 50:
            found.append("it shares no region with the other frames")
            continue
        # where most pixels are alike, as in one-bit images, half of the residuals are zero: edges are no outliers
        sigma = max(spread, state.level.least_noise)
        least = 1e-6 * float(np.abs(place.coefficients).max() or 1.0) + 1e-12
        limit = max(state.level.options.huber * sigma, least)
        if frames and frames[n] in state.listed:
            residual = seen.sample(i)
            state.samples[frames[n]] = residual[:2, residual[3] <= state.level.tail * limit]
        found.append(Placed(place.matrix, place.coefficients, limit, sigma))
    return found


def stepped(
    state: State, seen: Comparison, places: Sequence[Placed], steps: int, frames: Sequence[int] = ()
) -> list[Placed | str]:
    """Take at most so many Gauss-Newton steps in the motion and the coefficients of every frame compared.

    In place of a frame for which that fails stands why; ``frames`` as for `weighed`.
    """
    found: list[Placed | str] = list(places)
    moving = list(range(len(found)))
    for _ in range(steps):
        numbers = [frames[i] for i in moving] if frames else ()
        for i, now in zip(moving, weighed(state, seen, moving, _those(found, moving), numbers), strict=True):
            found[i] = now
        moving = [i for i in moving if isinstance(found[i], Placed)]
        there = _those(found, moving)
        for i, now, equations in zip(moving, there, seen.equations(moving, [p.limit for p in there]), strict=True):
            found[i] = _moved(state, now, equations)
        moving = [i for i in moving if not getattr(found[i], "rests", True)]
        if not moving:
            break
    return found


def _those(found: Sequence[Placed | str], which: Sequence[int]) -> list[Placed]:
    return [placed for placed in (found[i] for i in which) if isinstance(placed, Placed)]


def _moved(state: State, now: Placed, equations: Equations) -> Placed | str:
    """Take the step that the equations of a frame tell; returns why not if they do not."""
    level = state.level
    m = len(level.flows)
    normal, right, loss, pixels = equations
    solved = _solved(normal, right, level.d)
    if solved is None:
        return _NO_STRUCTURE
    step = solved[:m]
    longest = float(np.abs(step).max())
    if longest > 4.0:  # pixels: beyond, the linearisation says nothing
        step = step * (4.0 / longest)
    # noise left in the basis has slopes too, which tell nothing: 1/2 its variance along each axis
    told = normal.copy()
    told[:m, :m] -= level.sway * (pixels * now.scale**2 / (2 * len(state.present)))
    inverse = _inverted(told, normal)
    if inverse is None:
        return _NO_STRUCTURE
    return Placed(
        exponential(level.group, step) @ now.matrix,
        now.coefficients + solved[m:],
        now.limit,
        now.scale,
        now.scale * np.sqrt(np.maximum(np.diag(inverse)[: level.d], 0)),
        loss,
        pixels,
        longest < _SHORT and float(np.abs(solved[m:]).max()) < _SHORT * now.scale,
    )


def spatial(matrix: NDArray[np.float64], corner: float) -> NDArray[np.float64]:
    """Return a (4, 4) matrix over (z, y, x, 1); ``corner`` stands for z of a single plane."""
    if len(matrix) == 4:
        return np.ascontiguousarray(matrix)
    out = np.zeros((4, 4))
    out[0, 0] = corner
    out[1:, 1:] = matrix
    return out


def _solved(normal: NDArray[np.float64], right: NDArray[np.float64], d: int) -> NDArray[np.float64] | None:
    """Return the step; None if the shift in the plane is not determined. What has no slope at all stays."""
    diagonal = np.diag(normal)
    free = diagonal > 0
    if not free[d - 2 : d].all():
        return None
    scale = np.where(free, 1 / np.sqrt(np.where(free, diagonal, 1)), 0.0)
    scaled = normal * np.outer(scale, scale)
    scaled[np.diag_indices_from(scaled)] += np.where(free, 1e-9, 1.0)
    try:
        return np.asarray(np.linalg.solve(scaled, right * scale) * scale)
    except np.linalg.LinAlgError:
        return None


def _inverted(told: NDArray[np.float64], normal: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the inverse of ``told``, of which at least a fiftieth of ``normal`` is true in every direction.

    None if ``normal`` cannot be inverted.
    """
    from scipy.linalg import eigh

    free = np.diag(normal) > 0
    scale = np.where(free, 1 / np.sqrt(np.where(free, np.diag(normal), 1)), 0.0)
    whole = normal * np.outer(scale, scale)
    whole[np.diag_indices_from(whole)] += np.where(free, 1e-9, 1.0)
    try:
        values, vectors = eigh(told * np.outer(scale, scale), whole)
    except np.linalg.LinAlgError:
        return None
    vectors = vectors * scale[:, None]
    return np.asarray((vectors / np.maximum(values, 0.02)) @ vectors.T)
