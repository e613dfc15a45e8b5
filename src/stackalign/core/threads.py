"""How many threads the numerics use, and the pools that they share: bands of one frame, frames of a stack."""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    SpreadMap = Callable[[Callable[[Any], Any], Iterable[Any]], Generator[Any, None, None]]

A = TypeVar("A")
R = TypeVar("R")

VARIABLE = "STACKALIGN_THREADS"
_BATCH = 16  # frames
_BATCH_BYTES = 1 << 23
_BATCHES = 8  # at least, if there are as many frames
_lock = threading.Lock()
_count: int | None = None
_pools: dict[str, ThreadPoolExecutor] = {}
_inside = threading.local()


def threads() -> int:
    """Return how many threads are used: `set_threads`, else the variable STACKALIGN_THREADS, else all cores.

    Raises
    ------
    ValueError
        If the variable holds no whole number of at least 1.
    """
    if _count is not None:
        return _count
    text = os.environ.get(VARIABLE, "").strip()
    if text:
        if not text.isdigit() or int(text) < 1:
            raise ValueError(f"{VARIABLE} must be a whole number of at least 1, not {text!r}")
        return int(text)
    if hasattr(os, "sched_getaffinity"):
        return max(len(os.sched_getaffinity(0)), 1)
    return os.cpu_count() or 1


def set_threads(count: int | None) -> None:
    """Use ``count`` threads from now on; None goes back to the variable or all cores."""
    global _count
    if count is not None and (isinstance(count, bool) or int(count) != count or count < 1):
        raise ValueError(f"the number of threads must be a whole number of at least 1, not {count!r}")
    with _lock:
        _count = None if count is None else int(count)
        for pool in _pools.values():
            pool.shutdown(wait=False)
        _pools.clear()


def map_threads(function: Callable[[A], R], items: Iterable[A]) -> list[R]:
    """Return ``[function(item) for item in items]``, worked out in threads; inside such a thread, one by one."""
    todo = list(items)
    if len(todo) < 2 or threads() == 1 or getattr(_inside, "busy", False):
        return [function(item) for item in todo]
    return list(_pool("bands").map(lambda item: _run(function, item), todo))


def map_ahead(
    function: Callable[[A], R], items: Iterable[A], *, workers: int | None = None, depth: int | None = None
) -> Generator[R, None, None]:
    """Yield ``function(item)`` in order while the next few are worked out in threads.

    ``workers`` threads work at once (as many as there are of all, if None), and ``depth`` items are begun or done
    before their turn (two a thread, if None). An exception is raised where its item stands. Closing the generator drops
    what has not begun.
    """
    if (threads() == 1 and workers is None) or getattr(_inside, "busy", False):
        for item in items:
            yield function(item)
        return
    pool = _pool("frames") if workers is None else _pool(f"readers-{workers}", workers)
    depth = 2 * (workers or threads()) if depth is None else max(depth, 1)
    waiting: deque[Future[R]] = deque()
    source = iter(items)
    try:
        while True:
            while len(waiting) < depth:
                try:
                    item = next(source)
                except StopIteration:
                    break
                waiting.append(pool.submit(_run, function, item))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def map_frames(function: Callable[[A], R], items: Iterable[A]) -> Generator[R, None, None]:
    """Do as `map_ahead` does; inside `spread_over` whatever was named there does it instead.

    For work that reads its own frames and changes nothing but what it returns: it may be done in another process.
    """
    spread: SpreadMap | None = getattr(_inside, "spread", None)
    if spread is None or getattr(_inside, "busy", False):
        yield from map_ahead(function, items)
    else:
        yield from spread(function, items)


@contextmanager
def spread_over(spread: SpreadMap | None) -> Iterator[None]:
    """Let ``spread(function, items)`` do the work of `map_frames` in this thread; None: threads of this process do."""
    before = getattr(_inside, "spread", None)
    _inside.spread = spread
    try:
        yield
    finally:
        _inside.spread = before


def is_spread() -> bool:
    """Return whether frames are worked on in other processes."""
    return getattr(_inside, "spread", None) is not None


def run_alone(function: Callable[[A], R], item: A) -> R:
    """Return ``function(item)``, worked out in this one thread."""
    return _run(function, item)


def batches(frames: Sequence[A], nbytes: int) -> list[Sequence[A]]:
    """Split frames of ``nbytes`` into batches of some, each to be worked on in one go: Python is then entered seldom.

    The same however many threads there are, and small enough to keep many of these at work.
    """
    size = max(min(_BATCH_BYTES // max(nbytes, 1), len(frames) // _BATCHES, _BATCH), 1)
    return [frames[k : k + size] for k in range(0, len(frames), size)]


def bands(length: int, least: int = 32) -> list[tuple[int, int]]:
    """Split ``range(length)`` into one part a thread, none shorter than about ``least``."""
    count = max(min(threads(), length // least), 1)
    edges = [length * k // count for k in range(count + 1)]
    return list(pairwise(edges))


def spare() -> int:
    """Return how many threads a library may use here: one where all cores have a frame of their own."""
    return 1 if getattr(_inside, "busy", False) else threads()


def _run(function: Callable[[A], R], item: A) -> R:
    _inside.busy = True  # frames in threads do not split themselves further: the cores are taken
    try:
        return function(item)
    finally:
        _inside.busy = False


def _pool(name: str, count: int | None = None) -> ThreadPoolExecutor:
    with _lock:
        if name not in _pools:
            _pools[name] = ThreadPoolExecutor(count or threads(), thread_name_prefix=f"stackalign-{name}")
        return _pools[name]
