"""Run `Work` in a thread for a panel: progress, time left, cancel within a second, every end as an `Outcome`."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QThreadPool, QTimer, Signal
from superqt.utils import create_worker

from stackalign.core import compiling
from stackalign.core.work import Cancelled, Failed, Progress, drain

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackalign.core.work import Outcome, Work

_THROTTLE = 0.05  # seconds between two reports: 20 a second look smooth and cost the main thread nothing
_FAREWELL = 0.5  # seconds that a panel which is closed waits for the step that is under way
_PATIENCE_MS = 800  # a step that does not end within this time after a cancel is left to end by itself


@dataclass(frozen=True, slots=True)
class Report:
    """A `Progress` with the clock's view of it.

    Attributes
    ----------
    progress : Progress
        Steps and stage.
    elapsed : float
        Seconds since the start of the work.
    left : float or None
        Estimated seconds until the end of this stage; None as long as that would be a guess.
    """

    progress: Progress
    elapsed: float
    left: float | None


class _Clock:
    """Estimates the time left in a stage from the pace of that stage."""

    def __init__(self) -> None:
        self.begun = self._stage_begun = time.perf_counter()
        self._stage: tuple[str, int] | None = None
        self._first = 0

    def report(self, progress: Progress) -> Report:
        now = time.perf_counter()
        stage = (progress.message, progress.total)
        if stage != self._stage:
            self._stage, self._stage_begun, self._first = stage, now, progress.done
        steps, seconds = progress.done - self._first, now - self._stage_begun
        known = steps > 0 and seconds > 0.3
        left = seconds / steps * max(progress.total - progress.done, 0) if known else None
        return Report(progress, now - self.begun, left)


class _Job:
    """One run: what the worker thread and the main thread share."""

    def __init__(self) -> None:
        self.stop, self.over = Event(), Event()
        self.partial: Any = None
        self._lock = Lock()
        self._abandoned = self._ended = False

    def abandon(self) -> None:
        """Stop waiting for the thread: its place in the pool is lent to others until it ends."""
        with self._lock:
            if not self._ended:
                self._abandoned = True
                QThreadPool.globalInstance().releaseThread()

    def end(self) -> None:
        """Note that the thread is at its end; called there."""
        self.over.set()
        with self._lock:
            self._ended = True
            if self._abandoned:
                QThreadPool.globalInstance().reserveThread()


class WorkRunner(QObject):
    """Runs one piece of work at a time in a thread.

    The thread runs `drain` inside a *function* worker and returns an `Outcome`: workers that are generators lose a
    RuntimeError and never close their generator. Nothing here depends on a worker's ``errored`` signal.

    Signals
    -------
    started()
    progressed(Report)
        At most 20 times a second; the first step of each stage and the last one always.
    finished(Outcome)
        Exactly once for every start: Done, Failed or Cancelled.
    """

    started = Signal()
    progressed = Signal(object)
    finished = Signal(object)
    _from_thread = Signal(object, object)  # job, Report: crosses into the main thread

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._job: _Job | None = None
        self._patience = QTimer(self, singleShot=True, interval=_PATIENCE_MS)
        self._patience.timeout.connect(self._lose_patience)
        self._from_thread.connect(self._relay)

    @property
    def busy(self) -> bool:
        """True from `start` until ``finished``."""
        return self._job is not None

    @property
    def cancelling(self) -> bool:
        """True between `cancel` and ``finished``."""
        return self._job is not None and self._job.stop.is_set()

    def start(self, work: Work[Any] | Callable[[], Work[Any]]) -> None:
        """Run ``work`` in a thread; a callable is called there, so that its preparation does not block either.

        Raises
        ------
        RuntimeError
            If something is still running.
        """
        if self._job is not None:
            raise RuntimeError("this panel is still busy: cancel the running work first")
        job = self._job = _Job()
        worker = create_worker(self._body, job, work, _start_thread=False)
        worker.returned.connect(lambda outcome, job=job: self._end(job, outcome))
        worker.errored.connect(lambda error, job=job: self._end(job, Failed(error)))
        worker.start()
        self.started.emit()

    def cancel(self) -> None:
        """Ask the work to stop; ``finished`` comes within a second, with what is done so far."""
        if self._job is not None and not self._job.stop.is_set():
            self._job.stop.set()
            self._patience.start()

    def close(self) -> None:
        """Stop what runs and stay silent about it: the panel is going away."""
        job, self._job = self._job, None
        self._patience.stop()
        if job is not None:
            job.stop.set()
            job.over.wait(_FAREWELL)  # a thread that outlives the program would speak to objects that are gone

    def _body(self, job: _Job, work: Work[Any] | Callable[[], Work[Any]]) -> Outcome[Any]:
        """Drain the work; runs in the thread and lets nothing escape, not even SystemExit."""
        clock, last, stage, shown = _Clock(), 0.0, None, Progress(0, 0)

        def on_progress(progress: Progress) -> None:
            nonlocal last, stage, shown
            shown = progress
            if progress.partial is not None:
                job.partial = progress.partial
            report = clock.report(progress)
            urgent = progress.message != stage or progress.done >= progress.total
            if urgent or report.elapsed - last >= _THROTTLE:
                last, stage = report.elapsed, progress.message
                self._from_thread.emit(job, report)

        def on_compiling() -> None:
            on_progress(replace(shown, message=compiling.MESSAGE))

        try:
            with compiling.watched(on_compiling):
                generator = work() if callable(work) else work
                return drain(generator, on_progress, job.stop.is_set)
        except KeyboardInterrupt:
            return Cancelled(job.partial)
        except Exception as error:
            return Failed(error)
        except BaseException as error:  # SystemExit and the like would end the thread without a word
            wrapped = RuntimeError(f"the work was stopped from inside by {type(error).__name__}")
            wrapped.__cause__ = error
            return Failed(wrapped)
        finally:
            job.end()

    def _relay(self, job: _Job, report: Report) -> None:
        if job is self._job and not job.stop.is_set():
            self.progressed.emit(report)

    def _lose_patience(self) -> None:
        job = self._job
        if job is not None and job.stop.is_set():
            job.abandon()  # the next run must not wait behind the step that hangs
            self._finish(Cancelled(job.partial))

    def _end(self, job: _Job, outcome: Outcome[Any]) -> None:
        if job is self._job:
            if isinstance(outcome, Cancelled) and outcome.partial is None:
                outcome = Cancelled(job.partial)
            self._finish(outcome)

    def _finish(self, outcome: Outcome[Any]) -> None:
        self._job = None
        self._patience.stop()
        self.finished.emit(outcome)
