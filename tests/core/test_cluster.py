"""`client=`: the same numbers from worker processes that read their own frames."""

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.cluster import WorkerMap
from stackalign.core.threads import map_frames, spread_over

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client():
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0")
    client = distributed.Client(cluster)
    yield client
    client.close()
    cluster.close()


@pytest.fixture(scope="module")
def movie(tmp_path_factory):
    stack, _ = sa.simulate(scene="texture", shape=(96, 112), frames=14, blank=(5,), amplitude=1.5, seed=1)
    path = tmp_path_factory.mktemp("movie") / "movie.tif"
    sa.write_stack(path, stack)
    return path


def assert_same(a: sa.Registration, b: sa.Registration) -> None:
    np.testing.assert_array_equal(a.transforms.matrices, b.transforms.matrices)
    np.testing.assert_array_equal(a.transforms.valid, b.transforms.valid)
    for name in ("correlation", "residual", "confidence", "error"):
        np.testing.assert_array_equal(getattr(a.quality, name), getattr(b.quality, name))
    assert a.quality.reasons == b.quality.reasons


@pytest.mark.parametrize(
    ("method", "reference"),
    [
        (sa.CrossCorrelation(), "mean"),
        (sa.CrossCorrelation(), "all-pairs"),
        (sa.CrossCorrelation(blocks=True), "previous"),
        (sa.LucasKanade(model="euclidean"), "mean"),
    ],
)
def test_workers_give_the_same_to_the_last_bit(client, movie, method, reference) -> None:
    stack = sa.read_stack(movie)
    here = sa.register(stack, method, reference=reference)
    there = sa.register(stack, method, reference=reference, client=client)
    assert_same(here, there)
    assert here.quality.flagged[5]
    if method.method == "cross-correlation" and method.blocks:
        np.testing.assert_array_equal(here.transforms.shifts, there.transforms.shifts)


def test_bad_frames_need_no_search_of_the_neighbours(client, movie) -> None:
    stack = sa.read_stack(movie)
    off = sa.Preprocess(bad_frames=False)
    method = sa.CrossCorrelation()
    assert_same(sa.register(stack, method, preprocess=off), sa.register(stack, method, preprocess=off, client=client))


def test_an_array_in_memory_and_progress(client, movie) -> None:
    frames = sa.read_stack(movie).asarray()
    seen = []
    there = sa.register(frames, sa.CrossCorrelation(), client=client, on_progress=seen.append)
    assert_same(sa.register(frames, sa.CrossCorrelation()), there)
    assert any("Aligning" in p.message for p in seen)


def test_a_cancel_reaches_the_workers(client, movie) -> None:
    with pytest.raises(sa.WorkCancelled):
        sa.register(sa.read_stack(movie), sa.CrossCorrelation(), client=client, should_stop=lambda: True)


def test_warp_and_write(client, movie, tmp_path) -> None:
    stack = sa.read_stack(movie)
    series = sa.TransformSeries.from_translations(np.random.default_rng(0).normal(0, 3, (len(stack), 2)))
    here, there = sa.warp(stack, series, crop="valid"), sa.warp(stack, series, crop="valid", client=client)
    assert there.shape == here.shape
    np.testing.assert_array_equal(there[7], here[7])
    np.testing.assert_array_equal(there.asarray(), here.asarray())
    np.testing.assert_array_equal(np.asarray(there.frames[3:6]), np.asarray(here.frames[3:6]))
    for name, aligned in (("here.tif", here), ("there.tif", there)):
        sa.write_stack(tmp_path / name, aligned)
    assert (tmp_path / "here.tif").read_bytes() == (tmp_path / "there.tif").read_bytes()


def test_workers_read_frames_themselves(client, movie) -> None:
    stack = sa.read_stack(movie)

    def where(t: int) -> tuple[int, int]:
        import os

        return os.getpid(), int(stack[t].sum(dtype=np.int64))

    with spread_over(WorkerMap(client)):
        found = list(map_frames(where, range(len(stack))))
    import os

    assert os.getpid() not in {pid for pid, _ in found}
    assert [total for _, total in found] == [int(frame.sum(dtype=np.int64)) for frame in stack]


def test_an_error_is_raised_where_its_item_stands(client) -> None:
    def fail(k: int) -> int:
        if k == 3:
            raise ValueError("no 3")
        return k

    with spread_over(WorkerMap(client)):
        work = map_frames(fail, range(6))
        assert [next(work) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="no 3"):
            next(work)


def test_what_is_no_client_is_named(movie) -> None:
    stack = sa.read_stack(movie)
    with pytest.raises(TypeError, match=r"stackalign\[cluster\]"):
        sa.register(stack, sa.CrossCorrelation(), client="localhost:8786")
    with pytest.raises(TypeError, match="not str"):
        sa.warp(stack, sa.TransformSeries.identity(len(stack), 2), client="localhost:8786")
