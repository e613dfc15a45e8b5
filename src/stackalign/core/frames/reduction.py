"""Reduced frames: binning by whole factors, and what a motion of reduced frames means at full size."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_READ = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))  # as they are; others are converted first


def reduction(frame_shape: Sequence[int], target: float) -> tuple[int, ...]:
    """Return binning factors, powers of two, that bring each axis to about ``target`` pixels, never below 16."""
    factors = []
    for n in frame_shape:
        factor = 1
        while n / factor > 1.5 * target and n // (2 * factor) >= 16:
            factor *= 2
        factors.append(factor)
    return tuple(factors)


def binned(frame: NDArray[Any], factors: Sequence[int]) -> NDArray[np.float32]:
    """Return the mean over blocks of ``factors`` pixels, float32; NaN only where a whole block is; odd ends are cut."""
    if all(f == 1 for f in factors):
        return np.ascontiguousarray(frame, np.float32)
    from stackalign.core.frames.reduction_kernels import bin_blocks

    image = as_read(frame)
    lead = (1,) * (3 - image.ndim)
    out = np.empty([n // f for n, f in zip(image.shape, factors, strict=True)], np.float32)
    bin_blocks(image.reshape(lead + image.shape), *lead, *map(int, factors), out.reshape(lead + out.shape))
    return out


def binned_frames(frames: Sequence[NDArray[Any]] | NDArray[Any], factors: Sequence[int]) -> NDArray[np.float32]:
    """Return frames binned as `binned` does, (n, ...); planes in one go."""
    if len(frames) > 1 and frames[0].ndim == 2:
        return binned(stacked(frames), (1, *factors))
    return np.stack([binned(frame, factors) for frame in frames])


def stacked(frames: Sequence[NDArray[Any]] | NDArray[Any]) -> NDArray[Any]:
    """Return frames as one array (n, ...); without a copy where they follow each other in memory, as in a movie."""
    if isinstance(frames, np.ndarray):
        return frames
    first, owner = frames[0], frames[0].base
    if not isinstance(owner, np.ndarray) or owner.dtype != first.dtype or not owner.flags.c_contiguous:
        return np.stack(frames)
    begin = _address(first)
    for k, frame in enumerate(frames):
        alike = frame.base is owner and frame.shape == first.shape and frame.flags.c_contiguous
        if not alike or _address(frame) != begin + k * first.nbytes:
            return np.stack(frames)
    offset = (begin - _address(owner)) // first.itemsize
    return owner.reshape(-1)[offset : offset + len(frames) * first.size].reshape(len(frames), *first.shape)


def _address(image: NDArray[Any]) -> int:
    return int(image.__array_interface__["data"][0])


def as_read(frame: NDArray[Any]) -> NDArray[Any]:
    """Return a frame as the kernels read it: uint8, uint16 or float32, in one piece."""
    return np.require(frame, frame.dtype if frame.dtype in _READ else np.float32, ["C", "A", "W"])


def enlarged(matrix: NDArray[np.float64], factors: Sequence[int]) -> NDArray[np.float64]:
    """Return the full-size matrix of a motion of reduced frames: pixel i is centred on ``f i + (f - 1) / 2``."""
    there, back = _scale(tuple(factors))
    return np.asarray(there @ matrix @ back)


def reduced(matrix: NDArray[np.float64], factors: Sequence[int]) -> NDArray[np.float64]:
    """Return the matrix for reduced frames of a motion at full size."""
    there, back = _scale(tuple(factors))
    return np.asarray(back @ matrix @ there)


@lru_cache(maxsize=64)
def _scale(factors: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the matrix from reduced to full-size pixels, and back."""
    f = np.asarray(factors, float)
    there, back = np.diag([*f, 1.0]), np.diag([*(1 / f), 1.0])
    there[:-1, -1], back[:-1, -1] = (f - 1) / 2, -(f - 1) / 2 / f
    return there, back
