"""Filling what is not known from what is known beside it."""

import numpy as np
import pytest

from stackalign.core.frames.holes import filled_along_lines


def test_a_whole_image_is_left_alone() -> None:
    image = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(filled_along_lines(image, np.ones((3, 4), bool)), image)


def test_the_nearest_of_the_row_comes_first_then_the_column() -> None:
    image = np.array([[np.nan, 1, np.nan, np.nan, 5], [np.nan] * 5, [7, 7, 7, 7, 8]])
    known = np.isfinite(image)
    filled = filled_along_lines(image, known)
    np.testing.assert_array_equal(filled[0], [1, 1, 1, 5, 5])
    np.testing.assert_array_equal(filled[2], image[2])
    np.testing.assert_array_equal(filled[1], filled[0])


@pytest.mark.parametrize("shape", [(9, 11), (4, 5, 6)])
def test_one_known_pixel_fills_everything(shape: tuple[int, ...]) -> None:
    known = np.zeros(shape, bool)
    known[tuple(n // 2 for n in shape)] = True
    assert (filled_along_lines(np.where(known, 3.0, np.nan), known) == 3).all()
