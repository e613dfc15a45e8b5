"""Numba kernels that prepare a reference: filled borders, slopes of its spline, weights; a pass of memory each."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, inlined, kernel
from stackalign.core.warping.kernels import mirrored


@fast_inlined
def _copied(line, out):
    """Copy a line: an assignment of arrays compiles the text of an error with it, for seconds."""
    for x in range(out.shape[0]):
        out[x] = line[x]


@inlined
def _fill_line(line, known, out):
    """Fill a line from the nearest of its known pixels, the earlier one of two; returns whether it has any."""
    before = -1
    for x in range(line.shape[0]):
        if not known[x]:
            continue
        if before < 0:
            out[:x] = line[x]
        else:
            middle = (before + x) // 2 + 1
            out[before + 1 : middle] = line[before]
            out[middle:x] = line[x]
        out[x] = line[x]
        before = x
    if before < 0:
        out[:] = line
        return False
    out[before + 1 :] = line[before]
    return True


@inlined
def _nearest(told, k):
    """Return the nearest index that is ``told``, the earlier one of two; -1 if there is none."""
    for far in range(1, told.shape[0]):
        if k >= far and told[k - far]:
            return k - far
        if k + far < told.shape[0] and told[k + far]:
            return k + far
    return -1


@kernel
def fill_image(image, known, out):
    """Fill each row from the nearest of its known pixels, rows without any from the nearest row, planes likewise.

    Parameters
    ----------
    image, out : (z, y, x)
    known : bool (z, y, x)
        Nothing is filled if there is none.
    """
    nz, ny = image.shape[0], image.shape[1]
    planes, rows = np.zeros(nz, np.bool_), np.zeros(ny, np.bool_)
    for z in range(nz):
        for y in range(ny):
            rows[y] = _fill_line(image[z, y], known[z, y], out[z, y])
        planes[z] = rows.any()
        if planes[z]:
            for y in range(ny):
                if not rows[y]:
                    _copied(out[z, _nearest(rows, y)], out[z, y])
    for z in range(nz):
        if not planes[z]:
            near = _nearest(planes, z)
            for y in range(ny if near >= 0 else 0):
                _copied(out[near, y], out[z, y])


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


@fast_inlined
def _ends(line):
    """Fill the first and the last of a line with the pixels that are mirrored there."""
    n = line.shape[0] - 2
    line[0], line[n + 1] = line[1 + mirrored(-1, n)], line[1 + mirrored(n, n)]


@inlined
def slope_lines(c, front, z, y, fresh, rows, lines, out):
    """Fill ``out`` (d + 1, x) with the slopes of a spline along its axes, and its values, in a row of pixels.

    ``rows`` (2, 3, x + 2) keeps what the next row needs again, unless that is ``fresh``; ``lines`` (3, x + 2) is for
    what is in between.
    """
    last, nz, ny = out.shape[0] - 1, c.shape[0], c.shape[1]
    end = out.shape[1] + 1
    if last == 2:
        a, b, d = c[0, mirrored(y - 1, ny)], c[0, y], c[0, mirrored(y + 1, ny)]
        _across(a, b, d, True, lines[1, 1:end])
        _across(a, b, d, False, lines[2, 1:end])
        _ends(lines[1])
        _ends(lines[2])
    else:
        for j in range(y - 1 if fresh else y + 1, y + 2):
            i, slot = mirrored(j, ny), (j + 3) % 3
            a, b = c[mirrored(z + front - 1, nz), i], c[z + front, i]
            d = c[mirrored(z + front + 1, nz), i]
            for k in range(2):
                _across(a, b, d, k == 0, rows[k, slot, 1:end])
                _ends(rows[k, slot])
        p, q, r = (y + 2) % 3, y % 3, (y + 1) % 3
        _across(rows[0, p], rows[0, q], rows[0, r], False, lines[0])
        _across(rows[1, p], rows[1, q], rows[1, r], True, lines[1])
        _across(rows[1, p], rows[1, q], rows[1, r], False, lines[2])
        _along(lines[0], False, out[0])
    _along(lines[1], False, out[last - 2])
    _along(lines[2], True, out[last - 1])
    _along(lines[2], False, out[last])


@kernel
def slopes(c, front, out, start, stop):
    """Fill the derivatives of a cubic spline at the pixels, and its values.

    Parameters
    ----------
    c : float32 (Z, y, x)
        Coefficients, mirrored beyond their ends.
    front : int
        Planes of these before the first one of ``out``.
    out : float32 (d + 1, z, y, x)
        ``(-1, 0, 1) / 2`` along an axis, ``(1, 4, 1) / 6`` along the others; the values come last.
    start, stop : int
        Rows, counted through all planes, that are filled.
    """
    ny, nx = out.shape[2], out.shape[3]
    rows, lines = np.empty((2, 3, nx + 2), np.float32), np.empty((3, nx + 2), np.float32)
    line = np.empty((out.shape[0], nx), np.float32)
    for row in range(start, stop):
        z, y = row // ny, row % ny
        slope_lines(c, front, z, y, row == start or y == 0, rows, lines, line)
        for k in range(out.shape[0]):
            _copied(line[k], out[k, z, y])


@fast_inlined
def _times(a, b, out):
    for x in range(out.shape[0]):
        out[x] = a[x] * b[x]


@fast_inlined
def _dot(a, b):
    total = np.float32(0)
    for x in range(a.shape[0]):
        total += a[x] * b[x]
    return total


@fast_inlined
def _sum(a):
    total = np.float32(0)
    for x in range(a.shape[0]):
        total += a[x]
    return total


@kernel
def slope_products(c, front, values, weight, start, stop):
    """Return the weighted products (d + 2, d + 2) of slopes, values and 1 with each other, over some rows.

    Parameters
    ----------
    c, front, start, stop
        See `slopes`.
    values, weight : float32 (z, y, x)
    """
    ny, nx = values.shape[1], values.shape[2]
    last = 3 if c.shape[0] > 1 else 2
    out = np.zeros((last + 2, last + 2))
    rows, lines = np.empty((2, 3, nx + 2), np.float32), np.empty((3, nx + 2), np.float32)
    line, weighted = np.empty((last + 1, nx), np.float32), np.empty(nx, np.float32)
    for row in range(start, stop):
        z, y = row // ny, row % ny
        slope_lines(c, front, z, y, row == start or y == 0, rows, lines, line)
        _copied(values[z, y], line[last])
        for i in range(last + 1):
            _times(weight[z, y], line[i], weighted)
            for j in range(i, last + 1):
                out[i, j] += _dot(weighted, line[j])
            out[i, last + 1] += _sum(weighted)
        out[last + 1, last + 1] += _sum(weight[z, y])
    for i in range(last + 2):
        for j in range(i):
            out[i, j] = out[j, i]
    return out


@kernel
def weighted_slope(c, front, axis, weight, out):
    """Fill ``out`` (z, y, x) with the slope of a spline along one of its axes, times a weight.

    Parameters
    ----------
    c, front
        See `slopes`.
    axis : int
    weight : float32 (z, y, x)
    """
    ny, nx = weight.shape[1], weight.shape[2]
    rows, lines = np.empty((2, 3, nx + 2), np.float32), np.empty((3, nx + 2), np.float32)
    line = np.empty((4 if c.shape[0] > 1 else 3, nx), np.float32)
    for z in range(weight.shape[0]):
        for y in range(ny):
            slope_lines(c, front, z, y, y == 0, rows, lines, line)
            _times(weight[z, y], line[axis], out[z, y])


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
