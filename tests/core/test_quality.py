"""Before and after, measured on the same pixels."""

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.quality import Quality, measure_work
from tests.contract.cases import DRIFT, DRIFT_3D, camera, moved, movie, scene

TRUTH = sa.TransformSeries.from_translations(-DRIFT)


def test_the_true_motion_makes_a_movie_stiller():
    quality = sa.measure(movie(), TRUTH)
    assert isinstance(quality, Quality)
    assert quality.correlation_after > quality.correlation_before + 0.1
    assert quality.residual_after < 0.7 * quality.residual_before
    assert quality.crispness_before == 1.0
    assert quality.crispness_after > 1.1
    assert quality.left_out == ()


def test_doing_nothing_changes_nothing():
    frames = movie()
    quality = sa.measure(frames, sa.TransformSeries.identity(len(frames), 2))
    assert quality.correlation_before == quality.correlation_after
    assert quality.crispness_after == 1.0
    assert quality.region == sa.Box(0, 72, 0, 88)
    assert np.array_equal(quality.mean_before, quality.mean_after)
    plain = frames.astype(float)
    mean = plain.mean(0)
    assert np.allclose(quality.mean_before, mean, rtol=1e-6)
    wanted = [np.corrcoef(f.ravel(), mean.ravel())[0, 1] for f in plain]
    assert np.allclose(quality.frame_correlation_before, wanted, atol=1e-5)
    assert np.allclose(quality.frame_residual_before, np.sqrt(((plain - mean) ** 2).mean((1, 2))), rtol=1e-4)
    assert quality.correlation_before == pytest.approx(np.mean(wanted), abs=1e-5)


def test_both_are_measured_on_the_pixels_that_every_frame_covers():
    quality = sa.measure(movie(), TRUTH)
    assert quality.region == sa.Box(0, 66, 5, 88)  # drift down to 5.35 and left to -4.8
    assert quality.mean_before.shape == quality.mean_after.shape == quality.region.shape
    assert quality.mean_before.dtype == np.float32


def test_borders_that_move_out_flatter_nobody():
    """A bright frame around the scene that stands still: only what all frames cover may count."""
    frames = movie()
    wrong = sa.TransformSeries.from_translations(np.linspace(0, 40, len(frames))[:, None] * [1, 0])
    assert sa.measure(frames, wrong).correlation_after < sa.measure(frames, TRUTH).correlation_after - 0.1


def test_frames_that_are_not_valid_count_in_neither():
    frames = movie()
    frames[3] = 0
    series = TRUTH.with_valid(np.arange(8) != 3)
    quality = sa.measure(frames, series)
    assert quality.left_out == (3,)
    assert np.isnan(quality.frame_correlation_after[3])
    assert np.isfinite(np.delete(quality.frame_correlation_after, 3)).all()
    without = sa.measure(np.delete(frames, 3, 0), series.selected(np.delete(np.arange(8), 3)))
    assert quality.correlation_after == pytest.approx(without.correlation_after, abs=1e-9)


def test_frames_that_cannot_be_read_are_left_out():
    stack = sa.ImageStack(movie(), missing={5: "gone"})
    assert sa.measure(stack, TRUTH).left_out == (5,)


def test_frames_that_went_far_away_are_left_out_rather_than_the_region_lost():
    shifts = -DRIFT.copy()
    shifts[6] = (300, 0)
    quality = sa.measure(movie(), sa.TransformSeries.from_translations(shifts))
    assert quality.left_out == (6,)
    assert min(quality.region.shape) > 40


def test_holes_are_bridged():
    frames = movie(np.float32)
    frames[2, 10:14, 10:14] = np.nan
    quality = sa.measure(frames, TRUTH)
    assert np.isfinite(quality.frame_correlation_after).all()
    assert quality.left_out == ()


def test_volumes():
    frames = camera(moved(scene((14, 40, 48), 3), DRIFT_3D))
    quality = sa.measure(frames, sa.TransformSeries.from_translations(-DRIFT_3D))
    assert quality.left_out == ()
    assert quality.correlation_after > quality.correlation_before + 0.1
    assert len(quality.region.shape) == 3


def test_one_frame():
    quality = sa.measure(movie()[:1], sa.TransformSeries.identity(1, 2))
    assert quality.correlation_after == pytest.approx(1)
    assert quality.residual_after == 0


def test_tables_sentence_and_summary_say_the_same():
    quality = sa.measure(movie(), TRUTH)
    table = quality.to_frame()
    assert list(table) == ["frame", "correlation_before", "correlation_after", "residual_before", "residual_after"]
    assert table["correlation_after"].mean() == pytest.approx(quality.correlation_after)
    assert quality.summary["correlation with the mean"] == (quality.correlation_before, quality.correlation_after)
    assert set(quality.summary) == {"correlation with the mean", "crispness of the mean", "residual to the mean"}
    assert f"{quality.correlation_before:.3f} -> {quality.correlation_after:.3f}" in quality.sentence
    assert "8 frames, on the same 66 x 83 pixels" in quality.sentence


def test_it_is_work_that_can_be_stopped():
    steps = list(measure_work(movie(), TRUTH))
    assert all(0 < p.done <= p.total and p.message for p in steps)
    with pytest.raises(sa.WorkCancelled):
        sa.measure(movie(), TRUTH, should_stop=lambda: True)


def test_misuse_is_named():
    with pytest.raises(ValueError, match="5 transforms for 8 frames"):
        sa.measure(movie(), sa.TransformSeries.identity(5, 2))
    with pytest.raises(ValueError, match="nothing to measure"):
        sa.measure(np.zeros((4, 20, 20)), sa.TransformSeries.identity(4, 2))
