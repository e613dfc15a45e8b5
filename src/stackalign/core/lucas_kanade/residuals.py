"""What is left between a frame and the template that it was laid on, at the frame's own pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.geometry import every_which
from stackalign.core.verdicts.motion_residuals import residuals

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.lucas_kanade.template import MotionTemplate

    Array = NDArray[np.float64]

SAMPLES = 4096  # pixels from which residual, correlation and noise of a frame are estimated
EVERYWHERE = np.zeros((1, 1, 1), np.float32)  # in place of a mask that is 1 at all pixels


def sampled_residuals(
    image: NDArray[np.float32],
    seen: NDArray[np.float32],
    template: MotionTemplate,
    matrix: Array,
    gain: float = 1.0,
    offset: float = 0.0,
    samples: int = SAMPLES,
) -> Array:
    """Return (model, residual) pairs (N, 2) at some thousand pixels of the frame's own grid, where noise is white.

    ``image`` is the frame less the template's level.
    """
    volume = np.ascontiguousarray(as_volume(image))
    step = every_which(volume.shape, samples)
    return np.asarray(
        residuals(volume, seen, template.coefficients, template.known, spatial(matrix), np.array([gain, offset]), step)
    )


def intensity_residuals(
    frame: NDArray[Any], template: MotionTemplate, matrix: Array, gain: float, offset: float, *, own: bool = False
) -> Array:
    """Return (intensity, residual) pairs (N, 2) in the units of the reference, for a fit of the noise.

    ``own``: the frame lies in the reference there.
    """
    images = template.images
    image = np.asarray(frame, np.float32)
    finite = np.isfinite(image)
    seen = EVERYWHERE if finite.all() else as_volume(finite.astype(np.float32))
    image = (np.where(finite, image, np.float32(0)) - np.float32(offset)) / np.float32(gain) - np.float32(images.level)
    pairs = sampled_residuals(image, seen, template, matrix)
    pairs[:, 0] += images.level
    pairs[:, 1] /= np.sqrt(images.left_over(own=own))
    return pairs


def spatial(matrix: Array) -> Array:
    """Return a (4, 4) matrix over (z, y, x, 1)."""
    if len(matrix) == 4:
        return np.ascontiguousarray(matrix, float)
    out = np.eye(4)
    out[1:, 1:] = matrix
    return out


def as_volume(image: NDArray[Any]) -> NDArray[Any]:
    """Return an image (y, x) as a volume of one plane; volumes as they are."""
    return image if image.ndim == 3 else image[None]
