"""Frames that were not found are looked for again, on a reference that is clear, without what walks through them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.references.draft import last_value
from stackalign.core.references.reference import PairResult, Reference
from stackalign.core.run_state import RunState
from stackalign.core.stack import ImageStack
from stackalign.core.verdicts import clearing, second_look
from stackalign.core.verdicts.second_look import UNSURE, look_again

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


@pytest.fixture
def aligned():
    """A run of frames of a texture where they lie, the last two of which show less than 40 % of the reference."""
    stack, _ = sa.simulate(scene="texture", shape=(260, 260), frames=1, amplitude=0.0, photons=200, seed=4)
    image = np.asarray(stack[0], np.float32)
    drift = np.vstack([np.random.default_rng(5).integers(-3, 4, (8, 2)), [(60, 50), (60, 50)]])
    frames = np.stack([image[70 + y : 70 + y + SIDE, 60 + x : 60 + x + SIDE] for y, x in drift])
    frames = np.random.default_rng(6).poisson(frames + 10).astype(np.uint16)
    run = RunState(ImageStack.of(frames), sa.CrossCorrelation().aligner(), Reference("mean"), None, None)
    for t, place in enumerate(drift - drift[0]):
        matrix = np.eye(3)
        matrix[:2, 2] = place
        run.results[t] = PairResult(matrix, 0.9, 1.0, 1.0, np.full(2, 0.01))
    run.details["reference"] = frames[0].astype(np.float32)
    return run


def test_frames_of_which_little_is_in_view_need_more_blocks_that_agree(aligned):
    matrix = aligned.results[9].matrix.copy()
    matrix[:2, 2] += (20, -9)
    aligned.results[9] = replace(aligned.results[9], matrix=matrix)
    last_value(look_again(aligned, {}, {}, None))
    assert aligned.good()[:9].all()
    way = aligned.results[9].matrix[:2, 2] - aligned.results[8].matrix[:2, 2]
    assert aligned.results[9].reason == UNSURE or np.abs(way).max() < 1


def test_where_a_frame_was_found_before_is_asked_as_well(aligned, monkeypatch):
    monkeypatch.setattr(second_look, "_found", lambda *_: None)
    for t in (3, 4):
        aligned.results[t] = aligned.results[t].given_up("its neighbours contradict")
    aligned.results[4].matrix[0, 2] += 30
    last_value(look_again(aligned, {}, {}, None))
    assert aligned.good()[3]
    assert not aligned.good()[4]


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
