"""The mean or median of aligned frames, on the reference's grid, with the number of frames behind each pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.holes import filled_along_lines
from stackalign.core.frames.reduction import as_read
from stackalign.core.threads import map_frames
from stackalign.core.transform import TransformModel
from stackalign.core.warping.resample import filter_spline, valid_mask, warp_frame
from stackalign.core.warping.splined import cubic

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from numpy.typing import NDArray

    from stackalign.core.references.reference import PairResult
    from stackalign.core.run_state import RunState

_NOTHING = np.zeros((1, 1, 1), np.float32)
_FEW = 8  # planes of a volume that is used up to its borders


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """Where a frame lies, and how bright it is against the others: what it takes to add it to a mean."""

    matrix: NDArray[np.float64]
    gain: float = 1.0
    offset: float = 0.0

    @classmethod
    def of(cls, result: PairResult) -> Aligned:
        """Take a frame where it was found."""
        return cls(result.matrix, result.gain, result.offset)


def mean_in_place(run: RunState, frames: Sequence[int]) -> Generator[int, None, NDArray[np.float32]]:
    """Return the mean of frames of a run where they lie; see `mean_image`."""
    placed = {t: Aligned.of(r) for t in frames if (r := run.results[t]) is not None}
    return mean_image(run.load, list(placed), list(placed.values()), run.stack.frame_shape, run.aligner.model)


def mean_image(
    load: Callable[[int], NDArray[Any]],
    frames: Sequence[int],
    places: Sequence[Aligned],
    shape: tuple[int, ...],
    model: TransformModel,
) -> Generator[int, None, NDArray[np.float32]]:
    """Return the mean of aligned frames, of ``shape``; NaN where fewer than half as many as usual cover a pixel.

    Parameters
    ----------
    load : callable
        Reads a frame.
    frames : sequence of int
        Which ones.
    places : sequence of Aligned
        One for each of ``frames``; brightness is divided out.
    shape : tuple of int
        Of the mean.
    model : TransformModel
        Translations are added without resampling each frame on its own.

    Yields
    ------
    int
        Frames added so far.
    """
    from stackalign.core.references.mean_kernels import histogram

    total, weight = yield from summed_images(load, frames, places, shape, model)
    count = histogram(_volume(weight), len(frames))[1:]
    # as many as usual: the median where there are any
    usual = int(np.searchsorted(np.cumsum(count), 0.5 * count.sum())) + 1 if count.any() else 0
    return mean_of_sum(total, weight, max(0.5 * usual, 1.0), model)


def summed_images(
    load: Callable[[int], NDArray[Any]],
    frames: Sequence[int],
    places: Sequence[Aligned],
    shape: tuple[int, ...],
    model: TransformModel,
) -> Generator[int, None, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return the sum of aligned frames, and how many cover each pixel; parameters as for `mean_image`.

    Translations are added as B-spline coefficients: only `mean_of_sum` makes an image of them.
    """
    from stackalign.core.references.mean_kernels import add_boxes

    # float sums depend on their order: chunks are the same however many threads there are
    count = min(8, -(-len(frames) // 8))
    chunks = [range(k, min(k + count, len(frames))) for k in range(0, len(frames), count)]
    add = _add_translated if model is TransformModel.TRANSLATION else _add_warped
    spare: list[NDArray[np.float32]] = []  # fresh memory is slow

    def sums(chunk: range) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, list[NDArray[np.int64]]]:
        part = spare.pop() if spare else np.empty(shape, np.float32)
        part[...] = 0
        counts = _Counts(shape)
        boxes = [add(load(frames[k]), places[k], part, counts) for k in chunk]
        return part, counts.found, [box for box in boxes if box is not None]

    total, weight = np.zeros((0,) * len(shape), np.float32), np.zeros(shape, np.float32)
    covered, done = [np.zeros((0, 3, 2), np.int64)], 0
    for chunk, (part, found, boxes) in zip(chunks, map_frames(sums, chunks), strict=True):
        if total.size:
            total += part
            spare.append(part)
        else:
            total = np.require(part, None, ["W"])  # from another process it may come as read-only
        if found is not None:
            weight += found
        covered += [box[None] for box in boxes]
        done += len(chunk)
        yield done
    add_boxes(np.concatenate(covered), _volume(weight))
    return total, weight


def mean_of_sum(
    total: NDArray[np.float32], weight: NDArray[np.float32], least: float, model: TransformModel
) -> NDArray[np.float32]:
    """Turn a sum of frames, in place, into their mean; NaN where fewer than ``least`` cover a pixel."""
    from stackalign.core.references.mean_kernels import divide

    divide(_volume(total), _volume(weight), least)
    return _sharpened(total) if model is TransformModel.TRANSLATION else total


def median_image(
    load: Callable[[int], NDArray[Any]], frames: Sequence[int], places: Sequence[Aligned], shape: tuple[int, ...]
) -> Generator[int, None, NDArray[np.float32]]:
    """Return the median of aligned frames; parameters as for `mean_image`. Holds them all in memory."""

    def warped(k: int) -> NDArray[np.float32]:
        place = places[k]
        image = (np.asarray(load(frames[k]), np.float32) - np.float32(place.offset)) / np.float32(place.gain)
        return warp_frame(image, place.matrix, order=3, fill="nan", output_shape=shape)

    stack = np.empty((len(frames), *shape), np.float32)
    for k, image in enumerate(map_frames(warped, range(len(frames)))):
        stack[k] = image
        yield k + 1
    known = np.isfinite(stack).sum(axis=0)
    enough = known >= max(0.5 * float(np.median(known[known > 0])) if (known > 0).any() else 1, 1)
    stack[0][~enough] = 0.0  # keeps nanmedian from complaining about pixels that no frame covers
    return np.where(enough, np.nanmedian(stack, axis=0), np.nan).astype(np.float32)


class _Counts:
    """How many frames went into each pixel, where that is not told by boxes."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self.found: NDArray[np.float32] | None = None

    def array(self) -> NDArray[np.float32]:
        """The counts, made when they are first needed."""
        if self.found is None:
            self.found = np.zeros(self._shape, np.float32)
        return self.found


def _add_translated(
    frame: NDArray[Any], place: Aligned, total: NDArray[np.float32], counts: _Counts
) -> NDArray[np.int64] | None:
    """Add a frame; returns the part of the mean that it covers, or None if its pixels were counted one by one."""
    from stackalign.core.references.mean_kernels import add_shifted

    image, seen, weight = as_read(frame), _NOTHING, _NOTHING
    if image.dtype.kind == "f" and not (finite := np.isfinite(image)).all():
        image, seen = np.where(finite, image, np.float32(0)), _volume(finite.astype(np.float32))
        weight = _volume(counts.array())
    shift = np.zeros(3)
    shift[3 - frame.ndim :] = place.matrix[:-1, -1]
    volume, total, first = _volume(image), _volume(total), 0
    if frame.ndim == 3 and len(frame) <= _FEW:
        # taps reach a plane before and two behind. Outermost planes are left out, as their smoothing is not that of the
        # scene, but of few planes nothing would be left: there mirrored ones stand in
        count = len(volume)
        first = max(int(np.ceil(shift[0] - 1e-6)), 0)
        last = min(int(np.floor(count - 1 + shift[0] + 1e-6)), len(total) - 1)
        if last < first:
            return np.zeros((3, 2), np.int64)
        total = total[first : last + 1]
        weight = weight if weight is _NOTHING else weight[first : last + 1]
        volume = np.pad(volume, ((1, 2), (0, 0), (0, 0)), mode="reflect" if count > 1 else "edge")
        if seen.size > 1:
            seen = np.pad(seen, ((1, 2), (0, 0), (0, 0)), mode="reflect" if count > 1 else "edge")
        shift[0] -= first + 1
    scale = 1.0 / place.gain
    box = add_shifted(np.ascontiguousarray(volume), seen, shift, scale, -place.offset * scale, total, weight)
    if seen.size > 1:
        return None
    box[0] += first
    return np.asarray(box, np.int64)


def _add_warped(frame: NDArray[Any], place: Aligned, total: NDArray[np.float32], counts: _Counts) -> None:
    image, weight = np.asarray(frame, np.float32), counts.array()
    if np.isfinite(image).all():
        from stackalign.core.lucas_kanade.kernels import add_warped

        backward = np.eye(4)
        backward[3 - image.ndim :, 3 - image.ndim :] = np.linalg.inv(place.matrix)
        size, scale = np.array(_volume(image).shape), 1.0 / place.gain
        add_warped(
            cubic(frame, values=image), backward, size, scale, -place.offset * scale, _volume(total), _volume(weight)
        )
        return
    image = (image - np.float32(place.offset)) / np.float32(place.gain)
    warped = warp_frame(image, place.matrix, order=3, output_shape=total.shape)
    inside = np.isfinite(warped) & valid_mask(image.shape, place.matrix, output_shape=total.shape)
    total += np.where(inside, warped, np.float32(0))
    weight += inside


def _sharpened(mean: NDArray[np.float32]) -> NDArray[np.float32]:
    """Undo the B-spline's smoothing that `add_shifted` leaves: one filter for all frames."""
    known = np.isfinite(mean)
    if not known.any():
        return mean
    sharp = filled_along_lines(mean, known)
    filter_spline(_volume(sharp), 3)
    sharp[~known] = np.nan
    return sharp


def _volume(image: NDArray[Any]) -> NDArray[Any]:
    return image if image.ndim == 3 else image[None]
