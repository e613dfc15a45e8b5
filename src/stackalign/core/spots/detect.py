"""Find spots: scale-space extrema of the Laplacian of Gaussian, checked by fits; pixels, (y, x) or (z, y, x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from stackalign.core.geometry import Box
from stackalign.core.spots.fit import fit_spots
from stackalign.core.spots.picks import Pick
from stackalign.core.stack import ImageStack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from stackalign.core.spots.options import Polarity

# Widths searched, pixels. The normalised response of a spot is greatest at its own width (Lindeberg, IJCV 30, 1998).
WIDTHS = (1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0)
REACH = 3.5  # half a box in widths of the spot: 99.8 % of it, and a rim of background
SIGNIFICANT = 6.0  # response over the noise's, for a candidate
ISOLATION = 0.4  # a neighbour of this part of the own response in the box spoils a pick


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Scale-space extrema, the strongest first.

    Attributes
    ----------
    position : ndarray (N, d) of int
        Pixels.
    sigma : ndarray (N,)
        Width at which each one responds most, pixels.
    response : ndarray (N,)
        Normalised response, intensity units, positive.
    """

    position: NDArray[np.int64]
    sigma: NDArray[np.float64]
    response: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.sigma)


def find_candidates(
    image: NDArray[Any], *, bright: bool, sigma: float | None = None, mask: NDArray[np.bool_] | None = None
) -> Candidates:
    """Return the spots that stand out of an image, bright or dark, of any width or near ``sigma``."""
    data = _filled(image)
    widths = np.array(WIDTHS if sigma is None else (0.7 * sigma, sigma, 1.4 * sigma))
    smallest = min(n for n in data.shape[-2:])
    widths = widths[widths <= max(smallest / 6, 1.0)]
    if not len(widths):
        widths = np.array([1.0 if sigma is None else sigma])
    sign = -1.0 if bright else 1.0
    scales = np.stack([sign * w * w * ndimage.gaussian_laplace(data, w, mode="nearest") for w in widths])
    peak = scales == ndimage.maximum_filter(scales, size=3, mode="nearest")
    # noise of each scale from the spread of its own values: spots are few
    spread = np.array([1.4826 * np.median(np.abs(s - np.median(s))) for s in scales])
    peak &= scales > (SIGNIFICANT * spread).reshape((-1,) + (1,) * data.ndim)
    peak &= scales > 0
    inner = np.zeros(data.shape, bool)
    inner[(slice(None),) * (data.ndim - 2) + (slice(2, -2), slice(2, -2))] = True
    if mask is not None:
        inner &= mask
    level, *where = np.nonzero(peak & inner)
    response = scales[(level, *where)]
    order = np.argsort(-response, kind="stable")
    return Candidates(np.stack(where, 1)[order], widths[level][order], response[order].astype(float))


def suggest_picks(
    stack: ImageStack | ArrayLike,
    count: int = 10,
    *,
    frame: int = 0,
    sigma: float | None = None,
    polarity: Polarity = "auto",
    mask: NDArray[np.bool_] | None = None,
    margin: int = 0,
    min_r_squared: float = 0.5,
) -> tuple[Pick, ...]:
    """Propose particles to follow: isolated, of good contrast, spread over the field.

    Parameters
    ----------
    stack : ImageStack or array_like
        A stack, or a single image (y, x).
    count : int
        Most picks.
    frame : int
        Frame to look at.
    sigma : float, optional
        Width of the particles, pixels; found from the image if None.
    polarity : "auto", "bright" or "dark"
        Which particles to look for; "auto" takes the kind that can be located better.
    mask : ndarray of bool, frame shape, optional
        True where particles may be picked.
    margin : int
        Pixels to keep free at the border, for the drift to come.
    min_r_squared : float
        Least share of the box that the Gaussian must explain.

    Returns
    -------
    tuple of Pick
        Boxes of one common size, the best first, numbered from 1; fewer than ``count`` if the image has no more.

    Raises
    ------
    ValueError
        If ``count`` is below 1 or there is no such frame.
    """
    if count < 1:
        raise ValueError(f"at least one particle must be asked for, got {count}")
    if not isinstance(stack, ImageStack) and np.ndim(stack) == 2:
        stack = np.asarray(stack)[None]
    movie = ImageStack.of(stack)
    if not 0 <= frame < len(movie):
        raise ValueError(f"there is no frame {frame}: the stack has {len(movie)} frames")
    image = np.asarray(movie[frame])
    kinds = {"auto": (True, False), "bright": (True,), "dark": (False,)}[polarity]
    found = [
        _choose(image, count, bright=bright, sigma=sigma, mask=mask, margin=margin, least=min_r_squared)
        for bright in kinds
    ]
    boxes, _ = max(found, key=lambda item: item[1])
    return tuple(Pick.of(box, frame=frame, id=k) for k, box in enumerate(boxes, start=1))


def box_at(image: ArrayLike, point: Sequence[float], *, reach: float = 8.0, polarity: Polarity = "auto") -> Box:
    """Propose the box of the particle next to a clicked point.

    Parameters
    ----------
    image : array_like (y, x) or (z, y, x)
        The frame.
    point : sequence of float
        Where the user clicked, pixels.
    reach : float
        How far from the point the particle may lie, pixels.
    polarity : "auto", "bright" or "dark"
        Which way the particle stands out.

    Returns
    -------
    Box
        Centred on the extremum, sized by its width; around the point itself where nothing stands out.

    Raises
    ------
    ValueError
        If the point lies outside the image.
    """
    whole = np.asarray(image)
    at = np.asarray(point, float)
    if at.shape != (whole.ndim,) or (at < -0.5).any() or (at > np.array(whole.shape) - 0.5).any():
        raise ValueError(f"the point {tuple(np.round(at, 1).tolist())} lies outside the image of shape {whole.shape}")
    around = int(np.ceil(reach + REACH * WIDTHS[-2]))
    bounds = [b for a, n in zip(at, whole.shape, strict=True) for b in (round(a) - around, round(a) + around + 1)]
    window = Box(*bounds).clipped(whole.shape)
    part = whole[window.slices]
    best, where, width = 0.0, at, 2.0
    for bright in {"auto": (True, False), "bright": (True,), "dark": (False,)}[polarity]:
        spots = find_candidates(part, bright=bright)
        centre = spots.position + np.array(window.start)
        distance = np.sqrt(((centre - at) ** 2).sum(1))
        score = np.where(distance <= reach + spots.sigma, spots.response * np.exp(-0.5 * (distance / reach) ** 2), 0.0)
        if len(score) and score.max() > best:
            k = int(score.argmax())
            best, where, width = float(score[k]), centre[k].astype(float), float(spots.sigma[k])
    return _box(where, _half(width), whole.shape)


def _filled(image: NDArray[Any]) -> NDArray[np.float32]:
    data = np.array(image, np.float32)
    lost = ~np.isfinite(data)
    if lost.any():
        data[lost] = np.median(data[~lost]) if not lost.all() else 0.0
    return data


def _half(sigma: float) -> int:
    return int(np.clip(np.ceil(REACH * sigma), 4, 32))


def _box(centre: NDArray[Any], half: int, shape: Sequence[int]) -> Box:
    """Return a box around a centre, moved inside the frame where it would stick out."""
    bounds: list[int] = []
    for c, n in zip(centre, shape, strict=True):
        size = min(2 * half + 1, n)
        start = int(np.clip(round(float(c)) - half, 0, n - size))
        bounds += [start, start + size]
    return Box(*bounds)


def _choose(
    image: NDArray[Any],
    count: int,
    *,
    bright: bool,
    sigma: float | None,
    mask: NDArray[np.bool_] | None,
    margin: int,
    least: float,
) -> tuple[list[Box], float]:
    """Return boxes of the best spots of one kind, and the sum of their scores."""
    spots = find_candidates(image, bright=bright, sigma=sigma, mask=mask)
    shape = np.array(image.shape)
    # a generous number of the strongest: many will fall to the checks
    head = slice(0, min(len(spots), 40 * count + 200))
    position, width, response = spots.position[head], spots.sigma[head], spots.response[head]
    half = np.array([_half(w) for w in width], int)
    plane = position[:, -2:]
    inside = ((plane >= half[:, None] + margin) & (plane + half[:, None] + margin < shape[-2:])).all(1)
    for k in np.flatnonzero(inside):
        apart = np.abs(plane - plane[k]).max(1)
        other = (apart > 0.7 * width[k]) & (apart <= 1.2 * half[k]) & (response > ISOLATION * response[k])
        inside[k] = not other.any()
    keep = np.flatnonzero(inside)
    score, sizes = np.zeros(len(width)), width.copy()
    for size in np.unique(half[keep]):
        group = keep[half[keep] == size]
        boxes = [_box(position[k], int(size), image.shape) for k in group]
        patches = np.stack([image[box.slices] for box in boxes])
        fits = fit_spots(patches, "elliptic", "lsq", polarity="bright" if bright else "dark", min_r_squared=least)
        near = np.abs(fits.position[:, -2:] - size).max(1) <= 0.5 * size
        round_ = fits.sigma[:, -2:].max(1) <= 2.5 * fits.sigma[:, -2:].min(1)
        good = fits.ok & near & round_ & (fits.sigma[:, -2:].min(1) > 0.6)
        error = np.sqrt((fits.position_error[:, -2:] ** 2).sum(1))
        score[group] = np.where(good, 1.0 / np.sqrt(np.nan_to_num(error, nan=1e9) ** 2 + 0.02**2), 0.0)
        sizes[group] = fits.sigma[:, -2:].max(1)
    chosen = _spread(position.astype(float), score, count, shape)
    if not chosen:
        return [], 0.0
    common = _half(float(np.median(sizes[chosen])))
    return [_box(position[k], common, image.shape) for k in chosen], float(score[chosen].sum())


def _spread(position: NDArray[np.float64], score: NDArray[np.float64], count: int, shape: NDArray[Any]) -> list[int]:
    """Choose by score times the distance to what is chosen already: far apart, a rotation is seen best."""
    left = score.copy()
    diagonal = float(np.sqrt((shape[-2:] ** 2).sum()))
    nearest = np.full(len(score), 0.5 * diagonal)
    chosen: list[int] = []
    # a spot ten times worse than the best would only add noise
    left[left < 0.1 * left.max(initial=0.0)] = 0.0
    while len(chosen) < count and left.max(initial=0.0) > 0:
        k = int(np.argmax(left * nearest))
        if left[k] <= 0:
            break
        chosen.append(k)
        left[k] = 0.0
        nearest = np.minimum(nearest, np.sqrt(((position[:, -2:] - position[k, -2:]) ** 2).sum(1)))
        left[nearest < 2.0] = 0.0
    return chosen
