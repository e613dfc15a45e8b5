"""Two images with pixels of their own, brought to grids of one spacing and direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.reduction import binned
from stackalign.core.geometry import centre, corners
from stackalign.core.warping.resample import warp_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_FINER = 1.5  # ratio of pixel sizes from which the finer image is binned
_LEAST_SIDE = 16  # pixels that binning leaves along an axis
_SQUARE = 1e-6  # cosine between the axes of pixels that count as rectangles
_MOST = 1 << 28  # pixels of an image brought to the other's grid


@dataclass(frozen=True, slots=True, eq=False)
class PairImage:
    """An image and where it lies in the world.

    Attributes
    ----------
    pixels : array (y, x) or (z, y, x)
        Numbers; NaN where nothing is known. Anything that numpy can read as an array.
    place : ndarray (d+1, d+1)
        Pixels -> world: scale, translation, rotation, shear; the unit of length is that of the world.
    name : str
        For messages.
    unit : float or None
        Length of a unit of ``place``, in whatever both images share; None if its pixel size is not known.
    """

    pixels: Any
    place: Array
    name: str = ""
    unit: float | None = 1.0

    @property
    def spacing(self) -> Array:
        """Size of a pixel along its axes (d,), world units."""
        return np.asarray(np.linalg.norm(self.place[:-1, :-1], axis=0))

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels along each axis."""
        return tuple(int(n) for n in self.pixels.shape)


@dataclass(frozen=True, slots=True, eq=False)
class CommonGrid:
    """Grids of one spacing and direction for two images.

    Attributes
    ----------
    place : ndarray (d+1, d+1)
        Pixels of the reference's grid -> world.
    own : ndarray (d+1, d+1)
        Pixels of the moving image's grid -> world.
    start : ndarray (d+1, d+1)
        World -> world: what is assumed of the moving image before it is looked at.
    shape, own_shape : tuple of int
        Of both grids.
    factors, own_factors : tuple of int
        By which the images are binned.
    """

    moving: PairImage
    reference: PairImage
    place: Array
    own: Array
    start: Array
    shape: tuple[int, ...]
    own_shape: tuple[int, ...]
    factors: tuple[int, ...]
    own_factors: tuple[int, ...]

    @classmethod
    def of(cls, moving: PairImage, reference: PairImage, refine: bool) -> CommonGrid:
        """Choose the grids.

        Parameters
        ----------
        moving, reference : PairImage
            With the same number of axes.
        refine : bool
            Take the moving image as it lies; else it is drawn to the scale of the reference first.

        Raises
        ------
        ValueError
            If an image would have too many pixels.
        """
        d = len(reference.shape)
        start = np.eye(d + 1)
        factor = 1.0 if refine else _size_factor(moving, reference)
        if factor != 1:
            middle = (moving.place @ np.append(centre(moving.shape), 1.0))[:-1]
            start[:-1, :-1] *= factor
            start[:-1, -1] = middle * (1 - factor)
        placed = start @ moving.place
        spacing = np.linalg.norm(placed[:-1, :-1], axis=0)
        factors = _factors(spacing / reference.spacing, reference.shape)
        own_factors = _factors(reference.spacing / spacing, moving.shape)
        place = reference.place @ binned_place(factors)
        shape = tuple(n // f for n, f in zip(reference.shape, factors, strict=True))
        if not _rectangular(place[:-1, :-1]):
            place, shape = _upright(place, shape)
        small = placed @ binned_place(own_factors)
        small_shape = tuple(n // f for n, f in zip(moving.shape, own_factors, strict=True))
        own, own_shape = _parallel(small, small_shape, place)
        return cls(moving, reference, place, own, start, shape, own_shape, factors, own_factors)

    @property
    def initial(self) -> Array:
        """Pixels of the moving image's grid -> pixels of the reference's, as the images lie."""
        return np.asarray(np.linalg.inv(self.place) @ self.own)

    def correction(self, matrix: Array) -> Array:
        """Return what a motion of the grids means in the world."""
        return np.asarray(self.place @ matrix @ np.linalg.inv(self.own) @ self.start)

    def moving_frame(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Return the moving image on its grid; NaN where it shows nothing."""
        there = self.start @ self.moving.place @ binned_place(self.own_factors)
        return _resampled(binned(pixels, self.own_factors), np.linalg.inv(self.own) @ there, self.own_shape)

    def reference_frame(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Return the reference on its grid; NaN where it shows nothing."""
        there = self.reference.place @ binned_place(self.factors)
        return _resampled(binned(pixels, self.factors), np.linalg.inv(self.place) @ there, self.shape)

    def mask(self, mask: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
        """Return a mask of the reference on its grid; ValueError if nothing is left of it."""
        if mask is None:
            return None
        inside = self.reference_frame(mask.astype(np.float32)) >= 0.5
        if not inside.any():
            raise ValueError("the mask is smaller than a pixel of the coarser image: draw a larger one")
        return np.asarray(inside)


def binned_place(factors: Sequence[int]) -> Array:
    """Return pixels of a binned image -> pixels of the image: pixel i is centred on ``f i + (f - 1) / 2``."""
    f = np.asarray(factors, float)
    out = np.diag([*f, 1.0])
    out[:-1, -1] = (f - 1) / 2
    return out


def _factors(ratio: Array, shape: Sequence[int]) -> tuple[int, ...]:
    """Return by how much an image is binned whose pixels are ``ratio`` times finer than the other's."""
    return tuple(
        min(max(round(float(r)), 1), max(n // _LEAST_SIDE, 1)) if r >= _FINER else 1
        for r, n in zip(ratio, shape, strict=True)
    )


def _size_factor(moving: PairImage, reference: PairImage) -> float:
    """Return by how much the moving image is to grow to be drawn to the scale of the reference."""
    if moving.unit is not None and reference.unit is not None:
        return moving.unit / reference.unit
    if moving.unit is None and reference.unit is None:
        return 1.0
    # a pixel size that is not known is taken to be the other one's
    return float(np.prod(reference.spacing / moving.spacing) ** (1 / len(reference.spacing)))


def _rectangular(linear: Array) -> bool:
    unit = linear / np.linalg.norm(linear, axis=0)
    return bool(np.abs(unit.T @ unit - np.eye(len(linear))).max() < _SQUARE)


def _upright(place: Array, shape: Sequence[int]) -> tuple[Array, tuple[int, ...]]:
    """Return the grid of square pixels along the world's axes that covers sheared pixels."""
    low, high = _extent(place, shape)
    step = float(np.linalg.norm(place[:-1, :-1], axis=0).min())
    out = np.diag([*np.full(len(low), step), 1.0])
    out[:-1, -1] = low
    return out, _checked(np.floor((high - low) / step + 1e-6).astype(int) + 1)


def _parallel(placed: Array, shape: Sequence[int], place: Array) -> tuple[Array, tuple[int, ...]]:
    """Return the grid with the steps of ``place`` that covers an image, on one of its pixels."""
    back = np.linalg.inv(place)
    low, high = _extent(back @ placed, shape)
    corner = (back @ placed)[:-1, -1]  # of the first pixel: images with the same pixels need no resampling
    before = np.ceil(corner - low - 1e-6)
    first = corner - before
    out = place.copy()
    out[:-1, -1] = place[:-1, :-1] @ first + place[:-1, -1]
    return out, _checked(np.floor(high - first + 1e-6).astype(int) + 1)


def _checked(shape: NDArray[np.int_]) -> tuple[int, ...]:
    if np.prod(shape.astype(float)) > _MOST:
        raise ValueError(
            f"brought to one pixel size the moving layer would have {' × '.join(map(str, shape))} pixels: check the"
            " scale of both layers"
        )
    return tuple(int(n) for n in shape)


def _extent(place: Array, shape: Sequence[int]) -> tuple[Array, Array]:
    """Return the least and greatest coordinates of the centres of an image's pixels."""
    points = corners(shape) @ place[:-1, :-1].T + place[:-1, -1]
    return points.min(0), points.max(0)


def _resampled(frame: NDArray[np.float32], matrix: Array, shape: tuple[int, ...]) -> NDArray[np.float32]:
    near = np.round(matrix)
    if np.abs(matrix - near).max() < 1e-7:  # rounding of the places must not cost an interpolation
        matrix = near
    if np.array_equal(matrix, np.eye(len(matrix))) and frame.shape == shape:
        return frame
    return np.asarray(warp_frame(frame, matrix, order=3, fill="nan", output_shape=shape))
