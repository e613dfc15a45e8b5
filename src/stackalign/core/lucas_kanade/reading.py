"""Frames as the kernels of gradient alignment read them: some in one go, less a level, with their splines."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.holes import filled_along_lines
from stackalign.core.frames.reduction import as_read
from stackalign.core.lucas_kanade import fit_kernels as kernels
from stackalign.core.lucas_kanade.residuals import EVERYWHERE, as_volume
from stackalign.core.threads import spare
from stackalign.core.translation.template_kernels import eroded
from stackalign.core.warping.kernels import PAD, POLES
from stackalign.core.warping.resample import spline_coefficients
from stackalign.core.warping.splined import SplinedFrame, cubic

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_CHUNK = 1 << 19  # pixels of the frames that are worked on in one go
_local = threading.local()


def chunks(
    frames: Sequence[NDArray[Any]], starts: Sequence[Array]
) -> Iterator[tuple[Sequence[NDArray[Any]], Sequence[Array]]]:
    """Split frames into what is worked on in one go: few enough to stay near; those with holes alone."""
    first = 0
    while first < len(frames):
        most = max(_CHUNK // max(frames[first].size, 1), 1)
        stop = first + 1
        if _whole(frames[first]):
            while stop < min(first + most, len(frames)) and _whole(frames[stop]):
                stop += 1
        yield frames[first:stop], starts[first:stop]
        first = stop


def _whole(frame: NDArray[Any]) -> bool:
    return frame.dtype.kind != "f" or bool(np.isfinite(np.asarray(frame, np.float32)).all())


def read(
    frames: Sequence[NDArray[Any]], level: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]] | None:
    """Return frames less a level, their splines, and where pixels are known; None if none is."""
    first = frames[0]
    if len(frames) == 1 and not _whole(first):
        image = np.ascontiguousarray(first, np.float32) - np.float32(level)
        finite = np.isfinite(image)
        if not finite.any():
            return None
        image = filled_along_lines(image, finite)
        known = as_volume(finite)
        near = np.empty(known.shape, bool)
        eroded(known, np.array([n > 1 for n in known.shape], np.int64), near)
        return as_volume(image)[None], spline_coefficients(image, 3)[None], near.astype(np.float32)
    if first.ndim == 2 and (len(frames) > 1 or first.size < _CHUNK or spare() == 1):
        images, padded = _room(len(frames), first.shape)
        for k, frame in enumerate(frames):
            if isinstance(frame, SplinedFrame):
                np.subtract(frame, np.float32(level), out=images[k, 0], dtype=np.float32, casting="unsafe")
                np.subtract(frame.coefficients(), np.float32(level), out=padded[k])
            else:
                kernels.splined_plane(as_read(frame), np.float32(level), POLES[3], PAD, images[k, 0], padded[k, 0])
        return images, padded, EVERYWHERE
    values = [np.asarray(frame, np.float32) for frame in frames]
    images = np.stack([as_volume(v - np.float32(level)) for v in values])
    if len(frames) == 1:
        return images, cubic(first, level, values[0])[None], EVERYWHERE
    return images, np.stack([cubic(f, level, v) for f, v in zip(frames, values, strict=True)]), EVERYWHERE


def _room(count: int, shape: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return room for some planes and their splines, of this thread: new memory would cost as much as the filter."""
    sizes = [(count, 1, *shape), (count, 1, *(n + 2 * PAD for n in shape))]
    kept: list[NDArray[np.float32]] = getattr(_local, "room", [])
    if len(kept) != 2 or any(k.size < math.prod(s) for k, s in zip(kept, sizes, strict=True)):
        kept = [np.empty(math.prod(s), np.float32) for s in sizes]
        if kept[0].size <= _CHUNK:
            _local.room = kept
    images, padded = (k[: math.prod(s)].reshape(s) for k, s in zip(kept, sizes, strict=True))
    return images, padded
