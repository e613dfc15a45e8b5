"""A reference that translations are searched for and fitted to, at full size and reduced, made as frames need it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.frames.holes import filled_along_lines
from stackalign.core.frames.reduction import binned, reduction
from stackalign.core.search.correlation import FILLABLE, SearchTemplate, prepare_search
from stackalign.core.translation.template import TranslationTemplate
from stackalign.core.verdicts.block_votes import Ballot
from stackalign.core.verdicts.consensus import Blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.frames.noise import NoiseModel
    from stackalign.core.translation.registrar import CrossCorrelation

_FINEST = 256  # px: frames of up to this size are searched at full resolution in the end


class TranslationReference:
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


def _ladder(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the reductions to search at, coarsest first; last, those where only the coarsest shades are left.

    Scenes that are smooth and faint are not found before: there is more noise than scene in most frequencies.
    """
    targets = (64, 128, _FINEST, 32, 16) if len(shape) == 2 else (32, 64)
    ladder = [reduction(shape, target) for target in targets]
    return [factors for k, factors in enumerate(ladder) if factors not in ladder[:k]]
