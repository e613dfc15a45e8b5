"""What the user sees while work runs in a terminal: a progress line, a clean end on Ctrl+C, one line for an error."""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from stackalign.core import compiling
from stackalign.core.work import Progress, Work, drain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

R = TypeVar("R")
_BAR = 20  # characters


def finish(work: Work[R], *, quiet: bool = False) -> R:
    """Run work to its end with a progress line on stderr; Ctrl+C or SIGTERM cancels it cleanly.

    Raises
    ------
    WorkCancelled
        If it was cancelled.
    Exception
        What the work raised.
    """
    line = ProgressLine(sys.stderr) if not quiet and sys.stderr.isatty() else None
    tell = line.say_compiling if line is not None else lambda: None
    try:
        with interruptible(line) as stopped, compiling.watched(tell):
            outcome = drain(work, line, stopped)
    finally:
        if line is not None:
            line.clear()
    return outcome.unwrap()


class ProgressLine:
    """Rewrites one line of a terminal: stage, bar, share done, time left.

    Parameters
    ----------
    stream : text stream
        A terminal.
    clock : callable
        Seconds; a test hands in its own.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._stage, self._begun, self._first, self._last, self._width = "", 0.0, 0, -1.0, 0

    def __call__(self, progress: Progress) -> None:
        """Show how far the work is, at most ten times a second."""
        now = self._clock()
        if progress.message != self._stage or progress.done < self._first:
            self._stage, self._begun, self._first, self._last = progress.message, now, progress.done, -1.0
        if now - self._last < 0.1 and progress.done < progress.total:
            return
        self._last = now
        self.write(describe(progress, self._left(progress, now)))

    def say_compiling(self) -> None:
        """Say why nothing moves."""
        self.write(compiling.MESSAGE)

    def write(self, text: str) -> None:
        """Replace the line."""
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._width = len(text)

    def clear(self) -> None:
        """Leave an empty line for what comes next."""
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
            self._width = 0

    def _left(self, progress: Progress, now: float) -> float | None:
        """Seconds left in this stage; None as long as too little is done to tell."""
        steps = progress.done - self._first
        if steps < 1 or now - self._begun < 0.5:
            return None
        return (now - self._begun) / steps * (progress.total - progress.done)


def describe(progress: Progress, left: float | None) -> str:
    """Return a line such as ``Aligning  [#####     ]  52 %  12 s left``."""
    share = min(max(progress.done / progress.total, 0.0), 1.0) if progress.total > 0 else 0.0
    full = round(share * _BAR)
    text = f"{progress.message or 'Working'}  [{'#' * full}{' ' * (_BAR - full)}] {share:4.0%}"
    return text if left is None else f"{text}  {duration(left)} left"


def duration(seconds: float) -> str:
    """Return a time as people read it: 0.42 s, 12 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


@contextmanager
def interruptible(line: ProgressLine | None = None) -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl+C or SIGTERM came; a second Ctrl+C stops at once.

    A signal asks the work to stop at its next step, so that it cleans up at a point of its own choosing.
    """
    asked = threading.Event()

    def ask(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        if line is not None:
            line.write("Cancelling (Ctrl+C again to stop at once)")

    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield asked.is_set
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, ask) for number in numbers]
    try:
        yield asked.is_set
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def one_line(error: BaseException) -> str:
    """Return what went wrong as one clear line."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return "there is not enough memory" + (f": {text}" if text else "; try a range of frames or a smaller region")
    if isinstance(error, KeyError):
        text = text.strip("'\"")
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ImportError) and "pip install" in text:  # an optional package: the sentence says all
        return text
    if isinstance(error, OSError | ValueError) and text:
        return text
    return f"unexpected error: {type(error).__name__}: {text}" if text else f"unexpected error: {type(error).__name__}"
