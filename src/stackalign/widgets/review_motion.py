"""The panel "Review motion": plot and table of the transforms; reject, interpolate, smooth, nudge, align again."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QSizePolicy,
    QWidget,
)

from stackalign import review
from stackalign.runs import frames_text
from stackalign.widgets._frames_table import FramesTable, stretches
from stackalign.widgets._keys import CanvasKeys
from stackalign.widgets._panel import Panel
from stackalign.widgets._preview import FrameCursor, Preview
from stackalign.widgets._review_plot import ReviewPlot
from stackalign.widgets._style import Fold, keep_wheel_away, narrow, note, say, small_button
from stackalign.widgets._track_layers import layer_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

    from stackalign.runs import Run

_HISTORY = 5  # lines
_KEYS = {
    "On the canvas": {
        "Space": "before / after",
        "Delete": "reject the selected frames",
        "I": "interpolate them",
        "Shift + arrows": "nudge them",
        "[ and ]": "previous, next flagged frame",
        "Ctrl+Z, Ctrl+Shift+Z": "undo, redo",
    },
    "In the plot": {"Drag": "select frames", "Click": "go to that frame", "Wheel": "zoom in time"},
    "In the table": {"Click, Shift, Ctrl": "select frames"},
    "In the panel": {"Ctrl+Return": "align the selected frames again", "F1": "this list"},
}


class ReviewMotion(Panel):
    """Corrects the result on show, frame by frame, with every step undoable.

    Parameters
    ----------
    napari_viewer : Viewer
        Injected by napari.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, "stackalign-review-motion", _KEYS, parent)
        self._rows: tuple[int, ...] = ()
        self._gesture = itertools.count()
        self._nudging = ""
        self._cursor = FrameCursor(napari_viewer, self)
        self._preview = Preview(self._cursor, self)
        self._build()
        self._cursor.moved.connect(self._on_frame)
        self.plot.frame_clicked.connect(self._on_click)
        self.plot.brushed.connect(self._on_brush)
        self.table.selected.connect(self._on_rows)
        self.preview.toggled.connect(self._preview.show)
        self._preview.toggled.connect(self.preview.setChecked)
        self.history.itemClicked.connect(lambda item: QTimer.singleShot(0, partial(self.go_back, _steps(item))))
        self.run.start.connect(self.align_again)
        self.listen("current", self._on_current)
        self.listen("movie", self._on_movie)
        self.listen("job", lambda _: self.show_ready())
        self.listen("history", self._fill_history)
        keys = CanvasKeys(
            napari_viewer,
            {
                "Space": lambda: self._preview.show(not self._preview.on),
                "Delete": self.reject,
                "i": self.interpolate,
                "Shift-Up": lambda: self.nudge(-1, 0),
                "Shift-Down": lambda: self.nudge(1, 0),
                "Shift-Left": lambda: self.nudge(0, -1),
                "Shift-Right": lambda: self.nudge(0, 1),
                "[": lambda: self.go_to_flagged(-1),
                "]": lambda: self.go_to_flagged(1),
                "Control-Z": self.session.undo,
                "Control-Shift-Z": self.session.redo,
            },
        )
        for closer in (self._cursor.close, self._preview.close, keys.close):
            self.at_end(closer)
        self._on_movie(self.session.movie)

    def _build(self) -> None:
        self.about = note()
        self.plot = ReviewPlot()
        self.preview = QCheckBox("Preview")
        self.preview.setToolTip("Show the movie aligned, frame by frame; nothing is resampled (Space on the canvas)")
        self.earlier = small_button("◂", "Previous flagged frame ([)", lambda: self.go_to_flagged(-1))
        self.later = small_button("flagged ▸", "Next flagged frame (])", lambda: self.go_to_flagged(1))
        self.line = QWidget()
        line = QHBoxLayout(self.line)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.preview)
        line.addStretch(1)
        line.addWidget(self.earlier)
        line.addWidget(self.later)
        self.table = FramesTable()
        self.selection = note(strong=True)
        self.rejecting = small_button("Reject", "Throw the measured motion away (Delete)", self.reject)
        self.accepting = small_button("Accept", "Take the flag off: this motion is right", self.accept)
        self.interpolating = small_button("Interpolate", "The motion between the neighbours (I)", self.interpolate)
        self.smoothing = small_button("Smooth", "Smooth the motion in time", self.smooth)
        self.sigma = _box(2.0, 0.5, 100.0, 0.5, 1, " frames", "Width of the smoothing in time")
        self.step = _box(0.5, 0.01, 50.0, 0.1, 2, " px", "How far one nudge goes")
        self.turn = _box(0.1, 0.01, 45.0, 0.1, 2, "°", "How far one nudge turns")
        self.edits = QWidget()
        grid = QGridLayout(self.edits)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        for column, widget in enumerate((self.rejecting, self.accepting, self.interpolating)):
            widget.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            grid.addWidget(widget, 0, column)
        self.smoothing.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        grid.addWidget(self.smoothing, 1, 0)
        grid.addWidget(self.sigma, 1, 1, 1, 2)
        pad = QHBoxLayout()
        pad.setSpacing(3)
        pad.addWidget(QLabel("Nudge"))
        for sign, tip, action in (
            ("←", "Move left", partial(self.nudge, 0, -1)), ("↑", "Move up", partial(self.nudge, -1, 0)),
            ("↓", "Move down", partial(self.nudge, 1, 0)), ("→", "Move right", partial(self.nudge, 0, 1)),
        ):  # fmt: skip
            pad.addWidget(small_button(sign, f"{tip} (Shift + arrow on the canvas)", action))
        pad.addWidget(self.step, 1)
        grid.addLayout(pad, 2, 0, 1, 3)
        turns = QHBoxLayout()
        turns.setSpacing(3)
        turns.addWidget(QLabel("Turn"))
        for sign, tip, by in (("↺", "Turn left", -1), ("↻", "Turn right", 1)):
            turns.addWidget(small_button(sign, tip, partial(self.rotate, by)))
        turns.addWidget(self.turn, 1)
        grid.addLayout(turns, 3, 0, 1, 3)
        self.measure = QPushButton("Measure again")
        self.measure.setToolTip("Before and after, as the result is now")
        self.measure.clicked.connect(self.measure_again)
        self.sentence = note(strong=True)
        self.history = QListWidget()
        self.history.setToolTip("What was done, the last one on top. Click: go back, or forward, to there")
        self.history.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.history.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.section = Fold("History", self.history, opened=True)
        self.fill(
            self.about, self.plot, self.line, self.table, self.selection, self.edits, self.run, self.message,
            self.measure, self.sentence, self.section,
        )  # fmt: skip
        self.column.addStretch(1)
        self.run.button.setObjectName("align-again")
        self.shortcut("Ctrl+Return", self.align_again)
        self.shortcut("Delete", self.reject, self.table)
        self._fill_history()

    # what is selected

    @property
    def frames(self) -> tuple[int, ...]:
        """Frames that an edit acts on, counted from the run's first: the selected ones, else the one on show."""
        run = self.session.current
        if run is None:
            return ()
        if self._rows:
            return self._rows
        here = self._cursor.frame - run.first
        return (here,) if 0 <= here < len(run.registration) else ()

    def select(self, rows: tuple[int, ...]) -> None:
        """Select frames, counted from the run's first, in plot and table."""
        self._rows = rows
        self._nudging = ""
        self.table.select(rows)
        self._mark()

    def _on_brush(self, first: int, last: int) -> None:
        run = self.session.current
        if run is not None:
            self.select(tuple(range(first - run.first, last - run.first + 1)))

    def _on_rows(self, rows: tuple[int, ...]) -> None:
        self._rows = rows
        self._nudging = ""
        run = self.session.current
        if run is not None and len(rows) == 1:
            self._cursor.go_to(rows[0] + run.first)
        self._mark()

    def _on_click(self, frame: int) -> None:
        self.select(())
        self._cursor.go_to(frame)

    def _mark(self) -> None:
        run = self.session.current
        if run is None:
            return
        rows = self._rows
        self.plot.select(rows[0] + run.first if rows else None, rows[-1] + run.first if rows else 0)
        chosen = self.frames
        parts = stretches(list(chosen))
        words = ", ".join(str(a + run.first) if a == b else f"{a + run.first} to {b + run.first}" for a, b in parts[:3])
        say(
            self.selection,
            f"{frames_text(len(chosen))} selected: {words}{', …' if parts[3:] else ''}" if chosen else "",
        )
        self.show_ready()

    def go_to_flagged(self, step: int) -> None:
        """Go to the next (1) or previous (-1) frame that is flagged, round the end."""
        run = self.session.current
        flagged = () if run is None else run.flagged
        if flagged:
            here = self._cursor.frame
            beyond = [t for t in flagged if (t - here) * step > 0]
            target = (min if step > 0 else max)(beyond) if beyond else flagged[0 if step > 0 else -1]
            self._cursor.go_to(target)

    # edits

    def reject(self) -> None:
        """Throw away what was measured in the selected frames."""
        self._edit("Rejecting", review.rejected)

    def accept(self) -> None:
        """Take the flags of the selected frames off."""
        self._edit("Accepting", review.accepted)

    def interpolate(self) -> None:
        """Put the selected frames between their neighbours."""
        self._edit("Interpolating", review.interpolated)

    def smooth(self) -> None:
        """Smooth the selected frames in time; all of them if none is selected."""
        run = self.session.current
        if run is not None:
            rows = self._rows or tuple(range(len(run.registration)))
            self._edit("Smoothing", lambda r, _: review.smoothed(r, rows, self.sigma.value()))

    def nudge(self, y: int, x: int) -> None:
        """Move the selected frames by one step."""
        size = self.step.value()
        self._edit("Nudging", lambda r, t: review.nudged(r, t, (y * size, x * size)), self._nudge_tag())

    def rotate(self, direction: int) -> None:
        """Turn the selected frames by one step."""
        angle = direction * self.turn.value()
        self._edit("Nudging", lambda r, t: review.nudged(r, t, (0.0, 0.0), angle), self._nudge_tag())

    def _nudge_tag(self) -> str:
        """Return a tag that nudges of the same frames share: they are one step of undo."""
        self._nudging = self._nudging or f"nudge {next(self._gesture)}"
        return self._nudging

    def _edit(self, what: str, edit: Callable[[Run, tuple[int, ...]], Run], merge: str = "") -> None:
        run, frames = self.session.current, self.frames
        if run is None or not frames or self.runner.busy:
            return

        def act() -> None:
            edited = edit(run, frames)
            self.session.replace_run(review.edits_of(edited)[-1], edited, merge=merge)

        self.attempt(what, act)
        if not merge:
            self._nudging = ""

    def align_again(self) -> None:
        """Align the selected frames again, onto the mean of the others."""
        run, frames = self.session.current, self.frames
        if run is None or self._obstacle():
            return
        self.start(f"Aligning {frames_text(len(frames))} again", review.align_again_work(run, frames),
                   partial(self._on_again, run))  # fmt: skip

    def measure_again(self) -> None:
        """Measure before and after of the result as it is now."""
        run = self.session.current
        if run is not None and not self.runner.busy:
            self.start("Measuring", review.measure_again_work(run), partial(self._on_measured, run))

    def _on_again(self, run: Run, edited: Run) -> None:
        if self.session.current is not run:
            say(self.message, "The result was changed meanwhile: align these frames once more.")
            return
        self.session.replace_run(review.edits_of(edited)[-1], edited)

    def _on_measured(self, run: Run, edited: Run) -> None:
        if self.session.current is run:
            self.session.replace_run("measure again", edited)

    # the session speaks

    def _on_movie(self, movie: Any) -> None:
        layer = None if movie is None else layer_of(self._viewer, movie)
        self._cursor.follow(layer, "tyx" if movie is None else movie.axes)
        self._on_current(self.session.current)

    def _on_current(self, run: Run | None) -> None:
        for part in (self.plot, self.line, self.table, self.edits, self.measure):
            part.setVisible(run is not None)
        if run is None:
            say(self.about, "There is no alignment yet: align first.")
            say(self.selection, "")
            say(self.sentence, "")
            self._rows = ()
            self._preview.load([], "tyx", None)
        else:
            say(self.about, f"Run {run.number} of {run.movie.name}: {run.choices.registrar.method}")
            self._rows = tuple(row for row in self._rows if row < len(run.registration))
            self.plot.show_motion(run.motion, run.first)
            self.table.show_run(run)
            edited = review.edits_of(run)
            unmeasured = " Not measured since it was edited." if run.quality is None and edited else ""
            say(self.sentence, run.sentence + unmeasured)
            layer = layer_of(self._viewer, run.movie)
            letters = run.movie.axes.replace("s", "")
            self._preview.load(
                [] if layer is None else [layer], letters, run.registration.transforms.matrices, run.first
            )
            for widget in (self.earlier, self.later):
                widget.setVisible(bool(run.flagged))
            self._mark()
        self.plot.show_frame(self._cursor.frame)
        self.show_ready()

    def _on_frame(self, frame: int) -> None:
        self.plot.show_frame(frame)
        if not self._rows:
            self._nudging = ""
            self._mark()

    def _obstacle(self) -> str:
        run = self.session.current
        if run is None:
            return "There is no alignment yet: align first"
        if self.runner.busy or self.session.busy:
            return "Something is running: wait, or cancel it"
        if not self.frames:
            return "Select frames first"
        if len(self.frames) == len(run.registration):
            return "All frames are selected: there is none left to align them to"
        return ""

    def show_ready(self) -> None:
        """Name what the buttons do."""
        run, obstacle = self.session.current, self._obstacle()
        self.run.show_ready(f"Align {frames_text(len(self.frames))} again", obstacle, visible=run is not None)
        if not obstacle:
            self.run.button.setToolTip("Onto the mean of the other frames, as they are aligned now")
        for widget in (self.edits, self.measure):
            widget.setEnabled(run is not None and not self.runner.busy)

    # history

    def _fill_history(self) -> None:
        history = self.session.history
        self.history.clear()
        ahead, done = history.names_ahead, history.names
        for back, name in enumerate(reversed(ahead)):
            self._line(f"{name}", back - len(ahead), faint=True)
        for back, name in enumerate(reversed(done)):
            self._line(name, back)
        if done:
            self.history.setCurrentRow(len(ahead))
        rows = min(max(self.history.count(), 1), _HISTORY)
        self.history.setFixedHeight(rows * max(self.history.sizeHintForRow(0), 18) + 2 * self.history.frameWidth() + 2)
        self.section.setVisible(self.history.count() > 0)

    def _line(self, words: str, back: int, faint: bool = False) -> None:
        item = QListWidgetItem(f"({words})" if faint else words)
        item.setData(Qt.ItemDataRole.UserRole, back)
        item.setToolTip("Taken back: click to do it again" if faint else "Click: take back what was done after it")
        self.history.addItem(item)

    def go_back(self, steps: int) -> None:
        """Undo so many steps; a negative number: redo them."""
        for _ in range(abs(steps)):
            if self.closed or not (self.session.undo() if steps > 0 else self.session.redo()):
                break


def _steps(item: QListWidgetItem) -> int:
    return int(item.data(Qt.ItemDataRole.UserRole))


def _box(value: float, low: float, high: float, step: float, digits: int, unit: str, tip: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(low, high)
    box.setSingleStep(step)
    box.setDecimals(digits)
    box.setValue(value)
    box.setSuffix(unit)
    box.setToolTip(tip)
    narrow(box)
    keep_wheel_away(box)
    return box
