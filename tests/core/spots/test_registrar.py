"""The method "particles": the contract of every method, picks or suggestions, a reference image, the walkers named."""

import numpy as np
import pytest

from stackalign import Box, Cancelled, Done, ImageStack, ParticleTracking, Pick, Registrar, Registration, drain
from stackalign.core.geometry import corners
from stackalign.core.spots import registrar
from tests.core.spots.scenes import Movie, render, rigid_movie


def aligned(stack: object, parameters: ParticleTracking | None = None, **options: object) -> Registration:
    return drain((parameters or ParticleTracking()).fit(stack, **options)).unwrap()


def corner_error(result: Registration, movie: Movie) -> np.ndarray:
    points = corners(movie.frames.shape[1:])
    return np.stack([a(b.inverse(points)) - points for a, b in zip(result.transforms, movie.truth, strict=True)])


def test_is_a_registrar_and_a_record() -> None:
    method = ParticleTracking(picks=[Pick(id=1, frame=0, bounds=(0, 9, 0, 9))], auto=5)
    assert isinstance(method, Registrar)
    assert method.method == "particles"
    assert ParticleTracking.model_validate_json(method.model_dump_json()) == method
    for name, info in ParticleTracking.model_fields.items():
        if name != "method":
            assert info.title, name
            assert info.description, name


@pytest.mark.parametrize("smooth", [True, False])
def test_suggested_particles_give_the_motion(smooth: bool) -> None:
    movie = rigid_movie(smooth=smooth, length=25)
    result = aligned(movie.frames, ParticleTracking(search=45))
    assert np.sqrt((corner_error(result, movie) ** 2).mean()) < 0.06
    assert not result.quality.flagged.any()
    assert result.quality.confidence.min() > 0.6
    assert set(result.details) == {"tracks", "motion", "picks"}
    np.testing.assert_array_equal(result.transforms.matrices[0], np.eye(3))


def test_still_movie_stays() -> None:
    movie = rigid_movie(shift=0, angle=0, length=8)
    result = aligned(np.repeat(movie.frames[:1], 8, 0))
    np.testing.assert_allclose(result.transforms.matrices, np.tile(np.eye(3), (8, 1, 1)), atol=1e-4)


def test_single_frame() -> None:
    movie = rigid_movie(length=1)
    result = aligned(movie.frames)
    np.testing.assert_allclose(result.transforms.matrices, np.eye(3)[None], atol=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_dtypes_agree(dtype: type) -> None:
    movie = rigid_movie(length=6, noise=False)
    frames = np.clip(render(movie.where, (220, 260), amplitude=150.0, seed=0), 0, 254)
    expected = aligned(frames, ParticleTracking(picks=movie.picks)).transforms.matrices
    found = aligned(frames.astype(dtype), ParticleTracking(picks=movie.picks)).transforms.matrices
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_bad_frames_are_flagged_and_do_no_harm() -> None:
    movie = rigid_movie(length=14)
    frames = movie.frames.astype(np.float32)
    frames[3], frames[8] = np.nan, 7.0
    result = aligned(ImageStack(frames, missing={11: "the file is cut off"}), ParticleTracking(picks=movie.picks))
    assert np.flatnonzero(result.quality.flagged).tolist() == [3, 8, 11]
    assert "cut off" in result.quality.reasons[11]
    assert "blank" in result.quality.reasons[8]
    assert np.flatnonzero(~result.transforms.valid).tolist() == [3, 8, 11]
    error = np.abs(corner_error(result, movie)).max((1, 2))
    assert error[[0, 1, 2, 4, 5, 6, 7, 9, 10, 12, 13]].max() < 0.2
    assert error[[3, 8, 11]].max() < 1.0  # between their neighbours


def test_walkers_are_named() -> None:
    rng = np.random.default_rng(3)
    own = np.cumsum(rng.normal(0, 0.35, (12, 40, 2)), 1)
    own[3:] = 0
    movie = rigid_movie(own=own - own[:, :1])
    result = aligned(movie.frames, ParticleTracking(picks=movie.picks))
    assert set(result.details["motion"].outliers) == {1, 2, 3}
    assert np.sqrt((corner_error(result, movie) ** 2).mean()) < 0.06
    chosen = aligned(movie.frames, ParticleTracking(picks=movie.picks, exclude=(1, 2, 3)))
    assert chosen.details["motion"].ids.tolist() == list(range(4, 13))
    assert len(chosen.details["tracks"]) == 12


def test_reference_words_frames_and_images() -> None:
    movie = rigid_movie(length=10)
    method = ParticleTracking(picks=movie.picks)
    np.testing.assert_array_equal(aligned(movie.frames, method, reference=4).transforms.matrices[4], np.eye(3))
    np.testing.assert_array_equal(
        aligned(movie.frames, method, reference="first", anchor=2).transforms.matrices[2], np.eye(3)
    )
    onto = aligned(movie.frames, method, reference=movie.frames[6])
    own = aligned(movie.frames, method, reference=6)
    points = corners(movie.frames.shape[1:])
    for a, b in zip(onto.transforms, own.transforms, strict=True):
        np.testing.assert_allclose(a(points), b(points), atol=0.02)
    with pytest.raises(ValueError, match="not found in the reference"):
        aligned(movie.frames, method, reference=np.random.default_rng(0).poisson(20, movie.frames.shape[1:]))
    with pytest.raises(ValueError, match="frames are"):
        aligned(movie.frames, method, reference=np.zeros((5, 5)))
    with pytest.raises(ValueError, match="no frame 10 to align to"):
        aligned(movie.frames, method, reference=10)


def test_frame_of_another_scene_is_flagged() -> None:
    movie = rigid_movie(length=12)
    frames = movie.frames.copy()
    frames[5] = rigid_movie(length=1, seed=9).frames[0]
    result = aligned(frames, ParticleTracking(picks=movie.picks))
    assert np.flatnonzero(result.quality.flagged).tolist() == [5]
    assert not result.transforms.valid[5]
    assert np.abs(corner_error(result, movie)[[4, 6, 11]]).max() < 0.2


def test_misuse_of_the_anchor_is_named() -> None:
    movie = rigid_movie(length=3)
    with pytest.raises(ValueError, match="no frame 3 to anchor"):
        aligned(movie.frames, anchor=3)
    with pytest.raises(ValueError, match="not 'middle'"):
        aligned(movie.frames, anchor="middle")


def test_no_particles_is_one_sentence() -> None:
    noise = np.random.default_rng(0).poisson(100, (3, 64, 64))
    with pytest.raises(ValueError, match="no particle stands out"):
        aligned(noise)
    with pytest.raises(ValueError, match="no frame"):
        aligned(np.zeros((3, 64, 64)))
    nothing = ParticleTracking(picks=[Pick.of(Box(5, 20, 5, 20), id=1)])
    result = aligned(noise, nothing)
    assert not result.transforms.valid.any()
    assert result.quality.flagged.all()


def test_cancel_keeps_the_motion_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registrar, "BETWEEN_DRAFTS", 0.0)
    movie = rigid_movie(length=20)
    count = 0

    def stop() -> bool:
        nonlocal count
        count += 1
        return count > 8

    outcome = drain(ParticleTracking(picks=movie.picks).fit(movie.frames), should_stop=stop)
    assert isinstance(outcome, Cancelled)
    partial = outcome.partial
    assert partial.details["tracks"].found[:, :8].all()
    assert partial.transforms.valid[:8].all()
    assert not partial.transforms.valid[-1]
    assert "not been reached" in partial.quality.reasons[-1]
    assert np.abs(corner_error(partial, movie)[:8]).max() < 0.2
    assert isinstance(drain(ParticleTracking(picks=movie.picks).fit(movie.frames)), Done)


def test_same_result_each_time() -> None:
    movie = rigid_movie(length=10)
    a, b = aligned(movie.frames), aligned(movie.frames)
    np.testing.assert_array_equal(a.transforms.matrices, b.transforms.matrices)
