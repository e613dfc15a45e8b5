"""Numba kernels that prepare a reference: filled borders, slopes of its spline, weights; a pass of memory each."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, kernel


@kernel
def fill_lines(image, known, out):
    """Fill each line (n, x) from the nearest of its known pixels, the later one of two; return which lines have any.

    Parameters
    ----------
    image, out : (n, x)
    known : bool (n, x)
        Lines without any known pixel are copied as they are.
    """
    n = image.shape[1]
    told = np.zeros(image.shape[0], np.bool_)
    for line in range(image.shape[0]):
        before = -1
        for x in range(n):
            if not known[line, x]:
                continue
            if before < 0:
                out[line, :x] = image[line, x]
            else:
                middle = (before + x) // 2 + 1
                out[line, before + 1 : middle] = image[line, before]
                out[line, middle:x] = image[line, x]
            out[line, x] = image[line, x]
            before = x
        if before < 0:
            out[line] = image[line]
        else:
            out[line, before + 1 :] = image[line, before]
            told[line] = True
    return told


@kernel
def moments(image, counted):
    """Return the mean and the standard deviation of the pixels (z, y, x) that count, in float64."""
    n, total = 0, 0.0
    for z in range(image.shape[0]):
        for y in range(image.shape[1]):
            for x in range(image.shape[2]):
                if counted[z, y, x]:
                    total += image[z, y, x]
                    n += 1
    mean, squares = total / max(n, 1), 0.0
    for z in range(image.shape[0]):
        for y in range(image.shape[1]):
            for x in range(image.shape[2]):
                if counted[z, y, x]:
                    squares += (image[z, y, x] - mean) ** 2
    return mean, np.sqrt(squares / max(n, 1))


@fast_inlined
def _across(a, b, c, steep, out):
    """Combine three lines to the slope across them, or to the smoothed value."""
    half, third, sixth = np.float32(0.5), np.float32(2 / 3), np.float32(1 / 6)
    if steep:
        for x in range(out.shape[0]):
            out[x] = half * (c[x] - a[x])
    else:
        for x in range(out.shape[0]):
            out[x] = sixth * (a[x] + c[x]) + third * b[x]


@fast_inlined
def _along(line, steep, out):
    half, third, sixth = np.float32(0.5), np.float32(2 / 3), np.float32(1 / 6)
    if steep:
        for x in range(out.shape[0]):
            out[x] = half * (line[x + 2] - line[x])
    else:
        for x in range(out.shape[0]):
            out[x] = sixth * (line[x] + line[x + 2]) + third * line[x + 1]


@kernel
def slopes(c, pad, axes, out):
    """Fill the derivatives of a cubic spline at the pixels, and its values.

    Parameters
    ----------
    c : float32 (Z, Y, X)
        Coefficients with ``pad`` mirrored pixels around each axis; around y and x only if there is one plane.
    pad : int
    axes : int64 (K,)
        For each image the axis of the derivative; -1: the value.
    out : float32 (K, z, y, x)
        ``(-1, 0, 1) / 2`` along the axis, ``(1, 4, 1) / 6`` along the others.
    """
    flat = c.shape[0] == 1
    width = out.shape[3] + 2
    rows, line = np.empty((3, width), np.float32), np.empty(width, np.float32)
    left = pad - 1
    for k in range(out.shape[0]):
        axis = axes[k]
        for z in range(out.shape[1]):
            for y in range(out.shape[2]):
                at = y + pad
                if flat:
                    a, b, d = c[0, at - 1], c[0, at], c[0, at + 1]
                    stop = left + width
                    _across(a[left:stop], b[left:stop], d[left:stop], axis == 1, line)
                else:
                    stop = left + width
                    for j in range(3):
                        i = at - 1 + j
                        a, b, d = c[z + pad - 1, i], c[z + pad, i], c[z + pad + 1, i]
                        _across(a[left:stop], b[left:stop], d[left:stop], axis == 0, rows[j])
                    _across(rows[0], rows[1], rows[2], axis == 1, line)
                _along(line, axis == 2, out[k, z, y])


@kernel
def mean_variance(image, counted, level, noise):
    """Return the mean variance of the pixels that count; ``noise``: constant, slope, floor."""
    n, total = 0, 0.0
    for z in range(image.shape[0]):
        for y in range(image.shape[1]):
            for x in range(image.shape[2]):
                if counted[z, y, x]:
                    total += max(noise[0] + noise[1] * (image[z, y, x] + level), noise[2])
                    n += 1
    return total / max(n, 1)


@kernel
def weigh(values, counted, window, level, noise, least, weight):
    """Fill ``weight`` (z, y, x) with the inverse variance of the reference where it counts, else zero.

    Parameters
    ----------
    values : float32 (z, y, x)
        The reference, less its ``level``.
    counted : bool (z, y, x)
    window : float32 (z, y, x), or (1, 1, 1) if there is none
    level : float
    noise : (constant, slope, floor)
    least : float
        A pixel's variance counts for that much at least.
    """
    constant, slope = np.float32(noise[0] + noise[1] * level), np.float32(noise[1])
    floor = np.float32(max(noise[2], least))
    for z in range(values.shape[0]):
        for y in range(values.shape[1]):
            row, line = weight[z, y], values[z, y]
            for x in range(values.shape[2]):
                w = np.float32(1) / max(constant + slope * line[x], floor)
                row[x] = w if counted[z, y, x] else np.float32(0)
            if window.size > 1:
                for x in range(values.shape[2]):
                    row[x] *= window[z, y, x]


@kernel
def eroded(known, reach, out):
    """Fill ``out`` with where all pixels within ``reach`` (3,) along the axes are known; beyond the borders all are."""
    nz, ny, nx = known.shape
    count, rows = np.zeros((nz, ny, nx), np.int16), np.zeros((nz, ny, nx), np.int16)
    for z in range(nz):
        for y in range(ny):
            missing = 0
            for x in range(min(reach[2], nx)):
                missing += not known[z, y, x]
            for x in range(nx):
                if x + reach[2] < nx:
                    missing += not known[z, y, x + reach[2]]
                if x - reach[2] > 0:
                    missing -= not known[z, y, x - reach[2] - 1]
                rows[z, y, x] = missing
    for z in range(nz):
        for y in range(ny):
            for j in range(max(y - reach[1], 0), min(y + reach[1] + 1, ny)):
                for x in range(nx):
                    count[z, y, x] += rows[z, j, x]
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                out[z, y, x] = count[z, y, x] == 0
            for i in range(max(z - reach[0], 0), min(z + reach[0] + 1, nz)):
                for x in range(nx):
                    out[z, y, x] = out[z, y, x] and count[i, y, x] == 0
