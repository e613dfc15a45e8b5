"""Tracking: through drift, rotation, jumps, gaps, crossings and bad frames; flags instead of jumps."""

import numpy as np
import pytest

from stackalign import FitStatus, ImageStack, Pick, TrackSet, WorkCancelled, track_spots
from stackalign.core.spots.track import TrackOptions, track_spots_work
from tests.core.spots.scenes import boxes, render, rigid_movie


def off(tracks: TrackSet, where: np.ndarray) -> float:
    """Greatest distance of a found position from the truth."""
    return float(np.nanmax(np.abs(tracks.position - where)))


@pytest.mark.parametrize("smooth", [True, False])
def test_drift_and_rotation(smooth: bool) -> None:
    movie = rigid_movie(smooth=smooth)
    tracks = track_spots(movie.frames, movie.picks, search=45)
    assert tracks.found.mean() > 0.99
    assert off(tracks, movie.where) < 0.4
    pull = (tracks.position - movie.where) / tracks.position_error
    assert np.nanstd(pull) == pytest.approx(1, abs=0.1)


def test_picks_in_different_frames_go_both_ways() -> None:
    movie = rigid_movie(count=5, length=30)
    picks = [boxes(movie.where[:, f], (220, 260), frame=f)[k] for k, f in enumerate((0, 7, 15, 29, 12))]
    tracks = track_spots(movie.frames, picks)
    assert tracks.found.all()
    assert off(tracks, movie.where) < 0.4
    assert tracks.start.tolist() == [0, 7, 15, 29, 12]


def test_each_frame_is_read_once() -> None:
    movie = rigid_movie(count=4, length=20)

    class Counting:
        shape, dtype = movie.frames.shape, movie.frames.dtype

        def __init__(self) -> None:
            self.reads = np.zeros(20, int)

        def __getitem__(self, t: int) -> np.ndarray:
            self.reads[t] += 1
            return movie.frames[t]

    frames = Counting()
    picks = boxes(movie.where[:, 11], (220, 260), frame=11)
    tracks = track_spots(ImageStack(frames), picks)
    assert tracks.found.all()
    assert frames.reads.tolist() == [1] * 20


def test_blinking_particle_is_found_again() -> None:
    movie = rigid_movie(count=6, length=60, noise=False)
    height = np.full((6, 60), 200.0)
    height[2, 10:40] = 0
    frames = render(movie.where, (220, 260), amplitude=height, seed=1)
    tracks = track_spots(frames, movie.picks)
    assert not tracks.found[2, 10:40].any()
    assert tracks.found[2, :10].all()
    assert tracks.found[2, 40:].all()
    assert off(tracks, movie.where) < 0.4
    assert set(tracks.status[2, 10:40].tolist()) <= {s.value for s in FitStatus if s is not FitStatus.OK}
    assert tracks.reason(3, 20)
    assert tracks.reason(3, 5) == ""


def test_all_particles_gone_for_a_while() -> None:
    movie = rigid_movie(count=6, length=40, shift=8, noise=False)
    height = np.full((6, 40), 200.0)
    height[:, 15:22] = 0
    tracks = track_spots(render(movie.where, (220, 260), amplitude=height, seed=1), movie.picks)
    assert not tracks.found[:, 15:22].any()
    assert tracks.found[:, 22:].all()
    assert off(tracks, movie.where) < 0.4


def test_falling_brightness_is_no_trouble() -> None:
    movie = rigid_movie(count=6, length=60, noise=False)
    height = np.linspace(400, 60, 60)[None] * np.ones((6, 1))
    tracks = track_spots(render(movie.where, (220, 260), amplitude=height, seed=1), movie.picks)
    assert tracks.found.all()


def test_bleached_particle_is_flagged_not_replaced() -> None:
    movie = rigid_movie(count=6, length=40, noise=False)
    height = np.full((6, 40), 200.0)
    height[1] = 200 * np.exp(-np.arange(40) / 8)
    tracks = track_spots(render(movie.where, (220, 260), amplitude=height, seed=1), movie.picks)
    assert tracks.found[1, :15].all()
    assert not tracks.found[1, 35:].any()
    assert off(tracks, movie.where) < 1.5


def test_crossing_particles_keep_their_identity() -> None:
    length = 60
    still = np.array([[60.0, 60.0], [60.0, 160.0], [160.0, 60.0], [160.0, 160.0]])
    where = np.repeat(still[:, None], length, 1)
    t = np.arange(length)
    a = np.stack([100 + 0.9 * (t - 30), np.full(length, 100.0)], 1)
    b = np.stack([100 - 0.9 * (t - 30), np.full(length, 103.0)], 1)
    where = np.concatenate([where, a[None], b[None]])
    frames = render(where, (220, 220), amplitude=np.array([200, 200, 200, 200, 200, 260.0]), seed=2)
    tracks = track_spots(frames, boxes(where[:, 0], (220, 220)))
    assert tracks.found[4:, :20].all()
    assert tracks.found[4:, 45:].all()
    assert np.nanmax(np.abs(tracks.position[4:, 45:] - where[4:, 45:])) < 0.5
    apart = np.abs(tracks.position[4] - tracks.position[5]).max(1)
    assert np.nanmin(apart) > 1  # never two tracks on one spot


def test_particle_that_leaves_the_field() -> None:
    length = 40
    where = np.repeat(np.array([[60.0, 60.0], [60.0, 120.0], [120.0, 60.0], [30.0, 30.0]])[:, None], length, 1)
    where[3, :, 1] = 30 - np.arange(length)
    tracks = track_spots(render(where, (160, 160)), boxes(where[:, 0], (160, 160)))
    assert tracks.found[3, :26].all()
    assert not tracks.found[3, 33:].any()
    assert {FitStatus.OUT_OF_VIEW, FitStatus.OFF_EDGE} & {FitStatus(int(s)) for s in tracks.status[3, 33:]}
    assert tracks.found[:3].all()


def test_bad_frames_are_gaps() -> None:
    movie = rigid_movie(count=5, length=25)
    frames = movie.frames.astype(np.float32)
    frames[7] = np.nan
    frames[12] = 5
    frames[18, :60] = np.nan
    stack = ImageStack(frames, missing={3: "cannot be read"})
    tracks = track_spots(stack, movie.picks)
    for t in (3, 7, 12):
        assert (tracks.status[:, t] == FitStatus.NO_FRAME).all()
    assert set(tracks.missing) == {3, 7, 12}
    assert tracks.found[:, [4, 8, 13, 19]].all()
    assert off(tracks, movie.where) < 0.5


def test_pick_on_nothing_says_so() -> None:
    movie = rigid_movie(count=4, length=6)
    nothing = Pick(id=99, frame=0, bounds=(0, 13, 0, 13))
    tracks = track_spots(movie.frames, [*movie.picks, nothing])
    assert not tracks.found[-1].any()
    assert (tracks.status[-1] == FitStatus.NO_CONTRAST).all()
    assert tracks.found[:-1].all()
    assert "stands out" in tracks.summary()["lost_because"].iloc[-1]


def test_dark_particles_and_other_dtypes() -> None:
    movie = rigid_movie(count=5, length=10, noise=False)
    frames = render(movie.where, (220, 260), amplitude=-400.0, background=1000.0)
    for dtype in (np.uint16, np.float32, np.int16, np.float64):
        tracks = track_spots(frames.astype(dtype), movie.picks)
        assert tracks.found.all()
        assert off(tracks, movie.where) < 0.6


def test_same_result_each_time_and_cancel_keeps_what_is_done() -> None:
    movie = rigid_movie(count=4, length=80)
    a, b = track_spots(movie.frames, movie.picks), track_spots(movie.frames, movie.picks)
    np.testing.assert_array_equal(a.position, b.position)
    seen: list[int] = []
    with pytest.raises(WorkCancelled) as caught:
        track_spots(
            movie.frames, movie.picks, on_progress=lambda p: seen.append(p.done), should_stop=lambda: seen[-1:] >= [10]
        )
    partial, done = caught.value.partial, seen[-1]
    assert 10 <= done < 60
    np.testing.assert_array_equal(partial.position[:, :done], a.position[:, :done])
    assert not partial.found[:, done:].any()


def test_readers_and_frames_ahead_change_nothing() -> None:
    movie = rigid_movie(count=4, length=40)
    whole = track_spots(movie.frames, movie.picks)
    for options in ({"readers": 1}, {"readers": 3, "read_ahead": 1}, {"read_ahead": 100}):
        np.testing.assert_array_equal(track_spots(movie.frames, movie.picks, **options).position, whole.position)
    assert TrackOptions().frames_ahead(512 * 512 * 2) == 64
    assert TrackOptions().frames_ahead(64 << 20) == 4
    assert TrackOptions().frames_ahead(1 << 40) == 2


def test_volumes() -> None:
    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[:11, :60, :70]
    drift = np.cumsum(rng.normal(0, 0.5, (8, 3)), 0) * [0.3, 1, 1]
    drift[0] = 0
    scene = np.array([[5.0, 20, 20], [4.5, 40, 25], [5.5, 20, 50], [5.0, 42, 52]])
    frames = np.full((8, 11, 60, 70), 10.0)
    for t in range(8):
        for p in scene + drift[t]:
            frames[t] += 150 * np.exp(-0.5 * (((z - p[0]) / 1.5) ** 2 + ((y - p[1]) / 2) ** 2 + ((x - p[2]) / 2) ** 2))
    frames = rng.poisson(frames)
    picks = [
        Pick(id=k, frame=0, bounds=(0, 11, int(p[1]) - 7, int(p[1]) + 8, int(p[2]) - 7, int(p[2]) + 8))
        for k, p in enumerate(scene)
    ]
    tracks = track_spots(frames, picks)
    assert tracks.found.all()
    assert off(tracks, scene[:, None] + drift[None]) < 0.25


def test_misuse_is_named() -> None:
    frames = np.zeros((3, 20, 20))
    with pytest.raises(ValueError, match="no particle is picked"):
        track_spots(frames, [])
    with pytest.raises(ValueError, match="frame 5"):
        track_spots(frames, [Pick(id=1, frame=5, bounds=(0, 9, 0, 9))])
    with pytest.raises(ValueError, match=r"particle 1.*outside"):
        track_spots(frames, [Pick(id=1, frame=0, bounds=(30, 39, 0, 9))])
    with pytest.raises(ValueError, match="3-D box"):
        track_spots(frames, [Pick(id=1, frame=0, bounds=(0, 2, 0, 9, 0, 9))])
    with pytest.raises(ValueError, match="search"):
        TrackOptions(search=0)
    with pytest.raises(ValueError, match="start < stop"):
        Pick(id=1, frame=0, bounds=(9, 9, 0, 9))


def test_progress_counts_frames() -> None:
    movie = rigid_movie(count=3, length=8)
    steps = list(track_spots_work(movie.frames, boxes(movie.where[:, 4], (220, 260), frame=4)))
    assert [(s.done, s.total) for s in steps] == [(k, 8) for k in range(1, 9)]
    assert isinstance(steps[-1].partial, TrackSet)
