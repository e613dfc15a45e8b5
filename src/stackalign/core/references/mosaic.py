"""Frames that show more than the reference does: refined on what the other frames show around it.

The mean covers the field of one frame. After a jump or a long drift, a frame shows a part of it only, and is placed by
that part alone, however many others show the rest. Here such frames are laid on the mean of the others where they lie
themselves: each part of a mosaic of all frames is a reference of its own, of the size of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.generators import moved_points
from stackalign.core.geometry import centre, corners
from stackalign.core.references.chained import seen_in_part, shares_in_view
from stackalign.core.references.draft import SAMPLE, last_value
from stackalign.core.references.mean_image import Aligned, mean_of_sum, summed_images
from stackalign.core.references.reference import NoiseTeller
from stackalign.core.run_state import batched, spread
from stackalign.core.threads import map_frames

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.references.reference import PairResult
    from stackalign.core.run_state import RunState
    from stackalign.core.work import Work

    Array = NDArray[np.float64]
    Image = NDArray[np.float32]
    Place = tuple[int, ...]

_PARTS = {2: 8, 3: 4}  # of the field along each axis, that parts of the mosaic lie apart
_PASSES = 6
_RESTS = 0.2  # standard errors: a pass that moves frames by less is the last
_HELD = 0.05  # of the way, by which the own noise of a frame may hold it in a mean that it is part of
_LEAST = 2  # other frames that must show a pixel
_CONTRADICTS = 2.0  # standard errors by the reference alone, that the mosaic may move a frame, or all of a part
_LEAST_ERROR = 0.02  # px: of smaller ones, what interpolation does is no longer small
MESSAGE = "Aligning frames to what others show around the reference"


def refine_on_mosaic(run: RunState, placed: frozenset[int] = frozenset()) -> Work[None]:
    """Align frames that the reference shows in part to what the others show where they lie.

    Parameters
    ----------
    run : RunState
        Aligned to a mean; results of such frames are replaced where they fit there. A frame whose own noise would hold
        it in the mosaic is compared with that of the others.
    placed : frozenset of int
        Frames that lie where all frames together have them; they stay.
    """
    places = run.places()
    if run.policy.kind != "mean" or run.mask is not None or len(places) < 3:
        return
    if not any(r is not None and np.isfinite(r.residual) for r in run.results):
        return  # frames of another modality: one is searched for in the whole range, and nothing tells its noise
    part = [t for t in seen_in_part(run.stack.frame_shape, places) if t not in placed]
    if not part or len(part) + len(placed) < 2:  # nobody else shows what lies beyond
        return
    sample = spread(list(places), SAMPLE)
    alone = {t: r for t in part if (r := run.results[t]) is not None}
    inside, rest = [t for t in part if t in set(sample)], [t for t in part if t not in set(sample)]
    for _ in range(_PASSES):
        moved = yield from _refined(run, inside, sample, alone)
        if not moved > _RESTS:
            break
    yield from _refined(run, rest, sample, alone)


def _refined(run: RunState, frames: Sequence[int], sample: Sequence[int], alone: dict[int, PairResult]) -> Work[float]:
    """Align some frames to the parts of the mosaic that they lie in; returns by how many standard errors they went.

    ``alone``: where they lie by the reference alone. Frames of one part move together, and are known together no better
    than by the reference.
    """
    points = corners(run.stack.frame_shape)
    went: list[float] = []
    for origin, some in _parts(run, frames).items():
        part = yield from _part(run, sample, origin)
        found = {t: r for t, r in part.aligned(run, some).items() if r is not None and not r.reason}
        believed = set(found) if run.hidden is None else _believed(found, alone, run.stack.frame_shape)
        for t, result in found.items():
            before = run.results[t]
            assert before is not None
            error = np.hypot(result.error, np.nan_to_num(alone[t].error) / np.sqrt(len(some)))
            now = replace(result, error=error) if t in believed else alone[t]
            run.results[t] = now
            way = moved_points(now.matrix, points) - moved_points(before.matrix, points)
            size = float(np.sqrt(np.square(way).sum(-1).mean()))
            went.append(size / max(float(np.sqrt(np.square(error).sum())), 1e-6))
    return float(np.median(went)) if went else 0.0


def _believed(found: dict[int, PairResult], alone: dict[int, PairResult], shape: tuple[int, ...]) -> set[int]:
    """Return the frames that a part of the mosaic has where they may lie by the reference, which knows more about them.

    What few others show beyond the reference may be what walked through all of them: it moves them together.
    """
    middle = centre(shape)[None]
    ways = {t: (moved_points(r.matrix, middle) - moved_points(alone[t].matrix, middle))[0] for t, r in found.items()}
    errors = {t: np.nan_to_num(alone[t].error) for t in found}
    if not ways:
        return set()
    common = np.abs(np.mean(list(ways.values()), axis=0))
    known = np.sqrt(np.square(list(errors.values())).mean(0) / len(ways))
    if (common > _CONTRADICTS * np.maximum(known, _LEAST_ERROR)).any():
        return set()
    return {t for t in found if (np.abs(ways[t]) <= _CONTRADICTS * np.maximum(errors[t], _LEAST_ERROR)).all()}


def _parts(run: RunState, frames: Sequence[int]) -> dict[Place, list[int]]:
    """Return the origins of the parts of the mosaic that frames lie in, with these."""
    shape = np.array(run.stack.frame_shape)
    step, middle = np.maximum(shape / _PARTS[len(shape)], 1.0), centre(run.stack.frame_shape)
    parts: dict[Place, list[int]] = {}
    for t in frames:
        result = run.results[t]
        assert result is not None
        shift = moved_points(result.matrix, middle[None])[0] - middle
        origin = np.rint(np.rint(shift / step) * step).astype(int)
        parts.setdefault(tuple(origin.tolist()), []).append(t)
    return parts


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A part of the mosaic: the sum of frames, how many show each pixel, and which frames these are."""

    total: Image
    count: Image
    home: Array  # reference -> part
    frames: frozenset[int]

    def aligned(self, run: RunState, frames: Sequence[int]) -> dict[int, PairResult]:
        """Return how frames lie on it, in terms of the reference, of those that can be told."""
        template = _template(run, self.total.copy(), self.count)
        if template is None:
            return {}
        pull = run.aligner.pull(template) if isinstance(run.aligner, NoiseTeller) else np.inf
        if min(_share(self.count), pull) < _HELD or not self.frames & set(frames):
            starts = {t: self.home @ r.matrix for t in frames if (r := run.results[t]) is not None}
            some = batched(run.aligner, frames, run.stack.frame_bytes)
            batches = map_frames(lambda batch: run.align_many(batch, template, starts), some)
            found = dict(zip(frames, chain.from_iterable(batches), strict=True))
        else:
            alone = zip(frames, map_frames(partial(self._without, run), frames), strict=True)
            found = {t: result for t, result in alone if result is not None}
        back = np.linalg.inv(self.home)
        return {t: replace(result, matrix=back @ result.matrix) for t, result in found.items()}

    def _without(self, run: RunState, t: int) -> PairResult | None:
        """Return how a frame lies on what the others show; None if that is too little."""
        total, count, before = self.total.copy(), self.count, run.results[t]
        if t in self.frames:
            own = last_value(_summed(run, [t], self.home))
            total, count = total - own[0], count - own[1]
        template = _template(run, total, count)
        return None if template is None or before is None else run.align(t, template, self.home @ before.matrix)


def _part(run: RunState, sample: Sequence[int], origin: Place) -> Work[_Part]:
    """Add up the frames of a sample where they show a part."""
    home = np.eye(len(origin) + 1)
    home[:-1, -1] = -np.array(origin)
    known = {t: home @ r.matrix for t in sample if (r := run.results[t]) is not None}
    seen = shares_in_view(run.stack.frame_shape, np.array(list(known.values())))
    there = [t for t, share in zip(known, seen, strict=True) if share > 0]
    total, count = yield from _summed(run, there, home)
    return _Part(total, count, home, frozenset(there))


def _summed(run: RunState, frames: Sequence[int], home: Array) -> Work[tuple[Image, Image]]:
    """Add frames up where they lie on a part; returns the sum, and how many show each pixel."""
    known = [Aligned.of(r) for t in frames if (r := run.results[t]) is not None]
    places = [replace(place, matrix=home @ place.matrix) for place in known]
    work = summed_images(run.load, frames, places, run.stack.frame_shape, run.aligner.model)
    return (yield from run.counted(work, len(frames), MESSAGE))


def _template(run: RunState, total: Image, count: Image) -> Any:
    """Turn a sum of frames, in place, into a template; None if too little is shown."""
    if not (count >= _LEAST).any():
        return None
    image = mean_of_sum(total, count, _LEAST, run.aligner.model)
    try:  # of noise that differs from place to place the mean counts
        return run.aligner.prepare(image, None, noise=run.details.get("noise"), frames=1 / _share(count))
    except ValueError:
        return None


def _share(count: Image) -> float:
    """Return the share of one frame in a mean, where enough of them show something."""
    return float(np.mean(1 / count[count >= _LEAST]))
