"""Pictures of the particle panels: picking, a rejected pick, the selector with a walker, validation, review."""

from typing import Any

import numpy as np

from stackalign.core.spots.gaussian import GaussianSpot

FRAMES, SHAPE = 60, (220, 260)


def beads() -> np.ndarray:
    """Return beads that drift and turn together; one of them walks on its own, two lie close together."""
    rng = np.random.default_rng(11)
    places = np.array(
        [[40, 50], [45, 200], [110, 130], [170, 60], [180, 210], [120, 30], [85, 95], [60, 140], [150, 150]]
    )
    places = np.vstack([places, places[-1] + [5, 6]]).astype(float)
    middle = (np.array(SHAPE) - 1) / 2
    walk = np.cumsum(rng.normal(0, 0.25, (FRAMES, 2)), axis=0)
    frames = np.empty((FRAMES, *SHAPE), np.uint16)
    for t in range(FRAMES):
        angle = np.deg2rad(1.2 * np.sin(t / 12))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shift = np.array([6.0 * np.sin(t / 20), -0.12 * t])
        image = np.full(SHAPE, 120.0)
        for k, place in enumerate((places - middle) @ turn.T + middle + shift):
            where = place + walk[t] if k == 6 else place
            image += GaussianSpot(500.0 + 60 * k, where, np.array([2.0, 2.1])).image(SHAPE)
        frames[t] = rng.poisson(image)
    return frames


def particles(person: Any) -> None:
    """From a movie to a validated alignment by particles."""
    viewer = person.viewer
    viewer.add_image(beads(), name="beads", scale=(0.2, 0.1, 0.1), units=("s", "um", "um"), axis_labels=("t", "y", "x"))
    viewer.dims.set_point(0, 0)
    _, panel = viewer.window.add_plugin_dock_widget("stackalign", "Pick particles")
    person.panel = panel
    person.until(lambda: panel.ready)
    viewer.reset_view()
    person.look("20-pick-empty")
    panel.count.setValue(8)
    person.click(panel.suggest)
    person.until(lambda: not panel.runner.busy and len(panel.particles.picks) > 0)
    panel.pick.setChecked(True)
    panel.canvas.hovered.emit((110.0, 131.0))
    person.wait()
    person.look("21-pick-under-the-mouse")
    panel.pick_at((152.0, 153.0))
    person.wait()
    person.look("22-pick-rejected")
    panel.delete()
    panel.choose(panel.particles.picks[0].id)
    person.click(panel.run.button)
    person.until(lambda: not panel.runner.busy)
    viewer.dims.set_current_step(0, 40)
    person.until(lambda: panel.ready)
    person.look("23-followed")
    select(person)


def select(person: Any) -> None:
    """The walker is suggested, and left out."""
    viewer, pick = person.viewer, person.panel
    dock, panel = viewer.window.add_plugin_dock_widget("stackalign", "Select trajectories")
    pick.shut()
    viewer.window.remove_dock_widget(pick.parent())
    person.panel = panel
    person.until(lambda: panel.trajectories is not None and not panel._thread.busy)
    person.look("24-select-suggested")
    person.click(panel.follow_suggestion)
    panel.choose(next(iter(panel.excluded), 1))
    person.until(lambda: not panel._thread.busy)
    panel.scroll.verticalScrollBar().setValue(0)
    person.look("25-select-excluded")
    person.click(panel.run.button)
    person.until(lambda: not panel.runner.busy)
    panel.scroll.verticalScrollBar().setValue(panel.scroll.verticalScrollBar().maximum())
    person.look("26-select-aligned")
    dock.setFloating(True)
    dock.resize(1000, 640)
    panel.scroll.verticalScrollBar().setValue(0)
    person.wait()
    path = person.folder / f"27-select-wide-{person.tag}.png"
    dock.grab().save(str(path))
    dock.setFloating(False)
    panel.shut()
    viewer.window.remove_dock_widget(dock)
    validate(person)


def validate(person: Any) -> None:
    """The verdict, then the pictures below."""
    viewer = person.viewer
    dock, panel = viewer.window.add_plugin_dock_widget("stackalign", "Validate alignment")
    person.panel = panel
    person.click(panel.run.button)
    person.until(lambda: not panel.runner.busy)
    panel.scroll.verticalScrollBar().setValue(0)
    person.look("30-validate")
    panel.scroll.verticalScrollBar().setValue(panel.scroll.verticalScrollBar().maximum())
    person.look("31-validate-below")
    panel.shut()
    viewer.window.remove_dock_widget(dock)
    review(person)


def review(person: Any) -> None:
    """Frames brushed, rejected, nudged."""
    _, panel = person.viewer.window.add_plugin_dock_widget("stackalign", "Review motion")
    person.panel = panel
    panel.plot.brushed.emit(20, 27)
    person.look("32-review-brushed")
    person.click(panel.rejecting)
    panel.plot.brushed.emit(40, 40)
    panel.nudge(0, 1)
    panel.scroll.verticalScrollBar().setValue(0)
    person.look("33-review-edited")
    panel.scroll.verticalScrollBar().setValue(panel.scroll.verticalScrollBar().maximum())
    person.look("34-review-below")
