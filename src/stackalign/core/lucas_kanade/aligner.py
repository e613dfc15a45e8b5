"""Align one frame to one image by gradients: from a start if there is one, else searched for; then judged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.holes import masked
from stackalign.core.frames.reduction import binned, enlarged, reduced
from stackalign.core.geometry import centre
from stackalign.core.references.reference import PairResult
from stackalign.core.verdicts.agreement import LEAST_AGREEMENT, agreement, noise_variance
from stackalign.core.verdicts.block_votes import LEAST_SIDE, elected
from stackalign.core.verdicts.consensus import NOISY, Jury, dissent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.frames.noise import NoiseModel
    from stackalign.core.lucas_kanade.fit import MotionFit
    from stackalign.core.lucas_kanade.levels import MotionReference
    from stackalign.core.lucas_kanade.registrar import LucasKanade
    from stackalign.core.transform import TransformModel

    Array = NDArray[np.float64]

_NEAR = 0.75  # px at the corners: a first step up to this size needs no pyramid
_POOR = 0.75  # confidence below which a start is given up for a search, and a search followed by a finer one
_DOUBTFUL = 0.95  # confidence below which a frame's structure is compared once more
_SURE_AGREEMENT = 0.6  # what they must have in common where no peak of the search stood out
_PULLED = 0.15  # px at the corners that something else must have pulled a frame away by to be left out
_SHADES = 4.0  # times the noise of most pixels: what that of bright ones may add
_CHANCE = 5 / np.sqrt(4096)  # correlation that images without anything in common reach
_VAGUE = 0.02  # of the frame's size: a motion that is known no better at the corners is not known


@dataclass(frozen=True, slots=True, eq=False)
class MotionAligner:
    """Aligns one frame to one image by a motion of the model; a `PairAligner`."""

    parameters: LucasKanade
    frame_shape: tuple[int, ...]
    spacing: tuple[float, ...]
    asks_blocks: bool = True  # whether most blocks of the field must agree with a motion
    doubted: float = _POOR  # confidence below which a start, or what a quick search found, is not the last word
    reads_splines: bool = True

    @property
    def model(self) -> TransformModel:
        """The family of the matrices."""
        return self.parameters.model

    def filtered(self, frame: NDArray[Any]) -> NDArray[Any]:
        """Return the band-passed frame."""
        return self.parameters.filtered(frame)

    def spacing_of(self, shape: Sequence[int]) -> tuple[float, ...]:
        """Return the pixel size of an image: frames may have been reduced by powers of two since."""
        if tuple(shape) == self.frame_shape:
            return self.spacing
        factors = [2 ** max(round(float(np.log2(n / m))), 0) for n, m in zip(self.frame_shape, shape, strict=True)]
        return tuple(s * f for s, f in zip(self.spacing, factors, strict=True))

    def prepare(
        self,
        reference: NDArray[np.float32],
        mask: NDArray[np.bool_] | None,
        *,
        noise: NoiseModel | None = None,
        frames: float = 1.0,
    ) -> MotionReference:
        """Return derivatives and normal equations of a reference; see `PairAligner.prepare`."""
        from stackalign.core.lucas_kanade.levels import MotionReference
        from stackalign.core.lucas_kanade.template import MotionTemplate
        from stackalign.core.translation.template import TranslationTemplate

        images = TranslationTemplate.of(
            reference, mask, noise=noise, frames=frames, window=self.parameters.weights(reference.shape)
        )
        spacing = self.spacing_of(reference.shape)
        image = masked(reference, mask)
        full = MotionTemplate.of(
            images, self.model, spacing, tell_tails=noise is not None and images.shape == self.frame_shape
        )
        return MotionReference(full, image, noise, frames, spacing, int(np.isfinite(image).sum()), mask is None)

    def align(self, frame: NDArray[Any], template: MotionReference, start: NDArray[np.float64] | None) -> PairResult:
        """Return how ``frame`` lies on the reference; see `PairAligner.align`."""
        from stackalign.core.lucas_kanade.fit import fit_motion

        d = np.ndim(frame)
        best: PairResult | None = None
        if start is not None:
            begun = np.asarray(start, float)
            found = fit_motion(
                frame, template.full, begun, robust=self.parameters.robust, iterations=self.parameters.iterations,
                reach=_NEAR,
            )  # fmt: skip
            if isinstance(found, str) or not found.converged:
                found = self._climbed(frame, template, begun, 4)
            if not isinstance(found, str):
                best = self._result(found, frame, template)
                if not best.reason and best.confidence > self.doubted:
                    return best
        for thorough in (False, True):
            found, credible = self._searched(frame, template, thorough=thorough)
            if isinstance(found, str):
                best = best or PairResult.failed(d, found)
                continue
            result = self._result(found, frame, template, credible=credible)
            if best is None or _better(result, best):
                best = result
            if not best.reason and best.confidence > self.doubted:
                break
        assert best is not None
        return self._voted(frame, template) or best if best.reason else best

    def _voted(self, frame: NDArray[Any], template: MotionReference) -> PairResult | None:
        """Return where most blocks of a frame say that it lies, if enough of the reference agree; else None."""
        if not self.asks_blocks or template.noise is None or np.ndim(frame) != 2 or min(frame.shape) < LEAST_SIDE:
            return None
        fit = elected(template.ballot(), frame, self._jury(template))
        result = None if fit is None else self._judged(fit, frame, template, "")
        return None if result is None or result.reason else result

    def _jury(self, template: MotionReference) -> Jury[MotionFit]:
        """Return the blocks of the field, and how they fit a part of a frame."""
        from stackalign.core.lucas_kanade.fit import fit_motion

        options = self.parameters

        def fitted(part: NDArray[Any], start: Array) -> MotionFit | None:
            fit = fit_motion(part, template.full, start, robust=options.robust, iterations=options.iterations)
            return None if isinstance(fit, str) or not fit.converged else fit

        def overlap(frame: NDArray[Any], fit: MotionFit) -> float:
            whole = fit_motion(frame, template.full, fit.matrix, iterations=1)
            return 0.0 if isinstance(whole, str) else whole.overlap

        return Jury(template.blocks(), fitted, overlap, _PULLED)

    def residuals(self, frame: NDArray[Any], template: MotionReference, result: PairResult) -> NDArray[np.float64]:
        """Return (intensity, residual) pairs of some thousand pixels; see `PairAligner.residuals`."""
        from stackalign.core.lucas_kanade.residuals import intensity_residuals

        return intensity_residuals(frame, template.full, result.matrix, result.gain, result.offset)

    def _searched(
        self, frame: NDArray[Any], template: MotionReference, *, thorough: bool = False
    ) -> tuple[MotionFit | str, bool]:
        """Search the whole range on reduced frames, then refine the best candidate scale by scale.

        Returns the fit, or why there is none, and whether the search alone made it credible.
        """
        from stackalign.core.lucas_kanade.fit import refine_motion

        factors, bank = template.bank(self.parameters, finer=thorough)
        candidates = bank.candidates(binned(frame, factors), thorough=thorough)
        if not candidates:
            return "no scale of it can be compared with the reference", False
        # smooth images correlate everywhere: what does not stand out is tried as well, and judged by the outcome
        credible = [c for c in candidates if c.peak.margin > 0]
        candidates = credible or candidates
        coarsest = template.levels()[0]
        small = binned(frame, coarsest.factors)
        fits = []
        for candidate in candidates:
            start = reduced(enlarged(candidate.matrix, factors), coarsest.factors)
            refined = refine_motion(small, coarsest.simple, start, robust=self.parameters.robust)
            if refined is not None:
                fits.append((refined[1], enlarged(refined[0], coarsest.factors)))
        best = enlarged(candidates[0].matrix, factors)
        if fits:
            best = max(fits, key=lambda f: f[0])[1]
        found = self._climbed(frame, template, best, max(coarsest.factors), coarsest.factors if fits else None)
        return found, bool(credible)

    def _climbed(
        self,
        frame: NDArray[Any],
        template: MotionReference,
        start: Array,
        coarsest: int,
        begun: tuple[int, ...] | None = None,
    ) -> MotionFit | str:
        """Refine a motion from the scale of reduction ``coarsest`` on to full size.

        ``begun``: reduction at which it was refined already, by the simple model.
        """
        from stackalign.core.lucas_kanade.fit import fit_motion, refine_motion

        matrix, options = start, self.parameters
        for level in template.levels():
            if 1 < max(level.factors) <= coarsest and not (level.factors == begun and level.simple is level.full):
                small = binned(frame, level.factors)
                refined = refine_motion(
                    small, level.full, reduced(matrix, level.factors), robust=options.robust,
                    iterations=options.iterations,
                )  # fmt: skip
                if refined is not None:
                    matrix = enlarged(refined[0], level.factors)
        return fit_motion(frame, template.full, matrix, robust=options.robust, iterations=options.iterations)

    def _result(
        self, fit: MotionFit, frame: NDArray[Any], template: MotionReference, *, credible: bool = True
    ) -> PairResult:
        d, dissenting = len(fit.error), ""
        if self.asks_blocks and d == 2 and template.noise is not None and self._doubtful(fit, frame, template):
            fit, found = self._jury(template).agreed(fit, frame)
            dissenting = dissent(found)
        return self._judged(fit, frame, template, dissenting, credible=credible)

    def _judged(
        self, fit: MotionFit, frame: NDArray[Any], template: MotionReference, dissenting: str, *, credible: bool = True
    ) -> PairResult:
        """Return a fit as a result, flagged if it cannot be right, or if most of the field is ``dissenting``."""
        d = len(fit.error)
        seen = int(np.isfinite(frame).sum()) if frame.dtype.kind == "f" else frame.size
        area = seen * abs(float(np.linalg.det(fit.matrix[:d, :d])))
        overlap = fit.overlap / min(1.0, max(area / template.usable, 1e-9))
        confidence = float(np.clip(fit.correlation / max(fit.expected, 1e-3), 0, 1))
        reason = self._verdict(fit, overlap, template)
        reason = reason or dissenting
        if not reason and (not credible or (template.noise is not None and confidence < _DOUBTFUL)):
            common = agreement(np.asarray(frame, np.float32), template.image, fit.matrix)
            if common < (LEAST_AGREEMENT if credible else _SURE_AGREEMENT):
                reason = f"where it fits best, it shows little of the reference (agreement {common:.2f} of 1)"
        return PairResult(
            fit.matrix, fit.correlation, fit.residual, confidence, fit.error, reason, fit.gain, fit.offset
        )  # fmt: skip

    def _doubtful(self, fit: MotionFit, frame: NDArray[Any], template: MotionReference) -> bool:
        """Return whether residuals hold more than noise, so that blocks must be asked."""
        # without heavy tails nothing in view moves otherwise, unless most of it does: then that is taken for noise
        light = template.full.tell_tails and self.parameters.robust != "none" and not fit.outliers
        return fit.residual**2 > (_SHADES if light else NOISY) * noise_variance(frame)

    def _verdict(self, fit: MotionFit, overlap: float, template: MotionReference) -> str:
        """Return what is wrong with a fit, in words; empty if nothing is."""
        from stackalign.core.lucas_kanade.search import ANGLE_STEP

        options, shape = self.parameters, template.image.shape
        d = len(shape)
        linear = fit.matrix[:d, :d]
        if len(set(template.spacing)) > 1:
            size = np.asarray(template.spacing)
            linear = linear * size[:, None] / size[None, :]
        angle, stretch, folded = _taken_apart(linear)
        middle = [*centre(shape), 1.0]
        *there, depth = (fit.matrix @ middle).tolist()
        shift = max(abs(a / depth - b) for a, b in zip(there, middle, strict=False))
        if not fit.converged:
            return "it did not settle on one place"
        if folded or stretch[-1] < 0.1 * stretch[0]:
            return "it would have to be folded or squashed to fit"
        if angle > options.max_rotation + ANGLE_STEP:
            return f"it would be turned by {angle:.0f} degrees, beyond the largest rotation, {options.max_rotation:g}"
        if max(stretch[0], 1 / stretch[-1]) > 1.25 * options.max_scale:
            return f"its size would change by a factor of {stretch[0]:.2f}, beyond the largest scale"
        if options.max_shift is not None and shift > options.max_shift + 1e-6:
            return f"the shift lies beyond the largest one allowed, {options.max_shift:g} px"
        if overlap < options.min_overlap:
            return f"only {overlap:.0%} of the reference is in view"
        if fit.correlation < _CHANCE:
            return f"it does not correlate with the reference ({fit.correlation:.2f})"
        if fit.corner_error > _VAGUE * max(shape):
            return f"its content fixes the motion only to {fit.corner_error:.1f} px at the corners"
        return ""


def _taken_apart(linear: Array) -> tuple[float, Sequence[float], bool]:
    """Return the angle in degrees and the stretches, largest first, of a linear map, and whether it mirrors."""
    if len(linear) == 2:
        (a, b), (c, d) = linear.tolist()
        even, odd = math.hypot(a + d, c - b) / 2, math.hypot(a - d, b + c) / 2
        return abs(math.degrees(math.atan2(c - b, a + d))), (even + odd, abs(even - odd)), a * d - b * c <= 0
    u, stretch, vt = np.linalg.svd(linear)
    angle = np.rad2deg(np.arccos(np.clip((np.trace(u @ vt) - 1) / 2, -1, 1)))
    return float(angle), stretch.tolist(), bool(np.linalg.det(linear) <= 0)


def _better(result: PairResult, other: PairResult) -> bool:
    """Return whether a result is the more credible of two."""
    if bool(result.reason) != bool(other.reason):
        return not result.reason
    return bool(result.correlation > other.correlation or np.isnan(other.correlation))
