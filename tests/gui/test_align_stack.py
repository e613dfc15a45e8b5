"""The panel from click to result: what it says, what it does to layers, what it leaves when something fails."""

import time
from typing import Any

import numpy as np
import pytest
from napari.qt import get_stylesheet
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from stackalign.core import compiling
from stackalign.core.lowrank.registrar import Reals
from stackalign.core.work import Progress, Work
from stackalign.widgets._errors import ErrorDialog
from stackalign.widgets.align_stack import AlignStack
from tests.gui.conftest import ERRORS, Told, drifts, movie


def affines(layer: Any) -> np.ndarray:
    return np.array(layer.affine.affine_matrix)


def go_to(viewer: Any, frame: int) -> None:
    viewer.dims.set_point(0, frame * 0.5)


def test_the_button_names_what_it_does(panel: Any) -> None:
    assert panel.run.button.text() == "Align 8 frames"
    assert panel.run.button.isEnabled()
    panel.session.change(frames=(2, 7))
    assert panel.run.button.text() == "Align 5 frames"


def test_no_movie_is_an_obstacle_with_its_reason(viewer: Any, panel: Any, qtbot: Any) -> None:
    viewer.layers.clear()
    qtbot.waitUntil(lambda: panel.session.movie is None)
    assert not panel.run.button.isEnabled()
    assert panel.run.button.toolTip() == "Choose a movie first"


def test_one_frame_is_an_obstacle(panel: Any) -> None:
    panel.session.change(frames=(2, 3))
    assert not panel.run.button.isEnabled()
    assert "only one frame" in panel.run.button.toolTip()


def test_axes_that_nobody_names_are_asked_for(viewer: Any, panel: Any, qtbot: Any) -> None:
    viewer.add_image(np.zeros((3, 6, 16, 16), np.uint8), name="which")
    qtbot.waitUntil(lambda: panel.movie.layers.count() == 2)
    panel.movie.layers.setCurrentText("which")
    assert not panel.run.button.isEnabled()
    assert panel.run.button.toolTip() == "Say which axis is time"
    panel.movie.axes.setCurrentIndex(panel.movie.axes.findData("ztyx"))
    assert panel.run.button.text() == "Align 6 frames"
    assert panel.session.movie.stack.shape == (6, 3, 16, 16)


def test_a_run_ends_with_a_sentence_a_plot_and_the_preview_on(panel: Any, align: Any) -> None:
    align()
    assert panel.result.sentence.text().startswith("Aligned 8 frames; 1 flagged")
    assert panel.result.isVisibleTo(panel)
    np.testing.assert_allclose(panel.result.plot.motion.drift, drifts(8)[:, 1:])
    assert panel.result.preview.isChecked()
    assert panel.runs.list.count() == 1
    assert panel.add.isEnabled()
    assert not panel.run.progress.isVisibleTo(panel)


def test_live_plot_and_progress_during_the_run(panel: Any, qtbot: Any) -> None:
    panel.session.change(registrar=Told(seconds=0.15))
    panel.run.button.click()
    assert panel.run.progress.isVisibleTo(panel)
    assert not panel.run.button.isEnabled()
    qtbot.waitUntil(lambda: panel.result.plot.motion is not None, timeout=3000)
    assert 0 < len(panel.result.plot.motion.drift) < 8
    assert "Telling" in panel.run.stage.text()
    assert panel.run.count.text().endswith("of 8")
    qtbot.waitUntil(lambda: panel.run.left.text().endswith("left"), timeout=3000)
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=5000)


def test_a_run_that_waits_for_the_compiler_says_so(panel: Any, qtbot: Any) -> None:
    def work() -> Work[None]:
        compiling.begun()
        time.sleep(0.2)
        yield Progress(3, 8, "Aligning")
        compiling.begun()
        time.sleep(0.2)

    panel.start("Aligning 8 frames", work, lambda _: None)
    qtbot.waitUntil(lambda: panel.run.stage.text() == compiling.MESSAGE, timeout=3000)
    assert panel.run.bar.maximum() == 0  # busy
    assert panel.run.count.text() == ""
    qtbot.waitUntil(lambda: panel.run.count.text() == "3 of 8", timeout=3000)
    qtbot.waitUntil(lambda: panel.run.stage.text() == compiling.MESSAGE, timeout=3000)
    assert panel.run.count.text() == "3 of 8"
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=3000)


@pytest.mark.parametrize("kind", list(ERRORS))
def test_every_error_ends_in_a_dialog_and_an_idle_panel(panel: Any, align: Any, kind: str) -> None:
    align(error=kind)
    (dialog,) = [w for w in QApplication.topLevelWidgets() if isinstance(w, ErrorDialog) and w.isVisible()]
    text = dialog.message.text()
    assert len(text) > 20
    assert "Traceback" not in text
    assert "\n" not in text
    assert not dialog.details.isVisible()
    dialog.fold.click()
    assert dialog.details.isVisible()
    assert "Traceback" in dialog.details.toPlainText()
    assert kind in dialog.details.toPlainText()
    assert not dialog.isModal()
    dialog.close()
    assert panel.run.button.isEnabled()
    assert not panel.run.stop.isEnabled()
    assert not panel.session.busy
    align()
    assert panel.session.current is not None


def test_cancel_answers_within_a_second_and_keeps_what_is_done(panel: Any, qtbot: Any) -> None:
    panel.session.change(registrar=Told(seconds=0.3))
    panel.run.button.click()
    qtbot.wait(1000)
    begun = time.perf_counter()
    panel.run.stop.click()
    assert panel.run.stop.text() == "Stopping…"
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=3000)
    assert time.perf_counter() - begun < 1.0
    run = panel.session.current
    assert run is not None
    assert not run.complete
    assert 1 <= len(run.registration) < 8
    assert panel.result.sentence.text().startswith("Cancelled")
    assert panel.run.button.isEnabled()


def test_cancel_of_a_step_that_hangs(panel: Any, qtbot: Any) -> None:
    panel.session.change(registrar=Told(hang=1.8, partial=False))
    panel.run.button.click()
    qtbot.wait(300)
    begun = time.perf_counter()
    panel.run.stop.click()
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=3000)
    assert time.perf_counter() - begun < 1.0
    assert panel.session.current is None
    assert "Cancelled" in panel.message.text()
    panel.session.change(registrar=Told())
    panel.run.button.click()
    qtbot.waitUntil(lambda: panel.session.current is not None, timeout=5000)
    qtbot.wait(1500)  # the step that hung ends by now: nobody listens
    assert len(panel.session.runs) == 1


def test_a_stale_result_is_dropped(panel: Any, align: Any) -> None:
    token, _ = panel.session.begin()
    panel.session.end(token)
    align()
    output = panel.session.current
    assert panel.session.accept(token, output) is None
    assert panel.session.accept(token + 7, output) is None
    assert len(panel.session.runs) == 1


def test_a_run_of_a_movie_that_was_left_waits_in_the_list(viewer: Any, panel: Any, qtbot: Any) -> None:
    viewer.add_image(movie(5), name="other")
    qtbot.waitUntil(lambda: panel.movie.layers.count() == 2)
    panel.session.change(registrar=Told(seconds=0.1))
    panel.run.button.click()
    panel.movie.layers.setCurrentText("other")
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=5000)
    assert panel.session.current is None
    assert len(panel.session.runs) == 1
    assert "Run 1 of movie" in panel.message.text()
    panel.session.show_run(1)
    assert panel.movie.layers.currentText() == "movie"
    assert panel.session.current.number == 1


def test_preview_moves_the_layer_at_each_step_and_puts_it_back(viewer: Any, panel: Any, align: Any) -> None:
    layer = viewer.layers["movie"]
    before = affines(layer)
    align()
    for frame in (3, 6, 0, 7):
        go_to(viewer, frame)
        moved = affines(layer)
        np.testing.assert_allclose(moved[1:3, -1], -drifts(8)[frame, 1:] * 0.1, atol=1e-9)
        world = np.asarray(layer.data_to_world((frame, 10.0, 20.0)))
        there = np.array([10.0, 20.0]) - drifts(8)[frame, 1:]
        np.testing.assert_allclose(world[1:], there * 0.1 + (5, 7), atol=1e-9)
    panel.result.preview.setChecked(False)
    np.testing.assert_array_equal(affines(layer), before)
    panel.result.preview.setChecked(True)
    panel.shut()
    np.testing.assert_array_equal(affines(layer), before)


def test_preview_resamples_nothing(viewer: Any, panel: Any, align: Any) -> None:
    data = viewer.layers["movie"].data
    align()
    go_to(viewer, 5)
    assert viewer.layers["movie"].data is data
    assert len(viewer.layers) == 1


def test_space_on_the_canvas_switches_before_and_after(viewer: Any, panel: Any, align: Any) -> None:
    align()
    assert panel.result.preview.isChecked()
    handler = next(v for k, v in viewer.keymap.items() if str(k) == "Space")
    handler(viewer)
    assert not panel.result.preview.isChecked()
    panel.shut()
    assert not any(str(k) == "Space" for k in viewer.keymap)


def test_blink_alternates(viewer: Any, panel: Any, align: Any, qtbot: Any) -> None:
    align()
    go_to(viewer, 6)
    layer, seen = viewer.layers["movie"], set()
    panel.result.blink.click()

    def both() -> bool:
        seen.add(affines(layer)[1, -1])
        return len(seen) == 2

    qtbot.waitUntil(both, timeout=3000)
    panel.result.blink.click()
    assert not panel._preview.blinking


def test_flagged_frames_are_visited(viewer: Any, panel: Any, align: Any) -> None:
    align()
    go_to(viewer, 0)
    panel.result.later.click()
    assert panel._cursor.frame == 4
    assert "too dark" in panel.result.frame.text()
    assert "(+0.4 µm)" in panel.result.frame.text()


def test_the_plot_leads_to_its_frame(viewer: Any, panel: Any, align: Any) -> None:
    align()
    panel.result.plot.frame_clicked.emit(5)
    assert viewer.dims.point[0] == pytest.approx(2.5)
    assert panel.result.plot._cursor.value() == 5


def test_the_aligned_layer_is_the_source_but_for_the_motion(viewer: Any, panel: Any, align: Any) -> None:
    align()
    go_to(viewer, 3)
    panel.add.click()
    source, fixed = viewer.layers["movie"], viewer.layers["movie [aligned]"]
    assert viewer.layers.index(fixed) == viewer.layers.index(source) + 1
    for name in ("scale", "translate"):
        np.testing.assert_allclose(getattr(fixed, name), getattr(source, name))
    assert fixed.units == source.units
    assert fixed.axis_labels == source.axis_labels
    assert fixed.colormap.name == source.colormap.name == "magenta"
    assert list(fixed.contrast_limits) == [100, 1500]
    assert fixed.dtype == source.dtype
    np.testing.assert_array_equal(affines(fixed), np.eye(4))
    noted = fixed.metadata["stackalign"]
    assert noted["aligned_from"] == "movie"
    assert noted["provenance"]["method"] == "told"
    inside = (slice(None), slice(8, 40), slice(8, 56))
    aligned = np.asarray(fixed.data)[inside].astype(int)
    assert np.abs(aligned - aligned[0]).max() <= 1
    assert np.ptp(np.asarray(source.data)[inside].astype(int), axis=0).max() > 500


def test_a_time_range_is_placed_where_it_was(viewer: Any, panel: Any, align: Any) -> None:
    panel.session.change(frames=(2, 6))
    align()
    panel.add.click()
    fixed = viewer.layers["movie [aligned]"]
    assert fixed.data.shape == (4, 48, 64)
    np.testing.assert_allclose(fixed.translate, (1.0, 5, 7))


def test_other_layers_move_along(viewer: Any, panel: Any, align: Any, qtbot: Any) -> None:
    common = {"scale": (0.5, 0.1, 0.1), "translate": (0, 5, 7)}
    viewer.add_image(movie()[:, ::-1], name="second", **common)
    viewer.add_labels((movie() > 1000).astype(np.int32), name="cells", **common)
    spots = np.column_stack([np.arange(8), 20 + drifts(8)[:, 1], 30 + drifts(8)[:, 2]])
    viewer.add_points(spots, name="spots", **common)
    viewer.add_image(np.zeros((8, 10, 10), np.uint16), name="unrelated")
    align()
    panel.companions._fill()
    names = {box.toolTip(): box for box in panel.companions.boxes.values()}
    assert set(names) == {"second", "cells", "spots"}
    for box in names.values():
        box.setChecked(True)
    go_to(viewer, 6)
    np.testing.assert_allclose(affines(viewer.layers["second"])[1:3, -1], -drifts(8)[6, 1:] * 0.1, atol=1e-9)
    panel.add.click()
    np.testing.assert_allclose(np.ptp(viewer.layers["spots [aligned]"].data[:, 1:], axis=0), 0, atol=1e-9)
    labels = np.asarray(viewer.layers["cells [aligned]"].data)
    assert labels.dtype.kind == "i"
    assert (labels[:, 10:38, 8:56] == labels[0, 10:38, 8:56]).all()
    np.testing.assert_array_equal(affines(viewer.layers["second"]), np.eye(4))


def test_undo_and_redo_reach_the_form_and_the_result(panel: Any, align: Any) -> None:
    panel.session.change(reference="first")
    align()
    assert panel.session.current is not None
    panel.undo.click()
    assert panel.session.current is None
    assert not panel.result.isVisibleTo(panel)
    assert "align 8 frames" in panel.redo.toolTip()
    panel.redo.click()
    assert panel.result.sentence.text().startswith("Aligned 8 frames")
    while panel.undo.isEnabled():
        panel.undo.click()
    assert panel.session.choices.reference is None
    assert panel.method.reference.currentData() == "default"


def test_the_main_thread_is_never_blocked(viewer: Any, panel: Any, qtbot: Any) -> None:
    viewer.add_image(np.tile(movie(60), (1, 4, 4)), name="large")
    qtbot.waitUntil(lambda: panel.movie.layers.count() == 2)
    panel.movie.layers.setCurrentText("large")
    qtbot.wait(300)
    work: list[float] = []  # what this thread itself computed between two ticks: other programs do not count
    gaps: list[float] = []
    last = time.thread_time(), time.perf_counter()

    def tick() -> None:
        nonlocal last
        now = time.thread_time(), time.perf_counter()
        work.append(now[0] - last[0])
        gaps.append(now[1] - last[1])
        last = now

    timer = QTimer(panel, interval=5)
    timer.timeout.connect(tick)
    panel.session.change(registrar=Told(seconds=0.03))
    panel.run.button.click()
    last = time.thread_time(), time.perf_counter()
    timer.start()
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=30_000)
    timer.stop()
    assert len(work) > 50
    assert max(work) < 0.1
    assert np.median(gaps) < 0.1


@pytest.mark.parametrize(("width", "joint"), [(300, False), (420, False), (300, True)])
def test_nothing_is_cut_off_in_a_narrow_panel(
    viewer: Any, panel: Any, align: Any, qtbot: Any, width: int, joint: bool
) -> None:
    from qtpy.QtWidgets import QAbstractButton, QComboBox, QLabel

    align()
    if joint:  # it has a plot and a button more
        panel.session.change(registrar=Reals(model="translation"))
        panel.run.button.click()
        qtbot.waitUntil(lambda: not panel.runner.busy, timeout=60_000)
    alone = AlignStack(viewer)  # a second view of the same session, on its own, so that the screen lays it out
    qtbot.addWidget(alone)
    alone.setStyleSheet(get_stylesheet("dark"))
    alone.resize(width, 700)
    alone.show()
    alone.method.options.open()
    alone.method.form("registrar")
    qtbot.waitExposed(alone)
    qtbot.wait(200)
    inside, visible = alone.scroll.widget(), alone.scroll.viewport().width()
    assert alone.width() == width
    assert inside.width() <= visible
    checked = 0
    for child in inside.findChildren(QAbstractButton) + inside.findChildren(QComboBox) + inside.findChildren(QLabel):
        if not child.isVisible() or isinstance(child.parent(), QComboBox):
            continue
        checked += 1
        right = child.mapTo(inside, child.rect().topRight()).x()
        what = f"{type(child).__name__} {child.text() if hasattr(child, 'text') else ''!r}"
        assert right < visible, f"{what} ends at {right} of {visible} px"
        if isinstance(child, QAbstractButton) and child.text():
            words = child.fontMetrics().horizontalAdvance(child.text())
            assert words <= child.width(), f"{what} needs {words} of {child.width()} px"
        if isinstance(child, QLabel) and child.wordWrap():
            assert child.heightForWidth(child.width()) <= child.height() + 1, f"{what} is cut off below"
    assert checked > 25
    alone.shut()


def test_closing_the_panel_in_a_run_leaves_nothing_behind(viewer: Any, panel: Any, qtbot: Any) -> None:
    panel.session.change(registrar=Told(seconds=0.2))
    panel.run.button.click()
    qtbot.wait(300)
    panel.shut()
    assert not panel.session.busy
    qtbot.wait(400)
    assert panel.session.current is None


def test_help_lists_the_keys(panel: Any) -> None:
    panel.help.click()
    assert "Space" in panel.help_text.text()
    assert panel.help_text.isVisibleTo(panel)


@pytest.mark.parametrize("how", ["cross", "remove"])
def test_closing_the_dock_puts_everything_back(viewer: Any, qtbot: Any, how: str) -> None:
    layer = viewer.add_image(movie(), name="movie")
    widget = AlignStack(viewer)
    dock = viewer.window.add_dock_widget(widget, name="Align stack")
    widget.session.change(registrar=Told())
    widget.run.button.click()
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=10_000)
    viewer.dims.set_point(0, 5)
    assert not np.array_equal(affines(layer), np.eye(4))
    session = widget.session
    if how == "cross":
        dock.destroyOnClose()
    else:
        viewer.window.remove_dock_widget(widget)
    qtbot.wait(100)
    np.testing.assert_array_equal(affines(layer), np.eye(4))
    assert not any(str(key) == "Space" for key in viewer.keymap)
    viewer.dims.set_point(0, 3)
    np.testing.assert_array_equal(affines(layer), np.eye(4))
    again = AlignStack(viewer)  # what was found is still there
    assert again.session is session
    assert again.session.current is not None
    assert again.runs.list.count() == 1
    for button in (again.undo, again.redo):
        button.click()  # nobody of the panel that went away listens any more
    again.shut()
    assert not any(len(session.events[name]) for name in ("movie", "choices", "runs", "current", "job", "history"))
    again.deleteLater()
