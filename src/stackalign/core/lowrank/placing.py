"""One frame against its low-rank image: what it leaves, and robust steps in its motion and its coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.generators import exponential
from stackalign.core.lowrank.model import robust_scale
from stackalign.core.warping.resample import spline_coefficients, warp_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.lowrank.state import State

    Floats = NDArray[np.float32]

_REACH = 2  # pixels, at full size: what lies as near to something sparse is its blurred border
_NO_STRUCTURE = "what it shares with the other frames has no structure"
_SHORT = 0.02  # pixels: after such a step a frame waits for the others, and is added to the basis where it was read


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A frame as padded spline coefficients (z, y, x); ``finite`` is 0 in its holes, None if it has none."""

    spline: Floats
    shape: tuple[int, ...]
    finite: Floats | None

    def known(self, known: Floats, matrix: NDArray[np.float64]) -> Floats:
        """Return ``known`` (z, y, x) without what falls into a hole of the frame, which lies at ``matrix``."""
        if self.finite is None:
            return known
        seen = warp_frame(self.finite, matrix, order=1) > 0.999
        return known * seen.reshape(known.shape)


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


def looked_at(image: Floats) -> Frame:
    """Return a reduced frame ready to be compared."""
    finite = np.isfinite(image)
    if finite.all():
        return Frame(spline_coefficients(image, 3), image.shape, None)
    image = np.where(finite, image, np.float32(image[finite].mean() if finite.any() else 0))
    return Frame(spline_coefficients(image, 3), image.shape, finite.astype(np.float32))


class Comparison:
    """A frame on the grid of the reference, and what it differs by from its low-rank image.

    Attributes
    ----------
    shown, rest, around : ndarray (z, y, x), float32
        The frame; what it differs by; the largest weighted difference nearby (0 if the loss has no end).
    spans : ndarray (z * y, 2)
        Columns of each row that the frame covers.
    """

    def __init__(self, state: State, frame: Frame) -> None:
        self._state, self._frame = state, frame
        self.shown, self.rest = (np.empty(state.level.volume, np.float32) for _ in range(2))
        self.around = np.zeros(state.level.volume, np.float32)
        self._room = np.empty(state.level.volume, np.float32)
        self.spans = np.empty((0, 2), np.int64)

    def place(self, matrix: NDArray[np.float64], coefficients: NDArray[np.float64]) -> None:
        """Read the frame where it lies."""
        from stackalign.core.lucas_kanade.kernels import covered

        level = self._state.level
        back = spatial(np.asarray(np.linalg.inv(matrix), np.float64), 1.0)
        size = np.array((1,) * (3 - level.d) + self._frame.shape)
        self.spans = covered(back, size, level.volume)
        basis = self._state.basis
        kernels().residuals(self._frame.spline, back, self.spans, basis, coefficients, self.shown, self.rest)
        if np.isfinite(level.options.tail):
            reach = _REACH if max(level.factors) == 1 else 1
            # where frames do not agree what they have in common, something sparse has left its traces in it
            counted = self._frame.known(self._state.counted, matrix)
            kernels().largest_nearby(self.rest, counted, reach, self.around, self._room)

    def sample(self, known: Floats, coefficients: NDArray[np.float64]) -> Floats:
        """Return low-rank intensities, differences, precisions, largest differences nearby of some rows, (4, N)."""
        level = self._state.level
        rows = np.arange(0, len(self.spans), max(level.volume[1] // 24, 1))
        z, y = np.divmod(rows, level.volume[1])
        x = np.arange(level.volume[2])
        inside = (x >= self.spans[rows, :1]) & (x < self.spans[rows, 1:]) & (known[z, y] > 0)
        common = sum(np.float32(c) * image[z, y] for c, image in zip(coefficients, self._state.basis, strict=True))
        return np.stack([part[inside] for part in (common, self.rest[z, y], known[z, y], self.around[z, y])])


def weighed(
    state: State,
    seen: Comparison,
    known: Floats,
    matrix: NDArray[np.float64],
    coefficients: NDArray[np.float64],
    k: int | None = None,
) -> Placed | str:
    """Return a frame where it lies with the scale of its residual, from which its robust weights follow.

    ``k`` names a frame some of whose residuals may tell the noise.
    """
    seen.place(matrix, coefficients)
    residual = seen.sample(known, coefficients)
    if residual.shape[1] < 50:
        return "it shares no region with the other frames"
    # where most pixels are alike, as in one-bit images, half of the residuals are zero: edges are no outliers
    sigma = max(robust_scale(residual[1] * np.sqrt(residual[2])), state.level.least_noise)
    least = 1e-6 * float(np.abs(coefficients).max() or 1.0) + 1e-12
    limit = max(state.level.options.huber * sigma, least)
    if k in state.listed:
        state.samples[k] = residual[:2, residual[3] <= state.level.tail * limit]
    return Placed(matrix, coefficients, limit, sigma)


def stepped(
    state: State,
    seen: Comparison,
    known: Floats,
    matrix: NDArray[np.float64],
    coefficients: NDArray[np.float64],
    steps: int,
    k: int | None = None,
) -> Placed | str:
    """Take at most so many Gauss-Newton steps in the motion and the coefficients of a frame.

    Returns why not if that fails.
    """
    level, flows = state.level, state.level.flows
    m = len(flows)
    placed = Placed(matrix, coefficients)
    for _ in range(steps):
        now = weighed(state, seen, known, placed.matrix, placed.coefficients, k)
        if isinstance(now, str):
            return now
        limit, sigma, mixed = now.limit, now.scale, now.coefficients
        normal, right, loss, pixels = kernels().frame_equations(
            seen.rest, seen.around, seen.spans, state.basis, state.slopes, known, mixed, flows, limit,
            level.tail * limit,
        )  # fmt: skip
        solved = _solved(normal, right, level.d)
        if solved is None:
            return _NO_STRUCTURE
        step = solved[:m]
        longest = float(np.abs(step).max())
        if longest > 4.0:  # pixels: beyond, the linearisation says nothing
            step = step * (4.0 / longest)
        # noise left in the basis has slopes too, which tell nothing: 1/2 its variance along each axis
        told = normal.copy()
        told[:m, :m] -= level.sway * (pixels * sigma**2 / (2 * len(state.present)))
        inverse = _inverted(told, normal)
        if inverse is None:
            return _NO_STRUCTURE
        placed = Placed(
            exponential(level.group, step) @ placed.matrix,
            mixed + solved[m:],
            limit,
            sigma,
            sigma * np.sqrt(np.maximum(np.diag(inverse)[: level.d], 0)),
            loss,
            pixels,
            longest < _SHORT and float(np.abs(solved[m:]).max()) < _SHORT * sigma,
        )
        if placed.rests:
            break
    return placed


def kernels() -> Any:
    """Return the compiled functions, loaded when they are first needed."""
    from stackalign.core.lowrank import kernels

    return kernels


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
