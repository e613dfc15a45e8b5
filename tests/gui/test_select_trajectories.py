"""Plots, table and canvas are one choice; its motion is seen at once; tracks come and go."""

import time
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

from qtpy.QtCore import Qt

from stackalign.core.spots.picks import Pick
from stackalign.core.spots.registrar import ParticleTracking
from stackalign.core.spots.tracks import TrackSet
from stackalign.core.work import drain
from stackalign.pipeline import register_work
from stackalign.widgets.select_trajectories import SelectTrajectories
from tests.gui.test_pick_particles import PLACES, STEP, spots

COUNT = 10


def tracks(count: int = COUNT, particles: int = 6, walker: int | None = 4) -> TrackSet:
    """Return tracks that share a drift; one of them walks on its own."""
    rng = np.random.default_rng(2)
    scene = 20 + 60 * rng.random((particles, 2))
    drift = np.arange(count)[:, None] * STEP
    places = scene[:, None] + drift[None] + rng.normal(0, 0.02, (particles, count, 2))
    if walker is not None:
        places[walker - 1, :, 0] += 0.5 * np.arange(count)
    return TrackSet.of(places, error=0.02)


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    return make_napari_viewer()


@pytest.fixture
def panel(viewer: Any, qtbot: Any) -> Generator[SelectTrajectories, None, None]:
    from stackalign.widgets._layers import movie_of

    layer = viewer.add_image(spots(COUNT), name="spots", scale=(0.5, 0.1, 0.1), axis_labels=("t", "y", "x"))
    widget = SelectTrajectories(viewer)
    viewer.window.add_dock_widget(widget, name="Select trajectories")
    widget.session.open_movie(movie_of(layer, "tyx"))
    yield widget
    widget.shut()


def give(panel: Any, qtbot: Any, these: TrackSet) -> None:
    panel.take_tracks("a test", these)
    qtbot.waitUntil(lambda: panel.trajectories is not None and panel.trajectories.tracks is these, timeout=60_000)
    qtbot.waitUntil(lambda: not panel._thread.busy, timeout=60_000)


def test_without_tracks_it_says_what_to_do(panel: Any) -> None:
    assert "no tracks yet" in panel.about.text()
    assert panel.pick.isVisibleTo(panel)
    assert not panel.run.button.isEnabled()
    assert not panel.parts.isVisibleTo(panel)


def test_the_walker_is_suggested_and_excluded_in_one_click(panel: Any, qtbot: Any) -> None:
    give(panel, qtbot, tracks())
    assert panel.suggestion.text().startswith("Suggested to leave out: 4 (moves on its own")
    panel.follow_suggestion.click()
    assert panel.excluded == {4}
    assert panel.count.text().startswith("Motion of 5 of 6 particles; left out: 4 (moves on its own, ")
    assert not panel.follow_suggestion.isVisibleTo(panel)
    assert panel.run.button.text() == "Align 10 frames with 5 particles"
    panel.undo.click()
    assert panel.excluded == set()
    panel.redo.click()
    assert panel.excluded == {4}
    panel.include_all.click()
    assert panel.excluded == set()


def test_a_choice_anywhere_is_seen_everywhere(panel: Any, qtbot: Any) -> None:
    give(panel, qtbot, tracks())
    for part in (panel.drift, panel.table, panel.canvas):
        part.toggled.emit(3)
        assert 3 in panel.excluded
        row = next(r for r in range(6) if panel.table.item(r, 0).text() == "3")
        assert panel.table.item(row, 0).checkState() == Qt.CheckState.Unchecked
        assert panel.drift._looks[2] == (True, True)
        assert panel.residual._curves[2].opts["pen"].style() == Qt.PenStyle.DashLine
        qtbot.waitUntil(lambda: "x" in [str(s) for s in panel.canvas._points.symbol])
        panel.undo.click()
    panel.residual.chosen.emit(5)
    assert panel.chosen == 5
    assert panel.table.selectedItems()[0].text() == "5"
    assert panel.drift._looks[4] == (False, True)


def test_a_tick_in_the_table_excludes(panel: Any, qtbot: Any) -> None:
    give(panel, qtbot, tracks())
    panel.table.sortItems(3, Qt.SortOrder.DescendingOrder)
    assert panel.table.item(0, 0).text() == "4"  # the greatest residual
    panel.table.item(0, 0).setCheckState(Qt.CheckState.Unchecked)
    assert panel.excluded == {4}


def test_a_click_near_a_curve_finds_it(panel: Any, qtbot: Any) -> None:
    give(panel, qtbot, tracks())
    panel.axis.setCurrentIndex(0)  # y
    values = panel.trajectories.drift[3, :, 0]
    assert panel.drift.curve_at(8, float(values[8])) == 4
    assert panel.drift.curve_at(8, float(values[8]) + 100) is None


def test_no_particle_left_is_said(panel: Any, qtbot: Any) -> None:
    give(panel, qtbot, tracks())
    panel.exclude(range(1, 7))
    assert panel.count.text().endswith("include one at least")
    assert not panel.run.button.isEnabled()
    assert panel.run.button.toolTip() == "Include one particle at least"


def test_the_motion_follows_a_choice_at_once_and_exactly(panel: Any, qtbot: Any) -> None:
    give(panel, qtbot, tracks())
    panel.toggle(4)
    draft = panel.motion.motion
    assert draft is not None
    qtbot.waitUntil(lambda: not panel._thread.busy, timeout=20_000)
    exact = panel.motion.motion
    assert exact is not draft
    np.testing.assert_allclose(draft.drift, exact.drift, atol=0.02)
    np.testing.assert_allclose(np.diff(exact.drift, axis=0), np.tile(STEP, (COUNT - 1, 1)), atol=0.1)


@pytest.mark.slow
def test_fifty_particles_through_five_thousand_frames_change_within_a_tenth_of_a_second(
    viewer: Any, panel: Any, qtbot: Any
) -> None:
    from stackalign.widgets._layers import movie_of

    layer = viewer.add_image(np.zeros((5000, 8, 8), np.uint8), name="long", axis_labels=("t", "y", "x"))
    panel.session.open_movie(movie_of(layer, "tyx"))
    give(panel, qtbot, tracks(5000, 50, None))
    taken = []
    for number in (3, 7, 9, 3, 7, 9, 11):
        qtbot.waitUntil(lambda: not panel._thread.busy, timeout=60_000)
        begun = time.process_time()  # what it takes, whatever else runs on the machine
        panel.toggle(number)
        taken.append(time.process_time() - begun)
    assert sorted(taken)[len(taken) // 2] < 0.1


def test_aligning_gives_what_the_method_gives_to_the_bit(panel: Any, qtbot: Any, tmp_path: Any) -> None:
    stack = panel.session.stack
    boxes = [(y - 8, y + 9, x - 8, x + 9) for y, x in np.round(PLACES).astype(int)]
    registrar = ParticleTracking(picks=tuple(Pick(id=k, bounds=box) for k, box in enumerate(boxes, 1)), exclude=(2,))
    whole = drain(register_work(stack, registrar)).unwrap()
    particles = panel.particles.with_registrar(registrar)
    panel.session.change_particles("test", particles.with_tracks(whole.details["tracks"]))
    qtbot.waitUntil(lambda: panel.run.button.isEnabled(), timeout=20_000)
    assert panel.run.button.text() == "Align 10 frames with 3 particles"
    panel.run.button.click()
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=20_000)
    run = panel.session.current
    np.testing.assert_array_equal(run.registration.transforms.matrices, whole.transforms.matrices)
    assert run.choices.registrar == registrar
    assert panel.sentence.text().startswith("Aligned 10 frames")
    assert panel.next.isVisibleTo(panel)
    panel.files.save_script_output(str(tmp_path))
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=20_000)
    assert panel.message.text() == f"Saved {tmp_path / 'script_output'}."
    assert len(list((tmp_path / "script_output" / "aligned").glob("*.tif"))) == COUNT


def test_tables_and_picture_are_written(panel: Any, qtbot: Any, tmp_path: Any) -> None:
    import pandas as pd

    give(panel, qtbot, tracks())
    panel.toggle(4)
    panel.files.save_tables(str(tmp_path / "out.csv"))
    average = pd.read_csv(tmp_path / "out_average.csv")
    assert (average["particles"] == 5).all()
    np.testing.assert_allclose(np.diff(average["drift_y_px"]), STEP[0], atol=0.1)
    particles = pd.read_csv(tmp_path / "out_particles.csv")
    assert particles["included"].tolist() == [True, True, True, False, True, True]
    panel.files.save_picture(str(tmp_path / "out.png"))
    assert (tmp_path / "out.png").stat().st_size > 10_000


def test_tracks_go_into_a_layer_and_come_back(panel: Any, viewer: Any, qtbot: Any) -> None:
    these = tracks()
    give(panel, qtbot, these)
    panel.files.add_layer()
    layer = viewer.layers["spots [tracks]"]
    panel.session.undo()
    assert panel.trajectories is None
    panel.files.take_layer(layer)
    qtbot.waitUntil(lambda: panel.trajectories is not None, timeout=20_000)
    again: Any = panel.trajectories
    np.testing.assert_allclose(again.tracks.position, these.position, atol=1e-4)


def test_a_table_without_its_columns_is_an_error(panel: Any, tmp_path: Any) -> None:
    from qtpy.QtWidgets import QApplication

    from stackalign.widgets._errors import ErrorDialog

    path = tmp_path / "wrong.csv"
    path.write_text("a,b\n1,2\n")
    panel.files.open_tracks(str(path))
    (dialog,) = [w for w in QApplication.topLevelWidgets() if isinstance(w, ErrorDialog) and w.isVisible()]
    assert "wrong.csv" in dialog.message.text()
    assert "frame" in dialog.message.text()
    dialog.close()
