"""Blocks of the field that agree with a motion, and those that do not."""

from __future__ import annotations

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.verdicts.consensus import LEAST_SUPPORT, Blocks

SHAPE = (144, 160)


@pytest.fixture(scope="module")
def pair():
    """Two frames of a still scene, as float32."""
    stack, _ = sa.simulate(scene="hubble_deep_field", shape=SHAPE, frames=2, amplitude=0.0, photons=100, seed=3)
    return tuple(np.asarray(stack[t], np.float32) for t in range(2))


def _asked(moving, reference, *, matrix=None, gain=1.0, offset=0.0):
    return Blocks.of(reference).consensus(moving, np.eye(3) if matrix is None else matrix, gain, offset)


def test_a_still_scene_supports_no_motion(pair):
    found = _asked(*pair)
    assert found.told.sum() >= 12
    assert found.support > 0.95


def test_a_wrong_motion_has_no_support(pair):
    wrong = np.eye(3)
    wrong[:2, 2] = 4.0, -3.0
    assert _asked(*pair, matrix=wrong).support < LEAST_SUPPORT


def test_brightness_does_not_count(pair):
    moving, reference = pair
    assert _asked(0.6 * moving + 50, reference, gain=0.6, offset=50.0).support > 0.95


def test_an_object_is_left_out(pair):
    moving, reference = (image.copy() for image in pair)
    moving[:72, :80] = np.roll(reference, (7, 9), (0, 1))[40:112, 50:130]
    found = _asked(moving, reference)
    assert LEAST_SUPPORT < found.support < 0.9
    part = found.masked(moving, np.eye(3), SHAPE)
    inside, outside = np.isnan(part[:72, :80]).mean(), np.isnan(part[72:]).mean()
    assert inside > 0.5
    assert outside < 0.05


def test_where_nothing_can_be_told_nothing_is_said():
    rng = np.random.default_rng(0)
    flat = [rng.normal(100, 5, SHAPE).astype(np.float32) for _ in range(2)]
    assert _asked(*flat).support == 1.0


@pytest.mark.parametrize("turn", [0.0, 0.02])
def test_fine_detail_of_large_frames_is_no_motion(turn):
    """A reduced frame that is moved by a fraction of its pixels differs from the frame that is moved, then reduced."""
    matrix = sa.Transform.from_rotation(turn, (-16.7, 11.3), (512, 512)).matrix
    rng = np.random.default_rng(5)
    spots = rng.uniform(60, 960, (2500, 2))
    images = []
    for places in (spots, (np.c_[spots, np.ones(len(spots))] @ np.linalg.inv(matrix).T)[:, :2]):
        image = np.full((1024, 1024), 20.0)
        y, x = np.mgrid[-5:6, -5:6]
        for v, u in places:
            i, j = round(v), round(u)
            image[i - 5 : i + 6, j - 5 : j + 6] += 300 * np.exp(-((i + y - v) ** 2 + (j + x - u) ** 2) / 4)
        images.append(rng.poisson(image).astype(np.float32))
    reference, moving = images
    found = _asked(moving, reference, matrix=matrix)
    assert found.told.sum() > 30
    assert found.support > 0.95
    moving[::7, ::5] = np.nan
    moving[:300] = np.nan
    holed = _asked(moving, reference, matrix=matrix)
    assert holed.support > 0.95
    assert 10 < holed.told.sum() < found.told.sum()


@pytest.mark.parametrize("shift", [(0.25, 0.5), (3.3, -2.7), (-9.5, 4.25), (0.5, 99.0)])
def test_shifts_are_read_as_other_motions_are(shift):
    image = np.random.default_rng(0).random((110, 101)).astype(np.float32)
    blocks = Blocks.of(image)
    matrix = np.eye(3)
    matrix[:2, 2] = shift
    nearly = matrix.copy()
    nearly[0, 1] = 1e-15
    ask = {"brightness": np.array([[1.0, 0.0]]), "noise": np.array([1e-6])}
    (one,), (other,) = (blocks.consensus_of(image[None], m[None], **ask) for m in (matrix, nearly))
    assert np.array_equal(one.told, other.told)
    assert np.array_equal(one.still, other.still)
