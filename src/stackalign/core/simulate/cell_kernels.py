"""Draw soft ellipsoids through a homogeneous matrix, each in its own box: the inner loop of `Cells`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.compiled import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Integers = NDArray[np.int64]


@kernel
def draw_ellipsoids(
    out: Array,
    matrix: Array,
    centres: Array,
    forms: Array,
    levels: Array,
    variances: Array,
    start: Integers,
    stop: Integers,
) -> None:
    """Add light to, or take it from, ``out`` (z, y, x); planes are volumes of one.

    Parameters
    ----------
    out : (z, y, x)
        Light so far.
    matrix : (4, 4)
        From pixels to the scene.
    centres, forms, levels : (P, 3), (P, 3, 3), (P,)
        As in `Cells`; a plane's forms are zero along z.
    variances : (3,)
        Of the blur along each axis, pixels squared; zero along the z of a plane.
    start, stop : (P, 3)
        Box of pixels that each one covers.
    """
    p, scaled = np.empty(3), np.empty(3)
    for c in range(len(centres)):
        form = forms[c]
        # the blur in units of the radius, mean over the axes; it also rounds the cone that the distance to the centre
        # has at its tip
        blur2, dimensions = 0.0, 0
        for i in range(3):
            dimensions += variances[i] > 0
            for j in range(3):
                blur2 += form[i, j] ** 2 * variances[j]
        blur2 /= dimensions
        edge = math.sqrt(1 + blur2)
        for h in range(start[c, 0], stop[c, 0]):
            for i in range(start[c, 1], stop[c, 1]):
                for j in range(start[c, 2], stop[c, 2]):
                    depth = matrix[3, 0] * h + matrix[3, 1] * i + matrix[3, 2] * j + matrix[3, 3]
                    for k in range(3):
                        at = matrix[k, 0] * h + matrix[k, 1] * i + matrix[k, 2] * j + matrix[k, 3]
                        p[k] = at / depth - centres[c, k]
                    r2 = 0.0
                    for k in range(3):
                        scaled[k] = form[k, 0] * p[0] + form[k, 1] * p[1] + form[k, 2] * p[2]
                        r2 += scaled[k] ** 2
                    softness2 = blur2 * blur2
                    for k in range(3):
                        slope = form[k, 0] * scaled[0] + form[k, 1] * scaled[1] + form[k, 2] * scaled[2]
                        softness2 += slope**2 * variances[k]
                    softness2 /= r2 + blur2
                    body = levels[c] * 0.5 * math.erfc((math.sqrt(r2 + blur2) - edge) / math.sqrt(2 * softness2))
                    if levels[c] >= 0:
                        out[h, i, j] += body
                    else:
                        out[h, i, j] *= 1 + body
