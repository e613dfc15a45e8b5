"""The joint alignment's part of ``make look``: its options, the loss and the motion while it runs, its two parts."""

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QWidget

import stackalign as sa


def joint(person: Any) -> None:
    """Cells that flicker over a shaken scene: all options, cancelled on the way, to the end, its parts, narrow."""
    stack, _ = sa.simulate(
        scene="cells", shape=(300, 380), frames=120, motion="uniform", model="euclidean", amplitude=9, rotation=8,
        photons=300, spots=500, contrast=1.5, flicker=0.1, seed=2,
    )  # fmt: skip
    viewer = person.viewer
    person.open_panel()
    layer: Any = viewer.add_image(
        stack.asarray(), name="flickering cells", scale=(0.1, 0.65, 0.65), units=("s", "um", "um"),
        axis_labels=("t", "y", "x"),
    )  # fmt: skip
    person.wait()
    panel = person.panel
    panel.movie.layers.setCurrentText(layer.name)
    panel.method.method.setCurrentIndex(panel.method.method.findData("reals"))
    viewer.reset_view()
    person.look("30-reals-before")
    person.click(panel.method.options.button)
    person.look("31-reals-options")
    form = panel.method.form("registrar")
    person.click(form.advanced.button)
    panel.scroll.ensureWidgetVisible(form.rows["seed"], 0, 8)
    person.look("32-reals-advanced")
    person.click(form.advanced.button)
    person.click(panel.method.options.button)
    panel.scroll.verticalScrollBar().setValue(0)
    person.click(panel.run.button)
    person.until(lambda: not panel.runner.busy or len(panel.result.loss.loss) > 1)
    person.look("33-reals-during")
    assert panel.runner.busy, "the run was over before it was looked at"
    person.click(panel.run.stop)
    person.until(lambda: not panel.runner.busy)
    panel.scroll.verticalScrollBar().setValue(0)
    person.look("34-reals-cancelled")
    person.click(panel.run.button)
    person.until(lambda: not panel.runner.busy)
    person.wait(600)
    person.look("35-reals-after")
    person.click(panel.parts)
    person.wait(600)
    viewer.dims.set_current_step(0, 11)
    person.look("36-reals-parts")
    for other in viewer.layers:
        other.visible = "low-rank" in other.name
    person.look("37-reals-low-rank")
    dock = next(d for d in person.window.findChildren(QWidget) if d.isAncestorOf(panel) and hasattr(d, "setFloating"))
    person.window.resizeDocks([dock], [300], Qt.Orientation.Horizontal)
    person.click(panel.method.options.button)
    person.look("38-reals-narrow")
