"""Read periodic quintic B-splines through a homogeneous matrix: the inner loops of `Field`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.compiled import inlined, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Pixels = NDArray[np.float32]

TAPS = 6


@inlined
def _weights(position: float, n: int, weight: Array, index: NDArray[np.int64]) -> None:
    """Fill the six weights of the quintic B-spline and the samples they act on, wrapped into 0 .. n-1."""
    floor = np.floor(position)
    f = position - floor
    g = 1.0 - f
    f2, g2 = f * f, g * g
    weight[0] = g2 * g2 * g / 120
    weight[5] = f2 * f2 * f / 120
    a, b = 1.0 + f, 1.0 + g
    # the pieces of the B-spline for distances 1 to 2 and 0 to 1 (Unser 1999, order 5)
    weight[1] = (17 / 40) + a * (5 / 8 + a * (-7 / 4 + a * (5 / 4 + a * (-3 / 8 + a / 24))))
    weight[4] = (17 / 40) + b * (5 / 8 + b * (-7 / 4 + b * (5 / 4 + b * (-3 / 8 + b / 24))))
    weight[2] = 11 / 20 + f2 * (-1 / 2 + f2 * (1 / 4 - f / 12))
    weight[3] = 11 / 20 + g2 * (-1 / 2 + g2 * (1 / 4 - g / 12))
    first = (int(floor) - 2) % n
    for k in range(TAPS):
        index[k] = first
        first += 1
        if first == n:
            first = 0


@kernel
def read_plane(coefficients: Pixels, matrix: Array, out: Pixels) -> None:
    """Set ``out[q]`` to the spline at ``matrix`` q, (3, 3), in samples of the coefficients."""
    height, width = coefficients.shape
    wy, wx = np.empty(TAPS), np.empty(TAPS)
    iy, ix = np.empty(TAPS, np.int64), np.empty(TAPS, np.int64)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            depth = matrix[2, 0] * i + matrix[2, 1] * j + matrix[2, 2]
            _weights((matrix[0, 0] * i + matrix[0, 1] * j + matrix[0, 2]) / depth, height, wy, iy)
            _weights((matrix[1, 0] * i + matrix[1, 1] * j + matrix[1, 2]) / depth, width, wx, ix)
            total = 0.0
            for a in range(TAPS):
                row = coefficients[iy[a]]
                line = 0.0
                for b in range(TAPS):
                    line += wx[b] * row[ix[b]]
                total += wy[a] * line
            out[i, j] = total


@kernel
def read_volume(coefficients: Pixels, matrix: Array, out: Pixels) -> None:
    """Set ``out[q]`` to the spline at ``matrix`` q, (4, 4), in samples of the coefficients."""
    depth, height, width = coefficients.shape
    wz, wy, wx = np.empty(TAPS), np.empty(TAPS), np.empty(TAPS)
    iz, iy, ix = np.empty(TAPS, np.int64), np.empty(TAPS, np.int64), np.empty(TAPS, np.int64)
    for h in range(out.shape[0]):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                scale = matrix[3, 0] * h + matrix[3, 1] * i + matrix[3, 2] * j + matrix[3, 3]
                z = (matrix[0, 0] * h + matrix[0, 1] * i + matrix[0, 2] * j + matrix[0, 3]) / scale
                y = (matrix[1, 0] * h + matrix[1, 1] * i + matrix[1, 2] * j + matrix[1, 3]) / scale
                x = (matrix[2, 0] * h + matrix[2, 1] * i + matrix[2, 2] * j + matrix[2, 3]) / scale
                _weights(z, depth, wz, iz)
                _weights(y, height, wy, iy)
                _weights(x, width, wx, ix)
                total = 0.0
                for c in range(TAPS):
                    plane = coefficients[iz[c]]
                    area = 0.0
                    for a in range(TAPS):
                        row = plane[iy[a]]
                        line = 0.0
                        for b in range(TAPS):
                            line += wx[b] * row[ix[b]]
                        area += wy[a] * line
                    total += wz[c] * area
                out[h, i, j] = total
