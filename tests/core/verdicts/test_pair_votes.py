"""Where frames lie by what their blocks vote for in pairs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.references import rounds
from stackalign.core.references.draft import last_value
from stackalign.core.references.reference import PairResult, Reference
from stackalign.core.run_state import RunState
from stackalign.core.stack import ImageStack
from stackalign.core.verdicts.consensus import FOLLOWED
from stackalign.core.verdicts.pair_votes import _grouped, _Link, _links, begin_by_votes

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
    small = {t: np.asarray(frame, np.float32) for t, frame in enumerate(frames)}
    places = _grouped(last_value(_links(run_of(frames), small, (1, 2, 3))), 3.0)
    assert len(places) > COUNT / 2
    assert BLANK not in places
    ways = np.array([place - drift[t] for t, place in places.items()])
    assert np.abs(ways - np.median(ways, axis=0)).max() < 4  # to a few reduced pixels


def test_a_movie_that_followed_something_else_is_begun_anew(movie):
    frames, drift = movie
    run = run_of(frames)
    last_value(begin_by_votes(run, again))
    check_found(run, drift)


def test_a_movie_that_was_aligned_by_what_walks_through_is_begun_anew(movie):
    """No frame of it is doubted, and pairs of frames alone vote otherwise."""
    frames, drift = movie
    run = run_of(frames)
    for t in range(COUNT):
        place = np.eye(3)
        place[1, 2] = -4 * t
        run.results[t] = replace(PairResult(place, 0.9, 1.0, 1.0, np.full(2, 0.01)), gain=1.0)
    run.results[BLANK] = PairResult.failed(2, "blank")
    used = [t for t in range(COUNT) if t != BLANK]
    laid = [np.roll(frames[t].astype(np.float32), -4 * t, axis=1) for t in used]
    run.details["reference"] = np.mean(laid, axis=0)
    last_value(begin_by_votes(run, again))
    check_found(run, drift)


def check_found(run, drift):
    good = np.flatnonzero(run.good())
    assert len(good) >= COUNT - 3
    ways = run.matrices()[good][:, :2, 2] - drift[good]
    assert np.abs(ways - np.median(ways, axis=0)).max() < 1


def again(run):
    yield from rounds._aligned(run, 0.1, 5)


def test_a_movie_that_was_found_is_left_as_it_is(movie):
    frames, drift = movie
    run = run_of(frames)
    for t in range(COUNT):
        place = np.eye(3)
        place[:2, 2] = drift[t] - drift[0]
        run.results[t] = PairResult(place, 0.9, 1.0, 1.0, np.full(2, 0.01))
    run.results[BLANK] = PairResult.failed(2, "blank")
    run.details["reference"] = np.asarray(frames[0], np.float32)
    before = list(run.results)
    last_value(begin_by_votes(run, again))
    assert run.results == before


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
