"""Long work as generators: each step yields a `Progress`, the last value is returned, `drain` runs it anywhere."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a piece of work has come.

    Attributes
    ----------
    done, total : int
        Steps finished, of how many.
    message : str
        The stage, in words that a user reads ("Aligning to the mean, round 2").
    partial : object
        The best result so far, kept if the work is cancelled; None if there is none yet.
    """

    done: int
    total: int
    message: str = ""
    partial: Any = None


Work: TypeAlias = Generator[Progress, None, R]


class WorkCancelled(Exception):
    """The work was cancelled by its caller; ``partial`` holds what was done until then."""

    def __init__(self, partial: Any = None) -> None:
        super().__init__("cancelled before it was finished")
        self.partial = partial


@dataclass(frozen=True, slots=True, eq=False)
class Done(Generic[R]):
    """The work finished with a value."""

    value: R

    def unwrap(self) -> R:
        """Return the value."""
        return self.value


@dataclass(frozen=True, slots=True, eq=False)
class Failed:
    """The work raised."""

    error: Exception

    def unwrap(self) -> NoReturn:
        """Raise the error."""
        raise self.error


@dataclass(frozen=True, slots=True, eq=False)
class Cancelled:
    """The work was cancelled; ``partial`` is its best result so far, or None."""

    partial: Any = None

    def unwrap(self) -> NoReturn:
        """Raise `WorkCancelled` with the partial result."""
        raise WorkCancelled(self.partial)


Outcome: TypeAlias = Done[R] | Failed | Cancelled


def drain(
    work: Work[R],
    on_progress: Callable[[Progress], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Outcome[R]:
    """Run ``work`` to its end in this thread.

    Parameters
    ----------
    work : generator
        Yields `Progress` and returns the result.
    on_progress : callable, optional
        Called with every `Progress`.
    should_stop : callable, optional
        Asked after every step; True cancels. The generator is closed, so its ``finally`` blocks run here.

    Returns
    -------
    Done, Failed or Cancelled
        Never raises what the work raised: call ``unwrap()`` for that. Ctrl+C counts as a cancel.
    """
    partial: Any = None
    try:
        while True:
            try:
                progress = next(work)
            except StopIteration as stop:
                return Done(stop.value)
            if progress.partial is not None:
                partial = progress.partial
            if on_progress is not None:
                on_progress(progress)
            if should_stop is not None and should_stop():
                return Cancelled(partial)
    except KeyboardInterrupt:
        return Cancelled(partial)
    except Exception as error:  # the whole point: an error becomes a value that no worker can lose
        return Failed(error)
    finally:
        work.close()
