"""Find a translation that most of the field votes for: what is brighter than the scene and moves has few votes.

A correlation of whole frames adds up contrast, so that an object or a bright edge may outweigh all the rest. Here each
block of the frame is correlated on its own (normalised, by FFT) and says where it might lie, no block louder than
another: a generalised Hough transform (Ballard, Pattern Recognition 13, 1981) over shifts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from scipy import fft

from stackalign.core.frames.reduction import binned, reduction
from stackalign.core.verdicts.consensus import apart, seen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.run_state import RunState
    from stackalign.core.verdicts.consensus import Fitted, Jury

    Array = NDArray[np.float64]

COMPARED = 96  # pixels along an axis of the images that are compared
_BLOCKS = 6  # along each axis
_LOUDEST = 4.0  # standard deviations: no block's vote counts more
_PLACES = 4  # that are returned
_APART = 3  # pixels of the reduced images between places
_SUPPORTS = 2.5  # standard deviations from which a block counts as a supporter
_LEAST = 4.0  # standard deviations of the sum of votes: below, places are not worth a look
_IN_VIEW = 0.25  # of the blocks that must lie on the reference
_VOTERS = 5  # blocks of the reference that must agree with a place, and twice as many as with another one
_MINORITY = 0.25  # of the blocks that could tell: as many must agree
_SAME = 2.0  # px between motions that are one
LEAST_SIDE = 64  # px: in smaller frames blocks hold too little to vote

_Fit = TypeVar("_Fit", bound="Fitted")


def can_vote(run: RunState) -> bool:
    """Return whether blocks of the frames of a run, aligned to what they have in common, can be asked."""
    return (
        run.policy.kind in ("mean", "median")
        and run.stack.ndim == 2
        and run.mask is None
        and min(run.stack.frame_shape) >= LEAST_SIDE
    )


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where blocks would have a frame lie.

    Attributes
    ----------
    shift : ndarray (2,)
        Moving -> reference, pixels, to a reduced pixel.
    supporters : ndarray of bool (blocks, blocks)
        Blocks of the frame that voted for it.
    """

    shift: Array
    supporters: NDArray[np.bool_]

    def masked(self, frame: NDArray[Any]) -> NDArray[np.float32]:
        """Return the frame with NaN where it did not vote for the place."""
        rows, columns = (np.arange(n) * _BLOCKS // n for n in frame.shape)
        return np.where(self.supporters[rows[:, None], columns], np.asarray(frame, np.float32), np.float32(np.nan))


@dataclass(frozen=True, slots=True, eq=False)
class Ballot:
    """A reference that blocks vote on.

    Attributes
    ----------
    factors : tuple of int
        How it is reduced.
    size, padded : tuple of int
        Of a block; of the Fourier transforms.
    spectrum : ndarray of complex64
        Of the reduced reference, less its mean.
    spread : ndarray of float32
        Root of the sum of squares, about their mean, of the pixels below a block; infinite where it is not all known.
    """

    shape: tuple[int, int]
    factors: tuple[int, ...]
    size: tuple[int, int]
    padded: tuple[int, int]
    spectrum: NDArray[np.complex64]
    spread: NDArray[np.float32]

    @classmethod
    def of(cls, reference: NDArray[np.float32]) -> Ballot:
        """Prepare a reference (y, x); NaN do not count."""
        factors = reduction(reference.shape, COMPARED)
        small = binned(reference, factors)
        known = np.isfinite(small)
        value = np.where(known, small - np.float32(small[known].mean() if known.any() else 0), np.float32(0))
        height, width = small.shape
        size = (max(height // _BLOCKS, 1), max(width // _BLOCKS, 1))
        padded = (fft.next_fast_len(height + size[0], real=True), fft.next_fast_len(width + size[1], real=True))
        count, total, squares = (_below(x, size) for x in (known.astype(float), value, value.astype(float) ** 2))
        n = size[0] * size[1]
        spread = np.where(count > n - 0.5, np.sqrt(np.maximum(squares - total**2 / n, 0)), np.inf)
        least = 1e-3 * float(np.median(spread[np.isfinite(spread)])) if np.isfinite(spread).any() else 0.0
        return cls(
            (height, width), factors, size, padded, fft.rfft2(value, padded).astype(np.complex64),
            np.maximum(spread, max(least, 1e-20)).astype(np.float32),
        )  # fmt: skip

    def places(self, frame: NDArray[Any]) -> list[Place]:
        """Return where most blocks of a frame would have it lie, best first; none if no place stands out.

        Parameters
        ----------
        frame : ndarray, the reference's shape
            NaN do not count.
        """
        small = binned(frame, self.factors)
        (height, width), (h, w) = self.shape, self.size
        blocks, corners = [], []
        for j in range(_BLOCKS):
            for i in range(_BLOCKS):
                y, x = j * height // _BLOCKS, i * width // _BLOCKS
                part = small[y : y + h, x : x + w]
                corners.append((y, x))
                level = part.mean()  # NaN where a part is not known: it does not vote
                blocks.append(np.nan_to_num(part - level))
        power = np.sqrt(np.sum(np.square(blocks), axis=(1, 2)))
        across = fft.irfft2(
            self.spectrum * np.conj(fft.rfft2(np.asarray(blocks, np.float32), self.padded)), self.padded
        )
        rows, columns = self.spread.shape
        votes = np.zeros((2 * height, 2 * width), np.float32)  # shift + size of the image
        voters = np.zeros_like(votes)
        told: list[NDArray[np.float32] | None] = []
        for image, (y, x), norm in zip(across, corners, power, strict=True):
            if not norm > 0:
                told.append(None)
                continue
            score = np.arctanh(np.clip(image[:rows, :columns] / (self.spread * np.float32(norm)), -0.999, 0.999))
            usual = score[np.isfinite(self.spread)]
            middle = np.median(usual) if usual.size else np.float32(0)
            scatter = 1.4826 * np.median(np.abs(usual - middle)) if usual.size else np.float32(0)
            if not scatter > 0:
                told.append(None)
                continue
            score = np.where(np.isfinite(self.spread), (score - middle) / scatter, np.float32(0))
            there = slice(height - y, height - y + rows), slice(width - x, width - x + columns)
            votes[there] += np.clip(score, -1, _LOUDEST)
            voters[there] += np.isfinite(self.spread)
            told.append(score)
        allowed = voters >= _IN_VIEW * _BLOCKS**2
        if not allowed.any():
            return []
        total = np.where(allowed, votes / np.sqrt(np.maximum(voters, 1)), -np.inf)
        usual = total[allowed]
        middle = float(np.median(usual))
        scatter = 1.4826 * float(np.median(np.abs(usual - middle)))
        found: list[Place] = []
        while len(found) < _PLACES:
            y, x = (int(k) for k in np.unravel_index(int(np.argmax(total)), total.shape))
            if not total[y, x] > middle + _LEAST * scatter:
                break
            shift = np.array([y - height, x - width])
            found.append(Place(shift * np.asarray(self.factors, float), self._supporters(told, corners, shift)))
            total[max(y - _APART, 0) : y + _APART + 1, max(x - _APART, 0) : x + _APART + 1] = -np.inf
        return found

    def _supporters(
        self, told: list[NDArray[np.float32] | None], corners: list[tuple[int, int]], shift: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Return the blocks with a high score at a shift, or beside it."""
        out = np.zeros(_BLOCKS**2, bool)
        for k, (score, (y, x)) in enumerate(zip(told, corners, strict=True)):
            if score is None:
                continue
            j, i = y + int(shift[0]), x + int(shift[1])
            near = score[max(j - 1, 0) : max(j + 2, 0), max(i - 1, 0) : max(i + 2, 0)]
            out[k] = near.size > 0 and bool(near.max() > _SUPPORTS)
        return out.reshape(_BLOCKS, _BLOCKS)


def elected(ballot: Ballot, frame: NDArray[Any], jury: Jury[_Fit]) -> _Fit | None:
    """Return the motion that most blocks of the field agree with, of those that blocks of the frame vote for.

    Parameters
    ----------
    ballot : Ballot
        The reference.
    frame : ndarray (y, x)
        A frame that was not found as a whole, or was found where the field contradicts.
    jury : Jury
        Blocks of the reference, which fit it to those that agree.

    Returns
    -------
    object or None
        None if too few agree with the best, or half as many with another one.
    """
    best: _Fit | None = None
    most = second = 0
    for place in ballot.places(frame):
        start = np.eye(3)
        start[:2, 2] = place.shift
        fit = jury.fitted(place.masked(frame), start)
        if fit is None:
            continue
        fit, found = jury.agreed(fit, frame)
        if best is not None and apart(fit.matrix, best.matrix, frame.shape) < _SAME:
            continue
        count = found.count if found.support > _MINORITY else 0
        if best is None or count > most:
            best, most, second = fit, count, most
        else:
            second = max(second, count)
    if best is None or most < max(_VOTERS, 2 * second):
        return None
    return seen(best, jury.overlap(frame, best))


def _below(image: NDArray[Any], size: tuple[int, int]) -> Array:
    """Return the sums of all boxes of a size."""
    total = np.zeros((image.shape[0] + 1, image.shape[1] + 1))
    np.cumsum(np.cumsum(image, axis=0, dtype=np.float64), axis=1, out=total[1:, 1:])
    h, w = size
    return np.asarray(total[h:, w:] - total[:-h, w:] - total[h:, :-w] + total[:-h, :-w])
