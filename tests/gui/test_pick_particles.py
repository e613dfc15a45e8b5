"""Picking with a fit that follows the mouse, undo, files, and following the picks through the movie."""

import json
import time
from collections.abc import Generator
from threading import Event
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

from stackalign.core.geometry import Box
from stackalign.core.spots.gaussian import GaussianSpot
from stackalign.picking import follow_work
from stackalign.widgets._errors import ErrorDialog
from stackalign.widgets.pick_particles import PickParticles

PLACES = np.array([[30.3, 40.6], [70.7, 25.2], [60.1, 90.4], [25.8, 100.1]])
STEP = np.array([0.4, -0.3])  # pixels a frame
SCALE, OFFSET = 0.1, (5.0, 7.0)


def spots(count: int = 10, shape: tuple[int, int] = (100, 130)) -> np.ndarray:
    """Return frames of four spots that drift together, with noise."""
    rng = np.random.default_rng(5)
    frames = []
    for t in range(count):
        image = np.full(shape, 100.0)
        for place in PLACES + t * STEP:
            image += GaussianSpot(800.0, place, np.array([2.0, 2.0])).image(shape)
        frames.append(rng.poisson(image))
    return np.stack(frames).astype(np.uint16)


def world(y: float, x: float, frame: int = 0) -> tuple[float, float, float]:
    return (frame * 0.5, OFFSET[0] + SCALE * y, OFFSET[1] + SCALE * x)


def wait(panel: Any, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: panel.ready, timeout=60_000)


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    return make_napari_viewer()


@pytest.fixture
def panel(viewer: Any, qtbot: Any) -> Generator[PickParticles, None, None]:
    viewer.add_image(
        spots(), name="spots", scale=(0.5, SCALE, SCALE), translate=(0, *OFFSET), units=("s", "um", "um"),
        axis_labels=("t", "y", "x"),
    )  # fmt: skip
    widget = PickParticles(viewer)
    viewer.window.add_dock_widget(widget, name="Pick particles")
    viewer.dims.set_point(0, 0)
    wait(widget, qtbot)
    yield widget
    widget.shut()


def test_a_click_beside_a_particle_finds_its_box_and_fit(panel: Any) -> None:
    panel.pick_at((32.0, 38.0))
    (pick,) = panel.particles.picks
    fit = panel.fit_of(pick)
    assert fit
    np.testing.assert_allclose(fit.position, PLACES[0], atol=0.1)
    assert panel.fit_view.verdict.text() == "✓ Particle 1: good fit"
    assert "± " in panel.fit_view.numbers.text()
    assert "nm" in panel.fit_view.numbers.text()
    assert panel.fit_view.patches.patches is not None
    assert panel.table.rowCount() == 1
    assert panel.table.item(0, 6).text() == "✓"
    assert panel.run.button.text() == "Track 1 particle through 10 frames"


def test_a_click_on_nothing_is_rejected_with_the_reason(panel: Any) -> None:
    panel.pick_at((90.0, 60.0))
    assert panel.fit_view.verdict.text().startswith("✗ Particle 1: ")
    assert len(panel.fit_view.verdict.text()) > 30
    assert panel.table.item(0, 6).text() == "✗"
    assert panel.canvas.boxes[0].state == "bad"


def test_the_same_particle_is_not_picked_twice(panel: Any) -> None:
    panel.pick_at((30.0, 41.0))
    panel.pick_at((31.5, 39.5))
    assert len(panel.particles.picks) == 1
    assert panel.message.text() == "That is particle 1."


def test_suggest_proposes_all_four_and_undo_takes_them_back(panel: Any, qtbot: Any) -> None:
    panel.count.setValue(6)
    panel.suggest.click()
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=20_000)
    assert len(panel.particles.picks) == 4
    assert "no more stand out" in panel.message.text()
    panel.undo.click()
    assert panel.particles.picks == ()
    assert panel.canvas.boxes == ()
    panel.redo.click()
    assert len(panel.canvas.boxes) == 4


def test_the_fit_follows_the_mouse_within_a_frame_of_interaction(panel: Any, qtbot: Any) -> None:
    panel.pick.setChecked(True)
    panel.canvas.hovered.emit((30.0, 40.0))
    qtbot.waitUntil(lambda: panel.fit_view.verdict.text() == "✓ Under the mouse: good fit")
    taken = []
    for k in range(20):
        panel.mouse.position = (30.0 + 0.2 * k, 40.0)
        begun = time.process_time()  # what it takes, whatever else runs on the machine
        panel.mouse.fit()
        taken.append(time.process_time() - begun)
    assert sorted(taken)[len(taken) // 2] < 0.05
    assert panel.canvas.boxes[-1].state == "live"
    panel.pick.setChecked(False)
    assert panel.canvas.boxes == ()


def test_many_moves_of_the_mouse_are_few_fits(panel: Any, qtbot: Any, monkeypatch: Any) -> None:
    panel.pick.setChecked(True)
    count = []
    monkeypatch.setattr(panel, "show_fit", lambda fit: count.append(fit))
    for k in range(500):
        panel.canvas.hovered.emit((30.0, 40.0 + 0.01 * k))
    qtbot.waitUntil(lambda: len(count) > 0)
    assert len(count) < 10


def test_drag_moves_and_resizes_in_one_step_of_undo(panel: Any) -> None:
    panel.pick_at(tuple(PLACES[0]))
    before = panel.particles.picks[0].box
    for shift in ((1.0, 0.0), (2.2, 1.0), (3.0, 2.0)):
        panel.canvas.dragged.emit(1, "move", shift, False)
    panel.canvas.dragged.emit(1, "move", (3.0, 2.0), True)
    moved = panel.particles.picks[0].box
    assert (moved.start[0] - before.start[0], moved.start[1] - before.start[1]) == (3, 2)
    assert moved.shape == before.shape
    assert panel.fit_of(panel.particles.picks[0]) is not None
    panel.canvas.dragged.emit(1, "bottom-right", (4.0, -3.0), False)
    panel.canvas.dragged.emit(1, "bottom-right", (4.0, -3.0), True)
    assert panel.particles.picks[0].box.shape == (before.shape[0] + 4, before.shape[1] - 3)
    panel.undo.click()
    assert panel.particles.picks[0].box == moved
    panel.undo.click()
    assert panel.particles.picks[0].box == before


def test_a_border_does_not_pass_the_opposite_one(panel: Any) -> None:
    panel.pick_at(tuple(PLACES[0]))
    panel.canvas.dragged.emit(1, "top-left", (500.0, 500.0), True)
    assert panel.particles.picks[0].box.shape == (5, 5)


def test_a_drawn_box_is_a_pick(panel: Any) -> None:
    panel.canvas.drawing.emit((24.0, 33.0), (30.0, 40.0), False)
    assert panel.canvas.boxes[-1].state == "live"
    panel.canvas.drawing.emit((24.0, 33.0), (37.0, 48.0), True)
    (pick,) = panel.particles.picks
    assert pick.box == Box(24, 38, 33, 49)


def test_keys_nudge_grow_and_delete(panel: Any, viewer: Any) -> None:
    panel.pick_at(tuple(PLACES[0]))
    panel.pick_at(tuple(PLACES[1]))
    box = panel.particles.picks[1].box
    panel.nudge(-1, 0)
    panel.nudge(-1, 0)
    panel.grow(1)
    changed = panel.particles.picks[1].box
    assert changed.start == (box.start[0] - 3, box.start[1] - 1)
    panel.delete()
    assert [p.id for p in panel.particles.picks] == [1]
    assert panel.chosen == 1
    panel.undo.click()
    assert [p.id for p in panel.particles.picks] == [1, 2]


def test_a_particle_is_picked_anew_where_the_mouse_is(panel: Any) -> None:
    panel.pick_at(tuple(PLACES[0]))
    box = panel.particles.picks[0].box
    panel.mouse.position = tuple(PLACES[1] + 1.0)
    panel.pick_anew()
    (pick,) = panel.particles.picks
    np.testing.assert_allclose(panel.fit_of(pick).position, PLACES[1], atol=0.1)
    panel.undo.click()
    assert panel.particles.picks[0].box == box


def test_following_ends_in_a_sentence_and_boxes_that_follow(panel: Any, viewer: Any, qtbot: Any) -> None:
    for place in PLACES[:3]:
        panel.pick_at(tuple(place))
    panel.run.button.click()
    assert panel.run.progress.isVisibleTo(panel)
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=20_000)
    tracks = panel.particles.tracks
    assert tracks.found.all()
    np.testing.assert_allclose(np.diff(tracks.position, axis=1).mean(1), np.tile(STEP, (3, 1)), atol=0.05)
    assert panel.sentence.text() == ("Followed 3 particles through 10 frames: 3 found in at least 95% of the frames.")
    assert panel.next.isVisibleTo(panel)
    assert panel.table.item(0, 5).text() == "10"
    viewer.dims.set_point(0, 9 * 0.5)
    wait(panel, qtbot)
    np.testing.assert_allclose(panel.canvas.boxes[0].centre, PLACES[0] + 9 * STEP, atol=0.15)
    assert panel.fit_view.verdict.text().endswith("good fit")
    panel.delete()
    assert panel.run.button.text().startswith("Follow again 2")


def test_cancel_while_following(panel: Any, qtbot: Any, monkeypatch: Any) -> None:
    cancelled = Event()  # ten frames may be done before the second click

    def waiting(*given: Any) -> Any:
        cancelled.wait(5)
        return (yield from follow_work(*given))

    monkeypatch.setattr("stackalign.widgets.pick_particles.follow_work", waiting)
    panel.pick_at(tuple(PLACES[0]))
    panel.run.button.click()
    panel.run.stop.click()
    cancelled.set()
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=5000)
    assert "ancelled" in panel.message.text() + panel.sentence.text()
    assert panel.run.button.isEnabled()


def test_picks_are_saved_and_opened(panel: Any, qtbot: Any, tmp_path: Any) -> None:
    for place in PLACES:
        panel.pick_at(tuple(place))
    picks = panel.particles.picks
    path = tmp_path / "picks.json"
    panel.files.save_picks(str(path))
    panel.delete_all()
    panel.files.open_picks(str(path))
    assert panel.particles.picks == picks


def test_a_file_of_several_image_sets_asks_which(panel: Any, tmp_path: Any) -> None:
    y, x = np.round(PLACES[0]).astype(int).tolist()
    box = {"bbox": [x - 7, y - 7, x + 8, y + 8], "particle_id": 4}
    sets = [{"folder_path": f"/data/{name}", "selected_particles": [box]} for name in ("monday", "friday")]
    path = tmp_path / "sets.json"
    path.write_text(json.dumps({"image_sets": sets}))
    panel.files.open_picks(str(path))
    assert panel.message.text() == "sets.json holds 2 image sets: choose one."
    assert panel.files.sets.isVisible()
    assert not panel.particles.picks
    words = {action.text(): action for action in panel.files.sets.actions() if not action.isSeparator()}
    assert set(words) == {"monday", "friday"}
    words["friday"].trigger()
    panel.files.sets.close()
    assert [pick.id for pick in panel.particles.picks] == [4]


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "other"}', json.dumps({"image_sets": []})])
def test_a_bad_file_of_picks_is_an_error_and_changes_nothing(panel: Any, qtbot: Any, tmp_path: Any, text: str) -> None:
    from qtpy.QtWidgets import QApplication

    panel.pick_at(tuple(PLACES[0]))
    path = tmp_path / "bad.json"
    path.write_text(text)
    panel.files.open_picks(str(path))
    (dialog,) = [w for w in QApplication.topLevelWidgets() if isinstance(w, ErrorDialog) and w.isVisible()]
    assert "bad.json" in dialog.message.text()
    dialog.close()
    assert len(panel.particles.picks) == 1


def test_picks_go_into_the_choices_of_the_particle_method(panel: Any) -> None:
    session = panel.session
    session.change(registrar=session.particles.registrar)
    panel.pick_at(tuple(PLACES[0]))
    assert session.choices.registrar.picks == session.particles.picks
    session.undo()
    assert session.choices.registrar.picks == ()


def test_a_time_range_moves_the_frames_of_picks(panel: Any, viewer: Any, qtbot: Any) -> None:
    viewer.dims.set_point(0, 4 * 0.5)
    wait(panel, qtbot)
    panel.pick_at(tuple(PLACES[0] + 4 * STEP))
    panel.session.change(frames=(3, 9))
    assert panel.particles.picks[0].frame == 1
    assert panel.fit_of(panel.particles.picks[0])
    panel.session.undo()
    assert panel.particles.picks[0].frame == 4


def test_another_movie_has_no_picks(panel: Any, viewer: Any, qtbot: Any) -> None:
    panel.pick_at(tuple(PLACES[0]))
    viewer.add_image(spots(5), name="other", axis_labels=("t", "y", "x"))
    qtbot.waitUntil(lambda: panel.movie.layers.count() == 2)
    panel.movie.layers.setCurrentText("other")
    assert panel.particles.picks == ()
    panel.undo.click()
    assert len(panel.particles.picks) == 1


def test_boxes_stay_on_the_movie_while_it_is_previewed(panel: Any, viewer: Any) -> None:
    panel.pick_at(tuple(PLACES[0]))
    layer, boxes = viewer.layers["spots"], viewer.layers["particle boxes"]
    assert np.allclose(boxes.data_to_world((30.0, 40.0)), world(30.0, 40.0)[1:])
    moved = np.eye(4)
    moved[1:3, 3] = 0.7, -0.4
    layer.affine = moved
    np.testing.assert_allclose(boxes.data_to_world((30.0, 40.0)), layer.data_to_world((0, 30.0, 40.0))[1:])


def test_closing_takes_the_drawing_off(panel: Any, viewer: Any) -> None:
    panel.pick_at(tuple(PLACES[0]))
    assert {"particle boxes", "particles"} <= {layer.name for layer in viewer.layers}
    panel.shut()
    assert [layer.name for layer in viewer.layers] == ["spots"]
    assert panel.canvas._on_drag not in viewer.mouse_drag_callbacks
    assert panel.canvas._on_move not in viewer.mouse_move_callbacks
