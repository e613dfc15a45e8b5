"""What frames have in common at one size, on the processor: arrays on the host.

See `stackalign.core.lowrank.pixels` for what each part answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.frames.holes import filled_from_nearest
from stackalign.core.lowrank.on_processor.comparison import Frame, ProcessorComparison
from stackalign.core.lowrank.pixels import AGREED, SEEN
from stackalign.core.threads import map_ahead
from stackalign.core.warping.resample import spline_coefficients

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stackalign.core.frames.noise import NoiseModel
    from stackalign.core.lowrank.level import Level
    from stackalign.core.lowrank.pixels import Align, Array, Floats

    Totals = tuple[Floats, Floats, Floats]

_ROOM = 1 << 29  # bytes


class ProcessorImages:
    """`Images` as arrays on the host."""

    together = 1
    room = _ROOM

    def __init__(self, level: Level) -> None:
        rank, volume = level.options.rank, level.volume
        self._level = level
        self.basis = np.zeros((rank, *volume), np.float32)
        self.slopes = np.zeros((rank, level.d, *volume), np.float32)
        self.totals: Totals = self.new_totals(rank)
        self.known = level.weight.copy()
        self.shown = level.weight > 0
        # relative precision of each pixel, from the noise of the frames themselves
        self.precision = level.weight
        # the same where enough frames show it, whether these agree or not
        self.certain = level.weight
        self.counted = int(np.count_nonzero(self.known))
        self._agreed = self.shown

    def frame(self, image: Floats) -> Frame:
        """Return a reduced frame ready to be compared."""
        finite = np.isfinite(image)
        if finite.all():
            return Frame(spline_coefficients(image, 3), image.shape, None)
        image = np.where(finite, image, np.float32(image[finite].mean() if finite.any() else 0))
        return Frame(spline_coefficients(image, 3), image.shape, finite.astype(np.float32))

    def compare(self, frames: Sequence[Frame], matrices: Sequence[Array]) -> ProcessorComparison:
        """Return frames ready to be placed."""
        return ProcessorComparison(self, self._level, frames, matrices)

    def new_totals(self, rank: int) -> Totals:
        """Return products (k (k + 1) / 2, z, y, x), sums (k, z, y, x) and counts (z, y, x); see `add_frame`."""
        volume = self._level.volume
        return (
            np.zeros((rank * (rank + 1) // 2, *volume), np.float32),
            np.zeros((rank, *volume), np.float32),
            np.zeros(volume, np.float32),
        )

    def weights(self, totals: Totals) -> Floats:
        """Return totals of one image."""
        return np.stack([totals[0][0], totals[1][0], totals[2]])

    def accumulate(self, batch: Sequence[int], align: Align) -> Iterator[tuple[float, float]]:
        """Align frames in threads, each with totals of its own."""
        chunk = max(1, min(8, len(batch) // 4))
        parts = [batch[k : k + chunk] for k in range(0, len(batch), chunk)]

        def work(part: Sequence[int]) -> tuple[Totals, list[tuple[float, float]]]:
            own = self.new_totals(len(self.basis))
            return own, [loss for k in part for loss in align([k], [self._level.frame(k)], own)]

        for own, losses in map_ahead(work, parts):
            for total, more in zip(self.totals, own, strict=True):
                total += more
            yield from losses

    def fade(self, keep: float) -> None:
        """Keep a share of the totals."""
        for total in self.totals:
            total *= np.float32(keep)

    def start(self, basis: Floats, known: Floats | None) -> None:
        """Begin with these images."""
        self.basis[...] = basis
        if known is not None:
            self.known = known
            self.counted = int(np.count_nonzero(known))
        else:
            self._slope()

    def solve(self) -> None:
        """Solve the normal equations of every pixel."""
        products, sums, counts = self.totals
        rank = len(self.basis)
        # where frames overlap most; of two planes a slight drift may leave either to half of the frames
        shown = (counts > 0) & (counts >= SEEN * float(counts.max()))
        if rank == 1:
            trace = products[0]
            shown &= trace > 0
            self.basis[0] = np.where(shown, sums[0] / np.where(shown, trace, 1), 0)
        else:
            flat = products.reshape(len(products), -1)
            matrix = np.zeros((flat.shape[1], rank, rank))
            for p, (i, j) in enumerate(zip(*np.tril_indices(rank), strict=True)):
                matrix[:, i, j] = matrix[:, j, i] = flat[p]
            trace = np.trace(matrix, axis1=1, axis2=2).reshape(shown.shape)
            shown &= trace > 0
            ridge = 1e-6 * trace.ravel() + np.where(shown.ravel(), 0, 1.0)
            matrix[:, np.arange(rank), np.arange(rank)] += ridge[:, None]
            solved = np.linalg.solve(matrix, sums.reshape(rank, -1).T[..., None])[..., 0].T
            self.basis[...] = np.where(shown, solved.reshape(self.basis.shape), 0)
        self.shown = shown
        # what is lit about half of the time, among the frames that show it, has edges where only activity ends
        weight = np.where(shown, trace / np.where(shown, self.precision * counts, 1), 0)
        self._agreed = weight > AGREED * float(np.median(weight[shown])) if shown.any() else shown

    def orthonormal(self) -> Array | None:
        """Keep the images orthonormal: the same product with well-scaled coefficients."""
        rank = len(self.basis)
        flat = (self.basis * (self.shown & (self._level.weight > 0))).reshape(rank, -1).astype(np.float64)
        q, r = np.linalg.qr(flat.T)
        sign = np.where(np.diag(r) < 0, -1.0, 1.0)
        scale = np.sqrt(flat.shape[1])  # coefficients in intensity units, whatever the size of the frame
        change: Array = (r.T * sign) / scale
        if not np.isfinite(change).all() or np.abs(np.diag(change)).min() == 0:
            return None
        self.basis[...] = ((q * sign).T * scale).reshape(self.basis.shape)
        # the normal equations belong to the old coefficients: they are made anew in the next pass, or kept in part
        products, sums, _ = self.totals
        if rank == 1:
            products *= np.float32(change[0, 0] ** 2)
            sums *= np.float32(change[0, 0])
        elif self._level.options.batch_size is not None:
            sums[...] = np.tensordot(change.T, sums, 1)
            rows, columns = np.tril_indices(rank)
            whole = np.empty((rank, rank, products[0].size), np.float32)
            whole[rows, columns] = whole[columns, rows] = products.reshape(len(products), -1)
            whole = np.einsum("ia,ijn,jb->abn", change, whole, change, optimize=True)
            products[...] = whole[rows, columns].reshape(products.shape)
        return change

    def weigh(self, noise: NoiseModel | None, usual: float, typical: Array) -> None:
        """Weigh the pixels by the noise at their brightness."""
        weight = self._level.weight
        if noise is None:
            self.precision = weight
        else:
            variance = noise.variance(np.tensordot(typical.astype(np.float32), self.basis, 1))
            self.precision = np.ascontiguousarray(weight * np.float32(usual) / variance, np.float32)

    def settle(self) -> None:
        """Work out what is known, and the slopes there."""
        self.certain = np.ascontiguousarray(self.precision * self.shown, np.float32)
        self.known = self.certain * self._agreed
        self.counted = int(np.count_nonzero(self.known))
        self._slope()

    def _slope(self) -> None:
        level, edge = self._level, self.known > 0
        for j, image in enumerate(self.basis):
            # what is not known must not make an edge
            filled = np.where(edge, image, np.float32(image[edge].mean() if edge.any() else 0))
            if not edge.all():
                filled = filled_from_nearest(filled, edge)
            for axis in (a for a in range(level.d) if level.shape[a] > 1):
                self.slopes[j, axis] = np.gradient(filled, axis=axis + 3 - level.d)
