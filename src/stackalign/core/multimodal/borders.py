"""Find what is no picture: the constant corners and bands of an image that was turned or moved before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CONSTANT = 0.03  # of the range of brightness: lossy formats do not keep a constant exactly
_LEAST, _MOST = 0.3, 0.995  # share of the image that a picture may fill to be taken for one
_LEAKED = 0.2  # of the picture may be as dark, and touch what is none
_CORNERS = 8  # a turned rectangle that is cut by the image has no more
_STRAIGHT = 0.012  # of the side of the image: by how much its sides may seem bent
_RINGING = 4  # px: half the blocks of JPEG
_MARGIN = 2  # px: at its sides, where interpolation and compression mix it with what is none


def without_borders(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the image, not a number where it was filled up with a constant; itself if it was not.

    What is connected to a corner of the image and as bright as that one, and as dark or as bright as anything, is no
    picture if the rest is: a convex polygon of few corners. Dark parts of a picture that touch it are kept. Objects on
    a dark background are no such polygon.

    Parameters
    ----------
    image : ndarray (y, x)
        Float; not a number: not known.
    """
    known = np.isfinite(image)
    if min(image.shape) < 16 or not known.all():
        return image
    low, high = (float(v) for v in np.percentile(image[::2, ::2], (0.5, 99.5)))
    least, largest = float(image.min()), float(image.max())
    tolerance = _CONSTANT * (high - low)
    corners = image[[0, 0, -1, -1], [0, -1, 0, -1]]
    for value in (least, largest):
        if (np.abs(corners - value) <= tolerance).any():
            inside = _polygon(np.abs(image - value) <= tolerance)
            if inside is not None:
                return np.where(inside, image, np.float32(np.nan))
    return image


def _polygon(constant: NDArray[np.bool_]) -> NDArray[Any] | None:
    """Return the polygon that is left of an image without what is constant and connected to its corners, if it is."""
    from scipy.ndimage import binary_erosion, grey_closing, label
    from scipy.spatial import ConvexHull, QhullError

    labels, _ = label(constant)
    outside = np.unique(labels[[0, 0, -1, -1], [0, -1, 0, -1]])
    empty = np.isin(labels, outside[outside > 0])
    if not 1 - _MOST < empty.mean() < 1 - 0.5 * _LEAST:
        return None
    # what compression leaves beside a sharp side is closed
    padded = np.pad(empty, _RINGING, mode="edge")
    empty = grey_closing(padded.view(np.uint8), 2 * _RINGING + 1)[_RINGING:-_RINGING, _RINGING:-_RINGING].view(bool)
    # first and last of each line are enough for the hull
    lines = np.flatnonzero(~empty.all(1))
    ends = [(~empty[lines]).argmax(1), empty.shape[1] - 1 - (~empty[lines, ::-1]).argmax(1)]
    points = np.concatenate([np.stack([lines, end], -1) for end in ends]).astype(float)
    try:
        hull = ConvexHull(points)
    except QhullError:
        return None
    if (
        not _LEAST * empty.size < hull.volume
        or _vertices(points[hull.vertices], _STRAIGHT * max(empty.shape)) > _CORNERS
    ):
        return None
    y, x = np.arange(empty.shape[0])[:, None], np.arange(empty.shape[1])
    shown = np.ones(empty.shape, bool)
    for a, b, c in hull.equations:
        shown &= a * y + b * x + c <= 1e-9
    if shown.mean() > _MOST or (empty & shown).sum() > _LEAKED * shown.sum():
        return None
    return np.asarray(binary_erosion(shown, iterations=_MARGIN, border_value=1))


def _vertices(points: NDArray[Any], bent: float) -> int:
    """Return how many corners a convex polygon (N, 2) has if its sides may bend by some pixels (Douglas & Peucker)."""
    closed = np.concatenate([points, points[:1]])
    far = int(np.hypot(*(points - points[0]).T).argmax())

    def between(first: int, last: int) -> int:
        if last - first < 2:
            return 0
        along = closed[last] - closed[first]
        part = closed[first + 1 : last] - closed[first]
        apart = np.abs(part[:, 0] * along[1] - part[:, 1] * along[0]) / max(float(np.hypot(*along)), 1e-9)
        k = int(apart.argmax())
        if apart[k] <= bent:
            return 0
        return 1 + between(first, first + 1 + k) + between(first + 1 + k, last)

    return 2 + between(0, far) + between(far, len(points))
