"""Cross-correlation against the truth: the Cramer-Rao bound of simulated movies, and real sets with known motion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

import stackalign as sa

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
shared_data = pytest.mark.shared_data
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets are not in ../shared/data")


def scatter(result, drift, frames=slice(None)):
    """Return the rms difference to the true drift per axis, pixels, after removing the common offset."""
    gap = (result.transforms.translations + drift)[frames]
    return float(np.sqrt(((gap - gap.mean(0)) ** 2).mean()))


def bound(truth):
    return float(np.sqrt((truth.cramer_rao**2).mean()))


@pytest.mark.parametrize("photons", [100, 5])
@pytest.mark.parametrize("scene", ["hubble_deep_field", "cells"])
def test_uniform_motion_is_found_near_the_cramer_rao_bound(scene, photons):
    stack, truth = sa.simulate(
        scene=scene, shape=(160, 200), frames=40, motion="uniform", amplitude=15, photons=photons, seed=3
    )
    result = sa.register(stack, sa.CrossCorrelation())
    assert not result.quality.flagged.any()
    found, least = scatter(result, truth.drift), bound(truth)
    # the scene is not known: it is estimated from the same 40 frames, at borders from half of them
    assert found < 1.25 * least, f"{found:.5f} px, bound {least:.5f} px"


@pytest.mark.parametrize("photons", [100, 5])
def test_errors_are_told_truly(photons):
    stack, truth = sa.simulate(
        scene="hubble_deep_field", shape=(128, 144), frames=60, motion="uniform", amplitude=8, photons=photons, seed=8
    )
    result = sa.register(stack, sa.CrossCorrelation(), anchor="mean")
    gap = result.transforms.translations + truth.drift
    pulls = (gap - gap.mean(0)) / result.quality.error
    assert 0.75 < np.sqrt((pulls**2).mean()) < 1.35
    assert np.abs(pulls).max() < 6


def test_every_reference_is_about_as_good_as_its_reference_allows():
    stack, truth = sa.simulate(
        scene="hubble_deep_field", shape=(128, 144), frames=24, motion="smooth", amplitude=4, photons=100, seed=5
    )
    least = bound(truth)
    # a single frame as reference: its own noise adds once to each frame, as a common offset that is removed in part;
    # a chain adds up; all pairs within 5 frames average
    for reference, allowed in {
        "mean": 1.25, "median": 1.6, "first": 1.8, "rolling": 2.6, "all-pairs": 4.0, "previous": 8.0,
    }.items():  # fmt: skip
        result = sa.register(stack, sa.CrossCorrelation(), reference=reference)
        assert not result.quality.flagged.any()
        assert scatter(result, truth.drift) < allowed * least, reference
    result = sa.register(stack, sa.CrossCorrelation(), reference=truth.clean(0).astype(np.float32))
    assert scatter(result, truth.drift) < 1.2 * least
    assert np.abs((result.transforms.translations + truth.drift).mean(0)).max() < 3 * least


def test_no_sub_pixel_phase_is_preferred():
    """Errors do not depend on where between two pixels a frame lies (no bias towards whole pixels)."""
    drift = np.column_stack([np.linspace(0, 2, 41), -np.linspace(0, 3, 41)])
    still = sa.simulate(scene="hubble_deep_field", shape=(120, 140), frames=1, photons=400, seed=2).truth.clean(0)
    rng = np.random.default_rng(4)
    frames = sa.moved(still, sa.TransformSeries.from_translations(-drift)).asarray()
    frames = rng.poisson(np.clip(frames, 0, None)).astype(np.uint16)
    result = sa.register(frames, sa.CrossCorrelation())
    gap = result.transforms.translations + drift
    gap -= gap.mean(0)
    for axis in range(2):
        wave = np.exp(2j * np.pi * drift[:, axis])
        assert np.abs((gap[:, axis] * wave).mean()) < 3 * gap[:, axis].std() / np.sqrt(len(gap))


def test_volumes_are_found_near_the_cramer_rao_bound():
    stack, truth = sa.simulate(
        scene="texture", shape=(40, 56, 64), frames=12, motion="uniform", amplitude=3, photons=50, seed=1
    )
    result = sa.register(stack, sa.CrossCorrelation())
    assert not result.quality.flagged.any()
    assert scatter(result, truth.drift) < 1.4 * bound(truth)


def test_a_shift_beyond_half_the_frame_is_not_aliased():
    stack, truth = sa.simulate(
        scene="hubble_deep_field",
        shape=(128, 160),
        frames=9,
        motion="none",
        drift_rate=(11.0, -6.5),
        photons=200,
        seed=6,
    )
    assert np.abs(truth.drift[-1]).max() > 64
    result = sa.register(stack, sa.CrossCorrelation())
    assert not result.quality.flagged.any()
    assert scatter(result, truth.drift) < 0.02


@pytest.mark.parametrize("reference", ["mean", "first", "previous", "all-pairs"])
@pytest.mark.parametrize("scene", ["hubble_deep_field", "texture"])
def test_a_drift_out_of_view_is_followed(scene, reference):
    stack, truth = sa.simulate(
        scene=scene, shape=(96, 112), frames=30, motion="none", drift_rate=(5.0, 4.0), photons=300, seed=9
    )
    assert (truth.drift[-1] > (96, 112)).all()  # the last frame shows nothing of the first
    result = sa.register(stack, sa.CrossCorrelation(), reference=reference)
    assert not result.quality.flagged.any()
    assert scatter(result, truth.drift) < 0.15


# real data


@shared_data
@needs_data
def test_reflection_particles_move_as_the_table_says():
    stack = sa.read_stack(DATA / "reflection_particles" / "*.tif", axes=None)
    assert stack.dtype == np.uint16
    result = sa.register(stack, sa.CrossCorrelation(), reference="first")
    drift = -result.transforms.translations
    table = np.array([[0, 0], [0.75, 0.11], [3.92, 1.17], [6.12, 3.01], [7.47, 3.67]])
    assert not result.quality.flagged.any()
    assert np.abs(drift - table)[[0, 2, 3, 4]].max() < 0.25
    # the table calls its row for frame 2 less certain: single blocks of that frame say 0.75 to 1.58 px down
    assert 0.75 - 0.1 < drift[1, 0] < 1.58 + 0.1
    assert 0.07 - 0.1 < drift[1, 1] < 0.28 + 0.1
    quality = sa.measure(stack, result.transforms)
    assert quality.correlation_after > quality.correlation_before


@shared_data
@needs_data
@pytest.mark.parametrize("reference", ["mean", "first", "previous"])
def test_beads_that_are_stuck_stay(reference):
    (path,) = (DATA / "stuck_beads").glob("*.tif")
    result = sa.register(sa.read_stack(path, axes="tyx"), sa.CrossCorrelation(), reference=reference)
    assert not result.quality.flagged.any()
    assert np.abs(result.transforms.translations).max() < 0.2


@shared_data
@needs_data
@pytest.mark.parametrize(("reference", "limit"), [("mean", 0.15), ("first", 0.2)])
def test_a_mouse_that_keeps_still_is_left_alone(reference, limit):
    (path,) = (DATA / "mouse").glob("*.tif")
    result = sa.register(sa.read_stack(path, axes="tyx"), sa.CrossCorrelation(), reference=reference, anchor="mean")
    shifts = result.transforms.translations
    assert not result.quality.flagged.any()
    assert np.sqrt((shifts**2).mean(0)).max() < 0.07  # scikit-image at upsample 50: 0.05
    assert np.quantile(np.abs(shifts), 0.99) < limit  # one frame as reference brings its own noise


@shared_data
@needs_data
def test_mouse_moved_by_a_known_drift():
    (path,) = (DATA / "mouse").glob("*.tif")
    still = sa.read_stack(path, axes="tyx")
    rng = np.random.default_rng(42)
    drift = gaussian_filter1d(rng.normal(size=(len(still), 2)), 1.5, axis=0) * 10
    movie = sa.moved(still, sa.TransformSeries.from_translations(-drift)).asarray()
    result = sa.register(movie, sa.CrossCorrelation())
    assert not result.quality.flagged.any()
    assert scatter(result, drift) < 0.08


@shared_data
@needs_data
def test_fish_of_two_planes_and_beads_in_depth():
    fish = sa.read_stack(DATA / "fish" / "*.tif", axes="tzyx")
    result = sa.register(fish, sa.CrossCorrelation())
    assert not result.quality.flagged.any()
    assert np.abs(result.transforms.translations).max() < 0.1
    assert np.isnan(result.quality.error[:, 0]).all()  # two planes do not tell a fraction of a plane
    (path,) = (DATA / "bead_stack").glob("*.tif")
    volume = sa.read_stack(path, axes="zyx")[0][:, 20:120, 30:110].astype(np.float32)
    rng = np.random.default_rng(3)
    drift = np.vstack([np.zeros(3), rng.uniform(-3, 3, (5, 3))])
    moved = sa.moved(volume, sa.TransformSeries.from_translations(-drift)).asarray()
    noisy = moved + rng.normal(0, 2, moved.shape).astype(np.float32)
    found = sa.register(noisy, sa.CrossCorrelation())
    assert not found.quality.flagged.any()
    assert scatter(found, drift) < 0.05


@pytest.mark.slow
def test_frames_that_leave_a_border_are_not_pulled_back():
    """The Wiener filter bends a reference near its borders, where this scene is dark and weighs most."""
    movie = sa.simulate(
        scene="retina", shape=(1024, 1024), frames=10, motion="uniform", amplitude=20.0, photons=100.0, seed=1
    )
    found = sa.register(movie.stack, sa.CrossCorrelation(), reference="first")
    error = found.transforms.translations - movie.truth.transforms.translations
    z = (error - error[0])[1:] / found.quality.error[1:]
    assert np.sqrt((z**2).mean()) < 1.4  # 2.0 where frames are compared with what was filtered
