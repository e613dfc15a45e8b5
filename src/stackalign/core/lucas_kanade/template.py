"""A reference made ready for gradient alignment: the motions of a model as polynomials, and their normal equations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.generators import generators, velocities
from stackalign.core.geometry import centre, corners
from stackalign.core.lucas_kanade import kernels
from stackalign.core.lucas_kanade.response import response
from stackalign.core.warping.kernels import PAD
from stackalign.core.warping.resample import spline_coefficients

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.transform import TransformModel
    from stackalign.core.translation.template import TranslationTemplate

    Array = NDArray[np.float64]

_TOLERANCE = 5e-4  # px at the corners that may be left to go, where the noise is not known
_NEGLIGIBLE = 0.08  # standard errors at the corners that may be left, where it is
_FINEST, _COARSEST = 1e-5, 2e-3  # px: bounds of that
_NOTHING = np.zeros((1, 1, 1), np.float32)
_SPARSE = 4  # one row of as many is used until the motion is nearly there
_ROWS = 192  # of a template with fewer all are


@dataclass(frozen=True, slots=True, eq=False)
class MotionTemplate:
    """A reference with the steepest-descent images of a model, and their normal equations.

    Attributes
    ----------
    images : TranslationTemplate
        Values, gradients and weights.
    phi : float32 (d + 2, z, y, x)
        Gradients, values and 1, each times the weight.
    coefficients, known : float32 (z, y, x)
        Spline coefficients of the values, and 1 where a pixel counts.
    model : TransformModel
        The family.
    group : ndarray (K, d+1, d+1)
        Its generators about the centre.
    flow : ndarray (K, 3, 7)
        The same as polynomials, see `lucas_kanade_kernels`.
    middle, radius : ndarray (3,), float
        Of the coordinates in polynomials.
    solid_group : ndarray (K, 4, 4)
        The generators over (z, y, x, 1).
    points, swing : ndarray (2**d, 3), (2**d * d, K)
        Corners, and how their coordinates move along each generator.
    lost : float32 (z, y, x)
        What a single noisy frame has more than the values, which its filter bends near the borders; else (1, 1, 1).
    noisy : float
        What noise adds to the product of the values and that, a unit of weight.
    whole : ndarray (K + 2, K + 3)
        Products of all motions, values and 1 over all pixels, and with ``lost``.
    thin, every : ndarray (K + 2, K + 3), int
        The same over the first of ``every`` rows, those that are used first; ``every`` is 1 for small templates.
    response : ndarray (K, K)
        How far the first step goes for a unit of each motion: less than 1 if noise of the reference makes its slopes
        too steep, more if its filter makes them too flat.
    spread : ndarray (K, K)
        Deviation of a fit, in units of that to a reference free of noise; see `response`.
    tolerance : float
        Pixels at the corners that a fit may leave to go.
    tell_tails : bool
        Whether residuals hold noise alone, of a variance that the weights know: at full size.
    """

    images: TranslationTemplate
    phi: NDArray[np.float32]
    coefficients: NDArray[np.float32]
    known: NDArray[np.float32]
    model: TransformModel
    group: Array
    flow: Array
    middle: Array
    radius: float
    solid_group: Array
    points: Array
    swing: Array
    lost: NDArray[np.float32]
    noisy: float
    whole: Array
    thin: Array
    every: int
    response: Array
    spread: Array
    tolerance: float
    tell_tails: bool

    @classmethod
    def of(
        cls,
        images: TranslationTemplate,
        model: TransformModel,
        spacing: Sequence[float] | None = None,
        *,
        tell_tails: bool = True,
    ) -> MotionTemplate:
        """Prepare the motions of ``model``, rotations rigid in units of ``spacing``."""
        d, shape = images.ndim, images.shape
        middle = centre(shape)
        radius = max(float(np.linalg.norm(middle)), 1.0)
        group = generators(model, middle, radius, spacing)
        # along an axis of one or two pixels nothing has a slope: motions along or about it cannot be told
        blind = np.array([n < 3 for n in shape])
        back = np.eye(d + 1)
        back[:-1, -1] = middle
        about = np.linalg.inv(back) @ group @ back
        hidden = np.any(about[:, :-1][:, blind] != 0, axis=(1, 2)) | np.any(about[:, :, :-1][:, :, blind], axis=(1, 2))
        group = group[~hidden]
        flow = _polynomials(group, middle, radius)
        solid = np.zeros(3)
        solid[3 - d :] = middle
        lost, noisy = _NOTHING, 0.0
        if tell_tails and images.denoised is not None and images.frames == 1:
            lost, noisy = images.raw - images.values, images.value_noise()
        whole = _products(images, lost, flow, solid, radius, 1)
        every = _SPARSE if shape[-2] >= _ROWS else 1
        thin = _products(images, lost, flow, solid, radius, every) if every > 1 else whole
        edges = corners(shape)
        swing = velocities(group, edges).reshape(-1, len(group))
        tolerance, answers = _TOLERANCE, (np.eye(len(group)), np.sqrt(1 + images.heard) * np.eye(len(group)))
        if tell_tails:
            answers = response(images, group, flow, solid, radius, whole[:, :-1])
            bound = np.linalg.pinv(whole[:, :-1], hermitian=True)[: len(group), : len(group)]
            error = float(np.sqrt(max(np.einsum("nk,kl,nl->n", swing, bound, swing).max(), 0.0)))
            tolerance = float(np.clip(_NEGLIGIBLE * error, _FINEST, _COARSEST))
        points = np.zeros((len(edges), 3))
        points[:, 3 - d :] = edges
        spread = np.zeros((len(group), 4, 4))
        spread[:, 3 - d :, 3 - d :] = group
        coefficients = images.coefficients
        if d == 3:  # there they have planes to spare
            coefficients = np.ascontiguousarray(spline_coefficients(images.basis[-1], 3)[(slice(PAD, -PAD),) * 3])
        known = (images.weight > 0).astype(np.float32)
        phi = np.empty((d + 2, *images.weight.shape), np.float32)
        np.multiply(images.basis, images.weight, out=phi[:-1])
        phi[-1] = images.weight
        return cls(
            images,
            phi,
            coefficients,
            known,
            model,
            group,
            flow,
            solid,
            radius,
            spread,
            points,
            swing,
            lost,
            noisy,
            whole,
            thin,
            every,
            *answers,
            tolerance,
            tell_tails,
        )

    @property
    def ndim(self) -> int:
        """Spatial dimensions."""
        return self.images.ndim

    @property
    def normal(self) -> Array:
        """Normal equations of a frame that covers all of it, (K + 2, K + 2)."""
        return self.whole[:, :-1]

    def covariance(self) -> Array:
        """Return the Cramer-Rao bound of the parameters of a frame that covers all of it, (K, K)."""
        count = len(self.group)
        return np.asarray(np.linalg.pinv(self.normal, hermitian=True)[:count, :count])


def _products(
    images: TranslationTemplate, lost: NDArray[np.float32], flow: Array, middle: Array, radius: float, every: int
) -> Array:
    """Return the products of all motions, values and 1 over the first of ``every`` rows of a template."""
    total = np.zeros((len(flow) + 2, len(flow) + 3))
    rows = images.basis.shape[1] * images.basis.shape[2]
    spans = np.tile(np.array([0, images.basis.shape[3]]), (rows, 1))
    kernels.gram(images.basis, images.weight, lost, flow, middle, radius, spans, every, False, total)
    total[:, :-1] += np.triu(total[:, :-1], 1).T
    return total


def _polynomials(group: Array, middle: Array, radius: float) -> Array:
    """Return the velocities of all generators as polynomials of ``(x - middle) / radius``, (K, 3, 7)."""
    d = len(middle)
    there, back = np.eye(d + 1), np.eye(d + 1)
    there[:-1, -1], back[:-1, -1] = middle, -middle
    flow = np.zeros((len(group), 3, kernels.TERMS))
    for p, generator in enumerate(group):
        g = back @ generator @ there
        for a in range(d):
            row = flow[p, a + 3 - d]
            row[0] = g[a, -1]
            row[4 - d : 4] = g[a, :-1] * radius
            row[1 + a + 3 - d] -= g[-1, -1] * radius
            if d == 2:
                tilt = -g[-1, :-1] * radius**2  # times the coordinate along a, times y and x
                row[4 + a] += tilt[0]
                row[5 + a] += tilt[1]
    return flow
