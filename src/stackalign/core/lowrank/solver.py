"""Joint alignment by Gauss-Newton steps against the low-rank part, from coarse to fine, frames streamed.

One round passes over all frames. Each takes a few robust steps in its motion and its coefficients together, against the
basis of the round before, and then adds itself to the weighted normal equations from which the basis is solved anew.
Nothing of size frames x pixels is ever held: what is kept at full size is the basis and its normal equations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.lowrank.level import Level

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from stackalign.core.lowrank.solution import Solution, SolverOptions
    from stackalign.core.work import Work

_SMALLEST = 48  # pixels along the shorter axis of the coarsest level


def solve(
    load: Callable[[int], NDArray[Any]],
    frames: Sequence[int],
    frame_shape: tuple[int, ...],
    start: NDArray[np.float64],
    options: SolverOptions,
    mask: NDArray[np.bool_] | None = None,
) -> Work[Solution]:
    """Align frames jointly.

    Parameters
    ----------
    load : callable
        Reads a frame; called from several threads.
    frames : sequence of int
        Numbers of those that take part.
    frame_shape : tuple of int
        (y, x) or (z, y, x).
    start : ndarray (len(frames), d+1, d+1)
        Moving -> reference, to within some pixels; NaN where it is not known: such frames are looked for once the
        others lie on each other.
    options : SolverOptions
        How.
    mask : ndarray of bool, frame shape, optional
        True where a pixel of the reference counts.

    Yields
    ------
    Progress
        After every frame; its ``partial`` is the `Solution` so far, after every round.
    """
    matrices = np.array(start, float)
    coefficients: NDArray[np.float64] | None = None
    solution: Solution | None = None
    ladder = _levels(frame_shape, options.levels)
    for k, factors in enumerate(ladder):
        level = Level(load, frames, frame_shape, factors, options, mask)
        solution = yield from level.run(matrices, coefficients, solution, k == len(ladder) - 1, (k + 1, len(ladder)))
        matrices, coefficients = solution.matrices, solution.coefficients
    assert solution is not None
    return solution


def _levels(shape: tuple[int, ...], wanted: int | None) -> list[tuple[int, ...]]:
    """Return binning factors, coarsest first, full size last."""
    ladder = [(1,) * len(shape)]
    while wanted is None or len(ladder) < wanted:
        last = ladder[0]
        short = min(n // f for n, f in zip(shape[-2:], last[-2:], strict=True))
        if short < 2 * _SMALLEST:
            break
        # a thin axis of a volume is left as it is
        ladder.insert(0, tuple(f * 2 if n // (2 * f) >= 16 else f for n, f in zip(shape, last, strict=True)))
    return ladder
