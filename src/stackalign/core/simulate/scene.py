"""What a scene is: brightness at exact positions of the reference, seen through a transform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from stackalign.core.geometry import corners

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.transform_series import TransformSeries

    Array = NDArray[np.float64]


class Scene(Protocol):
    """A scene in reference coordinates, in units of its own."""

    def render(self, matrix: Array, frame: int | None = None) -> NDArray[np.floating]:
        """Return the frame whose pixel q shows the scene at ``matrix`` q, without noise.

        Parameters
        ----------
        matrix : (d+1, d+1)
            Moving -> reference, pixels.
        frame : int, optional
            The moment, for scenes that change; None: the whole scene is lit.
        """
        ...


def extent(transforms: TransformSeries, shape: Sequence[int]) -> tuple[Array, Array]:
    """Return the box (low, high) of the reference that any frame sees: centres of its outermost pixels, (d,) each."""
    points = corners(shape)
    seen = np.concatenate([points[None], mapped(transforms.matrices, points)])
    return seen.min((0, 1)), seen.max((0, 1))


def mapped(matrices: Array, points: Array) -> Array:
    """Map points (P, d) by each of the matrices (T, d+1, d+1): (T, P, d)."""
    homogeneous = np.column_stack([points, np.ones(len(points))]) @ np.swapaxes(matrices, 1, 2)
    return np.asarray(homogeneous[..., :-1] / homogeneous[..., -1:])
