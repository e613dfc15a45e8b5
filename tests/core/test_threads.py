"""Thread counts and the shared pools."""

import os
import threading
import time

import pytest

import stackalign as sa
from stackalign.core.threads import VARIABLE, bands, map_ahead, map_threads


@pytest.fixture(autouse=True)
def restored():
    yield
    sa.set_threads(None)


def test_the_count_comes_from_the_call_the_variable_or_the_cores(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert sa.threads() == len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    monkeypatch.setenv(VARIABLE, " 3 ")
    assert sa.threads() == 3
    sa.set_threads(5)
    assert sa.threads() == 5
    sa.set_threads(None)
    assert sa.threads() == 3


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_a_variable_that_says_nothing_is_refused_by_name(monkeypatch, text):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(ValueError, match=f"{VARIABLE} must be a whole number of at least 1"):
        sa.threads()


@pytest.mark.parametrize("count", [0, -2, 1.5, True])
def test_a_count_that_is_none_is_refused(count):
    with pytest.raises(ValueError, match="whole number of at least 1"):
        sa.set_threads(count)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("mapper", [map_threads, lambda f, items: list(map_ahead(f, items))])
def test_results_keep_their_order(mapper, count):
    sa.set_threads(count)

    def slow_first(k):
        time.sleep(0.01 if k == 0 else 0)
        return k * k

    assert mapper(slow_first, range(20)) == [k * k for k in range(20)]
    assert mapper(slow_first, []) == []


@pytest.mark.parametrize("count", [1, 3])
def test_an_error_is_raised_where_its_item_stands(count):
    sa.set_threads(count)
    ahead = map_ahead(lambda k: 1 / (5 - k), range(10))
    assert [next(ahead) for _ in range(5)] == [1 / (5 - k) for k in range(5)]
    with pytest.raises(ZeroDivisionError):
        next(ahead)
    with pytest.raises(ZeroDivisionError):
        map_threads(lambda k: 1 / k, [1, 0])


def test_closing_drops_what_has_not_begun():
    sa.set_threads(2)
    begun = []
    ahead = map_ahead(lambda k: (begun.append(k), time.sleep(0.005)), range(1000))
    next(ahead)
    ahead.close()
    time.sleep(0.05)
    assert len(begun) <= 8


def test_only_a_few_items_are_drawn_ahead():
    sa.set_threads(2)
    drawn = []

    def source():
        for k in range(1000):
            drawn.append(k)
            yield k

    ahead = map_ahead(lambda k: k, source())
    next(ahead)
    assert len(drawn) <= 5
    ahead.close()


def test_work_in_threads_does_not_split_itself_again():
    sa.set_threads(2)

    def names(_):
        return set(map_threads(lambda _: threading.current_thread().name, range(4)))

    assert all(len(inside) == 1 for inside in map_threads(names, range(4)))


def test_bands_cover_everything_once():
    sa.set_threads(4)
    for length in (0, 1, 31, 64, 1000, 1001):
        parts = bands(length)
        assert [k for a, b in parts for k in range(a, b)] == list(range(length))
        assert len(parts) <= 4
    assert len(bands(63)) == 1
