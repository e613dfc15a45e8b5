"""Cells of a field: a coarse grid on which parts of frames are compared, and hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.generators import moved_points
from stackalign.core.warping.resample import warp_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

CELLS = {2: 12, 3: 6}  # along each axis
_COMPANY = 3  # cells around one, with itself, that must be there as well


@dataclass(frozen=True, slots=True, eq=False)
class Strangers:
    """What frames show that is not of the scene.

    Attributes
    ----------
    places : mapping of int to ndarray (d+1, d+1)
        Where frames that show some lay (frame -> scene) when it was told,
    cells : mapping of int to ndarray of bool (cells, ...)
        and in which cells of the scene.
    bare : callable, optional
        What was hidden of the frames before.
    """

    places: Mapping[int, Array]
    cells: Mapping[int, NDArray[np.bool_]]
    bare: Callable[[int, NDArray[Any]], NDArray[Any]] | None


def cell_numbers(shape: Sequence[int]) -> NDArray[np.intp]:
    """Return the number of the cell of each pixel of an image."""
    n = CELLS[len(shape)]
    out = np.zeros(shape, np.intp)
    for axis, size in enumerate(shape):
        along = np.arange(size) * n // size
        out = out * n + along.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return out


def over_pixels(cells: NDArray[np.bool_], shape: Sequence[int]) -> NDArray[np.bool_]:
    """Return cells, any number along each axis, as pixels of an image that they cover."""
    along = [np.arange(size) * n // size for size, n in zip(shape, cells.shape, strict=True)]
    return cells[np.ix_(*along)]


def cells_below(scene: tuple[int, ...], matrix: Array, shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Return the cell of a scene that each pixel of a frame that lies at ``matrix`` is on; -1 beyond it."""
    n = CELLS[len(shape)]
    lattice = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, len(shape))
    places = np.rint(moved_points(matrix, lattice.astype(float))).astype(np.intp)
    inside = ((places >= 0) & (places < scene)).all(-1)
    number = np.ravel_multi_index(tuple((np.clip(places, 0, np.array(scene) - 1) * n // scene).T), (n,) * len(shape))
    return np.where(inside, number, -1).reshape(shape)


def in_one_piece(cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return cells without those that stand alone, and with what they enclose."""
    from scipy import ndimage

    near = np.ones((3,) * cells.ndim)
    cells = cells & (ndimage.convolve(cells.astype(np.uint8), near, output=np.int64, mode="constant") > _COMPANY)
    padded = np.pad(cells, 2)  # closing must not eat what touches the border
    closed = ndimage.binary_closing(padded, near, iterations=2)[(slice(2, -2),) * cells.ndim] | cells
    return np.asarray(ndimage.binary_fill_holes(closed), bool)


def without_cells(
    frame: NDArray[Any], matrix: Array, cells: NDArray[np.bool_], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return a frame with NaN where it lies on cells of a scene.

    Parameters
    ----------
    frame : ndarray (y, x) or (z, y, x)
    matrix : ndarray (d+1, d+1)
        Frame -> scene.
    cells : ndarray of bool (cells, ...)
        Of planes any number along each axis.
    shape : tuple of int
        Of the scene.
    """
    image = np.array(frame, np.float32)
    if image.ndim == 2:
        from stackalign.core.verdicts.consensus_kernels import punch

        punch(image, np.asarray(matrix, float), cells, np.asarray(shape, np.int64))
        return image
    enlarged = over_pixels(cells, shape).astype(np.uint8)
    image[warp_frame(enlarged, np.linalg.inv(matrix), order=0) > 0] = np.nan
    return image


def hiding(
    places: Mapping[int, Array],
    cells: Mapping[int, NDArray[np.bool_]],
    shape: tuple[int, ...],
    before: Callable[[int, NDArray[Any]], NDArray[Any]] | None = None,
) -> Callable[[int, NDArray[Any]], NDArray[Any]]:
    """Return what hides the cells of frames, by number; those without a place (frame -> scene) stay as they are.

    ``before`` hides something else of them first.
    """

    def hidden(t: int, frame: NDArray[Any]) -> NDArray[Any]:
        frame = frame if before is None else before(t, frame)
        return without_cells(frame, places[t], cells[t], shape) if t in places else frame

    return hidden
