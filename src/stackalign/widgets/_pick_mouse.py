"""What the mouse does to picks on the canvas: the fit under it, boxes drawn, moved and resized."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer

from stackalign.picking import BOX, LEAST_SIDE, box_around, drawn_box, fit_box, inside, nudged

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.geometry import Box
    from stackalign.widgets.pick_particles import PickParticles

_FOLLOW_MS = 16  # the fit under the mouse is drawn at most 60 times a second


class PickMouse(QObject):
    """Answers the gestures of the panel's canvas.

    Parameters
    ----------
    panel : PickParticles
        Whose picks change.

    Attributes
    ----------
    position : tuple of float or None
        Where the mouse is while picking, (z,) y, x pixels.
    hover : Box or None
        The box under the mouse, or the one that is being drawn: no pick yet.
    """

    def __init__(self, panel: PickParticles) -> None:
        super().__init__(panel)
        self._panel = panel
        self.position: tuple[float, ...] | None = None
        self.hover: Box | None = None
        self._gesture = itertools.count()
        self._grip: tuple[int, Box, str] | None = None
        self._later = QTimer(self, singleShot=True, interval=_FOLLOW_MS)
        self._later.timeout.connect(self.fit)
        panel.canvas.hovered.connect(self._on_hover)
        panel.canvas.drawing.connect(self._on_drawing)
        panel.canvas.dragged.connect(self._on_dragged)

    @property
    def dragging(self) -> bool:
        """Whether a box is being moved or resized."""
        return self._grip is not None

    def leave(self) -> None:
        """Forget where the mouse was."""
        self.hover = self.position = None

    def fit(self) -> None:
        """Fit what is under the mouse, in a box as large as the last pick's."""
        panel, image = self._panel, self._panel.seen.image
        if self.position is None or image is None or not panel.canvas.picking or self.dragging:
            return
        picks = panel.particles.picks
        size = picks[-1].box.shape if picks else (BOX,) * image.ndim
        self._look_at(image, box_around(self.position, size, image.shape))

    def _look_at(self, image: NDArray[Any], box: Box) -> None:
        self.hover = box
        self._panel.show_fit(fit_box(image, box, self._panel.particles.registrar))
        self._panel.draw()

    def _on_hover(self, point: tuple[float, ...]) -> None:
        self.position = point
        if not self._later.isActive():
            self._later.start()

    def _on_drawing(self, begin: tuple[float, ...], end: tuple[float, ...], done: bool) -> None:
        if (image := self._panel.image_or_say()) is None:
            return
        box = drawn_box(begin, end, image.shape)
        if done:
            self._panel.add(box)
        else:
            self._look_at(image, box)

    def _on_dragged(self, number: int, part: str, shift: tuple[float, float], done: bool) -> None:
        panel = self._panel
        shape = panel.frame_shape
        old = panel.particles.pick(number)
        if self._grip is None or self._grip[0] != number:
            box = old.box
            if panel.tracked(number) is not None or old.frame != panel.frame:
                # what is seen is where it was followed to: the box is taken up there
                view = next(b for b in panel.canvas.boxes if b.number == number)
                box = inside(np.array([*box.start[:-2], *view.start]), box.shape, shape)
            self._grip = (number, box, f"drag {next(self._gesture)}")
            panel.take_up(number)
        _, box, tag = self._grip
        step = np.round(shift).astype(int)
        if part == "move":
            new, name = nudged(box, tuple(step), shape), f"move particle {number}"
        else:
            new, name = _resized(box, part, step, shape), f"resize particle {number}"
        if new != old.box or old.frame != panel.frame:
            panel.session.change_particles(name, panel.particles.moved(number, new, panel.frame), merge=tag)
        if done:
            self._grip = None
            panel.session.history.seal()
            panel.draw()


def _resized(box: Box, part: str, step: NDArray[Any], shape: tuple[int, ...]) -> Box:
    """Return a box of which some borders were dragged; no border passes the opposite one."""
    start, stop = np.array(box.start), np.array(box.stop)
    for name in part.split("-"):
        axis = -2 if name in ("top", "bottom") else -1
        if name in ("top", "left"):
            start[axis] = np.clip(start[axis] + step[axis], 0, stop[axis] - LEAST_SIDE)
        else:
            stop[axis] = np.clip(stop[axis] + step[axis], start[axis] + LEAST_SIDE, shape[axis])
    return inside(start, stop - start, shape)
