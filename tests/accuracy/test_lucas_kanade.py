"""Gradient alignment against the truth: the Cramer-Rao bound of each model, honest errors, bad frames flagged."""

from __future__ import annotations

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.generators import generators, velocities
from stackalign.core.geometry import centre, corners
from stackalign.core.transform import TransformModel


def corner_bound(truth, t):
    """Return the least rms distance of the corners of frame ``t`` from where they belong, brightness known, pixels.

    From the noise-free gradients of the simulated frame: ``sum S S^T / variance`` over its pixels, S the change of a
    pixel along each motion of the model.
    """
    record = truth.simulation
    shape, photons = record.shape, np.asarray(truth.photons(t), float)
    middle = centre(shape)
    group = generators(record.model, middle, float(np.linalg.norm(middle)))
    slopes = np.stack(np.gradient(photons), -1).reshape(-1, len(shape))
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, len(shape))
    changes = np.einsum("ni,nik->nk", slopes, velocities(group, points.astype(float)))
    variance = photons.ravel() + record.read_noise**2 + 1 / 12
    covariance = np.linalg.inv(changes.T @ (changes / variance[:, None]))
    swing = velocities(group, corners(shape))
    return float(np.sqrt(np.einsum("cik,kl,cil->c", swing, covariance, swing).mean()))


def movie(model, *, scene="hubble_deep_field", photons=100, frames=24, shape=(160, 200), **more):
    options = {"motion": "uniform", "amplitude": 10, "rotation": 3, "seed": 4} | more
    stack, truth = sa.simulate(scene=scene, shape=shape, frames=frames, model=model, photons=photons, **options)
    return sa.ImageStack(np.stack([stack[t] for t in range(frames)])), truth


@pytest.mark.parametrize("model", list(TransformModel))
def test_every_model_is_found_near_its_cramer_rao_bound(model):
    stack, truth = movie(model)
    result = sa.register(stack, sa.LucasKanade(model=model))
    assert not result.quality.flagged.any()
    assert result.transforms.model is model
    found = float(np.sqrt((truth.error(result.transforms) ** 2).mean()))
    least = float(np.sqrt(np.mean([corner_bound(truth, t) ** 2 for t in range(0, len(stack), 4)])))
    assert found < 1.5 * least, f"{found:.5f} px at the corners, bound {least:.5f} px"


def test_few_photons_are_used_as_well():
    stack, truth = movie("euclidean", photons=5)
    result = sa.register(stack, sa.LucasKanade())
    found = float(np.sqrt((truth.error(result.transforms) ** 2).mean()))
    least = float(np.sqrt(np.mean([corner_bound(truth, t) ** 2 for t in range(0, len(stack), 4)])))
    assert found < 1.5 * least, f"{found:.5f} px at the corners, bound {least:.5f} px"


@pytest.mark.parametrize("photons", [100, 10])
def test_errors_are_told_truly(photons):
    stack, truth = movie("euclidean", frames=60, shape=(128, 144), photons=photons)
    result = sa.register(stack, sa.LucasKanade(), reference=truth.clean(0))
    middle = centre(stack.frame_shape)
    gap = np.array([a(middle) - b(middle) for a, b in zip(result.transforms, truth.transforms, strict=True)])
    pulls = gap / result.quality.error
    assert 0.8 < np.sqrt((pulls**2).mean()) < 1.25
    assert 0.58 < (np.abs(pulls) < 1).mean() < 0.78


@pytest.mark.parametrize("reference", ["mean", "median", "first", "previous", "rolling", "all-pairs"])
@pytest.mark.parametrize("model", ["euclidean", "projective"])
def test_every_reference(model, reference):
    stack, truth = movie(model, frames=10, shape=(128, 144), amplitude=4)
    result = sa.register(stack, sa.LucasKanade(model=model), reference=reference)
    assert not result.quality.flagged.any()
    limit = 8 if reference == "previous" else 3.5  # a chain adds up the errors of its steps
    least = float(np.mean([corner_bound(truth, t) for t in (0, 5)]))
    assert np.sqrt((truth.error(result.transforms) ** 2).mean()) < limit * least


def test_volumes_turn_and_shear():
    for model in ("euclidean", "affine"):
        stack, truth = sa.simulate(
            scene="beads", spots=60, shape=(16, 48, 64), frames=4, model=model, motion="uniform", amplitude=2,
            rotation=3, photons=50, seed=2,
        )  # fmt: skip
        result = sa.register(stack, sa.LucasKanade(model=model))
        assert not result.quality.flagged.any()
        assert np.sqrt((truth.error(result.transforms) ** 2).mean()) < 0.06


def test_brightness_may_fall_by_a_third():
    stack, truth = movie("euclidean", bleaching=0.3)
    result = sa.register(stack, sa.LucasKanade())
    least = float(np.sqrt(np.mean([corner_bound(truth, t) ** 2 for t in range(0, len(stack), 4)])))
    assert not result.quality.flagged.any()
    assert np.sqrt((truth.error(result.transforms) ** 2).mean()) < 1.5 * least


def test_wrong_frames_are_flagged_and_good_ones_are_not():
    stack, truth = movie("euclidean", frames=60, shape=(128, 144), amplitude=30)
    frames = np.stack([stack[t] for t in range(len(stack))])
    rng = np.random.default_rng(0)
    alien, _ = sa.simulate(scene="cells", shape=(128, 144), frames=60, photons=100, seed=9)
    bad = {}
    for t in range(5, 60, 5):
        kind = bad[t] = ("blank", "noise", "alien", "saturated")[t // 5 % 4]
        if kind == "blank":
            frames[t] = 100
        elif kind == "noise":
            frames[t] = 100 + rng.poisson(100, frames[t].shape)
        elif kind == "alien":
            frames[t] = alien[t]
        else:
            frames[t] = 65535
    result = sa.register(frames, sa.LucasKanade())
    flagged = set(np.flatnonzero(result.quality.flagged).tolist())
    assert set(bad) <= flagged, {t: bad[t] for t in set(bad) - flagged}
    error = truth.error(result.transforms)
    good = [t for t in range(60) if t not in flagged]
    assert error[good].max() < 0.1
    assert len(flagged - set(bad)) <= 1
