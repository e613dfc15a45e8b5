"""One journey by particles, with the mouse on the real canvas: from the menu to the saved files."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

from qtpy.QtCore import QPoint, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog

from tests.gui.test_pick_particles import PLACES, STEP, spots

PANELS = ("Pick particles", "Select trajectories", "Review motion", "Validate alignment")


def panel_of(viewer: Any, name: str) -> Any:
    """Open a panel by its entry in the menu."""
    menus = [action.menu() for action in viewer.window._qt_window.menuBar().actions()]
    todo = [menu for menu in menus if menu is not None]
    while todo:
        menu = todo.pop()
        menu.aboutToShow.emit()
        for action in menu.actions():
            if action.menu() is not None:
                todo.append(action.menu())
            elif action.text().replace("&", "").startswith(name):
                action.trigger()
                docks = viewer.window.dock_widgets
                return next(w for title, w in docks.items() if title.startswith(name))
    raise AssertionError(f"no menu entry {name}")


def answer(monkeypatch: pytest.MonkeyPatch, path: Any) -> None:
    """Let the dialog that asks for a file's name say this one: it is the system's own."""
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(path), "TIFF (*.tif)"))


def menu_click(button: Any, entry: str) -> None:
    """Open the menu of a button with the mouse and click an entry."""
    button.window().activateWindow()

    def choose() -> None:
        menu = button.menu()
        action = next(a for a in menu.actions() if a.text().startswith(entry))
        QTest.mouseClick(menu, Qt.MouseButton.LeftButton, pos=menu.actionGeometry(action).center())

    QTimer.singleShot(300, choose)  # the click opens the menu and returns once it is closed
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


class Mouse:
    """Presses and moves on the canvas at places of the movie."""

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        self.native = viewer.window._qt_viewer.canvas.native

    def at(self, y: float, x: float) -> QPoint:
        canvas = self.viewer.window._qt_viewer.canvas
        transform = canvas.layer_to_visual[self.viewer.layers["spots"]].node.transforms.get_transform(
            "visual", "canvas"
        )
        cx, cy = transform.map([x + 0.5, y + 0.5])[:2]
        return QPoint(round(cx), round(cy))

    def click(self, y: float, x: float) -> None:
        self.drag((y, x), (y, x))

    def drag(self, begin: tuple[float, float], end: tuple[float, float]) -> None:
        left = Qt.MouseButton.LeftButton
        QTest.mouseMove(self.native, self.at(*begin))
        QTest.qWait(30)
        QTest.mousePress(self.native, left, pos=self.at(*begin))
        if begin != end:
            for share in (0.3, 0.6, 1.0):
                place = np.array(begin) + share * (np.array(end) - np.array(begin))
                QTest.mouseMove(self.native, self.at(*place))
                QTest.qWait(40)
        QTest.mouseRelease(self.native, left, pos=self.at(*end))
        QTest.qWait(60)


@pytest.mark.parametrize("name", PANELS)
def test_every_panel_opens_by_its_name_and_closes(make_napari_viewer: Any, name: str, qtbot: Any) -> None:
    viewer = make_napari_viewer()
    _, panel = viewer.window.add_plugin_dock_widget("stackalign", name)
    assert panel.scroll.minimumWidth() <= 300
    panel.help.click()
    assert "undo, redo" in panel.help_text.text()
    panel.shut()


def press_keys(pick: Any, canvas: Any) -> None:
    """Choose, nudge, resize, delete and undo with the keys that the panel names; all is as before at the end."""
    begun, shift, control = pick.particles, Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.ControlModifier
    QTest.keyClick(canvas, Qt.Key.Key_N)  # from the fourth round to the first
    assert pick.chosen == 1
    start = np.array(begun.pick(1).box.start)
    for key, held, moved in (
        (Qt.Key.Key_Right, shift, (0, 1)),
        (Qt.Key.Key_Up, shift, (-1, 0)),
        (Qt.Key.Key_Plus, Qt.KeyboardModifier.NoModifier, (-1, -1)),
    ):
        before = np.array(pick.particles.pick(1).box.start)
        QTest.keyClick(canvas, key, held)
        assert (np.array(pick.particles.pick(1).box.start) - before).tolist() == list(moved)
    QTest.keyClick(canvas, Qt.Key.Key_Minus)
    assert (np.array(pick.particles.pick(1).box.start) - start).tolist() == [-1, 1]
    QTest.keyClick(canvas, Qt.Key.Key_Delete)
    assert [p.id for p in pick.particles.picks] == [2, 3, 4]
    for _ in range(5):
        if pick.particles.picks != begun.picks:
            QTest.keyClick(canvas, Qt.Key.Key_Z, control)
    assert pick.particles.picks == begun.picks


def test_from_the_menu_to_the_saved_files(
    make_napari_viewer: Any, qtbot: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(1300, 860)
    viewer.add_image(spots(), name="spots", scale=(0.5, 0.1, 0.1), units=("s", "um", "um"), axis_labels=("t", "y", "x"))
    viewer.dims.set_point(0, 0)
    pick = panel_of(viewer, "Pick particles")
    qtbot.waitUntil(lambda: pick.ready, timeout=60_000)
    qtbot.wait(300)
    viewer.reset_view()
    qtbot.wait(300)
    QTest.mouseClick(pick.pick, Qt.MouseButton.LeftButton)
    mouse = Mouse(viewer)
    centre = viewer.scene.camera.center if hasattr(viewer, "scene") else viewer.camera.center
    for place in PLACES[:3]:
        mouse.click(*(place + 1.0))
    qtbot.waitUntil(lambda: len(pick.particles.picks) == 3, timeout=5000)
    for chosen, place in zip(pick.particles.picks, PLACES, strict=False):
        np.testing.assert_allclose(pick.fit_of(chosen).position, place, atol=0.1)
    y, x = PLACES[3]
    mouse.drag((y - 7, x - 7), (y + 7, x + 7))  # a box of one's own
    qtbot.waitUntil(lambda: len(pick.particles.picks) == 4, timeout=5000)
    box = pick.particles.picks[3].box
    mouse.drag((y, x), (y + 2, x + 3))  # moved
    moved = pick.particles.picks[3].box
    assert (np.array(moved.start) - np.array(box.start)).tolist() == [2, 3]
    QTest.mouseClick(pick.undo, Qt.MouseButton.LeftButton)
    assert pick.particles.picks[3].box == box
    assert (viewer.scene.camera.center if hasattr(viewer, "scene") else viewer.camera.center) == centre
    press_keys(pick, mouse.native)
    answer(monkeypatch, tmp_path / "picks.json")
    menu_click(pick.files.button, "Save picks")
    pick.scroll.ensureWidgetVisible(pick.run.button)
    QTest.mouseClick(pick.run.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not pick.runner.busy and pick.particles.tracks is not None, timeout=30_000)

    select = panel_of(viewer, "Select trajectories")
    qtbot.waitUntil(lambda: select.run.button.isEnabled(), timeout=30_000)
    QTest.mouseClick(select.run.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not select.runner.busy and select.session.current is not None, timeout=30_000)

    proof = panel_of(viewer, "Validate alignment")
    QTest.mouseClick(proof.run.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not proof.runner.busy and proof.validation is not None, timeout=30_000)
    assert proof.verdict.text().startswith("✓ It holds")

    align = panel_of(viewer, "Align stack")
    answer(monkeypatch, tmp_path / "aligned.tif")
    menu_click(align.save.button, "Aligned movie")
    qtbot.waitUntil(lambda: not align.runner.busy, timeout=30_000)
    assert (tmp_path / "aligned.tif").stat().st_size > 100 * 130
    assert (tmp_path / "picks.json").exists()
    drift = -align.session.current.registration.transforms.translations
    np.testing.assert_allclose(np.diff(drift, axis=0).mean(0), STEP, atol=0.1)
    for panel in (pick, select, proof, align):
        panel.shut()


def test_the_other_panels_open_from_align_stack(make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer()
    viewer.add_image(spots(3), name="spots", axis_labels=("t", "y", "x"))
    _, align = viewer.window.add_plugin_dock_widget("stackalign", "Align stack")
    assert not align.validate.isEnabled()
    align.particles.click()
    pick = next(w for title, w in viewer.window.dock_widgets.items() if title.startswith("Pick particles"))
    qtbot.waitUntil(lambda: pick.ready, timeout=60_000)
    assert pick.session is align.session
    assert pick.session.movie is not None
    pick.shut()
    align.shut()
