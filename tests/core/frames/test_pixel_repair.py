"""Pixels that do not see, in every frame or in one, do not hold the motion back."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.frames.pixel_repair import PixelRepair, find_repair
from stackalign.core.work import drain

SHAPE = (128, 136)


@pytest.fixture(scope="module")
def movie():
    return sa.simulate(scene="hubble_deep_field", shape=SHAPE, frames=24, amplitude=6.0, photons=60, seed=5)


@pytest.fixture(scope="module")
def frames(movie):
    return movie.stack.asarray()


def damaged(frames, rng, hot=40, dead=120):
    out = frames.copy()
    size = int(np.prod(out.shape[1:]))
    bad = rng.choice(size, hot + dead, replace=False)
    flat = out.reshape(len(out), size)
    flat[:, bad[:hot]] = rng.poisson(rng.uniform(800, 20000, hot), (len(out), hot))
    flat[:, bad[hot:]] = 0
    return out, bad


def repair_of(frames, **named):
    return drain(find_repair(sa.ImageStack.of(frames), **named)).unwrap()


def off(result, movie):
    error = result.transforms.translations - movie.truth.transforms.translations
    error -= np.median(error, axis=0)
    return float(np.sqrt((error**2).mean()))


def test_hot_and_dead_pixels_are_found_and_no_stars(frames):
    assert repair_of(frames) is None
    broken, bad = damaged(frames, np.random.default_rng(0))
    found = set(repair_of(broken).fixed.tolist())
    hot, dead = set(bad[:40].tolist()), set(bad[40:].tolist())
    assert len(found & hot) >= 39
    assert len(found & dead) >= 110
    assert len(found - hot - dead) <= 3


def test_a_still_scene_of_points_of_light_is_left_alone():
    rng = np.random.default_rng(1)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = np.full(SHAPE, 30.0)
    for v, u in rng.uniform(4, 120, (60, 2)):
        image += rng.uniform(100, 4000) * np.exp(-((y - v) ** 2 + (x - u) ** 2) / (2 * 0.8**2))
    assert repair_of(rng.poisson(image, (16, *SHAPE)).astype(np.uint16)) is None


@pytest.mark.parametrize("method", [sa.CrossCorrelation(), sa.LucasKanade(model="translation")])
def test_fixed_pixels_do_not_pull(movie, frames, method):
    broken, bad = damaged(frames, np.random.default_rng(2))
    clean = off(sa.register(frames, method), movie)
    result = sa.register(broken, method)
    assert off(result, movie) < 1.5 * clean + 0.002
    places = result.details["repaired_pixels"]
    assert set(map(tuple, places[:5].tolist())) <= set(zip(*np.unravel_index(bad, SHAPE), strict=True))
    held = sa.register(broken, method, preprocess=sa.Preprocess(despike="none"))
    assert "repaired_pixels" not in held.details


def test_spikes_of_single_frames_are_replaced_and_the_rest_is_not(frames):
    rng = np.random.default_rng(3)
    broken = frames.copy()
    at = rng.choice(broken[0].size, 100, replace=False)
    broken[7].reshape(-1)[at] = 30000
    repair = repair_of(broken, spikes=True)
    assert not len(repair.fixed)
    whole = repair(broken[7]).astype(float)
    assert (whole.reshape(-1)[at] < 3000).mean() > 0.97
    untouched = np.ones(broken[0].size, bool)
    untouched[at] = False
    same = (whole == broken[7]).reshape(-1)[untouched]
    assert same.mean() > 0.998
    assert repair_of(broken) is None  # in one frame only: not fixed


def test_the_repair_keeps_dtype_holes_and_volumes():
    rng = np.random.default_rng(4)
    volume = rng.normal(50, 2, (3, 20, 22)).astype(np.float32)
    volume[1, 5, 6], volume[0, 9, 9] = 900, np.nan
    repair = pickle.loads(pickle.dumps(PixelRepair(np.array([np.ravel_multi_index((1, 5, 6), volume.shape)]))))
    out = repair(volume)
    assert out.dtype == np.float32
    assert 40 < out[1, 5, 6] < 60
    assert np.isnan(out[0, 9, 9])
    assert np.array_equal(
        np.delete(out.ravel(), 20 * 22 + 5 * 22 + 6), np.delete(volume.ravel(), 20 * 22 + 5 * 22 + 6), equal_nan=True
    )
    assert repair.places(volume.shape).tolist() == [[1, 5, 6]]
    few = rng.poisson(20, (3, 30, 30)).astype(np.uint16)
    few[:, 4, 4] = 5000
    assert repair_of(few) is None  # three frames do not tell what is fixed


def test_frames_that_hold_nothing_leave_some_for_every_mean():
    rng = np.random.default_rng(4)
    frames = rng.poisson(100, (32, 40, 40)).astype(np.uint16)
    frames[:, 11, 13] = 3000
    frames[::4] = 0  # all of the first mean, were they not passed over
    repair = repair_of(frames)
    assert repair.places((40, 40)).tolist() == [[11, 13]]
