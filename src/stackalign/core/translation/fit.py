"""Sub-pixel translation of frames against a template by weighted least squares, at the Cramer-Rao bound.

A frame is modelled as ``gain * T(x - shift) + offset`` with noise that depends on the brightness; shift, gain and
offset are solved together by Gauss-Newton steps (inverse compositional: Baker & Matthews, Int. J. Computer Vision 56,
2004), so that bleaching and flicker do not bias the shift. Images are float32 (z, y, x) inside, one plane in 2-D.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.reduction import as_read
from stackalign.core.geometry import every_which
from stackalign.core.translation import kernels, shift_kernels
from stackalign.core.translation.template import TranslationTemplate, volume_of
from stackalign.core.verdicts.agreement import NOISE_PLANES, NOISE_ROWS, noise_of_curve
from stackalign.core.warping.kernels import PAD
from stackalign.core.warping.splined import cubic

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TOLERANCE = 2e-3  # px; what is left after the step is some hundredths of it
_LONGEST = 2.0  # px a step: beyond, the linearisation says nothing
_TURNED = 0.25  # of a step: if the next one takes back as much, both are shortened
_SMALLEST = 1 / 16  # of a step
_ALL = 1e30  # no pixel is left out for its residual
_NOTHING = np.zeros((1, 1, 1), np.float32)
_LEAST_COUNT = 9  # pixels that can be compared
_SAMPLES = 2500  # pixels from which residual, correlation and noise of a frame are estimated


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """The shift of one frame.

    Attributes
    ----------
    shift : ndarray (d,)
        Moving -> reference, pixels.
    error : ndarray (d,)
        Standard error of it, pixels, from the Fisher information and the noise found in the residual.
    gain, offset : float
        Brightness of the frame against the template.
    correlation, residual : float
        Pearson correlation with the template at whole frame pixels, and root mean square difference, intensity units.
    chi2 : float
        Residual variance over that of the noise model.
    overlap : float
        Fraction of the template's usable pixels that the frame covers.
    iterations : int
        Steps taken.
    converged : bool
        Whether the last one was small.
    answer : ndarray (d, d)
        Step that the template asks for in response to a unit of displacement, see `shift_kernels.fit_shift`.
    noise : float
        Variance of the frame's own noise (Immerkaer, CVIU 64, 1996); NaN if that was not asked for.
    """

    shift: NDArray[np.float64]
    error: NDArray[np.float64]
    gain: float
    offset: float
    correlation: float
    residual: float
    chi2: float
    overlap: float
    iterations: int
    converged: bool
    answer: NDArray[np.float64]
    noise: float = np.nan

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The shift as a homogeneous matrix (d + 1, d + 1)."""
        matrix = np.eye(len(self.shift) + 1)
        matrix[:-1, -1] = self.shift
        return matrix


def fit_translation(
    frame: NDArray[Any], template: TranslationTemplate, start: NDArray[np.float64], *, iterations: int = 20
) -> Fit | str:
    """Return the shift of one frame against a template, or in words why there is none; see `fit_translations`."""
    return fit_translations(np.asarray(frame)[None], template, start[None], iterations=iterations)[0]


def fit_translations(
    frames: NDArray[Any],
    template: TranslationTemplate,
    starts: NDArray[np.float64],
    *,
    iterations: int = 20,
) -> list[Fit | str]:
    """Return the shift of each frame against a template, or in words why there is none.

    Parameters
    ----------
    frames : ndarray (n, ...), each of the template's shape
        Any dtype; NaN do not count.
    template : TranslationTemplate
        The reference.
    starts : ndarray (n, d)
        First guesses of the shifts, moving -> reference, within about a correlation length of the truth.
    iterations : int
        At most.
    """
    starts = np.where(template.blind, np.round(starts), starts)
    if frames.dtype.kind != "f" or (finite := np.isfinite(frames)).all():
        return _fit_whole(frames, template, starts, iterations)
    found: list[Fit | str] = []
    for frame, known, start in zip(frames, finite, starts, strict=True):
        if known.all():
            found += _fit_whole(frame[None], template, start[None], iterations)
            continue
        image = np.where(known, frame.astype(np.float32) - np.float32(template.level), np.float32(0))
        seen = volume_of(known.astype(np.float32))
        found.append(_fit_with_holes(np.ascontiguousarray(volume_of(image)), seen, template, start, iterations))
    return found


def settled_shifts(
    frames: NDArray[Any], template: TranslationTemplate, starts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return just where frames lie, (n, d), NaN where that did not settle; parameters as in `fit_translations`."""
    if frames.dtype.kind == "f" and not np.isfinite(frames).all():
        fits = fit_translations(frames, template, starts)
        nowhere = np.full(template.ndim, np.nan)
        return np.array([nowhere if isinstance(fit, str) or not fit.converged else fit.shift for fit in fits])
    starts = np.where(template.blind, np.round(starts), starts)
    shifts, _, told = _solved(frames, template, starts, 20, judged=False)
    shifts[told[:, shift_kernels.STATUS] != shift_kernels.SETTLED] = np.nan
    return shifts


def _solved(
    frames: NDArray[Any], template: TranslationTemplate, starts: NDArray[np.float64], iterations: int, *, judged: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return shifts (n, d), answers (n, d, d) and what `shift_kernels.fit_frames` tells of frames without holes."""
    d, n, noise, equations = template.ndim, len(frames), template.noise, template.equations
    volumes = np.require(as_read(frames), None, ["W"])  # what cannot be written to is another type to the compiler
    volumes = volumes if d == 3 else volumes[:, None]
    pad, coefficients = 0, np.zeros((0, 1, 1, 1), np.float32)
    if not template.filters:
        pad, coefficients = PAD, np.stack([cubic(frame) for frame in frames])
    shifts, answers, told = np.zeros((n, 3)), np.zeros((n, d, d)), np.full((n, shift_kernels.VARIANCE + d), np.nan)
    shifts[:, 3 - d :] = starts
    answers[:] = np.eye(d)
    camera = noise.above(template.level)
    curved = judged and _has_curve(template)
    looked_at = np.array([NOISE_PLANES, NOISE_ROWS] if curved else [0, 0])
    room = equations.rooms.pop() if equations.rooms else np.empty(template.values.shape, np.float32)
    shift_kernels.fit_frames(
        coefficients, pad, room, *_of_each_kind(volumes), equations.phi, equations.scale, equations.sums,
        equations.thinned, *equations.edges, equations.every, template.coefficients, template.known, camera,
        every_which(template.shape, _SAMPLES) if judged else 0, looked_at, shifts, _TOLERANCE, _LONGEST, iterations,
        answers, told,
    )  # fmt: skip
    equations.rooms.append(room)
    return shifts[:, 3 - d :], answers, told


def _of_each_kind(frames: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the frames where their kind of number is asked for, and nothing for the others."""
    kinds = (np.uint8, np.uint16, np.float32)
    return [frames if frames.dtype == kind else np.zeros((0, 1, 1, 1), kind) for kind in kinds]


def _has_curve(template: TranslationTemplate) -> bool:
    return template.ndim == 2 and min(template.shape) >= 3


def _fit_whole(
    frames: NDArray[Any], template: TranslationTemplate, starts: NDArray[np.float64], iterations: int
) -> list[Fit | str]:
    """Fit frames without holes on the template's grid, where all derivatives are known."""
    shifts, answers, told = _solved(frames, template, starts, iterations, judged=True)
    errors = _standard_errors(
        told[:, shift_kernels.VARIANCE :], answers, told[:, shift_kernels.CHI2], told[:, shift_kernels.GAIN], template
    )
    curved = _has_curve(template)
    fits: list[Fit | str] = []
    for shift, answer, error, row in zip(shifts, answers, errors, told.tolist(), strict=True):
        status, steps, gain, offset, count, correlation, residual, chi2, overlap, curve = row[: shift_kernels.VARIANCE]
        if status < 0:
            fits.append(_REASONS[int(status)])
        elif count < _LEAST_COUNT:
            fits.append(_REASONS[shift_kernels.NO_OVERLAP])
        else:
            fits.append(
                Fit(
                    shift, error, gain, offset - gain * template.level, correlation, residual**0.5, chi2, overlap,
                    int(steps), status == shift_kernels.SETTLED, answer, noise_of_curve(curve) if curved else math.nan,
                )
            )  # fmt: skip
    return fits


def _standard_errors(
    variances: NDArray[np.float64],
    answers: NDArray[np.float64],
    chi2: NDArray[np.float64] | float,
    gain: NDArray[np.float64] | float,
    template: TranslationTemplate,
) -> NDArray[np.float64]:
    """Return standard errors (n, d) from variances in units of the noise; NaN along axes that tell nothing."""
    # residuals hold what the filter left of the reference's noise
    scale = np.asarray(chi2) / (1 + template.passed)
    if template.frames == 1 and template.denoised is not None and not template.blind.any():
        # a frame that is read between its pixels answers less, and is less noisy: its own answer knows the former only
        back, whole = np.linalg.inv(answers), template.covariance()
        as_told = np.einsum("nij,jk,nik->ni", back, whole, back)
        variances = variances * np.diag(template.spread @ whole @ template.spread.T) / as_told
    else:
        scale = scale * (1 + template.heard)
    errors = np.sqrt(variances * scale[..., None]) / np.asarray(gain)[..., None]
    return np.where(template.blind, np.nan, errors)


_REASONS = {
    shift_kernels.NO_OVERLAP: "it shares no region with the reference",
    shift_kernels.NO_STRUCTURE: "what it shares with the reference has no structure",
    shift_kernels.NO_CORRELATION: "it does not correlate with the reference",
}


def _fit_with_holes(
    volume: NDArray[np.float32],
    seen: NDArray[np.float32],
    template: TranslationTemplate,
    start: NDArray[np.float64],
    iterations: int,
) -> Fit | str:
    """Fit a frame with holes on its own grid (forward additive: the template's spline follows the shift)."""
    d = template.ndim
    use = [*range(3 - d, 3), 3, 4]
    shift = np.zeros(3)
    shift[3 - d :] = start
    noise = np.array(
        [template.noise.constant + template.noise.slope * template.level, template.noise.slope, template.noise.floor]
    )
    brightness = np.array([1.0, 0.0])
    step, share = np.full(d, np.inf), 1.0
    normal, theta, done = np.eye(d + 2), np.ones(d + 2), 0
    for done in range(1, iterations + 1):
        # the weight of a pixel is that of the reference there, whatever pedestal the frame has
        noise[0] = template.noise.constant + template.noise.slope * (template.level - brightness[1])
        planes, there = _planes(volume.shape, template, shift)
        sums = kernels.normal_equations(
            volume[planes], seen[planes], template.coefficients, template.known, there, brightness, noise, _ALL
        )
        if sums[kernels.COUNT] < _LEAST_COUNT:
            return _REASONS[shift_kernels.NO_OVERLAP]
        whole = np.zeros((5, 5))
        whole[np.triu_indices(5)] = sums[: kernels.NORMAL]
        whole = np.triu(whole) + np.triu(whole, 1).T
        normal = whole[np.ix_(use, use)]
        for k in np.flatnonzero(template.blind):
            normal[k], normal[:, k], normal[k, k] = 0.0, 0.0, 1.0
            sums[kernels.RIGHT + use[k]] = 0.0
        solved = np.zeros(d + 2)
        if not kernels.solved(normal, sums[kernels.RIGHT : kernels.RIGHT + 5][use], solved):
            return _REASONS[shift_kernels.NO_STRUCTURE]
        brightness = brightness + solved[d:]
        if brightness[0] <= 0:
            return _REASONS[shift_kernels.NO_CORRELATION]
        # the template moves along with the shift: its derivative has the same sign
        before, step = step, solved[:d] / brightness[0]
        if done > 1 and step @ before < -_TURNED * (before @ before):
            share = max(0.5 * share, _SMALLEST)  # the filtered template is flatter than the frame: it went too far
        shift[3 - d :] += np.clip(share * step, -_LONGEST, _LONGEST)
        theta = np.concatenate([step * brightness[0], brightness])
        if np.abs(step).max() < _TOLERANCE:
            break
    overlap = float(normal[-1, -1] / template.normal[-1, -1])
    settled = bool(np.abs(step).max() < 0.02)
    model = np.array([template.noise.constant + template.noise.slope * template.level, noise[1], noise[2]])
    planes, there, every = _sampling(volume, template, shift[3 - d :])
    told = kernels.judged(
        volume[planes], seen[planes], template.coefficients, template.known, there, theta[d:], model, every
    )  # fmt: skip
    count, correlation, residual, chi2 = told
    if count < _LEAST_COUNT:
        return _REASONS[shift_kernels.NO_OVERLAP]
    answer, (gain, offset) = np.eye(d), theta[d:].tolist()
    variances = shift_kernels.variances(normal, answer)
    error = _standard_errors(variances[None], answer[None], chi2, gain, template)[0]
    return Fit(
        shift[3 - d :], error, gain, offset + template.level - gain * template.level, correlation, residual**0.5, chi2,
        overlap, done, settled, answer,
    )  # fmt: skip


def intensity_residuals(
    frame: NDArray[Any],
    template: TranslationTemplate,
    shift: NDArray[np.float64],
    gain: float,
    offset: float,
    *,
    own: bool = False,
) -> NDArray[np.float64]:
    """Return (intensity, residual) pairs (N, 2) in the units of the reference, for a fit of the noise.

    ``own``: the frame lies in the reference there.
    """
    image = np.asarray(frame, np.float32)
    finite = np.isfinite(image)
    seen = _NOTHING if finite.all() else volume_of(finite.astype(np.float32))
    image = (np.where(finite, image, np.float32(0)) - np.float32(offset)) / np.float32(gain) - np.float32(
        template.level
    )
    pairs = sampled_residuals(np.ascontiguousarray(volume_of(image)), seen, template, shift)
    pairs[:, 0] += template.level
    pairs[:, 1] /= math.sqrt(template.left_over(own=own))
    return pairs


def sampled_residuals(
    volume: NDArray[np.float32],
    seen: NDArray[np.float32],
    template: TranslationTemplate,
    shift: NDArray[np.float64],
    gain: float = 1.0,
    offset: float = 0.0,
) -> NDArray[np.float64]:
    """Return (model, residual) pairs (N, 2) at some thousand pixels of the frame's own grid, where noise is white."""
    planes, there, step = _sampling(volume, template, shift)
    return np.asarray(
        kernels.residuals(
            volume[planes], seen[planes] if seen.size > 1 else seen, template.coefficients, template.known, there,
            np.array([gain, offset]), step,
        )
    )  # fmt: skip


def _sampling(
    volume: NDArray[Any], template: TranslationTemplate, shift: NDArray[np.float64]
) -> tuple[slice, NDArray[np.float64], int]:
    """Return the planes to compare, the shift of these, and every which pixel is enough along each axis."""
    full = np.zeros(3)
    full[3 - template.ndim :] = shift
    return *_planes(volume.shape, template, full), every_which(volume.shape, _SAMPLES)


def _planes(
    frame: tuple[int, ...], template: TranslationTemplate, shift: NDArray[np.float64]
) -> tuple[slice, NDArray[np.float64]]:
    """Return the planes of a frame that lie inside the template, and the shift of these in its mirrored planes."""
    if template.ndim == 2:
        return slice(None), shift
    first = max(int(np.ceil(-shift[0] - 1e-6)), 0)
    last = min(int(np.floor(template.shape[0] - 1 - shift[0] + 1e-6)), frame[0] - 1)
    return slice(first, max(last + 1, first)), shift + np.array([first + 1.0, 0.0, 0.0])
