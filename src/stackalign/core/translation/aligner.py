"""Align frames to one image by translations: from a start if there is one, else searched for; then judged."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.holes import masked
from stackalign.core.frames.reduction import binned_frames, stacked
from stackalign.core.references.reference import LENIENT, PairResult
from stackalign.core.search.correlation import Peak, SearchTemplate, search, search_frames
from stackalign.core.transform import TransformModel
from stackalign.core.translation.fit import Fit, fit_translation, fit_translations, intensity_residuals, settled_shifts
from stackalign.core.translation.reference import TranslationReference
from stackalign.core.translation.template import TranslationTemplate
from stackalign.core.verdicts.agreement import SURE_AGREEMENT, agreement, noise_variance
from stackalign.core.verdicts.block_votes import LEAST_SIDE, elected
from stackalign.core.verdicts.consensus import NOISY, Consensus, Jury, dissent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.frames.noise import NoiseModel
    from stackalign.core.translation.registrar import CrossCorrelation

_CHANCE = 5 / 64  # a correlation that some thousand pixels of noise may have
_PULLED = 0.3  # pixels that something else must have pulled a frame away by to be left out
_SHADES = 2.0  # times the noise of most pixels: what that of bright ones may add
_UNLIKE = "no peak of the correlation stands out: it may show nothing of the reference"
_STRAYED = 2.5  # pixels of a reduced image, from which on a fit found something else than the search did


@dataclass(frozen=True, slots=True, eq=False)
class TranslationAligner:
    """Aligns one frame to one image by a translation; a `PairAligner`."""

    parameters: CrossCorrelation
    asked: float = 1.0  # of the least overlap, that what is found must have

    @property
    def model(self) -> TransformModel:
        """A translation."""
        return TransformModel.TRANSLATION

    def lenient(self) -> TranslationAligner:
        """Return the aligner that believes where a frame is found though little of the reference is in view."""
        return replace(self, asked=LENIENT)

    def filtered(self, frame: NDArray[Any]) -> NDArray[Any]:
        """Return the band-passed frame."""
        return self.parameters.filtered(frame)

    def prepare(
        self,
        reference: NDArray[np.float32],
        mask: NDArray[np.bool_] | None,
        *,
        noise: NoiseModel | None = None,
        frames: float = 1.0,
    ) -> TranslationReference:
        """Return spectra and normal equations of a reference; see `PairAligner.prepare`."""
        full = TranslationTemplate.of(
            reference, mask, noise=noise, frames=frames, window=self.parameters.weights(reference.shape)
        )
        if full.filters:
            _ = full.equations  # now, while all cores can share the work
        return TranslationReference(self.parameters, masked(reference, mask), full, noise, frames, mask is None)

    def align(
        self, frame: NDArray[Any], template: TranslationReference, start: NDArray[np.float64] | None
    ) -> PairResult:
        """Return how ``frame`` lies on the reference; see `PairAligner.align`."""
        return self.align_many(np.asarray(frame)[None], template, [start])[0]

    def align_many(
        self,
        frames: Sequence[NDArray[Any]] | NDArray[Any],
        template: TranslationReference,
        starts: Sequence[NDArray[np.float64] | None],
    ) -> list[PairResult]:
        """Return how each of some frames lies on the reference; see `ManyAligner.align_many`."""
        frames = stacked(frames)
        results: dict[int, PairResult] = {}
        begun = {k: np.asarray(start, float)[:-1, -1] for k, start in enumerate(starts) if start is not None}
        self._fit(frames, template, begun, results, last=False)
        rest = [k for k in range(len(frames)) if k not in results]
        found: dict[int, NDArray[np.float64]] = {}
        faint = set()
        for k, (shift, credible) in zip(rest, self._searched(_part(frames, rest), template), strict=True):
            if shift is None:
                reason = "no scale of it can be compared with the reference"
                results[k] = PairResult.failed(frames.ndim - 1, reason)
            else:
                found[k] = shift
                if not credible:
                    faint.add(k)
        self._fit(frames, template, found, results, last=True)
        for k in faint:  # smooth images correlate everywhere: what does not stand out is judged by the outcome
            fit = results[k]
            if not fit.reason and agreement(frames[k], template.reference, fit.matrix) < SURE_AGREEMENT:
                results[k] = PairResult.failed(frames.ndim - 1, _UNLIKE)
        for k, result in results.items():
            if result.reason:
                results[k] = self._voted(frames[k], template) or result
        return [results[k] for k in range(len(frames))]

    def _fit(
        self,
        frames: NDArray[Any],
        template: TranslationReference,
        shifts: dict[int, NDArray[np.float64]],
        results: dict[int, PairResult],
        *,
        last: bool,
    ) -> None:
        """Fit the frames that ``shifts`` are known of; ``results`` get those that settle, the ``last`` time all."""
        if not shifts:
            return
        some = _part(frames, list(shifts))
        fits = fit_translations(some, template.full, np.array(list(shifts.values())))
        said = self._consensus(some, fits, template)
        for k, frame, fit, blocks in zip(shifts, some, fits, said, strict=True):
            if isinstance(fit, str):
                if last:
                    results[k] = PairResult.failed(frames.ndim - 1, fit)
            elif fit.converged or last:
                results[k] = self._result(fit, frame, template, blocks)

    def residuals(
        self, frame: NDArray[Any], template: TranslationReference, result: PairResult, *, own: bool = False
    ) -> NDArray[np.float64]:
        """Return (intensity, residual) pairs of some thousand pixels; see `PairAligner.residuals`."""
        return intensity_residuals(frame, template.full, result.matrix[:-1, -1], result.gain, result.offset, own=own)

    def _searched(
        self, frames: NDArray[Any], template: TranslationReference
    ) -> list[tuple[NDArray[np.float64] | None, bool]]:
        """Search the whole range for each frame, scale by scale, until a peak stands out clearly.

        Returns shifts, None if there is none, and whether they stood out from what random images reach.
        """
        if not len(frames):
            return []
        best: list[tuple[tuple[int, ...], NDArray[np.float64]] | None] = [None] * len(frames)
        margins = [-np.inf] * len(frames)
        pending = list(range(len(frames)))
        for factors, prepared in template.searches:
            peaks = _peaks(binned_frames(_part(frames, pending), factors), prepared)
            unclear = []
            for k, peak in zip(pending, peaks, strict=True):
                if peak.margin > margins[k]:
                    best[k], margins[k] = (factors, peak.shift * factors), peak.margin
                if not peak.clear:
                    unclear.append(k)
            pending = unclear
            if not pending:
                break
        self._refine(frames, template, best)
        return [(None if b is None else b[1], margin >= 0) for b, margin in zip(best, margins, strict=True)]

    def _refine(
        self,
        frames: NDArray[Any],
        template: TranslationReference,
        found: list[tuple[tuple[int, ...], NDArray[np.float64]] | None],
    ) -> None:
        """Refine what was found at some reduction on finer ones, one after the other, in place."""
        for finer, equations in template.reduced:
            pixels = math.prod(finer)
            begun = {k: f for k, f in enumerate(found) if f is not None and pixels <= math.prod(f[0])}
            if not begun:
                continue
            starts = np.array([shift for _, shift in begun.values()]) / finer
            small = binned_frames(_part(frames, list(begun)), finer)
            shifts = settled_shifts(small, equations, starts)
            near = np.abs(shifts - starts).max(-1) < _STRAYED  # False where NaN
            for (k, (factors, _)), shift, kept in zip(begun.items(), shifts * finer, near, strict=True):
                if kept:
                    found[k] = factors, shift

    def _voted(self, frame: NDArray[Any], template: TranslationReference) -> PairResult | None:
        """Return where most blocks of a frame say that it lies, if enough of the reference agree; else None."""
        if np.ndim(frame) != 2 or min(frame.shape) < LEAST_SIDE:
            return None
        fit = elected(template.ballot, frame, self._jury(template))
        result = None if fit is None else self._judged(fit, frame, template, "")
        return None if result is None or result.reason else result

    def _jury(self, template: TranslationReference) -> Jury[Fit]:
        """Return the blocks of the field, and how they fit a part of a frame."""

        def fitted(part: NDArray[Any], start: NDArray[np.float64]) -> Fit | None:
            fit = fit_translation(part, template.full, start[:-1, -1])
            return None if isinstance(fit, str) or not fit.converged else fit

        def overlap(frame: NDArray[Any], fit: Fit) -> float:
            whole = fit_translation(frame, template.full, fit.shift, iterations=1)
            return 0.0 if isinstance(whole, str) else whole.overlap

        return Jury(template.blocks, fitted, overlap, _PULLED)

    def _result(
        self, fit: Fit, frame: NDArray[Any], template: TranslationReference, blocks: Consensus | None
    ) -> PairResult:
        if blocks is None:
            return self._judged(fit, frame, template, "")
        fit, found = self._jury(template).agreed(fit, frame, blocks)
        return self._judged(fit, frame, template, dissent(found))

    def _judged(self, fit: Fit, frame: NDArray[Any], template: TranslationReference, reason: str) -> PairResult:
        """Return a fit as a result, flagged if it cannot be right."""
        shift = fit.shift
        limit = self.parameters.max_shift
        if not fit.converged:
            reason = "it did not settle on one place"
        elif limit is not None and np.abs(shift).max() > limit + 1e-6:
            reason = f"the shift lies beyond the largest one allowed, {limit:g} px"
        elif fit.overlap < self.asked * self.parameters.min_overlap * _shown(frame):
            reason = f"only {fit.overlap:.0%} of the reference is in view"
        elif fit.correlation < _CHANCE:
            reason = f"it does not correlate with the reference ({fit.correlation:.2f})"
        if not self.parameters.subpixel:
            shift = np.round(shift)
        matrix = np.eye(len(shift) + 1)
        matrix[:-1, -1] = shift
        signal = template.contrast * fit.gain**2
        expected = math.sqrt(signal / (signal + fit.residual**2 / max(fit.chi2, 1e-12))) if signal > 0 else 1.0
        confidence = min(max(fit.correlation / expected, 0.0), 1.0)
        return PairResult(
            matrix, fit.correlation, fit.residual, confidence, fit.error, reason, fit.gain, fit.offset, fit.answer
        )  # fmt: skip

    def _consensus(
        self, frames: NDArray[Any], fits: Sequence[Fit | str], template: TranslationReference
    ) -> list[Consensus | None]:
        """Return what the blocks of the field say of each frame; None where nothing moves through the scene."""
        said: list[Consensus | None] = [None] * len(fits)
        if frames.ndim != 3:
            return said
        asked = {
            k: (f, noise_variance(frames[k]) if math.isnan(f.noise) else f.noise)
            for k, f in enumerate(fits)
            if not isinstance(f, str) and f.converged
        }
        asked = {k: (f, noise) for k, (f, noise) in asked.items() if _disturbed(f, noise, template)}
        if not asked:
            return said
        some = _part(frames, list(asked))
        if some.dtype.kind == "f" and not np.isfinite(some).all():
            for k, (f, _) in asked.items():
                said[k] = template.blocks.consensus(frames[k], f.matrix, f.gain, f.offset)
            return said
        matrices = np.array([f.matrix for f, _ in asked.values()])
        brightness = np.array([[f.gain, f.offset] for f, _ in asked.values()])
        noise = np.array([noise for _, noise in asked.values()])
        for k, told in zip(asked, template.blocks.consensus_of(some, matrices, brightness, noise), strict=True):
            said[k] = told
        return said


def _shown(frame: NDArray[Any]) -> float:
    """Return the share of a frame that counts: no more of it can be in view."""
    return float(np.isfinite(frame).mean()) if frame.dtype.kind == "f" else 1.0


def _disturbed(fit: Fit, noise: float, template: TranslationReference) -> bool:
    """Whether more is left than the noise of both images: something may move through the scene."""
    # a model of the noise tells what bright parts add; but what walks through all frames is taken for noise
    limit = _SHADES if template.noise is not None and fit.chi2 < NOISY else NOISY
    return fit.residual**2 > limit * (noise + fit.gain**2 * template.blocks.noise)


def _part(frames: NDArray[Any], which: Sequence[int]) -> NDArray[Any]:
    """Return some of the frames, without a copy if these are all of them."""
    return frames if len(which) == len(frames) else frames[which]


def _peaks(frames: NDArray[np.float32], prepared: SearchTemplate) -> list[Peak]:
    """Search for each of some reduced frames, which may have holes."""
    finite = np.isfinite(frames)
    if finite.all():
        return search_frames(frames, prepared)
    return [
        search(
            frame if known.all() else np.where(known, frame, np.float32(0)), None if known.all() else known, prepared
        )
        for frame, known in zip(frames, finite, strict=True)
    ]
