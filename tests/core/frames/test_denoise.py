"""The Wiener filter of a reference."""

import numpy as np
import pytest
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter

from stackalign.core.frames.denoise import _corner_power, wiener
from stackalign.core.warping.resample import warp_frame


def scene(shape, sigma=2.0, seed=0):
    image = gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return ((image - image.mean()) / image.std()).astype(np.float32)


@pytest.mark.parametrize("shape", [(96, 120), (16, 48, 52)])
@pytest.mark.parametrize("known", [True, False])
def test_noise_goes_and_the_scene_stays(shape, known):
    clean = scene(shape)
    noisy = clean + np.random.default_rng(1).normal(0, 0.5, shape).astype(np.float32)
    filtered = wiener(noisy, 0.25 if known else None).image
    assert filtered.dtype == np.float32
    assert ((filtered - clean) ** 2).mean() < 0.35 * ((noisy - clean) ** 2).mean()
    # steps of a fit keep their length only if the scene is not damped
    assert (filtered * clean).mean() > 0.93


def test_an_image_free_of_noise_is_left_as_it_is():
    clean = scene((96, 120))
    assert np.abs(wiener(clean).image - clean).max() < 0.02


def test_what_cannot_be_told_from_noise_is_left_as_it_is():
    noise = np.random.default_rng(2).normal(size=(64, 64)).astype(np.float32)
    assert np.array_equal(wiener(noise).image, noise)


@pytest.mark.parametrize("shape", [(1, 64), (64, 3), (5, 5), (2, 40, 44), (1, 40, 44)])
def test_thin_images(shape):
    image = scene((64, 64))[: shape[-2], : shape[-1]] if len(shape) == 2 else scene((64, 64))[None, :40, :44]
    image = np.ascontiguousarray(np.broadcast_to(image, shape))
    filtered = wiener(image).image
    assert filtered.shape == shape
    assert np.isfinite(filtered).all()


def test_a_blank_image_stays_blank():
    assert not wiener(np.zeros((32, 40), np.float32)).image.any()


@pytest.mark.parametrize("shape", [(72, 88), (160, 180)])
def test_the_noise_is_read_off_the_image_to_a_few_per_cent(shape):
    clean = 20 * scene(shape) + 100
    levels = []
    for seed in range(8):
        noisy = np.random.default_rng(seed).poisson(np.clip(clean, 0, None)).astype(np.float32)
        levels.append(_corner_power(dctn(noisy - noisy.mean(), norm="ortho"), [0, 1])[0])
    assert np.mean(levels) == pytest.approx(clean.mean(), rel=0.05)
    assert np.std(levels) < 0.08 * clean.mean()


def test_the_noise_of_a_mean_of_resampled_frames():
    """Splines took the noise away from high frequencies: what is left there says little about the rest."""
    clean, rng = scene((128, 140), 1.3), np.random.default_rng(3)
    shifts = rng.uniform(-1, 1, (24, 2))
    noise = np.mean(
        [warp_frame(rng.normal(0, 2.0, clean.shape).astype(np.float32), shift_matrix(s), fill="edge") for s in shifts],
        axis=0,
    )
    filtered = {
        resampled: wiener((clean + noise).astype(np.float32), 4.0 / len(shifts), resampled=resampled).image
        for resampled in (True, False)
    }
    inner = (slice(4, -4), slice(4, -4))
    excess = {k: abs(float((f * clean)[inner].mean() / (f * f)[inner].mean()) - 1) for k, f in filtered.items()}
    assert excess[True] < 0.02
    assert excess[True] < excess[False]
    errors = {k: float(((f - clean)[inner] ** 2).mean()) for k, f in filtered.items()}
    assert errors[True] < errors[False]


def shift_matrix(shift):
    matrix = np.eye(3)
    matrix[:2, 2] = shift
    return matrix


def slope(image, axis):
    """Return that of a cubic spline, repeated beyond the borders."""
    w = 2 * np.pi * np.fft.fftfreq(image.shape[axis])
    line = (3j * np.sin(w) / (2 + np.cos(w))).reshape([-1 if a == axis else 1 for a in range(image.ndim)])
    return np.fft.ifft(np.fft.fft(image, axis=axis) * line, axis=axis).real


@pytest.mark.parametrize("known", [True, False])
def test_what_is_left_of_the_noise(known):
    """Its variance, and how its slopes go with those of the noise before; the difference of two holds no scene."""
    clean, rng = 2 * scene((160, 180)), np.random.default_rng(5)
    noises = rng.normal(0, 1.0, (2, *clean.shape)).astype(np.float32)
    one, other = (wiener(clean + noise, 1.0 if known else None) for noise in noises)
    left, noise = (one.image - other.image) / np.sqrt(2), (noises[0] - noises[1]) / np.sqrt(2)
    assert (left**2).mean() == pytest.approx((one.passed + other.passed) / 2, rel=0.15)
    both = (one.slope_noise() + other.slope_noise()) / 2
    for axis, told in enumerate(both):
        assert (slope(left, axis) * slope(noise, axis)).mean() == pytest.approx(told, rel=0.15)
    after = (one.slope_noise(after=True) + other.slope_noise(after=True)) / 2
    for axis, told in enumerate(after):
        assert (slope(left, axis) ** 2).mean() == pytest.approx(told, rel=0.15)
    assert (left * noise).mean() == pytest.approx((one.value_noise() + other.value_noise()) / 2, rel=0.15)


def test_high_frequencies_of_noise_alone_do_not_pass():
    """Some per cent of their noise would have steeper slopes than a faint scene; a corner of them is low by chance."""
    clean = 8 * scene((256, 256), 6.0)
    for seed in range(6):
        noise = np.random.default_rng(seed).normal(0, 10.0, clean.shape).astype(np.float32)
        filtered = wiener(clean + noise).image
        high = dctn(filtered, norm="ortho")[128:, 128:]
        assert (high**2).mean() < 0.02**2 * 100
