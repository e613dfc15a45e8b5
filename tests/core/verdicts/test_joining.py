"""Frames that show more than the reference does are placed by all that they show of each other."""

from __future__ import annotations

import numpy as np

import stackalign as sa
from stackalign.core.references.draft import last_value
from stackalign.core.references.reference import PairResult, Reference
from stackalign.core.run_state import RunState
from stackalign.core.stack import ImageStack
from stackalign.core.verdicts.joining import place_parts
from tests.core.verdicts.test_joint_places import SIDE, away

FAR = 5  # the last frames


def aligned(seed, policy="mean", spoilt=None):
    """Return a run that knows roughly where frames of a faint scene lie, what it hides (nothing), and the truth."""
    frames, _, true = away(seed, noise=8.0)
    images = np.array([f.image for f in frames], np.float32)
    if spoilt is not None:
        images[spoilt] = np.random.default_rng(0).normal(100, 12, (SIDE, SIDE))
    reference = Reference.of(policy, len(frames), (SIDE, SIDE))
    run = RunState(ImageStack.of(images), sa.CrossCorrelation().aligner(), reference, None, None)
    run.hidden = lambda _, frame: frame
    for t, frame in enumerate(frames):
        run.results[t] = PairResult(frame.matrix, 0.9, 1.0, 1.0, np.full(2, 0.5))
    return run, true


def off(run, true):
    """Return how far the far frames lie off among themselves, (FAR, 2), px."""
    way = run.matrices()[-FAR:, :2, 2] - true[-FAR:, :2, 2]
    return way - way.mean(0)


def test_far_frames_come_together_and_the_others_stay():
    before, after, stated = [], [], []
    for seed in range(5):
        run, true = aligned(seed)
        at = run.matrices()
        before.append(off(run, true))
        last_value(place_parts(run))
        after.append(off(run, true))
        stated.append([r.error for r in run.results[-FAR:]])
        np.testing.assert_array_equal(run.matrices()[:-FAR], at[:-FAR])
        assert run.good().all()
    rms = np.sqrt(np.mean(np.square(after)))
    assert rms < 0.3 * np.sqrt(np.mean(np.square(before)))
    assert rms < np.sqrt(np.mean(np.square(stated)))  # against all other frames, which is known less well


def test_nothing_is_done_where_nothing_is_hidden_or_frames_are_not_aligned_to_a_mean():
    for policy, hides in (("mean", False), ("median", True), (0, True)):
        run, _ = aligned(0, policy)
        if not hides:
            run.hidden = None
        before = run.matrices()
        last_value(place_parts(run))
        np.testing.assert_array_equal(run.matrices(), before)


def test_a_frame_whose_reference_contradicts_states_an_error_of_half_the_way():
    run, _ = aligned(1)
    t = len(run.results) - 1
    result = run.results[t]
    matrix = result.matrix.copy()
    matrix[0, 2] += 0.7
    run.results[t] = PairResult(matrix, 0.9, 1.0, 1.0, np.full(2, 0.02))
    last_value(place_parts(run))
    way = abs(run.results[t].matrix[0, 2] - matrix[0, 2])
    assert way > 0.3
    assert run.results[t].error[0] > 0.49 * way


def test_a_frame_of_something_else_harms_no_other():
    clean, _ = aligned(2)
    spoilt, _ = aligned(2, spoilt=-1)
    last_value(place_parts(clean))
    last_value(place_parts(spoilt))
    way = spoilt.matrices()[-FAR:-1, :2, 2] - clean.matrices()[-FAR:-1, :2, 2]
    assert np.abs(way - way.mean(0)).max() < 0.1
    assert np.isfinite(spoilt.matrices()).all()
