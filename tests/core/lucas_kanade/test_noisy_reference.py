"""One noisy frame as the reference: standard errors hold, and what its noise does to slopes is known."""

from __future__ import annotations

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.frames.noise import NoiseModel
from stackalign.core.generators import moved_points
from stackalign.core.geometry import centre
from stackalign.core.lucas_kanade.fit import fit_motion, fit_motions
from stackalign.core.lucas_kanade.template import MotionTemplate
from stackalign.core.transform import TransformModel
from stackalign.core.translation.template import TranslationTemplate

SIZE = (192, 192)
NOISE = NoiseModel(-100 + 4 + 1 / 12, 1.0, 0.5)  # of the simulated camera: offset 100, 2 photons rms


def movie(scene, photons, seed, **options):
    return sa.simulate(
        scene=scene, shape=SIZE, frames=8, motion="uniform", amplitude=6.0, seed=seed, photons=photons, **options
    )


def template(image, model="translation", noise=NOISE):
    images = TranslationTemplate.of(image.astype(np.float32), noise=noise, frames=1.0)
    return MotionTemplate.of(images, TransformModel(model))


@pytest.mark.parametrize(
    ("scene", "photons", "most"), [("camera", 20, 0.02), ("coins", 5, 0.05), ("hubble_deep_field", 5, 0.02)]
)
def test_response_is_that_to_the_clean_scene(scene, photons, most):
    """On average; one noisy image tells it to ``1 / sqrt(information)``: a faint one is held nearer to 1."""
    apart = []
    for seed in range(6):
        noisy = template(movie(scene, photons, seed).stack.asarray()[0])
        clean = movie(scene, photons, seed, shot_noise=False, read_noise=0.0, dtype="float32").stack.asarray()[0]
        images = TranslationTemplate.of(clean.astype(np.float32), frames=np.inf)
        weight, slopes, true = noisy.images.weight, noisy.images.basis[:2], images.basis[:2]
        expected = (weight * slopes * true).sum((1, 2, 3)) / (weight * slopes**2).sum((1, 2, 3))
        answers = np.diag(noisy.response)
        assert answers == pytest.approx(expected, abs=0.1)
        apart.append(answers - expected)
    assert np.abs(np.mean(apart, axis=0)).max() < most


def test_an_image_without_noise_responds_as_it_is():
    images = TranslationTemplate.of(movie("camera", 20, 1).stack.asarray()[0].astype(np.float32), frames=np.inf)
    assert np.array_equal(MotionTemplate.of(images, TransformModel("affine")).response, np.eye(6))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["translation", "affine"])
@pytest.mark.parametrize(("scene", "photons"), [("camera", 20), ("coins", 5)])
def test_standard_errors_against_one_noisy_frame(scene, photons, model):
    """Fits begun at the truth; frames of a movie share the first one's noise, so that seeds count, not frames."""
    options = {} if model == "translation" else {"model": model, "rotation": 2.0, "stretch": 0.01}
    middle, ratios = centre(SIZE)[None], []
    for seed in range(12):
        sim = movie(scene, photons, seed, **options)
        frames, truth = sim.stack.asarray(), sim.truth.transforms.matrices
        against = template(frames[0], model)
        for frame, true in zip(frames[1:], np.linalg.inv(truth[0]) @ truth[1:], strict=True):
            fit = fit_motion(frame, against, true)
            assert not isinstance(fit, str)
            ratios.append((moved_points(fit.matrix, middle) - moved_points(true, middle))[0] / fit.error)
    assert np.sqrt(np.mean(np.square(ratios))) == pytest.approx(1.0, abs=0.2)


def test_noise_is_read_off_the_first_frame():
    """What the filter left of the reference's noise is taken out of residuals, and no more (it was half of them)."""
    sim = movie("camera", 20, 3)
    result = sa.register(sim.stack.asarray(), sa.LucasKanade(model="translation"), reference="first")
    assert result.details["noise"].slope == pytest.approx(1.0, abs=0.12)


@pytest.mark.parametrize("robust", ["none", "tukey"])
def test_borders_that_the_filter_bends_do_not_pull(robust):
    """The mean over movies of the error at the corners, which all frames of a movie share (was a standard error)."""
    edges, apart = np.array([[0.0, 0.0], [SIZE[0] - 1, 0], [0, SIZE[1] - 1], [SIZE[0] - 1, SIZE[1] - 1]]), []
    for seed in range(30):
        sim = movie("camera", 20, seed, model="affine", rotation=2.0, stretch=0.01)
        frames, truth = np.array([sim.stack[t] for t in range(3)]), sim.truth.transforms.matrices
        against = template(frames[0], "affine")
        true = np.linalg.inv(truth[0]) @ truth[1:3]
        for fit, there in zip(fit_motions(frames[1:3], against, true, robust=robust), true, strict=True):
            assert not isinstance(fit, str)
            apart.append((moved_points(fit.matrix, edges) - moved_points(there, edges)) / fit.corner_error)
    assert np.abs(np.mean(apart, axis=0)).max() < 0.4


def test_noise_of_the_reference_does_not_hold_the_gain_down():
    """It correlates with the filtered values, but not with a frame; gain, and the motion with it, was too small."""
    gains = []
    for seed in range(4):
        sim = movie("coins", 5, seed)
        against, true = template(sim.stack[0]), sim.truth.transforms.matrices
        for fit in fit_motions([sim.stack[1], sim.stack[2]], against, np.linalg.inv(true[0]) @ true[1:3]):
            assert not isinstance(fit, str)
            gains.append(fit.gain)
    assert np.mean(gains) == pytest.approx(1.0, abs=0.02)
