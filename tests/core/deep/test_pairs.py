"""Pairs made of single images: their truth, their seeds, their renderings."""

import numpy as np
import pytest
from skimage import data

from stackalign.core.deep import renderings
from stackalign.core.deep.pairs import FixedPairs, SyntheticPairs, corner_error, corners_of, turned
from stackalign.core.warping.resample import valid_mask, warp_frame

IMAGES = [data.astronaut(), data.coffee()]


def test_the_truth_lays_one_image_on_the_other():
    recipe = SyntheticPairs(strength=0, seed=5)
    for k in range(4):
        pair = recipe.pair(IMAGES, k)
        assert pair.reference.shape == (192, 192)
        assert pair.moving.shape == (128, 128)
        shown = warp_frame(pair.moving, pair.matrix, order=1, output_shape=(192, 192))
        inside = valid_mask(pair.moving.shape, pair.matrix, output_shape=(192, 192))
        assert np.corrcoef(shown[inside], pair.reference[inside])[0, 1] > 0.98


def test_a_pair_that_is_turned_or_mirrored_keeps_its_truth():
    recipe = SyntheticPairs(size=96, template=64, reach=16, strength=0, structure=0.5, seed=5)
    pair = recipe.pair(IMAGES, 1)
    seen = []
    for number in range(8):
        other = turned(pair, number)
        shown = warp_frame(np.ascontiguousarray(other.moving), other.matrix, order=1, output_shape=(96, 96))
        inside = valid_mask((64, 64), other.matrix, output_shape=(96, 96))
        assert np.corrcoef(shown[inside], other.reference[inside])[0, 1] > 0.98
        assert corner_error(other.nothing, other.corners) == pytest.approx(corner_error(pair.nothing, pair.corners))
        seen.append(other.reference.tobytes())
    assert len(set(seen)) == 8
    assert turned(pair, 0).corners.tolist() == pair.corners.tolist()


def test_every_corner_stays_in_its_square_and_doing_nothing_scores_as_published():
    recipe = SyntheticPairs(strength=0, seed=2)
    apart = np.array([recipe.pair(IMAGES, k).corners for k in range(40)]) - recipe.pair(IMAGES, 0).nothing
    assert np.abs(apart).max() <= 32
    assert np.abs(apart).max() > 28
    many = np.random.default_rng(0).uniform(-32, 32, (20000, 4, 2))
    floor = np.linalg.norm(many, axis=-1).mean(-1)
    assert floor.mean() == pytest.approx(24.5, abs=0.1)
    assert floor.std() == pytest.approx(4.6, abs=0.1)
    measured = [corner_error(recipe.pair(IMAGES, k).nothing, recipe.pair(IMAGES, k).corners) for k in range(40)]
    assert np.mean(measured) == pytest.approx(24.5, abs=3)


def test_a_seed_and_a_number_name_a_pair():
    recipe = SyntheticPairs(seed=7)
    first, again = recipe.pair(IMAGES, 3), recipe.pair(IMAGES, 3)
    np.testing.assert_array_equal(first.reference, again.reference)
    np.testing.assert_array_equal(first.moving, again.moving)
    other = SyntheticPairs(seed=8).pair(IMAGES, 3)
    assert not np.array_equal(first.corners, other.corners)
    pairs = FixedPairs(recipe, IMAGES, 5)
    np.testing.assert_array_equal(pairs[3].moving, first.moving)
    assert len(pairs) == 5
    with pytest.raises(IndexError, match="number 5"):
        pairs[5]
    endless = recipe.pairs(IMAGES, 3)
    np.testing.assert_array_equal(next(endless).moving, first.moving)


def test_the_two_images_are_rendered_differently_yet_keep_their_structure():
    recipe = SyntheticPairs(seed=11)
    plain, edged = [], []
    for k in range(12):
        pair = recipe.pair(IMAGES, k)
        shown = warp_frame(pair.reference, np.linalg.inv(pair.matrix), order=1, output_shape=pair.moving.shape)
        plain.append(np.corrcoef(shown.ravel(), pair.moving.ravel())[0, 1])
        maps = [renderings.edges(renderings.smooth(image, 2.0), 1.0).ravel() for image in (shown, pair.moving)]
        edged.append(np.corrcoef(*maps)[0, 1])
    assert np.mean(plain) < 0.45
    assert min(plain) < -0.2
    assert np.mean(edged) > 0.15


def test_an_inverted_template_is_the_negative():
    pair = SyntheticPairs(inverted=True, seed=1).pair(IMAGES, 0)
    shown = warp_frame(pair.reference, np.linalg.inv(pair.matrix), order=1, output_shape=pair.moving.shape)
    assert np.corrcoef(shown.ravel(), pair.moving.ravel())[0, 1] < -0.95


@pytest.mark.parametrize("kind", [renderings.cast_shadow, renderings.dropout, renderings.random_curve])
def test_renderings_of_flat_images_are_finite(kind):
    flat = np.full((24, 40), 0.5, np.float32)
    shown = kind(flat, np.random.default_rng(0))
    assert shown.shape == flat.shape
    assert shown.dtype == np.float32
    assert np.isfinite(shown).all()
    assert np.isfinite(renderings.random_rendering(np.zeros((24, 40, 3), np.float32), np.random.default_rng(1))).all()


def test_small_and_grey_like_sources_and_wrong_recipes():
    small = np.random.default_rng(0).integers(0, 255, (70, 90, 3)).astype(np.uint8)
    pair = SyntheticPairs(size=64, template=32, reach=10, seed=3).pair([small], 0)
    assert pair.reference.shape == (64, 64)
    with pytest.raises(ValueError, match="at most 32 px fit"):
        SyntheticPairs(reach=40).pair(IMAGES, 0)
    with pytest.raises(ValueError, match="fetch_training_images"):
        SyntheticPairs().pair([], 0)
    assert corners_of((3, 5)).tolist() == [[0, 0], [0, 4], [2, 4], [2, 0]]


def test_views_without_structure_are_drawn_anew():
    rng = np.random.default_rng(0)
    image = np.full((400, 800, 3), 128, np.uint8)
    image[:, 400:] = rng.integers(0, 256, (400, 400, 1))
    plain = SyntheticPairs(size=64, template=40, reach=8, strength=0, zoom=(1, 2), seed=3)
    chosen = plain.model_copy(update={"structure": 0.8})
    flat = [k for k in range(20) if plain.pair([image], k).reference.std() < 0.02]
    assert flat
    for k in range(20):
        pair, before = chosen.pair([image], k), plain.pair([image], k)
        assert pair.reference.std() > 0.05
        np.testing.assert_array_equal(pair.corners, before.corners)
        if k not in flat and (before.reference.std(axis=0) > 0.02).mean() > 0.95:
            np.testing.assert_array_equal(pair.reference, before.reference)
    nothing = chosen.pair([np.full((400, 400, 3), 128, np.uint8)], 0)
    assert np.isfinite(nothing.reference).all()
