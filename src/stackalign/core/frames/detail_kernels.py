"""Numba kernel of the check for bad frames: rows that repeat or tear, detail of 2, 4 and 8 pixels, and the noise."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, inlined, kernel

_RUN = 16  # pixels that follow each other in memory: many are worked on at a time


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
    down = along = np.float64(0)
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
    total, rows = np.float64(0), 0
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


@inlined
def _detail(image):
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


@fast_inlined
def _step(above, below, every):
    """Return the sum of squared differences of two rows, over runs of pixels of which every ``every``-th is taken."""
    width, run = above.shape[0], _RUN
    if every == 1 or width < run * every:
        run, every = width, 1
    total = np.float32(0)
    for k in range(0, width - run + 1, run * every):
        a, b = above[k : k + run], below[k : k + run]
        for x in range(run):
            step = np.float32(b[x]) - np.float32(a[x])
            total += step * step
    return total


@inlined
def _row_steps(lines, every, plane):
    """Return how rows differ from those below them.

    Parameters
    ----------
    lines : (N, x)
        Rows.
    every : int
        Of so many runs of columns one is compared.
    plane : bool
        Whether the rows are those of one plane, so that a step between them is a tear.

    Returns
    -------
    still : int
        Rows at the upper or lower end that repeat their neighbour to the last bit.
    tear : float
        Log of the strongest step between two rows over that of the rows around it.
    at : int
        Where that is.
    energy : float
        Sum of all squared differences: the same for the same frame.
    """
    count, columns = lines.shape[0] - 1, (lines.shape[1] + every - 1) // every
    energy = np.zeros(max(count, 0))
    first, last, total = -1, -1, np.float64(0)
    for y in range(count):
        part = _step(lines[y], lines[y + 1], every)
        energy[y] = part
        total += part
        if part > 0:
            first = y if first < 0 else first
            last = y
    if count < 15 or first < 0:
        return 0, 0.0, 0, total
    still = max(first, count - 1 - last)
    still = still + 1 if still else 0
    if not plane:
        return still, 0.0, 0, total
    # one row stands out: an edge of the scene is blurred by the lens over several
    usual = max(float(np.median(energy)), 1e-30)
    top, k = np.float64(-1), 0
    for y in range(4, count - 4):
        around = usual
        for j in range(1, 5):
            around = max(around, energy[y - j], energy[y + j])
        if energy[y] / around > top:
            top, k = energy[y] / around, y
    for y in range(k, k + 2):
        same = 0
        for i in range(columns - 1):
            same += lines[y, i * every] == lines[y, (i + 1) * every]
        if same > 0.3 * (columns - 1):
            return still, 0.0, 0, total  # the end of a filled border, as an earlier alignment leaves it
    return still, float(np.log(max(top, 1e-30))), k + 1, total


@fast_inlined
def _range(row, low, high):
    least, most = low, high
    for x in range(row.shape[0]):
        least = min(least, row[x])
        most = max(most, row[x])
    return least, most


@fast_inlined
def _equal(row, value):
    count = 0
    for x in range(row.shape[0]):
        count += row[x] == value
    return count


@fast_inlined
def _copied(row, out):
    for x in range(out.shape[0]):
        out[x] = np.float32(row[x])


#: columns of what `frame_traits` tells
LOW, HIGH, AT_HIGH, STILL, TEAR, TEAR_AT, ENERGY, TWO, FOUR, EIGHT, NOISE = range(11)


@kernel
def frame_traits(frames, top, every, plane, strip, apart, out, thumbs):
    """Tell of each frame what the check for bad ones compares, and what it holds at all.

    Parameters
    ----------
    frames : (n, z, y, x)
        Without NaN.
    top : float
        The largest value that a pixel can have.
    every : int
        Which columns are compared from row to row.
    plane : bool
        Whether a frame is one plane, so that a step between rows is a tear.
    strip, apart : int
        Rows of a strip, and from one strip to the next, in which detail is looked at; 0: nowhere.
    out : float64 (n, 11)
        Filled with: least and largest value, how many pixels are at the top; what `_row_steps` and `_detail` return.
    thumbs : float32 (n, rows, columns)
        Filled with a coarse image, of the strips only: means over as many of the eighth-size pixels as fit.
    """
    depth, height, width = frames.shape[1:]
    count = height // apart if apart > 0 else 0
    strips = np.empty((depth * count, strip, width), np.float32)
    for n in range(frames.shape[0]):
        frame, told = frames[n], out[n]
        low = high = frame[0, 0, 0]
        for z in range(depth):
            for y in range(height):
                low, high = _range(frame[z, y], low, high)
        told[LOW], told[HIGH], told[AT_HIGH] = low, high, 0
        if high >= top:
            for z in range(depth):
                for y in range(height):
                    told[AT_HIGH] += _equal(frame[z, y], high)
        told[STILL], told[TEAR], told[TEAR_AT], told[ENERGY] = _row_steps(
            frame.reshape(depth * height, width), every, plane
        )
        if count == 0:
            continue
        for z in range(depth):
            for k in range(count):
                for y in range(strip):
                    _copied(frame[z, k * apart + y], strips[z * count + k, y])
        energies, told[NOISE], eight = _detail(strips)
        told[TWO], told[FOUR], told[EIGHT] = energies[0], energies[1], energies[2]
        lines = eight.reshape(eight.shape[0] * eight.shape[1], eight.shape[2])
        tall, wide = lines.shape[0] // thumbs.shape[1], lines.shape[1] // thumbs.shape[2]
        for i in range(thumbs.shape[1]):
            for j in range(thumbs.shape[2]):
                thumbs[n, i, j] = lines[i * tall : (i + 1) * tall, j * wide : (j + 1) * wide].mean()
