"""Fill what is not known of an image from what is known beside it: borders that no frame covers, lost pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def filled_along_lines(image: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the image with unknown pixels replaced by the nearest known one of their row, else of their column.

    Parameters
    ----------
    image : ndarray (y, x) or (z, y, x)
        Any dtype.
    known : ndarray of bool, the image's shape
        Where it counts; at least one pixel must.

    Returns
    -------
    ndarray
        The image itself if all of it is known. Many times faster than a distance transform, and as good where what is
        filled in gets no weight and only must not make an edge.
    """
    out, seen = image, known
    for axis in range(image.ndim - 1, -1, -1):
        if seen.all():
            break
        out, seen = _filled(np.moveaxis(out, axis, -1), np.moveaxis(seen, axis, -1))
        out, seen = np.moveaxis(out, -1, axis), np.moveaxis(seen, -1, axis)
    return np.ascontiguousarray(out)


def filled_from_nearest(image: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the image with unknown pixels replaced by the nearest known one in any direction; parameters as above."""
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    return np.asarray(image[tuple(nearest)])


def _filled(image: NDArray[Any], known: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Fill along the last axis; lines without any known pixel stay unknown."""
    n = image.shape[-1]
    places = np.arange(n, dtype=np.int32)
    before = np.maximum.accumulate(np.where(known, places, np.int32(-n)), axis=-1)
    after = np.minimum.accumulate(np.where(known, places, np.int32(2 * n))[..., ::-1], axis=-1)[..., ::-1]
    nearest = np.where(places - before <= after - places, before, after)
    lines = known.any(axis=-1, keepdims=True)
    picked = np.take_along_axis(image, np.clip(nearest, 0, n - 1), axis=-1)
    return np.where(lines, picked, image), np.broadcast_to(lines, known.shape)
