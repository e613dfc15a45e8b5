"""Feed a writer that pulls its input from a generator that pushes: frames are made here, written in a second thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from queue import Full, Queue
from typing import TYPE_CHECKING, Any

from stackalign.core.work import Progress, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_END = object()
_ABORT = object()


class _AbortedError(Exception):
    """Ends the writer's thread when the work is cancelled."""


def stream(consume: Callable[[Iterator[Any]], None], produce: Iterable[Iterable[Any]], total: int) -> Work[None]:
    """Run ``consume`` over the pages of every frame that ``produce`` makes; yields a `Progress` after every frame.

    Parameters
    ----------
    consume : callable
        Writes the pages of the iterator that it is given; runs in a thread of its own, so that making a frame and
        writing the one before it overlap.
    produce : iterable of iterables
        The pages of each frame.
    total : int
        Number of frames.

    Raises
    ------
    Exception
        What either side raised. On any error, and if the generator is closed, the writer's thread has ended first.
    """
    queue: Queue[Any] = Queue(maxsize=4)

    def feed() -> Iterator[Any]:
        while (item := queue.get()) is not _END:
            if item is _ABORT:
                raise _AbortedError
            yield item

    with ThreadPoolExecutor(1, thread_name_prefix="stackalign-write") as pool:
        writing = pool.submit(consume, feed())

        def put(item: Any) -> None:
            while not writing.done():
                try:
                    queue.put(item, timeout=0.1)
                    return
                except Full:
                    continue
            writing.result()  # raises what stopped the writer

        try:
            for done, pages in enumerate(produce, start=1):
                for page in pages:
                    put(page)
                yield Progress(done, total, "Writing")
            put(_END)
            writing.result()
        except BaseException:
            while not writing.done():
                try:
                    queue.put(_ABORT, timeout=0.1)
                except Full:
                    continue
            raise
