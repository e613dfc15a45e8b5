"""Says that functions are being compiled: a run stands still for that, once after an installation."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: what a user reads meanwhile
MESSAGE = "Compiling for this processor: once after an installation"

_watchers: list[Callable[[], None]] = []


@contextmanager
def watched(callback: Callable[[], None]) -> Iterator[None]:
    """Call ``callback`` whenever a function begins to be compiled; from the thread that compiles, which waits."""
    _watchers.append(callback)
    try:
        yield
    finally:
        _watchers.remove(callback)


def begun() -> None:
    """Tell all who watch; called by the compiler."""
    for callback in _watchers.copy():
        callback()
