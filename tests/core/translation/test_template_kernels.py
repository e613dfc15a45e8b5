"""Passes over a reference, against their slow and simple counterparts."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from stackalign.core.translation import equation_kernels, projection_kernels, template_kernels
from stackalign.core.translation.template import _coefficients


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
    c, front = _coefficients(np.sin(phase).astype(np.float32).reshape((1,) * (3 - d) + shape), d), int(d == 3)
    out = np.empty((d + 1, *(1,) * (3 - d), *shape), np.float32)
    rows = out.shape[1] * out.shape[2]
    template_kernels.slopes(c, front, out, 0, rows // 3)
    template_kernels.slopes(c, front, out, rows // 3, rows)
    inner = (slice(6, -6),) * d  # the mirrored border bends the spline beside it
    for k in range(d):
        wanted = (0.3 + 0.1 * k) * np.cos(phase)
        assert np.abs(out[k].reshape(shape) - wanted)[inner].max() < 2e-3
    assert np.abs(out[d].reshape(shape) - np.sin(phase)).max() < 1e-5
    weight = np.random.default_rng(0).random(out.shape[1:]).astype(np.float32)
    weighted = np.empty_like(weight)
    for k in range(d):
        template_kernels.weighted_slope(c, front, k, weight, weighted)
        np.testing.assert_allclose(weighted, weight * out[k], rtol=1e-6)
    every = np.concatenate([out, np.ones_like(out[:1])]).reshape(d + 2, -1).astype(float)
    wanted = (every * weight.ravel()) @ every.T
    found = sum(
        template_kernels.slope_products(c, front, out[d], weight, *b) for b in ((0, rows // 3), (rows // 3, rows))
    )
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
    """Return a smooth image, slopes, values and 1 (K, z, y, x), and some weighted images in whole units."""
    rng = np.random.default_rng(seed)
    d = 3 - (shape[0] == 1)
    c = rng.normal(size=shape).astype(np.float32)
    plain = np.empty((d + 1, *shape), np.float32)
    template_kernels.slopes(c, 0, plain, 0, shape[0] * shape[1])
    weight, counted = rng.random(shape).astype(np.float32), rng.random(shape) > 0.3
    plain = np.concatenate([plain, np.ones_like(plain[:1])])
    phi = plain * weight * counted
    coarse, scale = np.empty(phi.shape, np.int16), np.empty(len(phi))
    for k, image in enumerate(phi):
        scale[k] = projection_kernels.quantised(image, counted, coarse[k])
    assert np.abs(coarse * scale[:, None, None, None] - phi).max() <= 0.501 * scale.max()
    return c, plain, coarse


@pytest.mark.parametrize("values", ["of the spline", "smoothed", "as they are"])
@pytest.mark.parametrize("shape", [(1, 24, 90), (7, 12, 40)])
def test_products_of_blocks(shape, values):
    c, plain, phi = weighted_images(shape)
    count, solid, raw = len(phi), shape[0] > 1, np.zeros((0, 1, 1), np.float32)
    if values != "of the spline":
        raw = np.random.default_rng(5).normal(size=shape).astype(np.float32)
        smooth = np.empty((count - 1, *shape), np.float32)
        template_kernels.slopes(raw, 0, smooth, 0, shape[0] * shape[1])
        plain[-2] = smooth[-1] if values == "smoothed" else raw
    planes = np.array([0, 1, 4, 7] if solid else [0, 1])
    rows, columns = np.array([0, 1, 5, 12, shape[1]][: 4 if solid else 5]), np.array([0, 1, 12, 30, 39, shape[2]])
    out = np.full((2, len(planes) - 1, len(rows) - 1, 5, count, count), np.nan)
    cuts = (
        [[[0, 0], [1, len(rows) - 1]], [[1, 0], [3, len(rows) - 1]]] if solid else [[[0, 0], [1, 1]], [[0, 1], [1, 4]]]
    )
    for part in cuts:
        equation_kernels.block_products(
            c, 0, raw, values == "smoothed", phi, 4, planes, rows, columns, np.array(part), *out
        )
    for whole, used in zip(out, (np.ones(shape[1], bool), np.arange(shape[1]) % 4 == 2), strict=True):
        for k, i, j in np.ndindex(*whole.shape[:3]):
            z, x = slice(planes[k], planes[k + 1]), slice(columns[j], columns[j + 1])
            y = np.arange(rows[i], rows[i + 1])[used[rows[i] : rows[i + 1]]]
            wanted = np.einsum("izyx,jzyx->ij", phi[:, z, y, x].astype(float), plain[:, z, y, x])
            np.testing.assert_allclose(whole[k, i, j], wanted, atol=1e-5 * 32767 * 24 * 90**0.5)
