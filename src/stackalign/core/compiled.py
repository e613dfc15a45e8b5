"""The two kinds of compiled functions: kernels, which Python calls, and parts, which only kernels call.

Where ``fastmath`` lets the compiler reorder a sum, the last bit depends on the code around it. numba compiles a called
function twice, for itself and within its caller, and which of the two runs depends on whether this process compiled it
or read it from the cache: the same call would give other bits on the first start of the program, and in a fresh worker.
So fast parts, and parts that call them, are always inlined: there is one of each.
"""

from __future__ import annotations

import gc
from typing import Any

from numba import njit
from numba.core import event

from stackalign.core import compiling

#: called from Python, compiled once per machine, releases the GIL
kernel = njit(cache=True, nogil=True, error_model="numpy")
#: as `kernel`; sums may be reordered
fast_kernel = njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
#: called by kernels that are not fast, and written into them before they are compiled: parts compiled each for itself,
#: and once more within every caller, took three times as long
inlined = njit(cache=True, nogil=True, error_model="numpy", inline="always")
#: called by kernels; sums may be reordered, within this part alone
fast_inlined = njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)


_SELDOM = (50_000, 20, 20)  # objects, rounds: see `gc.set_threshold`


class _Listener(event.Listener):  # type: ignore[misc]
    """Told of each function that is compiled, and of those within it; others that are read from the cache do not come.

    Compilation makes millions of objects that stay: to look through all of them again and again took a fifth of its
    time, so garbage is collected seldom meanwhile.
    """

    def __init__(self) -> None:
        self.depth, self.usual = 0, gc.get_threshold()

    def on_start(self, _: Any) -> None:
        compiling.begun()
        if self.depth == 0:
            self.usual = gc.get_threshold()
            if self.usual[0]:  # else nothing is collected
                gc.set_threshold(*_SELDOM)
        self.depth += 1

    def on_end(self, _: Any) -> None:
        self.depth -= 1
        if self.depth == 0:
            gc.set_threshold(*self.usual)


event.register("numba:compile", _Listener())
