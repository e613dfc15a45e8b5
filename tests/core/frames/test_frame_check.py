"""Frames that hold nothing to align, told by their pixels."""

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.frames.frame_check import check_frame, read_frame


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (np.full((8, 9), np.nan), "all pixels are NaN"),
        (np.where(np.arange(100).reshape(10, 10) < 5, 1.0, np.nan), "only 5% of the pixels are numbers"),
        (np.full((8, 9), 7, np.uint16), "blank: all pixels are 7"),
        (np.zeros((3, 8, 9), np.float32), "blank: all pixels are 0"),
        (np.where(np.arange(100).reshape(10, 10) < 80, 255, 3).astype(np.uint8), "saturated: over half"),
        (np.full((8, 9), np.inf), "all pixels are NaN"),
    ],
)
def test_a_frame_that_holds_nothing_says_why(frame, reason):
    assert check_frame(frame).startswith(reason)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, bool])
def test_a_frame_with_something_in_it_passes(dtype):
    frame = np.zeros((10, 12), dtype)
    frame[4, 5] = 1
    assert check_frame(frame) == ""


def test_some_holes_and_some_saturation_pass():
    frame = np.random.default_rng(0).random((20, 20))
    frame[:10] = np.nan
    assert check_frame(frame) == ""
    bright = np.random.default_rng(0).integers(0, 255, (20, 20)).astype(np.uint8)
    bright[:8] = 255
    assert check_frame(bright) == ""


def test_missing_and_unreadable_frames_are_values_not_exceptions():
    class Broken:
        shape, dtype = (3, 4, 5), np.dtype(np.uint16)

        def __getitem__(self, t):
            if t == 1:
                raise sa.FrameError("movie.tif: frame 1 ends too early")
            return np.arange(20, dtype=np.uint16).reshape(4, 5)

    stack = sa.ImageStack(Broken(), missing={2: "img_2.tif is not there"})
    assert read_frame(stack, 0)[1] == ""
    frame, reason = read_frame(stack, 1)
    assert reason == "cannot be read: movie.tif: frame 1 ends too early"
    assert frame.shape == (4, 5)
    assert read_frame(stack, 2)[1] == "missing: img_2.tif is not there"
