"""Run a `PairAligner` over a stack, for every reference policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.frame_check import read_frame
from stackalign.core.references.averaged import align_to_average
from stackalign.core.references.chained import align_to_previous, align_to_rolling, rescue
from stackalign.core.references.mosaic import refine_on_mosaic
from stackalign.core.references.reference import PairResult, Reference
from stackalign.core.run_state import RunState, align_all, noise_of, spread
from stackalign.core.verdicts.clearing import clear
from stackalign.core.verdicts.continuity import doubt
from stackalign.core.verdicts.discord import doubt_discord
from stackalign.core.verdicts.joining import place_parts
from stackalign.core.verdicts.pair_votes import begin_by_votes
from stackalign.core.verdicts.rivals import doubt_rivals
from stackalign.core.verdicts.two_motions import settle
from stackalign.core.verdicts.walker import outline_walker

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.references.reference import PairAligner
    from stackalign.core.registration import ReferenceLike, Registration
    from stackalign.core.stack import ImageStack
    from stackalign.core.work import Work


def align_stack(
    stack: ImageStack,
    aligner: PairAligner[Any],
    reference: ReferenceLike | Reference,
    *,
    anchor: int | str | None = None,
    mask: NDArray[np.bool_] | None = None,
    rolling: float = 0.1,
    lag: int = 5,
    bends: bool = False,
) -> Work[Registration]:
    """Align every frame of a stack.

    Parameters
    ----------
    stack : ImageStack
        The frames.
    aligner : PairAligner
        Aligns one frame to one image.
    reference : str, int, ndarray or Reference
        See `Reference.of`.
    anchor : int or "mean", optional
        Frame that becomes the identity; None: the reference frame, else the first valid frame; nothing is rebased where
        the reference is an external image, unless an anchor is named.
    mask : ndarray of bool, frame shape, optional
        True where a pixel of the anchor frame (of the external image) counts; it moves with the scene.
    rolling : float
        Weight of a new frame in the rolling mean.
    lag : int
        Frames before it that each frame is aligned to, where all pairs are.
    bends : bool
        Whether the scene may bend: places that differ from the others then show the same, elsewhere, and stay.

    Yields
    ------
    Progress
        With the registration so far as ``partial``, a few times a second.

    Raises
    ------
    ValueError
        If the policy, the anchor or the mask do not fit the stack, or the reference itself cannot serve.
    """
    policy = Reference.of(reference, len(stack), stack.frame_shape)
    if isinstance(anchor, int | np.integer) and not -len(stack) <= anchor < len(stack):
        raise ValueError(f"there is no frame {anchor} to anchor: the stack has frames 0 to {len(stack) - 1}")
    if isinstance(anchor, str) and anchor != "mean":
        raise ValueError(f"anchor must be a frame number or 'mean', not {anchor!r}")
    if mask is not None and mask.shape != stack.frame_shape:
        raise ValueError(f"the mask is {mask.shape}, the frames are {stack.frame_shape}: they must be alike")
    run = RunState(stack, aligner, policy, anchor, mask)

    def aligned(run: RunState) -> Work[None]:
        yield from _aligned(run, rolling, lag)
        yield from doubt(run)
        yield from rescue(run)

    def judged(run: RunState) -> Work[None]:
        yield from aligned(run)
        yield from begin_by_votes(run, aligned)
        yield from settle(run, aligned)
        if not bends:
            yield from clear(run, aligned)

    yield from judged(run)
    yield from doubt_discord(run, judged)
    yield from doubt_rivals(run)
    yield from outline_walker(run, aligned)
    placed = yield from place_parts(run)
    yield from refine_on_mosaic(run, placed)
    return run.registration()


def _aligned(run: RunState, rolling: float, lag: int) -> Work[None]:
    """Align the frames as the policy of the run says."""
    match run.policy.kind:
        case "mean" | "median":
            yield from align_to_average(run)
        case "frame" | "image":
            yield from align_to_image(run)
        case "previous":
            yield from align_to_previous(run)
        case "rolling":
            yield from align_to_rolling(run, rolling)
        case _:
            from stackalign.core.references.all_pairs import align_pairs

            yield from align_pairs(run, lag)


def first_usable(stack: ImageStack) -> int | None:
    """Return the first frame that holds something; None if there is none."""
    return next((t for t in range(len(stack)) if not read_frame(stack, t)[1]), None)


def align_to_image(run: RunState) -> Work[None]:
    """Align to one frame or to an external image."""
    policy = run.policy
    if policy.kind == "image":
        assert policy.image is not None
        image, mask = run.aligner.filtered(policy.image), run.mask
    else:
        image = run.load(policy.frame)
        if policy.frame in run.unusable and first_usable(run.stack) is None:
            run.results = [
                PairResult.failed(run.stack.ndim, read_frame(run.stack, t)[1]) for t in range(len(run.stack))
            ]
            return
        if policy.frame in run.unusable:
            raise ValueError(
                f"frame {policy.frame} cannot be the reference: {run.unusable[policy.frame]}; choose another frame"
            )
        image, mask = np.asarray(image, np.float32), run.mask
    template = run.aligner.prepare(image, mask)
    sample = spread(range(len(run.stack)), 8)
    drafts = [run.align(t, template, None) for t in sample]
    noise = noise_of(run, template, sample, drafts)
    # a frame is as noisy as those that are aligned to it; an external image counts as free of noise
    frames = np.inf if policy.kind == "image" else 1.0
    template = run.aligner.prepare(image, mask, noise=noise, frames=frames)
    run.details |= {"reference": image, "noise": noise, "rounds": 1}
    starts: dict[int, NDArray[np.float64]] = {}
    if policy.kind == "frame":
        starts[policy.frame] = np.eye(run.stack.ndim + 1)
    yield from align_all(run, range(len(run.stack)), template, starts, "Aligning")
