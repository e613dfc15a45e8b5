"""The noise of a stack, read off a few frames that are aligned to its first mean."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.frames.noise import NoiseModel
from stackalign.core.references.reference import PairResult
from stackalign.core.run_state import noise_of, safely
from stackalign.core.transform import TransformModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.run_state import RunState

_PART = 1 << 20  # pixels of the part of a large image that is looked at


def aligned_few(
    run: RunState,
    image: NDArray[np.float32],
    mask: NDArray[np.bool_] | None,
    few: Sequence[int],
    starts: dict[int, NDArray[np.float64]],
    count: float,
) -> list[PairResult]:
    """Align a few frames to the first mean, and read the noise off their residuals: ``run.noise`` is set.

    Translations do so within a part of a large image that holds as many structures as any other: equations of the whole
    are not worth their time before the weights are known.
    """
    box = _busy_part(image) if run.aligner.model is TransformModel.TRANSLATION and mask is None else None
    if box is not None:
        found = _aligned_within(run, image, box, few, starts, count)
        if found is not None:
            return found
    template = run.aligner.prepare(image, mask, frames=count)
    tried = [run.align(t, template, starts[t]) for t in few]
    run.noise = noise_of(run, template, few, tried)
    return tried


def _aligned_within(
    run: RunState,
    image: NDArray[np.float32],
    box: NDArray[np.int64],
    few: Sequence[int],
    starts: dict[int, NDArray[np.float64]],
    count: float,
) -> list[PairResult] | None:
    """Do so in a box (d, 2) of the image; None if too few frames can be aligned there."""
    try:
        template = run.aligner.prepare(np.ascontiguousarray(image[_slices(box)]), None, frames=count)
    except ValueError:
        return None
    results, pairs = [], []
    for t in few:
        frame, shift = run.load(t), starts[t][:-1, -1]
        whole = np.round(shift)
        there = box - whole[:, None].astype(np.int64)
        size = np.array(run.stack.frame_shape)
        if t in run.unusable or (there[:, 0] < 0).any() or (there[:, 1] > size).any():
            results.append(PairResult.failed(run.stack.ndim, "it does not cover this part"))
            continue
        part, begun = np.ascontiguousarray(frame[_slices(there)]), np.eye(len(whole) + 1)
        begun[:-1, -1] = shift - whole
        result = safely(run.aligner, part, template, begun)
        if not result.reason:
            pairs.append(run.aligner.residuals(part, template, result))
            matrix = result.matrix.copy()
            matrix[:-1, -1] += whole
            result = replace(result, matrix=matrix)
        results.append(result)
    if len(pairs) < max(len(few) // 2, 1):
        return None
    both = np.concatenate(pairs)
    run.noise = NoiseModel.fitted(both[:, 0], both[:, 1])
    return results


def _busy_part(image: NDArray[np.float32]) -> NDArray[np.int64] | None:
    """Return the box (d, 2) of a large image, of about `_PART` pixels, with most contrast; None if it is not large."""
    # what some frames do not cover at the borders is left aside
    known = np.isfinite(image)
    inner = []
    for axis in range(image.ndim):
        told = np.flatnonzero(known.mean(tuple(a for a in range(image.ndim) if a != axis)) > 0.5)
        if not len(told):
            return None
        inner.append((told[0], told[-1] + 1))
    low, high = np.array(inner).T
    size = high - low
    while size.prod() > _PART and size.max() > 64:
        size[np.argmax(size)] //= 2
    if 2 * size.prod() > image.size:
        return None
    room = high - low - size
    best, most = None, 0.0
    for share in np.ndindex(*(3 if r else 1 for r in room)):
        first = low + room * np.array(share) // 2
        box = np.stack([first, first + size], axis=1)
        some = image[_slices(box, 4 if image.ndim == 2 else 3)]
        contrast = float(np.var(some)) if np.isfinite(some).all() else 0.0
        if contrast > most:
            best, most = box, contrast
    return best


def _slices(box: NDArray[np.int64], step: int | None = None) -> tuple[slice, ...]:
    return tuple(slice(int(a), int(b), step) for a, b in box)
