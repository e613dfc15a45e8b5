"""The weighted least-squares fit of a shift."""

import numpy as np
import pytest

from stackalign.core.frames.noise import NoiseModel
from stackalign.core.translation.fit import Fit, fit_translation, intensity_residuals
from stackalign.core.translation.template import TranslationTemplate
from tests.contract.cases import moved, scene

SHIFTS_2D = [(0, 0), (0.5, -0.5), (1.3, -2.7), (-0.01, 0.002)]


def template(image, **options):
    return TranslationTemplate.of(np.asarray(image, np.float32), options.pop("mask", None), **options)


def two(drift, shape=(60, 76), seed=0):
    frames = 1000 * moved(scene(shape, seed), np.array([np.zeros(len(shape)), drift])) + 100
    return frames.astype(np.float32)


@pytest.mark.parametrize("drift", SHIFTS_2D)
def test_a_clean_shift_is_found(drift):
    reference, frame = two(drift)
    fit = fit_translation(frame, template(reference, frames=np.inf), np.zeros(2))
    assert isinstance(fit, Fit)
    assert fit.converged
    assert np.abs(fit.shift + drift).max() < 2e-3
    assert fit.gain == pytest.approx(1, abs=2e-3)
    assert fit.correlation > 0.9999


@pytest.mark.parametrize("drift", [(0.4, -0.8, 1.2), (-1.1, 0.3, -0.6)])
def test_volumes(drift):
    reference, frame = two(drift, (14, 36, 40), 3)
    fit = fit_translation(frame, template(reference, frames=np.inf), np.zeros(3))
    assert np.abs(fit.shift + drift).max() < 1e-2  # a volume has much border


def test_gain_and_offset_are_told_apart_from_motion():
    reference, frame = two((0.7, -0.4))
    fit = fit_translation(0.35 * frame + 240, template(reference, frames=np.inf), np.zeros(2))
    assert np.abs(fit.shift + np.array((0.7, -0.4))).max() < 2e-3
    assert fit.gain == pytest.approx(0.35, rel=2e-3)
    assert fit.offset == pytest.approx(240, abs=2)


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_holes_do_not_bias_it(share):
    reference, frame = two((0.6, 1.3))
    holed = frame.copy()
    holed[np.random.default_rng(1).random(frame.shape) < share] = np.nan
    fit = fit_translation(holed, template(reference, frames=np.inf), np.zeros(2))
    assert np.abs(fit.shift + np.array((0.6, 1.3))).max() < 5e-3


def test_unknown_pixels_of_the_reference_do_not_count():
    reference, frame = two((0.6, 1.3))
    reference[:, :20] = np.nan
    frame[:, :18] = 1e4
    fit = fit_translation(frame, template(reference, frames=np.inf), np.zeros(2))
    assert np.abs(fit.shift + np.array((0.6, 1.3))).max() < 5e-3


def test_the_mask_of_the_reference_counts():
    reference, frame = two((0.6, 1.3))
    frame[:, 40:] = two((0, 0), seed=9)[0][:, 40:]
    mask = np.zeros(reference.shape, bool)
    mask[:, :34] = True
    fit = fit_translation(frame, template(reference, mask=mask, frames=np.inf), np.zeros(2))
    assert np.abs(fit.shift + np.array((0.6, 1.3))).max() < 5e-3


def test_the_error_is_that_of_repeated_measurements():
    reference, clean = two((0.3, -0.2), (40, 48))
    rng = np.random.default_rng(2)
    noise = NoiseModel(25.0, 1.0)
    prepared = template(reference, noise=noise, frames=np.inf)
    fits = [
        fit_translation(clean + rng.normal(0, np.sqrt(25 + clean)).astype(np.float32), prepared, np.zeros(2))
        for _ in range(150)
    ]
    scatter = np.std([f.shift for f in fits], axis=0)
    told = np.mean([f.error for f in fits], axis=0)
    assert np.abs(scatter / told - 1).max() < 0.25
    assert np.mean([f.chi2 for f in fits]) == pytest.approx(1, abs=0.1)
    assert np.abs(scatter / prepared.sensitivity() - 1).max() < 0.25


def test_what_cannot_be_fitted_is_said_in_words():
    reference, frame = two((0, 0))
    prepared = template(reference, frames=np.inf)
    assert fit_translation(frame, prepared, np.array([500.0, 0])) == "it shares no region with the reference"
    assert fit_translation(-frame, prepared, np.zeros(2)) == "it does not correlate with the reference"
    blind = np.full_like(frame, np.nan)
    blind[:2, :2] = 1
    assert isinstance(fit_translation(blind, prepared, np.zeros(2)), str)


def test_a_reference_that_cannot_serve_is_refused():
    with pytest.raises(ValueError, match="no contrast"):
        template(np.full((20, 20), 5.0))
    with pytest.raises(ValueError, match="no pixel of the reference is left"):
        template(np.random.default_rng(0).random((20, 20)), mask=np.zeros((20, 20), bool))
    with pytest.raises(ValueError, match="no pixel of the reference is left"):
        template(np.full((20, 20), np.nan))


@pytest.mark.parametrize("planes", [1, 2])
def test_axes_of_one_or_two_planes_tell_no_fraction_of_a_plane(planes):
    flat = two((0.7, -1.2))
    reference, frame = (np.repeat(f[None], planes, axis=0) for f in flat)
    prepared = template(reference, frames=np.inf)
    assert prepared.blind.tolist() == [True, False, False]
    fit = fit_translation(frame, prepared, np.array([0.3, 0, 0]))
    assert fit.shift[0] == 0
    assert np.isnan(fit.error[0])
    assert np.abs(fit.shift[1:] + np.array((0.7, -1.2))).max() < 3e-3
    holed = frame.copy()
    holed[:, :15] = np.nan
    fit = fit_translation(holed, prepared, np.zeros(3))
    assert fit.shift[0] == 0
    assert np.abs(fit.shift[1:] + np.array((0.7, -1.2))).max() < 5e-3


def test_residuals_show_the_noise_of_the_camera():
    reference, clean = two((0.3, -0.2), (100, 120))
    rng = np.random.default_rng(3)
    frame = 0.5 * (clean + rng.normal(0, np.sqrt(clean)).astype(np.float32)) + 30
    pairs = intensity_residuals(frame, template(reference, frames=np.inf), np.array([-0.3, 0.2]), 0.5, 30.0)
    model = NoiseModel.fitted(pairs[:, 0], pairs[:, 1])
    assert model.variance(np.array([300.0, 800.0])) == pytest.approx([300, 800], rel=0.2)


@pytest.mark.parametrize("photons", [20, 30])
def test_the_noise_of_a_reference_does_not_rule_the_weights(photons):
    """A dark pixel of one noisy frame looks free of noise: it must not count ten times as much as its neighbours."""
    drift = np.random.default_rng(3).uniform(-2, 2, (24, 2))
    drift[0] = 0
    mean = np.clip(moved(scene((72, 88)), drift), 0, None) * photons
    frames = np.random.default_rng(0).poisson(mean).astype(np.float32)
    slopes = [np.gradient(mean[0], axis=a) for a in (0, 1)]
    information = [[np.sum(a * b / np.maximum(mean[0], 0.1)) for a in slopes] for b in slopes]
    least = np.sqrt(np.mean(np.diag(np.linalg.inv(information))))
    prepared = template(frames[0], noise=NoiseModel(0.0, 1.0, 0.02))
    gap = np.array([fit_translation(f, prepared, -d).shift + d for f, d in zip(frames[1:], drift[1:], strict=True)])
    assert np.sqrt(((gap - gap.mean(0)) ** 2).mean()) < 1.6 * least


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_tall_frames_begin_with_a_quarter_of_their_rows(dtype):
    reference, frame = two((1.7, -2.4), (280, 140))
    prepared = template(reference, frames=np.inf)
    assert prepared.filters
    assert prepared.equations.every == 4
    fit = fit_translation(frame.clip(0).astype(dtype), prepared, np.zeros(2))
    assert fit.converged
    assert np.abs(fit.shift + np.array((1.7, -2.4))).max() < 2e-3
    assert np.abs(fit.answer - np.eye(2)).max() < 0.02


def test_noise_that_is_left_in_a_reference_is_told_by_the_frames():
    """A reference that is taken to be clean has slopes too steep: steps are short, and the error says so."""
    rng = np.random.default_rng(5)
    reference, clean = two((0.3, -0.2), (140, 150))
    noise = NoiseModel(10_000.0)
    noisy = reference + rng.normal(0, 20, reference.shape).astype(np.float32)
    prepared = template(noisy, noise=noise, frames=np.inf)
    fits = [
        fit_translation(clean + rng.normal(0, 100, clean.shape).astype(np.float32), prepared, np.zeros(2))
        for _ in range(60)
    ]
    assert np.mean([np.diag(f.answer) for f in fits]) < 0.85
    scatter, told = np.std([f.shift for f in fits], axis=0), np.mean([f.error for f in fits], axis=0)
    assert np.abs(scatter / told - 1).max() < 0.25
