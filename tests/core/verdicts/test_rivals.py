"""Frames of which little is left are given up where another place fits as well."""

from __future__ import annotations

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.references.draft import last_value
from stackalign.core.references.reference import PairResult, Reference
from stackalign.core.run_state import RunState
from stackalign.core.stack import ImageStack
from stackalign.core.verdicts.rivals import REASON, doubt_rivals

SIDE, ASIDE = 128, 48


def placed(image, shifts):
    """Return a run whose frames, parts of an image, are aligned, of each of which a corner is hidden."""
    rng = np.random.default_rng(0)
    frames = np.stack([rng.poisson(image[20 : 20 + SIDE, 20 + s : 20 + s + SIDE]) for s in shifts])
    stack = ImageStack.of(frames.astype(np.uint16))
    run = RunState(
        stack, sa.LucasKanade().aligner((SIDE, SIDE)), Reference.of("mean", len(shifts), (SIDE, SIDE)), None, None
    )

    def without_a_corner(t, frame):
        out = np.array(frame, np.float32)
        out[:30, :30] = np.nan
        return out

    run.hidden = without_a_corner
    for t, shift in enumerate(shifts):
        matrix = np.eye(3)
        matrix[1, 2] = shift
        run.results[t] = PairResult(matrix, 0.9, 1.0, 1.0, np.full(2, 0.01))
    return run


@pytest.mark.parametrize(("repeats", "given_up"), [(True, [5]), (False, [])])
def test_a_part_of_a_scene_that_repeats_itself_is_given_up(repeats, given_up):
    stack, _ = sa.simulate(scene="texture", shape=(240, 240), frames=1, amplitude=0.0, photons=200, seed=4)
    image = np.asarray(stack[0], float)
    if repeats:
        image = np.tile(image[:, :ASIDE], (1, 5))
    run = placed(image, [0, 1, -1, 2, 0, ASIDE, 1])
    last_value(doubt_rivals(run))
    assert [t for t, result in enumerate(run.results) if result.reason == REASON] == given_up
    assert run.results[5].matrix[1, 2] == ASIDE  # where it was found is kept


def test_nothing_is_asked_where_nothing_is_hidden():
    stack, _ = sa.simulate(scene="texture", shape=(240, 240), frames=1, amplitude=0.0, photons=200, seed=4)
    run = placed(np.tile(np.asarray(stack[0], float)[:, :ASIDE], (1, 5)), [0, 1, ASIDE])
    run.hidden = None
    last_value(doubt_rivals(run))
    assert run.good().all()


def test_frames_that_lie_wrong_together_are_placed_by_the_others():
    stack, _ = sa.simulate(scene="texture", shape=(240, 240), frames=1, amplitude=0.0, photons=200, seed=4)
    shifts = [0, 1, -1, 2, 0, 1, ASIDE, ASIDE + 1, ASIDE - 1]
    run = placed(np.asarray(stack[0], float), shifts)
    for t in (6, 7, 8):
        run.results[t].matrix[1, 2] += 5
    last_value(doubt_rivals(run))
    assert run.good().all()
    np.testing.assert_allclose(run.matrices()[:, 1, 2], shifts, atol=0.1)
