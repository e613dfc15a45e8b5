"""Reduced frames: binning by whole factors, and what a motion of reduced frames means at full size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def reduction(frame_shape: Sequence[int], target: int) -> tuple[int, ...]:
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
    image = frame
    if all(f == 1 for f in factors):
        return np.ascontiguousarray(image, np.float32)
    holes = image.dtype.kind == "f" and not np.isfinite(image).all()
    if holes:
        known = np.isfinite(image)
        total = _sums(np.where(known, image, 0).astype(np.float32), factors)
        count = _sums(known.astype(np.float32), factors)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(count > 0, total / count, np.nan).astype(np.float32)
    return _sums(image, factors) * np.float32(1.0 / np.prod(factors))


def _sums(image: NDArray[Any], factors: Sequence[int]) -> NDArray[np.float32]:
    """Add the pixels of each block; strided additions of whole rows are many times faster than reshape and mean."""
    out = image
    kind = image.dtype
    # integers are added as integers that cannot overflow, which is exact and fast
    wide = (
        np.dtype(np.uint32 if kind.kind in "ub" else np.int32)
        if kind.kind in "uib" and kind.itemsize <= 2
        else np.float32
    )
    for axis, factor in enumerate(factors):
        if factor == 1:
            continue
        whole = out.shape[axis] // factor * factor
        part = [slice(None)] * out.ndim
        part[axis] = slice(0, whole, factor)
        total = out[tuple(part)].astype(wide)
        for k in range(1, factor):
            part[axis] = slice(k, whole, factor)
            total += out[tuple(part)]
        out = total
    return np.ascontiguousarray(out, np.float32)


def enlarged(matrix: NDArray[np.float64], factors: Sequence[int]) -> NDArray[np.float64]:
    """Return the full-size matrix of a motion of reduced frames: pixel i is centred on ``f i + (f - 1) / 2``."""
    scale = _scale(factors)
    return np.asarray(scale @ matrix @ np.linalg.inv(scale))


def reduced(matrix: NDArray[np.float64], factors: Sequence[int]) -> NDArray[np.float64]:
    """Return the matrix for reduced frames of a motion at full size."""
    scale = _scale(factors)
    return np.asarray(np.linalg.inv(scale) @ matrix @ scale)


def _scale(factors: Sequence[int]) -> NDArray[np.float64]:
    f = np.asarray(factors, float)
    scale = np.diag([*f, 1.0])
    scale[:-1, -1] = (f - 1) / 2
    return scale
