"""Read frames, and do other short things, in a thread: only the last request counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal
from superqt.utils import create_worker

if TYPE_CHECKING:
    from collections.abc import Callable


class LatestOnly(QObject):
    """Runs functions in a thread, one at a time; of the requests made meanwhile only the last one is run.

    Signals
    -------
    done(object, object)
        What was asked for (the tag) and what came out: the result, or the exception.
    """

    done = Signal(object, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._running = False
        self._waiting: tuple[Any, Callable[[], Any]] | None = None
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether something runs or waits."""
        return self._running

    def ask(self, tag: Any, function: Callable[[], Any]) -> None:
        """Run ``function`` as soon as what runs now is over, unless something else is asked for before."""
        self._waiting = (tag, function)
        self._next()

    def close(self) -> None:
        """Say nothing more."""
        self._closed = True
        self._waiting = None

    def _next(self) -> None:
        if self._running or self._waiting is None or self._closed:
            return
        tag, function = self._waiting
        self._waiting = None
        self._running = True
        worker = create_worker(_guarded, function, _start_thread=False)
        worker.returned.connect(lambda result, tag=tag: self._end(tag, result))
        worker.start()

    def _end(self, tag: Any, result: Any) -> None:
        self._running = False
        if not self._closed:
            if self._waiting is None or self._waiting[0] != tag:
                self.done.emit(tag, result)
            self._next()


def _guarded(function: Callable[[], Any]) -> Any:
    """Return the result or the exception, in a list: a worker's None would not be announced."""
    try:
        return function()
    except Exception as error:
        return error
