"""Work on frames in the worker processes of dask.distributed, which read their own frames.

Only the work and the results travel: a stack that was read from files is opened again by each worker, by its path. Of
an array in memory every worker gets a copy.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from io import BytesIO
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from stackalign.core.threads import run_alone

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from numpy.typing import NDArray

A = TypeVar("A")
R = TypeVar("R")

_LOCK = type(Lock())
_AHEAD = 2  # tasks a worker thread that wait for it: enough to keep it busy, few enough to hold in memory


@dataclass(frozen=True, slots=True)
class _Shipped:
    """A function on its way to the workers, sent once and called many times."""

    function: Callable[[Any], Any]

    def __call__(self, item: Any) -> Any:
        return run_alone(self.function, item)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, (_packed(self.function),)


def _packed(function: Callable[[Any], Any]) -> bytes:
    """Return a function, with all that it refers to, as bytes; a lock arrives as a new one that nobody holds."""
    import cloudpickle  # comes with distributed

    class Packer(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            return (Lock, ()) if isinstance(obj, _LOCK) else super().reducer_override(obj)

    buffer = BytesIO()
    Packer(buffer).dump(function)
    return buffer.getvalue()


def _unpacked(data: bytes) -> _Shipped:
    import cloudpickle

    return _Shipped(cloudpickle.loads(data))


def _call(work: _Shipped, item: Any) -> Any:
    return work(item)


def _depth(client: Any) -> int:
    count = sum(client.nthreads().values())
    if not count:
        raise ValueError("the cluster of client= has no workers: start some, or leave client out")
    return _AHEAD * int(count)


def check_client(client: Any) -> None:
    """Raise TypeError if ``client`` is no client of dask.distributed."""
    lacking = [name for name in ("scatter", "submit", "nthreads") if not hasattr(client, name)]
    if lacking:
        raise TypeError(
            f"client must be a dask.distributed.Client, not {type(client).__name__}: pip install stackalign[cluster]"
        )


@dataclass(frozen=True, slots=True, eq=False)
class WorkerMap:
    """`map_ahead` over the workers of a client; see `stackalign.core.threads.spread_over`."""

    client: Any

    def __call__(self, function: Callable[[A], R], items: Iterable[A]) -> Generator[R, None, None]:
        """Yield ``function(item)`` in order; an exception is raised where its item stands."""
        depth = _depth(self.client)
        work = self.client.scatter(_Shipped(function), broadcast=True, hash=False)
        waiting: deque[Any] = deque()
        source = iter(items)
        try:
            while True:
                while len(waiting) < depth:
                    try:
                        item = next(source)
                    except StopIteration:
                        break
                    waiting.append(self.client.submit(_call, work, item, pure=False))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            if waiting:
                self.client.cancel(list(waiting))


@dataclass(slots=True, eq=False)
class WorkerFrames:
    """Frames that workers make, a few ahead of the one that is read: ``frames[t]`` waits for that one.

    Parameters
    ----------
    client : dask.distributed.Client
        Whose workers make them.
    frames : array-like (t, ...)
        Makes frame ``t`` when it is indexed.
    """

    client: Any
    frames: Any
    _work: Any = None
    _waiting: dict[int, Any] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @property
    def shape(self) -> tuple[int, ...]:
        """(t, ...)."""
        return tuple(self.frames.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type."""
        dtype: np.dtype[Any] = np.dtype(self.frames.dtype)
        return dtype

    def __getitem__(self, index: Any) -> NDArray[Any]:
        first, *rest = index if isinstance(index, tuple) else (index,)
        if isinstance(first, slice):
            chosen = range(self.shape[0])[first]
            out = np.empty((len(chosen), *self.shape[1:]), self.dtype)
            for k, t in enumerate(chosen):
                out[k] = self._frame(t)
            return np.asarray(out[(slice(None), *rest)])
        return np.asarray(self._frame(int(first))[tuple(rest)])

    def __reduce__(self) -> tuple[Any, ...]:
        return _plain, (self.frames,)  # a worker makes its frames itself

    def _frame(self, t: int) -> NDArray[Any]:
        with self._lock:
            if self._work is None:
                self._work = self.client.scatter(_Shipped(self.frames.__getitem__), broadcast=True, hash=False)
            ahead = range(t, min(t + _depth(self.client), self.shape[0]))
            stale = [self._waiting.pop(k) for k in list(self._waiting) if k not in ahead]
            if stale:
                self.client.cancel(stale)
            for k in ahead:
                if k not in self._waiting:
                    self._waiting[k] = self.client.submit(_call, self._work, k, pure=False)
            future = self._waiting.pop(t)
        return np.asarray(future.result())


def _plain(frames: Any) -> Any:
    return frames
