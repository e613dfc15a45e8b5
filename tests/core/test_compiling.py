"""Who waits for a function to be compiled is told so."""

import gc

import numba
import pytest

from stackalign.core import compiled, compiling


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


def test_garbage_is_collected_as_before_after_a_compilation() -> None:
    usual = gc.get_threshold()

    @compiled.kernel
    def right(x: int) -> int:
        return x + 1

    @compiled.kernel
    def wrong(x: int) -> int:
        return x.nothing  # type: ignore[attr-defined, no-any-return]

    assert right(1) == 2
    assert gc.get_threshold() == usual
    with pytest.raises(Exception, match="nothing"):
        wrong(1)
    assert gc.get_threshold() == usual
