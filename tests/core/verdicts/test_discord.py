"""Frames that do not agree with each other where they were found are given up together."""

from __future__ import annotations

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.references.draft import last_value
from stackalign.core.references.reference import PairResult, Reference
from stackalign.core.run_state import RunState
from stackalign.core.stack import ImageStack
from stackalign.core.verdicts.consensus import Consensus, dissent
from stackalign.core.verdicts.continuity import REASON as CONTRADICTED
from stackalign.core.verdicts.discord import MINORITY, REASON, doubt_discord

SIDE, COUNT = 96, 14


@pytest.fixture(scope="module")
def drift():
    return np.cumsum(np.random.default_rng(3).integers(-2, 3, (COUNT, 2)), axis=0)


@pytest.fixture(scope="module")
def frames(drift):
    stack, _ = sa.simulate(scene="texture", shape=(200, 200), frames=1, amplitude=0.0, photons=200, seed=4)
    image = np.asarray(stack[0], np.float32)
    views = np.stack([image[50 + y : 50 + y + SIDE, 50 + x : 50 + x + SIDE] for y, x in drift])
    return np.random.default_rng(5).poisson(views + 10).astype(np.uint16)


def run_of(frames, places, lost=2):
    """Return a run that has frames at places (y, x), the first few of which their neighbours contradict."""
    run = RunState(ImageStack.of(frames), sa.CrossCorrelation().aligner(), Reference("mean"), None, None)
    for t, place in enumerate(places):
        matrix = np.eye(3)
        matrix[:2, 2] = place
        run.results[t] = PairResult(matrix, 0.9, 1.0, 1.0, np.full(2, 0.01))
        if t < lost:
            run.results[t] = run.results[t].given_up(CONTRADICTED)
    return run


def again(run):
    """Find nothing but what is begun from."""
    run.results = [PairResult.failed(2, CONTRADICTED) for _ in run.results]
    for t, matrix in run.starts.items():
        run.results[t] = PairResult(matrix, 0.9, 1.0, 1.0, np.full(2, 0.01))
    yield from ()


def test_frames_that_show_the_same_are_believed(frames, drift):
    run = run_of(frames, drift)
    last_value(doubt_discord(run, again))
    assert run.good().sum() == COUNT - 2


def test_frames_that_were_laid_anywhere_are_given_up(frames, drift):
    places = drift + np.random.default_rng(7).integers(-9, 10, (COUNT, 2))
    run = run_of(frames, places)
    last_value(doubt_discord(run, again))
    assert not run.good().any()
    assert run.results[5].reason == REASON
    np.testing.assert_array_equal(run.results[5].matrix[:2, 2], places[5])  # where it was found is still said


def test_frames_found_beside_each_other_in_time_are_a_new_beginning(frames, drift):
    """The others lie on other parts of the reference: aligned once more, they are found where they belong."""
    places = drift.copy()
    places[7:11] += (12, -10)
    places[11:] += (-9, -13)
    run = run_of(frames, places)
    begun = []

    def aligned(twin):
        begun.append(sorted(twin.starts))
        yield from again(twin)
        for t in range(2, COUNT):
            matrix = np.eye(3)
            matrix[:2, 2] = drift[t]
            twin.results[t] = PairResult(matrix, 0.9, 1.0, 1.0, np.full(2, 0.01))

    last_value(doubt_discord(run, aligned))
    assert begun == [list(range(7))]
    assert run.good().all()
    np.testing.assert_array_equal(run.matrices()[2:, :2, 2], drift[2:])


@pytest.mark.parametrize(
    ("kind", "count", "reason", "given_up"),
    [
        ("mean", 7, CONTRADICTED, True),
        ("median", 7, dissent(Consensus(np.ones((6, 6), bool), np.zeros((6, 6), bool))), True),
        ("mean", 7, "it did not settle on one place", False),
        ("mean", 6, CONTRADICTED, False),
        ("frame", 7, CONTRADICTED, False),
    ],
)
def test_a_minority_is_not_believed(kind, count, reason, given_up):
    truth = np.column_stack([np.arange(12) * -4.0, np.arange(12) * 3.0])
    stack = ImageStack.of(np.ones((12, 100, 120), np.uint16))
    run = RunState(stack, sa.CrossCorrelation().aligner(), Reference(kind), None, None)
    for t, place in enumerate(truth):
        matrix = sa.Transform.from_translation(place).matrix
        run.results[t] = PairResult(matrix, 1.0, 0.0, 1.0, np.zeros(2), reason if t < count else "")

    def nothing_found(twin):
        twin.results = [PairResult.failed(2, CONTRADICTED) for _ in twin.results]
        yield from ()

    last_value(doubt_discord(run, nothing_found))
    assert [r.reason for r in run.results[count:]] == [MINORITY if given_up else ""] * (12 - count)
    np.testing.assert_allclose(run.matrices()[:, :2, 2], truth)  # where they were found is kept


def test_a_minority_is_a_new_beginning_too_or_given_up(frames, drift):
    """Most frames followed something else; what the few show, that did not, may be just that."""
    run = run_of(frames, drift, lost=9)
    last_value(doubt_discord(run, again))
    assert run.good().all()
    jumping = drift + 30 * np.arange(COUNT)[:, None]
    run = run_of(frames, jumping, lost=9)
    last_value(doubt_discord(run, again))
    assert run.results[13].reason == MINORITY
    np.testing.assert_array_equal(run.matrices()[:, :2, 2], jumping)


def test_what_most_frames_show_alike_may_be_what_walks_through(frames, drift):
    """All agree on a fifth of the field, and the rest was hidden."""
    run = run_of(frames, drift, lost=0)
    small = np.full((SIDE, SIDE), np.nan)
    small[25:68, 25:68] = 0
    run.hidden = lambda t, frame: np.float32(frame) + np.float32(np.roll(small, -drift[t], (0, 1)))

    def hiding(twin):
        twin.hidden = run.hidden
        yield from again(twin)

    last_value(doubt_discord(run, hiding))
    assert not run.good().any()


def test_a_scene_that_changes_is_no_reason_for_doubt(frames, drift):
    places = drift + np.random.default_rng(7).integers(-9, 10, (COUNT, 2))
    run = run_of(frames, places, lost=0)  # none followed something else, and nothing is hidden
    last_value(doubt_discord(run, again))
    assert run.good().all()
