"""Numba kernel of binning."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, inlined, kernel


@fast_inlined
def _add(row, line):
    for x in range(line.shape[0]):
        line[x] += np.float32(row[x])


@fast_inlined
def _fold(line, factor, scale, out):
    if factor == 2:
        for x in range(out.shape[0]):
            out[x] = scale * (line[2 * x] + line[2 * x + 1])
        return
    if factor == 4:
        for x in range(out.shape[0]):
            out[x] = scale * ((line[4 * x] + line[4 * x + 1]) + (line[4 * x + 2] + line[4 * x + 3]))
        return
    for x in range(out.shape[0]):
        total = np.float32(0)
        for k in range(factor):
            total += line[factor * x + k]
        out[x] = scale * total


@inlined
def block_means(image, fz, fy, fx, out):
    """Fill ``out`` with the mean of the finite pixels of each block; NaN where there is none.

    Parameters
    ----------
    image : (z, y, x)
    fz, fy, fx : int
        Pixels of a block along each axis; what is left over at the ends is not used.
    out : float32 (z // fz, y // fy, x // fx)
    """
    depth, height, width = out.shape
    line = np.empty(width * fx, np.float32)
    scale = np.float32(1.0 / (fz * fy * fx))
    for z in range(depth):
        for y in range(height):
            line[:] = 0
            for i in range(fz):
                for j in range(fy):
                    _add(image[z * fz + i, y * fy + j], line)
            row = out[z, y]
            _fold(line, fx, scale, row)
            for x in range(width):
                if np.isfinite(row[x]):
                    continue
                total, count = 0.0, 0
                for i in range(fz):
                    for j in range(fy):
                        for k in range(fx):
                            value = np.float64(image[z * fz + i, y * fy + j, x * fx + k])
                            if np.isfinite(value):
                                total += value
                                count += 1
                row[x] = total / count if count else np.nan


@kernel
def bin_blocks(image, fz, fy, fx, out):
    """Fill ``out`` with the mean of the finite pixels of each block; see `block_means`."""
    block_means(image, fz, fy, fx, out)
