"""Sub-pixel translation of a frame against a template by weighted least squares, at the Cramer-Rao bound.

The frame is modelled as ``gain * T(x - shift) + offset`` with noise that depends on the brightness; shift, gain and
offset are solved together by Gauss-Newton steps (inverse compositional: Baker & Matthews, Int. J. Computer Vision 56,
2004), so that bleaching and flicker do not bias the shift. Images are float32 (z, y, x) inside, one plane in 2-D.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core import shift_kernels, template_kernels
from stackalign.core import translation_kernels as kernels
from stackalign.core.denoise import wiener
from stackalign.core.holes import filled_along_lines
from stackalign.core.noise import NoiseModel
from stackalign.core.resample import spline_coefficients, spline_filtered
from stackalign.core.threads import map_threads
from stackalign.core.warp_kernels import PAD

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TOLERANCE = 2e-3  # px; what is left after the step is some hundredths of it
_WIDE = 128  # px: from here on a pixel lost at each border costs less than filtering every frame
_DEEP = 24  # planes: the same; a plane lost costs more, but so does the filter of a volume
_LEAST = 16  # pixels of an image that only leads to the next finer one
_TALL = 256  # rows: from here on every fourth of them tells the first steps
_EVERY = 4
_LONGEST = 2.0  # px a step: beyond, the linearisation says nothing
_EVEN = 0.1  # of the mean variance: the least that a dark pixel's counts for, so that few do not rule the fit
_ALL = 1e30  # no pixel is left out for its residual
_PLANES = slice(PAD - 1, 2 - PAD)  # what a volume's coefficients keep of the mirrored planes
_SLOPE = 3  # pixels along an axis that it takes to tell a slope
_NOTHING = np.zeros((1, 1, 1), np.float32)
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

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The shift as a homogeneous matrix (d + 1, d + 1)."""
        matrix = np.eye(len(self.shift) + 1)
        matrix[:-1, -1] = self.shift
        return matrix


@dataclass(frozen=True, slots=True, eq=False)
class TranslationTemplate:
    """A reference with its derivatives, weights and normal equations.

    Attributes
    ----------
    shape : tuple of int
        Of the reference, (y, x) or (z, y, x).
    level : float
        Mean that is subtracted from the reference.
    coefficients, known : float32 (z, y, x)
        Spline coefficients of the reference (less ``level``), and 1 where a pixel and its neighbours are known. Volumes
        carry one mirrored plane in front and two behind, so that those of few planes are read up to their borders.
    basis, weight : float32 (K - 1, z, y, x), (z, y, x)
        Gradients and values; inverse variance of each pixel, 0 where it does not count.
    normal : float64 (K, K)
        Their products over all pixels.
    noise : NoiseModel
        In intensity units of the reference.
    frames : float
        Frames that were averaged into the reference; infinite if it is free of noise.
    filters : bool
        Whether frames are taken as they are, and the B-spline's filter is applied to the template instead.
    """

    shape: tuple[int, ...]
    level: float
    coefficients: NDArray[np.float32]
    known: NDArray[np.float32]
    basis: NDArray[np.float32]
    weight: NDArray[np.float32]
    normal: NDArray[np.float64]
    noise: NoiseModel
    frames: float
    filters: bool
    _later: dict[str, Any] = field(default_factory=dict)

    @property
    def equations(self) -> ShiftEquations:
        """The equations of whole frames, worked out once."""
        if "shift" not in self._later:
            self._later["shift"] = ShiftEquations.of(self)
        return self._later["shift"]  # type: ignore[no-any-return]

    @classmethod
    def of(
        cls,
        reference: NDArray[np.float32],
        mask: NDArray[np.bool_] | None = None,
        *,
        noise: NoiseModel | None = None,
        frames: float = 1.0,
        window: NDArray[np.float32] | None = None,
        rough: bool = False,
    ) -> TranslationTemplate:
        """Prepare a reference.

        Parameters
        ----------
        reference : ndarray (y, x) or (z, y, x), float32
            NaN where it is not known.
        mask : ndarray of bool, optional
            True where a pixel counts.
        noise : NoiseModel, optional
            Weights are the inverse variance of it; equal if left out.
        frames : float
            Frames averaged into the reference.
        window : ndarray, optional
            Further weight of each pixel.
        rough : bool
            Speed counts more than the outermost pixels.

        Raises
        ------
        ValueError
            If no pixel is left, or the reference has no contrast.
        """
        d = reference.ndim
        known = np.isfinite(reference)
        counted = known if mask is None else known & mask
        if not counted.any():
            raise ValueError("no pixel of the reference is left: the mask covers all that is known of it")
        filled = np.asarray(reference, np.float32)
        if not known.all():
            filled = np.asarray(filled_along_lines(filled, known), np.float32)
            # values are known, but slopes and spline weights reach two pixels further; of a thin volume one plane at
            # each side is all that can be spared
            reach = [(n > 4) + (n >= 32) for n in known.shape]
            near = np.empty_like(known)
            template_kernels.eroded(_volume(known), np.array([0] * (3 - d) + reach), _volume(near))
            counted = near if mask is None else near & mask
            if not counted.any():
                raise ValueError("no pixel of the reference is left: too little of it is known")
        used = np.ascontiguousarray(_volume(counted))
        level, spread = template_kernels.moments(_volume(filled), used)
        if spread <= 1e-6 * max(abs(level), 1e-30) or spread == 0:
            raise ValueError("the reference has no contrast: all its pixels are equal")
        centred = (filled - np.float32(level)).astype(np.float32)
        model = noise or NoiseModel(1.0)
        camera = np.array([model.constant, model.slope, model.floor])
        if np.isfinite(frames):
            variance = template_kernels.mean_variance(_volume(centred), used, level, camera) / frames
            centred = wiener(centred, None if noise is None else variance, resampled=frames > 1)
        padded = spline_coefficients(centred, 3)
        whole, cut = slice(None), slice(PAD, -PAD)
        inner = (whole, cut, cut) if d == 2 else (cut, cut, cut)
        volume = _volume(centred)
        basis = np.empty((d + 1, *volume.shape), np.float32)
        map_threads(lambda k: template_kernels.slopes(padded, PAD, np.array([3 - d + k]), basis[k : k + 1]), range(d))
        basis[-1] = volume
        # variance of the filtered reference: noise that pulls a pixel down must not raise its weight
        least = _EVEN * template_kernels.mean_variance(volume, used, level, camera)
        shade = _NOTHING if window is None else np.ascontiguousarray(_volume(window), np.float32)
        weight = np.empty(volume.shape, np.float32)
        template_kernels.weigh(volume, used, shade, level, camera, least, weight)
        normal = shift_kernels.products(basis, weight)
        usable = used.astype(np.float32)
        deep = reference.shape[0] >= (_LEAST if rough else _DEEP)
        for k, n in enumerate(reference.shape):
            if n < _SLOPE:
                normal[k, k] = 1.0  # all else in its row is zero, so that its step is zero too
        return cls(
            reference.shape,
            level,
            np.ascontiguousarray(padded[_PLANES, cut, cut] if d == 3 else padded[inner]),
            np.pad(usable, ((1, 2), (0, 0), (0, 0)), mode="edge") if d == 3 else usable,
            basis,
            weight,
            normal,
            model,
            frames,
            mask is None and min(reference.shape[-2:]) >= (_LEAST if rough else _WIDE) and (d == 2 or deep),
        )

    @property
    def ndim(self) -> int:
        """Spatial dimensions."""
        return len(self.shape)

    @property
    def blind(self) -> NDArray[np.bool_]:
        """(d,) True along axes of one or two pixels: no slope is known there, so only whole steps can be told."""
        return np.array([n < _SLOPE for n in self.shape])

    def contrast(self) -> float:
        """Return the weighted variance of the reference, intensity squared."""
        n = self.normal
        return float(n[-2, -2] / n[-1, -1] - (n[-2, -1] / n[-1, -1]) ** 2)

    def sensitivity(self) -> NDArray[np.float64]:
        """Return the Cramer-Rao bound of a frame that covers all of it, standard error per axis, pixels."""
        covariance = _inverse(self.normal)
        return np.sqrt(np.maximum(np.diag(covariance)[: self.ndim], 0))


@dataclass(frozen=True, slots=True, eq=False)
class ShiftEquations:
    """The linear equations of a shift for frames whose pixels are read as B-spline coefficients.

    A frame would have to be filtered to be interpolated (its pixels turned into coefficients). Filter and shift
    commute, so that the filter can be moved to the images that the frame is projected on: once for all frames. The
    price is a pixel at each border, whose smoothed value the reference does not tell: little of a wide image.

    Attributes
    ----------
    basis : float32 (K - 1, z, y, x)
        Gradients and values of the reference, smoothed by the B-spline like the frames.
    phi, scale : int16 (K, z, y, x), float64 (K,)
        Weighted gradients, values and 1, filtered, in units of the scale.
    normal : float64 (K, K)
        Sums of ``phi_i * basis_j``.
    thinned : float64 (K, K)
        The same over one of ``every`` rows, which tell the first steps.
    every : int
        1 for small templates.
    """

    basis: NDArray[np.float32]
    phi: NDArray[np.int16]
    scale: NDArray[np.float64]
    normal: NDArray[np.float64]
    thinned: NDArray[np.float64]
    every: int

    @classmethod
    def of(cls, template: TranslationTemplate) -> ShiftEquations:
        """Work them out."""
        d, weight, basis = template.ndim, template.weight, template.basis
        counted = weight > 0
        phi, scale = np.empty((d + 2, *weight.shape), np.int16), np.ones(d + 2)
        if template.filters:
            padded = spline_coefficients(_image(basis[-1], d), 1)
            axes = [*range(3 - d, 3), -1]
            basis = np.empty_like(basis)
            map_threads(
                lambda k: template_kernels.slopes(padded, PAD, np.array(axes[k : k + 1]), basis[k : k + 1]),
                range(d + 1),
            )
            for axis in range(3 - d, 3):
                counted[(slice(None),) * axis + ([0, -1],)] = False

        def project(k: int) -> None:
            image = weight if k == d + 1 else weight * template.basis[k]
            if template.filters:
                image = _volume(spline_filtered(_image(image, d), 3))
            # beyond what counts the reference is not known: what the filter spread there is cut off again
            scale[k] = shift_kernels.quantised(image, counted, phi[k])

        map_threads(project, range(d + 2))
        every = _EVERY if basis.shape[2] >= _TALL else 1
        normal = shift_kernels.gram(basis, phi, scale, 1)
        thinned = normal if every == 1 else shift_kernels.gram(basis, phi, scale, every)
        for k in np.flatnonzero(template.blind):
            normal[k, k] = thinned[k, k] = 1.0  # all else in its row is zero, so that its step is zero too
        return cls(basis, phi, scale, normal, thinned, every)


def fit_translation(
    frame: NDArray[Any], template: TranslationTemplate, start: NDArray[np.float64], *, iterations: int = 20
) -> Fit | str:
    """Return the shift of ``frame`` against a template, or in words why there is none.

    Parameters
    ----------
    frame : ndarray, the template's shape
        Any dtype; NaN do not count.
    template : TranslationTemplate
        The reference.
    start : ndarray (d,)
        First guess of the shift, moving -> reference, within about a correlation length of the truth.
    iterations : int
        At most.
    """
    raw = np.asarray(frame)
    start = np.where(template.blind, np.round(start), start)
    if raw.dtype.kind == "f" and not (finite := np.isfinite(raw)).all():
        image = np.where(finite, raw.astype(np.float32) - np.float32(template.level), np.float32(0))
        return _fit_on_frame(
            np.ascontiguousarray(_volume(image)), _volume(finite.astype(np.float32)), template, start, iterations
        )
    return _fit_on_template(raw, template, start, iterations)


def _fit_on_template(
    image: NDArray[Any], template: TranslationTemplate, start: NDArray[np.float64], iterations: int
) -> Fit | str:
    """Fit a whole frame on the template's grid, where all derivatives are known."""
    d = template.ndim
    volume = _volume(_as_read(image))
    equations = template.equations
    pad, coefficients = 0, volume
    if not template.filters:
        pad, coefficients = PAD, spline_coefficients(_image(volume, d), 3)
    shift, answer, noise = np.zeros(3), np.eye(d), template.noise
    shift[3 - d :] = start
    camera = np.array([noise.constant + noise.slope * template.level, noise.slope, noise.floor])
    status, out, overlap = shift_kernels.fit_whole(
        coefficients, pad, volume, equations.phi, equations.scale, equations.basis, equations.normal, equations.thinned,
        equations.every, template.coefficients, template.known, camera, _every_which(volume.shape), shift, _TOLERANCE,
        _LONGEST, iterations, answer,
    )  # fmt: skip
    if status < 0:
        return _REASONS[status]
    return _finished(
        template, shift[3 - d :], out[1], out[2], tuple(out[3:7].tolist()), out[7 : 7 + d], answer, overlap, 0.0,
        int(out[0]), status == shift_kernels.SETTLED,
    )  # fmt: skip


def _as_read(image: NDArray[Any]) -> NDArray[Any]:
    """Return the frame as the kernels read it: uint16 or float32, in one piece."""
    kind = np.uint16 if image.dtype == np.uint16 else np.float32
    return np.require(image, kind, ["C", "A", "W"])


_REASONS = {
    shift_kernels.NO_OVERLAP: "it shares no region with the reference",
    shift_kernels.NO_STRUCTURE: "what it shares with the reference has no structure",
    shift_kernels.NO_CORRELATION: "it does not correlate with the reference",
}


def _fit_on_frame(
    volume: NDArray[np.float32],
    seen: NDArray[np.float32],
    template: TranslationTemplate,
    start: NDArray[np.float64],
    iterations: int,
) -> Fit | str:
    """Fit a frame with holes, on its own grid (forward additive: the template's spline follows the shift)."""
    d = template.ndim
    use = [*range(3 - d, 3), 3, 4]
    shift = np.zeros(3)
    shift[3 - d :] = start
    noise = np.array(
        [template.noise.constant + template.noise.slope * template.level, template.noise.slope, template.noise.floor]
    )
    brightness = np.array([1.0, 0.0])
    step = np.full(d, np.inf)
    normal, theta, done = np.eye(d + 2), np.ones(d + 2), 0
    for done in range(1, iterations + 1):  # noqa: B007 - reported
        # the weight of a pixel is that of the reference there, whatever pedestal the frame has
        noise[0] = template.noise.constant + template.noise.slope * (template.level - brightness[1])
        planes, there = _planes(volume.shape, template, shift)
        sums = kernels.normal_equations(
            volume[planes], seen[planes], template.coefficients, template.known, there, brightness, noise, _ALL
        )
        if sums[kernels.COUNT] < 9:
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
        step = solved[:d] / brightness[0]
        shift[3 - d :] += np.clip(step, -_LONGEST, _LONGEST)
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
    answer = np.eye(d)
    return _finished(
        template, shift[3 - d :], theta[d], theta[d + 1], told, shift_kernels.variances(normal, answer), answer,
        overlap, template.level, done, settled,
    )  # fmt: skip


def _finished(
    template: TranslationTemplate,
    shift: NDArray[np.float64],
    gain: float,
    offset: float,
    told: tuple[float, ...],
    variance: NDArray[np.float64],
    answer: NDArray[np.float64],
    overlap: float,
    pedestal: float,
    iterations: int,
    converged: bool,
) -> Fit | str:
    """Judge a solution by what was ``told``: pixels compared, correlation, mean squared residual and chi squared."""
    count, correlation, residual, chi2 = told
    if count < 9:
        return _REASONS[shift_kernels.NO_OVERLAP]
    # the reference is itself an average of noisy frames
    scale = chi2 * (1 + 1 / template.frames)
    error = np.sqrt(variance * scale) / gain
    error[template.blind] = np.nan
    return Fit(
        shift, error, float(gain), float(offset + pedestal - gain * template.level), correlation,
        residual**0.5, chi2, float(overlap), iterations, converged, answer,
    )  # fmt: skip


def intensity_residuals(
    frame: NDArray[Any], template: TranslationTemplate, shift: NDArray[np.float64], gain: float, offset: float
) -> NDArray[np.float64]:
    """Return (intensity, residual) pairs (N, 2) in the units of the reference, for a fit of the noise."""
    image = np.asarray(frame, np.float32)
    finite = np.isfinite(image)
    seen = _NOTHING if finite.all() else _volume(finite.astype(np.float32))
    image = (np.where(finite, image, np.float32(0)) - np.float32(offset)) / np.float32(gain) - np.float32(
        template.level
    )
    pairs = sampled_residuals(np.ascontiguousarray(_volume(image)), seen, template, shift)
    pairs[:, 0] += template.level
    return pairs


def _volume(image: NDArray[Any]) -> NDArray[Any]:
    return image if image.ndim == 3 else image[None]


def _image(volume: NDArray[Any], d: int) -> NDArray[Any]:
    return volume if d == 3 else volume[0]


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
    return *_planes(volume.shape, template, full), _every_which(volume.shape)


def _every_which(shape: tuple[int, ...]) -> int:
    """Return every which pixel along each axis makes some thousand."""
    active = sum(n > 1 for n in shape)
    return max(int((math.prod(shape) / _SAMPLES) ** (1 / max(active, 1))), 1)


def _planes(
    frame: tuple[int, ...], template: TranslationTemplate, shift: NDArray[np.float64]
) -> tuple[slice, NDArray[np.float64]]:
    """Return the planes of a frame that lie inside the template, and the shift of these in its mirrored planes."""
    if template.ndim == 2:
        return slice(None), shift
    first = max(int(np.ceil(-shift[0] - 1e-6)), 0)
    last = min(int(np.floor(template.shape[0] - 1 - shift[0] + 1e-6)), frame[0] - 1)
    return slice(first, max(last + 1, first)), shift + np.array([first + 1.0, 0.0, 0.0])


def _inverse(normal: NDArray[np.float64]) -> NDArray[np.float64]:
    scale = 1 / np.sqrt(np.maximum(np.diag(normal), 1e-300))
    try:
        return np.asarray(np.linalg.inv(normal * np.outer(scale, scale)) * np.outer(scale, scale))
    except np.linalg.LinAlgError:
        return np.full_like(normal, np.nan)
