"""Joint alignment by Gauss-Newton steps against the low-rank part, from coarse to fine, frames streamed.

One round passes over all frames. Each takes a few robust steps in its motion and its coefficients together, against the
basis of the round before, and then adds itself to the weighted normal equations from which the basis is solved anew.
Nothing of size frames x pixels is ever held: what is kept at full size is the basis and its normal equations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.generators import exponential, fitted, generators, moved_points, velocities
from stackalign.core.geometry import centre, corners
from stackalign.core.holes import filled_from_nearest
from stackalign.core.lowrank.model import initial_low_rank, robust_scale
from stackalign.core.noise import NoiseModel
from stackalign.core.reduction import binned, enlarged, reduced
from stackalign.core.resample import spline_coefficients, warp_frame
from stackalign.core.threads import map_ahead
from stackalign.core.transform import TransformModel
from stackalign.core.work import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from stackalign.core.work import Work

    Floats = NDArray[np.float32]

_CACHE_BYTES = 1 << 29
_SMALLEST = 48  # pixels along the shorter axis of the coarsest level
_STEPS = 2  # in the motion of a frame, each round


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
    """What `solve` needs to know; see `Reals` for the meaning of each."""

    model: TransformModel
    rank: int = 1
    huber: float = 1.345
    tail: float = np.inf
    iterations: int = 30
    levels: int | None = None
    batch_size: int | None = None
    tolerance: float = 2e-3
    spacing: tuple[float, ...] | None = None
    seed: int = 0


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
        Moving -> reference, to within some pixels.
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
        level = _Level(load, frames, frame_shape, factors, options, mask)
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


class _Level:
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
        self.flows = np.array([_spatial(g, 0.0) for g in self.group])
        points = np.stack(np.meshgrid(*[np.linspace(0, n - 1, 9) for n in self.shape], indexing="ij"), -1)
        flow = velocities(self.group, points.reshape(-1, self.d))
        self.sway = np.einsum("ndk,ndl->kl", flow, flow) / len(flow)  # mean product of velocities
        self.tail = min(options.tail, 1e6)
        weight = np.ones(self.shape, np.float32) if mask is None else binned(mask.astype(np.float32), factors)
        self.weight = np.ascontiguousarray(weight.reshape(self.volume))
        fits = len(self.frames) * int(np.prod(self.shape)) * 4 <= _CACHE_BYTES
        self.cache: dict[int, Floats] | None = {} if fits and any(f > 1 for f in factors) else None

    def image(self, k: int) -> Floats:
        """Return frame number k of those that take part, reduced, float32, NaN where it has holes."""
        if self.cache is not None and k in self.cache:
            return self.cache[k]
        small = binned(self.load(self.frames[k]), self.factors)
        if self.cache is not None:
            self.cache[k] = small
        return small

    def run(
        self,
        start: NDArray[np.float64],
        coefficients: NDArray[np.float64] | None,
        before: Solution | None,
        last: bool,
        stage: tuple[int, int],
    ) -> Work[Solution]:
        """Iterate until the frames rest."""
        o, count = self.options, len(self.frames)
        state = _State(np.array([reduced(m, self.factors) for m in start]), self)
        yield from state.begin(coefficients)
        # a coarse level only has to hand over a start
        tolerance = o.tolerance / max(self.factors) if last else 0.02
        losses = list(before.loss) if before is not None else []
        rounds = before.rounds if before is not None else 0
        rng = np.random.default_rng(o.seed)
        size = count if o.batch_size is None else max(1, min(o.batch_size, count))
        message = f"Joint alignment, level {stage[0]} of {stage[1]}"
        change, previous, calm = np.inf, np.inf, 0
        for turn in range(o.iterations):
            old = state.matrices.copy()
            order = np.arange(count) if size == count else rng.permutation(count)
            done, total, pixels = 0, 0.0, 0.0
            for first in range(0, count, size):
                batch = [int(k) for k in order[first : first + size]]
                keep = 0.0 if size == count else 1.0 - size / count
                work = state.batch(batch, keep)
                while True:
                    try:
                        loss, n = next(work)
                    except StopIteration:
                        break
                    total, pixels, done = total + loss, pixels + n, done + 1
                    yield Progress(done, count, f"{message}, round {turn + 1}")
            state.settle_gauge()
            rounds += 1
            losses.append(total / max(pixels, 1.0))
            previous, change = change, self._moved(old, state.matrices)
            partial = self._solution(state, losses, rounds, change)
            yield Progress(count, count, f"{message}, round {turn + 1}", partial)
            # with mini-batches the basis is never quite still: rest is when it no longer gets calmer
            calm = calm + 1 if change > 0.8 * previous else 0
            if change < tolerance or (turn > 3 and calm >= 3):
                break
        return self._solution(state, losses, rounds, change)

    def _moved(self, old: NDArray[np.float64], new: NDArray[np.float64]) -> float:
        points = corners(self.shape)
        steps = moved_points(new, points) - moved_points(old, points)
        # the median frame's motion: a few that cannot be aligned must not keep the others from resting
        return float(np.sqrt(np.median((steps**2).mean(axis=(1, 2)))))

    def _solution(self, state: _State, losses: list[float], rounds: int, change: float) -> Solution:
        scale = np.asarray(self.factors, float)
        return Solution(
            np.array([enlarged(m, self.factors) for m in state.matrices]),
            state.basis.reshape(state.basis.shape[0], *self.shape),
            (state.known > 0).reshape(self.shape),
            state.coefficients.copy(),
            state.scale.copy(),
            state.error * scale,
            state.overlap.copy(),
            {self.frames[k]: reason for k, reason in state.trouble.items()},
            list(losses),
            rounds,
            change * float(scale.max()),
        )


class _State:
    """What changes from round to round at one level."""

    def __init__(self, matrices: NDArray[np.float64], level: _Level) -> None:
        count, rank = len(matrices), level.options.rank
        self.level, self.matrices = level, matrices
        self.coefficients = np.zeros((count, rank))
        self.basis = np.zeros((rank, *level.volume), np.float32)
        self.slopes = np.zeros((rank, level.d, *level.volume), np.float32)
        self.known = level.weight.copy()
        self.products = np.zeros((rank * (rank + 1) // 2, *level.volume), np.float32)
        self.sums = np.zeros((rank, *level.volume), np.float32)
        self.scale = np.full(count, np.nan)
        self.error = np.full((count, level.d), np.nan)
        self.overlap = np.ones(count)
        self.trouble: dict[int, str] = {}
        # relative precision of each pixel, from the noise of the frames themselves
        self.precision = level.weight
        self.listed = frozenset(int(k) for k in np.linspace(0, count - 1, min(count, 16)).round())
        self.samples: dict[int, Floats] = {}

    def begin(self, coefficients: NDArray[np.float64] | None) -> Work[None]:
        """Work out the first basis: from the coefficients of the level before, or by decomposing a sample of frames."""
        count, rank = len(self.matrices), self.level.options.rank
        if coefficients is None:
            chosen = np.unique(np.linspace(0, count - 1, min(count, 64)).round().astype(int))
            rows = []
            for n, k in enumerate(chosen):
                rows.append(self._warped(int(k)).ravel())
                yield Progress(n + 1, len(chosen), "Joint alignment: a first basis")
            x = np.array(rows, np.float32)
            start = initial_low_rank(x, min(rank, len(x)))
            if rank == 1:
                start = _median_start(x)
            self.basis[: start.rank] = start.basis.reshape(start.rank, *self.level.volume)
            self._slopes()
            for k in range(count):
                image = self._warped(k)
                known = np.isfinite(image) & (self.known[0] > 0 if image.ndim == 2 else self.known > 0)
                a = self.basis.reshape(rank, *self.level.shape)[:, known]
                self.coefficients[k] = np.linalg.lstsq(a @ a.T, a @ image[known], rcond=1e-6)[0]
            return
        self.coefficients = coefficients.copy()
        # without a basis of this size there is no residual yet: plain least squares from the known coefficients
        for _ in self._accumulate(list(range(count)), np.inf):
            yield Progress(0, count, "Joint alignment: the next level")
        self._solve_basis()

    def _warped(self, k: int) -> Floats:
        return warp_frame(self.level.image(k), self.matrices[k], fill="nan")

    def batch(self, batch: list[int], keep: float) -> Any:
        """Align frames to the basis, then renew the basis; ``keep`` is the share of what it was made of before."""
        self.products *= np.float32(keep)
        self.sums *= np.float32(keep)
        yield from self._accumulate(batch, None)
        self._solve_basis()

    def _accumulate(self, batch: list[int], clip: float | None) -> Any:
        """Add frames to the normal equations of the basis; with ``clip`` None they are aligned first."""
        chunk = max(1, min(8, len(batch) // 4))
        parts = [batch[k : k + chunk] for k in range(0, len(batch), chunk)]

        def work(part: list[int]) -> tuple[Floats, Floats, list[tuple[float, float]]]:
            products, sums = np.zeros_like(self.products), np.zeros_like(self.sums)
            return products, sums, [self._one(k, clip, products, sums) for k in part]

        for products, sums, losses in map_ahead(work, parts):
            self.products += products
            self.sums += sums
            yield from losses

    def _one(self, k: int, clip: float | None, products: Floats, sums: Floats) -> tuple[float, float]:
        from stackalign.core.lowrank import kernels
        from stackalign.core.lucas_kanade_kernels import covered

        level = self.level
        image = level.image(k)
        known = self.known
        finite = np.isfinite(image)
        if not finite.all():
            image = np.where(finite, image, np.float32(image[finite].mean() if finite.any() else 0))
            seen = warp_frame(finite.astype(np.float32), self.matrices[k], order=1) > 0.999
            known = known * seen.reshape(known.shape)
        c = spline_coefficients(image, 3)
        size = np.array((1,) * (3 - level.d) + image.shape)
        matrix, mixed = self.matrices[k], self.coefficients[k]
        loss = pixels = 0.0
        limit = np.inf if clip is None else clip
        for _ in range(_STEPS if clip is None else 0):
            back = _spatial(np.linalg.inv(matrix), 1.0)
            spans = covered(back, size, level.volume)
            residual = kernels.sampled(c, back, spans, self.basis, known, mixed, max(level.volume[1] // 24, 1))
            if residual.shape[1] < 50:
                self.trouble[k] = "it shares no region with the other frames"
                return 0.0, 0.0
            sigma = robust_scale(residual[1] * np.sqrt(residual[2]))
            if k in self.listed:
                self.samples[k] = residual[:2]
            limit = max(level.options.huber * sigma, 1e-6 * float(np.abs(mixed).max() or 1.0) + 1e-12)
            normal, right, loss, pixels = kernels.frame_equations(
                c, back, spans, self.basis, self.slopes, known, mixed, self.flows, limit, level.tail * limit
            )
            solved = _solved(normal, right, level.d)
            if solved is None:
                self.trouble[k] = "what it shares with the other frames has no structure"
                return loss, pixels
            m = len(self.flows)
            step = solved[:m]
            longest = float(np.abs(step).max())
            if longest > 4.0:  # pixels: beyond, the linearisation says nothing
                step = step * (4.0 / longest)
            matrix = exponential(level.group, step) @ matrix
            mixed = mixed + solved[m:]
            self.scale[k] = sigma
            # noise left in the basis has slopes too, which tell nothing: 1/2 its variance along each axis
            told = normal.copy()
            told[:m, :m] -= level.sway * (pixels * sigma**2 / (2 * len(self.matrices)))
            inverse = _inverted(told, normal)
            self.error[k] = sigma * np.sqrt(np.maximum(np.diag(inverse)[: level.d], 0))
            self.overlap[k] = pixels / max(float(np.count_nonzero(self.known)), 1.0)
            self.trouble.pop(k, None)
        self.matrices[k], self.coefficients[k] = matrix, mixed
        back = _spatial(np.linalg.inv(matrix), 1.0)
        spans = covered(back, size, level.volume)
        seen_weight = known if known is not self.known else self.precision
        limit = min(limit, 1e30)
        tail = min(level.tail * limit, 1e30)
        kernels.add_frame(c, back, spans, self.basis, seen_weight, mixed, limit, tail, products, sums)
        return loss, pixels

    @property
    def flows(self) -> NDArray[np.float64]:
        return self.level.flows

    def _solve_basis(self) -> None:
        rank = len(self.basis)
        if rank == 1:
            product = self.products[0]
            enough = product > 0.25 * float(np.median(product[product > 0])) if (product > 0).any() else product > 0
            self.basis[0] = np.where(enough, self.sums[0] / np.where(enough, product, 1), 0)
        else:
            flat = self.products.reshape(len(self.products), -1)
            matrix = np.zeros((flat.shape[1], rank, rank))
            p = 0
            trace = np.zeros(flat.shape[1])
            for i in range(rank):
                for j in range(i + 1):
                    matrix[:, i, j] = matrix[:, j, i] = flat[p]
                    p += 1
                trace += matrix[:, i, i]
            enough_flat = trace > 0.25 * float(np.median(trace[trace > 0])) if (trace > 0).any() else trace > 0
            ridge = 1e-6 * trace + np.where(enough_flat, 0, 1.0)
            matrix[:, np.arange(rank), np.arange(rank)] += ridge[:, None]
            solved = np.linalg.solve(matrix, self.sums.reshape(rank, -1).T[..., None])[..., 0].T
            self.basis[...] = np.where(enough_flat, solved, 0).reshape(self.basis.shape)
            enough = enough_flat.reshape(self.level.volume)
        self._normalise(enough)
        self._weigh()
        self.known = np.ascontiguousarray(self.precision * enough, np.float32)
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
            typical = np.median(self.coefficients, axis=0).astype(np.float32)
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


def _median_start(x: Floats) -> Any:
    from stackalign.core.lowrank.model import LowRank

    count = np.isfinite(x).sum(axis=0)
    filled = np.where(count > 0, x, np.float32(0))
    image = np.nanmedian(filled, axis=0)
    return LowRank(np.asarray(image[None], np.float32), np.ones((len(x), 1)))


def _spatial(matrix: NDArray[np.float64], corner: float) -> NDArray[np.float64]:
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


def _inverted(told: NDArray[np.float64], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the inverse of ``told``, of which at least a fiftieth of ``normal`` is true in every direction."""
    from scipy.linalg import eigh

    free = np.diag(normal) > 0
    scale = np.where(free, 1 / np.sqrt(np.where(free, np.diag(normal), 1)), 0.0)
    whole = normal * np.outer(scale, scale)
    whole[np.diag_indices_from(whole)] += np.where(free, 1e-9, 1.0)
    values, vectors = eigh(told * np.outer(scale, scale), whole)
    vectors = vectors * scale[:, None]
    return np.asarray((vectors / np.maximum(values, 0.02)) @ vectors.T)
