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
    """Return the image with unknown pixels replaced by the nearest known one of their row.

    Rows without one are those of the nearest row then, planes without one those of the nearest plane.

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
    from stackalign.core.translation.template_kernels import fill_image

    image = np.ascontiguousarray(image)
    if known.all():
        return image
    lead = (1,) * (3 - image.ndim)
    out = np.empty_like(image)
    fill_image(*(a.reshape(lead + image.shape) for a in (image, np.ascontiguousarray(known), out)))
    return out


def filled_from_nearest(image: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the image with unknown pixels replaced by the nearest known one in any direction; parameters as above."""
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    return np.asarray(image[tuple(nearest)])


def filled_smoothly(image: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the image with unknown pixels replaced by means of what is known around them, wider ones farther inside.

    Pull and push (Gortler et al., SIGGRAPH 1996): each pixel takes the finest of ever coarser images that knows it.
    What is filled in holds less noise than an image filled along its lines, whose streaks look like structure to a
    filter that tells signal from noise by the spectrum.

    Parameters
    ----------
    image : ndarray (y, x) or (z, y, x)
        Any dtype.
    known : ndarray of bool, the image's shape
        Where it counts; at least one pixel must.
    """
    from scipy import ndimage

    from stackalign.core.frames.reduction import binned

    out = np.where(known, image, np.float32(np.nan)).astype(np.float32)
    if known.all():
        return out
    if not known.any():
        raise ValueError("nothing of the image is known: it cannot be filled")
    factors = tuple(2 if n > 1 else 1 for n in image.shape)
    # an odd pixel at the end would be cut off
    even = np.pad(out, [(0, -n % f) for n, f in zip(image.shape, factors, strict=True)], constant_values=np.nan)
    small = binned(even, factors)
    coarse = filled_smoothly(small, np.isfinite(small))
    places = np.nonzero(~known)
    there = [(p - (f - 1) / 2) / f for p, f in zip(places, factors, strict=True)]
    out[places] = ndimage.map_coordinates(coarse, there, order=1, mode="nearest")
    return out
