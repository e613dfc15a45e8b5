"""The rank: found from aligned frames, whatever the noise, and never from what flickers."""

from __future__ import annotations

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.lowrank.rank import found_rank
from tests.core.lowrank.scenes import movie


def rows(rank, seed=0, frames=24, pixels=4000, strength=3.0):
    """Return a mean image with ``rank - 1`` patterns of their own course, in unit noise."""
    rng = np.random.default_rng(seed)
    x = 50 + 20 * rng.standard_normal(pixels) + rng.standard_normal((frames, pixels))
    for _ in range(rank - 1):
        x += strength * np.outer(rng.standard_normal(frames), rng.standard_normal(pixels))
    return x.astype(np.float32)


@pytest.mark.parametrize("rank", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_rank_of_noisy_rows(rank, seed):
    assert found_rank(rows(rank, seed)) == rank


def test_brightness_is_no_rank():
    x = rows(1) * np.linspace(1, 0.4, 24)[:, None]
    assert found_rank(x.astype(np.float32)) == 1


def test_a_frame_of_its_own_is_no_rank():
    x = rows(1)
    x[7] += 30 * np.random.default_rng(3).standard_normal(x.shape[1])
    assert found_rank(x) == 1


def test_what_flickers_in_places_is_no_rank():
    x = rows(1)
    rng = np.random.default_rng(5)
    for _ in range(20):
        x[np.ix_(rng.choice(24, 5, replace=False), rng.choice(4000, 40, replace=False))] += 100
    assert found_rank(x) == 1


def test_too_little_to_tell():
    assert found_rank(np.full((6, 20), np.nan, np.float32)) == 1
    assert found_rank(np.zeros((3, 500), np.float32)) == 1
    assert found_rank(np.ones((9, 500), np.float32)) == 1


def test_a_still_scene_has_rank_one_and_a_changing_one_two():
    stack, truth = movie()
    assert sa.register(stack, sa.Reals(rank=None)).details["rank"] == 1
    light = {"shape": (121, 151), "frames": 1, "shot_noise": False, "read_noise": 0, "dtype": "float32", "offset": 0}
    still, changing = (sa.simulate(scene=s, **light).stack.asarray()[0] for s in ("camera", "texture"))
    course = 0.25 + 0.25 * np.sin(np.arange(14.0))
    scene = (still + course[:, None, None] * changing).astype(np.float32)
    frames = sa.moved(sa.ImageStack(scene), truth.transforms).asarray()
    frames += np.random.default_rng(0).normal(0, 3, frames.shape).astype(np.float32)
    result = sa.register(frames, sa.Reals(rank=None))
    assert result.details["rank"] == 2
    assert truth.error(result.transforms).max() < 0.08
    assert result.details["decomposition"].rank == 2
