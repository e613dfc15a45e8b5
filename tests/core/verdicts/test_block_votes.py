"""Blocks of a frame vote where it lies: the majority of the field counts, not what is brightest."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stackalign as sa
from stackalign.core.verdicts.block_votes import Ballot, Place, elected
from stackalign.core.verdicts.consensus import Consensus

SIDE = 160


@pytest.fixture(scope="module")
def scene():
    """A scene larger than a frame, and one that is ten times as bright and walks through it."""
    stack, _ = sa.simulate(scene="texture", shape=(300, 300), frames=1, amplitude=0.0, photons=200, seed=4)
    return np.asarray(stack[0], np.float32)


def cut(scene, y=0, x=0):
    return scene[70 + y : 70 + y + SIDE, 70 + x : 70 + x + SIDE].copy()


@settings(max_examples=12, deadline=None)
@given(y=st.integers(-50, 50), x=st.integers(-50, 50))
def test_a_shift_is_found_to_a_reduced_pixel(scene, y, x):
    ballot = Ballot.of(cut(scene))
    best = ballot.places(cut(scene, y, x))[0]
    assert np.abs(best.shift - (y, x)).max() <= max(ballot.factors)
    assert best.supporters.sum() >= 6


def test_a_bright_object_is_outvoted(scene):
    frame, reference = cut(scene, 12, -9), cut(scene)
    for image, at in ((frame, 20), (reference, 60)):
        image[at : at + 50, 60:110] = 10 * scene[:50, :50]
    best = Ballot.of(reference).places(frame)[0]
    np.testing.assert_allclose(best.shift, (12, -9), atol=2)
    left = best.masked(frame)
    assert np.isnan(left[25:65, 65:105]).mean() > 0.7


def test_holes_do_not_vote(scene):
    frame, reference = cut(scene, -8, 14), cut(scene)
    frame[:60] = np.nan
    reference[:, :30] = np.nan
    best = Ballot.of(reference).places(frame)[0]
    np.testing.assert_allclose(best.shift, (-8, 14), atol=2)
    assert not best.supporters[:2].any()
    assert Ballot.of(reference).places(np.full((SIDE, SIDE), np.nan, np.float32)) == []
    assert Ballot.of(np.full((SIDE, SIDE), np.nan, np.float32)).places(frame) == []


@dataclass(frozen=True)
class Placed:
    """A fit, and how many blocks agree with it."""

    matrix: np.ndarray
    count: int
    overlap: float = 0.4


@pytest.mark.parametrize(
    ("counts", "wins"),
    [((9, 2, 0), True), ((9, 5, 0), False), ((4, 0, 0), False), ((2, 9, 1), True)],
    ids=["clear", "two motions", "too few", "second"],
)
def test_the_elected_place_needs_twice_as_many_as_another(counts, wins):
    places = [Place(np.array([20.0 * k, 0.0]), np.ones((6, 6), bool)) for k in range(len(counts))]
    ballot = SimpleNamespace(places=lambda frame: places)

    def fitted(part, start):
        return Placed(start, counts[round(start[0, 2] / 20)])

    def agreed(fit, frame):
        told, still = np.zeros((6, 6), bool), np.zeros((6, 6), bool)
        told.ravel()[:12] = True
        still.ravel()[: fit.count] = True
        return fit, Consensus(told, still)

    jury = SimpleNamespace(fitted=fitted, agreed=agreed, overlap=lambda frame, fit: 0.9)
    found = elected(ballot, np.ones((SIDE, SIDE), np.float32), jury)
    assert (found is not None) == wins
    if wins:
        assert found.count == max(counts)
        assert found.overlap == 0.9  # parts that were left out are in view


@pytest.mark.parametrize("method", [sa.CrossCorrelation(), sa.LucasKanade(model="euclidean")])
def test_what_walks_through_a_movie_is_not_taken_for_it(scene, method):
    rng = np.random.default_rng(3)
    drift = np.rint(np.cumsum(rng.normal(0, 1.5, (14, 2)), axis=0)).astype(int)
    frames = np.stack([cut(scene, y, x) for y, x in drift])
    for t, frame in enumerate(frames):
        frame[40:100, 5 * t : 5 * t + 60] = scene[:60, :60]
    frames = rng.poisson(np.maximum(frames, 0)).astype(np.uint16)
    result = sa.register(frames, method)
    good = ~result.quality.flagged
    off = (result.transforms.translations - drift)[good]
    assert good.sum() >= 13
    assert np.abs(off - np.median(off, axis=0)).max() < 1
