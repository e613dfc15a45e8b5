"""Inconsistency and bounds against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.evaluation import alignment_inconsistency, corner_bound
from stackalign.core.transform import Transform
from tests.core.lowrank.scenes import movie


def series(*shifts):
    return sa.TransformSeries.from_translations(np.array(shifts, float))


def test_shifts_in_normalised_coordinates():
    still, moving = series((0, 0), (0, 0)), series((0, 0), (4, -10))
    # y: 4 px of 80 are 0.1, x: 10 px of 100 are 0.2; half of it is each frame's distance from the mean
    assert alignment_inconsistency(still, moving, (80, 100)) == pytest.approx(0.15)
    assert alignment_inconsistency(moving, moving, (80, 100)) == pytest.approx(0, abs=1e-12)


def test_rotation_on_a_frame_that_is_not_square():
    angle = np.deg2rad(10)
    c, s = np.cos(angle), np.sin(angle)
    middle, back = np.eye(3), np.eye(3)
    middle[:2, 2], back[:2, 2] = (39.5, 99.5), (-39.5, -99.5)
    matrix = middle @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ back
    found = sa.TransformSeries(np.array([np.eye(3), np.eye(3)]), sa.TransformModel.EUCLIDEAN)
    true = sa.TransformSeries(np.array([np.eye(3), matrix]), sa.TransformModel.EUCLIDEAN)
    # in x, y from -1 to 1 over (80, 200) pixels the off-diagonal entries are s * 80/200 and s * 200/80
    expected = (2 * (1 - c) + s * 0.4 + s * 2.5) / 2
    assert alignment_inconsistency(found, true, (80, 200)) == pytest.approx(expected)


def test_the_gauge_does_not_matter():
    _, truth = movie()
    true = truth.transforms
    common = Transform.from_translation((3.0, -7.0)).matrix
    moved = sa.TransformSeries(common @ true.matrices, true.model)
    assert alignment_inconsistency(moved, true, (121, 151)) == pytest.approx(0, abs=1e-12)


def test_other_frames_are_refused():
    with pytest.raises(ValueError, match="2 found transforms"):
        alignment_inconsistency(series((0, 0), (0, 0)), series((0, 0)), (8, 8))


def test_the_bound_of_a_translation_is_the_known_one():
    _, truth = movie(model="translation")
    for t in (0, 4):
        assert corner_bound(truth, [t])[0] == pytest.approx(np.sqrt((truth.cramer_rao[t] ** 2).sum()), rel=1e-3)


def test_turning_costs_accuracy_at_the_corners():
    _, shifted = movie(model="translation")
    _, turned = movie()
    assert corner_bound(turned, [3])[0] > corner_bound(shifted, [3])[0]
