"""Numba kernels of the consensus: sums over the blocks of a reference, and holes where blocks contradict."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import inlined, kernel

SUMS = 12  # see `block_sums`


@inlined
def _slope(before, here, after, first, last):
    """Return the central difference; one-sided at the ends."""
    if first:
        return after - here
    if last:
        return here - before
    return np.float32(0.5) * (after - before)


@kernel
def block_sums(rest, fixed, blocks):
    """Return sums (blocks * blocks, 12) over the blocks of an image.

    Parameters
    ----------
    rest, fixed : float32 (y, x)
        What the other image differs by, and the image; where either is NaN, or a slope is, does not count.
    blocks : int
        Along each axis.

    Returns
    -------
    float64
        Of a row: yy, yx, y, xx, x, 1 (products of the slopes), y e, x e, e (with the rest), e e, v, v v (values).
    """
    height, width = fixed.shape
    out = np.zeros((blocks * blocks, SUMS))
    for y in range(height):
        row = y * blocks // height * blocks
        up, down = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            left, right = max(x - 1, 0), min(x + 1, width - 1)
            v, e = fixed[y, x], rest[y, x]
            gy = _slope(fixed[up, x], v, fixed[down, x], y == 0, y == height - 1)
            gx = _slope(fixed[y, left], v, fixed[y, right], x == 0, x == width - 1)
            if not np.isfinite(gy + gx + v + e):
                continue
            to = out[row + x * blocks // width]
            to[0] += gy * gy
            to[1] += gy * gx
            to[2] += gy
            to[3] += gx * gx
            to[4] += gx
            to[5] += 1.0
            to[6] += gy * e
            to[7] += gx * e
            to[8] += e
            to[9] += e * e
            to[10] += v
            to[11] += v * v
    return out


@kernel
def punch(image, matrix, wrong, shape):
    """Write NaN into an image where it lies on blocks that contradict.

    Parameters
    ----------
    image : float32 (y, x)
        Changed in place.
    matrix : float64 (3, 3)
        Image -> reference.
    wrong : bool (blocks, blocks)
    shape : int64 (2,)
        Of the reference.
    """
    blocks = wrong.shape[0]
    sy, sx = blocks / shape[0], blocks / shape[1]
    for y in range(image.shape[0]):
        ay = matrix[0, 0] * y + matrix[0, 2]
        ax = matrix[1, 0] * y + matrix[1, 2]
        az = matrix[2, 0] * y + matrix[2, 2]
        for x in range(image.shape[1]):
            depth = 1.0 / (az + matrix[2, 1] * x)
            j = min(max(int((ay + matrix[0, 1] * x) * depth * sy), 0), blocks - 1)
            i = min(max(int((ax + matrix[1, 1] * x) * depth * sx), 0), blocks - 1)
            if wrong[j, i]:
                image[y, x] = np.nan
