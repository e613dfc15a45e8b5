"""Align one frame to one image by gradients: from a start if there is one, else searched for; then judged."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.holes import masked
from stackalign.core.frames.reduction import binned_frames, enlarged, reduced
from stackalign.core.geometry import centre
from stackalign.core.references.reference import LENIENT, PairResult
from stackalign.core.verdicts.agreement import LEAST_AGREEMENT, SURE_AGREEMENT, agreement, noise_variance
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
_FAINT = 0.25  # of the brightness of the reference: a frame's structure is compared once more, too
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
    asked: float = 1.0  # of the least overlap, that what is found must have

    @property
    def model(self) -> TransformModel:
        """The family of the matrices."""
        return self.parameters.model

    def lenient(self) -> MotionAligner:
        """Return the aligner that believes where a frame is found though little of the reference is in view."""
        return replace(self, asked=LENIENT)

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

        if noise is not None and self.parameters.weighting == "equal":
            noise = noise.even(float(np.nanmean(reference)))
        images = TranslationTemplate.of(
            reference, mask, noise=noise, frames=frames, window=self.parameters.weights(reference.shape)
        )
        spacing = self.spacing_of(reference.shape)
        image = masked(reference, mask)
        full = MotionTemplate.of(
            images, self.model, spacing, tell_tails=noise is not None and images.shape == self.frame_shape
        )
        return MotionReference(full, image, noise, frames, spacing, int(np.isfinite(image).sum()), mask is None)

    def pull(self, template: MotionReference) -> float:
        """Return how far a frame is held by its own noise in a mean; see `TranslationTemplate.pull`."""
        return template.full.images.pull()

    def align(self, frame: NDArray[Any], template: MotionReference, start: NDArray[np.float64] | None) -> PairResult:
        """Return how ``frame`` lies on the reference; see `PairAligner.align`."""
        return self.align_many([frame], template, [start])[0]

    def align_many(
        self, frames: Sequence[NDArray[Any]], template: MotionReference, starts: Sequence[NDArray[np.float64] | None]
    ) -> list[PairResult]:
        """Return how each of some frames lies on the reference; see `ManyAligner.align_many`."""
        from stackalign.core.lucas_kanade.fit import fit_motions

        options, best = self.parameters, dict[int, PairResult]()
        begun = {k: np.asarray(start, float) for k, start in enumerate(starts) if start is not None}
        fits = dict(zip(begun, fit_motions(
            [frames[k] for k in begun], template.full, list(begun.values()), robust=options.robust,
            iterations=options.iterations, reach=_NEAR,
        ), strict=True))  # fmt: skip
        far = [k for k, fit in fits.items() if isinstance(fit, str) or not fit.converged]
        fits |= zip(far, self._climbed([frames[k] for k in far], template, [begun[k] for k in far], 4), strict=True)
        for k, fit in fits.items():
            if not isinstance(fit, str):
                best[k] = self._result(fit, frames[k], template)
        for thorough in (False, True):
            rest = [k for k in range(len(frames)) if k not in best or self._doubts(best[k])]
            found = self._searched([frames[k] for k in rest], template, thorough=thorough)
            for k, (fit, credible) in zip(rest, found, strict=True):
                if isinstance(fit, str):
                    best.setdefault(k, PairResult.failed(np.ndim(frames[k]), fit))
                    continue
                result = self._result(fit, frames[k], template, credible=credible)
                if k not in best or _better(result, best[k]):
                    best[k] = result
        for k, result in best.items():
            if result.reason:
                best[k] = self._voted(frames[k], template) or result
        return [best[k] for k in range(len(frames))]

    def _doubts(self, result: PairResult) -> bool:
        """Return whether a result is not the last word."""
        return bool(result.reason) or not result.confidence > self.doubted

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

    def residuals(
        self, frame: NDArray[Any], template: MotionReference, result: PairResult, *, own: bool = False
    ) -> NDArray[np.float64]:
        """Return (intensity, residual) pairs of some thousand pixels; see `PairAligner.residuals`."""
        from stackalign.core.lucas_kanade.residuals import intensity_residuals

        return intensity_residuals(frame, template.full, result.matrix, result.gain, result.offset, own=own)

    def _searched(
        self, frames: Sequence[NDArray[Any]], template: MotionReference, *, thorough: bool = False
    ) -> list[tuple[MotionFit | str, bool]]:
        """Search the whole range on reduced frames, then refine the best candidate of each scale by scale.

        Returns fits, or why there is none, and whether the search alone made them credible.
        """
        from stackalign.core.lucas_kanade.fit import refine_motions

        if not frames:
            return []
        factors, bank = template.bank(self.parameters, finer=thorough)
        every = bank.candidates(list(binned_frames(frames, factors)), thorough=thorough)
        # smooth images correlate everywhere: what does not stand out is tried as well, and judged by the outcome
        credible = [[c for c in candidates if c.peak.margin > 0] for candidates in every]
        tried = [(k, c) for k, both in enumerate(zip(credible, every, strict=True)) for c in both[0] or both[1]]
        coarsest = template.levels()[0]
        small = binned_frames(frames, coarsest.factors)
        begun = [reduced(enlarged(c.matrix, factors), coarsest.factors) for _, c in tried]
        refined = refine_motions([small[k] for k, _ in tried], coarsest.simple, begun, robust=self.parameters.robust)
        first: dict[int, Array] = {}
        best: dict[int, tuple[float, Array]] = {}
        for (k, candidate), found in zip(tried, refined, strict=True):
            first.setdefault(k, enlarged(candidate.matrix, factors))
            if found is not None and (k not in best or found[1] > best[k][0]):
                best[k] = found[1], enlarged(found[0], coarsest.factors)
        none = "no scale of it can be compared with the reference"
        out: list[tuple[MotionFit | str, bool]] = [(none, False)] * len(frames)
        for done in (coarsest.factors, None):
            some = [k for k in first if (k in best) == (done is not None)]
            starts = [first[k] if done is None else best[k][1] for k in some]
            fits = self._climbed([frames[k] for k in some], template, starts, max(coarsest.factors), done)
            for k, fit in zip(some, fits, strict=True):
                out[k] = fit, bool(credible[k])
        return out

    def _climbed(
        self,
        frames: Sequence[NDArray[Any]],
        template: MotionReference,
        starts: Sequence[Array],
        coarsest: int,
        begun: tuple[int, ...] | None = None,
    ) -> list[MotionFit | str]:
        """Refine motions from the scale of reduction ``coarsest`` on to full size.

        ``begun``: reduction at which they were refined already, by the simple model.
        """
        from stackalign.core.lucas_kanade.fit import fit_motions, refine_motions

        if not frames:
            return []
        matrices, options = list(starts), self.parameters
        for level in template.levels():
            if 1 < max(level.factors) <= coarsest and not (level.factors == begun and level.simple is level.full):
                there = [reduced(matrix, level.factors) for matrix in matrices]
                refined = refine_motions(
                    list(binned_frames(frames, level.factors)), level.full, there, robust=options.robust,
                    iterations=options.iterations,
                )  # fmt: skip
                for k, found in enumerate(refined):
                    if found is not None:
                        matrices[k] = enlarged(found[0], level.factors)
        return fit_motions(frames, template.full, matrices, robust=options.robust, iterations=options.iterations)

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
        faint = abs(fit.gain) < _FAINT  # of a fit to almost nothing the noise allows no better correlation
        if not reason and (not credible or faint or (template.noise is not None and confidence < _DOUBTFUL)):
            common = agreement(np.asarray(frame, np.float32), template.image, fit.matrix)
            if common < (LEAST_AGREEMENT if credible else SURE_AGREEMENT):
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
        if overlap < self.asked * options.min_overlap:
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
