"""The frames at one size: rounds over all of them until they rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.reduction import binned, enlarged, reduced
from stackalign.core.generators import generators, moved_points, velocities
from stackalign.core.geometry import centre, corners
from stackalign.core.lowrank.confirm import confirmed
from stackalign.core.lowrank.on_processor.images import ProcessorImages
from stackalign.core.lowrank.placing import spatial
from stackalign.core.lowrank.rescue import rescued
from stackalign.core.lowrank.solution import Solution
from stackalign.core.lowrank.state import State
from stackalign.core.work import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from stackalign.core.lowrank.pixels import Images
    from stackalign.core.lowrank.solution import SolverOptions
    from stackalign.core.work import Work

    Floats = NDArray[np.float32]

_CACHE_BYTES = 1 << 29


class Level:
    """The frames at one size."""

    def __init__(
        self,
        load: Callable[[int], NDArray[Any]],
        frames: Sequence[int],
        frame_shape: tuple[int, ...],
        factors: tuple[int, ...],
        options: SolverOptions,
        mask: NDArray[np.bool_] | None,
    ) -> None:
        self.load, self.frames, self.full_shape = load, list(frames), frame_shape
        self.factors, self.options = factors, options
        self.shape = tuple(n // f for n, f in zip(frame_shape, factors, strict=True))
        self.d = len(frame_shape)
        self.volume = (1,) * (3 - self.d) + self.shape
        size = np.ones(self.d) if options.spacing is None else np.asarray(options.spacing, float)
        self.radius = float(np.linalg.norm((np.asarray(self.shape[-2:]) - 1) / 2)) / 2 + 1
        self.group = generators(options.model, centre(self.shape), self.radius, size * np.asarray(factors))
        self.flows = np.array([spatial(g, 0.0) for g in self.group])
        points = np.stack(np.meshgrid(*[np.linspace(0, n - 1, 9) for n in self.shape], indexing="ij"), -1)
        flow = velocities(self.group, points.reshape(-1, self.d))
        self.sway = np.einsum("ndk,ndl->kl", flow, flow) / len(flow)  # mean product of velocities
        self.tail = min(options.tail, 1e6)
        self.least_noise = options.least_noise / float(np.sqrt(np.prod(factors)))
        weight = np.ones(self.shape, np.float32) if mask is None else binned(mask.astype(np.float32), factors)
        if options.window is not None:
            weight = weight * binned(options.window, factors)
        self.weight = np.ascontiguousarray(weight.reshape(self.volume))
        self.images = _images(self)
        size_of_all = len(self.frames) * int(np.prod(self.shape)) * 4  # bytes
        self._reads_once, self._keeps = size_of_all <= _CACHE_BYTES, size_of_all <= self.images.room
        self._reduced: dict[int, Floats] = {}
        self._frames: dict[int, Any] = {}

    def image(self, k: int) -> Floats:
        """Return frame number k of those that take part, reduced, float32, NaN where it has holes."""
        small = self._reduced.get(k)
        if small is None:
            small = binned(self.load(self.frames[k]), self.factors)
            if self._reads_once and k not in self._frames:
                self._reduced[k] = small
        return small

    def frame(self, k: int) -> Any:
        """Return frame number k ready to be compared; from then on its image is read anew if it is asked for."""
        frame = self._frames.get(k)
        if frame is None:
            frame = self.images.frame(self.image(k))
            if self._keeps:
                self._frames[k] = frame
                self._reduced.pop(k, None)
        return frame

    def run(
        self,
        start: NDArray[np.float64],
        coefficients: NDArray[np.float64] | None,
        before: Solution | None,
        last: bool,
        stage: tuple[int, int],
    ) -> Work[Solution]:
        """Iterate until the frames rest; on the first level look again for frames that do not lie where they should."""
        state = State(np.array([reduced(m, self.factors) for m in start]), self)
        if before is None or coefficients is None:
            yield from state.begin()
        else:
            yield from state.go_on(coefficients, before.basis, before.known)
        losses = list(before.loss) if before is not None else []
        change = yield from self._rounds(state, losses, last, stage)
        if before is None:
            if (yield from rescued(state)):
                change = yield from self._rounds(state, losses, last, stage)
            if (yield from confirmed(state)):
                change = yield from self._rounds(state, losses, last, stage)
        return self._solution(state, losses, change)

    def _rounds(self, state: State, losses: list[float], last: bool, stage: tuple[int, int]) -> Work[float]:
        """Pass over the frames until they rest; adds the loss of each round to ``losses``, returns the last motion."""
        o, there = self.options, np.array(state.present)
        count = len(there)
        # a coarse level only has to hand over a start
        tolerance = o.tolerance / max(self.factors) if last else 0.02
        rng = np.random.default_rng(o.seed)
        size = count if o.batch_size is None else max(1, min(o.batch_size, count))
        message = f"Joint alignment, level {stage[0]} of {stage[1]}"
        change, previous, calm = np.inf, np.inf, 0
        for turn in range(o.iterations):
            old = state.matrices.copy()
            order = there if size == count else rng.permutation(there)
            done, total, pixels = 0, 0.0, 0.0
            for first in range(0, count, size):
                batch = [int(k) for k in order[first : first + size]]
                keep = 0.0 if size == count else 1.0 - size / count
                for loss, n in state.batch(batch, keep):
                    total, pixels, done = total + loss, pixels + n, done + 1
                    yield Progress(done, count, f"{message}, round {turn + 1}")
            state.settle_gauge()
            losses.append(total / max(pixels, 1.0))
            previous, change = change, self._moved(old[there], state.matrices[there])
            partial = self._solution(state, losses, change)
            yield Progress(count, count, f"{message}, round {turn + 1}", partial)
            # with mini-batches the basis is never quite still: rest is when it no longer gets calmer
            calm = calm + 1 if change > 0.8 * previous else 0
            if change < tolerance or (turn > 3 and calm >= 3):
                break
        return change

    def _moved(self, old: NDArray[np.float64], new: NDArray[np.float64]) -> float:
        points = corners(self.shape)
        steps = moved_points(new, points) - moved_points(old, points)
        # the median frame's motion: a few that cannot be aligned must not keep the others from resting
        return float(np.sqrt(np.median((steps**2).mean(axis=(1, 2)))))

    def _solution(self, state: State, losses: list[float], change: float) -> Solution:
        scale, basis = np.asarray(self.factors, float), self.images.basis
        return Solution(
            np.array([enlarged(m, self.factors) for m in state.matrices]),
            basis.reshape(len(basis), *self.shape),
            (self.images.shown & (self.weight > 0)).reshape(self.shape),
            state.coefficients.copy(),
            state.scale.copy(),
            state.error * scale,
            state.overlap.copy(),
            {self.frames[k]: reason for k, reason in state.trouble.items()},
            list(losses),
            len(losses),
            change * float(scale.max()),
        )


def _images(level: Level) -> Images:
    """Return what computes on the pixels of a level."""
    if level.options.device is None:
        return ProcessorImages(level)
    from stackalign.core.lowrank.on_device.images import DeviceImages

    return DeviceImages(level, level.options.device)
