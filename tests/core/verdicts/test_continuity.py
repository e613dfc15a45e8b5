"""Frames that were found on the wrong part of the reference."""

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.references.reference import PairResult
from stackalign.core.verdicts.continuity import contradicted

SHAPE = (100, 120)


def found(places, confidence=None):
    sure = np.ones(len(places)) if confidence is None else confidence
    return {
        t: PairResult(sa.Transform.from_translation(p).matrix, 1.0, 0.0, float(c), np.zeros(2))
        for t, (p, c) in enumerate(zip(places, sure, strict=True))
    }


def truly(places, asked=None, reason="", confidence=1.0):
    """Return a comparison that knows where the frames lie."""

    def compare(t, onto):
        if asked is not None:
            asked.append((t, onto))
        step = sa.Transform.from_translation(np.subtract(places[t], places[onto])).matrix
        return PairResult(step, 1.0, 0.0, confidence, np.zeros(2), reason)

    return compare


TRUTH = np.column_stack([np.arange(12) * -4.0, np.arange(12) * 3.0])


def test_frames_that_jump_while_their_neighbours_say_otherwise_are_given_up():
    wrong = TRUTH.copy()
    wrong[8:] += (60, -20)
    assert contradicted(found(wrong), SHAPE, truly(TRUTH)) == [8, 9, 10, 11]
    wrong[:3] += (0, 70)
    assert contradicted(found(wrong), SHAPE, truly(TRUTH)) == [0, 1, 2, 8, 9, 10, 11]


def test_a_trusted_frame_keeps_its_company():
    wrong = TRUTH.copy()
    wrong[3:] += (60, -20)
    assert contradicted(found(wrong), SHAPE, truly(TRUTH)) == [0, 1, 2]
    assert contradicted(found(wrong), SHAPE, truly(TRUTH), trusted=0) == list(range(3, 12))


def test_a_jump_that_is_real_stays():
    real = TRUTH.copy()
    real[5:] += (60, -20)
    assert contradicted(found(real), SHAPE, truly(real)) == []


@pytest.mark.parametrize("compare", [truly(TRUTH, reason="no peak stands out"), truly(TRUTH, confidence=0.3)])
def test_a_comparison_that_is_not_sure_says_nothing(compare):
    wrong = TRUTH.copy()
    wrong[8:] += (60, -20)
    assert contradicted(found(wrong), SHAPE, compare) == []


def test_only_steps_that_are_far_too_long_are_asked_about():
    asked = []
    rng = np.random.default_rng(0)
    assert contradicted(found(rng.uniform(-20, 20, (50, 2))), SHAPE, truly(np.zeros((50, 2)), asked)) == []
    assert asked == []
    wrong = TRUTH.copy()
    wrong[8:] += (60, -20)
    contradicted(found(wrong), SHAPE, truly(TRUTH, asked))
    assert asked == [(8, 7)]


def test_groups_count_by_their_confidence():
    wrong = TRUTH.copy()
    wrong[7:] += (60, -20)
    sure = np.where(np.arange(12) < 7, 0.3, 0.9)
    assert contradicted(found(wrong, sure), SHAPE, truly(TRUTH)) == list(range(7))


def test_few_frames():
    assert contradicted({}, SHAPE, truly(TRUTH)) == []
    assert contradicted(found(TRUTH[:1]), SHAPE, truly(TRUTH)) == []
