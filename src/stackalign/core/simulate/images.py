"""Scenes that fill the frame: a random texture, or a photograph that ships with scikit-image, blurred by the PSF."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

from stackalign.core.simulate.field import Field
from stackalign.core.simulate.scene import extent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.simulate.parameters import Simulation
    from stackalign.core.transform_series import TransformSeries

    Array = NDArray[np.float64]

ROUGHNESS = 0.6  # standard deviation of the texture's logarithm before the blur
FADE = 24  # pixels over which a photograph's far borders flow into each other, out of sight


def draw_texture(simulation: Simulation, transforms: TransformSeries, rng: np.random.Generator) -> Field:
    """Draw a texture with structure at all scales: the exponential of a random field of amplitude 1/f, blurred.

    It is periodic: along each axis a quarter of a frame (at least 16 pixels) longer than what the frames see together,
    so that no frame continues at its opposite border, but at most three frames (64 pixels): beyond that it repeats.
    """
    low, high = extent(transforms, simulation.shape)
    size = [
        fft.next_fast_len(int(min(np.ceil(b - a) + 1 + max(n // 4, 16), max(3 * n, 64))), real=True)
        for a, b, n in zip(low, high, simulation.shape, strict=True)
    ]
    spectrum = fft.rfftn(rng.standard_normal(size, np.float32))
    axes = [fft.fftfreq(n) for n in size[:-1]] + [fft.rfftfreq(size[-1])]
    f2 = np.zeros(())
    for i, f in enumerate(axes):
        f2 = f2 + (f**2).reshape([-1 if i == j else 1 for j in range(len(axes))])
    f2.flat[0] = np.inf
    # flat below the eighth part of a frame: a few large clouds would hide the rest
    spectrum *= ((f2 + (8 / max(simulation.shape)) ** 2) ** (-len(size) / 4)).astype(np.float32)
    clouds = fft.irfftn(spectrum, size)
    texture = np.exp(clouds * (ROUGHNESS / max(float(clouds.std()), 1e-12)))
    return Field(texture, np.floor(low), simulation.shape, simulation.sigmas)


def cut_photograph(simulation: Simulation, transforms: TransformSeries) -> Field:
    """Cut the frame from the middle of a photograph; around it the photograph goes on, mirrored at its borders."""
    image = photograph(simulation.scene)
    middle = (np.asarray(image.shape) - np.asarray(simulation.shape)) // 2
    return window(image, middle, transforms, simulation.shape, simulation.sigmas)


def window(
    image: NDArray[np.floating],
    start: NDArray[np.integer],
    transforms: TransformSeries,
    shape: Sequence[int],
    sigmas: Sequence[float] | None,
) -> Field:
    """Return the part of an image that the frames see, continued by mirroring, as a periodic field.

    Parameters
    ----------
    image : (…, y, x)
    start : (d,) of int
        Pixel of the image at the reference's origin.
    transforms, shape
        The frames' views, moving -> reference.
    sigmas : tuple of float, optional
        Blur, pixels.
    """
    low, high = extent(transforms, shape)
    origin = np.zeros(image.ndim)
    for axis, n in enumerate(image.shape):
        reach = 4 if sigmas is None else int(np.ceil(5 * sigmas[axis]))
        first = int(np.floor(low[axis])) - reach
        length = int(np.ceil(high[axis])) + 1 + reach - first
        size = fft.next_fast_len(length + FADE, real=True)
        if size >= 2 * n:  # the mirrored image is periodic by itself
            first, length, size = 0, 2 * n, 2 * n
        origin[axis] = first
        inside = np.arange(first, first + size) + start[axis]
        before = inside - size
        weight = np.clip((np.arange(size) - length + 1) / (size - length + 1), 0, 1)
        weight = (weight**2 * (3 - 2 * weight)).reshape([-1 if i == axis else 1 for i in range(image.ndim)])
        faded = image.take(_mirrored(inside, n), axis)
        if size > length:
            faded = faded * (1 - weight) + image.take(_mirrored(before, n), axis) * weight
        image = faded
    return Field(image, origin, shape, sigmas)


def photograph(name: str) -> Array:
    """Return one of scikit-image's own images in grey, (y, x), 0 to 1; nothing is downloaded."""
    from skimage import color, data

    image = getattr(data, name)()
    if image.ndim == 3:
        return np.asarray(color.rgb2gray(image), float)
    return np.asarray(image, float) / 255


def _mirrored(index: NDArray[np.integer], n: int) -> NDArray[np.integer]:
    """Fold any index into 0 .. n-1, mirroring between pixels: ... 1 0 | 0 1 ... n-1 | n-1 ..."""
    folded = np.mod(index, 2 * n)
    return np.asarray(np.where(folded < n, folded, 2 * n - 1 - folded))
