"""One layer laid on another in napari's world: sizes, units and places differ, and the known truth comes out."""

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

from napari.qt import get_stylesheet
from qtpy.QtWidgets import QAbstractButton, QComboBox, QLabel

from stackalign.widgets._pair_layers import pixel_to_world
from stackalign.widgets.register_layers import RegisterLayers

STEP = 0.1  # µm between the points of the scene


def scene(size: int = 420, depth: int = 0) -> np.ndarray:
    rng = np.random.default_rng(5)
    shape = (depth, size, size) if depth else (size, size)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 3)
    return smooth / smooth.std() * 100 + 500


SCENE = scene()


def view(shape: tuple[int, int], pixel: float, angle: float, middle: tuple[float, float], seed: int = 0) -> Any:
    """Return an image of the scene, and its pixels -> scene (µm) as a matrix."""
    turn = np.deg2rad(angle)
    linear = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * pixel
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = np.array(middle) - linear @ ((np.array(shape) - 1) / 2)
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ linear.T + matrix[:2, 2]
    image = ndimage.map_coordinates(SCENE, np.moveaxis(points / STEP, -1, 0), order=3)
    return image + np.random.default_rng(seed).normal(0, 10, shape), matrix


REFERENCE, TRUE_REFERENCE = view((150, 170), 0.1, 0, (20, 20))
MOVING, TRUE_MOVING = view((90, 100), 0.16, 17, (20.5, 19.5), seed=1)


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    return make_napari_viewer()


@pytest.fixture
def panel(viewer: Any, qtbot: Any) -> Generator[RegisterLayers, None, None]:
    widget = RegisterLayers(viewer)
    viewer.window.add_dock_widget(widget, name="Register two layers")
    yield widget
    widget.shut()


def two_layers(viewer: Any, panel: Any, **own: Any) -> Any:
    """Add reference and moving layer, calibrated and placed as two microscopes would, and choose them."""
    fixed = viewer.add_image(REFERENCE, name="wide", scale=(0.1, 0.1), translate=(3, 4), units=("um", "um"))
    given = {"scale": (160.0, 160.0), "translate": (-5000, 90_000), "units": ("nm", "nm"), **own}
    data = given.pop("data", MOVING)
    free = viewer.add_image(data, name="detail", **given)
    panel.choose(free, fixed)
    return free, fixed


def register(panel: Any, qtbot: Any) -> None:
    assert panel.run.button.isEnabled(), panel.run.button.toolTip()
    panel.run.button.click()
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=60_000)


def miss(viewer: Any, free: Any, fixed: Any, moving: Any = TRUE_MOVING, reference: Any = TRUE_REFERENCE) -> float:
    """Return how far the moving layer's corners lie from where they belong, pixels of the reference."""
    lies = np.linalg.inv(plane(viewer, fixed)) @ plane(viewer, free)
    truth = np.linalg.inv(reference) @ moving
    h, w = free.data.shape[-2:]
    corners = np.array([[0, 0, 1], [h - 1, 0, 1], [0, w - 1, 1], [h - 1, w - 1, 1]]).T
    return float(np.abs((lies @ corners - truth @ corners)[:2]).max())


def plane(viewer: Any, layer: Any) -> np.ndarray:
    """Return a layer's pixels -> world, of y and x alone."""
    return pixel_to_world(viewer, layer)[-3:, -3:]


def test_without_two_layers_it_says_what_is_missing(panel: Any, viewer: Any, qtbot: Any) -> None:
    assert not panel.run.button.isEnabled()
    assert panel.run.button.toolTip() == "Two image layers are needed: open or add another one"
    viewer.add_image(REFERENCE, name="wide")
    qtbot.wait(50)
    assert not panel.run.button.isEnabled()
    viewer.add_image(MOVING, name="detail")
    qtbot.wait(50)
    assert panel.run.button.isEnabled()
    panel.pair.reference.setCurrentText(panel.pair.moving.currentText())
    assert panel.run.button.toolTip() == "Moving and reference are the same layer: choose two"


def test_pixel_sizes_units_and_places_may_differ(panel: Any, viewer: Any, qtbot: Any) -> None:
    free, fixed = two_layers(viewer, panel)
    assert panel.run.button.text() == "Register “detail” to “wide”"
    register(panel, qtbot)
    assert panel.verdict.text().startswith("Right: probability")
    assert miss(viewer, free, fixed) < 0.1
    assert "turn" in panel.details.text()
    assert "µm" in panel.details.text()  # of the reference, though napari's world takes the smaller unit
    # rigid in physical units: the affine turns and shifts, but neither stretches nor shears
    linear = free.affine.affine_matrix[:2, :2]
    np.testing.assert_allclose(linear @ linear.T, np.eye(2), atol=1e-9)
    np.testing.assert_array_equal(free.scale, (160, 160))


def test_it_can_be_undone_made_again_and_looked_at_before(panel: Any, viewer: Any, qtbot: Any) -> None:
    free, _ = two_layers(viewer, panel)
    own = free.affine.affine_matrix.copy()
    register(panel, qtbot)
    found = free.affine.affine_matrix.copy()
    assert panel.undo.toolTip() == "Undo: register detail to wide"
    panel.before.click()
    np.testing.assert_array_equal(free.affine.affine_matrix, own)
    panel.before.click()
    np.testing.assert_array_equal(free.affine.affine_matrix, found)
    panel.undo.click()
    np.testing.assert_array_equal(free.affine.affine_matrix, own)
    assert not panel.before.isEnabled()
    panel.redo.click()
    np.testing.assert_array_equal(free.affine.affine_matrix, found)
    panel.shut()
    panel.session.undo()  # from another panel
    np.testing.assert_array_equal(free.affine.affine_matrix, own)


def test_a_manual_place_is_refined(panel: Any, viewer: Any, qtbot: Any) -> None:
    free, fixed = two_layers(viewer, panel, units=("um", "um"), scale=(0.16, 0.16), translate=(0, 0))
    wanted = pixel_to_world(viewer, fixed) @ np.linalg.inv(TRUE_REFERENCE) @ TRUE_MOVING
    by_hand = np.eye(3)
    by_hand[:2, 2] = 0.3, -0.25
    free.affine = by_hand @ wanted @ np.diag([1 / 0.16, 1 / 0.16, 1])
    assert miss(viewer, free, fixed) > 2
    panel.how.beginning.setCurrentText("from where they lie")
    panel.how.form.rows["max_rotation"].editor.value = 1.0  # the 17 degrees are in the manual place
    register(panel, qtbot)
    assert miss(viewer, free, fixed) < 0.1


def test_the_frame_on_show_is_registered_and_the_whole_stack_moves(panel: Any, viewer: Any, qtbot: Any) -> None:
    noise = np.random.default_rng(3).normal(500, 100, MOVING.shape)
    stack = np.stack([noise, MOVING, noise[::-1]])
    free, fixed = two_layers(
        viewer, panel, data=stack, scale=(2, 160, 160), translate=(0, -5000, 90_000), units=("s", "nm", "nm"),
        axis_labels=("t", "y", "x"),
    )  # fmt: skip
    viewer.dims.set_point(0, 2.0)  # frame 1
    register(panel, qtbot)
    assert not panel.pairing.refused
    assert miss(viewer, free, fixed) < 0.1
    np.testing.assert_array_equal(free.affine.affine_matrix[0], (1, 0, 0, 0))
    panel.add.click()
    added = viewer.layers["detail [registered]"]
    assert added.data.shape == (3, *REFERENCE.shape)
    frame = np.asarray(added.data[1])
    both = frame != 0
    assert np.corrcoef(frame[both], REFERENCE[both])[0, 1] > 0.95
    np.testing.assert_allclose(pixel_to_world(viewer, added)[1:, 1:], pixel_to_world(viewer, fixed), rtol=1e-9)
    assert not free.visible
    assert added.data.dtype == stack.dtype
    viewer.dims.set_point(0, 0.0)
    register(panel, qtbot)
    assert panel.pairing.refused


def test_what_shows_nothing_in_common_is_refused_with_advice(panel: Any, viewer: Any, qtbot: Any) -> None:
    noise = np.random.default_rng(3).normal(500, 100, MOVING.shape)
    free, _ = two_layers(viewer, panel, data=noise)
    own = free.affine.affine_matrix.copy()
    register(panel, qtbot)
    assert panel.verdict.text().startswith("Refused: ")
    assert panel.details.text().startswith("Try this:\n• ")
    np.testing.assert_array_equal(free.affine.affine_matrix, own)
    assert not panel.add.isEnabled()
    assert not panel.undo.isEnabled()


def test_an_unknown_pixel_size_is_said_and_found_with_a_model_that_scales(panel: Any, viewer: Any, qtbot: Any) -> None:
    free, fixed = two_layers(viewer, panel, scale=(1, 1), translate=(0, 0), units=("pixel", "pixel"))
    assert "pixel size of “detail” is not known" in panel.how.hint.text()
    panel.how.choose_model("similarity")
    panel.how.form.rows["max_scale"].editor.value = 2.0
    register(panel, qtbot)
    assert not panel.pairing.refused
    assert miss(viewer, free, fixed) < 0.1


def test_a_shape_or_labels_say_what_counts(panel: Any, viewer: Any, qtbot: Any) -> None:
    spoiled = REFERENCE.copy()
    spoiled[:, 110:] = np.random.default_rng(8).normal(500, 600, spoiled[:, 110:].shape)
    free, fixed = two_layers(viewer, panel)
    fixed.data = spoiled
    corners = np.array([[0, 0], [0, 100], [149, 100], [149, 0]]) * 0.1 + (3, 4)
    viewer.add_shapes([corners], name="good part", units=("um", "um"))
    labels = np.zeros(REFERENCE.shape, np.uint8)
    labels[:, :100] = 2
    viewer.add_labels(labels, name="cells", scale=(0.1, 0.1), translate=(3, 4), units=("um", "um"))
    viewer.add_labels(np.zeros_like(labels), name="empty", scale=(0.1, 0.1), units=("um", "um"))
    qtbot.wait(50)
    from stackalign.widgets._pair_layers import mask_in, pair_image

    image = pair_image(viewer, fixed, False)
    for name in ("good part", "cells"):
        mask = mask_in(viewer, viewer.layers[name], fixed, image, False)
        assert mask[:, :99].all()
        assert not mask[:, 102:].any()
        panel.pair.inside.setCurrentText(name)
        register(panel, qtbot)
        assert miss(viewer, free, fixed) < 0.15
        panel.undo.click()
    with pytest.raises(ValueError, match="nothing in “empty” lies on “wide”"):
        mask_in(viewer, viewer.layers["empty"], fixed, image, False)


def test_colours_and_channels_can_be_chosen(panel: Any, viewer: Any, qtbot: Any) -> None:
    noise = np.random.default_rng(3).normal(500, 100, MOVING.shape)
    colours = np.clip(np.stack([noise, MOVING, noise], -1) / 4, 0, 255).astype(np.uint8)
    free, fixed = two_layers(viewer, panel, data=colours, rgb=True)
    assert [panel.pair.channel.itemText(k) for k in range(4)] == ["brightness", "red", "green", "blue"]
    panel.pair.channel.setCurrentText("green")
    register(panel, qtbot)
    lies = np.linalg.inv(pixel_to_world(viewer, fixed)) @ pixel_to_world(viewer, free)
    np.testing.assert_allclose(lies, np.linalg.inv(TRUE_REFERENCE) @ TRUE_MOVING, atol=0.1)
    panel.add.click()
    assert viewer.layers["detail [registered]"].data.shape == (*REFERENCE.shape, 3)


def test_a_reference_that_is_turned_and_scaled_by_the_user_stays_where_it_is(
    panel: Any, viewer: Any, qtbot: Any
) -> None:
    free, fixed = two_layers(viewer, panel)
    fixed.affine = np.array([[0.9, -0.4, 2], [0.4, 0.9, -3], [0, 0, 1]])
    there = fixed.affine.affine_matrix.copy()
    panel.how.choose_model("similarity")
    register(panel, qtbot)
    np.testing.assert_array_equal(fixed.affine.affine_matrix, there)
    assert miss(viewer, free, fixed) < 0.1
    panel.add.click()
    added = viewer.layers["detail [registered]"]
    np.testing.assert_allclose(pixel_to_world(viewer, added), pixel_to_world(viewer, fixed), atol=1e-6)


def test_a_shift_between_equal_pixels_is_found_by_cross_correlation(panel: Any, viewer: Any, qtbot: Any) -> None:
    fixed = viewer.add_image(REFERENCE[:120, :130], name="a")
    free = viewer.add_image(REFERENCE[20:, 30:], name="b")
    panel.choose(free, fixed)
    panel.how.choose_model("translation")
    panel.how.method.setCurrentText("Cross-correlation")
    register(panel, qtbot)
    np.testing.assert_allclose(free.affine.affine_matrix[:2, 2], (20, 30), atol=0.02)
    assert "px" in panel.details.text()


def test_volumes_are_registered_in_three_dimensions(panel: Any, viewer: Any, qtbot: Any) -> None:
    volume = scene(80, 24)
    moved = np.roll(volume, (2, -5, 7), (0, 1, 2))[:, 8:-8, 8:-8]
    fixed = viewer.add_image(volume, name="a", scale=(0.5, 0.1, 0.1), units=["um"] * 3, axis_labels=("z", "y", "x"))
    free = viewer.add_image(moved, name="b", scale=(0.5, 0.1, 0.1), units=["um"] * 3, axis_labels=("z", "y", "x"))
    panel.choose(free, fixed)
    assert panel.pair.volumes.isVisibleTo(panel)
    assert panel.pair.volumes.isChecked()
    panel.how.choose_model("translation")
    register(panel, qtbot)
    assert not panel.pairing.refused, panel.verdict.text()
    np.testing.assert_allclose(free.affine.affine_matrix[:3, 3], (-1.0, 1.3, 0.1), atol=0.03)


def test_the_picture_shows_both_and_the_canvas_gives_their_look_back(panel: Any, viewer: Any, qtbot: Any) -> None:
    free, fixed = two_layers(viewer, panel, colormap="viridis", opacity=0.7)
    register(panel, qtbot)
    qtbot.waitUntil(lambda: panel.view.comparison is not None and panel.view.comparison.shared > 0.5, timeout=10_000)
    both = panel.view.comparison
    overlay = both.picture("overlay")
    np.testing.assert_array_equal(overlay[..., 0], overlay[..., 2])
    board = both.picture("checkerboard", 2)
    seen = np.isfinite(both.moving)
    first, second = seen[:, : seen.shape[1] // 2], seen[:, seen.shape[1] // 2 :]
    rows, half = slice(0, seen.shape[0] // 2), seen.shape[1] // 2
    np.testing.assert_array_equal(board[rows, :half], both.picture("reference")[rows, :half])
    np.testing.assert_array_equal(board[rows, half:][second[rows]], both.picture("moving")[rows, half:][second[rows]])
    np.testing.assert_array_equal(board[~seen], both.picture("reference")[~seen])  # nothing is left black
    assert first.any()
    for look in ("checkerboard", "blink", "moving", "reference", "overlay"):
        panel.view.set_look(look)
        assert panel.view.squares.isVisibleTo(panel) is (look == "checkerboard")
        assert panel.view._timer.isActive() is (look == "blink")
    panel.on_canvas.setChecked(True)
    assert (free.colormap.name, fixed.colormap.name) == ("magenta", "green")
    panel.on_canvas.setChecked(False)
    assert (free.colormap.name, fixed.colormap.name) == ("viridis", "gray")
    assert free.opacity == 0.7
    assert free.blending == "translucent_no_depth" or free.blending == fixed.blending or free.blending != "additive"


def test_a_preview_of_another_panel_is_neither_registered_nor_does_it_forget_the_place(
    panel: Any, viewer: Any, qtbot: Any
) -> None:
    from stackalign.widgets._preview import FrameCursor, Preview

    movie = np.stack([MOVING, MOVING])
    free, _ = two_layers(viewer, panel, data=movie, scale=(1, 160, 160), translate=(0, 0, 0), units=("s", "nm", "nm"))
    cursor = FrameCursor(viewer)
    cursor.follow(free, "tyx")
    preview = Preview(cursor)
    preview.load([free], "tyx", np.stack([np.eye(3), np.eye(3)]))
    preview.show(True)
    panel.show_ready()
    assert panel.run.button.toolTip().startswith("“detail” is shown aligned: switch the preview")
    preview.show(False)
    panel.show_ready()
    register(panel, qtbot)
    found = free.affine.affine_matrix.copy()
    assert not np.allclose(found, np.eye(4))
    preview.show(True)
    np.testing.assert_allclose(free.affine.affine_matrix, found)
    preview.show(False)
    np.testing.assert_array_equal(free.affine.affine_matrix, found)
    preview.close()
    cursor.close()


def test_an_error_is_shown_and_a_layer_that_left_is_noticed(panel: Any, viewer: Any, qtbot: Any) -> None:
    from qtpy.QtWidgets import QApplication

    from stackalign.widgets._errors import ErrorDialog

    two_layers(viewer, panel, data=np.full((60, 60), 7.0))
    register(panel, qtbot)
    (dialog,) = [w for w in QApplication.topLevelWidgets() if isinstance(w, ErrorDialog) and w.isVisible()]
    assert "“detail” is the same everywhere" in dialog.message.text()
    dialog.close()
    viewer.layers["detail"].data = MOVING
    panel.run.button.click()
    viewer.layers["detail"].translate = (0, 0)
    viewer.layers["detail"].affine = np.diag([2.0, 2.0, 1.0])
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=60_000)
    assert "moved or removed meanwhile" in panel.message.text()


def test_it_fits_three_hundred_pixels(panel: Any, viewer: Any, qtbot: Any) -> None:
    two_layers(viewer, panel)
    alone = RegisterLayers(viewer)  # on its own, so that the screen lays it out
    qtbot.addWidget(alone)
    alone.setStyleSheet(get_stylesheet("dark"))
    alone.resize(300, 700)
    alone.show()
    alone.how.options.open()
    alone.view.set_look("checkerboard")
    qtbot.waitExposed(alone)
    qtbot.wait(200)
    inside, visible = alone.scroll.widget(), alone.scroll.viewport().width()
    assert alone.width() == 300
    assert inside.width() <= visible
    for child in inside.findChildren(QAbstractButton) + inside.findChildren(QComboBox) + inside.findChildren(QLabel):
        if child.isVisible() and not isinstance(child.parent(), QComboBox):
            right = child.mapTo(inside, child.rect().topRight()).x()
            assert right < visible, f"{type(child).__name__} ends at {right} of {visible} px"
            if isinstance(child, QAbstractButton) and child.text():
                assert child.fontMetrics().horizontalAdvance(child.text()) <= child.width(), child.text()
    alone.shut()
    panel.run.button.resize(200, 30)
    viewer.layers["detail"].name = "a layer with a very long name indeed"
    qtbot.wait(50)
    panel.show_ready()
    words = panel.run.button.text()
    assert words.startswith("Register “a l")
    assert "…" in words
    assert "a layer with a very long name indeed" in panel.run.button.toolTip()


def test_learnt_features_are_offered_for_every_model_and_lay_a_negative_on_its_image(
    panel: Any, viewer: Any, qtbot: Any
) -> None:
    pytest.importorskip("torch")
    free, fixed = two_layers(viewer, panel, data=1000 - MOVING)
    for model in ("translation", "euclidean", "similarity", "affine", "projective"):
        panel.how.choose_model(model)
        assert panel.how.method.findData("deep") >= 0, model
    panel.how.choose_model("euclidean")
    panel.how.method.setCurrentIndex(panel.how.method.findData("deep"))
    register(panel, qtbot)
    assert panel.verdict.text().startswith("Right: probability"), panel.verdict.text()
    assert miss(viewer, free, fixed) < 1


def test_without_torch_one_sentence_says_how_to_install_it_and_the_rest_works(
    panel: Any, viewer: Any, qtbot: Any, monkeypatch: Any
) -> None:
    two_layers(viewer, panel)
    monkeypatch.setattr("stackalign.core.deep.requirement.find_spec", lambda name: None)
    panel.how.method.setCurrentIndex(panel.how.method.findData("deep"))
    assert not panel.run.button.isEnabled()
    sentence = "The method 'deep' needs PyTorch: pip install \"stackalign[torch]\""
    assert panel.run.why.text() == sentence
    assert panel.run.button.toolTip() == sentence
    panel.how.method.setCurrentIndex(panel.how.method.findData("lucas-kanade"))
    assert panel.run.button.isEnabled()
    assert panel.run.why.text() == ""
