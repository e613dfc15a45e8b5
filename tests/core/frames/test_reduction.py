"""Binning, and what a motion of binned frames means at full size."""

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.frames.reduction import binned, enlarged, reduced, reduction, stacked


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64, bool])
def test_blocks_are_averaged_and_odd_ends_cut(dtype):
    frame = np.random.default_rng(0).integers(0, 2 if dtype is bool else 120, (11, 14)).astype(dtype)
    small = binned(frame, (2, 4))
    assert small.dtype == np.float32
    wanted = frame[:10, :12].reshape(5, 2, 3, 4).mean((1, 3))
    assert np.allclose(small, wanted, rtol=1e-6)


def test_integers_do_not_overflow():
    assert (binned(np.full((32, 32), 65535, np.uint16), (32, 32)) == 65535).all()
    assert (binned(np.full((32, 32), -32768, np.int16), (16, 32)) == -32768).all()


def test_holes_are_left_out_of_the_average():
    frame = np.arange(16, dtype=np.float32).reshape(4, 4)
    frame[0, 0] = np.nan
    frame[2:, 2:] = np.nan
    small = binned(frame, (2, 2))
    assert small[0, 0] == pytest.approx((1 + 4 + 5) / 3)
    assert np.isnan(small[1, 1])


def test_volumes():
    frame = np.random.default_rng(1).random((4, 6, 8)).astype(np.float32)
    assert np.allclose(binned(frame, (1, 2, 4)), frame.reshape(4, 3, 2, 2, 4).mean((2, 4)), rtol=1e-6)


def test_no_reduction_is_a_plain_copy_in_float32():
    frame = np.arange(6, dtype=np.uint8).reshape(2, 3)
    same = binned(frame, (1, 1))
    assert same.dtype == np.float32
    assert np.array_equal(same, frame)


@pytest.mark.parametrize(
    ("shape", "target", "factors"),
    [((512, 512), 128, (4, 4)), ((512, 100), 128, (4, 1)), ((20, 2048), 128, (1, 16)), ((190, 194), 128, (1, 2)),
     ((16, 16), 4, (1, 1)), ((48, 256, 512), 64, (1, 4, 8))],
)  # fmt: skip
def test_factors_bring_each_axis_near_the_target(shape, target, factors):
    assert reduction(shape, target) == factors


def test_a_motion_of_reduced_frames_is_that_of_full_frames():
    factors = (4, 2)
    turned = sa.Transform.from_rotation(0.1, (3.0, -5.0), (20, 30)).matrix
    assert np.allclose(reduced(enlarged(turned, factors), factors), turned)
    # the centre of block (i, j) is pixel (4 i + 1.5, 2 j + 0.5)
    small, big = np.array([3.0, 7.0, 1.0]), np.array([13.5, 14.5, 1.0])
    there = turned @ small
    assert np.allclose(enlarged(turned, factors) @ big, [4 * there[0] + 1.5, 2 * there[1] + 0.5, 1])
    shift = enlarged(sa.Transform.from_translation((1.5, -2.0)).matrix, factors)
    assert np.allclose(shift[:2, 2], (6.0, -4.0))


def test_frames_that_follow_each_other_in_memory_are_stacked_without_a_copy():
    movie = np.zeros((5, 6, 7), np.uint16)
    movie[:] = np.arange(5 * 6 * 7).reshape(movie.shape)
    view = stacked([movie[1], movie[2], movie[3]])
    assert np.shares_memory(view, movie)
    np.testing.assert_array_equal(view, movie[1:4])
    for frames in (
        [movie[0], movie[2]],
        [movie[2], movie[1]],
        [movie[0].copy(), movie[1]],
        [movie[:, :, k] for k in (1, 2)],
    ):
        copy = stacked(frames)
        assert not np.shares_memory(copy, movie)
        np.testing.assert_array_equal(copy, np.stack(frames))
