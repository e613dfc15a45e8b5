"""The variance of a camera, from residuals."""

import numpy as np
import pytest

from stackalign.core.frames.noise import NoiseModel
from stackalign.core.frames.noise_kernels import binned_median
from stackalign.core.verdicts.agreement import noise_variance


@pytest.mark.parametrize(("gain", "read"), [(1.0, 2.0), (3.5, 0.0), (0.4, 10.0)])
def test_gain_and_read_noise_are_found(gain, read):
    rng = np.random.default_rng(1)
    intensity = rng.uniform(20, 2000, 40_000)
    variance = gain * intensity + read**2
    model = NoiseModel.fitted(intensity, rng.normal(0, np.sqrt(variance)))
    at = np.array([50, 400, 1800], np.float32)
    assert np.allclose(model.variance(at), gain * at + read**2, rtol=0.12)


def test_an_even_model_is_that_of_one_intensity():
    model = NoiseModel(-90.0, 2.0, 5.0)
    assert np.array_equal(model.even(100).variance(np.array([0.0, 500.0])), [110, 110])
    assert model.even(1).constant == 5.0


def test_pixels_that_really_changed_do_not_count():
    rng = np.random.default_rng(2)
    intensity = rng.uniform(100, 1000, 20_000)
    residual = rng.normal(0, np.sqrt(intensity))
    residual[::20] += 3000
    model = NoiseModel.fitted(intensity, residual)
    assert model.variance(np.array([500.0]))[0] == pytest.approx(500, rel=0.25)


def test_a_variance_that_falls_with_brightness_is_taken_as_constant():
    rng = np.random.default_rng(3)
    intensity = rng.uniform(0, 100, 20_000)
    model = NoiseModel.fitted(intensity, rng.normal(0, 20 - 0.1 * intensity))
    assert model.slope == 0
    assert 100 < model.constant < 400


@pytest.mark.parametrize("count", [0, 1, 5, 399])
def test_few_residuals_give_a_constant(count):
    rng = np.random.default_rng(4)
    model = NoiseModel.fitted(rng.uniform(0, 100, count), rng.normal(0, 3, count))
    assert model.slope == 0
    assert (model.variance(np.array([0.0, 1e6], np.float32)) > 0).all()


def test_no_residual_at_all_still_leaves_a_variance_above_zero():
    model = NoiseModel.fitted(np.linspace(0, 100, 5000), np.zeros(5000))
    variance = model.variance(np.array([0.0, 50.0], np.float32))
    assert variance.dtype == np.float32
    assert (variance > 0).all()


def test_the_floor_holds_where_the_line_falls_below_it():
    model = NoiseModel(-100.0, 1.0, 2.0)
    assert model.variance(np.array([0.0, 102.0, 150.0], np.float32)).tolist() == [2.0, 2.0, 50.0]


def test_few_photons_are_not_understated():
    """The noise of few photons is skew: the median of its size is smaller than its spread."""
    rng = np.random.default_rng(6)
    expected = rng.uniform(1, 20, 60_000)
    residual = rng.poisson(expected) - expected
    model = NoiseModel.fitted(expected, residual)
    assert model.slope == pytest.approx(1, abs=0.05)
    assert model.variance(np.array([5.0])) == pytest.approx(5, rel=0.05)


def test_holes_do_not_hide_the_noise():
    image = np.random.default_rng(0).normal(100, 10, (160, 160)).astype(np.float32)
    whole = noise_variance(image)
    image[40:100, 30:100] = np.nan
    assert noise_variance(image) == pytest.approx(whole, rel=0.05)
    assert noise_variance(image) == pytest.approx(100, rel=0.1)
    image[:] = np.nan
    assert noise_variance(image) == 0


@pytest.mark.parametrize("outliers", [0, 40, 900])
def test_the_median_by_bins_is_that_of_sorting(outliers):
    rng = np.random.default_rng(outliers)
    values = rng.normal(3, 2, 2000)
    values[:outliers] += rng.uniform(0, 1e4, outliers)
    reach = 4 * values.std()
    assert binned_median(values, values.mean() - reach, values.mean() + reach) == pytest.approx(
        np.median(values), abs=0.02
    )
    assert binned_median(values[:10], 0.0, 1.0) == np.median(values[:10])
    assert binned_median(np.full(2000, 5.0), 5.0, 5.0) == 5
