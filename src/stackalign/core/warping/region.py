"""What frames cover together once they are aligned: the largest common box, and the box that holds them all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.geometry import Box, corners
from stackalign.core.piecewise.series import PiecewiseSeries
from stackalign.core.transform import TransformModel
from stackalign.core.warping.resample import valid_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.transform_series import TransformSeries

_ROUND = 1e-6


def common_box(frame_shape: Sequence[int], transforms: TransformSeries) -> Box:
    """Return the largest box of reference pixels that every valid frame covers.

    Parameters
    ----------
    frame_shape : sequence of int
        (y, x) or (z, y, x).
    transforms : TransformSeries
        Moving -> reference; frames that are not valid do not count.

    Raises
    ------
    ValueError
        If no pixel is covered by all of them; the frame that shares least with the others is named.
    """
    shape = np.asarray(frame_shape)
    used = _used(transforms)
    moved = _moved_corners(frame_shape, transforms)[used]
    if transforms.model is TransformModel.TRANSLATION:
        low, high = moved.min(axis=1), moved.max(axis=1)
        start = np.ceil(low.max(axis=0) - _ROUND).astype(int)
        stop = np.floor(high.min(axis=0) + _ROUND).astype(int) + 1
        if (stop <= start).any():
            _nothing(used, low)
        return Box(*np.column_stack([start, stop]).ravel())
    # what is covered together is convex (frames are, and projective maps keep lines): found on the grid of pixels
    first = np.floor(moved.min(axis=(0, 1))).astype(int)
    size = np.ceil(moved.max(axis=(0, 1))).astype(int) - first + 1
    # no frame holds more than its own size along an axis, up to stretch; a generous window bounds the work
    centre = (shape - 1) / 2
    low = np.maximum(first, np.floor(centre - 1.5 * shape).astype(int))
    size = np.minimum(first + size, np.ceil(centre + 1.5 * shape).astype(int)) - low
    inside = _covered_by_all(frame_shape, transforms, used, low, size)
    if not inside.any():
        _nothing(used, moved.mean(axis=1))
    start, stop = _largest_box(inside)
    return Box(*np.column_stack([low + start, low + stop]).ravel())


def expanded_box(frame_shape: Sequence[int], transforms: TransformSeries) -> Box:
    """Return the smallest box of reference pixels that holds every valid frame."""
    moved = _moved_corners(frame_shape, transforms)[_used(transforms)]
    start = np.floor(moved.min(axis=(0, 1)) + _ROUND).astype(int)
    stop = np.ceil(moved.max(axis=(0, 1)) - _ROUND).astype(int) + 1
    return Box(*np.column_stack([start, stop]).ravel())


def _used(transforms: TransformSeries) -> NDArray[np.int_]:
    return np.flatnonzero(transforms.valid) if transforms.valid.any() else np.arange(len(transforms))


def _moved_corners(frame_shape: Sequence[int], transforms: TransformSeries) -> NDArray[np.float64]:
    """(T, 2**d, d) corners of every frame, in the reference."""
    points = np.column_stack([corners(frame_shape), np.ones(2 ** len(frame_shape))])
    mapped = points @ np.swapaxes(transforms.matrices, 1, 2)
    moved = mapped[..., :-1] / mapped[..., -1:]
    if isinstance(transforms, PiecewiseSeries):
        # the blocks move a border by at most their own shifts
        reach = np.abs(transforms.shifts).max(axis=(1, 2))[:, None]
        middle = moved.mean(axis=1, keepdims=True)
        moved = moved - np.sign(moved - middle) * reach
    return np.asarray(moved)


def _covered_by_all(
    frame_shape: Sequence[int],
    transforms: TransformSeries,
    used: NDArray[np.int_],
    low: NDArray[np.int_],
    size: NDArray[np.int_],
) -> NDArray[np.bool_]:
    inside = np.ones(tuple(size), bool)
    previous = None
    for t in used:
        matrix = transforms.matrices[t]
        if previous is None or not np.array_equal(matrix, previous):
            inside &= valid_mask(frame_shape, matrix, output_shape=tuple(size), origin=low)
        previous = matrix
    return inside


def _largest_box(inside: NDArray[np.bool_]) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Return start and stop of the largest box of True pixels; exact in 2-D, the best over runs of planes in 3-D."""
    if inside.ndim == 2:
        return _largest_rectangle(inside)
    best, start, stop = 0, np.zeros(3, int), np.zeros(3, int)
    planes = np.flatnonzero(inside.any(axis=(1, 2)))
    steps = np.unique(np.linspace(0, len(planes) - 1, min(len(planes), 24)).astype(int))
    for a in planes[steps]:
        for b in planes[steps][::-1]:
            if b < a:
                break
            both = inside[a] & inside[b]  # convex: what the end planes share, the planes between share too
            if not both.any() or both.sum() * (b - a + 1) <= best:
                continue
            low, high = _largest_rectangle(both)
            size = int(np.prod(high - low)) * (b - a + 1)
            if size > best:
                best, start, stop = size, np.array([a, *low]), np.array([b + 1, *high])
    return start, stop


def _largest_rectangle(inside: NDArray[np.bool_]) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Return the largest axis-parallel rectangle of True in a mask whose rows hold one run each (a convex region)."""
    rows = np.flatnonzero(inside.any(axis=1))
    left = np.argmax(inside[rows], axis=1)
    right = inside.shape[1] - np.argmax(inside[rows, ::-1], axis=1)
    best, box = 0, (0, 0, 0, 0)
    for i in range(len(rows)):
        lefts, rights = np.maximum.accumulate(left[i:]), np.minimum.accumulate(right[i:])
        area = np.maximum(rights - lefts, 0) * np.arange(1, len(lefts) + 1)
        k = int(np.argmax(area))
        if area[k] > best:
            best, box = int(area[k]), (rows[i], rows[i] + k + 1, lefts[k], rights[k])
    y0, y1, x0, x1 = box
    return np.array([y0, x0]), np.array([y1, x1])


def _nothing(used: NDArray[np.int_], places: NDArray[np.float64]) -> None:
    away = np.linalg.norm(places - np.median(places, axis=0), axis=1)
    t = int(used[int(np.argmax(away))])
    raise ValueError(
        f"no pixel is covered by all frames; frame {t} lies farthest from the others: take it out or choose crop='none'"
    )
