"""Frames that hold nothing to align, told by their pixels alone: missing, without contrast, not finite, saturated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.stack import ImageStack

_ENOUGH = 0.1  # fraction of pixels that must be finite
_LARGEST, _LEAST = 1e15, 1e-18  # value, difference of values: sums of squares must stay single-precision numbers


def read_frame(stack: ImageStack, t: int, *, checked: bool = False) -> tuple[NDArray[Any], str]:
    """Read frame ``t``; returns it with the reason why it cannot be aligned, or with an empty string.

    ``checked``: its pixels were looked at before, and held something.
    """
    if t in stack.rejected:
        return np.zeros(stack.frame_shape, stack.dtype), stack.rejected[t]
    if t in stack.missing:
        return stack[t], f"missing: {stack.missing[t]}"
    try:
        frame = stack[t]
    except OSError as error:  # one bad frame never ends a run
        empty = np.zeros(stack.frame_shape, stack.dtype)
        return empty, f"cannot be read: {error}"
    return frame, "" if checked or stack.checked else check_frame(frame)


def check_frame(frame: NDArray[Any]) -> str:
    """Return why a frame cannot be aligned, in words; empty if it may."""
    image = np.asarray(frame)
    if image.dtype.kind == "f":
        finite = np.isfinite(image)
        share = float(finite.mean())
        if share == 0:
            return "all pixels are NaN"
        if share < _ENOUGH:
            return f"only {share:.0%} of the pixels are numbers"
        if share < 1:
            image = image[finite]
    low, high = image.min(), image.max()
    at_high = 0.0
    if image.dtype.kind in "ui" and high == np.iinfo(image.dtype).max:
        at_high = float(np.mean(image == high))
    return content(float(low), float(high), at_high, image.dtype)


def content(low: float, high: float, at_high: float, dtype: np.dtype[Any]) -> str:
    """Return why a frame cannot be aligned whose values lie between two, a share of them at the upper one."""
    if low == high:
        return f"blank: all pixels are {low:g}"
    if dtype.kind in "ui" and high == np.iinfo(dtype).max and at_high > 0.5:
        return f"saturated: over half of the pixels are at {np.iinfo(dtype).max}"
    largest = max(abs(low), abs(high))
    if largest > _LARGEST:
        return f"values up to {largest:.2g} have no squares in single precision: divide the movie, or set them to NaN"
    if high - low < _LEAST:
        return f"values that differ by {high - low:.2g} have no squares in single precision: multiply the movie"
    return ""
