"""REALS: joint alignment of all frames at once by simultaneous low-rank and sparse decomposition."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from pydantic import Field

from stackalign.core.frames.holes import filled_from_nearest
from stackalign.core.frames.preprocess import FilteredRegistrar
from stackalign.core.lowrank.decomposition import Decomposition
from stackalign.core.lowrank.device import chosen_card
from stackalign.core.lowrank.model import robust_scale, rounding
from stackalign.core.lowrank.rank import found_rank
from stackalign.core.lowrank.solution import UNPLACED
from stackalign.core.lowrank.start import searched
from stackalign.core.lucas_kanade.registrar import LucasKanade
from stackalign.core.ranges import MaxRotation, MaxShift
from stackalign.core.references.reference import PairResult, Reference
from stackalign.core.run_state import RunState
from stackalign.core.stack import ImageStack
from stackalign.core.transform import TransformModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.lowrank.solution import Solution, SolverOptions
    from stackalign.core.registration import ReferenceLike, Registration
    from stackalign.core.work import Work

_TAIL = 3.0  # times the residual from which the loss is linear: some 4 standard deviations
_FAR = 8.0  # times the median residual: such a frame shows something else
_DOUBTFUL = 2.5  # the same, if it also lies no closer to the low-rank image than chance has it:
_CHANCE = 0.5  # times the contrast of that image
_FEWEST = 1 / 3  # of the frames placed by the search, or nothing tells which of them are right: then
_SHARED = 0.8  # times that contrast is the most that an aligned frame leaves (two frames of noise: 1)


class Reals(FilteredRegistrar):
    """Joint alignment: all frames at once against what they have in common, robust against what changes."""

    method: Literal["reals"] = "reals"
    model: TransformModel = Field(
        TransformModel.EUCLIDEAN,
        title="Model",
        description="Family of the motion: translation, euclidean, similarity, affine; projective for images only",
    )
    rank: int | None = Field(
        1,
        title="Rank",
        description="Images that the frames have in common, up to brightness; none: found from the frames",
        ge=1,
        le=50,
    )
    solver: Literal["gauss-newton", "adam"] = Field(
        "gauss-newton",
        title="Solver",
        description="gauss-newton, or adam: plain gradient steps as first published, for comparison (needs torch)",
        json_schema_extra={"advanced": True},
    )
    loss: Literal["redescending", "huber", "l1"] = Field(
        "redescending",
        title="Loss",
        description="huber: squared up to the noise, linear beyond; redescending: and level where a pixel clearly shows"
        " something else; l1: linear",
        json_schema_extra={"advanced": True},
    )
    iterations: int | None = Field(
        None,
        title="Rounds",
        description="At most as many on each level (steps of adam); none: 30 (2000)",
        ge=1,
        le=100_000,
        json_schema_extra={"advanced": True},
    )
    levels: int | None = Field(
        None,
        title="Levels",
        description="Sizes at which the frames are aligned, each half of the next; none: down to 48 pixels",
        ge=1,
        le=8,
        json_schema_extra={"advanced": True},
    )
    batch_size: int | None = Field(
        None,
        title="Mini-batch",
        description="Frames after which what they have in common is renewed; none: all",
        ge=1,
        json_schema_extra={"unit": "frames", "advanced": True},
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto",
        title="Device",
        description="Where frames are compared; auto: on a CUDA card if PyTorch has one, else on the processor",
        json_schema_extra={"advanced": True},
    )
    max_rotation: MaxRotation = 20.0
    max_shift: MaxShift = None
    tolerance: float = Field(
        2e-3,
        title="Tolerance",
        description="Motion of the corners in a round below which the frames are at rest",
        gt=0,
        le=1,
        json_schema_extra={"unit": "px", "advanced": True},
    )
    seed: int = Field(
        0,
        title="Seed",
        description="Of the order of frames in mini-batches",
        ge=0,
        json_schema_extra={"advanced": True},
    )

    def fit(
        self,
        stack: ImageStack,
        *,
        reference: ReferenceLike | None = None,
        anchor: int | str | None = None,
        mask: NDArray[np.bool_] | None = None,
    ) -> Work[Registration]:
        """Estimate one transform per frame, all together.

        Parameters
        ----------
        stack, anchor, mask
            See `Registrar.fit`.
        reference : str or int, optional
            A joint alignment has no reference image: a frame number ("first") names the anchor, "mean" changes nothing.

        Returns
        -------
        Registration
            ``details["decomposition"]`` is the `Decomposition`; ``details["loss"]`` the mean robust loss of each round.

        Raises
        ------
        ValueError
            If the reference is an image or a policy of pairs, the model does not fit the frames, nothing can be
            aligned, or this machine does not have the device.
        ImportError
            If a graphics card, or the solver "adam", is asked for and torch is not installed.
        """
        source = ImageStack.of(stack)
        policy = Reference.of("mean" if reference is None else reference, len(source), source.frame_shape)
        if policy.kind not in ("mean", "median", "frame"):
            raise ValueError(
                f"REALS aligns all frames to each other, not to {policy}: leave the reference out, or name a frame that"
                " stays where it is; to align to an image choose another method"
            )
        if policy.kind == "frame" and anchor is None:
            anchor = policy.frame
        if self.solver == "adam":
            from stackalign.core.lowrank.adam import fit_adam

            return (yield from fit_adam(self, source, anchor, mask))
        return (yield from _fit(self, source, anchor, mask))


def _fit(
    parameters: Reals, stack: ImageStack, anchor: int | str | None, mask: NDArray[np.bool_] | None
) -> Work[Registration]:
    from stackalign.core.lowrank.solution import SolverOptions

    device = chosen_card(parameters.device, stack.ndim)
    search = LucasKanade(
        model=parameters.model,
        max_rotation=parameters.max_rotation if parameters.model is not TransformModel.TRANSLATION else 0.0,
        max_shift=parameters.max_shift,
        low_sigma=parameters.low_sigma,
        high_sigma=parameters.high_sigma,
    )
    aligner = search.aligner(stack.frame_shape, stack.pixel_size)
    run = RunState(stack, aligner, Reference("mean"), anchor, mask)
    starts = yield from searched(run)
    d = stack.ndim
    usable = [t for t in range(len(stack)) if t not in run.unusable]
    placed = [t for t in usable if t in starts]
    for t in run.unusable:
        run.results[t] = PairResult.failed(d, run.unusable[t])
    begin = np.array([starts.get(t, np.full((d + 1, d + 1), np.nan)) for t in usable])
    searched_in_vain = len(placed) < min(max(_FEWEST * len(usable), 2), len(usable))  # one is placed on itself
    if searched_in_vain:  # what it places then it places wrongly, too
        begin[:] = np.eye(d + 1)
        placed = usable
    if len(placed) < 2:
        for t in usable:
            run.results[t] = PairResult(np.eye(d + 1), np.nan, np.nan, 1.0, np.full(d, np.nan))
        return run.registration()
    options = SolverOptions(
        model=parameters.model,
        rank=max(1, min(parameters.rank or 1, len(placed) - 1)),
        huber=0.1 if parameters.loss == "l1" else 1.345,
        tail=_TAIL if parameters.loss == "redescending" else np.inf,
        iterations=parameters.iterations or 30,
        levels=parameters.levels,
        batch_size=parameters.batch_size,
        tolerance=parameters.tolerance,
        spacing=None if stack.pixel_size is None else tuple(stack.pixel_size),
        max_rotation=parameters.max_rotation,
        max_shift=parameters.max_shift,
        least_noise=rounding(run.load(placed[len(placed) // 2])),
        window=parameters.weights(stack.frame_shape),
        seed=parameters.seed,
        device=device,
    )
    solution = yield from _solved(run, usable, begin, options, searched_in_vain)
    if parameters.rank is None:
        # only aligned frames tell their rank: motion that is left looks like further images
        rank = found_rank(_sampled_rows(run, usable, solution))
        if rank > 1:
            options = replace(options, rank=max(1, min(rank, len(placed) - 1)))
            solution = yield from _solved(run, usable, solution.matrices, options, searched_in_vain)
    _take(run, usable, solution, searched_in_vain)
    run.details |= {
        "loss": tuple(solution.loss),
        "rounds": solution.rounds,
        "rank": options.rank,
        "change": solution.change,
    }
    result = run.registration()
    parts = _in_gauge(run, usable, solution, result, stack)
    if parameters.low_sigma or parameters.high_sigma:
        parts = replace(parts, filtered=parameters.filtered)
    return replace(result, details={**result.details, "decomposition": parts, "reference": parts.basis[0]})


def _solved(
    run: RunState, usable: list[int], begin: NDArray[np.float64], options: SolverOptions, doubted: bool
) -> Work[Solution]:
    """Solve, with the registration so far in every report that brings news."""
    from stackalign.core.lowrank.solution import Solution
    from stackalign.core.lowrank.solver import solve

    work = solve(run.load, usable, run.stack.frame_shape, begin, options, run.mask)
    while True:
        try:
            progress = next(work)
        except StopIteration as stop:
            return cast("Solution", stop.value)
        if isinstance(progress.partial, Solution):
            _take(run, usable, progress.partial, doubted)
            run.details |= {"loss": tuple(progress.partial.loss), "rounds": progress.partial.rounds}
            progress = replace(progress, partial=run.registration())
        yield progress


def _take(run: RunState, usable: list[int], solution: Solution, doubted: bool) -> None:
    """Write the state of a solution into the run, with a verdict for each frame.

    ``doubted``: no search tells that the frames lie on each other, so each must be much closer to what they share than
    chance has it.
    """
    typical = float(np.nanmedian(solution.scale)) if np.isfinite(solution.scale).any() else np.nan
    d = run.stack.ndim
    alone = len(usable) - len(solution.trouble) < 2  # such a frame is all that it is compared with
    for k, t in enumerate(usable):
        reason = solution.trouble.get(t, "")
        scale = float(solution.scale[k])
        if not reason and solution.overlap[k] < 0.15:
            reason = f"only {solution.overlap[k]:.0%} of what the frames have in common is in view"
        elif (
            not reason
            and np.isfinite(typical)
            and (scale > _FAR * typical or (scale > _DOUBTFUL * typical and scale > _CHANCE * _contrast(solution, k)))
        ):
            reason = f"it differs from the others: its residual is {scale / typical:.1f} times the usual one"
        elif not reason and doubted and (alone or not scale < _SHARED * _contrast(solution, k)):
            reason = UNPLACED
        elif not reason and not np.isfinite(solution.matrices[k]).all():
            reason = "its motion ran away"
        if reason:
            run.results[t] = PairResult.failed(d, reason)
            continue
        power = float(np.sum(solution.coefficients[k] ** 2))
        fit = power / (power + scale**2) if power + scale**2 > 0 else 0.0
        confidence = float(np.clip(typical / scale, 0, 1)) if scale > 0 else 1.0
        run.results[t] = PairResult(solution.matrices[k], float(np.sqrt(fit)), scale, confidence, solution.error[k], "")


def _contrast(solution: Solution, k: int) -> float:
    """Return the robust standard deviation of a frame's low-rank image: what a residual is if nothing fits."""
    image = np.tensordot(solution.coefficients[k].astype(np.float32), solution.basis, 1)[solution.known]
    return robust_scale(image - np.median(image)) if image.size else 0.0


def _sampled_rows(run: RunState, usable: list[int], solution: Solution) -> NDArray[np.float32]:
    """Return a sample of the pixels of up to 64 aligned frames as rows, to find the rank from."""
    from stackalign.core.warping.resample import warp_frame

    good = [k for k, t in enumerate(usable) if t not in solution.trouble]
    chosen = np.unique(np.linspace(0, len(good) - 1, min(len(good), 64)).round().astype(int))
    step = max(7, solution.known.size // 16_384)  # neighbours share the noise that resampling mixed
    rows = []
    for k in (good[c] for c in chosen):
        frame = np.asarray(run.load(usable[k]), np.float32)
        rows.append(warp_frame(frame, solution.matrices[k], fill="nan")[solution.known][::step])
    return np.array(rows, np.float32)


def _in_gauge(run: RunState, usable: list[int], solution: Solution, result: Registration, stack: ImageStack) -> Any:
    """Return the decomposition on the grid of the anchored series: the basis is moved as the frames were."""
    from stackalign.core.warping.resample import warp_frame

    first = next((k for k, t in enumerate(usable) if run.results[t] is not None and not run.results[t].reason), 0)  # type: ignore[union-attr]
    t = usable[first]
    move = result.transforms.matrices[t] @ np.linalg.inv(solution.matrices[first])
    basis, known = solution.basis, solution.known
    if not np.allclose(move, np.eye(len(move)), atol=1e-12):
        # splines reach further than a pixel: what is not known must not leak into what is
        whole = [filled_from_nearest(image, known) for image in basis] if known.any() else list(basis)
        basis = np.stack([warp_frame(np.ascontiguousarray(image), move, fill="edge") for image in whole])
        known = warp_frame(known.astype(np.uint8), move, order=0).astype(bool)
    coefficients = np.zeros((len(stack), basis.shape[0]))
    coefficients[usable] = solution.coefficients
    return Decomposition(basis, coefficients, known, stack, result.transforms)
