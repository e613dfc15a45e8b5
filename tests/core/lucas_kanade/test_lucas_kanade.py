"""Gradient alignment: motions and their generators, fits with holes and masks, anisotropic volumes, pairs of images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

import stackalign as sa
from stackalign.core.frames.noise import NoiseModel
from stackalign.core.generators import exponential, fitted, generators, moved_points, nearest, velocities
from stackalign.core.geometry import centre, corners
from stackalign.core.lucas_kanade.fit import fit_motion
from stackalign.core.lucas_kanade.template import MotionTemplate
from stackalign.core.transform import Transform, TransformModel
from stackalign.core.translation.template import TranslationTemplate

MODELS = list(TransformModel)


def scene(shape, seed=0, sigma=2.0):
    image = gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return (1000 * image / image.std() + 5000).astype(np.float32)


def distance(matrix, true, shape):
    points = corners(shape)
    return float(np.abs(moved_points(matrix, points) - moved_points(true, points)).max())


def template(image, model="euclidean", **options):
    spacing = options.pop("spacing", None)
    images = TranslationTemplate.of(image, frames=np.inf, **options)
    return MotionTemplate.of(images, TransformModel(model), spacing)


# generators


@given(
    model=st.sampled_from(MODELS),
    step=st.lists(st.floats(-20, 20), min_size=8, max_size=8),
)
def test_steps_stay_within_their_model(model, step):
    shape = (60, 90)
    group = generators(model, centre(shape), float(np.linalg.norm(centre(shape))))
    assert len(group) == model.parameters(2)
    motion = exponential(group, np.array(step[: len(group)]))
    assert np.abs(nearest(motion, model, shape) - motion).max() < 1e-5
    back = exponential(group, -np.array(step[: len(group)]))
    assert distance(motion @ back, np.eye(3), shape) < 1e-8


@pytest.mark.parametrize("model", MODELS)
def test_velocities_are_the_derivative_of_the_motion(model):
    shape = (60, 90)
    group = generators(model, centre(shape), 50.0)
    points = corners(shape)
    moves = velocities(group, points)
    for k in range(len(group)):
        step = np.zeros(len(group))
        step[k] = 1e-5
        ahead, behind = (moved_points(exponential(group, s * step), points) for s in (1, -1))
        assert np.abs((ahead - behind) / 2e-5 - moves[:, :, k]).max() < 1e-6


def test_volumes_turn_rigidly_in_physical_units():
    size = np.array([3.0, 1.0, 0.5])
    group = generators(TransformModel.EUCLIDEAN, centre((10, 40, 60)), 30.0, size)
    motion = exponential(group, np.array([0.5, 1.0, -2.0, 3.0, 1.0, 2.0]))
    linear = motion[:3, :3] * size[:, None] / size[None, :]
    assert np.abs(linear @ linear.T - np.eye(3)).max() < 1e-10
    points = np.random.default_rng(0).uniform(0, 40, (20, 3))
    again = fitted(points, moved_points(motion, points), TransformModel.EUCLIDEAN, size)
    assert np.abs(again - motion).max() < 1e-9


def test_homographies_of_volumes_are_refused():
    with pytest.raises(ValueError, match="projective"):
        sa.LucasKanade(model="projective").aligner((8, 32, 32))


# fits


@pytest.mark.parametrize("model", MODELS)
def test_a_known_motion_is_found_without_noise(model):
    shape = (90, 120)
    big = scene((130, 160))
    group = generators(model, centre(shape), float(np.linalg.norm(centre(shape))))
    true = exponential(group, np.array([1.5, -2.0, 1.0, 0.8, -0.7, 1.1, 0.6, -0.9])[: len(group)])
    inner = Transform.from_translation((20, 20)).matrix
    frame = sa.warp_frame(big, np.linalg.inv(true) @ np.linalg.inv(inner), order=5, output_shape=shape)
    fit = fit_motion(0.6 * frame + 300, template(big[20:110, 20:140], model), np.eye(3))
    assert not isinstance(fit, str), fit
    assert fit.converged
    assert distance(fit.matrix, true, shape) < 0.01
    assert fit.gain == pytest.approx(0.6, rel=2e-3)
    assert fit.correlation > 0.999


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_holes_in_frames_do_not_count(share):
    image = scene((80, 100))
    frame = image.copy()
    frame[:20] = np.nan if share > 0.1 else frame[:20]
    frame[np.random.default_rng(0).random(frame.shape) < 0.02] = np.nan
    start = Transform.from_rotation(0.01, (0.4, -0.6), centre(image.shape)).matrix
    fit = fit_motion(frame, template(image), start)
    assert not isinstance(fit, str), fit
    assert distance(fit.matrix, np.eye(3), image.shape) < 0.01
    assert fit_motion(np.full((80, 100), np.nan), template(image), np.eye(3)) == "all its pixels are NaN"


def test_a_mask_leaves_out_what_moves_otherwise():
    image = scene((80, 120))
    frame = image.copy()
    frame[:, :50] = scene((80, 50), seed=1)
    mask = np.ones(image.shape, bool)
    mask[:, :56] = False
    fit = fit_motion(frame, template(image, mask=mask), Transform.from_translation((0.5, 0.5)).matrix)
    assert not isinstance(fit, str), fit
    assert distance(fit.matrix, np.eye(3), image.shape) < 0.01


@pytest.mark.parametrize("robust", ["huber", "tukey"])
def test_outliers_lose_their_weight(robust):
    image = scene((80, 120))
    rng = np.random.default_rng(0)
    frame = image + rng.normal(0, 30, image.shape)
    frame[20:45, 30:70] += 4000 * gaussian_filter(rng.normal(size=(25, 40)), 2)
    prepared = template(image, noise=NoiseModel(900.0))
    start = Transform.from_translation((0.3, -0.4)).matrix
    plain, fit = (fit_motion(frame, prepared, start, robust=kind) for kind in ("none", robust))
    assert not isinstance(plain, str)
    assert not isinstance(fit, str)
    gap = distance(fit.matrix, np.eye(3), image.shape)
    assert gap < 0.05
    assert gap < 0.5 * distance(plain.matrix, np.eye(3), image.shape)
    assert fit.outliers > 0.02


def test_what_cannot_be_fixed_is_said():
    y = np.arange(64, dtype=np.float32)
    stripes = np.broadcast_to(100 * np.sin(y / 3)[:, None], (64, 64)).astype(np.float32)
    fit = fit_motion(stripes, template(stripes, "affine"), np.eye(3))
    assert isinstance(fit, str)
    assert "does not fix" in fit
    image = scene((64, 64))
    away = Transform.from_translation((200, 0)).matrix
    assert fit_motion(image, template(image), away) == "it shares no region with the reference"
    assert fit_motion(-image, template(image), np.eye(3)) == "it does not correlate with the reference"


def test_volumes_with_coarse_planes():
    size = (3.0, 1.0, 1.0)
    volume = gaussian_filter(np.random.default_rng(0).normal(size=(24, 60, 70)), (1.2, 2.5, 2.5)).astype(np.float32)
    volume = 1000 * volume / volume.std()
    group = generators(TransformModel.EUCLIDEAN, centre(volume.shape), 40.0, size)
    true = exponential(group, np.array([0.3, 1.2, -0.8, 0.5, -0.4, 1.0]))
    frame = sa.warp_frame(volume, np.linalg.inv(true), order=5, fill="nan")
    fit = fit_motion(frame, template(volume, "euclidean", spacing=size), np.eye(4))
    assert not isinstance(fit, str), fit
    assert distance(fit.matrix, true, volume.shape) < 0.05


# pairs


def test_pairs_of_different_sizes_and_channels():
    image = scene((100, 130))
    colour = np.stack([image, 0.5 * image + 10, np.zeros_like(image)], -1)
    pair = sa.register_pair(colour[12:90, 7:120], image, sa.LucasKanade())
    assert not pair.refused
    assert pair.reason == ""
    assert np.abs(pair.transform.translation - (12, 7)).max() < 0.02
    assert pair.probability > 0.9
    shift = sa.register_pair(image[5:], image, sa.CrossCorrelation())
    assert np.abs(shift.transform.translation - (5, 0)).max() < 0.02


def test_pairs_upside_down_and_at_another_scale():
    image = scene((120, 150))
    true = Transform.from_rotation(np.pi, (4, -3), centre(image.shape)).matrix @ np.diag([1.2, 1.2, 1])
    moving = sa.warp_frame(image, np.linalg.inv(true), fill="nan")
    method = sa.LucasKanade(model="similarity", max_rotation=180, max_scale=1.3)
    pair = sa.register_pair(moving, image, method)
    assert not pair.refused, pair.reason
    assert distance(pair.transform.matrix, true, image.shape) < 0.1
    rough = sa.Transform(true @ Transform.from_translation((0.3, 0.2)).matrix, "similarity")
    begun = sa.register_pair(moving, image, method, initial=rough)
    assert distance(begun.transform.matrix, pair.transform.matrix, image.shape) < 0.05


def test_pairs_with_nothing_in_common_are_refused():
    image = scene((80, 90))
    for other in (scene((80, 90), seed=7), np.random.default_rng(0).normal(size=(60, 100)), np.full((50, 50), 3.0)):
        pair = sa.register_pair(other, image)
        assert pair.refused
        assert pair.reason
        assert pair.probability == 0
        assert np.array_equal(pair.transform.matrix, np.eye(3))


@pytest.mark.parametrize(
    ("moving", "options", "words"),
    [
        (np.zeros((5, 5)), {}, "at least 8"),
        (np.zeros((20, 20, 9)), {}, "at most 4 channels"),
        (np.full((20, 20), "a"), {}, "real numbers"),
        (np.zeros((20, 20)), {"mask": np.ones((3, 3), bool)}, "must be alike"),
        (np.zeros((20, 20)), {"initial": np.eye(4)}, "initial transform"),
    ],
)
def test_misuse_of_pairs_is_named(moving, options, words):
    with pytest.raises(ValueError, match=words):
        sa.register_pair(moving, scene((40, 40)), **options)


def test_a_fit_to_almost_nothing_is_compared_once_more():
    """At a thirtieth of the brightness noise allows no better correlation, and the frame would be believed."""
    image = scene((96, 96))
    aligner = sa.LucasKanade().aligner((96, 96))
    reference = aligner.prepare(image, None, noise=NoiseModel(2500.0, 0.0), frames=20.0)
    fit = replace(fit_motion(image, reference.full, np.eye(3)), gain=0.03, correlation=0.17, expected=0.17)
    believed = aligner._judged(fit, 0.03 * (image - 5000) + 5000, reference, "")
    assert not believed.reason
    doubted = aligner._judged(fit, scene((96, 96), seed=1), reference, "")
    assert "little of the reference" in doubted.reason
