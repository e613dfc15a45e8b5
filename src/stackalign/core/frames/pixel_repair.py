"""Pixels that do not see: hot or dead ones, the same in every frame, and spikes of single frames (cosmic rays, salt).

What stays where it is in every frame pulls every motion towards none. Such pixels are found in means of frames, which
blur a scene that moves, and are replaced, for the fit alone, by the median of their neighbours, which moves with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.frame_check import read_frame
from stackalign.core.run_state import spread
from stackalign.core.threads import bands, map_frames, map_threads
from stackalign.core.verdicts.agreement import noise_variance
from stackalign.core.work import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.stack import ImageStack
    from stackalign.core.work import Work

_SAMPLE = 32  # frames that are looked at
_GROUPS = 4  # means of them in each of which a pixel must stand out: a spike of one frame does not
_MOST = 0.02  # of the pixels: where more stand out, that is how the scene looks


@dataclass(frozen=True, slots=True, eq=False)
class PixelRepair:
    """Replaces pixels of a frame by the median of their neighbours in the plane.

    Attributes
    ----------
    fixed : ndarray of int64 (N,)
        Pixels of every frame, as places in the frame's flat array.
    spikes : bool
        Whether single pixels that stand out in a frame are replaced, too.
    """

    fixed: NDArray[np.int64]
    spikes: bool = False
    _masks: dict[tuple[int, ...], NDArray[np.bool_]] = field(default_factory=dict, repr=False)

    def places(self, frame_shape: tuple[int, ...]) -> NDArray[np.int64]:
        """Return the pixels that are bad in every frame, (N, d)."""
        return np.stack(np.unravel_index(self.fixed, frame_shape), axis=-1)

    def __call__(self, frame: NDArray[Any]) -> NDArray[Any]:
        """Return a copy of the frame with its pixels replaced; the frame itself if there is none."""
        from stackalign.core.frames.pixel_repair_kernels import outliers, refilled

        image = np.asarray(frame)
        if min(image.shape[-2:]) < 3 or image.dtype.kind == "b":
            return image
        planes = np.ascontiguousarray(image).reshape(-1, *image.shape[-2:])
        bad, which = self._fixed_in(planes.shape), self.fixed
        if self.spikes:
            bad = bad.copy()
            outliers(planes, float(np.sqrt(noise_variance(image))), bad)
            which = np.flatnonzero(bad)
        if not len(which):
            return image
        out = planes.copy()
        refilled(planes, bad, which, out)
        return out.reshape(image.shape)

    def _fixed_in(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return where planes of this shape are bad in every frame."""
        found = self._masks.get(shape)
        if found is None:
            found = np.zeros(shape, bool)
            found.reshape(-1)[self.fixed] = True
            self._masks[shape] = found
        return found


def find_repair(stack: ImageStack, *, spikes: bool = False) -> Work[PixelRepair | None]:
    """Return what replaces the pixels of a stack that do not see.

    Parameters
    ----------
    stack : ImageStack
        The frames.
    spikes : bool
        Whether spikes of single frames are replaced as well as pixels that are bad in all of them.

    Yields
    ------
    Progress
        Frame by frame of a sample.

    Returns
    -------
    PixelRepair or None
        None where there is nothing to replace. A fixed pixel differs from the median of its neighbours by five times
        the range of the middle ones, and more than the noise, in each of four means of frames. A point of light behind
        a lens spreads over its neighbours, and does not. Of fewer than four frames none is called fixed.
    """
    fixed = np.zeros(0, np.int64)
    sample = spread([t for t in range(len(stack)) if t not in stack.rejected and t not in stack.missing], _SAMPLE)
    if len(sample) >= _GROUPS and min(stack.frame_shape[-2:]) >= 3 and stack.dtype.kind != "b":
        fixed = yield from _standing_out(stack, sample)
        if len(fixed) > _MOST * math.prod(stack.frame_shape):
            fixed = fixed[:0]
    return PixelRepair(fixed, spikes) if spikes or len(fixed) else None


def _standing_out(stack: ImageStack, sample: Sequence[int]) -> Work[NDArray[np.int64]]:
    """Return the pixels, counted through all, that stand out in each of some sums of frames.

    Where none does in the first one, which is what most movies are like, the other frames are not read.
    """
    from stackalign.core.frames.pixel_repair_kernels import outliers_among

    places, done = np.zeros(0, np.int64), 0
    waiting = [t for group in range(_GROUPS) for t in sample[group::_GROUPS]]
    for group in range(_GROUPS):
        share = -(-len(waiting) // (_GROUPS - group))
        some, waiting = waiting[:share], waiting[share:]
        total, count = np.zeros(stack.frame_shape, np.float32), 0
        while some:
            for frame in map_frames(partial(_sound, stack), some):
                if frame is not None:
                    total += frame
                    count += 1
                done += 1
                yield Progress(done, len(sample), "Looking for bad pixels")
            some, waiting = ([], waiting) if count else (waiting[:1], waiting[1:])  # all of them hold nothing
        if not count:
            return places[:0]
        planes = total.reshape(-1, *total.shape[-2:])
        noise = float(np.sqrt(noise_variance(planes)))
        if group == 0:
            places = np.flatnonzero(_outliers(planes, noise))
        else:  # few pixels are left to look at
            places = places[outliers_among(planes, noise, places)]
        if not len(places):
            break
    return places


def _outliers(planes: NDArray[np.float32], noise: float) -> NDArray[np.bool_]:
    from stackalign.core.frames.pixel_repair_kernels import outliers

    found = np.zeros(planes.shape, bool)
    map_threads(lambda b: outliers(planes[b[0] : b[1]], noise, found[b[0] : b[1]]), bands(len(planes), 1))
    return found


def _sound(stack: ImageStack, t: int) -> NDArray[Any] | None:
    """Read a frame; None if it holds nothing."""
    frame, reason = read_frame(stack, t)
    return None if reason else frame
