"""Cross-correlation: a translation found over the whole range by FFT, then refined to the Cramer-Rao bound."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from stackalign.core.agreement import noise_variance
from stackalign.core.block_votes import LEAST_SIDE, Ballot, elected
from stackalign.core.consensus import NOISY, Blocks, Consensus, agreed, dissent
from stackalign.core.correlation_search import (
    FILLABLE,
    Normalisation,
    Peak,
    SearchTemplate,
    prepare_search,
    search,
    search_frames,
)
from stackalign.core.holes import filled_along_lines, masked
from stackalign.core.preprocess import PairRegistrar
from stackalign.core.ranges import MaxShift, MinOverlap
from stackalign.core.reduction import binned, binned_frames, reduction
from stackalign.core.reference import PairResult, Reference
from stackalign.core.rounds import align_stack
from stackalign.core.stack import ImageStack
from stackalign.core.transform import TransformModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from stackalign.core.displacement import DisplacementModel
    from stackalign.core.noise import NoiseModel
    from stackalign.core.registration import ReferenceLike, Registration
    from stackalign.core.translation import Fit
    from stackalign.core.translation_template import TranslationTemplate
    from stackalign.core.work import Work

_CHANCE = 5 / 64  # a correlation that some thousand pixels of noise may have
_PULLED = 0.3  # pixels that something else must have pulled a frame away by to be left out
_SHADES = 2.0  # times the noise of most pixels: what that of bright ones may add
_CLEAR = 8.0  # standard deviations of a peak that needs no second look at a finer scale
_LEAST = 5.5  # below, random images correlate as well
_FINEST = 256  # px: frames of up to this size are searched at full resolution in the end


class CrossCorrelation(PairRegistrar):
    """Translation, 2-D and 3-D: found by cross-correlation, refined by weighted least squares."""

    method: Literal["cross-correlation"] = "cross-correlation"
    max_shift: MaxShift = None
    min_overlap: MinOverlap = 0.25
    subpixel: bool = Field(
        True,
        title="Sub-pixel",
        description="Refine below whole pixels; off: whole pixels, whose resampling changes no value",
    )
    normalisation: Normalisation = Field(
        "overlap",
        title="Normalisation",
        description="overlap: each shift judged by the correlation coefficient of what overlaps; phase: phase"
        " correlation; none: plain correlation",
        json_schema_extra={"advanced": True},
    )
    blocks: bool = Field(
        False,
        title="Blocks",
        description="Piecewise-rigid: after the translation each block of the frame gets a shift of its own (2-D)",
    )
    block_spacing: float = Field(
        64.0,
        title="Block spacing",
        description="Distance between the centres of neighbouring blocks, which overlap by half",
        ge=8,
        le=10_000,
        json_schema_extra={"unit": "px", "advanced": True},
    )
    block_difference: float = Field(
        1.0,
        title="Block difference",
        description="How much neighbouring blocks are expected to differ; smaller is smoother: blocks with little"
        " texture lean on their neighbours",
        gt=0,
        le=1000,
        json_schema_extra={"unit": "px", "advanced": True},
    )

    def fit(
        self,
        stack: ImageStack,
        *,
        reference: ReferenceLike | None = None,
        anchor: int | str | None = None,
        mask: NDArray[np.bool_] | None = None,
    ) -> Work[Registration]:
        """Estimate one translation per frame; see `Registrar.fit`.

        Raises
        ------
        ValueError
            If the reference, the anchor or the mask do not fit the stack, or the reference has no contrast; if blocks
            are asked for in volumes.
        """
        source = ImageStack.of(stack)
        if self.blocks and source.ndim != 2:
            raise ValueError("blocks are for frames (y, x): switch them off to align volumes")
        policy = Reference.of("mean" if reference is None else reference, len(source), source.frame_shape)
        rigid = yield from align_stack(
            source, self.aligner(), policy, anchor=anchor, mask=mask, rolling=self.rolling, lag=self.lag
        )
        if not self.blocks:
            return rigid
        from stackalign.core.blocks import refine_blocks

        return (
            yield from refine_blocks(
                source, rigid, policy,
                spacing=self.block_spacing, difference=self.block_difference, mask=mask, filtered=self.filtered,
            )
        )  # fmt: skip

    def aligner(self) -> TranslationAligner:
        """Return what aligns one frame to one image."""
        return TranslationAligner(self)

    def fit_model(
        self, images: ImageStack | ArrayLike, reference: ArrayLike | None = None, *, axis: int | None = None
    ) -> DisplacementModel:
        """Estimate displacements in the vocabulary of thunder-registration.

        Parameters
        ----------
        images : ImageStack or array (t, y, x) / (t, z, y, x)
            The frames.
        reference : array, optional
            Image to align to; the mean of ``images``, re-estimated, if left out.
        axis : int, optional
            Axis of a volume: each plane along it gets its own displacement.

        Returns
        -------
        DisplacementModel
            ``transformations[(k,)]``, ``toarray()``, ``transform(images)``.
        """
        from stackalign.core.displacement import fit_displacements

        return fit_displacements(self, images, reference, axis)


class _Template:
    """A reference at full size; reduced, and as spectra, once a frame has to be searched for."""

    def __init__(
        self,
        parameters: CrossCorrelation,
        reference: NDArray[np.float32],
        full: TranslationTemplate,
        noise: NoiseModel | None,
        frames: float,
        fillable: bool,
    ) -> None:
        self.full, self.noise, self._fillable = full, noise, fillable
        self._parameters, self.reference, self._frames = parameters, reference, frames

    @cached_property
    def contrast(self) -> float:
        """Weighted variance of the reference, intensity squared."""
        return self.full.contrast()

    @cached_property
    def blocks(self) -> Blocks:
        """What a frame is asked to agree with."""
        return Blocks.of(self.reference)

    @cached_property
    def ballot(self) -> Ballot:
        """What the blocks of a frame vote on."""
        return Ballot.of(self.reference)

    @cached_property
    def searches(self) -> tuple[tuple[tuple[int, ...], SearchTemplate], ...]:
        """Binning factors and spectra, coarsest first."""
        found, limit = [], self._parameters.max_shift
        for factors in _ladder(self.reference.shape):
            small = binned(self.reference, factors)
            known = np.isfinite(small)
            if self._fillable and 1 > known.mean() > FILLABLE:
                small, known = filled_along_lines(small, known), np.ones_like(known)
            holes = None if known.all() else known
            if holes is not None and (holes.sum() < 16 or float(np.ptp(small[holes])) == 0):
                continue
            value = small if holes is None else np.where(holes, small, np.float32(0))
            window = self._parameters.weights(small.shape)
            if window is not None:
                inside = value if holes is None else value[holes]
                value = (value - np.float32(inside.mean())) * window
            prepared = prepare_search(
                value,
                holes,
                normalisation=self._parameters.normalisation,
                max_shift=None if limit is None else [np.ceil(limit / f) + 1 for f in factors],
                min_overlap=self._parameters.min_overlap,
            )
            found.append((factors, prepared))
        return tuple(found)

    @cached_property
    def reduced(self) -> tuple[tuple[tuple[int, ...], TranslationTemplate], ...]:
        """Binning factors and normal equations, coarsest first; without the full size."""
        from stackalign.core.translation_template import TranslationTemplate

        found = []
        for factors in _ladder(self.reference.shape):
            if all(f == 1 for f in factors):
                continue
            try:
                small = TranslationTemplate.of(binned(self.reference, factors), None, frames=self._frames, rough=True)
            except ValueError:  # nothing is left of it at this scale
                continue
            found.append((factors, small))
        return tuple(found)


@dataclass(frozen=True, slots=True, eq=False)
class TranslationAligner:
    """Aligns one frame to one image by a translation; a `PairAligner`."""

    parameters: CrossCorrelation

    @property
    def model(self) -> TransformModel:
        """A translation."""
        return TransformModel.TRANSLATION

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
    ) -> _Template:
        """Return spectra and normal equations of a reference; see `PairAligner.prepare`."""
        from stackalign.core.translation_template import TranslationTemplate

        full = TranslationTemplate.of(
            reference, mask, noise=noise, frames=frames, window=self.parameters.weights(reference.shape)
        )
        if full.filters:
            _ = full.equations  # now, while all cores can share the work
        return _Template(self.parameters, masked(reference, mask), full, noise, frames, mask is None)

    def align(self, frame: NDArray[Any], template: _Template, start: NDArray[np.float64] | None) -> PairResult:
        """Return how ``frame`` lies on the reference; see `PairAligner.align`."""
        return self.align_many(np.asarray(frame)[None], template, [start])[0]

    def align_many(
        self, frames: NDArray[Any], template: _Template, starts: Sequence[NDArray[np.float64] | None]
    ) -> list[PairResult]:
        """Return how each of some frames lies on the reference; see `ManyAligner.align_many`."""
        from stackalign.core.translation import fit_translations

        d = frames.ndim - 1
        results: dict[int, PairResult] = {}
        shifts = {k: np.asarray(start, float)[:-1, -1] for k, start in enumerate(starts) if start is not None}
        for begun in (True, False):
            if not begun:
                rest = [k for k in range(len(frames)) if k not in results]
                shifts = {}
                for k, (shift, reason) in zip(rest, self._searched(_part(frames, rest), template), strict=True):
                    if shift is None:
                        results[k] = PairResult.failed(d, reason)
                    else:
                        shifts[k] = shift
            if not shifts:
                continue
            some = _part(frames, list(shifts))
            fits = fit_translations(some, template.full, np.array(list(shifts.values())))
            said = self._consensus(some, fits, template)
            for k, frame, found, blocks in zip(shifts, some, fits, said, strict=True):
                if not isinstance(found, str) and (found.converged or not begun):
                    results[k] = self._result(found, frame, template, blocks)
                elif not begun:
                    results[k] = PairResult.failed(d, str(found))
        for k, result in results.items():
            if result.reason:
                results[k] = self._voted(frames[k], template) or result
        return [results[k] for k in range(len(frames))]

    def residuals(self, frame: NDArray[Any], template: _Template, result: PairResult) -> NDArray[np.float64]:
        """Return (intensity, residual) pairs of some thousand pixels; see `PairAligner.residuals`."""
        from stackalign.core.translation import intensity_residuals

        return intensity_residuals(frame, template.full, result.matrix[:-1, -1], result.gain, result.offset)

    def _searched(self, frames: NDArray[Any], template: _Template) -> list[tuple[NDArray[np.float64] | None, str]]:
        """Search the whole range for each frame, scale by scale, until a peak stands out clearly."""
        if not len(frames):
            return []
        best: list[tuple[tuple[int, ...], NDArray[np.float64]] | None] = [None] * len(frames)
        margins = [-np.inf] * len(frames)
        pending = list(range(len(frames)))
        for factors, prepared in template.searches:
            peaks = _peaks(binned_frames(_part(frames, pending), factors), prepared)
            unclear = []
            for k, peak in zip(pending, peaks, strict=True):
                margin = peak.significance - max(_LEAST, 0.5 * peak.runner_up)
                if margin > margins[k]:
                    best[k], margins[k] = (factors, peak.shift * factors), margin
                if not (peak.significance > _CLEAR and peak.significance > 1.4 * peak.runner_up):
                    unclear.append(k)
            pending = unclear
            if not pending:
                break
        found = [None if b is None or margin < 0 else b for b, margin in zip(best, margins, strict=True)]
        self._refine(frames, template, found)
        unlike = "no peak of the correlation stands out: it may show nothing of the reference"
        unseen = "no scale of it can be compared with the reference"
        return [
            (None, unseen if b is None else unlike) if f is None else (f[1], "")
            for f, b in zip(found, best, strict=True)
        ]

    def _refine(
        self,
        frames: NDArray[Any],
        template: _Template,
        found: list[tuple[tuple[int, ...], NDArray[np.float64]] | None],
    ) -> None:
        """Refine what was found at some reduction on finer ones, one after the other, in place."""
        from stackalign.core.translation import fit_translations

        for finer, equations in template.reduced:
            begun = {k: f for k, f in enumerate(found) if f is not None and np.prod(finer) <= np.prod(f[0])}
            if not begun:
                continue
            starts = np.array([shift for _, shift in begun.values()]) / finer
            small = binned_frames(_part(frames, list(begun)), finer)
            fits = fit_translations(small, equations, starts, judged=False)
            for (k, (factors, _)), start, fit in zip(begun.items(), starts, fits, strict=True):
                if not isinstance(fit, str) and fit.converged and np.abs(fit.shift - start).max() < 2.5:
                    found[k] = factors, fit.shift * finer

    def _voted(self, frame: NDArray[Any], template: _Template) -> PairResult | None:
        """Return where most blocks of a frame say that it lies, if enough of the reference agree; else None."""
        from stackalign.core.translation import fit_translation

        if np.ndim(frame) != 2 or min(frame.shape) < LEAST_SIDE:
            return None

        def fitted(part: NDArray[np.float32], start: NDArray[np.float64]) -> Fit | None:
            fit = fit_translation(part, template.full, start[:-1, -1])
            return None if isinstance(fit, str) or not fit.converged else fit

        fit = elected(template.ballot, frame, fitted, lambda fit: self._agreed(fit, frame, template, None))
        if fit is None:
            return None
        whole = fit_translation(frame, template.full, fit.shift, iterations=1)
        if not isinstance(whole, str):  # what was left out is in view
            fit = replace(fit, overlap=max(fit.overlap, whole.overlap))
        result = self._judged(fit, template, "")
        return None if result.reason else result

    def _result(self, fit: Fit, frame: NDArray[Any], template: _Template, blocks: Consensus | None) -> PairResult:
        if blocks is None:
            return self._judged(fit, template, "")
        fit, found = self._agreed(fit, frame, template, blocks)
        return self._judged(fit, template, dissent(found))

    def _judged(self, fit: Fit, template: _Template, reason: str) -> PairResult:
        """Return a fit as a result, flagged if it cannot be right."""
        shift = fit.shift
        limit = self.parameters.max_shift
        if not fit.converged:
            reason = "it did not settle on one place"
        elif limit is not None and np.abs(shift).max() > limit + 1e-6:
            reason = f"the shift lies beyond the largest one allowed, {limit:g} px"
        elif fit.overlap < self.parameters.min_overlap:
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
        self, frames: NDArray[Any], fits: Sequence[Fit | str], template: _Template
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

    def _agreed(
        self, fit: Fit, frame: NDArray[Any], template: _Template, found: Consensus | None
    ) -> tuple[Fit, Consensus]:
        """Fit again to the blocks that agree with a shift; returns these, too."""
        from stackalign.core.translation import fit_translation

        def again(part: NDArray[Any], begun: Fit) -> Fit | None:
            other = fit_translation(part, template.full, begun.shift)
            if isinstance(other, str) or not other.converged:
                return None
            return replace(other, overlap=max(other.overlap, begun.overlap))  # blocks left out are in view

        return agreed(fit, frame, template.blocks, again, least=_PULLED, found=found)


def _disturbed(fit: Fit, noise: float, template: _Template) -> bool:
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


def _ladder(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the reductions to search at, coarsest first; last, those where only the coarsest shades are left.

    Scenes that are smooth and faint are not found before: there is more noise than scene in most frequencies.
    """
    targets = (64, 128, _FINEST, 32, 16) if len(shape) == 2 else (32, 64)
    ladder = [reduction(shape, target) for target in targets]
    return [factors for k, factors in enumerate(ladder) if factors not in ladder[:k]]
