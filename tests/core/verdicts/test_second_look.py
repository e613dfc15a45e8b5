"""Frames that were not found are looked for again, on a reference that is clear, without what walks through them."""

from __future__ import annotations

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.verdicts import clearing

SIDE = 128
COUNT = 16
FAR = (9, 10, 11)
BLANK = (4, 13)


@pytest.fixture(scope="module")
def movie():
    """A scene that jumps by 40 % for some frames, below a square of 30 % of the field; two frames hold nothing."""
    stack, _ = sa.simulate(scene="texture", shape=(260, 260), frames=1, amplitude=0.0, photons=200, seed=4)
    image = np.asarray(stack[0], np.float32)
    rng = np.random.default_rng(5)
    drift = rng.integers(-3, 4, (COUNT, 2))
    drift[list(FAR)] += (40, -32)
    frames = np.stack([image[70 + y : 70 + y + SIDE, 60 + x : 60 + x + SIDE] for y, x in drift])
    for t, frame in enumerate(frames):
        frame[35 : 35 + 70, 2 + 3 * t : 72 + 3 * t] = image[:70, 180:250]
    frames[list(BLANK)] = 0
    return rng.poisson(frames + 10).astype(np.uint16), drift


def found(movie):
    frames, drift = movie
    result = sa.register(frames, sa.LucasKanade(model="euclidean"))
    good = ~np.asarray(result.quality.flagged)
    way = result.transforms.translations - drift
    return good, np.abs(way - np.median(way[good], axis=0)).max(1)


def test_frames_after_a_jump_are_found_below_what_walks_through(movie, monkeypatch):
    good, off = found(movie)
    assert good[list(FAR)].sum() >= 2
    assert not good[list(BLANK)].any()  # whatever a search finds in noise, no block agrees with
    assert good.sum() >= COUNT - 3
    assert off[good].max() < 0.3
    monkeypatch.setattr(clearing, "look_again", lambda *_: iter(()))
    assert not found(movie)[0][list(FAR)].any()


@pytest.mark.parametrize(
    "aligner", [sa.CrossCorrelation().aligner(), sa.LucasKanade(model="euclidean").aligner((96, 96))]
)
def test_little_in_view_is_left_to_others_to_judge(aligner):
    stack, _ = sa.simulate(scene="texture", shape=(200, 200), frames=1, amplitude=0.0, photons=200, seed=4)
    image = np.asarray(stack[0], np.float32)
    template = aligner.prepare(image[:96, :96], None)
    start = np.eye(3)
    start[:2, 2] = 56, 50  # 20 % of the reference
    frame = image[56:152, 50:146]
    assert "in view" in aligner.align(frame, template, start).reason
    assert not aligner.lenient().align(frame, template, start).reason
