"""Gradient alignment of a frame to a template: motion, gain and offset together, at the Cramer-Rao bound of the model.

Inverse compositional Gauss-Newton (Baker & Matthews, Int. J. Computer Vision 56, 2004): the template's derivatives and
normal equations are worked out once; each step reads the frame's cubic spline at warped pixels, solves for motion,
gain and offset together, and composes the motion with what is known. Outliers are weighted down after Huber or Tukey
(iteratively re-weighted least squares) where the residuals have heavier tails than noise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import ndimage

from stackalign.core import lucas_kanade_kernels as kernels
from stackalign.core.generators import exponential, generators, moved_points, velocities
from stackalign.core.geometry import centre, corners
from stackalign.core.resample import spline_coefficients

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.transform import TransformModel
    from stackalign.core.translation import TranslationTemplate

    Array = NDArray[np.float64]

Robust = Literal["none", "huber", "tukey"]
TUNING = {"huber": 1.345, "tukey": 4.685}  # 95 % efficient under Gaussian noise
_KIND = {"none": 0, "huber": 1, "tukey": 2}
_TOLERANCE = 1e-3  # px at the corners; what is left after the step is smaller still
_LONGEST = 3.0  # px at the corners a step: beyond, the linearisation says nothing
_SAMPLES = 8192  # pixels from which residual, correlation and noise of a frame are estimated
_HEAVY = 1.08  # rms of standardised residuals over their robust deviation: Gaussian noise stays below
_ILL = 1e8  # condition of the scaled normal equations from which a parameter is not fixed by the content
_EVERYWHERE = np.zeros((1, 1, 1), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class MotionFit:
    """How one frame lies on a template.

    Attributes
    ----------
    matrix : ndarray (d+1, d+1)
        Moving -> reference, pixels.
    error : ndarray (d,)
        Standard error of where the frame's centre lies, pixels, from the Fisher information and the residual.
    corner_error : float
        The largest one of the frame's corners.
    gain, offset : float
        Brightness of the frame against the template.
    correlation, residual : float
        Pearson correlation with the template at whole frame pixels, and root mean square difference, intensity units.
    chi2 : float
        Residual variance over that of the noise model.
    outliers : float
        Share of the weight that robust weighting took away.
    overlap : float
        Part of the template's weight that the frame covers.
    condition : float
        Of the normal equations, scaled to a unit diagonal.
    iterations : int
        Steps taken.
    converged : bool
        Whether the last one was small.
    """

    matrix: Array
    error: Array
    corner_error: float
    gain: float
    offset: float
    correlation: float
    residual: float
    chi2: float
    outliers: float
    overlap: float
    condition: float
    iterations: int
    converged: bool


@dataclass(frozen=True, slots=True, eq=False)
class MotionTemplate:
    """A reference with the steepest-descent images of a model, and their normal equations.

    Attributes
    ----------
    images : TranslationTemplate
        Values, gradients and weights.
    model : TransformModel
        The family.
    group : ndarray (K, d+1, d+1)
        Its generators about the centre.
    flow : ndarray (K, 3, 7)
        The same as polynomials, see `lucas_kanade_kernels`.
    middle, radius : ndarray (3,), float
        Of the coordinates in polynomials.
    swing : ndarray (2**d, d, K)
        How the corners move along each generator.
    normal : ndarray (K + 2, K + 2)
        Products of all motions, values and 1 over all pixels.
    """

    images: TranslationTemplate
    model: TransformModel
    group: Array
    flow: Array
    middle: Array
    radius: float
    swing: Array
    normal: Array
    _spans: dict[bytes, Array] = field(default_factory=dict)

    @classmethod
    def of(
        cls, images: TranslationTemplate, model: TransformModel, spacing: Sequence[float] | None = None
    ) -> MotionTemplate:
        """Prepare the motions of ``model``, rotations rigid in units of ``spacing``."""
        d, shape = images.ndim, images.shape
        middle = centre(shape)
        radius = max(float(np.linalg.norm(middle)), 1.0)
        group = generators(model, middle, radius, spacing)
        flow = _polynomials(group, middle, radius)
        solid = np.zeros(3)
        solid[3 - d :] = middle
        total = np.zeros((len(group) + 2,) * 2)
        rows = images.basis.shape[1] * images.basis.shape[2]
        spans = np.tile(np.array([0, images.basis.shape[3]]), (rows, 1))
        kernels.gram(images.basis, images.phi[-1], flow, solid, radius, spans, False, total)
        swing = velocities(group, corners(shape))
        return cls(images, model, group, flow, solid, radius, swing, _symmetric(total))

    @property
    def ndim(self) -> int:
        """Spatial dimensions."""
        return self.images.ndim

    def covariance(self) -> Array:
        """Return the Cramer-Rao bound of the parameters of a frame that covers all of it, (K, K)."""
        count = len(self.group)
        return np.asarray(np.linalg.pinv(self.normal, hermitian=True)[:count, :count])


def fit_motion(
    frame: NDArray[Any],
    template: MotionTemplate,
    start: Array,
    *,
    robust: Robust = "none",
    iterations: int = 30,
    reach: float = np.inf,
) -> MotionFit | str:
    """Return how ``frame`` lies on a template, or in words why that cannot be said.

    Parameters
    ----------
    frame : ndarray (y, x) or (z, y, x)
        Any dtype and shape; NaN do not count.
    template : MotionTemplate
        The reference.
    start : ndarray (d+1, d+1)
        First guess of the matrix, moving -> reference, within about a correlation length of the truth everywhere.
    robust : "none", "huber" or "tukey"
        How outliers are weighted down.
    iterations : int
        At most.
    reach : float
        Pixels at the corners: a first step beyond means that the start is too far off to be trusted.
    """
    images = template.images
    image = np.asarray(frame, np.float32) - np.float32(images.level)
    seen = _EVERYWHERE
    if not (finite := np.isfinite(image)).all():
        if not finite.any():
            return "all its pixels are NaN"
        nearest = ndimage.distance_transform_edt(~finite, return_distances=False, return_indices=True)
        image = image[tuple(nearest)]
        near = ndimage.binary_erosion(finite, np.ones((3,) * image.ndim), border_value=1)
        seen = _volume(near.astype(np.float32))
    state = _State(image, seen, template, np.array(start, float))
    failure = state.settle(0, 1.0, iterations, reach)
    if failure:
        return failure
    pairs = state.residuals()
    kind, scale = _KIND[robust], 1.0
    if kind and len(pairs) >= 64:
        for _ in range(2):  # once the outliers have lost their weight, the rest settles elsewhere
            standard = state.standardised(pairs)
            scale = max(1.4826 * float(np.median(np.abs(standard - np.median(standard)))), 1e-9)
            if float(np.sqrt(np.mean(standard**2))) < _HEAVY * scale:
                kind = 0
                break
            failure = state.settle(kind, scale, iterations)
            if failure:
                return failure
            pairs = state.residuals()
    else:
        kind = 0
    return state.finished(pairs, kind, scale)


class _State:
    """One frame on its way to a template."""

    __slots__ = (
        "_boxed", "_corners", "_padded", "_size", "_spans", "condition", "done", "gain", "image", "matrix", "normal",
        "offset", "outliers", "overlap", "seen", "step", "template",
    )  # fmt: skip

    def __init__(
        self, image: NDArray[np.float32], seen: NDArray[np.float32], template: MotionTemplate, start: Array
    ) -> None:
        self.image, self.seen, self.template, self.matrix = image, seen, template, start
        self._padded = spline_coefficients(image, 3)
        self._size = np.array(_volume(image).shape, np.int64)
        self._corners = corners(template.images.shape)
        self._boxed: Array | None = None
        self._spans = np.zeros((0, 2), np.int64)
        self.normal = template.normal
        self.gain, self.offset, self.step = 1.0, 0.0, np.inf
        self.done, self.outliers, self.overlap, self.condition = 0, 0.0, 0.0, np.inf

    def settle(self, kind: int, scale: float, iterations: int, reach: float = np.inf) -> str:
        """Step until the corners rest; returns why not, or an empty string."""
        template, count = self.template, len(self.template.group)
        for _ in range(iterations):
            self.done += 1
            backward = np.asarray(np.linalg.inv(self.matrix), np.float64)
            solid = spatial(backward)
            self._cover(backward, solid)
            full = float(template.normal[-1, -1])
            if kind or self.seen.size > 1:
                cut = {1: TUNING["huber"], 2: TUNING["tukey"]}.get(kind, 1.0)
                upper, right, counted = kernels.equations(
                    self._padded, self.seen, solid, self._spans, template.images.basis, template.images.phi[-1],
                    template.flow, template.middle, template.radius, np.array([self.gain, self.offset, scale]),
                    kind, cut,
                )  # fmt: skip
                self.normal = _symmetric(upper)
                self.overlap = float(counted[0]) / full
                self.outliers = 1 - float(counted[1] / max(counted[0], 1e-300))
            else:
                moments, values = kernels.projections(
                    self._padded, solid, self._spans, template.images.phi, template.middle, template.radius
                )
                right = np.append(np.tensordot(template.flow, moments, 2), values)
                self.overlap = float(self.normal[-1, -1]) / full
            if self.overlap <= 1e-3:
                return "it shares no region with the reference"
            theta, self.condition = _solve(self.normal, right)
            if theta is None:
                return f"what it shares with the reference does not fix a {template.model.value} motion"
            self.gain, self.offset = float(theta[count]), float(theta[count + 1])
            if self.gain <= 0:
                return "it does not correlate with the reference"
            move = theta[:count] / self.gain
            self.step = float(np.abs(template.swing @ move).max())
            if not np.isfinite(self.step):
                return "it does not settle on one place"
            if self.done == 1 and self.step > reach:
                return "the start is too far off"
            if self.step > _LONGEST:
                move = move * (_LONGEST / self.step)
            self.matrix = exponential(template.group, move) @ self.matrix
            self.matrix /= self.matrix[-1, -1]
            if self.step < _TOLERANCE:
                break
        return ""

    def _cover(self, backward: Array, solid: Array) -> None:
        """Work out which pixels the frame covers, anew once it has moved by a fraction of a pixel."""
        there = moved_points(backward, self._corners)
        if self._boxed is not None and np.abs(there - self._boxed).max() < 0.25:
            return
        template = self.template
        shape = np.array(template.images.basis.shape[1:], np.int64)
        self._spans, self._boxed = kernels.covered(solid, self._size, shape), there
        if self.seen.size > 1:
            return
        widths = self._spans[:, 1] - self._spans[:, 0]
        most = int(widths.sum()) * 2 > int(np.prod(shape))
        part = np.zeros_like(template.normal)
        kernels.gram(
            template.images.basis, template.images.phi[-1], template.flow, template.middle, template.radius,
            self._spans, most, part,
        )  # fmt: skip
        self.normal = template.normal - _symmetric(part) if most else _symmetric(part)

    def residuals(self) -> Array:
        """Return (model, residual) pairs (N, 2) at some thousand pixels of the frame."""
        return sampled_residuals(self.image, self.seen, self.template, self.matrix, self.gain, self.offset)

    def standardised(self, pairs: Array) -> Array:
        """Return the residuals over the deviation that the noise model expects."""
        images = self.template.images
        intensity = (pairs[:, 0] - self.offset) / self.gain + images.level
        return np.asarray(pairs[:, 1] / np.sqrt(images.noise.variance(intensity.astype(np.float32))))

    def finished(self, pairs: Array, kind: int, scale: float) -> MotionFit | str:
        """Return the fit with its errors."""
        if len(pairs) < 9:
            return "it shares no region with the reference"
        template, d = self.template, self.template.ndim
        model, residual = pairs[:, 0], pairs[:, 1]
        values = model + residual
        both = float(model.std() * values.std())
        correlation = float(((model - model.mean()) * (values - values.mean())).mean() / both) if both > 0 else 0.0
        standard = self.standardised(pairs)
        chi2 = float(np.mean(standard**2))
        spread = chi2 if kind == 0 else scale**2 * _inflation(standard / scale, kind)
        frames = template.images.frames
        if np.isfinite(frames):  # the reference is itself an average of noisy frames
            spread *= 1 + 1 / frames
        count = len(template.group)
        covariance = np.linalg.pinv(self.normal, hermitian=True)[:count, :count] * (spread / self.gain**2)
        shape = self.image.shape
        points = np.concatenate([centre(shape)[None], corners(shape)])
        moves = velocities(template.group, moved_points(self.matrix, points))
        errors = np.sqrt(np.maximum(np.einsum("nik,kl,nil->ni", moves, covariance, moves), 0))
        return MotionFit(
            self.matrix, errors[0], float(errors[1:].max()) if d else 0.0, self.gain,
            self.offset - (self.gain - 1) * template.images.level, correlation,
            float(np.sqrt(np.mean(residual**2))), chi2, self.outliers if kind else 0.0, self.overlap, self.condition,
            self.done, self.step < 0.02,
        )  # fmt: skip


def sampled_residuals(
    image: NDArray[np.float32],
    seen: NDArray[np.float32],
    template: MotionTemplate,
    matrix: Array,
    gain: float = 1.0,
    offset: float = 0.0,
) -> Array:
    """Return (model, residual) pairs (N, 2) at some thousand pixels of the frame's own grid, where noise is white.

    ``image`` is the frame less the template's level.
    """
    volume = np.ascontiguousarray(_volume(image))
    active = sum(n > 1 for n in volume.shape)
    step = max(int((volume.size / _SAMPLES) ** (1 / max(active, 1))), 1)
    images = template.images
    return np.asarray(
        kernels.residuals(
            volume, seen, images.coefficients, images.known, spatial(matrix), np.array([gain, offset]), step
        )
    )


def intensity_residuals(
    frame: NDArray[Any], template: MotionTemplate, matrix: Array, gain: float, offset: float
) -> Array:
    """Return (intensity, residual) pairs (N, 2) in the units of the reference, for a fit of the noise."""
    images = template.images
    image = np.asarray(frame, np.float32)
    finite = np.isfinite(image)
    seen = _EVERYWHERE if finite.all() else _volume(finite.astype(np.float32))
    image = (np.where(finite, image, np.float32(0)) - np.float32(offset)) / np.float32(gain) - np.float32(images.level)
    pairs = sampled_residuals(image, seen, template, matrix)
    pairs[:, 0] += images.level
    # a reference that is itself a mean of K frames adds 1/K to the variance of a frame
    pairs[:, 1] /= np.sqrt(1 + 1 / images.frames) if np.isfinite(images.frames) else 1.0
    return pairs


def spatial(matrix: Array) -> Array:
    """Return a (4, 4) matrix over (z, y, x, 1)."""
    if len(matrix) == 4:
        return np.ascontiguousarray(matrix, float)
    out = np.eye(4)
    out[1:, 1:] = matrix
    return out


def _volume(image: NDArray[Any]) -> NDArray[Any]:
    return image if image.ndim == 3 else image[None]


def _symmetric(upper: Array) -> Array:
    return np.triu(upper) + np.triu(upper, 1).T


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


def _solve(normal: Array, right: Array) -> tuple[Array | None, float]:
    """Solve the scaled normal equations; None where the content leaves a parameter open."""
    scale = np.sqrt(np.maximum(np.diag(normal), 0))
    if (scale <= 0).any() or not np.isfinite(normal).all():
        return None, np.inf
    scaled = normal / np.outer(scale, scale)
    condition = float(np.linalg.cond(scaled))
    if not condition < _ILL:
        return None, condition
    return np.asarray(np.linalg.solve(scaled, right / scale) / scale), condition


def _inflation(standard: Array, kind: int) -> float:
    """Return the variance of an M-estimate over that of weighted least squares with its weights, unit noise.

    ``E[psi^2] E[w] / E[psi']^2`` (Huber & Ronchetti, Robust Statistics, 2009, section 7.6), from the residuals.
    """
    cut = TUNING["huber"] if kind == 1 else TUNING["tukey"]
    u = np.abs(standard)
    if kind == 1:
        weight, slope = np.minimum(1, cut / np.maximum(u, 1e-9)), (u <= cut).astype(float)
    else:
        inner = np.maximum(1 - (u / cut) ** 2, 0)
        weight, slope = inner**2, inner * (1 - 5 * (u / cut) ** 2) * (u < cut)
    mean_slope = max(float(slope.mean()), 0.05)
    return float(np.mean((weight * standard) ** 2) * weight.mean() / mean_slope**2)
