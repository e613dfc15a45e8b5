"""Alignment by particles against the truth: a hard rigid movie, real drift rendered anew, real movies."""

from pathlib import Path

import numpy as np
import pytest
from tests.core.spots.scenes import boxes, render, spread

from stackalign import (
    ParticleTracking,
    Registration,
    TrackSet,
    Transform,
    TransformSeries,
    drain,
    hold_out,
    motion_from_tracks,
    read_stack,
    read_table,
)
from stackalign.core.geometry import centre, corners

DATA = Path("../shared/data")
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the real data sets in ../shared/data are not there")


def aligned(stack: object, method: ParticleTracking, **options: object) -> Registration:
    return drain(method.fit(stack, **options)).unwrap()


def middle_shift(result: Registration, shape: tuple[int, ...]) -> np.ndarray:
    """Drift of the field's centre (T, 2)."""
    c = centre(shape)
    return np.stack([t.inverse(c) - c for t in result.transforms])


def test_rigid_movie_with_walkers_bleaching_and_blinking() -> None:
    """+-2 deg, +-15 px, 12 particles of which 3 walk on their own, 2 bleach, 1 blinks."""
    shape, length, count = (260, 300), 120, 12
    rng = np.random.default_rng(5)
    c = centre(shape)
    scene = spread(rng, count, 40, shape, apart=30)
    t = np.linspace(0, 1, length)
    shifts = 15 * np.stack([np.sin(9 * t), np.sin(7 * t)], 1)
    angles = np.deg2rad(2) * np.sin(11 * t)
    forward = [Transform.from_rotation(a, s, c) for a, s in zip(angles, shifts, strict=True)]
    own = np.cumsum(rng.normal(0, 0.25, (count, length, 2)), 1)
    own[3:] = 0
    where = np.stack([m(scene) for m in forward], 1) + own
    height = np.full((count, length), 1500.0)
    height[3:5] *= np.exp(-3 * t)
    height[5] *= (np.arange(length) // 9) % 2 == 0
    frames = render(where, shape, amplitude=height, sigma=1.8, background=30.0, seed=6)
    result = aligned(frames, ParticleTracking(picks=boxes(where[:, 0], shape, half=7)))
    tracks, motion = result.details["tracks"], result.details["motion"]
    assert set(motion.outliers) == {1, 2, 3}
    assert np.nanmax(np.abs(tracks.position - where) / tracks.position_error) < 6
    assert (tracks.found[5] == (height[5] > 0)).mean() > 0.98
    truth = TransformSeries.from_transforms([m.inverse for m in forward])
    points = corners(shape)
    found = result.transforms.rebased("mean", centre=c)
    error = np.stack(
        [a(b.inverse(points)) - points for a, b in zip(found, truth.rebased("mean", centre=c), strict=True)]
    )
    rms = np.sqrt((error**2).mean())
    print(f"rigid movie: corners {rms:.4f} px rms, {np.abs(error).max():.4f} at most; named: {motion.outliers}")
    assert rms < 0.02
    assert np.sqrt((error**2).mean()) < 1.3 * np.sqrt((motion.corner_error**2).mean())
    proof = hold_out(tracks, shape=shape)
    assert proof.after_rms < 0.05
    assert proof.reduction_percent > 99


@pytest.mark.shared_data
@needs_data
def test_reflection_particles() -> None:
    """Dark particles, brightness falling by 7 %: the table's drift, from suggestions alone."""
    table = np.array([[0, 0], [0.75, 0.11], [3.92, 1.17], [6.12, 3.01], [7.47, 3.67]])
    stack = read_stack(DATA / "reflection_particles")
    for model in ("translation", "euclidean"):
        result = aligned(stack, ParticleTracking(model=model))
        drift = middle_shift(result, stack.frame_shape)
        turn = np.abs(np.rad2deg(result.transforms.angles)).max()
        print(f"reflection_particles, {model}: {np.abs(drift - table)[2:].max():.3f} px off the table, {turn:.3f} deg")
        assert np.abs(drift - table)[2:].max() < 0.15
        # the table is uncertain of frame 2; here all particles agree on it to a tenth of a pixel
        residual = result.details["motion"].residual[:, 1]
        assert np.nanmedian(np.abs(residual)) < 0.1
        assert turn < 0.05
        assert not result.quality.flagged.any()
    proof = hold_out(result.details["tracks"], shape=stack.frame_shape)
    assert proof.after_rms < 0.1 * proof.before_rms


@pytest.mark.shared_data
@needs_data
def test_real_drift_rendered_anew() -> None:
    """Beads along a measured drift curve: within 1.1 of the Cramer-Rao bound of the frames' motion."""
    pixel, shape = 100.0, (345, 345)
    table = read_table(DATA / "bead_traces" / "bead_locs_3.csv").rename(columns=str.strip)
    names = {c.split(" ")[0]: c for c in table.columns}
    place = table[[names["y"], names["x"]]].to_numpy() / pixel
    light, frame = table[names["intensity"]].to_numpy(), table[names["frame"]].to_numpy().astype(int) - 1
    first = place[frame == 0]
    linked = np.full((len(first), 240, 2), np.nan)
    photons = np.zeros(len(first))
    for k, bead in enumerate(first):
        near = np.abs(place - bead).max(1) < 1.5
        linked[k, frame[near]] = place[near]
        photons[k] = light[near].mean()
    drift = -motion_from_tracks(TrackSet.of(linked, error=0.05), "translation").transforms.translations
    scene = np.nanmean(linked - drift, axis=1)
    sigma, background, gain, offset, read_noise = 1.22, 30.0, 2.0, 100.0, 1.5
    where = scene[:, None] + drift[None]
    amplitude = photons / (2 * np.pi * sigma**2)
    mean = render(where, shape, amplitude=amplitude, sigma=sigma, background=background, seed=None)
    rng = np.random.default_rng(0)
    counts = gain * (rng.poisson(mean) + rng.normal(0, read_noise, mean.shape)) + offset
    frames = np.round(counts).astype(np.uint16)
    method = ParticleTracking(
        picks=boxes(where[:, 0], shape, half=5), model="translation", gain=gain, offset=offset, read_noise=read_noise
    )
    result = aligned(frames, method, anchor="mean")
    # information of a frame about its motion when the scene is known
    information = 0.0
    variance = mean[0] + read_noise**2 + 1 / 12 / gain**2
    for axis in (0, 1):
        information += (np.gradient(_fine(where[:, 0], amplitude, sigma, shape), axis=axis) ** 2 / variance).sum() / 2
    bound = 1 / np.sqrt(information)
    error = -result.transforms.translations - (drift - drift.mean(0))
    print(f"bead_traces: {np.sqrt((error**2).mean()) / bound:.3f} x the bound of {bound:.4f} px")
    assert np.sqrt((error**2).mean()) < 1.1 * bound


def _fine(where: np.ndarray, amplitude: np.ndarray, sigma: float, shape: tuple[int, int]) -> np.ndarray:
    return render(where[:, None], shape, amplitude=amplitude, sigma=sigma, background=0.0, seed=None)[0]


@pytest.mark.shared_data
@needs_data
def test_cells_without_particles_are_not_trusted() -> None:
    """pc12: parts of cells that change shape. Near StackReg's result, and the confidence says how little that is."""
    stack = read_stack(DATA / "pc12" / "pc12-unreg.tif")
    result = aligned(stack, ParticleTracking(model="translation", auto=30))
    stackreg = np.array(
        [[0, 0], [8.52, -0.09], [13.66, 0.16], [15.35, 0.75], [12.20, -0.30]]
    )  # of pc12-reg-translation
    measured = result.transforms.valid
    assert np.abs(result.transforms.translations - stackreg)[measured].max() < 1.0
    assert result.quality.flagged[~measured].all()  # too few of the features are found again
    assert result.quality.confidence[1:].max() < 0.5


@pytest.mark.shared_data
@needs_data
def test_stuck_beads_stay() -> None:
    stack = read_stack(DATA / "stuck_beads" / "stuck.tif", axes="tyx")
    result = aligned(stack, ParticleTracking(auto=20, model="translation"))
    assert np.abs(middle_shift(result, stack.frame_shape)).max() < 0.5
