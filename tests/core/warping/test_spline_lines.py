"""Lines read in blocks of neighbours against the plain resampler: turned, sheared, stretched, seen aslant, narrow."""

from __future__ import annotations

import numpy as np
import pytest

from stackalign.core.lucas_kanade.kernels import add_warped
from stackalign.core.warping.resample import spline_coefficients, warp_frame


def about_centre(linear, shape, shift, tilt=(0.0, 0.0)):
    middle = (np.array(shape) - 1) / 2
    there, back, inside = np.eye(3), np.eye(3), np.eye(3)
    there[:2, 2], back[:2, 2] = middle, -middle
    inside[:2, :2], inside[:2, 2], inside[2, :2] = linear, shift, tilt
    matrix = there @ inside @ back
    return matrix / matrix[2, 2]


def turned(degrees, scale=1.0):
    a = np.deg2rad(degrees)
    return scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])


@pytest.mark.parametrize("shape", [(40, 61), (30, 11), (20, 5)])
@pytest.mark.parametrize(
    ("linear", "tilt"),
    [
        (np.eye(2), (0, 0)),
        (turned(0.7), (0, 0)),
        (turned(-3.5), (0, 0)),
        (turned(7), (0, 0)),
        (turned(40), (0, 0)),
        (turned(2, 1.06), (0, 0)),
        (np.array([[1.0, 0.05], [-0.02, 0.97]]), (0, 0)),
        (turned(1), (2e-4, -1e-4)),
        (turned(-2), (0, 1e-3)),
        (np.eye(2), (1e-3, 5e-3)),
    ],
)
def test_lines_are_read_as_by_the_plain_resampler(shape, linear, tilt):
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    matrix = about_centre(linear, shape, (0.3, -0.45), tilt)
    total, weight = np.zeros((1, *shape), np.float32), np.zeros((1, *shape), np.float32)
    back = np.eye(4)
    back[1:, 1:] = np.linalg.inv(matrix)
    add_warped(spline_coefficients(image, 3), back, np.array([1, *shape]), 2.0, 5.0, total, weight)
    expected = warp_frame(image, matrix, order=3, fill="nan")
    seen = weight[0] > 0
    assert seen.mean() > 0.2
    assert np.isfinite(expected[seen]).all()
    np.testing.assert_allclose(total[0][seen], 2 * expected[seen] + 5, atol=2e-4)
