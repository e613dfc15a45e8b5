"""How a scene answers to each motion of a reference: see `core.translation.response`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.generators import velocities
from stackalign.core.lucas_kanade import kernels
from stackalign.core.translation.response import ROWS, TELLING, USUAL, answered, of_motion_alone, scatter_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.translation.template import TranslationTemplate

    Array = NDArray[np.float64]

_NODES = 48  # pixels along an axis where the variance is looked up: motions are smooth, and weights cancel it


def response(
    images: TranslationTemplate, group: Array, flow: Array, middle: Array, radius: float, normal: Array
) -> tuple[Array, Array]:
    """Return the steps that a template asks for in response to a unit of each motion of the scene, and their spread.

    Each motion has its own: where a scene is fine it was flattened, where it is smooth its noise is steep.

    Parameters
    ----------
    images : TranslationTemplate
        The reference.
    group, flow : ndarray (K, d+1, d+1), (K, 3, 7)
        Generators, and the same as polynomials.
    middle, radius : ndarray (3,), float
        Of the coordinates in polynomials.
    normal : ndarray (K + 2, K + 2)
        Normal equations of the template.

    Returns
    -------
    response, spread : ndarray (K, K)
        See `answered`.
    """
    free, d, denoised = len(group), images.ndim, images.denoised
    told = np.array(images.shape) >= TELLING
    none = np.eye(free), np.sqrt(1 + images.heard) * np.eye(free)
    if denoised is None or not free or not told.any():
        return none
    slope_noise = np.where(told, denoised.slope_noise(), 0.0)
    every = max(images.basis.shape[2] // ROWS, 1)
    lost, weight = images.lost_slopes(), images.weight
    if not told.all():  # short axes answer as the others do
        shifts, along = np.zeros((d, d + 1, d + 1)), np.zeros((d, 3, kernels.TERMS))
        shifts[np.arange(d), np.arange(d), d] = 1.0
        along[np.arange(d), np.arange(3 - d, 3), 0] = 1.0
        more, own = kernels.cross_products(images.basis, lost, weight, along, middle, radius, every)
        added = np.tensordot(slope_noise, _noise(images, shifts), 1)
        ratios = np.diag(more - added)[told] / np.maximum(own[told], 1e-300)
        for axis in np.flatnonzero(~told):
            np.multiply(images.basis[axis], np.float32(max(ratios.mean(), USUAL - 1)), out=lost[axis])
    more, own = kernels.cross_products(images.basis, lost, weight, flow, middle, radius, every)
    noise = _noise(images, group)
    more -= np.tensordot(slope_noise, noise, 1)
    if not (own[told] > 0).all():
        return none
    known = of_motion_alone(normal, free)
    quiet = np.tensordot(denoised.slope_noise(after=True), noise, 1)
    return answered(known, more, quiet, images.frames, scatter_of(own[told], slope_noise[told], images))


def _noise(images: TranslationTemplate, group: Array) -> Array:
    """Return what noise whose slopes have variance 1 along one axis adds to the products of all motions, (d, K, K)."""
    shape = images.shape
    nodes = tuple(slice(n % (s := max(n // _NODES, 1)) // 2 + s // 2, n, s) for n in shape)
    weight, value = (a.reshape(shape)[nodes] for a in (images.weight, images.values))
    share = images.noise.variance(value + np.float32(images.level)).astype(float) * weight / images.frames
    share *= images.weight.size / share.size
    places = np.stack(
        np.meshgrid(*(np.arange(n)[s] for n, s in zip(shape, nodes, strict=True)), indexing="ij"), axis=-1
    )
    flow = velocities(group, places.reshape(-1, len(shape)).astype(float)) * np.sqrt(share.reshape(-1))[:, None, None]
    return np.asarray(np.einsum("nak,nal->akl", flow, flow, optimize=True))
