"""Where frames lie that show different parts of a scene, worked out together with the scene.

A round that aligns every frame to the mean, and then takes the mean anew, brings a frame only as far as the others pull
it. Frames that all show the same settle at once; groups that have little in common creep towards each other, each
content with its own part of the mean, and no residual tells. Here the motions and brightnesses of all frames are solved
for in one system, from which the pixels of the scene are eliminated (Triggs et al., Bundle adjustment, LNCS 1883, 2000,
section 6.1): a step goes the whole way, and the inverse tells how well the frames fix each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter

from stackalign.core.generators import exponential, velocities
from stackalign.core.geometry import corners
from stackalign.core.warping.resample import warp_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Image = NDArray[np.float32]

_STEPS = 8
_SETTLED = 0.2  # standard errors: a step that is not worth another
_SMOOTH = 1.0  # pixels: what the noise of single ones adds to the slopes of the mean fixes no motion
_OUTLYING = 3.0  # standard deviations of a pixel that counts a quarter
_LOOSE = 1e-9  # of what fixes a frame alone: what fixes it less against the others does not


@dataclass(slots=True, eq=False)
class PlacedFrame:
    """A frame and where it lies.

    Attributes
    ----------
    image : ndarray of float32 (y, x) or (z, y, x)
        NaN do not count.
    noise : float
        Variance of its noise.
    matrix : ndarray (d+1, d+1)
        Frame -> scene, pixels.
    gain, offset : float
        Its brightness against that of the scene.
    shift_error : ndarray (d,)
        Standard errors of the shift of its centre against that of all frames, pixels; NaN until asked for.
    error : float
        The same of its corners, rms.
    """

    image: Image
    noise: float
    matrix: Array
    gain: float
    offset: float
    shift_error: Array = field(default_factory=lambda: np.full(1, np.nan))
    error: float = np.nan


def place_together(frames: Sequence[PlacedFrame], group: Array) -> Image:
    """Place frames by each other, and return the scene that they show, their mean.

    Parameters
    ----------
    frames : sequence of PlacedFrame
        They lie roughly right; matrices, brightnesses and errors are replaced. The median frame stays where it is.
    group : ndarray (K, d+1, d+1)
        Generators of the motions, see `generators.generators`.

    Returns
    -------
    ndarray of float32
        NaN where no frame shows anything.
    """
    swing = velocities(group, corners(frames[0].image.shape))
    for _ in range(_STEPS):
        scene, way = _step(frames, group, swing)
        if all(w < _SETTLED * f.error for w, f in zip(way, frames, strict=True)):
            break
    return scene


def _step(frames: Sequence[PlacedFrame], group: Array, swing: Array) -> tuple[Image, Array]:
    """Take one Gauss-Newton step of all frames; returns the scene before, and how far corners went (n,), rms, px."""
    laid, weight = _laid(frames)
    scene = _mean(laid, weight)
    weight = _robust(laid, weight, scene)
    scene, total = _mean(laid, weight), weight.sum(0)
    changes, known, level = _changes(scene, group)
    laid, weight, total = laid[:, known], weight[:, known], total[known]
    n, k, motions = len(frames), changes.shape[1], len(group)
    right = (weight * (laid - scene[known])) @ changes
    normal = np.empty((n, k, n, k))
    own = weight / np.sqrt(total)
    for a in range(k):
        for b in range(a + 1):
            both = changes[:, a] * changes[:, b]
            block = -(own * both) @ own.T
            block[np.diag_indices(n)] += weight @ both
            normal[:, a, :, b] = normal[:, b, :, a] = block
    inverse = _inverse(normal)
    steps = np.tensordot(inverse, right, 2)
    motion = steps[:, :motions] - np.median(steps[:, :motions], axis=0)
    for f, step, (gain, offset) in zip(frames, motion, steps[:, motions:], strict=True):
        f.matrix = exponential(group, step) @ f.matrix
        f.offset += f.gain * (offset - gain * level)
        f.gain *= max(1 + gain, 0.1)
    # against the mean of all frames: what moves them together is not fixed
    rest = inverse[:, :motions, :, :motions]
    rest = rest - rest.mean(0)
    rest = rest - rest.mean(2)[:, :, None]
    d = swing.shape[1]
    for i, f in enumerate(frames):
        f.shift_error = np.sqrt(np.maximum(np.diag(rest[i, :d, i, :d]), 0.0))
        f.error = float(np.sqrt(max(np.einsum("cik,kl,cil->c", swing, rest[i, :, i], swing).mean(), 0.0)))
    return scene.astype(np.float32), np.sqrt((np.einsum("cik,nk->nci", swing, motion) ** 2).sum(-1).mean(-1))


def _laid(frames: Sequence[PlacedFrame]) -> tuple[Array, Array]:
    """Return frames on the grid of the scene, in its brightness, and the inverse variance of their pixels."""
    laid = np.array([
        warp_frame((f.image - np.float32(f.offset)) / np.float32(f.gain), f.matrix, order=3, fill="nan")
        for f in frames
    ], float)  # fmt: skip
    known = np.isfinite(laid)
    precision = np.array([f.gain**2 / max(f.noise, 1e-30) for f in frames])
    return np.where(known, laid, 0.0), known * precision.reshape(-1, *(1,) * (laid.ndim - 1))


def _mean(laid: Array, weight: Array) -> Array:
    """Return the weighted mean of frames; NaN where none shows anything."""
    total = weight.sum(0)
    return np.where(total > 0, (weight * laid).sum(0) / np.maximum(total, 1e-30), np.nan)


def _robust(laid: Array, weight: Array, scene: Array) -> Array:
    """Return the weights less those of pixels that show something else (Geman & McClure, 1985).

    What is left of a frame beyond its noise, as reduced frames are not read exactly, counts as noise.
    """
    out = np.zeros_like(weight)
    for own, image, to in zip(weight, laid, out, strict=True):
        known = own > 0
        if not known.any():
            continue
        rest = image[known] - scene[known]
        spread = 1.4826 * float(np.median(np.abs(rest - np.median(rest))))
        precision = 1 / max(spread**2, 1 / float(own.max()))
        to[known] = precision / np.square(1 + np.square(rest) * precision / _OUTLYING**2)
    return out


def _changes(scene: Array, group: Array) -> tuple[Array, NDArray[np.bool_], float]:
    """Return how pixels of a scene (P,) change with each motion, a gain and an offset (P, K + 2).

    Returns
    -------
    changes : ndarray (P, K + 2)
    known : ndarray of bool, the scene's shape
        Which pixels these are.
    level : float
        The brightness that a gain leaves as it is.
    """
    there = np.isfinite(scene)
    share = gaussian_filter(there.astype(float), _SMOOTH)
    smooth = np.where(there, gaussian_filter(np.where(there, scene, 0.0), _SMOOTH) / np.maximum(share, 1e-3), np.nan)
    slopes = np.stack([np.gradient(smooth, axis=a) if n > 1 else 0 * smooth for a, n in enumerate(scene.shape)], -1)
    known = np.isfinite(slopes).all(-1) & there
    ways = velocities(group, np.argwhere(known).astype(float))
    level = float(smooth[known].mean()) if known.any() else 0.0
    light = smooth[known] - level
    return np.column_stack([np.einsum("pi,pik->pk", slopes[known], ways), light, np.ones_like(light)]), known, level


def _inverse(normal: Array) -> Array:
    """Invert normal equations (n, K, n, K) that leave open what all frames have in common."""
    n, k = normal.shape[:2]
    flat = normal.reshape(n * k, n * k)
    scale = np.sqrt(np.maximum(np.diag(flat), 1e-30))
    common = np.tile(np.eye(k), (n, 1)) / scale[:, None]
    common /= np.linalg.norm(common, axis=0)
    whole = flat / scale[:, None] / scale[None] + common @ common.T + _LOOSE * np.eye(n * k)
    return (np.linalg.inv(whole) / scale[:, None] / scale[None]).reshape(normal.shape)
