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

from stackalign.core.generators import exponential, moved_points, velocities
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
_SMOOTHER = 1.5  # the same where few frames show a place
_UNHEARD = 0.1  # of the weight of a pixel: one that has less shows something else
_MOST_EXCESS = 10.0  # times a stated error that it may be off, or too large
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


def place_together(frames: Sequence[PlacedFrame], group: Array, *, beyond: bool = False) -> Image:
    """Place frames by each other, and return the scene that they show, their mean.

    Parameters
    ----------
    frames : sequence of PlacedFrame
        They lie roughly right; matrices, brightnesses and errors are replaced. The median frame stays where it is.
    group : ndarray (K, d+1, d+1)
        Generators of the motions, see `generators.generators`.
    beyond : bool
        Whether what frames show outside the field counts, up to a field away; else only what they show of it. Few show
        that, and of a faint scene their mean shows slopes of noise above all: it is smoothed more, and errors count it.

    Returns
    -------
    ndarray of float32
        NaN where no frame shows anything.
    """
    swing, smooth = velocities(group, corners(frames[0].image.shape)), _SMOOTHER if beyond else _SMOOTH
    for _ in range(_STEPS):
        region = _region(frames, beyond)
        scene, way = _step(frames, group, swing, *region, smooth)
        if all(w < _SETTLED * f.error for w, f in zip(way, frames, strict=True)):
            break
    if beyond:
        for f, more in zip(frames, _excess(*_laid(frames, *region), group, region[0], smooth), strict=True):
            f.shift_error, f.error = f.shift_error * more, f.error * more
    return scene


def _region(frames: Sequence[PlacedFrame], beyond: bool) -> tuple[Array, tuple[int, ...]]:
    """Return where the scene that is solved for begins, and its shape."""
    field = np.array(frames[0].image.shape)
    if not beyond:
        return np.zeros(len(field)), tuple(field.tolist())
    points = np.array([moved_points(f.matrix, corners(f.image.shape)) for f in frames])
    low = np.clip(np.floor(points.min((0, 1))), -field, 0)
    high = np.clip(np.ceil(points.max((0, 1))) + 1, field, 2 * field)
    return low, tuple((high - low).astype(int).tolist())


def _step(
    frames: Sequence[PlacedFrame], group: Array, swing: Array, origin: Array, shape: tuple[int, ...], smooth: float
) -> tuple[Image, Array]:
    """Take one Gauss-Newton step of all frames; returns the scene before, and how far corners went (n,), rms, px."""
    laid, weight = _laid(frames, origin, shape)
    scene = _mean(laid, weight)
    weight = _robust(laid, weight, scene)
    scene, total = _mean(laid, weight), weight.sum(0)
    changes, known, level = _changes(_smoothed(scene, smooth), group, origin)
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


def _laid(frames: Sequence[PlacedFrame], origin: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return frames on the grid of the scene, in its brightness, and the inverse variance of their pixels."""
    laid = np.empty((len(frames), *shape))
    for f, to in zip(frames, laid, strict=True):
        image = (f.image - np.float32(f.offset)) / np.float32(f.gain)
        to[...] = warp_frame(image, f.matrix, order=3, fill="nan", output_shape=shape, origin=origin)
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


def _changes(scene: Array, group: Array, origin: Array) -> tuple[Array, NDArray[np.bool_], float]:
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
    slopes = np.stack([np.gradient(scene, axis=a) if n > 1 else 0 * scene for a, n in enumerate(scene.shape)], -1)
    known = np.isfinite(slopes).all(-1) & there
    ways = velocities(group, np.argwhere(known) + origin)
    level = float(scene[known].mean()) if known.any() else 0.0
    light = scene[known] - level
    return np.column_stack([np.einsum("pi,pik->pk", slopes[known], ways), light, np.ones_like(light)]), known, level


def _smoothed(scene: Array, smooth: float) -> Array:
    """Return a scene less the noise of single pixels; NaN stay."""
    there = np.isfinite(scene)
    share = gaussian_filter(there.astype(float), smooth)
    return np.where(there, gaussian_filter(np.where(there, scene, 0.0), smooth) / np.maximum(share, 1e-3), np.nan)


def _excess(laid: Array, weight: Array, group: Array, origin: Array, smooth: float) -> Array:
    """Return how many times as far off each frame lies as the normal equations say, (n,).

    They take the slopes of the mean, noise and all, for the scene's. Two halves of the frames have the scene in common,
    and no noise: what the slopes of one answer to those of the other is what a frame answers to a motion, and the error
    is that of any estimating equation (White, Econometrica 50, 1, 1982).
    """
    robust = _robust(laid, weight, _mean(laid, weight))
    # robust weights draw each half towards the noise of the whole: they tell only what does not count
    axes = tuple(range(1, laid.ndim))
    weight = np.where(robust > _UNHEARD * robust.max(axes, keepdims=True), weight, 0.0)
    halves = [_mean(laid[k::2], weight[k::2]) for k in (0, 1)]
    images = [_smoothed(_mean(laid, weight), smooth), *(_smoothed(half, smooth) for half in halves), *halves]
    found = [_changes(image, group, origin) for image in images]
    known = np.logical_and.reduce([there for _, there, _ in found])
    whole, one, two, plain_one, plain_two = (changes[known[there]] for changes, there, _ in found)
    k, out = len(group), np.ones(len(laid))
    for i, own in enumerate(weight[:, known]):
        normal = whole.T @ (own[:, None] * whole)
        answer = one.T @ (own[:, None] * plain_two) + two.T @ (own[:, None] * plain_one)
        back = np.linalg.pinv((answer + answer.T) / 4)
        told, true = np.linalg.pinv(normal, hermitian=True), back @ normal @ back
        said = np.trace(told[:k, :k])
        if said > 0:  # else nothing is known that both halves show
            out[i] = np.clip(np.sqrt(np.trace(true[:k, :k]) / said), 1 / _MOST_EXCESS, _MOST_EXCESS)
    return out


def _inverse(normal: Array) -> Array:
    """Invert normal equations (n, K, n, K) that leave open what all frames have in common."""
    n, k = normal.shape[:2]
    flat = normal.reshape(n * k, n * k)
    scale = np.sqrt(np.maximum(np.diag(flat), 1e-30))
    common = np.tile(np.eye(k), (n, 1)) / scale[:, None]
    common /= np.linalg.norm(common, axis=0)
    whole = flat / scale[:, None] / scale[None] + common @ common.T + _LOOSE * np.eye(n * k)
    return (np.linalg.inv(whole) / scale[:, None] / scale[None]).reshape(normal.shape)
