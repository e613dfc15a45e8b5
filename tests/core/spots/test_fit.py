"""Spot fits: exact on clean spots, a status for every bad one, the same in counts and in photons."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackalign import Box, FitStatus, GaussianSpot, fit_spot, fit_spots

ROTATED = GaussianSpot(200.0, np.array([7.3, 6.6]), np.array([3.0, 1.5]), 0.4, 20.0)


@pytest.mark.parametrize("estimator", ["mle", "lsq"])
@pytest.mark.parametrize("amplitude", [200.0, -15.0])
def test_clean_spot_is_recovered(estimator: str, amplitude: float) -> None:
    spot = GaussianSpot(amplitude, ROTATED.position, ROTATED.sigma, ROTATED.angle, ROTATED.background)
    fit = fit_spot(spot.image((15, 17)), estimator=estimator)
    assert fit
    assert fit.reason == ""
    np.testing.assert_allclose(fit.position, spot.position, atol=1e-4)
    np.testing.assert_allclose(fit.spot.sigma, spot.sigma, rtol=1e-4)
    np.testing.assert_allclose(
        [fit.spot.angle, fit.spot.amplitude, fit.spot.background], [0.4, amplitude, 20], rtol=1e-3
    )
    assert fit.r_squared > 0.9999


@pytest.mark.parametrize("model", ["circular", "elliptic", "rotated"])
def test_models_agree_on_a_round_spot(model: str) -> None:
    spot = GaussianSpot(100.0, np.array([6.8, 8.1]), np.array([2.0, 2.0]), 0.0, 5.0)
    fit = fit_spot(spot.image((15, 15)), model=model)
    np.testing.assert_allclose(fit.position, spot.position, atol=1e-4)
    np.testing.assert_allclose(fit.spot.sigma, 2.0, rtol=1e-3)
    np.testing.assert_allclose(fit.spot.image((15, 15)), spot.image((15, 15)), atol=0.01)


@given(
    y=st.floats(4, 10), x=st.floats(4, 12), dark=st.booleans(), sigma=st.floats(1.0, 2.5), angle=st.floats(-0.7, 0.7)
)
@settings(max_examples=60, deadline=None)
def test_any_clean_spot(y: float, x: float, dark: bool, sigma: float, angle: float) -> None:
    amplitude = -900.0 if dark else 900.0
    spot = GaussianSpot(amplitude, np.array([y, x]), np.array([sigma, 1.4 * sigma]), angle, 1000.0)
    for estimator in ("mle", "lsq"):
        fit = fit_spots(spot.image((15, 17))[None], estimator=estimator)[0]
        np.testing.assert_allclose(fit.position, [y, x], atol=2e-3)
        np.testing.assert_allclose(np.sort(fit.spot.sigma), [sigma, 1.4 * sigma], rtol=5e-3)


def test_box_and_origin() -> None:
    image = np.full((40, 60), 10.0) + GaussianSpot(80.0, np.array([22.4, 41.7]), np.array([1.5, 1.5])).image((40, 60))
    fit = fit_spot(image, Box(15, 30, 34, 49))
    np.testing.assert_allclose([fit.y, fit.x], [22.4, 41.7], atol=1e-3)
    assert fit.box == Box(15, 30, 34, 49)
    with pytest.raises(ValueError, match="outside the frame"):
        fit_spot(image, Box(50, 60, 0, 10))


def test_camera_units_cancel() -> None:
    rng = np.random.default_rng(0)
    photons = rng.poisson(ROTATED.image((15, 15)), (20, 15, 15))
    plain = fit_spots(photons)
    counts = fit_spots(2.5 * photons + 100.0, gain=2.5, offset=100.0)
    np.testing.assert_allclose(counts.position, plain.position, atol=1e-4)
    np.testing.assert_allclose(counts.position_error, plain.position_error, rtol=1e-3)
    np.testing.assert_allclose(counts.amplitude, 2.5 * plain.amplitude, rtol=1e-3)
    np.testing.assert_allclose(counts.background, 2.5 * plain.background + 100, rtol=1e-3)
    np.testing.assert_allclose(counts.chi_squared, plain.chi_squared, rtol=1e-2)


def test_every_dtype_and_layout() -> None:
    patches = np.round(np.stack([ROTATED.image((15, 15))] * 3))
    expected = fit_spots(patches).position
    for dtype in (np.uint8, np.uint16, np.int16, np.int32, np.uint32, np.float32, bool):
        if dtype is not bool:
            np.testing.assert_allclose(fit_spots(patches.astype(dtype)).position, expected, atol=1e-4)
    turned = np.asfortranarray(patches.astype(np.uint16))
    turned.setflags(write=False)
    np.testing.assert_allclose(fit_spots(turned).position, expected, atol=1e-4)
    far = fit_spots(patches + 1e9, estimator="lsq")
    np.testing.assert_allclose(far.position, fit_spots(patches, estimator="lsq").position, atol=1e-3)
    assert len(fit_spots(np.empty((0, 15, 15)))) == 0


def test_missing_pixels_do_not_count() -> None:
    patch = ROTATED.image((15, 15))
    patch[:, 12] = np.nan
    patch[3, 4] = np.inf
    fit = fit_spots(patch[None])[0]
    np.testing.assert_allclose(fit.position, ROTATED.position, atol=1e-3)


def statuses(patches: np.ndarray, **options: object) -> set[FitStatus]:
    found: set[FitStatus] = set()
    for estimator in ("mle", "lsq"):
        found |= {FitStatus(int(s)) for s in fit_spots(patches, estimator=estimator, **options).status}
    return found


def test_each_bad_spot_has_its_status() -> None:
    rng = np.random.default_rng(1)
    assert statuses(np.full((3, 15, 15), 7.0)) == {FitStatus.NO_CONTRAST}
    assert statuses(np.full((3, 15, 15), np.nan)) == {FitStatus.TOO_SMALL}
    assert statuses(np.ones((3, 2, 9))) == {FitStatus.TOO_SMALL}
    assert statuses(np.arange(15.0)[None, :, None] + rng.normal(0, 0.1, (5, 15, 15))) == {FitStatus.OFF_EDGE}
    pair = [
        GaussianSpot(300.0, np.array([7.0, x]), np.array([1.5, 1.5]), 0.0, 20.0).image((15, 15)) for x in (3.5, 10.5)
    ]
    assert statuses(rng.poisson(sum(pair), (5, 15, 15))) == {FitStatus.AMBIGUOUS}
    bright = np.minimum(GaussianSpot(900.0, np.array([7.0, 7.0]), np.array([2.0, 2.0])).image((15, 15)), 255)
    assert statuses(bright.astype(np.uint8)[None]) == {FitStatus.SATURATED}
    assert statuses(bright[None], saturation=255) == {FitStatus.SATURATED}
    for status in FitStatus:
        assert status.sentence


def test_noise_is_no_spot() -> None:
    rng = np.random.default_rng(2)
    for patches in (
        rng.normal(100, 10, (2000, 15, 15)),
        rng.poisson(5, (2000, 15, 15)),
        rng.normal(0, 1, (2000, 9, 9)),
    ):
        for estimator in ("mle", "lsq"):
            fits = fit_spots(patches, estimator=estimator)
            assert fits.ok.mean() < 0.002
            assert np.isfinite(fits.r_squared[fits.ok]).all()


@given(
    st.integers(0, 2**32 - 1), st.sampled_from([1e-30, 1e-3, 1.0, 1e6, 1e30]), st.integers(1, 12), st.integers(1, 12)
)
@settings(max_examples=40, deadline=None)
def test_no_patch_raises(seed: int, scale: float, h: int, w: int) -> None:
    rng = np.random.default_rng(seed)
    patches = rng.standard_cauchy((4, h, w)) * scale
    patches[rng.random(patches.shape) < 0.1] = rng.choice([np.nan, np.inf, -np.inf, 0.0])
    for estimator in ("mle", "lsq"):
        assert len(fit_spots(patches, estimator=estimator)) == 4


def test_misuse_is_named() -> None:
    with pytest.raises(ValueError, match=r"\(N, h, w\)"):
        fit_spots(np.ones((5, 5)))
    with pytest.raises(ValueError, match="'round'"):
        fit_spots(np.ones((1, 5, 5)), model="round")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gain"):
        fit_spots(np.ones((1, 5, 5)), gain=0)
    with pytest.raises(ValueError, match="complex"):
        fit_spots(np.ones((1, 5, 5), complex))


@pytest.mark.parametrize("model", ["circular", "elliptic"])
@pytest.mark.parametrize("estimator", ["mle", "lsq"])
def test_volumes(model: str, estimator: str) -> None:
    sigma = np.array([2.0, 2.0, 2.0]) if model == "circular" else np.array([1.4, 2.0, 2.4])
    spot = GaussianSpot(150.0, np.array([4.2, 7.3, 6.8]), sigma, 0.0, 10.0)
    clean = fit_spot(spot.image((9, 15, 15)), model=model, estimator=estimator)
    np.testing.assert_allclose(clean.position, spot.position, atol=1e-3)
    np.testing.assert_allclose(clean.spot.sigma, sigma, rtol=1e-3)
    noisy = fit_spots(np.random.default_rng(0).poisson(spot.image((9, 15, 15)), (300, 9, 15, 15)), model, estimator)
    assert noisy.ok.all()
    pull = (noisy.position - spot.position) / noisy.position_error
    np.testing.assert_allclose(pull.std(0), 1, atol=0.15)
    assert abs(pull.mean(0)).max() < 0.25


def test_table() -> None:
    table = fit_spots(np.stack([ROTATED.image((15, 15)), np.zeros((15, 15))])).to_frame()
    assert list(table["status"]) == ["ok", "no_contrast"]
    assert {"y_px", "x_px", "y_error_px", "sigma_y_px", "angle_deg", "r_squared"} <= set(table.columns)
    assert table["angle_deg"][0] == pytest.approx(np.rad2deg(0.4), abs=0.01)


@pytest.mark.parametrize("model", ["circular", "elliptic", "rotated"])
@pytest.mark.parametrize("estimator", ["mle", "lsq"])
@pytest.mark.parametrize("ratio", [1.0, 0.6])
def test_two_spots_are_not_taken_for_one(model: str, estimator: str, ratio: float) -> None:
    rng = np.random.default_rng(2)
    for apart in (2.2, 2.8, 3.4):  # widths of 2 px
        patches = []
        for turn in rng.uniform(0, np.pi, 60):
            step = apart * np.array([np.cos(turn), np.sin(turn)])
            middle = 8 + rng.uniform(-0.5, 0.5, 2)
            one = GaussianSpot(400.0, middle - step, np.array([2.0, 2.0]), background=10.0).image((17, 17))
            patches.append(one + GaussianSpot(400.0 * ratio, middle + step, np.array([2.0, 2.0])).image((17, 17)))
        fits = fit_spots(rng.poisson(patches), model, estimator)
        assert (fits.status == FitStatus.AMBIGUOUS).mean() > 0.95


@pytest.mark.parametrize("model", ["circular", "elliptic", "rotated"])
@pytest.mark.parametrize("estimator", ["mle", "lsq"])
def test_one_long_spot_and_a_rod_are_no_pair(model: str, estimator: str) -> None:
    rng = np.random.default_rng(3)
    turns = rng.uniform(-np.pi / 4, np.pi / 4, 100)
    long = [GaussianSpot(300.0, np.array([10.2, 9.7]), np.array([4.0, 2.0]), a, 10.0).image((21, 21)) for a in turns]
    rod = np.full((21, 21), 10.0)
    for t in np.linspace(-5, 5, 20):
        rod += GaussianSpot(40.0, np.array([10 + t * 0.9, 10 + t * 0.4]), np.array([2.0, 2.0])).image((21, 21))
    assert fit_spots(rng.poisson(long), model, estimator).ok.all()
    assert fit_spots(rng.poisson([rod] * 100), model, estimator).ok.mean() > 0.95
