"""Frames on the grid of the reference, one by one, by compiled functions, and what each leaves of its low-rank image.

See `stackalign.core.lowrank.pixels` for what each part answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.lowrank.model import robust_scale
from stackalign.core.lowrank.pixels import REACH
from stackalign.core.lowrank.placing import spatial
from stackalign.core.warping.resample import warp_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackalign.core.lowrank.level import Level
    from stackalign.core.lowrank.on_processor.images import ProcessorImages
    from stackalign.core.lowrank.pixels import Array, Equations, Floats

    Totals = tuple[Floats, Floats, Floats]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A frame as padded spline coefficients (z, y, x); ``finite`` is 0 in its holes, None if it has none."""

    spline: Floats
    shape: tuple[int, ...]
    finite: Floats | None

    def known(self, known: Floats, matrix: Array) -> Floats:
        """Return ``known`` (z, y, x) without what falls into a hole of the frame, which lies at ``matrix``."""
        if self.finite is None:
            return known
        seen = warp_frame(self.finite, matrix, order=1) > 0.999
        return known * seen.reshape(known.shape)


class ProcessorComparison:
    """`Comparison` of frames one by one."""

    def __init__(
        self, images: ProcessorImages, level: Level, frames: Sequence[Frame], matrices: Sequence[Array]
    ) -> None:
        self._frames = [_Read(images, level, f, m) for f, m in zip(frames, matrices, strict=True)]

    def place(self, which: Sequence[int], matrices: Sequence[Array], coefficients: Sequence[Array]) -> None:
        """Read frames."""
        for i, matrix, taken in zip(which, matrices, coefficients, strict=True):
            self._frames[i].place(matrix, taken)

    def spreads(self, which: Sequence[int]) -> list[tuple[int, float]]:
        """Return how many pixels count, and how they spread."""
        samples = [self.sample(i) for i in which]
        return [(sample.shape[1], robust_scale(sample[1] * np.sqrt(sample[2]))) for sample in samples]

    def sample(self, i: int) -> Floats:
        """Return a sample of the pixels."""
        return self._frames[i].sample()

    def equations(self, which: Sequence[int], limits: Sequence[float]) -> list[Equations]:
        """Linearise frames."""
        return [self._frames[i].equations(limit) for i, limit in zip(which, limits, strict=True)]

    def add(
        self,
        which: Sequence[int],
        matrices: Sequence[Array],
        coefficients: Sequence[Array],
        limits: Sequence[float],
        totals: Totals,
    ) -> None:
        """Add frames to the normal equations."""
        for i, matrix, taken, limit in zip(which, matrices, coefficients, limits, strict=True):
            self._frames[i].add(matrix, taken, limit, totals)

    def seen(self, i: int) -> Floats:
        """Return a frame as it was read."""
        return self._frames[i].seen()


class _Read:
    """One frame on the grid of the reference.

    Attributes
    ----------
    shown, rest, around : ndarray (z, y, x), float32
        The frame; what it differs by; the largest weighted difference nearby (0 if the loss has no end).
    spans : ndarray (z * y, 2)
        Columns of each row that the frame covers.
    """

    def __init__(self, images: ProcessorImages, level: Level, frame: Frame, matrix: Array) -> None:
        self._images, self._level, self._frame = images, level, frame
        self.known = frame.known(images.known, matrix)
        self.shown, self.rest, self._room = (np.empty(level.volume, np.float32) for _ in range(3))
        self.around = np.zeros(level.volume, np.float32)
        self.spans = np.empty((0, 2), np.int64)
        self._taken = np.zeros(len(images.basis))
        self._sample: Floats | None = None

    def place(self, matrix: Array, coefficients: Array) -> None:
        from stackalign.core.lucas_kanade.kernels import covered

        level, images = self._level, self._images
        back = spatial(np.asarray(np.linalg.inv(matrix), np.float64), 1.0)
        size = np.array((1,) * (3 - level.d) + self._frame.shape)
        self.spans = covered(back, size, level.volume)
        kernels().residuals(self._frame.spline, back, self.spans, images.basis, coefficients, self.shown, self.rest)
        if np.isfinite(level.options.tail):
            reach = REACH if max(level.factors) == 1 else 1
            # where frames do not agree what they have in common, something sparse has left its traces in it
            certain = self._frame.known(images.certain, matrix)
            kernels().largest_nearby(self.rest, certain, reach, self.around, self._room)
        self._taken, self._sample = coefficients, None

    def sample(self) -> Floats:
        if self._sample is not None:
            return self._sample
        volume, known = self._level.volume, self.known
        rows = np.arange(0, len(self.spans), max(volume[1] // 24, 1))
        z, y = np.divmod(rows, volume[1])
        x = np.arange(volume[2])
        inside = (x >= self.spans[rows, :1]) & (x < self.spans[rows, 1:]) & (known[z, y] > 0)
        common = sum(np.float32(c) * image[z, y] for c, image in zip(self._taken, self._images.basis, strict=True))
        self._sample = np.stack([part[inside] for part in (common, self.rest[z, y], known[z, y], self.around[z, y])])
        return self._sample

    def equations(self, limit: float) -> Equations:
        level, images = self._level, self._images
        found: Equations = kernels().frame_equations(
            self.rest, self.around, self.spans, images.basis, images.slopes, self.known, self._taken, level.flows,
            limit, level.tail * limit,
        )  # fmt: skip
        return found

    def add(self, matrix: Array, coefficients: Array, limit: float, totals: Totals) -> None:
        # what a frame adds to a place is weighed there, whether or not enough of the others have shown it before
        precision = self._frame.known(self._images.precision, matrix)
        kernels().add_frame(
            self.shown, self.rest, self.around, self.spans, precision, coefficients, limit, self._level.tail * limit,
            *totals,
        )  # fmt: skip

    def seen(self) -> Floats:
        columns = np.arange(self._level.volume[2])
        field = (columns >= self.spans[:, :1]) & (columns < self.spans[:, 1:])
        counts = field.reshape(self._level.volume) & (self.known > 0)
        return np.asarray(np.where(counts, self.shown, np.float32(np.nan)), np.float32)


def kernels() -> Any:
    """Return the compiled functions, loaded when they are first needed."""
    from stackalign.core.lowrank import kernels

    return kernels
