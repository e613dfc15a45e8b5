"""Did it work: the sentence, the motion, before and after on the canvas, the next flagged frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QVBoxLayout, QWidget

from stackalign.widgets._loss_plot import LossPlot
from stackalign.widgets._motion_plot import MotionPlot
from stackalign.widgets._style import note, say, small_button

if TYPE_CHECKING:
    from stackalign.runs import Motion, Run
    from stackalign.widgets._preview import FrameCursor, Preview


class ResultSection(QWidget):
    """Shows the result that is looked at.

    Signals
    -------
    preview_wanted(bool)
        The user's click.
    """

    preview_wanted = Signal(bool)

    def __init__(self, cursor: FrameCursor, preview: Preview, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._cursor, self._preview = cursor, preview
        self._run: Run | None = None
        self._motion: Motion | None = None  # worked out once: the frame changes many times a second
        self.plot, self.loss = MotionPlot(), LossPlot()
        self.sentence = note(strong=True)
        self.frame = note()
        self.preview = QCheckBox("Preview")
        self.preview.setToolTip("Show the movie aligned, frame by frame; nothing is resampled (Space on the canvas)")
        self.blink = small_button("Blink", "Alternate before and after twice a second (B)", lambda: None)
        self.blink.setCheckable(True)
        self.earlier = small_button("◂", "Previous flagged frame ([)", lambda: self.go_to_flagged(-1))
        self.later = small_button("flagged ▸", "Next flagged frame (])", lambda: self.go_to_flagged(1))
        line = QHBoxLayout()
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(4)
        line.addWidget(self.preview)
        line.addWidget(self.blink)
        line.addStretch(1)
        line.addWidget(self.earlier)
        line.addWidget(self.later)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(self.plot)
        column.addWidget(self.loss)
        column.addWidget(self.sentence)
        column.addWidget(self.frame)
        column.addLayout(line)
        self.preview.toggled.connect(self.preview_wanted)
        self.blink.toggled.connect(preview.blink)
        preview.toggled.connect(self._on_preview)
        cursor.moved.connect(self._on_frame)
        self.plot.frame_clicked.connect(cursor.go_to)
        self.show_run(None)

    @property
    def run(self) -> Run | None:
        """What is shown."""
        return self._run

    def show_run(self, run: Run | None) -> None:
        """Show a result; None: empty."""
        self._run = run
        self.setVisible(run is not None)
        self._motion = None if run is None else run.motion
        for widget in (self.preview, self.blink):
            widget.setEnabled(run is not None)
        if run is None:
            self.blink.setChecked(False)
            self.preview.setChecked(False)
        flagged = bool(run is not None and run.flagged)
        for widget in (self.earlier, self.later):
            widget.setVisible(flagged)
        say(self.sentence, "" if run is None else run.sentence)
        self.plot.show_motion(self._motion, 0 if run is None else run.first)
        self.loss.show_loss(() if run is None else run.registration.details.get("loss", ()))
        self._on_frame(self._cursor.frame)

    def go_to_flagged(self, step: int) -> None:
        """Go to the next (1) or previous (-1) frame that is flagged, round the end."""
        flagged = () if self._run is None else self._run.flagged
        if not flagged:
            return
        here = self._cursor.frame
        beyond = [t for t in flagged if (t - here) * step > 0]
        target = (min if step > 0 else max)(beyond) if beyond else flagged[0 if step > 0 else -1]
        self._cursor.go_to(target)

    def _on_preview(self, on: bool) -> None:
        if not self._preview.blinking:
            self.preview.setChecked(on)

    def _on_frame(self, frame: int) -> None:
        self.plot.show_frame(frame)
        say(self.frame, self._words(frame))

    def _words(self, frame: int) -> str:
        """Return where the frame was, with its error, in pixels and in the movie's unit."""
        run, motion = self._run, self._motion
        if run is None or motion is None or not 0 <= frame - run.first < len(run.registration):
            return ""
        t, stack = frame - run.first, run.movie.stack
        if not (motion.drift[t] == motion.drift[t]).all():  # NaN
            return f"Frame {frame} was not aligned"
        parts = []
        for k, axis in enumerate(motion.axes):
            text = f"{axis} {_measured(motion.drift[t, k], motion.error[t, k])} px"
            if stack.pixel_size is not None:
                text += f" ({motion.drift[t, k] * stack.pixel_size[k]:+.3g} {stack.unit})"
            parts.append(text)
        if abs(motion.angle).max(initial=0.0) > 0.0005:
            parts.append(f"angle {motion.angle[t]:+.3f}°")
        reason = f"\nFlagged: {motion.reasons[t]}" if motion.reasons[t] else ""
        return f"Frame {frame} moved by\n" + "\n".join(parts) + reason


def _measured(value: float, error: float) -> str:
    """Return "-3.92 ± 0.01" with as many digits as count; without the error where it is not known."""
    if not error >= 0:  # NaN too
        return f"{value:+.2f}"
    digits = 3 if error < 0.0095 else 2 if error < 0.95 else 1
    return f"{value:+.{digits}f} ± {max(error, 0.001):.{digits}f}"
