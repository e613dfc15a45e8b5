"""Start the real napari on a virtual screen, drive it like a person, and write what it shows to look/*.png.

Run by ``make look``. Two window sizes, both themes; before, during and after a run; the demo; an error; a narrow panel.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
from look_particles import particles
from look_reals import joint
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

SIZES = ((1400, 900), (1100, 700))
THEMES = ("dark", "light")
PATIENCE = 300.0  # seconds


class Person:
    """A viewer, the panel in it, and somebody who clicks.

    Parameters
    ----------
    folder : Path
        Where the pictures go.
    theme : str
        "dark" or "light".
    size : tuple of int
        Width and height of the window, pixels.
    """

    def __init__(self, folder: Path, theme: str, size: tuple[int, int]) -> None:
        self.folder, self.tag = folder, f"{theme}-{size[0]}"
        self.viewer = napari.Viewer(show=True)
        self.viewer.theme = theme
        window = self.viewer.window._qt_window
        window.setGeometry(0, 0, *size)
        self.window = window
        self.panel: Any = None

    def wait(self, milliseconds: int = 400) -> None:
        QTest.qWait(milliseconds)

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError("what was waited for did not happen")
            QTest.qWait(20)

    def look(self, name: str) -> None:
        """Save what the whole window shows."""
        self.wait()
        path = self.folder / f"{name}-{self.tag}.png"
        self.viewer.screenshot(str(path), canvas_only=False, flash=False)
        sys.stdout.write(f"{path}\n")

    def click(self, widget: QWidget, at: QPoint | None = None) -> None:
        """Scroll to a widget and click it."""
        if self.panel is not None and self.panel.isAncestorOf(widget):
            self.panel.scroll.ensureWidgetVisible(widget)
            self.wait(50)
        QTest.mouseClick(widget, Qt.MouseButton.LeftButton, pos=at or widget.rect().center())
        self.wait(150)

    def tick(self, box: QWidget) -> None:
        """Click a check box on its mark."""
        self.click(box, QPoint(10, box.height() // 2))

    def open_panel(self, name: str = "Align stack") -> None:
        _, self.panel = self.viewer.window.add_plugin_dock_widget("stackalign", name)
        self.wait()

    def close(self) -> None:
        self.panel.shut()
        self.viewer.close()
        self.wait(200)


def journey(person: Person) -> None:
    """From an empty viewer to an aligned layer."""
    viewer = person.viewer
    person.open_panel()
    person.look("1-empty")
    viewer.open_sample("stackalign", "drifting_beads")
    person.wait()
    panel = person.panel
    panel.movie.layers.setCurrentText("drifting_beads")
    for layer in viewer.layers:
        layer.visible = layer.name == "drifting_beads"
    viewer.reset_view()
    person.look("2-before")
    person.click(panel.method.options.button)
    person.look("3-options")
    panel.scroll.verticalScrollBar().setValue(0)
    person.click(panel.method.options.button)
    during(person)
    panel.scroll.verticalScrollBar().setValue(0)
    viewer.dims.set_current_step(0, 30)
    person.look("5-after")
    person.tick(panel.result.preview)
    person.look("6-after-preview-off")
    person.tick(panel.result.preview)
    person.click(panel.run.button)
    person.until(lambda: not panel.runner.busy)
    person.click(panel.add)
    person.look("7-aligned-layer")
    panel.scroll.verticalScrollBar().setValue(panel.scroll.verticalScrollBar().maximum())
    person.look("8-runs")


def during(person: Person) -> None:
    """A run that takes long enough to be seen: the same movie many times over."""
    from stackalign.core.stack import ImageStack
    from stackalign.export import lazy_array

    viewer, panel = person.viewer, person.panel
    source = viewer.layers["drifting_beads"]
    frames = np.asarray(source.data)
    rounds = np.concatenate([frames, frames[::-1]] * 8)
    large = np.tile(rounds, (1, 2, 2))
    viewer.add_image(
        lazy_array(ImageStack(large)), name="long movie", scale=source.scale, units=source.units,
        axis_labels=source.axis_labels, contrast_limits=source.contrast_limits,
    )  # fmt: skip
    person.wait()
    panel.movie.layers.setCurrentText("long movie")
    source.visible = False
    viewer.reset_view()
    person.wait()
    person.click(panel.run.button)
    person.until(lambda: not panel.runner.busy or bool(panel.run.left.text() and panel.result.plot.motion is not None))
    person.look("4-during")
    person.click(panel.run.stop)
    person.until(lambda: not panel.runner.busy)
    person.look("4-cancelled")
    viewer.layers.remove("long movie")
    source.visible = True
    person.wait()
    panel.movie.layers.setCurrentText("drifting_beads")
    viewer.reset_view()
    person.click(panel.run.button)
    person.until(lambda: not panel.runner.busy)


def region(person: Person) -> None:
    """A rectangle drawn on the movie; a frame without content in it; the panel as narrow as it gets; an error."""
    from stackalign.widgets._errors import ErrorDialog, show_error

    viewer = person.viewer
    viewer.open_sample("stackalign", "drifting_beads")
    layer = viewer.layers["drifting_beads"]
    dark = np.asarray(layer.data).copy()
    dark[17:19] = 0
    viewer.add_image(dark, name="with dark frames", scale=layer.scale, units=layer.units, axis_labels=layer.axis_labels)
    viewer.layers.remove(layer)
    person.open_panel()
    panel = person.panel
    size = np.array(dark.shape[1:]) * viewer.layers[0].scale[1:]
    panel.region.choice.setCurrentIndex(panel.region.choice.findText("Draw a rectangle…"))
    panel.region.choice.activated.emit(panel.region.choice.currentIndex())
    person.wait()
    box = np.array([[0.15, 0.15], [0.15, 0.85], [0.85, 0.85], [0.85, 0.15]]) * size
    viewer.layers["region"].add_rectangles([box])
    person.wait()
    person.click(panel.run.button)
    person.until(lambda: not panel.runner.busy)
    if panel.result.later.isVisible():
        person.click(panel.result.later)
    panel.scroll.verticalScrollBar().setValue(0)
    person.look("9-region-and-flagged")
    dock = next(d for d in person.window.findChildren(QWidget) if d.isAncestorOf(panel) and hasattr(d, "setFloating"))
    person.window.resizeDocks([dock], [300], Qt.Orientation.Horizontal)
    person.click(panel.help)
    person.look("10-narrow-help")
    error = OSError(28, "No space left on device", "/data/aligned.tif")
    show_error("Saving failed", error, person.window)
    (dialog,) = (w for w in QApplication.topLevelWidgets() if isinstance(w, ErrorDialog))
    person.click(dialog.fold)
    person.wait()
    dialog.grab().save(str(person.folder / f"11-error-{person.tag}.png"))
    dialog.close()


def two_layers(person: Person) -> None:
    """A detail under another microscope: other pixels, another unit, turned; found, compared, refused, narrow."""
    from scipy import ndimage

    viewer = person.viewer
    rng = np.random.default_rng(4)
    scene = ndimage.gaussian_filter(rng.random((700, 700)) ** 40, 3) * 4e4 + 100
    detail = ndimage.zoom(ndimage.rotate(scene, 24, reshape=False, order=3)[260:460, 240:480], 0.7)
    wide = rng.poisson(np.maximum(scene[100:600, 60:640], 0)).astype(np.uint16)
    detail = rng.poisson(np.maximum(detail * 0.5, 0)).astype(np.uint16)
    person.open_panel("Register two layers")
    person.look("20-two-layers-empty")
    viewer.add_image(wide, name="wide field", scale=(0.1, 0.1), units=("um", "um"))
    place = {"scale": (100 / 0.7, 100 / 0.7), "translate": (9000, 30_000), "units": ("nm", "nm")}
    free = viewer.add_image(detail, name="detail", **place)
    person.wait()
    viewer.reset_view()
    panel = person.panel
    panel.choose(free, viewer.layers["wide field"])
    person.wait(600)
    person.look("21-two-layers-before")
    person.click(panel.run.button)
    person.until(lambda: not panel.runner.busy)
    person.wait(600)
    person.look("22-two-layers-after")
    person.tick(panel.on_canvas)
    panel.view.set_look("checkerboard")
    person.look("23-two-layers-canvas")
    person.tick(panel.on_canvas)
    free.data = rng.poisson(300, detail.shape).astype(np.uint16)
    person.click(panel.run.button)
    person.until(lambda: not panel.runner.busy)
    dock = next(d for d in person.window.findChildren(QWidget) if d.isAncestorOf(panel) and hasattr(d, "setFloating"))
    person.window.resizeDocks([dock], [300], Qt.Orientation.Horizontal)
    person.click(panel.how.options.button)
    person.look("24-two-layers-refused-narrow")


def demo(folder: Path) -> None:
    """What ``stackalign demo`` shows."""
    from stackalign.widgets.demo import open_demo, picture

    viewer, panel = open_demo()
    path = folder / "demo.png"
    picture(viewer, panel, path)
    sys.stdout.write(f"{path}\n")
    panel.shut()
    viewer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("look"))
    parser.add_argument("--quick", action="store_true", help="one size and theme only")
    parser.add_argument("--only", default="", help="one scene only, by its name")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    variants = [(theme, size) for theme in THEMES for size in SIZES]
    for theme, size in variants[:1] if options.quick else variants:
        for scene in (journey, region, joint, particles, two_layers):
            if options.only not in ("", scene.__name__):
                continue
            person = Person(options.output, theme, size)
            try:
                scene(person)
            finally:
                person.close()
    if options.only in ("", "demo"):
        demo(options.output)


if __name__ == "__main__":
    main()
