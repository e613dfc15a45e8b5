"""Two images on one grid: pictures to judge by, and the moving one resampled as it is registered. No Qt, no napari."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stackalign.core.frames.reduction import binned
from stackalign.core.geometry import corners
from stackalign.core.warping.common_grid import binned_place
from stackalign.core.warping.resample import Fill, warp_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.warping.common_grid import PairImage

    Array = NDArray[np.float64]

Look = Literal["overlay", "checkerboard", "moving", "reference"]
_SIDE = 512  # pixels along the longer side of a picture
_SMALL = 0.15  # share of the reference: a moving image that covers less is shown with its surroundings only
_DARK, _BRIGHT = 0.5, 99.7  # percentiles that become black and white


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """A plane of the reference, and of the moving image where it is registered to.

    Attributes
    ----------
    moving, reference : ndarray (h, w), float32
        Brightness in [0, 1]; NaN where nothing is known.
    part : bool
        Whether only the part of the reference around the moving image is shown.
    """

    moving: NDArray[np.float32]
    reference: NDArray[np.float32]
    part: bool = False

    def picture(self, look: Look = "overlay", tiles: int = 6) -> NDArray[np.uint8]:
        """Return colours (h, w, 3).

        Parameters
        ----------
        look : {"overlay", "checkerboard", "moving", "reference"}
            The moving image in magenta and the reference in green, so that what agrees is grey; both in turns, square
            by square; one of them alone.
        tiles : int
            Squares along the longer side of a checkerboard.
        """
        moving, reference = (np.nan_to_num(image, nan=0.0) for image in (self.moving, self.reference))
        if look == "overlay":
            out = np.stack([moving, reference, moving], -1)
        else:
            grey = {"moving": moving, "reference": reference}.get(look)
            if grey is None:
                side = max(max(moving.shape) / max(tiles, 1), 1.0)
                rows, columns = (np.floor(np.arange(n) / side).astype(int) for n in moving.shape)
                # where one of them shows nothing, the other one stands in
                turn = (rows[:, None] + columns) % 2 == 0
                turn = np.isnan(self.moving) | (turn & ~np.isnan(self.reference))
                grey = np.where(turn, reference, moving)
            out = np.repeat(grey[..., None], 3, -1)
        return (255 * out + 0.5).astype(np.uint8)

    @property
    def shared(self) -> float:
        """Share of the reference that the moving image covers."""
        return float(np.isfinite(self.moving).mean())


def compare(
    moving: PairImage, reference: PairImage, correction: Array | None = None, plane: int | None = None
) -> Comparison:
    """Show two images on the grid of the reference.

    Parameters
    ----------
    moving, reference : PairImage
        With the same number of axes.
    correction : ndarray (d+1, d+1), optional
        World -> world, done to the moving image first; none: as it lies.
    plane : int, optional
        Plane of a volume; the middle one if left out.
    """
    fixed, free = np.asarray(reference.pixels), np.asarray(moving.pixels)
    whole = np.linalg.inv(reference.place) @ (np.eye(fixed.ndim + 1) if correction is None else correction)
    window = _around(whole @ moving.place, moving.shape, reference.shape)
    factor = max(int(np.ceil(max(w.stop - w.start for w in window) / _SIDE)), 1)
    factors = (1,) * (fixed.ndim - 2) + (factor, factor)
    first = np.eye(fixed.ndim + 1)
    first[-3:-1, -1] = [w.start for w in window]
    place = first @ binned_place(factors)
    origin = np.zeros(fixed.ndim)
    if fixed.ndim == 3:
        at = len(fixed) // 2 if plane is None else int(np.clip(plane, 0, len(fixed) - 1))
        fixed, origin[0] = fixed[at : at + 1], at
    shown = binned(fixed[..., window[0], window[1]], factors)
    matrix = np.linalg.inv(place) @ whole @ moving.place
    scale = np.linalg.norm(matrix[:-1, :-1] / matrix[-1, -1], axis=0)
    own = tuple(max(int(1 / s), 1) if s > 0 else 1 for s in scale)
    own = tuple(min(f, n) for f, n in zip(own, free.shape, strict=True))
    moved = warp_frame(
        binned(free, own), matrix @ binned_place(own), order=1, fill="nan", output_shape=shown.shape, origin=origin
    )
    while shown.ndim > 2:
        shown, moved = shown[0], moved[0]
    part = any(w.stop - w.start < n for w, n in zip(window, reference.shape[-2:], strict=True))
    return Comparison(_brightness(moved), _brightness(shown), part)


def _around(matrix: Array, shape: Sequence[int], reference: Sequence[int]) -> tuple[slice, ...]:
    """Return rows and columns of the reference to show: those around a moving image that covers little of it."""
    points = corners(shape) @ matrix[:-1, :-1].T + matrix[:-1, -1]
    low, high = points.min(0)[-2:], points.max(0)[-2:]
    size = np.array(reference[-2:])
    inside = np.clip(np.minimum(high, size - 1) - np.maximum(low, 0), 0, None)
    if not inside.all() or np.prod(inside / size) > _SMALL:
        return tuple(slice(0, int(n)) for n in size)
    margin = 0.5 * (high - low).max()
    start = np.clip(np.floor(low - margin), 0, size - 1).astype(int)
    stop = np.clip(np.ceil(high + margin), start + 1, size).astype(int)
    return tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))


def _brightness(image: NDArray[Any]) -> NDArray[np.float32]:
    values = image[np.isfinite(image)]
    if not values.size:
        return np.asarray(image, np.float32)
    low, high = np.percentile(values[:: max(values.size // 50_000, 1)], (_DARK, _BRIGHT))
    return np.asarray(np.clip((image - low) / max(high - low, 1e-30), 0, 1), np.float32)


def resampled(
    array: Any, axes: Sequence[int], matrix: Array, shape: Sequence[int], *, order: int = 3, fill: Fill = 0.0
) -> Any:
    """Return an array resampled along its spatial axes.

    Parameters
    ----------
    array : array-like
        Any number of axes.
    axes : sequence of int (d,)
        Which of them are z, y and x, in this order.
    matrix : ndarray (d+1, d+1)
        Pixels of ``array`` along these axes -> pixels of the result.
    shape : sequence of int (d,)
        Of the result along these axes.
    order, fill
        As for `warp_frame`.

    Returns
    -------
    ndarray, or dask array
        In the dtype of ``array``; lazy, one image or volume a chunk, where there are further axes.
    """
    import dask.array as da

    places = [axis % array.ndim for axis in axes]
    if array.ndim == len(places) and places == sorted(places):
        return warp_frame(np.asarray(array), matrix, order=order, fill=fill, output_shape=shape)
    others = [axis for axis in range(array.ndim) if axis not in places]
    lazy = array if isinstance(array, da.Array) else da.from_array(array, name=False, asarray=False)
    arranged = lazy.transpose([*others, *places])
    arranged = arranged.rechunk((1,) * len(others) + arranged.shape[len(others) :])

    def image(block: NDArray[Any]) -> NDArray[Any]:
        frame = np.asarray(block).reshape(block.shape[len(others) :])
        return warp_frame(frame, matrix, order=order, fill=fill, output_shape=shape)[(None,) * len(others)]

    chunks = (*arranged.chunks[: len(others)], *((n,) for n in shape))
    warped = da.map_blocks(
        image, arranged, chunks=chunks, dtype=lazy.dtype, meta=np.empty((0,) * lazy.ndim, lazy.dtype)
    )
    return warped.transpose(np.argsort([*others, *places]).tolist())
