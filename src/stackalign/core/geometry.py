"""Boxes, grids and corners in pixel coordinates (y, x) or (z, y, x); integer coordinates are pixel centres."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, init=False)
class Box:
    """A half-open box of pixels: ``Box(y0, y1, x0, x1)`` holds rows y0 .. y1-1 and columns x0 .. x1-1.

    In 3-D: ``Box(z0, z1, y0, y1, x0, x1)``.
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]

    def __init__(self, *bounds: int) -> None:
        if len(bounds) not in (4, 6):
            raise ValueError(f"a Box takes 4 (2-D) or 6 (3-D) bounds, not {len(bounds)}")
        start, stop = tuple(int(b) for b in bounds[::2]), tuple(int(b) for b in bounds[1::2])
        if any(a >= b for a, b in zip(start, stop, strict=True)):
            raise ValueError(f"a Box needs start < stop along every axis, got {start} to {stop}")
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "stop", stop)

    @classmethod
    def of_shape(cls, shape: Sequence[int]) -> Box:
        """Return the box that holds a whole frame of ``shape``."""
        return cls(*(bound for n in shape for bound in (0, n)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels along each axis."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def slices(self) -> tuple[slice, ...]:
        """Index of the box in a frame."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    @property
    def bounds(self) -> tuple[int, ...]:
        """``(y0, y1, x0, x1)``, or six numbers in 3-D: what the constructor takes."""
        return tuple(bound for pair in zip(self.start, self.stop, strict=True) for bound in pair)

    def clipped(self, shape: Sequence[int]) -> Box:
        """Return the part inside a frame of ``shape``; ValueError if nothing is left."""
        start = [max(a, 0) for a in self.start]
        stop = [min(b, n) for b, n in zip(self.stop, shape, strict=True)]
        if any(a >= b for a, b in zip(start, stop, strict=True)):
            raise ValueError(f"the region {self.start} to {self.stop} lies outside the frame of shape {tuple(shape)}")
        return Box(*(bound for pair in zip(start, stop, strict=True) for bound in pair))


def corners(shape: Sequence[int]) -> NDArray[np.float64]:
    """Return the centres of the corner pixels of a frame, (2**d, d)."""
    return np.array(list(product(*((0.0, n - 1.0) for n in shape))))


def centre(shape: Sequence[int]) -> NDArray[np.float64]:
    """Return the centre of a frame in pixel coordinates, (d,): rotations turn about it."""
    return (np.asarray(shape, float) - 1) / 2


def every_which(shape: Sequence[int], samples: int) -> int:
    """Return every which pixel along each axis makes about as many ``samples``."""
    active = sum(n > 1 for n in shape)
    return max(int((math.prod(shape) / samples) ** (1 / max(active, 1))), 1)
