"""Random renderings of a colour image that keep its structure and little else: what other modalities might show.

All take and return float32 images; brightness of one channel runs from about 0 to 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.warping.resample import warp_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Image = NDArray[np.float32]


def random_rendering(colours: Image, rng: np.random.Generator, strength: float = 1.0) -> Image:
    """Show an image as another modality might.

    Parameters
    ----------
    colours : ndarray (y, x, 3), float32
        From 0 to 1.
    rng : Generator
    strength : float
        0 leaves the mean of the channels, 1 is the full range of changes; between them, fewer are made.

    Returns
    -------
    ndarray (y, x), float32
        About 0 to 1, noise may go beyond.
    """

    def happens(chance: float) -> bool:
        return bool(rng.random() < chance * strength)

    image = mixed_channels(colours, rng) if happens(0.9) else colours.mean(-1)
    if strength > 0:
        image = stretched(image)  # so that noise and shadows are to scale
    kind = rng.random()
    if kind < 0.55 * strength:
        image = random_curve(image, rng, knots=int(rng.integers(3, 9)))
    elif kind < 0.65 * strength:
        image = edges(image, float(rng.uniform(0.6, 2.0)))
    elif kind < 0.75 * strength:
        image = local_contrast(image, float(rng.uniform(3, 16)))
    if happens(0.45):
        image = 1.0 - image
    if happens(0.4):
        image = image * random_field(image.shape, rng, 0.4, 1.6)
    if happens(0.25):
        image = cast_shadow(image, rng)
    if happens(0.35):
        image = dropout(image, rng)
    if happens(0.3):
        image = image + rng.uniform(0.02, 0.25) * texture(image.shape, rng)
    if happens(0.6):
        image = smooth(image, float(rng.uniform(0.3, 2.2)))
    if happens(0.3):
        image = image + np.float32(rng.uniform(0.3, 1.5)) * (image - smooth(image, 1.5))
    if happens(0.8):
        noise = rng.standard_normal(image.shape, np.float32)
        image = image + np.float32(rng.uniform(0.0, 0.12)) * noise
    if happens(0.2):
        levels = rng.integers(6, 40)
        image = np.round(image * levels) / np.float32(levels)
    return np.asarray(image, np.float32)


def mixed_channels(colours: Image, rng: np.random.Generator) -> Image:
    """Return a random mixture of the channels; weights may be negative. Stretched to 0 to 1."""
    weights = rng.normal(0.25, 0.75, 3).astype(np.float32)
    return stretched(colours @ weights)


def random_curve(image: Image, rng: np.random.Generator, knots: int = 5) -> Image:
    """Map brightness by a random curve through ``knots`` points; it need not be monotonic."""
    heights = rng.uniform(0, 1, knots)
    places = np.linspace(0, 1, knots)
    places[1:-1] += rng.uniform(-0.4, 0.4, knots - 2) / (knots - 1)
    return np.interp(smooth(image, float(rng.uniform(0, 0.8))), places, heights).astype(np.float32)


def edges(image: Image, sigma: float) -> Image:
    """Return the length of the gradient at a scale of ``sigma`` pixels, the root of it, 0 to 1."""
    soft = smooth(image, sigma)
    slope_y, slope_x = np.gradient(soft)
    return stretched(np.sqrt(np.hypot(slope_y, slope_x)))


def local_contrast(image: Image, sigma: float) -> Image:
    """Return the deviation from the local mean in units of the local spread, squeezed to 0 to 1."""
    apart = image - smooth(image, sigma)
    spread = np.sqrt(smooth(apart * apart, sigma)) + np.float32(0.02)
    return np.asarray(0.5 + 0.25 * np.clip(apart / spread, -2, 2), np.float32)


def cast_shadow(image: Image, rng: np.random.Generator) -> Image:
    """Darken or brighten one to three half planes with soft borders, and what lies in all of them."""
    y, x = np.indices(image.shape, np.float32)
    mask = np.ones(image.shape, np.float32)
    for _ in range(rng.integers(1, 4)):
        angle = rng.uniform(0, 2 * np.pi)
        offset = rng.uniform(0.2, 0.8, 2) * image.shape
        across = np.float32(np.cos(angle)) * (y - np.float32(offset[0])) + np.float32(np.sin(angle)) * (
            x - np.float32(offset[1])
        )
        mask *= np.clip(across / np.float32(rng.uniform(0.5, 6)) + 0.5, 0, 1)
    return np.asarray(image * (1 + np.float32(rng.uniform(-0.8, 0.8)) * mask), np.float32)


def dropout(image: Image, rng: np.random.Generator) -> Image:
    """Let the structure vanish in places: only a blur of it, a flat patch or noise is left there."""
    field = random_field(image.shape, rng, 0, 1)
    hard = np.clip((field - np.float32(rng.uniform(0.5, 0.85))) * 12, 0, 1)
    what = rng.random()
    if what < 0.5:
        other = smooth(image, float(rng.uniform(4, 10)))
    elif what < 0.8:
        other = np.full_like(image, rng.uniform(0, 1))
    else:
        other = np.float32(0.5) + np.float32(0.5) * texture(image.shape, rng)
    return np.asarray(image + hard * (other - image), np.float32)


def texture(shape: tuple[int, ...], rng: np.random.Generator) -> Image:
    """Return noise of one grain between 1 and 12 pixels, spread about 1/2, mean 0."""
    grain = float(rng.uniform(1, 12))
    coarse = [max(int(np.ceil(n / grain)) + 2, 4) for n in shape]
    return np.asarray(_enlarged(rng.standard_normal(coarse, np.float32), shape) * np.float32(0.5), np.float32)


def random_field(shape: tuple[int, ...], rng: np.random.Generator, low: float, high: float) -> Image:
    """Return a smooth field between ``low`` and ``high``, 3 to 7 bumps along each axis."""
    knots = rng.uniform(low, high, (rng.integers(3, 8), rng.integers(3, 8))).astype(np.float32)
    return np.asarray(np.clip(_enlarged(knots, shape), low, high), np.float32)


def stretched(image: Image) -> Image:
    """Return the image with its 1st and 99th percentiles brought to 0 and 1, clipped."""
    low, high = np.percentile(image[::3, ::3], (1, 99))
    return np.asarray(np.clip((image - np.float32(low)) / np.float32(max(high - low, 1e-3)), 0, 1), np.float32)


def smooth(image: Image, sigma: float) -> Image:
    """Return a Gaussian blur of ``sigma`` pixels."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(image, sigma, truncate=3.0), np.float32) if sigma > 0.15 else image


def _enlarged(coarse: Image, shape: tuple[int, ...]) -> Image:
    scale = [(n - 1) / (m - 1) for n, m in zip(shape, coarse.shape, strict=True)]
    return np.asarray(warp_frame(coarse, np.diag([*scale, 1.0]), order=3, fill="edge", output_shape=shape))
