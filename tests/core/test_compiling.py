"""Who waits for a function to be compiled is told so."""

import numba

import stackalign.core.compiled  # noqa: F401  it listens to the compiler
from stackalign.core import compiling


def test_whoever_watches_is_told_when_a_function_is_compiled_and_only_then() -> None:
    @numba.njit
    def twice(x: float) -> float:
        return 2 * x

    told: list[str] = []
    with compiling.watched(lambda: told.append("compiling")):
        twice(1)
        assert told
        told.clear()
        twice(2)
        assert not told
    twice(1.5)
    assert not told
