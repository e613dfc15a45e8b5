"""Gradient alignment from translation to homography: searched on reduced frames, refined through a pyramid."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from stackalign.core.agreement import LEAST_AGREEMENT, agreement, noise_variance
from stackalign.core.consensus import NOISY, Blocks, agreed, dissent
from stackalign.core.geometry import centre
from stackalign.core.noise import NoiseModel
from stackalign.core.preprocess import PairRegistrar
from stackalign.core.reduction import binned, enlarged, reduced, reduction
from stackalign.core.reference import PairResult
from stackalign.core.rounds import align_stack
from stackalign.core.stack import ImageStack
from stackalign.core.transform import TransformModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.lucas_kanade_fit import MotionFit, MotionTemplate
    from stackalign.core.lucas_kanade_search import SearchBank
    from stackalign.core.registration import ReferenceLike, Registration
    from stackalign.core.work import Work

    Array = NDArray[np.float64]

_COARSEST = {2: 64, 3: 32}  # pixels along an axis of the frames that are searched
_NEAR = 0.75  # px at the corners: a first step up to this size needs no pyramid
_POOR = 0.75  # confidence below which a start is given up for a search
_DOUBTFUL = 0.95  # confidence below which a frame's structure is compared once more
_SURE_AGREEMENT = 0.6  # what they must have in common where no peak of the search stood out
_CHANCE = 5 / np.sqrt(4096)  # correlation that images without anything in common reach
_VAGUE = 0.02  # of the frame's size: a motion that is known no better at the corners is not known


class LucasKanade(PairRegistrar):
    """Translation to homography, 2-D and 3-D: gradients, robust weights, brightness solved with the motion."""

    method: Literal["lucas-kanade"] = "lucas-kanade"
    model: TransformModel = Field(
        TransformModel.EUCLIDEAN,
        title="Model",
        description="Family of the motion: translation, euclidean, similarity, affine; projective for images only",
    )
    robust: Literal["none", "huber", "tukey"] = Field(
        "tukey",
        title="Robust",
        description="Weight of pixels that contradict the motion, where residuals are larger than noise: as any other,"
        " less (huber), or none at all (tukey)",
    )
    max_rotation: float = Field(
        10.0,
        title="Largest rotation",
        description="Rotations up to this are looked for; 180: all",
        ge=0,
        le=180,
        json_schema_extra={"unit": "deg"},
    )
    max_scale: float = Field(
        1.0,
        title="Largest scale",
        description="Changes of size up to this factor, and down to its inverse, are looked for; a few per cent are"
        " always found",
        ge=1,
        le=8,
        json_schema_extra={"advanced": True},
    )
    max_shift: float | None = Field(
        None,
        title="Largest shift",
        description="Shifts of the centre beyond are not looked for; none: whatever leaves the least overlap",
        gt=0,
        json_schema_extra={"unit": "px"},
    )
    min_overlap: float = Field(
        0.25,
        title="Least overlap",
        description="Share of the reference (of the frame, if that is smaller) that must still be in view",
        gt=0,
        le=1,
        json_schema_extra={"advanced": True},
    )
    iterations: int = Field(
        30,
        title="Steps",
        description="At most as many at each scale",
        ge=1,
        le=1000,
        json_schema_extra={"advanced": True},
    )

    def fit(
        self,
        stack: ImageStack,
        *,
        reference: ReferenceLike | None = None,
        anchor: int | str | None = None,
        mask: NDArray[np.bool_] | None = None,
    ) -> Work[Registration]:
        """Estimate one transform per frame; see `Registrar.fit`.

        Raises
        ------
        ValueError
            If the reference, the anchor or the mask do not fit the stack, the reference has no contrast, or the model
            is projective and the frames are volumes.
        """
        source = ImageStack.of(stack)
        chosen = "mean" if reference is None else reference
        aligner = self.aligner(source.frame_shape, source.pixel_size)
        return (
            yield from align_stack(
                source, aligner, chosen, anchor=anchor, mask=mask, rolling=self.rolling, lag=self.lag
            )
        )

    def aligner(self, frame_shape: Sequence[int], pixel_size: Sequence[float] | None = None) -> MotionAligner:
        """Return what aligns one frame to one image.

        Parameters
        ----------
        frame_shape : sequence of int (d,)
            Of the reference at full size.
        pixel_size : sequence of float (d,), optional
            Rotations are rigid in these units; pixels are cubes if left out.
        """
        if self.model is TransformModel.PROJECTIVE and len(frame_shape) != 2:
            raise ValueError("the projective model is for images, not for volumes: choose affine")
        spacing = np.ones(len(frame_shape)) if pixel_size is None else np.asarray(pixel_size, float)
        return MotionAligner(self, tuple(frame_shape), tuple((spacing / spacing[-1]).tolist()))


@dataclass(frozen=True, slots=True, eq=False)
class _Level:
    """A reference, reduced by ``factors``, with the motions of the model and of a simpler one to begin with."""

    factors: tuple[int, ...]
    full: MotionTemplate
    simple: MotionTemplate


@dataclass(slots=True, eq=False)
class _Template:
    """A reference at full size; reduced ones and turned copies are made when a frame first needs them."""

    full: MotionTemplate
    image: NDArray[np.float32]
    noise: NoiseModel | None
    frames: float
    spacing: tuple[float, ...]
    usable: int
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _levels: tuple[_Level, ...] | None = None
    _banks: dict[tuple[int, ...], SearchBank] = field(default_factory=dict)
    _blocks: Blocks | None = None

    def blocks(self) -> Blocks:
        """Return what a frame is asked to agree with."""
        with self._lock:
            if self._blocks is None:
                self._blocks = Blocks.of(self.image)
            return self._blocks

    def levels(self) -> tuple[_Level, ...]:
        """Return the reduced references, coarsest first; the last one is at full size."""
        with self._lock:
            if self._levels is None:
                self._levels = tuple(self._reduced())
            return self._levels

    def bank(self, parameters: LucasKanade, *, finer: bool = False) -> tuple[tuple[int, ...], SearchBank]:
        """Return the turned and scaled copies, with the factors by which they are reduced; ``finer``: half of those."""
        from stackalign.core.lucas_kanade_search import SearchBank, angles_within, scales_within

        shape = self.image.shape
        factors = reduction(shape, _COARSEST[len(shape)])
        if finer:
            factors = tuple(max(f // 2, 1) for f in factors)
        with self._lock:
            if factors not in self._banks:
                turns = parameters.model is not TransformModel.TRANSLATION
                grows = parameters.model.rank >= TransformModel.SIMILARITY.rank
                reach = parameters.max_shift
                self._banks[factors] = SearchBank.of(
                    binned(self.image, factors),
                    angles_within(parameters.max_rotation if turns else 0.0),
                    scales_within(parameters.max_scale if grows else 1.0),
                    [s * f for s, f in zip(self.spacing, factors, strict=True)],
                    max_shift=None if reach is None else [np.ceil(reach / f) + 1 for f in factors],
                    min_overlap=0.5 * parameters.min_overlap,
                    thorough=parameters.max_rotation > 15 or parameters.max_scale > 1.2,
                )
            return factors, self._banks[factors]

    def _reduced(self) -> list[_Level]:
        from stackalign.core.lucas_kanade_fit import MotionTemplate
        from stackalign.core.translation import TranslationTemplate

        shape, model = self.image.shape, self.full.model
        simple = min(model, TransformModel.EUCLIDEAN, key=lambda m: m.rank)
        factors = reduction(shape, _COARSEST[len(shape)])
        out = []
        while max(factors) > 1:
            share = 1.0 / float(np.prod(factors))
            noise = self.noise and NoiseModel(
                self.noise.constant * share, self.noise.slope * share, self.noise.floor * share
            )
            try:
                images = TranslationTemplate.of(binned(self.image, factors), None, noise=noise, frames=self.frames)
                spacing = [s * f for s, f in zip(self.spacing, factors, strict=True)]
                full = MotionTemplate.of(images, model, spacing, tell_tails=False)
                first = full
                if simple is not model:
                    first = MotionTemplate.of(images, simple, spacing, tell_tails=False)
                out.append(_Level(factors, full, first))
            except ValueError:  # nothing is left of it at this scale
                pass
            factors = tuple(max(f // 2, 1) for f in factors)
        simple_full = (
            self.full
            if simple is model
            else MotionTemplate.of(self.full.images, simple, self.spacing, tell_tails=self.full.tell_tails)
        )
        out.append(_Level((1,) * len(shape), self.full, simple_full))
        return out


@dataclass(frozen=True, slots=True, eq=False)
class MotionAligner:
    """Aligns one frame to one image by a motion of the model; a `PairAligner`."""

    parameters: LucasKanade
    frame_shape: tuple[int, ...]
    spacing: tuple[float, ...]
    asks_blocks: bool = True  # whether most blocks of the field must agree with a motion

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
    ) -> _Template:
        """Return derivatives and normal equations of a reference; see `PairAligner.prepare`."""
        from stackalign.core.lucas_kanade_fit import MotionTemplate
        from stackalign.core.translation import TranslationTemplate

        known = np.isfinite(reference)
        counted = known if mask is None else known & mask
        if not counted.any():
            raise ValueError("no pixel of the reference is left: the mask covers all that is known of it")
        images = TranslationTemplate.of(
            reference, mask, noise=noise, frames=frames, window=self.parameters.weights(reference.shape)
        )
        spacing = self.spacing_of(reference.shape)
        masked = reference if counted.all() else np.where(counted, reference, np.float32(np.nan))
        full = MotionTemplate.of(
            images, self.model, spacing, tell_tails=noise is not None and images.shape == self.frame_shape
        )
        return _Template(full, masked, noise, frames, spacing, int(counted.sum()))

    def align(self, frame: NDArray[Any], template: _Template, start: NDArray[np.float64] | None) -> PairResult:
        """Return how ``frame`` lies on the reference; see `PairAligner.align`."""
        from stackalign.core.lucas_kanade_fit import fit_motion

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
                if not best.reason and best.confidence > _POOR:
                    return best
        for thorough in (False, True):
            found, credible = self._searched(frame, template, thorough=thorough)
            if isinstance(found, str):
                best = best or PairResult.failed(d, found)
                continue
            result = self._result(found, frame, template, credible=credible)
            if best is None or _better(result, best):
                best = result
            if not best.reason and best.confidence > _POOR:
                break
        assert best is not None
        return best

    def residuals(self, frame: NDArray[Any], template: _Template, result: PairResult) -> NDArray[np.float64]:
        """Return (intensity, residual) pairs of some thousand pixels; see `PairAligner.residuals`."""
        from stackalign.core.lucas_kanade_fit import intensity_residuals

        return intensity_residuals(frame, template.full, result.matrix, result.gain, result.offset)

    def _searched(
        self, frame: NDArray[Any], template: _Template, *, thorough: bool = False
    ) -> tuple[MotionFit | str, bool]:
        """Search the whole range on reduced frames, then refine the best candidate scale by scale.

        Returns the fit, or why there is none, and whether the search alone made it credible.
        """
        from stackalign.core.lucas_kanade_fit import refine_motion

        factors, bank = template.bank(self.parameters, finer=thorough)
        candidates = bank.candidates(binned(frame, factors), thorough=thorough)
        if not candidates:
            return "no scale of it can be compared with the reference", False
        # smooth images correlate everywhere: what does not stand out is tried as well, and judged by the outcome
        credible = [c for c in candidates if c.credible]
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
        template: _Template,
        start: Array,
        coarsest: int,
        begun: tuple[int, ...] | None = None,
    ) -> MotionFit | str:
        """Refine a motion from the scale of reduction ``coarsest`` on to full size.

        ``begun``: reduction at which it was refined already, by the simple model.
        """
        from stackalign.core.lucas_kanade_fit import fit_motion, refine_motion

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

    def _result(self, fit: MotionFit, frame: NDArray[Any], template: _Template, *, credible: bool = True) -> PairResult:
        d, support = len(fit.error), 1.0
        if self.asks_blocks and d == 2 and template.noise is not None and self._doubtful(fit, frame, template):
            fit, support = self._agreed(fit, frame, template)
        seen = int(np.isfinite(frame).sum()) if frame.dtype.kind == "f" else frame.size
        area = seen * abs(float(np.linalg.det(fit.matrix[:d, :d])))
        overlap = fit.overlap / min(1.0, max(area / template.usable, 1e-9))
        confidence = float(np.clip(fit.correlation / max(fit.expected, 1e-3), 0, 1))
        reason = self._verdict(fit, overlap, template)
        reason = reason or dissent(support)
        if not reason and (not credible or (template.noise is not None and confidence < _DOUBTFUL)):
            common = agreement(np.asarray(frame, np.float32), template.image, fit.matrix)
            if common < (LEAST_AGREEMENT if credible else _SURE_AGREEMENT):
                reason = f"where it fits best, it shows little of the reference (agreement {common:.2f} of 1)"
        return PairResult(
            fit.matrix, fit.correlation, fit.residual, confidence, fit.error, reason, fit.gain, fit.offset
        )  # fmt: skip

    def _doubtful(self, fit: MotionFit, frame: NDArray[Any], template: _Template) -> bool:
        """Return whether residuals hold more than noise, so that blocks must be asked."""
        if template.full.tell_tails and self.parameters.robust != "none" and not fit.outliers:
            return False  # no heavy tails: nothing in view moves otherwise
        return fit.residual**2 > NOISY * noise_variance(frame)

    def _agreed(self, fit: MotionFit, frame: NDArray[Any], template: _Template) -> tuple[MotionFit, float]:
        """Fit again to the blocks that agree with a motion; returns their share, too."""
        from stackalign.core.lucas_kanade_fit import fit_motion

        options = self.parameters

        def again(part: NDArray[Any], begun: MotionFit) -> MotionFit | None:
            other = fit_motion(part, template.full, begun.matrix, robust=options.robust, iterations=options.iterations)
            return None if isinstance(other, str) or not other.converged else other

        return agreed(fit, frame, template.blocks(), again)

    def _verdict(self, fit: MotionFit, overlap: float, template: _Template) -> str:
        """Return what is wrong with a fit, in words; empty if nothing is."""
        from stackalign.core.generators import moved_points
        from stackalign.core.lucas_kanade_search import ANGLE_STEP

        options, shape = self.parameters, template.image.shape
        d = len(shape)
        size = np.asarray(template.spacing)
        linear = fit.matrix[:d, :d] * size[:, None] / size[None, :]
        u, stretch, vt = np.linalg.svd(linear)
        turn = u @ vt
        angle = np.rad2deg(np.arccos(np.clip((np.trace(turn) - (d - 2)) / 2, -1, 1)))
        middle = centre(shape)
        shift = float(np.abs(moved_points(fit.matrix, middle[None])[0] - middle).max())
        if not fit.converged:
            return "it did not settle on one place"
        if np.linalg.det(linear) <= 0 or stretch[-1] < 0.1 * stretch[0]:
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


def _better(result: PairResult, other: PairResult) -> bool:
    """Return whether a result is the more credible of two."""
    if bool(result.reason) != bool(other.reason):
        return not result.reason
    return bool(result.correlation > other.correlation or np.isnan(other.correlation))
