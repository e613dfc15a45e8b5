"""What walks through a scene is followed as a thing of its own, and hidden to its outline."""

from __future__ import annotations

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.references import rounds

SIDE, BIG, SMALL = 128, 60, 30


@pytest.fixture(scope="module")
def scene():
    """A textured scene larger than a frame."""
    stack, _ = sa.simulate(scene="texture", shape=(220, 220), frames=1, amplitude=0.0, photons=200, seed=4)
    return np.asarray(stack[0], np.float32)


def crossed(scene, *, count=16, small=False, changes=False):
    """Return frames that drift, with squares that walk through, where these are, and the drift."""
    rng = np.random.default_rng(3)
    drift = np.rint(np.cumsum(rng.normal(0, 1.5, (count, 2)), axis=0)).astype(int)
    frames = np.stack([scene[40 + y : 40 + y + SIDE, 40 + x : 40 + x + SIDE] for y, x in drift])
    big, other = np.zeros(frames.shape, bool), np.zeros(frames.shape, bool)
    for t, frame in enumerate(frames):
        big[t, 20 : 20 + BIG, 4 * t : 4 * t + BIG] = True
        skin = scene[:BIG, :BIG] if not changes else scene.mean() * rng.uniform(0.3, 1.7, (BIG, BIG))
        frame[big[t]] = skin.ravel()
        if small:
            other[t, 94 : 94 + SMALL, 96 - 6 * t + SMALL // 2 : 96 - 6 * t + 3 * SMALL // 2] = True
            frame[other[t]] = 1.8 * frame[other[t]][::-1]
    return rng.poisson(np.maximum(frames, 0)).astype(np.uint16), big, other, drift


def rms(result, drift):
    """Return how far frames lie off, around the common offset."""
    way = result.transforms.translations - drift
    return float((way - np.median(way, axis=0)).std())


@pytest.fixture
def asked(monkeypatch):
    """Which pixels are hidden of each frame before what walks through is outlined, and after."""
    seen = []
    whole = rounds.outline_walker

    def noted(run, again):
        seen.append(hidden(run))
        yield from whole(run, again)
        seen.append(hidden(run))

    monkeypatch.setattr(rounds, "outline_walker", noted)
    return seen


def hidden(run):
    return np.array([np.isnan(np.asarray(run.load(t), np.float32)) for t in range(len(run.stack))])


def shares(hidden, part):
    """Return the shares of the field that belong to a part and are not hidden, and that are hidden and do not."""
    return float((part & ~hidden).mean()), float((hidden & ~part).mean())


@pytest.mark.parametrize("method", [sa.CrossCorrelation(), sa.LucasKanade(model="euclidean")])
def test_a_thing_is_hidden_to_its_outline(scene, asked, method):
    frames, big, _, drift = crossed(scene)
    result = sa.register(frames, method)
    assert not result.quality.flagged.any()
    before, after = asked
    left, too_much = shares(after, big)
    assert left < 0.001
    assert too_much < 0.07  # two reduced pixels around it
    assert shares(before, big)[0] > 0.005
    assert shares(before, big)[1] > 0.1
    assert rms(result, drift) < 0.015


def test_what_else_walks_through_stays_hidden(scene, asked):
    frames, big, other, drift = crossed(scene, small=True)
    result = sa.register(frames, sa.CrossCorrelation())
    assert not result.quality.flagged.any()
    assert shares(asked[1], big | other)[0] < 0.001
    assert rms(result, drift) < 0.01


def test_a_thing_that_is_another_in_every_frame_stays_hidden_by_cells(scene, asked):
    frames, _, _, drift = crossed(scene, changes=True)
    result = sa.register(frames, sa.CrossCorrelation())
    assert not result.quality.flagged.any()
    before, after = asked
    np.testing.assert_array_equal(after, before)
    assert rms(result, drift) < 0.01
