from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from stackalign import plots
from stackalign.core.registration import FrameQuality, Registration
from stackalign.core.stack import ImageStack
from stackalign.core.transform import Transform
from stackalign.core.transform_series import TransformSeries


def registration(frames=12, ndim=2, degrees=0.0, flagged=()):
    shifts = np.arange(frames)[:, None] * np.arange(1.0, ndim + 1)
    series = TransformSeries.from_translations(-shifts)
    if degrees:
        angle = np.radians(degrees)
        matrix = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        series = series.replaced(3, Transform(matrix, "euclidean"))
    quality = FrameQuality.empty(frames, ndim).with_reasons(dict.fromkeys(flagged, "too dark"))
    return Registration(series, quality)


def quality(frames=12, shape=(20, 30)):
    rising = np.linspace(0.1, 0.9, frames)
    return SimpleNamespace(
        frame_correlation_before=rising / 2,
        frame_correlation_after=rising,
        frame_residual_before=1 - rising / 2,
        frame_residual_after=1 - rising,
        mean_before=np.arange(np.prod(shape), dtype=np.float32).reshape(shape),
        mean_after=np.ones(shape, np.float32),
    )


def labels(figure):
    return [text for axes in figure.axes for text in (axes.get_xlabel(), axes.get_ylabel()) if text]


def test_motion_shows_drift_not_translation_with_units():
    figure = plots.motion_figure(registration(), (0.2, 0.2), "um", 0.5, "s")
    assert labels(figure) == ["frame", "drift (px)"]
    (panel,) = figure.axes
    assert panel.lines[0].get_ydata()[-1] == 11.0
    right, above = panel.child_axes
    assert right.get_ylabel() == "drift (µm)"
    assert above.get_xlabel() == "time (s)"


def test_motion_without_calibration_has_pixels_alone():
    assert not plots.motion_figure(registration()).axes[0].child_axes


def test_motion_with_rotation_has_a_panel_in_degrees_about_the_centre():
    figure = plots.motion_figure(registration(degrees=2.0), frame_shape=(100, 50))
    assert "rotation (deg)" in labels(figure)
    turned = figure.axes[1].lines[0].get_ydata()
    assert turned[3] == pytest.approx(-2.0)
    drift, _ = plots.drift_of(registration(degrees=2.0), (1, 1))
    assert drift[3] == pytest.approx([0, 0])


def test_motion_marks_flagged_frames_and_error_bands():
    result = registration(flagged=(2, 5))
    figure = plots.motion_figure(result)
    crosses = figure.axes[0].lines[-1]
    assert sorted(set(crosses.get_xdata())) == [2, 5]
    error = np.full((12, 2), 0.1)
    banded = plots.motion_figure(
        Registration(
            result.transforms,
            FrameQuality(error[:, 0], error[:, 0], error[:, 0], error, ("",) * 12),
        )
    )
    assert len(banded.axes[0].collections) == 2


def test_motion_in_3d_has_three_curves():
    assert len(plots.motion_figure(registration(ndim=3)).axes[0].lines) == 3


def test_long_movies_are_drawn_as_pixels(tmp_path):
    plots.save_figure(plots.motion_figure(registration(frames=5000)), tmp_path / "long.svg")
    assert (tmp_path / "long.svg").stat().st_size < 400_000


def test_quality_and_means_are_drawn(tmp_path):
    for name, figure in {
        "quality": plots.quality_figure(quality(), ("",) * 11 + ("too dark",)),
        "means": plots.mean_images_figure(quality()),
        "volume": plots.mean_images_figure(quality(shape=(4, 20, 30))),
        "large": plots.mean_images_figure(quality(shape=(1100, 7))),
        "nan": plots.mean_images_figure(SimpleNamespace(mean_before=np.full((9, 9), np.nan), mean_after=np.eye(9))),
    }.items():
        plots.save_figure(figure, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 1000, name


def test_worst_frames_are_the_flagged_then_the_least_alike():
    reasons = [""] * 12
    reasons[8] = "too dark"
    assert plots.worst_frames(quality(), reasons) == [8, 0, 1, 2]
    short = quality(frames=2)
    short.frame_correlation_after = np.array([np.nan, 0.5])
    assert plots.worst_frames(short, []) == [0, 1]


def test_frames_figure_shows_before_above_after():
    stack = ImageStack(np.random.default_rng(0).integers(0, 99, (5, 12, 16)).astype(np.uint16))
    figure = plots.frames_figure(stack, stack, [4, 1], ["frame 4", "frame 1"])
    assert [axes.get_title() for axes in figure.axes] == ["frame 4", "frame 1", "", ""]
    with pytest.raises(ValueError, match="no frame"):
        plots.frames_figure(stack, stack, [])


def test_pyplot_is_never_loaded():
    code = "import sys, stackalign.plots; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
