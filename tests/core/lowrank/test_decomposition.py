"""Aligned, low-rank and sparse parts: they add up, in the units of the input, and hold what they should."""

from __future__ import annotations

import numpy as np
import pytest

import stackalign as sa
from tests.core.lowrank.scenes import movie


@pytest.fixture(scope="module")
def flickering():
    stack, truth = movie(scene="texture", frames=24, flicker=0.1, photons=1500.0)
    return stack, truth, sa.register(stack, sa.Reals())


def test_the_parts_add_up(flickering):
    stack, _, result = flickering
    parts = result.details["decomposition"]
    for t in (0, 9):
        aligned, low, sparse = (np.asarray(p[t]) for p in (parts.aligned, parts.low_rank, parts.sparse))
        assert aligned.dtype == low.dtype == sparse.dtype == np.float32
        both = np.isfinite(aligned) & np.isfinite(low)
        assert np.allclose(aligned[both], (low + sparse)[both], atol=1e-2)
        assert not np.isfinite(sparse[~both]).any()
    assert np.allclose(np.asarray(parts.aligned[0]), stack.asarray()[0], atol=1e-2)  # the anchor, in input units
    assert parts.sparse.shape == stack.shape
    assert parts.low_rank.name == "movie [low-rank]"


def test_flicker_is_sparse_and_the_scene_is_low_rank(flickering):
    _, truth, result = flickering
    assert not result.quality.flagged.any()
    assert truth.error(result.transforms).max() < 0.1
    parts = result.details["decomposition"]
    shown = np.isfinite(parts.aligned.asarray())
    lit = np.array([truth.active(t) for t in range(24)]) & shown
    # what is lit in half of the frames that show it or more is part of the scene: nothing could tell
    seldom = lit.sum(axis=0) < 0.5 * shown.sum(axis=0)
    assert seldom.mean() > 0.95
    hits = false = missed = 0
    still = truth.scene.render(np.eye(3))
    still = still * (truth.simulation.photons / still.mean())
    for t in range(0, 24, 4):
        sparse, low = np.asarray(parts.sparse[t]), np.asarray(parts.low_rank[t]) - truth.simulation.offset
        known = np.isfinite(sparse)
        assert known[20:-20, 20:-20].mean() > 0.99  # activity leaves no holes
        known &= seldom
        # half-way between a dark and a lit cell, three times as bright
        found, true = sparse > low, truth.active(t)
        hits += int((found & true & known).sum())
        false += int((found & ~true & known).sum())
        missed += int((~found & true & known).sum())
        assert np.median(np.abs(low / still - 1)[known]) < 0.02
    assert 2 * hits / (2 * hits + false + missed) >= 0.95


def test_the_parts_of_a_band_passed_movie_are_those_of_its_filtered_frames():
    stack, _ = movie()
    parts = sa.register(stack, sa.Reals(high_sigma=8.0)).details["decomposition"]
    low, sparse = np.asarray(parts.low_rank[2]), np.asarray(parts.sparse[2])
    assert np.nanstd(sparse) < 0.3 * np.nanstd(low)
    assert abs(np.nanmedian(sparse)) < 0.05 * np.nanstd(low)


def test_parts_of_frames_can_be_read():
    stack, _ = movie()
    parts = sa.register(stack, sa.Reals()).details["decomposition"]
    whole = parts.sparse.asarray()
    assert whole.shape == stack.shape
    assert np.array_equal(whole[3], np.asarray(parts.sparse[3]), equal_nan=True)


def test_a_run_writes_the_parts_when_asked(tmp_path):
    stack, _ = movie(frames=5)
    sa.write_stack(tmp_path / "movie.tif", stack)
    recipe = {
        "input": {"path": str(tmp_path / "movie.tif")},
        "registrar": {"method": "reals"},
        "output": {"report": False, "decomposition": True},
    }
    result = sa.run(sa.AlignmentConfig.model_validate(recipe), folder=tmp_path / "out")
    parts = result.registration.details["decomposition"]
    for name, part in (("low_rank", parts.low_rank), ("sparse", parts.sparse)):
        written = sa.read_stack(tmp_path / f"out/{name}.tif")
        assert written.dtype == np.float32
        assert np.array_equal(written.asarray(), part.asarray(), equal_nan=True)
    plain = {**recipe, "output": {"report": False}}
    sa.run(sa.AlignmentConfig.model_validate(plain), folder=tmp_path / "plain")
    assert not (tmp_path / "plain/sparse.tif").exists()
    assert (tmp_path / "plain/aligned.tif").exists()
    # replaced by a run without parts: none of the earlier one stay behind
    sa.run(sa.AlignmentConfig.model_validate(plain), folder=tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/aligned.tif").exists()
    assert not any((tmp_path / f"out/{name}.tif").exists() for name in ("low_rank", "sparse"))
