"""Laws of corners and homographies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stackalign.core.geometry import corners
from stackalign.core.multimodal.corners import corner_distance, matrices_of, offsets_of, plausible
from stackalign.core.multimodal.refine import flow_of

SHAPES = st.tuples(st.integers(20, 300), st.integers(20, 300))
SHARES = arrays(float, (4, 2), elements=st.floats(-0.2, 0.2))  # of the size: no three corners come to lie on a line


@given(SHAPES, SHARES)
def test_offsets_and_homographies_are_inverse(shape, shares):
    offsets = shares * np.array(shape)
    matrix = matrices_of(offsets, shape)
    np.testing.assert_allclose(offsets_of(matrix, shape), offsets, atol=1e-7 * max(shape))
    assert plausible(matrix, shape, 20.0)


@given(SHAPES, arrays(float, (5, 4, 2), elements=st.floats(-0.2, 0.2)))
def test_a_batch_is_each_of_its_parts(shape, shares):
    offsets = shares * np.array(shape)
    alone = [matrices_of(part, shape) for part in offsets]
    np.testing.assert_allclose(matrices_of(offsets, shape), alone, rtol=1e-9, atol=1e-12)


@given(SHAPES, SHARES, SHARES)
def test_the_distance_is_symmetric_and_zero_for_the_same(shape, first, second):
    a, b = (matrices_of(s * np.array(shape), shape) for s in (first, second))
    assert corner_distance(a, b, shape) == pytest.approx(corner_distance(b, a, shape))
    assert corner_distance(a, a, shape) == 0
    apart = np.linalg.norm((first - second) * np.array(shape), axis=1).mean()
    assert corner_distance(a, b, shape) == pytest.approx(apart, abs=1e-6 * max(shape))


def test_degenerate_corners_have_no_homography():
    still = corners((40, 60))
    assert np.isnan(matrices_of(still[[0, 0, 2, 3]] - still, (40, 60))).all()
    assert np.isnan(matrices_of(np.full((4, 2), np.nan), (40, 60))).all()


def test_mirrored_folded_or_huge_motions_are_not_plausible():
    shape = (50, 70)
    assert plausible(np.eye(3), shape)
    assert not plausible(np.diag([-1.0, 1.0, 1.0]), shape)
    assert not plausible(np.diag([9.0, 9.0, 1.0]), shape)
    beyond = np.eye(3)
    beyond[2, 0] = -1 / 20  # the horizon runs through the image
    assert not plausible(beyond, shape)


@settings(max_examples=30)
@given(SHAPES, arrays(float, 8, elements=st.floats(-1, 1)))
def test_the_flow_is_the_derivative_of_the_homography(shape, motion):
    to_corners, middle, radius = flow_of(shape)
    small = 1e-4 * motion
    generator = np.array(
        [[small[1], small[2], small[0] / radius], [small[4], small[5], small[3] / radius],
         [-small[6], -small[7], 0]]
    )  # fmt: skip
    generator[:2, :2] /= radius
    generator[2, :2] /= radius
    frame = np.array([[1 / radius, 0, -middle[0] / radius], [0, 1 / radius, -middle[1] / radius], [0, 0, 1]])
    matrix = np.linalg.inv(frame) @ (np.eye(3) + generator) @ frame
    np.testing.assert_allclose(offsets_of(matrix, shape).ravel(), to_corners @ small, atol=3e-9 * 1e2)
