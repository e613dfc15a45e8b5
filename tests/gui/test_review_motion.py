"""Brush, table and canvas select the same frames; every correction can be taken back from the history."""

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

from stackalign.core.registration import FrameQuality, Registration
from stackalign.core.transform_series import TransformSeries
from stackalign.runs import RunOutput
from stackalign.widgets._layers import movie_of
from stackalign.widgets.review_motion import ReviewMotion
from tests.gui.conftest import drifts, movie

COUNT = 12


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    return make_napari_viewer()


@pytest.fixture
def panel(viewer: Any, qtbot: Any) -> Generator[ReviewMotion, None, None]:
    layer = viewer.add_image(movie(COUNT), name="movie", scale=(0.5, 0.1, 0.1), axis_labels=("t", "y", "x"))
    widget = ReviewMotion(viewer)
    viewer.window.add_dock_widget(widget, name="Review motion")
    widget.session.open_movie(movie_of(layer, "tyx"))
    shifts = -drifts(COUNT)[:, 1:]
    shifts[5] += 7.0
    reasons = tuple("far off" if t == 5 else "" for t in range(COUNT))
    ones = np.ones(COUNT)
    quality = FrameQuality(ones, ones, ones, np.full((COUNT, 2), 0.1), reasons)
    token, work = widget.session.begin()
    work.close()
    widget.session.accept(token, RunOutput(Registration(TransformSeries.from_translations(shifts), quality), None, 0.1))
    yield widget
    widget.shut()


def translation(panel: Any, t: int) -> np.ndarray:
    return np.array(panel.session.current.registration.transforms.translations[t])


def test_without_a_run_it_says_what_to_do(panel: Any) -> None:
    panel.session.remove_run(1)
    assert panel.about.text() == "There is no alignment yet: align first."
    assert not panel.run.button.isEnabled()
    assert not panel.plot.isVisibleTo(panel)


def test_the_brush_selects_rows_and_rows_move_the_brush(panel: Any) -> None:
    assert panel.plot.frames_between(2.6, 5.2) == (3, 5)
    panel.plot.brushed.emit(3, 5)
    assert panel.table.rows() == (3, 4, 5)
    assert panel.selection.text() == "3 frames selected: 3 to 5"
    assert panel.run.button.text() == "Align 3 frames again"
    panel.table.clearSelection()
    panel.table.selectRow(7)
    assert panel.frames == (7,)
    assert panel.plot._brush.getRegion() == (6.5, 7.5)


def test_a_flagged_frame_is_found_rejected_and_taken_back(panel: Any, viewer: Any, qtbot: Any) -> None:
    panel.go_to_flagged(1)
    assert viewer.dims.current_step[0] == 5
    assert panel.frames == (5,)
    wrong = translation(panel, 5)
    panel.rejecting.click()
    np.testing.assert_allclose(translation(panel, 5), (translation(panel, 4) + translation(panel, 6)) / 2)
    assert "rejected by hand" in panel.table.model().data(panel.table.model().index(5, 0), 3)
    assert panel.sentence.text().endswith("Not measured since it was edited.")
    assert panel.history.item(0).text() == "reject frame 5"
    panel.undo.click()
    np.testing.assert_array_equal(translation(panel, 5), wrong)
    assert panel.history.item(0).text() == "(reject frame 5)"
    panel.go_back(-1)
    assert not np.array_equal(translation(panel, 5), wrong)


def test_nudges_are_one_step_of_undo_and_seen_in_the_preview(panel: Any, viewer: Any) -> None:
    viewer.dims.set_point(0, 3 * 0.5)
    panel.preview.setChecked(True)
    layer = viewer.layers["movie"]
    seen = np.array(layer.affine.affine_matrix)
    before = translation(panel, 3)
    panel.step.setValue(0.5)
    for _ in range(3):
        panel.nudge(0, 1)
    np.testing.assert_allclose(translation(panel, 3) - before, [0, 1.5])
    assert panel.preview.isChecked()
    np.testing.assert_allclose(np.array(layer.affine.affine_matrix)[2, 3] - seen[2, 3], 0.15, atol=1e-9)
    panel.undo.click()
    np.testing.assert_array_equal(translation(panel, 3), before)
    panel.preview.setChecked(False)
    np.testing.assert_array_equal(np.array(layer.affine.affine_matrix), np.eye(4))


def test_history_goes_back_several_steps(panel: Any) -> None:
    first = translation(panel, 5)
    panel.plot.brushed.emit(5, 5)
    panel.interpolate()
    panel.plot.brushed.emit(2, 4)
    panel.smooth()
    panel.plot.brushed.emit(8, 8)
    panel.rotate(1)
    assert [panel.history.item(k).text() for k in range(3)] == [
        "nudge frame 8", "smooth frames 2 to 4", "interpolate frame 5",
    ]  # fmt: skip
    panel.go_back(3)
    np.testing.assert_array_equal(translation(panel, 5), first)


def test_frames_are_aligned_again(panel: Any, qtbot: Any) -> None:
    panel.plot.brushed.emit(5, 5)
    panel.run.button.click()
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=60_000)
    np.testing.assert_allclose(translation(panel, 5), -drifts(COUNT)[5, 1:], atol=0.3)
    assert panel.session.history.undo_name == "align frame 5 again"
    panel.measure.click()
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=60_000)
    assert panel.session.current.quality is not None
    assert "correlation" in panel.sentence.text()


def test_two_panels_preview_the_same_layer(panel: Any, viewer: Any) -> None:
    from stackalign.widgets.align_stack import AlignStack

    align = AlignStack(viewer)
    viewer.window.add_dock_widget(align, name="Align stack")
    viewer.dims.set_point(0, 3 * 0.5)
    layer = viewer.layers["movie"]
    own = np.array(layer.affine.affine_matrix)
    align.result.preview.setChecked(True)
    panel.preview.setChecked(True)
    panel.nudge(1, 0)
    align.result.preview.setChecked(False)
    panel.preview.setChecked(False)
    align.shut()
    np.testing.assert_array_equal(np.array(layer.affine.affine_matrix), own)
