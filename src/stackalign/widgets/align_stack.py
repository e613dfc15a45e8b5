"""The panel "Align stack": movie, region, method, run, result, apply, save: the whole journey in one column."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QShortcut, QWidget

from stackalign.runs import Motion, RunOutput, frames_text
from stackalign.widgets._apply_section import CompanionSection, aligned_layer, axes_of
from stackalign.widgets._keys import KEYS, CanvasKeys
from stackalign.widgets._layers import is_movie
from stackalign.widgets._method_section import MethodSection
from stackalign.widgets._movie_section import MovieSection
from stackalign.widgets._panel import Panel
from stackalign.widgets._part_layers import part_layers, parts_of
from stackalign.widgets._preview import FrameCursor, Preview
from stackalign.widgets._region_section import RegionSection
from stackalign.widgets._result_section import ResultSection
from stackalign.widgets._runs_section import RunsSection
from stackalign.widgets._save_section import SaveSection, stacks_of
from stackalign.widgets._style import say, small_button

if TYPE_CHECKING:
    import napari

    from stackalign.core.stack import ImageStack
    from stackalign.runs import Run
    from stackalign.widgets._runner import Report

_PLOT_EVERY = 0.25  # seconds at least between two drawings of the motion while it is measured


class AlignStack(Panel):
    """Aligns a movie and shows whether it worked.

    Parameters
    ----------
    napari_viewer : Viewer
        Whose layers are aligned; injected by napari.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, "stackalign-align-stack", KEYS, parent)
        session = self.session
        self._obstacles: dict[str, str] = {}
        self._token = 0
        self._plot_next = 0.0
        self._cursor = FrameCursor(napari_viewer, self)
        self._preview = Preview(self._cursor, self)

        self.movie = MovieSection(napari_viewer, session)
        self.region = RegionSection(napari_viewer, session, lambda: self.movie.layer, self._preview.base_of)
        self.method = MethodSection(session, lambda: self._cursor.frame)
        self.result = ResultSection(self._cursor, self._preview)
        self.companions = CompanionSection(napari_viewer, self._load_preview)
        self.add = QPushButton("Add aligned layer")
        self.add.setToolTip("A new layer beside the movie, resampled frame by frame as it is looked at")
        self.parts = small_button(
            "Add low-rank and sparse layers",
            "Two layers: what all frames have in common, and what only each has",
            self.add_parts,
        )
        self.parts.hide()
        self.save = SaveSection(session, self.start, self._companion_stacks, partial(say, self.message))
        self.runs = RunsSection(session)
        self._build()

        self.run.start.connect(self.align)
        self.result.preview_wanted.connect(self._show_preview)
        self.add.clicked.connect(self.add_aligned)
        self.movie.obstacle.connect(partial(self._hinder, "movie"))
        self.method.obstacle.connect(partial(self._hinder, "method"))
        for event, slot in (
            ("movie", self._on_movie),
            ("choices", self._on_choices),
            ("current", self._on_current),
            ("job", self._on_choices),
        ):
            self.listen(event, slot)
        self._keys = CanvasKeys(
            napari_viewer,
            {
                "Space": lambda: self._preview.show(not self._preview.on),
                "b": self.result.blink.toggle,
                "[": lambda: self.result.go_to_flagged(-1),
                "]": lambda: self.result.go_to_flagged(1),
            },
        )
        # a layer without settled axes was there before anybody listened
        self.movie.layers.currentIndexChanged.emit(self.movie.layers.currentIndex())
        self._on_movie(session.movie)

    def _build(self) -> None:
        apply = QHBoxLayout()
        apply.addWidget(self.add, 1)
        apply.addWidget(self.save.button)
        apply.addWidget(self.save.report)
        self.particles, self.review, self.validate = (
            small_button(text, tip, partial(self.open_panel, panel))
            for text, tip, panel in (
                ("Particles…", "Pick particles and follow them", "Pick particles"),
                ("Review…", "Correct the motion frame by frame", "Review motion"),
                ("Validate…", "Prove it on particles and images", "Validate alignment"),
            )
        )
        onward = QHBoxLayout()
        for button in (self.particles, self.review, self.validate):
            onward.addWidget(button)
        onward.addStretch(1)
        for line in (apply, onward):
            line.setContentsMargins(0, 0, 0, 0)
            line.setSpacing(4)
        self.fill(
            self.movie, self.region, self.method, self.run, self.message, self.result, self.companions, apply,
            self.parts, onward, self.runs, self.save,
        )  # fmt: skip
        self.column.addStretch(1)
        self.shortcut("Ctrl+Return", self.align)
        delete = QShortcut(QKeySequence("Delete"), self.runs.list)
        delete.setContext(Qt.ShortcutContext.WidgetShortcut)
        delete.activated.connect(self.runs.remove_chosen)

    # running

    def align(self) -> None:
        """Begin a run, if nothing stands in the way."""
        if self._obstacle():
            return
        self._preview.show(False)
        self._token, work = self.session.begin()
        self._plot_next = 0.0
        self.start("Aligning", work, self._on_aligned, self._on_partial)

    def _on_progress(self, report: Report) -> None:
        super()._on_progress(report)
        part = report.progress.partial
        if isinstance(part, RunOutput) and report.elapsed >= self._plot_next:
            movie = self.session.movie
            if movie is not None and self.session.busy:
                begun = time.perf_counter()
                motion = Motion.of(part.registration, movie.stack.frame_shape, only_valid=True)
                self.result.show()
                self.result.plot.show_motion(motion, (self.session.choices.frames or (0, 0))[0])
                self.result.loss.show_loss(part.registration.details.get("loss", ()))
                # long movies take longer to draw: no more than a twentieth of the main thread's time goes there
                self._plot_next = report.elapsed + max(_PLOT_EVERY, 20 * (time.perf_counter() - begun))

    def finished(self) -> None:
        """Note that the run is over, however it ended."""
        self.session.end(self._token)

    def show_ready(self) -> None:
        """Say what the buttons would do now, and which of them cannot be pressed."""
        self._on_choices()

    def fail(self, error: BaseException, what: str = "") -> None:
        """Show an error without blocking, and the result that was there before."""
        self.result.show_run(self.session.current)
        super().fail(error, what)

    def _on_aligned(self, output: RunOutput) -> None:
        run = self.session.accept(self._token, output)
        if run is None:
            return  # stale
        if self.session.current is run:
            self._preview.show(True)
            self.result.preview.setFocus()
            QTimer.singleShot(0, self._show_next_step)
        else:
            say(self.message, f"Run {run.number} of {run.movie.name} is finished: open it under Runs.")

    def _show_next_step(self) -> None:
        """Scroll as far as it takes to see what came out and what can be done with it, once it is laid out."""
        if not self.closed:
            self.scroll.ensureWidgetVisible(self.add, 0, 8)

    def _on_partial(self, output: RunOutput | None) -> None:
        if isinstance(output, RunOutput):
            self._on_aligned(output)
        else:
            self.result.show_run(self.session.current)
            say(self.message, "Cancelled before any frame was aligned.")

    # the session speaks

    def _on_movie(self, movie: Any) -> None:
        self._cursor.follow(None if movie is None else self.movie.layer, "tyx" if movie is None else movie.axes)
        self._on_current(self.session.current)

    def _on_choices(self, _value: Any = None) -> None:
        stack = self.session.stack
        count = "" if stack is None else " " + frames_text(len(stack))
        obstacle = self._obstacle()
        self.run.show_ready(f"Align{count}", obstacle, visible=not self.runner.busy)
        ready = self.session.current is not None and not self.runner.busy
        why = "" if ready else "Align first" if not self.runner.busy else "Wait for what is running, or cancel it"
        self.add.setEnabled(ready)
        self.save.show_ready(ready, why)
        for button in (self.review, self.validate):
            button.setEnabled(ready)

    def _on_current(self, run: Run | None) -> None:
        self.result.show_run(run)
        self.companions.show_run(run)
        self.parts.setVisible(parts_of(run) is not None)
        self._load_preview()
        self._on_choices()

    def _load_preview(self) -> None:
        run, layer = self.session.current, self.movie.layer
        if run is None or layer is None:
            self._preview.load([], "tyx", None)
            return
        letters = run.movie.axes.replace("s", "")
        others = [la for la in self.companions.layers if la.ndim == len(letters)]
        self._preview.load([layer, *others], letters, run.registration.transforms.matrices, run.first)

    def _hinder(self, who: str, text: str) -> None:
        self._obstacles[who] = text
        self._on_choices()

    def _obstacle(self) -> str:
        if self.runner.busy:
            return "Something is running: wait, or cancel it"
        return next((text for text in self._obstacles.values() if text), "") or self.session.obstacle

    def _show_preview(self, on: bool) -> None:
        self._preview.show(on)
        layer = self.movie.layer
        if on and layer is not None and not layer.visible:
            say(self.message, f"“{layer.name}” is hidden: click its eye in the layer list to see the preview.")

    # the next step

    def add_aligned(self) -> None:
        """Add the aligned movie, and what was ticked, as new layers beside their sources."""
        run, layer = self.session.current, self.movie.layer
        if run is None or layer is None:
            return
        self._preview.blink(False)
        self._preview.show(False)  # the affine of the new layer must be the layer's own
        try:
            added = [(source, aligned_layer(run, source)) for source in (layer, *self.companions.layers)]
        except Exception as error:
            self.fail(error, "Adding the aligned layer")
            return
        for source, fixed in added:
            self._viewer.layers.insert(self._viewer.layers.index(source) + 1, fixed)
            if is_movie(source):
                source.visible = False  # else it shows through or hides below; one click on its eye brings it back
        self._viewer.layers.selection.active = added[0][1]
        say(self.message, f"Added “{added[0][1].name}”" + (f" and {len(added) - 1} more" if added[1:] else "") + ".")

    def add_parts(self) -> None:
        """Add the low-rank and the sparse part of a joint alignment as layers."""
        run, layer = self.session.current, self.movie.layer
        if run is None or layer is None:
            return
        self._preview.blink(False)
        self._preview.show(False)
        try:
            added = part_layers(run, layer)
        except Exception as error:
            self.fail(error, "Adding the low-rank and the sparse part")
            return
        place = self._viewer.layers.index(layer) + 1
        for part in reversed(added):
            self._viewer.layers.insert(place, part)
        layer.visible = False
        say(self.message, f"Added “{added[0].name}” and “{added[1].name}”.")

    def _companion_stacks(self) -> tuple[ImageStack, ...]:
        run = self.session.current
        return () if run is None else stacks_of(self.companions.layers, partial(axes_of, run))

    # the end

    def hideEvent(self, event: Any) -> None:
        """Leave the layers as they were found while nobody looks at the panel."""
        self._preview.blink(False)
        super().hideEvent(event)

    def shut(self) -> None:
        """Stop what runs, take the preview off and disconnect; once."""
        if self.closed:
            return
        super().shut()
        self.session.end(self._token)
        self._keys.close()
        self._preview.close()
        self._cursor.close()
        for section in (self.movie, self.region, self.method, self.companions, self.runs):
            section.close_section()
