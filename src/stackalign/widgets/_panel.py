"""What our panels have in common: one scrolling column, undo and redo, help, work in a thread, a clean end."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QLayout, QScrollArea, QShortcut, QVBoxLayout, QWidget

from stackalign.core.work import Cancelled, Done, Failed
from stackalign.widgets._errors import show_error
from stackalign.widgets._preferences import apply_threads
from stackalign.widgets._run_section import RunSection
from stackalign.widgets._runner import WorkRunner
from stackalign.widgets._sessions import session_for
from stackalign.widgets._style import note, say, small_button

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import napari

    from stackalign.core.work import Outcome, Work
    from stackalign.widgets._runner import Report

WIDE = 720  # pixels: from here on parts stand beside each other


class Panel(QWidget):
    """A panel of a viewer; a subclass fills `column` and answers the session's events.

    Parameters
    ----------
    napari_viewer : Viewer
        Injected by napari.
    name : str
        Of the object, for tests and style sheets.
    keys : mapping of str to (mapping of str to str)
        What "?" shows: where, then key and meaning.
    """

    def __init__(
        self,
        napari_viewer: napari.viewer.Viewer,
        name: str,
        keys: Mapping[str, Mapping[str, str]],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName(name)
        self._viewer = napari_viewer
        self.session = session_for(napari_viewer)
        self._connected: list[tuple[str, Callable[..., None]]] = []
        self._closers: list[Callable[[], object]] = []
        self._what = ""
        self._ended: Callable[[Any], None] | None = None
        self._on_cancel: Callable[[Any], None] | None = None
        self.closed = False
        self.runner = WorkRunner(self)
        self.run = RunSection()
        self.message = note()
        self.undo = small_button("Undo", "Nothing to undo", self.session.undo)
        self.redo = small_button("Redo", "Nothing to do again", self.session.redo)
        self.help = small_button("?", "The keys of this panel (F1)", self._show_help)
        self.help_text = note(_help(keys))
        self.help_text.setTextFormat(Qt.TextFormat.RichText)
        self.help_text.hide()
        self.top = QHBoxLayout()
        self.top.setContentsMargins(0, 0, 0, 0)
        self.top.setSpacing(4)
        for button in (self.undo, self.redo):
            self.top.addWidget(button)
        self.top.addStretch(1)
        self.top.addWidget(self.help)
        inner = QWidget()
        self.column = QVBoxLayout(inner)
        self.column.setContentsMargins(6, 4, 6, 6)
        self.column.setSpacing(6)
        self.column.addLayout(self.top)
        self.column.addWidget(self.help_text)
        self.scroll = QScrollArea()
        self.scroll.setWidget(inner)
        self.scroll.setWidgetResizable(True)
        self.scroll.setFrameShape(QFrame.Shape.NoFrame)
        self.scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.scroll.setMinimumWidth(300)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.addWidget(self.scroll)
        for keys_, action in (
            ("Ctrl+Z", self.session.undo),
            ("Ctrl+Shift+Z", self.session.redo),
            ("F1", self._show_help),
        ):
            self.shortcut(keys_, action)
        self.run.cancel.connect(self.cancel)
        self.runner.progressed.connect(self._on_progress)
        self.runner.finished.connect(self._on_finished)
        self.listen("history", self._show_history)
        self._show_history()

    @property
    def viewer(self) -> Any:
        """The viewer that the panel belongs to."""
        return self._viewer

    def fill(self, *parts: QWidget | QLayout) -> None:
        """Put parts below each other."""
        for part in parts:
            if isinstance(part, QLayout):
                self.column.addLayout(part)
            else:
                self.column.addWidget(part)

    def shortcut(self, keys: str, action: Callable[[], object], where: QWidget | None = None) -> None:
        """Bind keys while the panel, or one widget of it, has the focus."""
        shortcut = QShortcut(QKeySequence(keys), where or self)
        shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        shortcut.activated.connect(lambda: action())

    def listen(self, event: str, slot: Callable[..., None]) -> None:
        """Answer an event of the session until the panel closes."""
        self.session.events[event].connect(slot)
        self._connected.append((event, slot))

    def at_end(self, closer: Callable[[], object]) -> None:
        """Call ``closer`` when the panel closes."""
        self._closers.append(closer)

    # work

    def start(
        self,
        what: str,
        work: Work[Any] | Callable[[], Work[Any]],
        done: Callable[[Any], None],
        cancelled: Callable[[Any], None] | None = None,
    ) -> None:
        """Run work in a thread: progress and Cancel are shown, errors end in a dialog.

        Parameters
        ----------
        what : str
            What is going on, as messages call it ("Following").
        work : Work, or callable that returns it
            As for `WorkRunner.start`.
        done, cancelled : callable
            Called with the result, or with the partial one.
        """
        apply_threads()
        self._what, self._ended, self._on_cancel = what, done, cancelled
        say(self.message, "")
        self.run.begin(what)
        self.runner.start(work)
        self.show_ready()

    def cancel(self) -> None:
        """Stop what is running; what is done so far is kept."""
        if self.runner.busy:
            self.run.cancelling()
            self.runner.cancel()

    def show_ready(self) -> None:
        """Say what the buttons would do now, and which of them cannot be pressed."""

    def _on_progress(self, report: Report) -> None:
        self.run.report(report)

    def _on_finished(self, outcome: Outcome[Any]) -> None:
        self.run.end()
        done, cancelled = self._ended, self._on_cancel
        self._ended = self._on_cancel = None
        try:
            if isinstance(outcome, Done) and done is not None:
                done(outcome.value)
            elif isinstance(outcome, Cancelled) and cancelled is not None:
                cancelled(outcome.partial)
            elif isinstance(outcome, Cancelled):
                say(self.message, f"{self._what} was cancelled.")
            elif isinstance(outcome, Failed):
                self.fail(outcome.error)
        except Exception as error:  # what we make of a result must not leave the panel busy either
            self.fail(error)
        finally:
            self.finished()
            self.show_ready()

    def finished(self) -> None:
        """Tidy up after work, however it ended."""

    def fail(self, error: BaseException, what: str = "") -> None:
        """Show an error without blocking."""
        name = what or self._what
        say(self.message, f"{name} failed: see the message.")
        show_error(f"{name} failed", error, self.window())

    def attempt(self, what: str, action: Callable[[], object]) -> None:
        """Do something short; an error ends in a dialog."""
        try:
            action()
        except Exception as error:
            self.fail(error, what)

    def open_panel(self, name: str) -> None:
        """Open another panel of the plugin, or bring it to the front."""
        self.attempt(f"Opening “{name}”", partial(self._viewer.window.add_plugin_dock_widget, "stackalign", name))

    # small things

    def _show_help(self) -> None:
        self.help_text.setVisible(not self.help_text.isVisible())

    def _show_history(self) -> None:
        history = self.session.history
        for button, verb, name in ((self.undo, "Undo", history.undo_name), (self.redo, "Redo", history.redo_name)):
            button.setEnabled(bool(name))
            button.setToolTip(f"{verb}: {name}" if name else f"Nothing to {verb.lower()}")

    def sizeHint(self) -> QSize:
        """Wide enough for most; panels work from 300 px on."""
        return QSize(360, 720)

    def event(self, event: Any) -> bool:
        """Let go of the viewer when the dock lets go of the panel: napari then sends no close."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.shut()
        return bool(super().event(event))

    def closeEvent(self, event: Any) -> None:
        """Stop what runs and let go of the viewer."""
        self.shut()
        super().closeEvent(event)

    def deleteLater(self) -> None:
        """Let go of the viewer before going away."""
        self.shut()
        super().deleteLater()

    def shut(self) -> None:
        """Stop what runs and disconnect; once."""
        if self.closed:
            return
        self.closed = True
        self.runner.close()
        for event, slot in self._connected:
            self.session.events[event].disconnect(slot, missing_ok=True)
        for closer in reversed(self._closers):
            closer()


def _help(keys: Mapping[str, Mapping[str, str]]) -> str:
    rows = "".join(
        f"<tr><td colspan=2><b>{where}</b></td></tr>"
        + "".join(f"<tr><td>{key}&nbsp;&nbsp;</td><td>{what}</td></tr>" for key, what in those.items())
        for where, those in keys.items()
    )
    return f"<table cellspacing=2>{rows}</table>"


def titled(title: str, part: QWidget) -> QWidget:
    """Return a part with a line of words above it."""
    box = QWidget()
    column = QVBoxLayout(box)
    column.setContentsMargins(0, 0, 0, 0)
    column.setSpacing(1)
    column.addWidget(QLabel(title))
    column.addWidget(part)
    column.addStretch(1)
    return box
