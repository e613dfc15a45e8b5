"""What changes from round to round at one size: where the frames lie, what they take of the basis, the basis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.holes import filled_along_lines
from stackalign.core.frames.noise import NoiseModel
from stackalign.core.generators import fitted, moved_points
from stackalign.core.geometry import centre, corners
from stackalign.core.lowrank.model import LowRank, initial_low_rank
from stackalign.core.lowrank.placing import Placed, stepped, weighed
from stackalign.core.lowrank.solution import UNPLACED
from stackalign.core.transform import TransformModel
from stackalign.core.warping.resample import warp_frame
from stackalign.core.work import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from stackalign.core.lowrank.level import Level
    from stackalign.core.work import Work

    Floats = NDArray[np.float32]

_STEPS = 2  # in the motion of a frame, at most, each round


class State:
    """What changes from round to round at one level."""

    def __init__(self, matrices: NDArray[np.float64], level: Level) -> None:
        count, rank = len(matrices), level.options.rank
        self.level, self.matrices = level, matrices
        self.coefficients = np.zeros((count, rank))
        self.images = level.images
        self.scale = np.full(count, np.nan)
        self.error = np.full((count, level.d), np.nan)
        self.overlap = np.ones(count)
        self.trouble = {int(k): UNPLACED for k in np.flatnonzero(~np.isfinite(matrices).all(axis=(1, 2)))}
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
        basis = np.zeros((rank, *self.level.shape), np.float32)
        basis[: start.rank] = start.basis.reshape(start.rank, *self.level.shape)
        self.images.start(basis.reshape(rank, *self.level.volume), None)
        counts = self.level.weight.reshape(self.level.shape) > 0
        for k in self.present:
            image = self._warped(k)
            known = np.isfinite(image) & counts
            a = basis[:, known]
            self.coefficients[k] = np.linalg.lstsq(a @ a.T, a @ image[known], rcond=1e-6)[0]

    def go_on(self, coefficients: NDArray[np.float64], basis: Floats, known: NDArray[np.bool_]) -> Work[None]:
        """Work out the first basis from that of the level before: it tells already what does not belong to it."""
        level = self.level
        self.coefficients = coefficients.copy()
        ratio = [max(round(n / m), 1) for n, m in zip(level.shape, known.shape, strict=True)]
        grown = np.diag([*ratio, 1.0])
        grown[:-1, -1] = (np.array(ratio) - 1) / 2
        whole = [filled_along_lines(image, known) if known.any() else image for image in basis]
        self.images.start(
            np.array([self._enlarged(image, grown, 1) for image in whole]),
            level.weight * self._enlarged(known.astype(np.float32), grown, 0),
        )
        for _ in self._accumulate(self.present, 0):
            yield Progress(0, len(self.present), "Joint alignment: the next level")
        self._renew()

    def _enlarged(self, image: Floats, grown: NDArray[np.float64], order: int) -> Floats:
        shape = self.level.shape
        return warp_frame(np.ascontiguousarray(image), grown, order=order, fill="edge", output_shape=shape).reshape(
            self.level.volume
        )

    def _warped(self, k: int) -> Floats:
        return warp_frame(self.level.image(k), self.matrices[k], fill="nan")

    def batch(self, batch: list[int], keep: float) -> Iterator[tuple[float, float]]:
        """Align frames to the basis, then renew the basis; ``keep`` is the share of what it was made of before."""
        self.images.fade(keep)
        yield from self._accumulate(batch, _STEPS)
        self._renew()

    def _accumulate(self, batch: list[int], steps: int) -> Iterator[tuple[float, float]]:
        """Add frames to the normal equations of the basis, after so many steps in their motion."""

        def align(numbers: Sequence[int], frames: Sequence[Any], totals: Any) -> list[tuple[float, float]]:
            return self._some(numbers, frames, steps, totals)

        return self.images.accumulate(batch, align)

    def _some(
        self, numbers: Sequence[int], frames: Sequence[Any], steps: int, totals: Any
    ) -> list[tuple[float, float]]:
        """Align frames, then add them to the normal equations; returns the loss and the pixels of each."""
        places = [Placed(self.matrices[k], self.coefficients[k]) for k in numbers]
        seen = self.images.compare(frames, [p.matrix for p in places])
        if steps:
            found = stepped(self, seen, places, steps, numbers)
        else:
            found = weighed(self, seen, range(len(numbers)), places)
        good: dict[int, Placed] = {}
        for i, (k, placed) in enumerate(zip(numbers, found, strict=True)):
            if isinstance(placed, str):
                self.trouble[k] = placed
                continue
            good[i] = placed
            if steps:
                self.place(k, placed)
        restless = [i for i, placed in good.items() if steps and not placed.rests]
        if restless:
            seen.place(restless, [good[i].matrix for i in restless], [good[i].coefficients for i in restless])
        if good:
            matrices, coefficients, limits = zip(
                *((p.matrix, p.coefficients, p.limit) for p in good.values()), strict=True
            )
            seen.add(list(good), matrices, coefficients, limits, totals)
        return [(good[i].loss, good[i].pixels) if i in good else (0.0, 0.0) for i in range(len(numbers))]

    def place(self, k: int, placed: Placed) -> None:
        """Put frame k where it was found."""
        self.matrices[k], self.coefficients[k] = placed.matrix, placed.coefficients
        self.scale[k], self.error[k] = placed.scale, placed.error
        self.overlap[k] = placed.pixels / max(float(self.images.counted), 1.0)
        self.trouble.pop(k, None)

    def _renew(self) -> None:
        """Solve for the images, and weigh their pixels, from what the frames have added up."""
        self.images.solve()
        change = self.images.orthonormal()
        if change is not None:
            self.coefficients = self.coefficients @ change
        if self.samples:
            self._weigh()
        self.images.settle()

    def _weigh(self) -> None:
        """Give each pixel the precision that the noise at its brightness leaves it: bright ones are noisier."""
        both = np.concatenate([self.samples[k] for k in sorted(self.samples)], axis=1)[
            :, :: max(1, 16 // len(self.samples))
        ]
        noise = NoiseModel.fitted(both[0], both[1])
        if noise.slope > 0:
            self.images.weigh(noise, float(np.median(noise.variance(both[0]))), self.typical())
        else:
            self.images.weigh(None, 1.0, self.typical())

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
