"""Gradient alignment of a frame to a template: motion, gain and offset together, at the Cramer-Rao bound of the model.

Inverse compositional Gauss-Newton (Baker & Matthews, Int. J. Computer Vision 56, 2004): the template's derivatives and
normal equations are worked out once; each step reads the frame's cubic spline at warped pixels, solves for motion,
gain and offset together, and composes the motion with what is known. Outliers are weighted down after Huber or Tukey
(iteratively re-weighted least squares) where the residuals have heavier tails than noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stackalign.core.frames.holes import filled_along_lines
from stackalign.core.geometry import centre, corners
from stackalign.core.lucas_kanade import steps
from stackalign.core.lucas_kanade.residuals import EVERYWHERE, SAMPLES, Judgement, as_volume, spatial
from stackalign.core.translation.template_kernels import eroded
from stackalign.core.warping.resample import spline_coefficients
from stackalign.core.warping.splined import cubic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.lucas_kanade.template import MotionTemplate

    Array = NDArray[np.float64]

Robust = Literal["none", "huber", "tukey"]
TUNING = {"huber": 1.345, "tukey": 4.685}  # 95 % efficient under Gaussian noise
_KIND = {"none": 0, "huber": 1, "tukey": 2}
_LONGEST = 3.0  # px at the corners a step: beyond, the linearisation says nothing
_FEW = 1024  # pixels from which a fit is judged on the way, at coarser scales
_ENOUGH = 64  # below, tails cannot be told
_HEAVY = 1.08  # rms of standardised residuals over their robust deviation: Gaussian noise stays below
_HEAVIER = 3.5  # the same where there is more in residuals than noise
_REASONS = {
    steps.FAR: "the start is too far off",
    steps.NO_OVERLAP: "it shares no region with the reference",
    steps.NO_CORRELATION: "it does not correlate with the reference",
}


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
    kind, found = 0, state.judgement()
    if robust != "none" and len(found.standard) >= _ENOUGH:
        for _ in range(2):  # once the outliers have lost their weight, the rest settles elsewhere
            if not state.heavy(found):
                break
            kind = _KIND[robust]
            failure = state.settle(kind, found.scale, iterations)
            if failure:
                return failure
            found = state.judgement()
    return state.finished(found, kind)


def refine_motion(
    frame: NDArray[Any], template: MotionTemplate, start: Array, *, robust: Robust = "none", iterations: int = 30
) -> tuple[Array, float] | None:
    """Return the matrix and how well it fits, for a step on the way; None where it does not settle. See `fit_motion`.

    How well: Fisher's z of the correlation over its standard deviation, up to a factor; a small overlap counts less.
    """
    state = _State.of(frame, template, start)
    if state is None or state.settle(0, 1.0, iterations):
        return None
    found = state.judgement(_FEW)
    if robust != "none" and len(found.standard) >= _ENOUGH and state.heavy(found):
        if state.settle(_KIND[robust], found.scale, iterations):
            return None
        found = state.judgement(_FEW)
    if state.status != steps.SETTLED:
        return None
    return state.matrix, float(np.arctanh(min(found.correlation, 0.9999)) * np.sqrt(state.results[steps.OVERLAP]))


class _State:
    """One frame on its way to a template."""

    __slots__ = ("_padded", "image", "matrix", "normal", "results", "seen", "status", "template")

    def __init__(
        self,
        image: NDArray[np.float32],
        padded: NDArray[np.float32],
        seen: NDArray[np.float32],
        template: MotionTemplate,
        start: Array,
    ) -> None:
        self.image, self.seen, self.template, self.matrix = image, seen, template, start
        self._padded = padded
        self.normal = np.zeros_like(template.normal)
        self.results = np.zeros(steps.RESULTS)
        self.status = steps.MOVED

    @classmethod
    def of(cls, frame: NDArray[Any], template: MotionTemplate, start: Array) -> _State | None:
        """Begin with a frame; None if nothing of it is known."""
        values, level = np.asarray(frame, np.float32), float(template.images.level)
        image = values - np.float32(level)
        seen: NDArray[np.float32] = EVERYWHERE
        if np.asarray(frame).dtype.kind == "f" and not (finite := np.isfinite(image)).all():
            if not finite.any():
                return None
            image = filled_along_lines(image, finite)
            known, near = as_volume(finite), np.empty(as_volume(finite).shape, bool)
            eroded(known, np.array([n > 1 for n in known.shape], np.int64), near)
            seen = near.astype(np.float32)
            return cls(image, spline_coefficients(image, 3), seen, template, np.array(start, float))
        return cls(image, cubic(frame, level, values), seen, template, np.array(start, float))

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
            self._padded, self.seen, np.array(as_volume(self.image).shape), images.basis, template.phi,
            template.lost, template.flow,
            template.middle, template.radius, template.solid_group, template.swing, template.points, template.whole,
            template.thin, template.every, matrix, self.normal, self.results, kind, cut, template.tolerance, _LONGEST,
            reach, iterations,
        )  # fmt: skip
        self.matrix = matrix[3 - d :, 3 - d :].copy()
        if self.status == steps.NO_STRUCTURE:
            return f"what it shares with the reference does not fix a {template.model.value} motion"
        return _REASONS.get(self.status, "")

    def judgement(self, samples: int = SAMPLES) -> Judgement:
        """Compare some thousand pixels of the frame with the template."""
        return Judgement.of(self.image, self.seen, self.template, self.matrix, self.gain, self.offset, samples)

    def heavy(self, found: Judgement) -> bool:
        """Return whether residuals have heavier tails than noise."""
        # tails are heavier, too, without a noise model, and in reduced frames, where details are undersampled
        limit = _HEAVY if self.template.tell_tails else _HEAVIER
        return found.rms > limit * found.scale

    def finished(self, found: Judgement, kind: int) -> MotionFit | str:
        """Return the fit with its errors."""
        if len(found.standard) < 9:
            return _REASONS[steps.NO_OVERLAP]
        template, scale = self.template, float(self.results[steps.SCALE])
        spread = found.chi2 if kind == 0 else scale**2 * _inflation(found.standard / scale, kind)
        # residuals hold what is left of the reference's noise, and motions what that pulls them by
        spread *= (1 + template.images.heard) / (1 + template.images.passed)
        points = _middle_and_corners(self.image.shape)
        errors = np.empty_like(points)
        condition = steps.standard_errors(
            self.normal, template.group, self.matrix, points, spread / self.gain**2, errors
        )
        errors /= template.response
        return MotionFit(
            self.matrix, errors[0], float(np.nanmax(errors[1:])), self.gain,
            self.offset - (self.gain - 1) * template.images.level,
            found.correlation, float(np.sqrt(found.residual)), found.expected, found.chi2,
            float(self.results[steps.OUTLIERS]) if kind else 0.0,
            float(self.results[steps.OVERLAP]), condition, int(self.results[steps.DONE]), self.status == steps.SETTLED,
        )  # fmt: skip


@lru_cache(maxsize=16)
def _middle_and_corners(shape: tuple[int, ...]) -> Array:
    return np.concatenate([centre(shape)[None], corners(shape)])


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
