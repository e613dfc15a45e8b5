"""Picks of a session: edits, boxes, suggestions, words; the session keeps picks, method and time range together."""

from typing import Any

import numpy as np
import pytest

from stackalign.core.geometry import Box
from stackalign.core.spots.gaussian import GaussianSpot
from stackalign.core.spots.picks import Pick
from stackalign.core.spots.registrar import ParticleTracking
from stackalign.core.spots.tracks import TrackSet
from stackalign.core.stack import ImageStack
from stackalign.core.work import drain
from stackalign.picking import (
    Particles,
    box_around,
    drawn_box,
    fit_box,
    grown,
    nudged,
    numbers_of,
    patches_of,
    propose_box,
    reason_of,
    suggest_work,
)
from stackalign.session import AlignmentSession
from stackalign.trajectories import Trajectories, align_tracks_work

SHAPE = (64, 80)


def image(*places: tuple[float, float], sigma: float = 2.0) -> np.ndarray:
    out = np.full(SHAPE, 100.0)
    for place in places:
        out += GaussianSpot(500.0, np.array(place), np.array([sigma, sigma])).image(SHAPE)
    return np.random.default_rng(0).poisson(out).astype(np.uint16)


def picks(*frames: int) -> tuple[Pick, ...]:
    return tuple(Pick(id=k, frame=t, bounds=(10 * k, 10 * k + 9, 5, 14)) for k, t in enumerate(frames, 1))


def test_edits_replace_the_record_and_leave_the_old_one() -> None:
    old = Particles().added([Box(0, 9, 0, 9), Box(20, 29, 0, 9)], 3)
    new = old.removed(1).added([Box(40, 49, 0, 9)], 4)
    assert [p.id for p in old.picks] == [1, 2]
    assert [(p.id, p.frame) for p in new.picks] == [(2, 3), (3, 4)]
    assert new.moved(2, Box(21, 30, 0, 9)).pick(2).box == Box(21, 30, 0, 9)
    with pytest.raises(ValueError, match="there is no particle 1"):
        new.removed(1)


def test_an_exclusion_goes_with_its_particle() -> None:
    particles = Particles().with_picks(picks(0, 0, 0)).excluding([3, 1])
    assert particles.registrar.exclude == (1, 3)
    assert particles.removed(3).registrar.exclude == (1,)


def test_tracks_are_stale_once_a_pick_moves() -> None:
    particles = Particles().with_picks(picks(0, 0))
    tracks = TrackSet.of(np.zeros((2, 5, 2)))
    followed = particles.with_tracks(tracks)
    assert not followed.stale
    assert followed.moved(1, Box(0, 9, 0, 9)).stale
    assert followed.sentence == "Followed 2 particles through 5 frames: 2 found in at least 95% of the frames."


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (drawn_box((3, 4), (20, 9), SHAPE), (3, 21, 4, 10)),
        (drawn_box((20, 9), (3, 4), SHAPE), (3, 21, 4, 10)),
        (drawn_box((10, 10), (11, 11), SHAPE), (10, 15, 10, 15)),
        (drawn_box((-5, 75), (4, 99), SHAPE), (0, 10, 55, 80)),
        (box_around((0, 0), (9, 9), SHAPE), (0, 9, 0, 9)),
        (nudged(Box(0, 9, 0, 9), (-3, 2), SHAPE), (0, 9, 2, 11)),
        (grown(Box(10, 19, 10, 19), 2, SHAPE), (8, 21, 8, 21)),
        (grown(Box(10, 15, 10, 15), -1, SHAPE), (10, 15, 10, 15)),
    ],
)
def test_boxes_stay_inside_and_large_enough(box: Box, expected: tuple[int, ...]) -> None:
    assert box.bounds == expected


def test_a_click_beside_a_particle_proposes_its_box() -> None:
    frame = image((30.4, 40.7))
    box, reason = propose_box(frame, (33.0, 38.0), ParticleTracking())
    assert reason == ""
    middle = (np.array(box.start) + np.array(box.stop) - 1) / 2
    np.testing.assert_allclose(middle, (30.4, 40.7), atol=0.6)


def test_two_particles_in_a_box_are_named() -> None:
    frame = image((30.0, 40.0), (34.0, 45.0))
    fit = fit_box(frame, Box(22, 43, 32, 54), ParticleTracking())
    assert "two" in reason_of(fit) or "second" in reason_of(fit)


def test_nothing_in_a_box_is_named() -> None:
    fit = fit_box(image(), Box(22, 43, 32, 54), ParticleTracking())
    assert len(reason_of(fit)) > 20


def test_patches_and_numbers_of_a_fit() -> None:
    frame = image((30.4, 40.7))
    fit = fit_box(frame, Box(22, 39, 32, 50), ParticleTracking())
    patches = patches_of(frame, fit)
    assert patches.data.shape == patches.model.shape == (17, 18)
    np.testing.assert_allclose(patches.data, patches.model + patches.residual)
    assert np.abs(patches.residual).mean() < 15
    places, values, fine, curve = patches.rows
    assert (len(places), len(values), len(fine)) == (17, 17, len(curve))
    assert abs(fine[np.argmax(curve)] - 30.4) < 0.2
    text = numbers_of(fit, (0.1, 0.1), "µm")
    assert "y 30." in text
    assert "nm" in text
    assert "R² 0.9" in text


def test_a_volume_has_its_patches_in_the_plane_of_the_fit() -> None:
    shape = (15, 30, 30)
    spot = GaussianSpot(500.0, np.array([7.2, 14.6, 15.3]), np.array([2.0, 2.0, 2.0]), background=100.0)
    volume = np.random.default_rng(0).poisson(spot.image(shape))
    box, reason = propose_box(volume, (7, 14, 14), ParticleTracking())
    assert reason == ""
    fit = fit_box(volume, box, ParticleTracking())
    patches = patches_of(volume, fit)
    assert patches.data.ndim == 2
    assert patches.data.max() == volume[round(fit.position[0])][box.slices[1:]].max()


def test_suggestions_spare_what_is_picked_already() -> None:
    frame = image((15, 20), (45, 20), (15, 60), (45, 60))
    stack = ImageStack(np.stack([frame, frame]))
    first = drain(suggest_work(stack, 2, 0, Particles())).unwrap()
    assert len(first.picks) == 2
    second = drain(suggest_work(stack, 5, 0, first)).unwrap()
    assert len(second.picks) == 4
    assert second.picks[:2] == first.picks
    outcome = drain(suggest_work(stack, 5, 0, second))
    with pytest.raises(ValueError, match="no further particle stands out in frame 0"):
        outcome.unwrap()


def session_of(count: int = 10) -> AlignmentSession:
    session = AlignmentSession()
    session.open_stack(np.zeros((count, *SHAPE), np.uint16))
    return session


def test_picks_and_the_recipe_are_one() -> None:
    session = session_of()
    session.change(registrar=ParticleTracking(picks=picks(0, 0)))
    assert session.particles.picks == picks(0, 0)
    session.change_particles("delete", session.particles.removed(1))
    assert session.choices.registrar.picks == session.particles.picks
    session.undo()
    assert session.choices.registrar.picks == session.particles.picks == picks(0, 0)
    session.undo()
    assert session.choices.registrar.method == "cross-correlation"
    assert session.particles.picks == ()
    session.redo()
    registrar: Any = session.default_registrar("particles")
    assert registrar.picks == picks(0, 0)


def test_a_time_range_carries_picks_along_and_drops_tracks() -> None:
    session = session_of()
    session.change_particles(
        "pick", Particles().with_picks(picks(0, 5, 9)).with_tracks(TrackSet.of(np.zeros((3, 10, 2))))
    )
    session.change(frames=(4, 8))
    assert [p.frame for p in session.particles.picks] == [0, 1, 3]
    assert session.particles.tracks is None
    session.undo()
    assert [p.frame for p in session.particles.picks] == [0, 5, 9]
    assert session.particles.tracks is not None


def test_tracks_of_another_movie_or_other_picks_are_dropped() -> None:
    session = session_of()
    session.change_particles("pick", Particles().with_picks(picks(0)))
    movie, begun = session.movie, session.particles
    assert movie is not None
    tracks = TrackSet.of(np.zeros((1, 10, 2)))
    session.change_particles("delete", begun.removed(1))
    assert not session.take_tracks(movie, begun, tracks)
    session.undo()
    assert session.take_tracks(movie, session.particles, tracks)
    assert session.particles.tracks is tracks
    session.open_stack(np.zeros((4, 32, 32), np.uint8))
    assert session.particles.picks == ()
    assert not session.take_tracks(movie, begun, tracks)


def test_aligning_by_tracks_of_another_length_is_an_error() -> None:
    session = session_of()
    session.change(registrar=ParticleTracking())
    assert session.stack is not None
    with pytest.raises(ValueError, match="the tracks cover 7 frames, the time range has 10"):
        align_tracks_work(session.stack, session.choices, TrackSet.of(np.zeros((1, 7, 2))), ())


@pytest.mark.parametrize("model", ["translation", "euclidean", "similarity", "affine"])
def test_the_draft_of_a_choice_is_the_exact_motion_but_for_a_hair(model: str) -> None:
    rng = np.random.default_rng(4)
    scene = 10 + 50 * rng.random((9, 2))
    drift = np.cumsum(rng.normal(0, 0.3, (40, 2)), axis=0)
    places: Any = scene[:, None] + drift[None] + rng.normal(0, 0.02, (9, 40, 2))
    places[2, 5:9] = np.nan
    places[7] += np.cumsum(rng.normal(0, 0.2, (40, 2)), axis=0)
    trajectories = Trajectories.of(TrackSet.of(places, error=0.02), model, SHAPE)
    assert set(trajectories.suggested) == {8}
    draft, exact = trajectories.draft([8, 1]), trajectories.exact([8, 1])
    np.testing.assert_allclose(draft.drift, exact.drift, atol=0.03)
    np.testing.assert_allclose(draft.angle, exact.angle, atol=0.1)
    average = trajectories.average([8])
    assert average["particles"].tolist() == [8] * 5 + [7] * 4 + [8] * 31
