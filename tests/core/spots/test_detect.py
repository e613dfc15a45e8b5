"""Suggested picks: on particles, isolated, spread out, of the right size; boxes at a click."""

import numpy as np
import pytest

from stackalign import ImageStack, box_at, fit_spot, suggest_picks
from tests.core.spots.scenes import render, spread


def field(sigma: float = 1.6, dark: bool = False, count: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (300, 340)
    where = spread(rng, count, 20, shape, apart=max(20.0, 9 * sigma))
    height = rng.uniform(150, 400, count) * (-1 if dark else 1)
    frames = render(
        where[:, None], shape, amplitude=height, sigma=sigma, background=1000.0 if dark else 30.0, seed=seed
    )
    return frames[0], where


@pytest.mark.parametrize("sigma", [1.2, 2.0, 3.5])
@pytest.mark.parametrize("dark", [False, True])
def test_suggestions_lie_on_particles(sigma: float, dark: bool) -> None:
    image, where = field(sigma, dark)
    picks = suggest_picks(image, 8)
    assert len(picks) == 8
    assert [p.id for p in picks] == list(range(1, 9))
    for pick in picks:
        fit = fit_spot(image, pick.box, estimator="lsq")
        assert fit
        assert np.abs(where - fit.position).max(1).min() < 0.5
        assert (fit.spot.amplitude < 0) == dark
        assert 2.5 * sigma < max(pick.box.shape) / 2 < 6.5 * sigma
    centres = np.array([p.centre for p in picks])
    assert (np.ptp(centres, axis=0) > [150, 170]).all()  # spread over the field
    assert suggest_picks(image, 8) == picks


def test_close_pairs_are_left_out() -> None:
    rng = np.random.default_rng(1)
    where = spread(rng, 10, 30, (240, 240), apart=40)
    pairs = np.concatenate([where, where[:5] + np.array([5.0, 4.0])])
    image = render(pairs[:, None], (240, 240))[0]
    picks = suggest_picks(image, 15)
    assert len(picks) == 5
    for pick in picks:
        assert np.abs(where[5:] - pick.centre).max(1).min() < 2


def test_mask_margin_and_frame() -> None:
    image, _ = field()
    stack = ImageStack(np.stack([np.zeros_like(image), image]))
    mask = np.zeros(image.shape, bool)
    mask[:, :170] = True
    picks = suggest_picks(stack, 20, frame=1, mask=mask, margin=30)
    assert picks
    for pick in picks:
        assert pick.frame == 1
        assert pick.centre[1] < 172
        assert pick.box.start[0] >= 30
        assert pick.box.stop[0] <= 270
    assert suggest_picks(stack, 20, frame=0) == ()


def test_nothing_to_suggest() -> None:
    rng = np.random.default_rng(0)
    assert suggest_picks(rng.poisson(100, (128, 128)), 10) == ()
    assert suggest_picks(np.full((64, 64), np.nan), 3) == ()
    assert suggest_picks(np.zeros((9, 9)), 3) == ()
    with pytest.raises(ValueError, match="at least one"):
        suggest_picks(np.zeros((9, 9)), 0)
    with pytest.raises(ValueError, match="frame 3"):
        suggest_picks(np.zeros((2, 9, 9)), frame=3)


@pytest.mark.parametrize("dark", [False, True])
def test_box_follows_a_click(dark: bool) -> None:
    image, where = field(2.0, dark)
    for place in where[:6]:
        box = box_at(image, place + np.array([3.0, -2.5]))
        fit = fit_spot(image, box, estimator="lsq")
        assert fit
        np.testing.assert_allclose(fit.position, place, atol=0.4)
    edge = box_at(image, (0, 0))
    assert edge.start == (0, 0)
    with pytest.raises(ValueError, match="outside the image"):
        box_at(image, (-5, 3))
    assert not fit_spot(np.zeros((40, 40)), box_at(np.zeros((40, 40)), (20, 20)))
