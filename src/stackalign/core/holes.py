"""Fill what is not known of an image from what is known beside it: borders that no frame covers, lost pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def masked(image: NDArray[np.float32], mask: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """Return the image with NaN where the mask is False; the image itself where there is nothing to leave out."""
    return image if mask is None or mask.all() else np.where(mask, image, np.float32(np.nan))


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
    from stackalign.core.template_kernels import fill_lines

    out, seen = np.ascontiguousarray(image), known
    for axis in range(image.ndim - 1, -1, -1):
        if seen.all():
            break
        lines, told = (np.ascontiguousarray(np.moveaxis(a, axis, -1)) for a in (out, seen))
        filled = np.empty_like(lines)
        size = lines.shape[-1]
        whole = fill_lines(lines.reshape(-1, size), told.reshape(-1, size), filled.reshape(-1, size))
        told = np.broadcast_to(whole.reshape(lines.shape[:-1])[..., None], lines.shape)
        out, seen = np.moveaxis(filled, -1, axis), np.moveaxis(told, -1, axis)
    return np.ascontiguousarray(out)


def filled_from_nearest(image: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the image with unknown pixels replaced by the nearest known one in any direction; parameters as above."""
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    return np.asarray(image[tuple(nearest)])
