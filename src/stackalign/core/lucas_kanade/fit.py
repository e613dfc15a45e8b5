"""Gradient alignment of a frame to a template: motion, gain and offset together, at the Cramer-Rao bound of the model.

Inverse compositional Gauss-Newton (Baker & Matthews, Int. J. Computer Vision 56, 2004): the template's derivatives and
normal equations are worked out once; each step reads the frame's cubic spline at warped pixels, solves for motion,
gain and offset together, and composes the motion with what is known. Outliers are weighted down after Huber or Tukey
(iteratively re-weighted least squares) where the residuals have heavier tails than noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stackalign.core.geometry import centre, corners, every_which
from stackalign.core.lucas_kanade import fit_kernels as kernels
from stackalign.core.lucas_kanade import steps
from stackalign.core.lucas_kanade.reading import chunks, read
from stackalign.core.lucas_kanade.residuals import SAMPLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.lucas_kanade.template import MotionTemplate

    Array = NDArray[np.float64]

Robust = Literal["none", "huber", "tukey"]
TUNING = {"huber": 1.345, "tukey": 4.685}  # 95 % efficient under Gaussian noise
_KIND = {"none": 0, "huber": 1, "tukey": 2}
_LONGEST = 3.0  # px at the corners a step: beyond, the linearisation says nothing
_FEW = 1024  # pixels from which a fit is judged on the way, at coarser scales
_FEWEST = 9  # pixels that tell anything of a fit
_ENOUGH = 64  # below, tails cannot be told
_HEAVY = 1.08  # rms of standardised residuals over their robust deviation: Gaussian noise stays below
_HEAVIER = 3.5  # the same where there is more in residuals than noise
_BLANK = -5  # end of a frame of which nothing is known
_REASONS = {
    _BLANK: "all its pixels are NaN",
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
    corner_errors : ndarray (2**d, d)
        The same of the frame's corners.
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
    corner_errors: Array
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

    @property
    def corner_error(self) -> float:
        """The largest one of the corners, NaN if none is known."""
        return float(np.fmax.reduce(self.corner_errors, axis=None))


def fit_motion(
    frame: NDArray[Any],
    template: MotionTemplate,
    start: Array,
    *,
    robust: Robust = "none",
    iterations: int = 30,
    reach: float = np.inf,
) -> MotionFit | str:
    """Return how ``frame`` lies on a template, or in words why that cannot be said; see `fit_motions`."""
    return fit_motions([frame], template, [start], robust=robust, iterations=iterations, reach=reach)[0]


def fit_motions(
    frames: Sequence[NDArray[Any]],
    template: MotionTemplate,
    starts: Sequence[Array],
    *,
    robust: Robust = "none",
    iterations: int = 30,
    reach: float = np.inf,
) -> list[MotionFit | str]:
    """Return how frames lie on a template, or in words why that cannot be said.

    Parameters
    ----------
    frames : sequence of ndarray (y, x) or (z, y, x), all of one shape
        Any dtype; NaN do not count.
    template : MotionTemplate
        The reference.
    starts : sequence of ndarray (d+1, d+1)
        First guesses of the matrices, moving -> reference, within about a correlation length of the truth everywhere.
    robust : "none", "huber" or "tukey"
        How outliers are weighted down.
    iterations : int
        At most.
    reach : float
        Pixels at the corners: a first step beyond means that the start is too far off to be trusted.
    """
    if not len(frames):
        return []
    points = _middle_and_corners(np.shape(frames[0]))
    out: list[MotionFit | str] = []
    for some, begun in chunks(frames, starts):
        found = _fitted(some, template, begun, robust, 2, iterations, reach, SAMPLES, points)
        out += found.fits(template)
    return out


def refine_motions(
    frames: Sequence[NDArray[Any]],
    template: MotionTemplate,
    starts: Sequence[Array],
    *,
    robust: Robust = "none",
    iterations: int = 30,
) -> list[tuple[Array, float] | None]:
    """Return matrices and how well they fit, for a step on the way; None where one does not settle. See `fit_motions`.

    How well: Fisher's z of the correlation over its standard deviation, up to a factor; a small overlap counts less.
    """
    nowhere = np.empty((0, template.ndim))
    out: list[tuple[Array, float] | None] = []
    for some, begun in chunks(frames, starts):
        found = _fitted(some, template, begun, robust, 1, iterations, np.inf, _FEW, nowhere)
        out += found.refined()
    return out


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    """What the kernel says of some frames; nothing of one of which no pixel is known."""

    matrices: Array
    results: Array
    verdicts: Array
    errors: Array
    ends: list[int]

    def refined(self) -> list[tuple[Array, float] | None]:
        """Return matrices and how well they fit."""
        out: list[tuple[Array, float] | None] = []
        rows = zip(self.matrices, self.results.tolist(), self.verdicts.tolist(), self.ends, strict=True)
        for matrix, result, verdict, end in rows:
            if end != steps.SETTLED:
                out.append(None)
                continue
            correlation = min(verdict[kernels.CORRELATION], 0.9999)
            out.append((matrix, math.atanh(correlation) * math.sqrt(result[steps.OVERLAP])))
        return out

    def fits(self, template: MotionTemplate) -> list[MotionFit | str]:
        """Return fits, or why there are none."""
        results, verdicts = self.results.tolist(), self.verdicts.tolist()
        rows = zip(self.matrices, results, verdicts, self.errors, self.ends, strict=True)
        return [_fit_of(template, *row) for row in rows]


def _fit_of(
    template: MotionTemplate,
    matrix: Array,
    result: list[float],
    verdict: list[float],
    errors: Array,
    end: int,
) -> MotionFit | str:
    if end == steps.NO_STRUCTURE:
        return f"what it shares with the reference does not fix a {template.model.value} motion"
    if end in _REASONS:
        return _REASONS[end]
    if verdict[kernels.COUNT] < _FEWEST:
        return _REASONS[steps.NO_OVERLAP]
    gain = result[steps.GAIN]
    return MotionFit(
        matrix, errors[0], errors[1:], gain, result[steps.OFFSET] - (gain - 1) * float(template.images.level),
        verdict[kernels.CORRELATION], math.sqrt(verdict[kernels.RESIDUAL]), verdict[kernels.EXPECTED],
        verdict[kernels.CHI2], result[steps.OUTLIERS] if verdict[kernels.KIND] else 0.0, result[steps.OVERLAP],
        verdict[kernels.CONDITION], int(result[steps.DONE]), end == steps.SETTLED,
    )  # fmt: skip


def _fitted(
    frames: Sequence[NDArray[Any]],
    template: MotionTemplate,
    starts: Sequence[Array],
    robust: Robust,
    rounds: int,
    iterations: int,
    reach: float,
    samples: int,
    points: Array,
) -> _Fitted:
    """Let the kernel work on frames without holes, or on a single one."""
    count, d, images, noise = len(frames), template.ndim, template.images, template.images.noise
    results, verdicts = np.zeros((count, steps.RESULTS)), np.zeros((count, kernels.VERDICTS))
    ends = np.full(count, _BLANK)
    errors = np.full((count, *points.shape), np.nan)
    matrices = np.zeros((count, 4, 4))
    matrices[:, :3, :3] = np.eye(3)
    matrices[:, 3 - d :, 3 - d :] = starts
    frames_read = read(frames, float(images.level))
    if frames_read is None:
        return _Fitted(np.array(starts, float), results, verdicts, errors, ends.tolist())
    values, padded, seen = frames_read
    normals, size = np.zeros((count, *template.normal.shape)), np.array(values.shape[1:])
    camera = noise.above(images.level)
    step = every_which(values.shape[1:], samples)
    # of the frame's own noise in residuals, which hold what the reference's filter left, too
    share = 1 / (1 + images.passed)
    # tails are heavier, too, without a noise model, and in reduced frames, where details are undersampled
    limit, kind, cut = _HEAVY if template.tell_tails else _HEAVIER, 0, 1.0
    which = np.arange(count)
    results[:, steps.SCALE] = 1.0
    for k in range(rounds + 1):  # once the outliers have lost their weight, the rest settles elsewhere
        steps.settle(
            padded, seen, images.basis, template.phi, template.lost, template.noisy, template.flow, template.middle,
            template.radius, template.solid_group, template.swing, template.points, template.whole, template.thin,
            template.every, which, size, matrices, normals, results, ends, kind, cut, template.tolerance, _LONGEST,
            np.inf if k else reach, iterations,
        )  # fmt: skip
        which = which[ends[which] >= steps.MOVED]
        kernels.judge_frames(
            values, seen, template.coefficients, template.known, camera, step, template.group, template.spread, points,
            share, which, matrices, normals, results, kind, cut, verdicts, errors,
        )  # fmt: skip
        if k == rounds or robust == "none":
            break
        told = verdicts[which]
        heavy = told[:, kernels.RMS] > limit * told[:, kernels.SPREAD]
        which = which[heavy & (told[:, kernels.COUNT] >= _ENOUGH)]
        if not len(which):
            break
        kind, cut = _KIND[robust], TUNING[robust]
        results[which, steps.SCALE] = verdicts[which, kernels.SPREAD]
    return _Fitted(matrices[:, 3 - d :, 3 - d :].copy(), results, verdicts, errors, ends.tolist())


@lru_cache(maxsize=16)
def _middle_and_corners(shape: tuple[int, ...]) -> Array:
    return np.concatenate([centre(shape)[None], corners(shape)])
