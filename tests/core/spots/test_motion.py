"""Motion from tracks: exact without noise, robust to walkers, honest about few particles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackalign import HeldOut, Transform, TransformSeries, hold_out, motion_from_tracks
from stackalign.core.geometry import corners
from stackalign.core.spots.tracks import TrackSet

SHAPE = (300, 420)
MIDDLE = (np.array(SHAPE) - 1) / 2


def moved(
    count: int = 12, length: int = 80, *, error: float = 0.03, walkers: int = 0, gaps: float = 0.0, seed: int = 0
) -> tuple[TrackSet, TransformSeries]:
    rng = np.random.default_rng(seed)
    scene = rng.uniform(20, np.array(SHAPE) - 20, (count, 2))
    t = np.linspace(0, 1, length)
    shifts = np.stack([15 * np.sin(3 * t), 9 * np.cos(5 * t) - 9], 1)
    angles = np.deg2rad(2) * np.sin(4 * t)
    forward = [Transform.from_rotation(a, s, MIDDLE) for a, s in zip(angles, shifts, strict=True)]
    where = np.stack([m(scene) for m in forward], 1)
    own = np.cumsum(rng.normal(0, 0.3, where.shape), 1)
    own[walkers:] = 0
    where = where + own + rng.normal(0, 1, where.shape) * error
    where[rng.random(where.shape[:2]) < gaps] = np.nan
    truth = TransformSeries.from_transforms([m.inverse for m in forward]).rebased(0)
    return TrackSet.of(where, error=max(error, 1e-3)), truth


def corner_error(series: TransformSeries, truth: TransformSeries) -> np.ndarray:
    points = corners(SHAPE)
    return np.stack([a(b.inverse(points)) - points for a, b in zip(series, truth, strict=True)])


@pytest.mark.parametrize("model", ["euclidean", "similarity", "affine"])
def test_clean_tracks_give_the_exact_motion(model: str) -> None:
    tracks, truth = moved(error=0.0)
    motion = motion_from_tracks(tracks, model, shape=SHAPE)
    assert np.abs(corner_error(motion.transforms, truth)).max() < 1e-5
    assert motion.transforms.model == model
    assert set(motion.reasons) == {""}
    assert motion.outliers == {}


def test_stated_error_is_the_true_one() -> None:
    found, stated = [], []
    for seed in range(6):
        tracks, truth = moved(error=0.05, gaps=0.2, seed=seed)
        for model in ("euclidean", "affine"):
            motion = motion_from_tracks(tracks, model, shape=SHAPE, anchor="mean")
            error = corner_error(motion.transforms, truth.rebased("mean", centre=MIDDLE))
            found.append((error**2).mean())
            stated.append((motion.corner_error**2).mean())
    assert np.sqrt(np.mean(found) / np.mean(stated)) == pytest.approx(1, abs=0.12)


def test_walkers_are_named_and_carry_nothing() -> None:
    tracks, truth = moved(walkers=3, gaps=0.1)
    motion = motion_from_tracks(tracks, shape=SHAPE)
    assert set(motion.outliers) == {1, 2, 3}
    assert "on its own" in motion.outliers[1]
    assert np.sqrt((corner_error(motion.transforms, truth) ** 2).mean()) < 0.04
    table = motion.particles.set_index("particle")
    assert table.loc[4:, "own_motion_p"].min() > 1e-4
    assert table.loc[4:, "residual_rms_px"].max() < 0.06


def test_one_wrong_frame_of_a_particle_counts_little() -> None:
    tracks, truth = moved()
    tracks.position[5, 40] += [4.0, -3.0]
    motion = motion_from_tracks(tracks, shape=SHAPE)
    assert np.abs(corner_error(motion.transforms, truth)[40]).max() < 0.1
    assert motion.weight[5, 40] < 0.01


def test_missing_particles_are_missing() -> None:
    tracks, truth = moved(error=0.0)
    tracks.position[:6, :30] = np.nan  # half of them come later, others go
    tracks.position[8:, 50:] = np.nan
    motion = motion_from_tracks(tracks, shape=SHAPE)
    assert np.abs(corner_error(motion.transforms, truth)).max() < 1e-4


def test_few_particles_say_so() -> None:
    tracks, truth = moved(count=5, error=0.0)
    tracks.position[1:, 20] = np.nan
    tracks.position[:, 30] = np.nan
    tracks.position[2:, 40] = np.nan
    motion = motion_from_tracks(tracks, shape=SHAPE)
    assert "translation only" in motion.reasons[20]
    assert "one particle" in motion.reasons[20]
    assert "no particle" in motion.reasons[30]
    assert "nothing checks" in motion.reasons[40]
    assert motion.transforms.valid.tolist() == [t != 30 for t in range(80)]
    error = np.abs(corner_error(motion.transforms, truth)).max((1, 2))
    assert error[20] < 0.2  # rotation from the neighbours, translation measured
    assert error[30] < 0.5
    assert np.isnan(motion.corner_error[30]).all()
    assert motion.used[[20, 30, 40]].tolist() == [1, 0, 2]


def test_single_particle_gives_translation() -> None:
    tracks, _ = moved(count=1, error=0.0)
    motion = motion_from_tracks(tracks, shape=SHAPE)
    np.testing.assert_allclose(motion.transforms.angles, 0)
    np.testing.assert_allclose(motion.transforms.translations, -(tracks.position[0] - tracks.position[0, 0]), atol=1e-9)
    assert all("translation only" in reason for reason in motion.reasons)


def test_nothing_found_at_all() -> None:
    motion = motion_from_tracks(TrackSet.of(np.full((3, 5, 2), np.nan)), shape=SHAPE)
    assert not motion.transforms.valid.any()
    assert all("no particle" in reason for reason in motion.reasons)
    assert set(motion.outliers) == {1, 2, 3}


def test_anchor_and_choice() -> None:
    tracks, truth = moved(error=0.0)
    motion = motion_from_tracks(tracks, shape=SHAPE, anchor=33)
    np.testing.assert_array_equal(motion.transforms.matrices[33], np.eye(3))
    assert np.abs(corner_error(motion.transforms, truth.rebased(33))).max() < 1e-5
    some = motion_from_tracks(tracks, shape=SHAPE, include=[2, 5, 9])
    assert some.ids.tolist() == [2, 5, 9]
    assert np.abs(corner_error(some.transforms, truth)).max() < 1e-5
    np.testing.assert_allclose(some.scene, motion_from_tracks(tracks, shape=SHAPE).scene[[1, 4, 8]], atol=1e-5)
    with pytest.raises(ValueError, match="no particle 99"):
        motion_from_tracks(tracks, include=[99])
    with pytest.raises(ValueError, match="projective"):
        motion_from_tracks(tracks, "projective")


@pytest.mark.parametrize("model", ["translation", "euclidean", "similarity", "affine"])
def test_volumes(model: str) -> None:
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(0)
    scene = rng.uniform(0, [20, 80, 90], (9, 3))
    where, matrices = [], []
    for t in range(12):
        m = np.eye(4)
        if model != "translation":
            m[:3, :3] = Rotation.from_rotvec(rng.normal(0, 0.02, 3) if t else np.zeros(3)).as_matrix()
        m[:3, 3] = rng.normal(0, 2, 3) if t else 0
        matrices.append(np.linalg.inv(m))
        where.append(scene @ m[:3, :3].T + m[:3, 3])
    motion = motion_from_tracks(TrackSet.of(np.stack(where, 1)), model, shape=(20, 80, 90))
    np.testing.assert_allclose(motion.transforms.matrices, matrices, atol=1e-5)


@given(shift=st.tuples(st.floats(-50, 50), st.floats(-50, 50)), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_moving_the_tracks_moves_the_motion(shift: tuple[float, float], seed: int) -> None:
    tracks, _ = moved(count=6, length=10, seed=seed)
    there = Transform.from_translation(shift)
    plain = motion_from_tracks(tracks, shape=SHAPE).transforms
    other = motion_from_tracks(TrackSet.of(tracks.position + shift, error=0.03), shape=SHAPE).transforms
    for a, b in zip(plain, other, strict=True):
        np.testing.assert_allclose((there @ a @ there.inverse).matrix, b.matrix, atol=1e-4)


def test_held_out_particles_prove_the_motion() -> None:
    tracks, _ = moved(count=10, error=0.05, walkers=2, gaps=0.05)
    for folds in (None, 3):
        proof = hold_out(tracks, shape=SHAPE, folds=folds)
        assert isinstance(proof, HeldOut)
        assert proof.ids.tolist() == list(range(3, 11))
        assert proof.before_rms > 5
        assert 0.045 < proof.after_rms < 0.08
        assert proof.floor == pytest.approx(0.05)
        assert proof.reduction_percent > 98
        assert "held-out" in proof.sentence
    with pytest.raises(ValueError, match="at least two"):
        hold_out(tracks, include=[3])
