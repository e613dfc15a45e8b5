"""Numba kernels that add shifted frames to a mean."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, kernel
from stackalign.core.translation.kernels import overlap, spline_weights
from stackalign.core.translation.projection_kernels import tapped, weighted


@fast_inlined
def _add_row(line, w, gain, offset, total):
    w0, w1, w2, w3 = gain * w[0], gain * w[1], gain * w[2], gain * w[3]
    for x in range(total.shape[0]):
        total[x] += w0 * line[x] + w1 * line[x + 1] + w2 * line[x + 2] + w3 * line[x + 3] + offset


@fast_inlined
def _add_known(line, w, gain, offset, seen, total, weight):
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    for x in range(total.shape[0]):
        smooth = w0 * line[x] + w1 * line[x + 1] + w2 * line[x + 2] + w3 * line[x + 3]
        full = np.float32(1) if seen[x] > np.float32(0.999) else np.float32(0)
        total[x] += full * (gain * smooth + offset)
        weight[x] += full


@fast_inlined
def _line(c, z, y, start, wz, wy, rows, fresh, out):
    """Combine the lines around row (z, y) from column ``start`` on; ``rows`` keeps what the next row needs again."""
    end = start + out.shape[0]
    if c.shape[0] == 1:
        weighted(
            c[0, y - 1, start:end], c[0, y, start:end], c[0, y + 1, start:end], c[0, y + 2, start:end], wy, out
        )  # fmt: skip
        return
    for j in range(0 if fresh else 3, 4):
        at = y - 1 + j
        weighted(
            c[z - 1, at, start:end], c[z, at, start:end], c[z + 1, at, start:end], c[z + 2, at, start:end], wz,
            rows[at % 4],
        )  # fmt: skip
    weighted(rows[(y - 1) % 4], rows[y % 4], rows[(y + 1) % 4], rows[(y + 2) % 4], wy, out)


@kernel
def add_shifted(frame, seen, shift, gain, offset, total, weight):
    """Add ``gain * frame + offset``, smoothed by the cubic B-spline and shifted by ``shift``, to ``total``.

    The smoothing is that of a spline whose coefficients are the pixels themselves: one B-spline filter of the finished
    sum undoes it for all frames at once.

    Parameters
    ----------
    frame : (z, y, x)
    seen : float32 (z, y, x), or (1, 1, 1) if every pixel of the frame counts
        1 where a pixel counts, else 0.
    shift : float64 (3,)
        Frame -> total, pixels.
    gain, offset : float
    total, weight : float32 (Z, Y, X)
        Sum, and number of frames that went into each pixel; changed in place. Of a frame that counts as a whole the
        weight is left to the caller, and not looked at.

    Returns
    -------
    int64 (3, 2)
        The part of the total that was added to.
    """
    back = -shift
    box = overlap(total.shape, frame.shape, back)
    n = np.floor(back).astype(np.int64)
    width = box[2, 1] - box[2, 0]
    if width < 1:
        box[2, 1] = box[2, 0]
        return box
    wz, wy = spline_weights(back[0] - n[0])[0], spline_weights(back[1] - n[1])[0]
    wx = spline_weights(back[2] - n[2])[0]
    line, known, at_x = np.empty(width + 3, np.float32), np.empty(width + 3, np.float32), np.empty(width, np.float32)
    rows = np.empty((4, width + 3 if frame.shape[0] > 1 else 1), np.float32)
    others = np.empty((4, width + 3 if seen.shape[0] > 1 else 1), np.float32)
    a, b = np.float32(gain), np.float32(offset)
    start = box[2, 0] + n[2] - 1
    for z in range(box[0, 0], box[0, 1]):
        fresh = True
        for y in range(box[1, 0], box[1, 1]):
            row = total[z, y, box[2, 0] : box[2, 1]]
            _line(frame, z + n[0], y + n[1], start, wz, wy, rows, fresh, line)
            if seen.size > 1:
                _line(seen, z + n[0], y + n[1], start, wz, wy, others, fresh, known)
                tapped(known, wx, at_x)
                _add_known(line, wx, a, b, at_x, row, weight[z, y, box[2, 0] : box[2, 1]])
            else:
                _add_row(line, wx, a, b, row)
            fresh = False
    return box


@kernel
def add_boxes(boxes, weight):
    """Count one more in each of the boxes (n, 3, 2): ``weight`` (z, y, x), changed in place."""
    line = np.empty(weight.shape[2] + 1, np.int64)
    for z in range(weight.shape[0]):
        for y in range(weight.shape[1]):
            line[:] = 0
            for n in range(boxes.shape[0]):
                box = boxes[n]
                if box[0, 0] <= z < box[0, 1] and box[1, 0] <= y < box[1, 1]:
                    line[box[2, 0]] += 1
                    line[box[2, 1]] -= 1
            count = 0
            for x in range(weight.shape[2]):
                count += line[x]
                weight[z, y, x] += np.float32(count)


@kernel
def histogram(weight, most):
    """Return how many pixels have the whole numbers 0 to ``most``."""
    count = np.zeros(most + 1, np.int64)
    for z in range(weight.shape[0]):
        for y in range(weight.shape[1]):
            for x in range(weight.shape[2]):
                count[min(int(weight[z, y, x]), most)] += 1
    return count


@kernel
def divide(total, weight, least):
    """Divide the total (z, y, x) by the weight, in place; NaN where that is below ``least``."""
    for z in range(weight.shape[0]):
        for y in range(weight.shape[1]):
            for x in range(weight.shape[2]):
                n = weight[z, y, x]
                total[z, y, x] = total[z, y, x] / n if n >= least else np.float32(np.nan)
