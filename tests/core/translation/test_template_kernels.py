"""Passes over a reference, against their slow and simple counterparts."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from stackalign.core.translation import projection_kernels, template_kernels
from stackalign.core.warping.resample import spline_coefficients


@pytest.mark.parametrize("shape", [(1, 30, 41), (9, 20, 23)])
def test_erosion(shape):
    known = np.random.default_rng(0).random(shape) > 0.02
    out = np.empty_like(known)
    reach = np.array([min(1, shape[0] - 1), 2, 2])
    template_kernels.eroded(known, reach, out)
    np.testing.assert_array_equal(out, binary_erosion(known, np.ones(2 * reach + 1), border_value=1))


@pytest.mark.parametrize("shape", [(24, 30), (16, 18, 20)])
def test_slopes_of_waves(shape):
    d = len(shape)
    grid = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    phase = sum((0.3 + 0.1 * k) * g for k, g in enumerate(grid))
    c = spline_coefficients(np.sin(phase).astype(np.float32), 3)
    out = np.empty((d + 1, *(1,) * (3 - d), *shape), np.float32)
    rows = out.shape[1] * out.shape[2]
    template_kernels.slopes(c, 3, out, 0, rows // 3)
    template_kernels.slopes(c, 3, out, rows // 3, rows)
    inner = (slice(6, -6),) * d  # the mirrored border bends the spline beside it
    for k in range(d):
        wanted = (0.3 + 0.1 * k) * np.cos(phase)
        assert np.abs(out[k].reshape(shape) - wanted)[inner].max() < 2e-3
    assert np.abs(out[d].reshape(shape) - np.sin(phase)).max() < 1e-5
    weight = np.random.default_rng(0).random(out.shape[1:]).astype(np.float32)
    weighted = np.empty_like(weight)
    for k in range(d):
        template_kernels.weighted_slope(c, 3, k, weight, weighted)
        np.testing.assert_allclose(weighted, weight * out[k], rtol=1e-6)
    every = np.concatenate([out, np.ones_like(out[:1])]).reshape(d + 2, -1).astype(float)
    wanted = (every * weight.ravel()) @ every.T
    found = sum(template_kernels.slope_products(c, 3, out[d], weight, *b) for b in ((0, rows // 3), (rows // 3, rows)))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)


def test_weights_and_moments_are_those_of_the_pixels_that_count():
    rng = np.random.default_rng(1)
    image = rng.normal(size=(1, 20, 30)).astype(np.float32)
    counted = rng.random((1, 20, 30)) > 0.3
    weight = np.empty((1, 20, 30), np.float32)
    noise, nothing = np.array([4.0, 0.5, 0.1]), np.zeros((1, 1, 1), np.float32)
    template_kernels.weigh(image, counted, nothing, 2.0, noise, 0.2, weight)
    variance = np.maximum(4 + 0.5 * (image + 2), 0.2)
    np.testing.assert_allclose(weight, np.where(counted, 1 / variance, 0), rtol=1e-6)
    assert template_kernels.mean_variance(image, counted, 2.0, noise) == pytest.approx(variance[counted].mean())
    assert template_kernels.moments(image, counted) == pytest.approx(
        (image[counted].mean(dtype=float), image[counted].std(dtype=float))
    )


def weighted_images(shape, seed=1):
    """Return plain images, weighted ones in whole units, their scale, and both as they were."""
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(len(shape) + 1 - (shape[0] == 1), *shape)).astype(np.float32)
    weight, counted = rng.random(shape).astype(np.float32), rng.random(shape) > 0.3
    phi = np.concatenate([basis * weight, weight[None]]) * counted
    coarse, scale = np.empty(phi.shape, np.int16), np.empty(len(phi))
    for k, image in enumerate(phi):
        scale[k] = projection_kernels.quantised(image, counted, coarse[k])
    assert np.abs(coarse * scale[:, None, None, None] - phi).max() <= 0.501 * scale.max()
    return basis, coarse, scale, phi, np.concatenate([basis, np.ones_like(basis[:1])])


def test_products_of_a_volume():
    basis, coarse, scale, phi, plain = weighted_images((5, 9, 40))
    wanted = np.einsum("izyx,jzyx->ij", phi.astype(float), plain)
    found = sum(projection_kernels.gram(basis, coarse, scale, 1, *b) for b in ((0, 20), (20, 45)))
    tolerance = 2e-4 * np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, atol=tolerance)


@pytest.mark.parametrize("every", [1, 4])
def test_products_of_the_blocks_of_a_plane(every):
    basis, coarse, _, _, plain = weighted_images((1, 24, 90))
    rows, columns = np.array([0, 1, 10, 24]), np.array([0, 1, 12, 50, 89, 90])
    out = np.full((3, 5, 4, 4), np.nan)
    for part in ((0, 1), (1, 3)):
        projection_kernels.block_products(basis, coarse, every, rows, columns, *part, out)
    used = np.arange(24) % every == every // 2
    for i in range(3):
        for j in range(5):
            block = (slice(None), 0, slice(rows[i], rows[i + 1]), slice(columns[j], columns[j + 1]))
            kept = used[rows[i] : rows[i + 1]]
            wanted = np.einsum("iyx,jyx->ij", coarse[block][:, kept].astype(float), plain[block][:, kept])
            np.testing.assert_allclose(out[i, j], wanted, atol=1e-5 * np.abs(coarse).max() * 24 * 90**0.5)
