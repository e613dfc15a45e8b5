"""Where frames lie by what their blocks vote for in pairs."""

from __future__ import annotations

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.references import rounds
from stackalign.core.references.draft import last_value
from stackalign.core.references.reference import PairResult, Reference
from stackalign.core.run_state import RunState
from stackalign.core.stack import ImageStack
from stackalign.core.verdicts.consensus import FOLLOWED
from stackalign.core.verdicts.pair_votes import _grouped, _Link, begin_by_votes, voted

SIDE, COUNT, BLANK = 128, 14, 6


@pytest.fixture(scope="module")
def movie():
    """A scene that drifts, below a square of 30 % of the field that walks; one frame holds nothing."""
    stack, _ = sa.simulate(scene="texture", shape=(260, 260), frames=1, amplitude=0.0, photons=200, seed=4)
    image = np.asarray(stack[0], np.float32)
    rng = np.random.default_rng(5)
    drift = np.cumsum(rng.integers(-3, 4, (COUNT, 2)), axis=0)
    frames = np.stack([image[70 + y : 70 + y + SIDE, 60 + x : 60 + x + SIDE] for y, x in drift])
    for t, frame in enumerate(frames):
        frame[35 : 35 + 70, 2 + 4 * t : 72 + 4 * t] = image[:70, 180:250]
    frames[BLANK] = 0
    return rng.poisson(frames + 10).astype(np.uint16), drift


def run_of(frames):
    run = RunState(ImageStack.of(frames), sa.CrossCorrelation().aligner(), Reference("mean"), None, None)
    run.results = [PairResult.failed(2, f"only 0% of the blocks agree: {FOLLOWED}") for _ in frames]
    return run


def test_most_blocks_of_the_field_place_frames_whatever_walks_through(movie):
    frames, drift = movie
    places = last_value(voted(run_of(frames), range(COUNT)))
    assert len(places) > COUNT / 2
    assert BLANK not in places
    ways = np.array([place[:2, 2] - drift[t] for t, place in places.items()])
    assert np.abs(ways - np.median(ways, axis=0)).max() < 4  # to a few reduced pixels


def test_a_movie_that_followed_something_else_is_begun_anew(movie):
    frames, drift = movie
    run = run_of(frames)
    last_value(begin_by_votes(run, again))
    good = np.flatnonzero(run.good())
    assert len(good) >= COUNT - 3
    ways = run.matrices()[good][:, :2, 2] - drift[good]
    assert np.abs(ways - np.median(ways, axis=0)).max() < 1


def again(run):
    yield from rounds._aligned(run, 0.1, 5)


def test_a_movie_that_was_found_is_left_as_it_is(movie):
    frames, _ = movie
    run = run_of(frames)
    run.results = [PairResult(np.eye(3), 1.0, 0.0, 1.0, np.zeros(2)) for _ in frames]
    assert list(begin_by_votes(run, again)) == []


def links_of(pairs):
    """Return the links of (frame, frame, [(shift, share), ...])."""
    links = {}
    for a, b, votes in pairs:
        shifts, shares = np.array([v[0] for v in votes], float), np.array([v[1] for v in votes])
        link = _Link(shifts, shares, 1)
        links.setdefault(a, {})[b] = link
        links.setdefault(b, {})[a] = link.turned()
    return links


def test_what_moves_from_pair_to_pair_joins_no_groups():
    """Two groups of two frames; between them every pair has another first vote, and all have the second in common."""
    votes = [
        (0, 1, [((1, 0), 0.9)]),
        (2, 3, [((0, 2), 0.8)]),
        (0, 2, [((40, 0), 0.7), ((10, 10), 0.55)]),
        (0, 3, [((30, 0), 0.7), ((10, 12), 0.55)]),
        (1, 2, [((20, 5), 0.7), ((9, 10), 0.55)]),
    ]
    places = _grouped(links_of(votes), 3.0)
    assert sorted(places) == [0, 1, 2, 3]
    way = [places[t] - places[0] for t in range(4)]
    np.testing.assert_allclose(way, [(0, 0), (1, 0), (10, 10), (10, 12)], atol=1)


def test_groups_that_two_shifts_would_join_stay_apart():
    votes = [(0, 1, [((1, 0), 0.9)]), (2, 3, [((0, 2), 0.8)]), (1, 2, [((20, 5), 0.7), ((9, 10), 0.65)])]
    assert sorted(_grouped(links_of(votes), 3.0)) == [0, 1]
