"""What changes from round to round at one size: where the frames lie, what they take of the basis, the basis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.holes import filled_along_lines, filled_from_nearest
from stackalign.core.frames.noise import NoiseModel
from stackalign.core.generators import fitted, moved_points
from stackalign.core.geometry import centre, corners
from stackalign.core.lowrank.model import LowRank, initial_low_rank
from stackalign.core.lowrank.placing import Comparison, Placed, kernels, stepped, weighed
from stackalign.core.lowrank.solution import UNPLACED
from stackalign.core.threads import map_ahead
from stackalign.core.transform import TransformModel
from stackalign.core.warping.resample import warp_frame
from stackalign.core.work import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.lowrank.level import Level
    from stackalign.core.work import Work

    Floats = NDArray[np.float32]

_STEPS = 2  # in the motion of a frame, at most, each round
_SEEN = 0.25  # of the frames that show the pixel that most show: what fewer show is not known
_AGREED = 0.5  # of the usual robust weight of a frame: not quite half of the frames then show something else


class State:
    """What changes from round to round at one level."""

    def __init__(self, matrices: NDArray[np.float64], level: Level) -> None:
        count, rank = len(matrices), level.options.rank
        self.level, self.matrices = level, matrices
        self.coefficients = np.zeros((count, rank))
        self.basis = np.zeros((rank, *level.volume), np.float32)
        self.slopes = np.zeros((rank, level.d, *level.volume), np.float32)
        self.known = level.weight.copy()
        self.products = np.zeros((rank * (rank + 1) // 2, *level.volume), np.float32)
        self.sums = np.zeros((rank, *level.volume), np.float32)
        self.counts = np.zeros(level.volume, np.float32)
        self.shown = level.weight > 0
        self.counted = level.weight
        self.scale = np.full(count, np.nan)
        self.error = np.full((count, level.d), np.nan)
        self.overlap = np.ones(count)
        self.trouble = {int(k): UNPLACED for k in np.flatnonzero(~np.isfinite(matrices).all(axis=(1, 2)))}
        # relative precision of each pixel, from the noise of the frames themselves
        self.precision = level.weight
        self.listed = frozenset(self._spread(16))
        self.samples: dict[int, Floats] = {}

    @property
    def present(self) -> list[int]:
        """Frames that have a place."""
        return [k for k in range(len(self.matrices)) if np.isfinite(self.matrices[k]).all()]

    def _spread(self, most: int) -> list[int]:
        """Return up to so many of them, evenly spread."""
        there = self.present
        return [there[i] for i in np.unique(np.linspace(0, len(there) - 1, min(len(there), most)).round().astype(int))]

    def typical(self) -> NDArray[np.float64]:
        """Return what most frames take of the basis, (k,)."""
        return np.asarray(np.median(self.coefficients[self.present], axis=0))

    def begin(self) -> Work[None]:
        """Work out the first basis by decomposing a sample of frames."""
        rank = self.level.options.rank
        chosen = self._spread(64)
        rows = []
        for n, k in enumerate(chosen):
            rows.append(self._warped(k).ravel())
            yield Progress(n + 1, len(chosen), "Joint alignment: a first basis")
        x = np.array(rows, np.float32)
        start = _median_start(x) if rank == 1 else initial_low_rank(x, min(rank, len(x)))
        self.basis[: start.rank] = start.basis.reshape(start.rank, *self.level.volume)
        self._slopes()
        for k in self.present:
            image = self._warped(k)
            known = np.isfinite(image) & (self.known.reshape(image.shape) > 0)
            a = self.basis.reshape(rank, *self.level.shape)[:, known]
            self.coefficients[k] = np.linalg.lstsq(a @ a.T, a @ image[known], rcond=1e-6)[0]

    def go_on(self, coefficients: NDArray[np.float64], basis: Floats, known: NDArray[np.bool_]) -> Work[None]:
        """Work out the first basis from that of the level before: it tells already what does not belong to it."""
        level = self.level
        self.coefficients = coefficients.copy()
        ratio = [max(round(n / m), 1) for n, m in zip(level.shape, known.shape, strict=True)]
        grown = np.diag([*ratio, 1.0])
        grown[:-1, -1] = (np.array(ratio) - 1) / 2
        self.known = level.weight * self._enlarged(known.astype(np.float32), grown, 0)
        for j, image in enumerate(basis):
            whole = filled_along_lines(image, known) if known.any() else image
            self.basis[j] = self._enlarged(whole, grown, 1)
        for _ in self._accumulate(self.present, 0):
            yield Progress(0, len(self.present), "Joint alignment: the next level")
        self._solve_basis()

    def _enlarged(self, image: Floats, grown: NDArray[np.float64], order: int) -> Floats:
        shape = self.level.shape
        return warp_frame(np.ascontiguousarray(image), grown, order=order, fill="edge", output_shape=shape).reshape(
            self.level.volume
        )

    def _warped(self, k: int) -> Floats:
        return warp_frame(self.level.image(k), self.matrices[k], fill="nan")

    def batch(self, batch: list[int], keep: float) -> Any:
        """Align frames to the basis, then renew the basis; ``keep`` is the share of what it was made of before."""
        for total in (self.products, self.sums, self.counts):
            total *= np.float32(keep)
        yield from self._accumulate(batch, _STEPS)
        self._solve_basis()

    def _accumulate(self, batch: list[int], steps: int) -> Any:
        """Add frames to the normal equations of the basis, after so many steps in their motion."""
        chunk = max(1, min(8, len(batch) // 4))
        parts = [batch[k : k + chunk] for k in range(0, len(batch), chunk)]

        def work(part: list[int]) -> tuple[list[Floats], list[tuple[float, float]]]:
            own = [np.zeros_like(total) for total in (self.products, self.sums, self.counts)]
            return own, [self._one(k, steps, *own) for k in part]

        for (products, sums, counts), losses in map_ahead(work, parts):
            self.products += products
            self.sums += sums
            self.counts += counts
            yield from losses

    def _one(self, k: int, steps: int, products: Floats, sums: Floats, counts: Floats) -> tuple[float, float]:
        """Align frame k, then add it to the normal equations; returns its loss and pixels."""
        frame = self.level.frame(k)
        seen = Comparison(self, frame)
        known = frame.known(self.known, self.matrices[k])
        if steps:
            placed = stepped(self, seen, known, self.matrices[k], self.coefficients[k], steps, k)
        else:
            placed = weighed(self, seen, known, self.matrices[k], self.coefficients[k])
        if isinstance(placed, str):
            self.trouble[k] = placed
            return 0.0, 0.0
        if steps:
            self.place(k, placed)
            if not placed.rests:
                seen.place(placed.matrix, placed.coefficients)
        # what a frame adds to a place is weighed there, whether or not enough of the others have shown it before
        precision = frame.known(self.precision, placed.matrix)
        tail = self.level.tail * placed.limit
        kernels().add_frame(
            seen.shown, seen.rest, seen.around, seen.spans, precision, placed.coefficients, placed.limit, tail,
            products, sums, counts,
        )  # fmt: skip
        return placed.loss, placed.pixels

    def place(self, k: int, placed: Placed) -> None:
        """Put frame k where it was found."""
        self.matrices[k], self.coefficients[k] = placed.matrix, placed.coefficients
        self.scale[k], self.error[k] = placed.scale, placed.error
        self.overlap[k] = placed.pixels / max(float(np.count_nonzero(self.known)), 1.0)
        self.trouble.pop(k, None)

    def _solve_basis(self) -> None:
        """Solve for the images where enough frames show a pixel; where these agree the pixel counts for the motion."""
        rank = len(self.basis)
        # where frames overlap most; of two planes a slight drift may leave either to half of the frames
        shown = (self.counts > 0) & (self.counts >= _SEEN * float(self.counts.max()))
        if rank == 1:
            trace = self.products[0]
            shown &= trace > 0
            self.basis[0] = np.where(shown, self.sums[0] / np.where(shown, trace, 1), 0)
        else:
            flat = self.products.reshape(len(self.products), -1)
            matrix = np.zeros((flat.shape[1], rank, rank))
            for p, (i, j) in enumerate(zip(*np.tril_indices(rank), strict=True)):
                matrix[:, i, j] = matrix[:, j, i] = flat[p]
            trace = np.trace(matrix, axis1=1, axis2=2).reshape(shown.shape)
            shown &= trace > 0
            ridge = 1e-6 * trace.ravel() + np.where(shown.ravel(), 0, 1.0)
            matrix[:, np.arange(rank), np.arange(rank)] += ridge[:, None]
            solved = np.linalg.solve(matrix, self.sums.reshape(rank, -1).T[..., None])[..., 0].T
            self.basis[...] = np.where(shown, solved.reshape(self.basis.shape), 0)
        self.shown = shown
        # what is lit about half of the time, among the frames that show it, has edges where only activity ends
        weight = np.where(shown, trace / np.where(shown, self.precision * self.counts, 1), 0)
        agreed = weight > _AGREED * float(np.median(weight[shown])) if shown.any() else shown
        self._normalise(shown)
        self._weigh()
        self.counted = np.ascontiguousarray(self.precision * shown, np.float32)
        self.known = self.counted * agreed
        self._slopes()

    def _weigh(self) -> None:
        """Give each pixel the precision that the noise at its brightness leaves it: bright ones are noisier."""
        if not self.samples:
            return
        both = np.concatenate([self.samples[k] for k in sorted(self.samples)], axis=1)[
            :, :: max(1, 16 // len(self.samples))
        ]
        noise = NoiseModel.fitted(both[0], both[1])
        if noise.slope > 0:
            typical = self.typical().astype(np.float32)
            variance = noise.variance(np.tensordot(typical, self.basis, 1))
            usual = float(np.median(noise.variance(both[0])))
            self.precision = np.ascontiguousarray(self.level.weight * np.float32(usual) / variance, np.float32)
        else:
            self.precision = self.level.weight

    def _normalise(self, enough: NDArray[np.bool_]) -> None:
        """Keep the basis orthonormal on what is known: the same product with well-scaled coefficients."""
        rank = len(self.basis)
        flat = (self.basis * (enough & (self.level.weight > 0))).reshape(rank, -1).astype(np.float64)
        q, r = np.linalg.qr(flat.T)
        sign = np.where(np.diag(r) < 0, -1.0, 1.0)
        scale = np.sqrt(flat.shape[1])  # coefficients in intensity units, whatever the size of the frame
        change = (r.T * sign) / scale
        if not np.isfinite(change).all() or np.abs(np.diag(change)).min() == 0:
            return
        self.basis[...] = ((q * sign).T * scale).reshape(self.basis.shape)
        self.coefficients = self.coefficients @ change
        # the normal equations belong to the old coefficients: they are made anew in the next pass, or kept in part
        if rank == 1:
            self.products *= np.float32(change[0, 0] ** 2)
            self.sums *= np.float32(change[0, 0])

    def _slopes(self) -> None:
        edge = self.known > 0
        for j, image in enumerate(self.basis):
            # what is not known must not make an edge
            filled = np.where(edge, image, np.float32(image[edge].mean() if edge.any() else 0))
            if not edge.all():
                filled = filled_from_nearest(filled, edge)
            for axis in (a for a in range(self.level.d) if self.level.shape[a] > 1):
                self.slopes[j, axis] = np.gradient(filled, axis=axis + 3 - self.level.d)

    def settle_gauge(self) -> None:
        """Take the mean motion out: the loss does not fix it, and stretches would shrink everything to a point."""
        level = self.level
        model = level.options.model
        good = np.array([k for k in range(len(self.matrices)) if k not in self.trouble])
        if not len(good) or model.rank < TransformModel.SIMILARITY.rank:
            return
        points = corners(level.shape)
        mean = np.median(moved_points(np.linalg.inv(self.matrices[good]), points), axis=0)
        spacing = np.ones(level.d) if level.options.spacing is None else np.asarray(level.options.spacing)
        size = spacing * np.asarray(level.factors)
        if model is TransformModel.PROJECTIVE:
            model = TransformModel.AFFINE
        common = fitted(points, mean, model, tuple(size))
        # only stretch can run away, and it is one in physical units: shifts and rotations are held by the basis
        _, s, vt = np.linalg.svd(common[:-1, :-1] * size[:, None] / size[None, :])
        stretch = np.eye(level.d + 1)
        stretch[:-1, :-1] = ((vt.T * s) @ vt) / size[:, None] * size[None, :]
        middle = centre(level.shape)
        stretch[:-1, -1] = middle - stretch[:-1, :-1] @ middle
        if np.abs(s - 1).max() > 1e-9:
            self.matrices = np.array([stretch @ m for m in self.matrices])


def _median_start(x: Floats) -> LowRank:
    count = np.isfinite(x).sum(axis=0)
    filled = np.where(count > 0, x, np.float32(0))
    image = np.nanmedian(filled, axis=0)
    return LowRank(np.asarray(image[None], np.float32), np.ones((len(x), 1)))
