"""A reference as gradient alignment needs it: at full size, reduced to lead there, turned and scaled to be searched."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.frames.noise import NoiseModel
from stackalign.core.frames.reduction import binned, reduction
from stackalign.core.transform import TransformModel
from stackalign.core.verdicts.block_votes import Ballot
from stackalign.core.verdicts.consensus import Blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.lucas_kanade.registrar import LucasKanade
    from stackalign.core.lucas_kanade.search import SearchBank
    from stackalign.core.lucas_kanade.template import MotionTemplate

_COARSEST = {2: 64, 3: 32}  # pixels along an axis of the frames that are searched


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceLevel:
    """A reference, reduced by ``factors``, with the motions of the model and of a simpler one to begin with."""

    factors: tuple[int, ...]
    full: MotionTemplate
    simple: MotionTemplate


@dataclass(slots=True, eq=False)
class MotionReference:
    """A reference at full size; reduced ones and turned copies are made when a frame first needs them."""

    full: MotionTemplate
    image: NDArray[np.float32]
    noise: NoiseModel | None
    frames: float
    spacing: tuple[float, ...]
    usable: int
    fillable: bool = False  # whether what is not known of it may be made up where it is searched for
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _levels: tuple[ReferenceLevel, ...] | None = None
    _banks: dict[tuple[int, ...], SearchBank] = field(default_factory=dict)
    _blocks: Blocks | None = None
    _ballot: Ballot | None = None

    def blocks(self) -> Blocks:
        """Return what a frame is asked to agree with."""
        with self._lock:
            if self._blocks is None:
                self._blocks = Blocks.of(self.image)
            return self._blocks

    def ballot(self) -> Ballot:
        """Return what the blocks of a frame vote on."""
        with self._lock:
            if self._ballot is None:
                self._ballot = Ballot.of(self.image)
            return self._ballot

    def levels(self) -> tuple[ReferenceLevel, ...]:
        """Return the reduced references, coarsest first; the last one is at full size."""
        with self._lock:
            if self._levels is None:
                self._levels = tuple(self._reduced())
            return self._levels

    def bank(self, parameters: LucasKanade, *, finer: bool = False) -> tuple[tuple[int, ...], SearchBank]:
        """Return the turned and scaled copies, with the factors by which they are reduced; ``finer``: half of those."""
        from stackalign.core.lucas_kanade.search import SearchBank, angles_within, scales_within

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
                    fillable=self.fillable,
                )
            return factors, self._banks[factors]

    def _reduced(self) -> list[ReferenceLevel]:
        from stackalign.core.lucas_kanade.template import MotionTemplate
        from stackalign.core.translation.template import TranslationTemplate

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
                out.append(ReferenceLevel(factors, full, first))
            except ValueError:  # nothing is left of it at this scale
                pass
            factors = tuple(max(f // 2, 1) for f in factors)
        simple_full = (
            self.full
            if simple is model
            else MotionTemplate.of(self.full.images, simple, self.spacing, tell_tails=self.full.tell_tails)
        )
        out.append(ReferenceLevel((1,) * len(shape), self.full, simple_full))
        return out
