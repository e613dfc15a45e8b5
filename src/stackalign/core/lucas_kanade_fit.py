"""Gradient alignment of a frame to a template: motion, gain and offset together, at the Cramer-Rao bound of the model.

Inverse compositional Gauss-Newton (Baker & Matthews, Int. J. Computer Vision 56, 2004): the template's derivatives and
normal equations are worked out once; each step reads the frame's cubic spline at warped pixels, solves for motion,
gain and offset together, and composes the motion with what is known. Outliers are weighted down after Huber or Tukey
(iteratively re-weighted least squares) where the residuals have heavier tails than noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import ndimage

from stackalign.core import lucas_kanade_kernels as kernels
from stackalign.core import lucas_kanade_steps as steps
from stackalign.core.generators import generators, moved_points, velocities
from stackalign.core.geometry import centre, corners
from stackalign.core.holes import filled_from_nearest
from stackalign.core.motion_residuals import residuals
from stackalign.core.resample import spline_coefficients
from stackalign.core.translation_kernels import statistics
from stackalign.core.warp_kernels import PAD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.transform import TransformModel
    from stackalign.core.translation import TranslationTemplate

    Array = NDArray[np.float64]

Robust = Literal["none", "huber", "tukey"]
TUNING = {"huber": 1.345, "tukey": 4.685}  # 95 % efficient under Gaussian noise
_KIND = {"none": 0, "huber": 1, "tukey": 2}
_TOLERANCE = 5e-4  # px at the corners that may be left to go, where the noise is not known
_NEGLIGIBLE = 0.08  # standard errors at the corners that may be left, where it is
_FINEST, _COARSEST = 1e-5, 2e-3  # px: bounds of that
_SPARSE = 4  # one row of as many is used until the motion is nearly there
_ROWS = 192  # of a template with fewer all are
_LONGEST = 3.0  # px at the corners a step: beyond, the linearisation says nothing
_SAMPLES = 4096  # pixels from which residual, correlation and noise of a frame are estimated
_FEW = 1024  # the same on the way, at coarser scales
_ENOUGH = 64  # below, tails cannot be told
_HEAVY = 1.08  # rms of standardised residuals over their robust deviation: Gaussian noise stays below
_HEAVIER = 3.5  # the same where there is more in residuals than noise
_REASONS = {
    steps.FAR: "the start is too far off",
    steps.NO_OVERLAP: "it shares no region with the reference",
    steps.NO_CORRELATION: "it does not correlate with the reference",
}
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
    expected : float
        The correlation that noise alone would leave.
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
    expected: float
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
    normal : ndarray (K + 2, K + 2)
        Products of all motions, values and 1 over all pixels.
    thin, every : ndarray (K + 2, K + 2), int
        The same over the first of ``every`` rows, those that are used first; ``every`` is 1 for small templates.
    tolerance : float
        Pixels at the corners that a fit may leave to go.
    tell_tails : bool
        Whether residuals hold noise alone, of a variance that the weights know: at full size.
    """

    images: TranslationTemplate
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
    normal: Array
    thin: Array
    every: int
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
        normal = _products(images, flow, solid, radius, 1)
        every = _SPARSE if shape[-2] >= _ROWS else 1
        thin = _products(images, flow, solid, radius, every) if every > 1 else normal
        edges = corners(shape)
        swing = velocities(group, edges).reshape(-1, len(group))
        tolerance = _TOLERANCE
        if tell_tails:
            bound = np.linalg.pinv(normal, hermitian=True)[: len(group), : len(group)]
            error = float(np.sqrt(max(np.einsum("nk,kl,nl->n", swing, bound, swing).max(), 0.0)))
            tolerance = float(np.clip(_NEGLIGIBLE * error, _FINEST, _COARSEST))
        points = np.zeros((len(edges), 3))
        points[:, 3 - d :] = edges
        spread = np.zeros((len(group), 4, 4))
        spread[:, 3 - d :, 3 - d :] = group
        values = images.basis[-1] if d == 3 else images.basis[-1, 0]
        padded = spline_coefficients(values, 3)
        inner = tuple(slice(PAD, -PAD) if axis >= 3 - d else slice(None) for axis in range(3))
        coefficients = np.ascontiguousarray(padded[inner])
        known = (images.phi[-1] > 0).astype(np.float32)
        return cls(
            images,
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
            normal,
            thin,
            every,
            tolerance,
            tell_tails,
        )

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
    state = _State.of(frame, template, start)
    if state is None:
        return "all its pixels are NaN"
    failure = state.settle(0, 1.0, iterations, reach)
    if failure:
        return failure
    pairs = state.residuals()
    kind, scale = 0, 1.0
    if robust != "none" and len(pairs) >= _ENOUGH:
        for _ in range(2):  # once the outliers have lost their weight, the rest settles elsewhere
            scale, heavy = state.spread(pairs)
            if not heavy:
                break
            kind = _KIND[robust]
            failure = state.settle(kind, scale, iterations)
            if failure:
                return failure
            pairs = state.residuals()
    return state.finished(pairs, kind, scale)


def refine_motion(
    frame: NDArray[Any], template: MotionTemplate, start: Array, *, robust: Robust = "none", iterations: int = 30
) -> tuple[Array, float] | None:
    """Return the matrix and how well it fits, for a step on the way; None where it does not settle. See `fit_motion`.

    How well: Fisher's z of the correlation over its standard deviation, up to a factor; a small overlap counts less.
    """
    state = _State.of(frame, template, start)
    if state is None or state.settle(0, 1.0, iterations):
        return None
    pairs = state.residuals(_FEW)
    if robust != "none" and len(pairs) >= _ENOUGH:
        scale, heavy = state.spread(pairs)
        if heavy:
            if state.settle(_KIND[robust], scale, iterations):
                return None
            pairs = state.residuals(_FEW)
    if state.status != steps.SETTLED:
        return None
    correlation = min(state.statistics(pairs)[1], 0.9999)
    return state.matrix, float(np.arctanh(correlation) * np.sqrt(state.results[steps.OVERLAP]))


class _State:
    """One frame on its way to a template."""

    __slots__ = ("_padded", "image", "matrix", "normal", "results", "seen", "status", "template")

    def __init__(
        self, image: NDArray[np.float32], seen: NDArray[np.float32], template: MotionTemplate, start: Array
    ) -> None:
        self.image, self.seen, self.template, self.matrix = image, seen, template, start
        self._padded = spline_coefficients(image, 3)
        self.normal = np.zeros_like(template.normal)
        self.results = np.zeros(steps.RESULTS)
        self.status = steps.MOVED

    @classmethod
    def of(cls, frame: NDArray[Any], template: MotionTemplate, start: Array) -> _State | None:
        """Begin with a frame; None if nothing of it is known."""
        image = np.asarray(frame, np.float32) - np.float32(template.images.level)
        seen = _EVERYWHERE
        if not (finite := np.isfinite(image)).all():
            if not finite.any():
                return None
            image = filled_from_nearest(image, finite)
            near = ndimage.binary_erosion(finite, np.ones((3,) * image.ndim), border_value=1)
            seen = _volume(near.astype(np.float32))
        return cls(image, seen, template, np.array(start, float))

    @property
    def gain(self) -> float:
        """Brightness of the frame over that of the template."""
        return float(self.results[steps.GAIN])

    @property
    def offset(self) -> float:
        """What the frame has more, both less the template's level."""
        return float(self.results[steps.OFFSET])

    def settle(self, kind: int, scale: float, iterations: int, reach: float = np.inf) -> str:
        """Step until the corners rest; returns why not, or an empty string."""
        template, images, d = self.template, self.template.images, self.template.ndim
        matrix = spatial(self.matrix).copy()
        self.results[steps.SCALE] = scale
        cut = {1: TUNING["huber"], 2: TUNING["tukey"]}.get(kind, 1.0)
        self.status = steps.settle(
            self._padded, self.seen, np.array(_volume(self.image).shape), images.basis, images.phi, template.flow,
            template.middle, template.radius, template.solid_group, template.swing, template.points, template.normal,
            template.thin, template.every, matrix, self.normal, self.results, kind, cut, template.tolerance, _LONGEST,
            reach, iterations,
        )  # fmt: skip
        self.matrix = matrix[3 - d :, 3 - d :].copy()
        if self.status == steps.NO_STRUCTURE:
            return f"what it shares with the reference does not fix a {template.model.value} motion"
        return _REASONS.get(self.status, "")

    def residuals(self, samples: int = _SAMPLES) -> Array:
        """Return (model, residual) pairs (N, 2) at some thousand pixels of the frame."""
        return sampled_residuals(self.image, self.seen, self.template, self.matrix, self.gain, self.offset, samples)

    def spread(self, pairs: Array) -> tuple[float, bool]:
        """Return the robust deviation of the standardised residuals, and whether their tails are heavier than noise."""
        standard = self.standardised(pairs)
        scale = max(1.4826 * float(np.median(np.abs(standard - np.median(standard)))), 1e-9)
        # tails are heavier, too, without a noise model, and in reduced frames, where details are undersampled
        limit = _HEAVY if self.template.tell_tails else _HEAVIER
        return scale, float(np.sqrt(np.mean(standard**2))) > limit * scale

    def statistics(self, pairs: Array) -> tuple[int, float, float, float]:
        """Return count, correlation, mean squared residual, and that over the noise."""
        noise, level = self.template.images.noise, self.template.images.level
        model = np.array([noise.constant + noise.slope * level, noise.slope, noise.floor])
        count, correlation, residual, chi2 = statistics(pairs, self.gain, self.offset, model)
        return int(count), float(correlation), float(residual), float(chi2)

    def standardised(self, pairs: Array) -> Array:
        """Return the residuals over the deviation that the noise model expects."""
        images = self.template.images
        intensity = (pairs[:, 0] - self.offset) / self.gain + images.level
        return np.asarray(pairs[:, 1] / np.sqrt(images.noise.variance(intensity.astype(np.float32))))

    def expected(self, pairs: Array) -> float:
        """Return the correlation that the noise model leaves of a perfect match."""
        noise, level = self.template.images.noise, self.template.images.level
        signal = float(pairs[:, 0].var())
        intensity = ((pairs[:, 0] - self.offset) / self.gain + level).astype(np.float32)
        variance = float(noise.variance(intensity).mean(dtype=np.float64))
        return float(np.sqrt(signal / (signal + variance))) if signal > 0 else 1.0

    def finished(self, pairs: Array, kind: int, scale: float) -> MotionFit | str:
        """Return the fit with its errors."""
        count, correlation, residual, chi2 = self.statistics(pairs)
        if count < 9:
            return _REASONS[steps.NO_OVERLAP]
        template = self.template
        spread = chi2 if kind == 0 else scale**2 * _inflation(self.standardised(pairs) / scale, kind)
        frames = template.images.frames
        if np.isfinite(frames):  # the reference is itself an average of noisy frames
            spread *= 1 + 1 / frames
        diagonal = 1 / np.sqrt(np.maximum(np.diag(self.normal), 1e-300))
        unit = np.outer(diagonal, diagonal)
        values, vectors = np.linalg.eigh(self.normal * unit)
        condition = float(values[-1] / max(values[0], 1e-300))
        free = len(template.group)
        covariance = ((vectors / np.maximum(values, 1e-300)) @ vectors.T * unit)[:free, :free]
        covariance = covariance * (spread / self.gain**2)
        shape = self.image.shape
        points = np.concatenate([centre(shape)[None], corners(shape)])
        moves = velocities(template.group, moved_points(self.matrix, points))
        errors = np.sqrt(np.maximum(np.einsum("nik,kl,nil->ni", moves, covariance, moves), 0))
        still = ~np.any(moves[0] != 0, axis=1)
        return MotionFit(
            self.matrix, np.where(still, np.nan, errors[0]), float(errors[1:].max()), self.gain,
            self.offset - (self.gain - 1) * template.images.level, correlation,
            float(np.sqrt(residual)), self.expected(pairs), chi2, float(self.results[steps.OUTLIERS]) if kind else 0.0,
            float(self.results[steps.OVERLAP]), condition, int(self.results[steps.DONE]), self.status == steps.SETTLED,
        )  # fmt: skip


def sampled_residuals(
    image: NDArray[np.float32],
    seen: NDArray[np.float32],
    template: MotionTemplate,
    matrix: Array,
    gain: float = 1.0,
    offset: float = 0.0,
    samples: int = _SAMPLES,
) -> Array:
    """Return (model, residual) pairs (N, 2) at some thousand pixels of the frame's own grid, where noise is white.

    ``image`` is the frame less the template's level.
    """
    volume = np.ascontiguousarray(_volume(image))
    active = sum(n > 1 for n in volume.shape)
    step = max(int((volume.size / samples) ** (1 / max(active, 1))), 1)
    return np.asarray(
        residuals(volume, seen, template.coefficients, template.known, spatial(matrix), np.array([gain, offset]), step)
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


def _products(images: TranslationTemplate, flow: Array, middle: Array, radius: float, every: int) -> Array:
    """Return the products of all motions, values and 1 over the first of ``every`` rows of a template."""
    total = np.zeros((len(flow) + 2,) * 2)
    rows = images.basis.shape[1] * images.basis.shape[2]
    spans = np.tile(np.array([0, images.basis.shape[3]]), (rows, 1))
    kernels.gram(images.basis, images.phi[-1], flow, middle, radius, spans, every, False, total)
    return np.triu(total) + np.triu(total, 1).T


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
