"""How steps and standard errors change where noise of a reference makes its slopes too steep, or its filter too flat.

Slopes of a reference are those of the scene and of noise, both filtered; a frame answers with the slopes of the scene
alone (errors in variables: Fuller, Measurement Error Models, 1987, section 1.1). The products of both are those with
the slopes of the reference as it came, less what the noise of both adds, which is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.translation.template import TranslationTemplate

    Array = NDArray[np.float64]

ROWS = 128  # of a reference that tell enough
TELLING = 16  # px: a shorter axis tells too little
USUAL = 0.15  # how far a response is from 1; the least, too
_UNSURE = 0.03  # of the noise: how well it is known


def answered(known: Array, more: Array, quiet: Array, frames: float, scatter: float) -> tuple[Array, Array]:
    """Return the steps (K, K) that a reference asks for in response to a unit of each motion, and the spread of these.

    Parameters
    ----------
    known : ndarray (K, K)
        Products of the slopes along all motions, gain and offset being solved with them.
    more : ndarray (K, K)
        What those with the slopes of the scene have more.
    quiet : ndarray (K, K)
        What noise adds to ``known``.
    frames : float
        Averaged into the reference.
    scatter : float
        Of ``more``, in units of ``known``: what is known worse than responses usually differ from 1 counts less.

    Returns
    -------
    response : ndarray (K, K)
        The identity where the slopes are those of the scene.
    spread : ndarray (K, K)
        Deviation of a fit, where the inverse of ``known`` is the variance of one whose reference is free of noise. The
        noise of the reference is heard by slopes of the scene alone: noise does not correlate with its own slopes.
    """
    values, vectors = np.linalg.eigh(known)
    sure = values > 1e-9 * values[-1]
    unit, back = vectors[:, sure] / np.sqrt(values[sure]), vectors[:, sure] * np.sqrt(values[sure])
    asked = unit.T @ more @ unit / (1 + (scatter / USUAL) ** 2)
    size, axes = np.linalg.eigh(0.5 * (asked + asked.T))
    steps = (axes * np.maximum(1 + size, USUAL)) @ axes.T
    noisy, ways = np.linalg.eigh(unit.T @ quiet @ unit)
    heard = (ways * np.sqrt(1 + np.clip(1 - noisy, 0, 1) / frames)) @ ways.T
    unknown = np.eye(len(known)) - unit @ back.T
    return unknown + unit @ steps @ back.T, unknown + unit @ np.linalg.solve(steps, heard) @ back.T


def of_motion_alone(normal: Array, count: int) -> Array:
    """Return the products (K, K) of ``count`` motions, as gain and offset are solved with them; of normal equations."""
    rest = normal[:count, count:]
    return np.asarray(normal[:count, :count] - rest @ np.linalg.pinv(normal[count:, count:]) @ rest.T)


def scatter_of(own: Array, slope_noise: Array, images: TranslationTemplate) -> float:
    """Return how well a response is told by slopes whose products with themselves are ``own`` (d,)."""
    noisy = slope_noise * np.count_nonzero(images.weight) / images.frames
    return float(np.hypot(1 / np.sqrt(own), _UNSURE * noisy / own).mean())


def spread_of_shifts(images: TranslationTemplate) -> Array:
    """Return the deviation (d, d) of shifts in units of that to a reference free of noise; see `answered`."""
    d, denoised = images.ndim, images.denoised
    told = np.flatnonzero(np.array(images.shape) >= TELLING)
    even: Array = np.sqrt(1 + images.heard) * np.eye(d)
    if denoised is None or not len(told):
        return even
    rows = (slice(None), slice(None, None, max(images.weight.shape[1] // ROWS, 1)))
    weight, count = images.weight[rows], np.count_nonzero(images.weight) / images.frames
    steep = [images.basis[axis][rows] * weight for axis in told]
    lost, share = images.lost_slopes(), images.weight.size / weight.size
    more = np.array([[np.vdot(a, lost[axis][rows]) for axis in told] for a in steep]) * share
    own = images.normal[told, told]
    known = of_motion_alone(images.normal, d)[np.ix_(told, told)]
    if not (own > 0).all():
        return even
    noise, after = denoised.slope_noise()[told], denoised.slope_noise(after=True)[told]
    _, spread = answered(
        known, more - np.diag(noise * count), np.diag(after * count), images.frames, scatter_of(own, noise, images)
    )
    even[np.ix_(told, told)] = spread
    even[[k for k in range(d) if k not in told]] *= np.diag(spread).mean() / np.sqrt(1 + images.heard)
    return even
