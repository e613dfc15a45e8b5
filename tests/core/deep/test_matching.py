"""Homographies from features: made-up features that are alike in both images, noisy ones, and none in common."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from stackalign.core.deep.matching import FeatureMaps, match_features
from stackalign.core.deep.pairs import corners_of
from stackalign.core.multimodal.corners import corner_distance
from stackalign.core.transform_fit import fit_matrix
from stackalign.core.warping.resample import warp_frame


def binned(maps, step):
    c, h, w = maps.shape
    return maps.reshape(c, h // step, step, w // step, step).mean((2, 4))


def unit(maps):
    return (maps / np.linalg.norm(maps, axis=0)).astype(np.float32)


def described(coarse, fine):
    return FeatureMaps(unit(binned(coarse, 4)), unit(binned(fine, 2)), coarse.shape[1:], (12.0, 8.0))


@pytest.fixture(scope="module")
def fields():
    rng = np.random.default_rng(0)
    coarse = np.stack([gaussian_filter(rng.normal(size=(192, 192)), 6) for _ in range(24)]).astype(np.float32)
    fine = np.stack([gaussian_filter(rng.normal(size=(192, 192)), 2.5) for _ in range(12)]).astype(np.float32)
    return coarse, fine


def pair(fields, seed, noise=0.0):
    rng = np.random.default_rng(seed)
    true = fit_matrix(corners_of((128, 128)), corners_of((128, 128)) + 32 + rng.uniform(-32, 32, (4, 2)), "projective")
    back = np.linalg.inv(true)
    seen = [
        np.stack([warp_frame(m, back, order=1, fill="edge", output_shape=(128, 128)) for m in maps]) for maps in fields
    ]
    if noise:
        seen = [m + noise * m.std() * rng.normal(size=m.shape).astype(np.float32) for m in seen]
    return described(*fields), described(*seen), true


@pytest.mark.parametrize("seed", range(4))
def test_a_homography_is_found_over_the_whole_range(fields, seed):
    reference, moving, true = pair(fields, seed)
    found = match_features(reference, moving)
    assert corner_distance(found.matrix, true, (128, 128)) < 0.1
    assert found.agreement > 0.95
    assert found.rival < 0.5
    assert found.spread < 0.1


def test_noise_costs_little_and_is_told(fields):
    reference, moving, true = pair(fields, 7, noise=1.5)
    found = match_features(reference, moving)
    assert corner_distance(found.matrix, true, (128, 128)) < 1.0
    clean = match_features(*pair(fields, 7)[:2])
    assert clean.spread < found.spread < 1.0


def test_features_that_have_nothing_in_common_do_not_agree(fields):
    reference, _, _ = pair(fields, 1)
    rng = np.random.default_rng(9)
    other = [
        np.stack([gaussian_filter(rng.normal(size=(128, 128)), s) for _ in range(n)]).astype(np.float32)
        for s, n in ((6, 24), (2.5, 12))
    ]
    found = match_features(reference, described(*other))
    assert found.agreement < 0.5
    assert found.coarse < 3.0
    assert np.isfinite(found.matrix).all()


def test_the_same_seed_finds_the_same(fields):
    reference, moving, _ = pair(fields, 2, noise=1.0)
    first, second = match_features(reference, moving, seed=4), match_features(reference, moving, seed=4)
    np.testing.assert_array_equal(first.matrix, second.matrix)


def test_flat_features_lead_nowhere_but_to_no_error():
    flat = FeatureMaps(
        np.full((8, 24, 24), 0.1, np.float32), np.full((8, 48, 48), 0.1, np.float32), (96, 96), (10.0, 8.0)
    )
    found = match_features(flat, flat)
    assert np.isfinite(found.matrix).all()
