"""Frames that are chained through their neighbours, and those that must not be."""

from __future__ import annotations

import numpy as np

import stackalign as sa
from stackalign.core.references.chained import rescue
from stackalign.core.references.reference import PairResult, Reference
from stackalign.core.run_state import RunState, resting
from stackalign.core.stack import ImageStack


def test_frames_that_make_no_mean_are_not_chained_to_one_of_them():
    """Pairs follow whatever has the most contrast in both; without a mean, nothing tells that it is the scene."""
    stack, _ = sa.simulate(scene="texture", shape=(64, 64), frames=5, amplitude=2.0, photons=200, seed=4)
    frames = np.asarray(stack)
    run = RunState(ImageStack.of(frames), sa.LucasKanade().aligner((64, 64)), Reference("mean"), None, None)
    run.results = [PairResult.failed(2, "not found") for _ in frames]
    run.results[2] = resting(2)
    assert list(rescue(run)) == []
    assert run.good().tolist() == [False, False, True, False, False]
