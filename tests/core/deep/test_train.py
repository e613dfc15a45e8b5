"""Steps of a training: the same from the same seed, its rate, its pool of pairs, what it refuses."""

import numpy as np
import pytest
from skimage import data

from stackalign.core.deep.pairs import SyntheticPairs
from stackalign.core.deep.train import Trainer, Training

pytest.importorskip("torch")

IMAGES = [data.camera()[:150, :150, None].repeat(3, -1)]
PAIRS = SyntheticPairs(size=48, template=32, reach=8, zoom=(1, 2))


def trainer(**changes):
    values = {
        "network": "clkn",
        "options": {"width": 4, "channels": 2, "iterations": 2},
        "images": "-",
        "batch_size": 2,
    }
    return Trainer(Training(**{**values, "pairs": PAIRS, "steps": 10, "warm_up": 4, **changes}), IMAGES)


def test_the_same_seed_takes_the_same_steps():
    first, second = trainer(seed=3), trainer(seed=3)
    assert [first.advance() for _ in range(2)] == [second.advance() for _ in range(2)]
    assert trainer(seed=4).advance() != trainer(seed=3).advance()


def test_the_rate_rises_then_falls_to_a_hundredth():
    one = trainer(learning_rate=0.01)
    assert [one.rate(k) for k in range(4)] == pytest.approx([0.0025, 0.005, 0.0075, 0.01])
    assert one.rate(7) == pytest.approx(0.01 * (0.01 + 0.99 / 2))
    assert one.rate(10) == pytest.approx(1e-4)


def test_a_pool_of_pairs_is_seen_again_in_another_order():
    one = trainer(distinct_pairs=5)
    first, second = ([one.pair(k).name for k in range(5 * epoch, 5 * epoch + 5)] for epoch in (0, 1))
    assert len(set(first)) == 5
    assert sorted(first) == sorted(second)
    assert first != second
    assert one.pair(0) is one.pair(0)
    assert trainer().pair(0) is not trainer().pair(0)


def test_judging_changes_nothing():
    one = trainer()
    pairs = [one.pair(k) for k in range(100, 103)]
    before = {key: value.copy() for key, value in one.arrays().items()}
    assert one.judge(pairs) == one.judge(pairs)
    assert one.judge([]) == {}
    for key, value in one.arrays().items():
        np.testing.assert_array_equal(value, before[key])


def test_a_loss_that_is_no_number_and_missing_images_are_said():
    one = trainer()
    import torch

    with torch.no_grad():
        next(one.network.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        one.advance()
    with pytest.raises(ValueError, match="no images to train on"):
        Trainer(one.recipe, [])


def test_templates_that_wander_leave_the_middle():
    recipe = SyntheticPairs(size=64, template=32, reach=4, wander=30, strength=0)
    away = [np.abs(p.corners.mean(0) - 31.5).max() for p in (recipe.pair(IMAGES, k) for k in range(40))]
    assert max(away) > 18
    assert min(away) < 12


def test_each_pair_may_draw_its_own_strength():
    alike = SyntheticPairs(size=64, template=40, reach=12, strength=0.0, least_strength=0.0, seed=1).pair(IMAGES, 0)
    plain = SyntheticPairs(size=64, template=40, reach=12, strength=0.0, seed=1).pair(IMAGES, 0)
    np.testing.assert_allclose(alike.corners, plain.corners)
    np.testing.assert_array_equal(alike.moving, plain.moving)


def test_scenes_are_seen_under_new_homographies_and_stay_true():
    one = trainer(distinct_pairs=3, redraw=True, pairs=PAIRS.model_copy(update={"inverted": True}))
    one.advance()
    scenes = one.scenes
    first, second = (scenes.batch([0, 2], np.random.default_rng(k)) for k in (0, 1))
    assert not np.allclose(first.corners, second.corners)
    for batch in (first, second):
        # the template is the negative of what its corners hold
        from stackalign.core.deep.homography import warp

        seen, inside = warp(batch.reference, batch.matrix, (32, 32))
        assert float(inside.mean()) > 0.97
        assert float((seen + batch.moving - 1).std()) == pytest.approx(0.02, rel=0.1)
    again = trainer(distinct_pairs=3, redraw=True, pairs=PAIRS.model_copy(update={"inverted": True}))
    losses = [again.advance() for _ in range(3)]
    assert losses[1:] == [one.advance() for _ in range(2)]


def test_what_cannot_be_drawn_anew_is_said():
    with pytest.raises(ValueError, match="distinct_pairs"):
        trainer(redraw=True)
    with pytest.raises(ValueError, match="set wander to 0"):
        trainer(redraw=True, distinct_pairs=3, pairs=PAIRS.model_copy(update={"wander": 5.0}))
