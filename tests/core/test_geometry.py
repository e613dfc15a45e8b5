"""Boxes, corners and centres of frames that are not square."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackalign.core.geometry import Box, centre, corners

edges = st.tuples(st.integers(-50, 50), st.integers(1, 60))


@st.composite
def boxes(draw, ndim=None):
    d = draw(st.sampled_from((2, 3))) if ndim is None else ndim
    return Box(*(b for start, length in [draw(edges) for _ in range(d)] for b in (start, start + length)))


def test_a_box_is_half_open():
    box = Box(2, 5, 10, 30)
    assert (box.start, box.stop, box.shape, box.bounds) == ((2, 10), (5, 30), (3, 20), (2, 5, 10, 30))
    frame = np.arange(40 * 50).reshape(40, 50)
    assert frame[box.slices].shape == box.shape
    assert frame[box.slices][0, 0] == frame[2, 10]
    assert frame[box.slices][-1, -1] == frame[4, 29]
    assert Box(0, 1, 2, 4, 5, 9).shape == (1, 2, 4)


@given(boxes())
def test_a_box_is_its_bounds(box):
    assert Box(*box.bounds) == box
    assert hash(Box(*box.bounds)) == hash(box)
    assert all(n > 0 for n in box.shape)


@given(boxes(2), st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_clipping_keeps_what_lies_inside(box, shape):
    inside = {(y, x) for y in range(*box.bounds[:2]) for x in range(*box.bounds[2:])}
    inside &= {(y, x) for y in range(shape[0]) for x in range(shape[1])}
    if not inside:
        with pytest.raises(ValueError, match="lies outside the frame of shape"):
            box.clipped(shape)
        return
    clipped = box.clipped(shape)
    assert clipped.shape[0] * clipped.shape[1] == len(inside)
    assert clipped.start == min(inside)
    assert clipped.clipped(shape) == clipped


def test_the_box_of_a_whole_frame():
    assert Box.of_shape((3, 7)) == Box(0, 3, 0, 7)
    assert Box.of_shape((2, 3, 7)).shape == (2, 3, 7)
    assert Box.of_shape((3, 7)).clipped((3, 7)) == Box(0, 3, 0, 7)


@pytest.mark.parametrize(
    "bounds, message",
    [
        ((1, 2), "takes 4 .* or 6 .* bounds, not 2"),
        ((0, 1, 2, 3, 4), "not 5"),
        ((0, 0, 1, 2), "needs start < stop along every axis"),
        ((5, 2, 1, 2), r"got \(5, 1\) to \(2, 2\)"),
    ],
)
def test_what_is_no_box(bounds, message):
    with pytest.raises(ValueError, match=message):
        Box(*bounds)


def test_corners_and_centre_are_those_of_pixel_centres():
    assert corners((3, 7)).tolist() == [[0, 0], [0, 6], [2, 0], [2, 6]]
    assert centre((3, 7)).tolist() == [1, 3]
    assert centre((4, 10)).tolist() == [1.5, 4.5]
    assert corners((2, 3, 4)).shape == (8, 3)
    assert corners((2, 3, 4)).mean(0).tolist() == centre((2, 3, 4)).tolist()
