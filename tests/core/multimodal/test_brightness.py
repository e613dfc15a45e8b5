"""Brightness as a feature: found in noise where edges and self-similarity drown, whatever its sign."""

import numpy as np
import pytest
from skimage import data

import stackalign as sa
from stackalign.core.multimodal.brightness import COEFFICIENTS, describe_brightness, match_brightness, noisier
from stackalign.core.multimodal.corners import corner_distance, matrices_of
from stackalign.core.multimodal.judge import judge
from stackalign.core.multimodal.matching import _Ranges
from stackalign.core.multimodal.places import improved
from stackalign.core.multimodal.views import ImageViews

TRUTH = np.array([[1.0, 0, 22], [0, 1, 17], [0, 0, 1]]) @ matrices_of(
    np.array([[3.0, -4], [-5, 2], [4, 4], [2, -3]]), (72, 72)
)


@pytest.fixture(scope="module")
def noisy_pair():
    """A photograph, and the negative of a part of it with more noise than contrast."""
    fixed = np.ascontiguousarray(data.camera()[60:400:3, 120:460:3], np.float32)
    seen = sa.warp_frame(fixed, np.linalg.inv(TRUTH), order=3, output_shape=(72, 72))
    noise = np.random.default_rng(3).normal(0, 1.7 * seen.std(), seen.shape)
    return fixed, np.float32(-seen + noise)


def test_the_negative_has_negative_features_and_holes_weigh_nothing():
    image = np.float32(data.camera()[::6, ::6])
    shown = describe_brightness(image)
    np.testing.assert_allclose(describe_brightness(-image).values, -shown.values, atol=1e-4)
    np.testing.assert_allclose((shown.values**2).mean((0, 1)), 1, rtol=1e-3)
    image[20:40, 30:50] = np.nan
    weight = describe_brightness(image).weight
    assert (weight[20:40, 30:50] == 0).all()
    assert (weight[:10] == 1).all()
    assert 0 < weight[16, 40] < 1
    assert describe_brightness(np.full((20, 20), np.nan, np.float32)).known == 0


def test_the_noisier_of_two_images_is_told(noisy_pair):
    fixed, moving = noisy_pair
    assert noisier(fixed, moving) == "moving"
    assert noisier(100 * moving, fixed) == "fixed"
    assert noisier(np.zeros((9, 9), np.float32), fixed) == "moving"


def test_a_negative_in_noise_is_found_and_believed(noisy_pair):
    fixed, moving = noisy_pair
    found = match_brightness(ImageViews(fixed, moving), angles=[0.0], scales=[1.0])
    assert corner_distance(found.matrix, TRUTH, moving.shape) < 0.6
    assert not judge(found.evidence, coefficients=COEFFICIENTS).refused


def test_a_pair_that_drowns_edges_is_registered_all_the_same(noisy_pair):
    fixed, moving = noisy_pair
    pair = sa.register_pair(moving, fixed, sa.Multimodal(max_rotation=5, max_scale=1.1))
    assert not pair.refused, pair.reason
    assert corner_distance(pair.transform.matrix, TRUTH, moving.shape) < 0.6


def test_noise_alone_is_refused(noisy_pair):
    fixed, moving = noisy_pair
    other = np.random.default_rng(5).normal(0, 1, moving.shape).astype(np.float32)
    found = match_brightness(ImageViews(fixed, other), angles=[0.0], scales=[1.0])
    assert found is None or judge(found.evidence, coefficients=COEFFICIENTS).refused


def test_either_image_may_hold_the_noise(noisy_pair):
    fixed, moving = noisy_pair
    views = ImageViews(fixed, -moving, features=describe_brightness)
    here = improved(views, TRUTH, 0, noisy="moving")
    there = improved(views.swapped(), np.linalg.inv(TRUTH), 0, noisy="fixed")
    assert corner_distance(np.linalg.inv(there.matrix), here.matrix, moving.shape) < 1e-6
    assert there.fit.score == pytest.approx(here.fit.score)
    assert here.fit.overlap == pytest.approx(1, abs=0.02)


def test_a_motion_beyond_the_horizon_is_in_no_range():
    ranges = _Ranges.of([0.0], [1.0], (), (72, 72))
    assert ranges.hold(np.eye(3))
    assert not ranges.hold(np.array([[1.0, 0, 0], [0, 1, 0], [-0.1, -0.1, 1]]))
