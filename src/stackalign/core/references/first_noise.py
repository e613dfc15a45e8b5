"""The noise of a stack, read off a few frames that are aligned to its first mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.noise import NoiseModel
from stackalign.core.references.mean_image import Aligned, mean_image
from stackalign.core.run_state import lies_there, noise_of, safely, spread
from stackalign.core.threads import map_frames
from stackalign.core.transform import TransformModel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stackalign.core.references.reference import PairResult
    from stackalign.core.run_state import RunState
    from stackalign.core.work import Work

_LARGE = 1 << 18  # pixels of an image of which a part is looked at first
_SHARE, _LEAST = 8, 1 << 16  # of its pixels, and how many that must be
_COVERING = 0.98  # of the frames cover it
_THIN = 8  # pixels along an axis: too few
_STRAYED = 1.0  # pixels from the start: something moves in that part
_FEW = 8  # frames from which the noise is told


def aligned_few(
    run: RunState,
    image: NDArray[np.float32],
    mask: NDArray[np.bool_] | None,
    few: Sequence[int],
    starts: dict[int, NDArray[np.float64]],
    count: float,
) -> list[PairResult]:
    """Align a few frames to the first mean, and read the noise off their residuals: ``run.noise`` is set."""
    template = run.aligner.prepare(image, mask, frames=count)
    tried = [run.align(t, template, starts[t]) for t in few]
    run.noise = noise_of(run, template, few, tried, starts)
    return tried


def aligned_in_part(
    run: RunState, sample: Sequence[int], starts: Mapping[int, NDArray[np.float64]], base: int
) -> Work[dict[int, PairResult]]:
    """Align frames to the mean of a part of a large image, and read the noise off their residuals.

    The first mean of all pixels is then as good as the next: a round over all of them is saved, and equations of the
    whole before its weights are known. ``run.noise`` is set.

    Parameters
    ----------
    run : RunState
        The part is chosen, and more than a part worked out, only for translations of large frames without a mask.
    sample : sequence of int
        The frames.
    starts : mapping
        Where they lie; ``base``, one of them, at rest.

    Returns
    -------
    dict
        The frames that could be aligned there; empty if these are too few.
    """
    if run.aligner.model is not TransformModel.TRANSLATION or run.mask is not None:
        return {}
    box = _busy_part(run.load(base), np.array([starts[t][:-1, -1] for t in sample]))
    if box is None:
        return {}
    parts = {t: part for t in sample if (part := _Part.of(run, t, starts[t], box)) is not None}
    if 2 * len(parts) < len(sample):
        return {}
    frames, eye = list(parts), np.eye(run.stack.ndim + 1)
    places = [Aligned(parts[t].start, *run.brightness.get(t, (1.0, 0.0))) for t in frames]
    work = mean_image(lambda t: parts[t].read(run), frames, places, _shape(box), TransformModel.TRANSLATION)
    message = "Aligning a part of the frames"
    image = yield from run.counted(work, 2 * len(frames), message)
    try:
        template = run.aligner.prepare(image, None, frames=float(len(frames)))
    except ValueError:
        return {}
    found: dict[int, PairResult] = {}
    results = map_frames(lambda t: safely(run.aligner, parts[t].read(run), template, parts[t].start), frames)
    for done, (t, result) in enumerate(zip(frames, results, strict=True), start=len(frames) + 1):
        way = np.abs(result.matrix[:-1, -1] - parts[t].start[:-1, -1]).max()
        if t not in run.unusable and not result.reason and way < _STRAYED:
            found[t] = result
        yield run.progress(done, 2 * len(frames), message)
    if 2 * len(found) < len(sample):
        return {}
    few = spread(list(found), _FEW)
    pairs = np.concatenate([
        run.aligner.residuals(
            parts[t].read(run), template, found[t], own=lies_there(found[t].matrix, parts[t].start, _shape(box))
        )
        for t in few
    ])  # fmt: skip
    run.noise = NoiseModel.fitted(pairs[:, 0], pairs[:, 1])
    for t, result in found.items():
        whole = eye.copy()
        whole[:-1, -1] = parts[t].whole
        found[t] = replace(result, matrix=whole @ result.matrix)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What of a frame lies, to whole pixels, in a box of the reference; and how it lies on that, to a fraction."""

    frame: int
    there: NDArray[np.int64]
    whole: NDArray[np.float64]
    start: NDArray[np.float64]

    @classmethod
    def of(cls, run: RunState, t: int, matrix: NDArray[np.float64], box: NDArray[np.int64]) -> _Part | None:
        """Return the part of frame ``t``; None if that does not cover the box (d, 2)."""
        shift = matrix[:-1, -1]
        whole = np.round(shift)
        there = box - whole[:, None].astype(np.int64)
        if t in run.unusable or (there[:, 0] < 0).any() or (there[:, 1] > run.stack.frame_shape).any():
            return None
        start = np.eye(len(matrix))
        start[:-1, -1] = shift - whole
        return cls(t, there, whole, start)

    def read(self, run: RunState) -> NDArray[Any]:
        """Return its pixels."""
        return np.ascontiguousarray(run.load(self.frame)[_slices(self.there)])


def _shape(box: NDArray[np.int64]) -> tuple[int, ...]:
    return tuple((box[:, 1] - box[:, 0]).tolist())


def _busy_part(image: NDArray[Any], shifts: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """Return the box (d, 2) of a large image, a small part of it, with most contrast; None if it is not large.

    Nearly all frames, at their ``shifts`` (n, d), cover it.
    """
    if image.size < _LARGE:
        return None
    first, last = np.quantile(np.round(shifts), [1 - _COVERING, _COVERING], axis=0, method="nearest").astype(np.int64)
    low, high = np.maximum(last, 0) + 1, np.array(image.shape) + np.minimum(first, 0) - 1
    size = high - low
    if (size < _THIN).any():
        return None
    while size.prod() > max(image.size // _SHARE, _LEAST) and size.max() > 64:
        size[np.argmax(size)] //= 2
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
