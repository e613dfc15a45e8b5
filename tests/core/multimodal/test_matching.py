"""Features, search, refinement and the verdict on scenes with a known motion."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import stackalign as sa
from stackalign.core.multimodal.corners import corner_distance, matrices_of, offsets_of
from stackalign.core.multimodal.evidence import agreement
from stackalign.core.multimodal.features import FAMILIES, describe
from stackalign.core.multimodal.judge import (
    BLOCK_SIDE,
    COEFFICIENTS,
    PLACE_SIDE,
    Evidence,
    Verdict,
    among,
    fitted,
    judge,
)
from stackalign.core.multimodal.matching import Match, likeliest
from stackalign.core.multimodal.refine import FeatureImage, refine
from stackalign.core.multimodal.search import search
from stackalign.core.multimodal.views import ImageViews

NEAR = {"max_rotation": 0.0, "max_scale": 1.0}


def scene(shape=(96, 96), seed=0):
    """Return a band-limited texture of blobs of several sizes, between about -3 and 3."""
    rng = np.random.default_rng(seed)
    parts = [gaussian_filter(rng.normal(size=shape), s, mode="wrap") for s in (1.5, 4.0)]
    return sum(p / p.std() for p in parts).astype(np.float32)


def template(image, offsets, size=64):
    """Return what a template of ``size`` pixels sees whose corners are moved by ``offsets``, and moving -> image."""
    there = np.eye(3)
    there[:2, 2] = (np.array(image.shape) - size) / 2
    truth = there @ matrices_of(offsets, (size, size))
    return sa.warp_frame(image, np.linalg.inv(truth), output_shape=(size, size), fill="edge"), truth


@pytest.fixture(scope="module")
def inverted():
    image = scene()
    offsets = np.random.default_rng(1).uniform(-9, 9, (4, 2))
    moving, truth = template(image, offsets)
    return image, -np.tanh(moving), truth


def test_inverting_the_contrast_changes_no_feature():
    image = scene((48, 60))
    np.testing.assert_allclose(describe(image).values, describe(5 - 3 * image).values, atol=2e-3)


def test_features_next_to_holes_do_not_count():
    image = scene((48, 60))
    image[20:30, 30:40] = np.nan
    found = describe(image)
    assert np.isfinite(found.values).all()
    assert found.weight[18:32, 32:38].max() == 0
    assert found.weight[:15].min() == 1
    assert describe(np.full((20, 20), np.nan, np.float32)).weight.max() == 0


def test_search_finds_a_small_turned_template():
    image = scene()
    motion = sa.Transform.from_rotation(np.deg2rad(20), centre=(31.5, 31.5)).matrix
    moving, truth = template(image, offsets_of(motion, (64, 64)))
    found = search(
        np.moveaxis(image[..., None], -1, 0), np.moveaxis(moving[..., None], -1, 0), angles=np.deg2rad([-20, 0, 20])
    )
    assert corner_distance(found[0].matrix, truth, moving.shape) < 3
    assert found[0].score > found[-1].score
    assert found[0].significance > 3


def test_refine_reaches_a_hundredth_of_a_pixel_from_several_away():
    image = scene()
    moving, truth = template(image, np.random.default_rng(2).uniform(-5, 5, (4, 2)))
    start = truth @ matrices_of(np.random.default_rng(3).uniform(-3, 3, (4, 2)), moving.shape)
    found = refine(image[None], moving[None], start, levels=2)
    assert found.converged
    assert found.score > 0.99
    # cubic against linear interpolation
    assert corner_distance(found.matrix, truth, moving.shape) < 0.05


def test_refine_stays_within_its_model_and_bounds():
    image = scene()
    moving, truth = template(image, np.zeros((4, 2)))
    start = truth.copy()
    start[:2, 2] += (2.0, -1.5)
    found = refine(image[None], moving[None], start, model="translation")
    np.testing.assert_allclose(found.matrix, truth, atol=0.02)
    far = refine(scene(seed=9)[None], moving[None], truth, max_change=0.05)
    assert far.moved <= 0.05 * 64 + 1e-6


def test_arrays_that_are_no_features_are_named():
    with pytest.raises(ValueError, match="same channels: fixed has 2, moving 3"):
        refine(np.zeros((2, 20, 20), np.float32), np.zeros((3, 20, 20), np.float32), np.eye(3))
    with pytest.raises(ValueError, match=r"\(channels, y, x\)"):
        FeatureImage.of(np.zeros((20, 20), np.float32))


def test_another_modality_is_found_and_sure(inverted):
    image, moving, truth = inverted
    pair = sa.register_pair(moving, image, sa.Multimodal(max_rotation=15, max_scale=1.2))
    assert not pair.refused
    assert pair.probability > 0.7
    assert corner_distance(pair.transform.matrix, truth, moving.shape) < 0.5


def test_the_same_seed_gives_the_same_bits(inverted):
    image, moving, _ = inverted
    record = sa.Multimodal(**NEAR)
    first, second = (sa.register_pair(moving, image, record) for _ in range(2))
    np.testing.assert_array_equal(first.transform.matrix, second.transform.matrix)


def test_what_has_nothing_in_common_is_refused(inverted):
    image, _, _ = inverted
    pair = sa.register_pair(scene((64, 64), seed=5), image, sa.Multimodal(**NEAR))
    assert pair.refused
    assert "probability" in pair.reason
    np.testing.assert_array_equal(pair.transform.matrix, np.eye(3))


def test_constant_images_are_refused_with_their_name(inverted):
    image, _, _ = inverted
    pair = sa.register_pair(np.ones((60, 60)), image, sa.Multimodal())
    assert pair.refused
    assert pair.reason.startswith("the moving image")


def test_a_start_nearby_and_a_mask_are_used(inverted):
    image, moving, truth = inverted
    mask = np.ones(image.shape, bool)
    mask[:20] = False
    pair = sa.register_pair(moving, image, sa.Multimodal(**NEAR), mask=mask, initial=truth)
    assert corner_distance(pair.transform.matrix, truth, moving.shape) < 0.5


@pytest.mark.parametrize("share", [0.35, 0.45])
def test_a_given_start_is_judged_against_all_other_places(share):
    """Where a start leads fits well enough to be sure of, had nothing better been seen elsewhere."""
    texture, other = scene((80, 80), 1), scene((80, 80), 2)
    twice = np.hstack([texture, (1 - share) * texture + share * other])
    wrong = sa.Transform.from_translation([8.0, 88.0])
    method = sa.Multimodal(model="similarity", max_rotation=0, max_scale=1)
    pair = sa.register_pair(np.tanh(-2 * texture[8:72, 8:72] / texture.std()), twice, method, initial=wrong)
    assert not pair.refused
    np.testing.assert_allclose(pair.transform([31.5, 31.5]), [39.5, 39.5], atol=0.3)


def test_a_stack_is_aligned_to_a_foreign_image():
    image = scene((64, 64))
    shifts = [(2.5, -1.0), (-3.0, 2.0)]
    frames = np.stack([sa.warp_frame(image, sa.Transform.from_translation(s).inverse, fill="edge") for s in shifts])
    found = sa.register(-frames, sa.Multimodal(model="translation"), reference=image)
    np.testing.assert_allclose(found.transforms.translations, shifts, atol=0.1)
    assert not found.quality.flagged.any()


def test_a_place_outside_the_ranges_that_were_asked_for_is_none():
    """Only what starts there may end there."""
    image = scene()
    half = np.diag([2.0, 2.0, 1.0])
    moving = sa.warp_frame(image, np.linalg.inv(half), output_shape=(48, 48), fill="edge")
    near = sa.Multimodal(model="similarity", max_rotation=0, max_scale=1)
    begun = sa.register_pair(-moving, image, near, initial=sa.Transform(half))
    assert corner_distance(begun.transform.matrix, half, moving.shape) < 0.5
    assert sa.register_pair(-moving, image, near).refused


def test_a_mask_of_a_small_part_is_found_in_all_of_the_moving_image():
    """A mask that few blocks of the moving image can lie on leaves the right place among those that are searched."""
    image = scene((64, 160))
    mask = np.zeros(image.shape, bool)
    mask[3:-3, 3:62] = True
    moving = sa.warp_frame(image, sa.Transform.from_translation((-2.75, 3.5)).matrix, fill="edge")
    moving[:, 84:] = scene((64, 160), seed=7)[:, 84:]
    pair = sa.register_pair(-moving, image, sa.Multimodal(model="translation"), mask=mask)
    np.testing.assert_allclose(pair.transform.matrix[:2, 2], (2.75, -3.5), atol=0.1)


@pytest.mark.parametrize("masked", [True, False])
def test_a_small_part_of_the_reference_is_looked_for_in_the_moving_image(masked):
    image = scene((120, 120))
    moving = -np.tanh(sa.warp_frame(image, sa.Transform.from_translation((-2.75, 3.5)).matrix, fill="edge"))
    mask = np.zeros(image.shape, bool)
    mask[60:96, 20:60] = True
    record = sa.Multimodal(model="translation")
    if masked:
        pair = sa.register_pair(moving, image, record, mask=mask, initial=sa.Transform.identity(2))
        np.testing.assert_allclose(pair.transform.matrix[:2, 2], (2.75, -3.5), atol=0.15)
        far = sa.register_pair(moving, image, sa.Multimodal(model="translation", max_shift=2), mask=mask)
        assert far.refused
        assert "max_shift is 2" in far.reason
    else:
        pair = sa.register_pair(moving, image[60:96, 20:60], record)
        np.testing.assert_allclose(pair.transform.matrix[:2, 2], (2.75 - 60, -3.5 - 20), atol=0.15)


def test_a_stack_begins_at_the_first_frame_that_holds_something():
    frames = np.zeros((3, 48, 48), np.float32)
    found = sa.register(frames, sa.Multimodal(model="translation"))
    assert found.quality.flagged.all()
    assert all(found.quality.reasons)
    frames[1:] = scene((48, 48))
    found = sa.register(frames, sa.Multimodal(model="translation"))
    assert found.quality.flagged.tolist() == [True, False, False]
    with pytest.raises(ValueError, match="frame 0 cannot be the reference"):
        sa.register(frames, sa.Multimodal(model="translation"), reference="first")


def test_volumes_are_refused_in_words():
    with pytest.raises(ValueError, match="not for volumes"):
        sa.register(np.zeros((2, 16, 16, 16), np.float32), sa.Multimodal())


GOOD = Evidence(0.6, 15.0, 0.5, 0.3, 0.3, 0.5, 0.2, 1.0, 128.0, 5000.0, blocks=30, agreeing=28, accident=0.03)
BAD = Evidence(0.1, 1.0, 1.0, np.inf, 20.0, 30.0, 5.0, 0.9, 128.0, 5000.0, blocks=20, agreeing=1, accident=0.03)


def test_the_verdict_follows_the_evidence():
    good, bad = judge(GOOD), judge(BAD)
    assert good.probability > 0.9
    assert not good.refused
    assert good.reason == ""
    assert bad.probability < 0.1
    assert bad.refused
    assert "no better there than elsewhere" in bad.reason
    assert judge(GOOD, threshold=1.0).refused
    assert len(COEFFICIENTS) == len(GOOD.regressors())


def test_the_best_of_many_unrelated_places_is_no_evidence():
    rng, length = np.random.default_rng(0), 2.0
    fields = [gaussian_filter(rng.normal(size=(64, 64)), length, mode="wrap") for _ in range(300)]
    places = 64 * 64 / (2 * length**2)  # a field smoothed by s has -2 s^2 times its slope's variance as variance
    height = replace(GOOD, blocks=0, agreeing=0, places=places)
    chances = np.array([replace(height, chance=f.max() / f.std()).by_chance for f in fields])
    # odds of 3 against chance belong to a p of .03, even odds to 1 / e
    assert np.mean(chances < 0.25) == pytest.approx(0.034, abs=0.025)
    assert np.mean(chances < 0.5) == pytest.approx(1 / np.e, abs=0.07)
    lucky = replace(height, chance=3.0, places=700.0)
    assert judge(lucky).refused
    assert "no better there than elsewhere" in judge(lucky).reason


def test_blocks_that_agree_are_no_chance_find_unless_few():
    low = replace(GOOD, chance=3.0, places=1e6, dimensions=4, blocks=30, accident=0.03, freedom=4)
    assert replace(low, agreeing=25).by_chance < 1e-6
    assert judge(replace(low, agreeing=25)).probability > 0.5
    chances = [replace(low, agreeing=k).by_chance for k in range(31)]
    assert chances[4] == 1
    assert (np.diff(chances) <= 1e-12).all()
    # images of which little tells a place need as many blocks, not as large a share
    assert replace(low, blocks=5, agreeing=5).by_chance > 0.5
    # by accident one of so many places has this many
    rng = np.random.default_rng(0)
    most = rng.binomial(30, 0.03, (400, 20000)).max(1)
    places = 20000 * (BLOCK_SIDE / PLACE_SIDE) ** 2
    told = [replace(low, places=places, dimensions=2, freedom=0, agreeing=int(k)).by_chance for k in most]
    assert np.mean(np.array(told) < 0.25) < 0.06


@pytest.mark.parametrize("same", [True, False])
def test_blocks_of_the_same_scene_agree_and_of_others_do_not(same):
    image = scene((96, 96))
    other = -np.tanh(image) if same else scene((96, 96), seed=5)
    told = agreement(ImageViews(image, other), np.eye(3), 0)
    assert told.blocks > 20
    assert told.agreeing > 0.9 * told.blocks if same else told.agreeing < 0.15 * told.blocks
    assert 0.03 < told.accident < 0.1
    assert told.together < 0.1  # where all blocks go astray, each goes its own way
    flat = np.full((96, 96), np.nan, np.float32)
    nothing = agreement(ImageViews(image, flat), np.eye(3), 0)
    assert (nothing.blocks, nothing.agreeing, nothing.together) == (0, 0, 0.0)


def test_relief_is_told_from_what_agrees_and_lowers_the_probability():
    image = scene((128, 128))
    ground = np.arange(128)[:, None] > 48  # above it all is seen 5 px aside
    other = -np.tanh(np.where(ground, image, np.roll(image, 5, axis=1)))
    told = agreement(ImageViews(image, other), np.eye(3), 0)
    assert 0.5 * told.blocks < told.agreeing < 0.8 * told.blocks
    assert 0.15 < told.together < 0.45
    assert judge(replace(GOOD, agreeing=18, together=told.together)).refused
    assert not judge(replace(GOOD, agreeing=18)).refused
    assert "one motion does not hold for all" in judge(replace(GOOD, agreeing=18, together=told.together)).reason


def test_a_height_says_less_the_more_is_searched_for():
    heights, alone = np.linspace(2, 12, 41), replace(GOOD, blocks=0, agreeing=0)
    for dimensions in (2, 3, 4):
        chances = [replace(alone, chance=z, places=1e7, dimensions=dimensions).by_chance for z in heights]
        assert (np.diff(chances) <= 1e-12).all()
    assert replace(alone, chance=6.8, places=1e5).by_chance < 0.01
    assert replace(alone, chance=6.8, places=5e8, dimensions=4).by_chance > 0.3


@pytest.mark.parametrize("kind", ["noise", "another scene"])
def test_a_shift_alone_is_refused_where_there_is_nothing_in_common(kind):
    """Two numbers are found again from everywhere nearby, whatever the images are: only chance tells."""
    image = scene((64, 64))
    other = scene((64, 64), seed=5) if kind == "another scene" else np.random.default_rng(5).normal(size=(64, 64))
    assert sa.register_pair(other, image, sa.Multimodal(model="translation")).refused


def test_the_logistic_fit_finds_the_odds():
    rng = np.random.default_rng(0)
    x = np.c_[np.ones(4000), rng.normal(size=(4000, 2))]
    true = np.array([0.5, 2.0, -1.0])
    found = fitted(x, rng.random(4000) < 1 / (1 + np.exp(-x @ true)))
    np.testing.assert_allclose(found, true, atol=0.2)


def test_families_are_all_channels():
    channels = describe(scene((40, 40))).values.shape[2]
    assert sorted(k for family in FAMILIES for k in range(channels)[family]) == list(range(channels))


def test_answers_that_exclude_each_other_share_the_probability():
    assert among(0.9, []) == pytest.approx(0.9)
    assert among(0.5, [0.5]) == pytest.approx(1 / 3)  # one, the other, or none
    assert among(0.72, [0.5]) < 0.7 < among(0.93, [0.1])


@pytest.mark.parametrize(("aside", "refused"), [(2.0, False), (20.0, True)])
def test_an_answer_that_another_one_excludes_is_refused(aside, refused):
    first, second = np.eye(3), np.eye(3)
    second[0, 2] = aside
    evidence = Evidence(0.5, 10.0, 0.5, 1.0, 1.0, 1.0, 0.5, 1.0, 64.0, 100.0)
    answers = [(Match(first, evidence), Verdict(0.6, True, "")), (Match(second, evidence), Verdict(0.75, False, ""))]
    found, verdict = likeliest(answers, (64, 64), 0.7)
    assert found.matrix is second
    assert verdict.refused == refused
    assert ("elsewhere" in verdict.reason) == refused
