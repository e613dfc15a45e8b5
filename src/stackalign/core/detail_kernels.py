"""Numba kernel of the check for frames out of focus: detail of 2, 4 and 8 pixels, and the noise, in one reading."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, kernel


@fast_inlined
def _halved(image):
    """Return the mean over blocks of 2 x 2 pixels of each plane; odd ends are cut."""
    count, height, width = image.shape[0], image.shape[1] // 2, image.shape[2] // 2
    out = np.empty((count, height, width), np.float32)
    for n in range(count):
        for y in range(height):
            a, b, row = image[n, 2 * y], image[n, 2 * y + 1], out[n, y]
            for x in range(width):
                row[x] = np.float32(0.25) * (a[2 * x] + a[2 * x + 1] + b[2 * x] + b[2 * x + 1])
    return out


@fast_inlined
def _steps(image):
    """Return the mean squared difference of neighbours in y and x."""
    count, height, width = image.shape
    down = along = 0.0
    for n in range(count):
        for y in range(height):
            a = image[n, y]
            part = np.float32(0)
            for x in range(width - 1):
                step = a[x + 1] - a[x]
                part += step * step
            along += part
            if y + 1 < height:
                b = image[n, y + 1]
                part = np.float32(0)
                for x in range(width):
                    step = b[x] - a[x]
                    part += step * step
                down += part
    return down / max(count * (height - 1) * width, 1) + along / max(count * height * (width - 1), 1)


@fast_inlined
def _noise(image):
    count, height, width = image.shape
    total, rows = 0.0, 0
    for n in range(count):
        for y in range(0, height // 8 * 8, 8):
            a, b, c = image[n, y], image[n, y + 1], image[n, y + 2]
            part = np.float32(0)
            for x in range(width - 2):
                left = a[x] - np.float32(2) * b[x] + c[x]
                here = a[x + 1] - np.float32(2) * b[x + 1] + c[x + 1]
                right = a[x + 2] - np.float32(2) * b[x + 2] + c[x + 2]
                both = left - np.float32(2) * here + right
                part += both * both
            total += part
            rows += 1
    return total / (36 * max(rows * (width - 2), 1))


@kernel
def detail(image):
    """Return the energy of detail by its size, the noise, and the image at an eighth of its size.

    Parameters
    ----------
    image : float32 (N, y, x)
        Planes, or strips of rows.

    Returns
    -------
    energies : float64 (3,)
        Mean squared difference of neighbours among blocks of 2, 4 and 8 pixels.
    noise : float
        Variance of white noise: a second difference along both axes sees next to nothing of the scene (Immerkaer,
        CVIU 64, 1996); every eighth row is looked at.
    eight : float32 (N, y // 8, x // 8)
        Means over blocks of 8 pixels.
    """
    two = _halved(image)
    four = _halved(two)
    eight = _halved(four)
    return np.array([_steps(two), _steps(four), _steps(eight)]), _noise(image), eight
