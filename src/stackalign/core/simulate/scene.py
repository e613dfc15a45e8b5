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
    low, high = points.min(0), points.max(0)
    for transform in transforms:
        seen = transform(points)
        low, high = np.minimum(low, seen.min(0)), np.maximum(high, seen.max(0))
    return low, high
