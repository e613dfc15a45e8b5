"""The window of the demo, a program of its own: napari with a sample and the panel, or a picture of both."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari

SAMPLE = "drifting_beads"
PANEL = "Align stack"
_PATIENCE_MS = 120_000
_SETTLE_MS = 1_500  # until canvas and plots have drawn what the run gave


def open_demo() -> tuple[napari.Viewer, Any]:
    """Return a viewer with the sample movie, and the panel docked in it."""
    import napari

    viewer = napari.Viewer(title="stackalign demo")
    viewer.open_sample("stackalign", SAMPLE)
    _, panel = viewer.window.add_plugin_dock_widget("stackalign", PANEL)
    return viewer, panel


def picture(viewer: napari.Viewer, panel: Any, path: Path) -> None:
    """Align the sample as a click on the button does, and save what the window then shows.

    Raises
    ------
    TimeoutError
        If the run does not end.
    """
    from qtpy.QtCore import QEventLoop, QTimer

    loop = QEventLoop()
    ended: list[Any] = []

    def settle(outcome: Any) -> None:
        ended.append(outcome)
        QTimer.singleShot(_SETTLE_MS, loop.quit)

    panel.runner.finished.connect(settle)
    QTimer.singleShot(_PATIENCE_MS, loop.quit)
    QTimer.singleShot(0, panel.align)
    loop.exec()
    if not ended:
        raise TimeoutError("the run in the panel did not end")
    ended[0].unwrap()
    viewer.screenshot(str(path), canvas_only=False, flash=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Open the window, or with ``--screenshot FILE`` take a picture and end."""
    parser = argparse.ArgumentParser(prog="stackalign demo")
    parser.add_argument("--screenshot", type=Path)
    choice = parser.parse_args(arguments)
    viewer, panel = open_demo()
    if choice.screenshot is not None:
        picture(viewer, panel, choice.screenshot)
        viewer.close()
        return
    import napari

    napari.run()


if __name__ == "__main__":
    main()
