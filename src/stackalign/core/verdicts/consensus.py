"""Which parts of a frame agree with its motion: an object that walks through the scene must not be taken for the scene.

The reference is cut into blocks. In each, one Gauss-Newton step of a shift and an offset tells how far it would rather
go (Lucas & Kanade, IJCAI 1981). Blocks whose content could tell, and that stay, support the motion; the rest moves
otherwise, or shows something else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np

from stackalign.core.frames.holes import filled_along_lines
from stackalign.core.frames.reduction import as_read, binned, reduced, reduction
from stackalign.core.generators import moved_points
from stackalign.core.geometry import corners
from stackalign.core.verdicts.agreement import noise_variance
from stackalign.core.warping.resample import warp_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

LEAST_SUPPORT = 1 / 3  # of the blocks that could tell: a motion that fewer agree with is not believed
NOISY = 1.3  # residual variance over that of the noise, from which blocks are asked whether they agree
FOLLOWED = "something else was followed"
MOST_SUPPORT = 0.9  # from here on nothing is left out
_BLOCKS = 6  # along each axis
_COMPARED = 64  # pixels along an axis of the images that are compared
_TELLS = 0.3  # px: standard error of a block's shift that noise alone allows, below which it could tell
_STAYS = 1.0  # px, beside twice the standard error that is found
_VAGUE = 0.6  # px: a block whose residuals leave more than that contradicts
_DIFFERS = 0.7  # of a block's contrast: what is left of it, beyond the noise, where it shows the same
_ENOUGH = 3  # blocks that could tell: fewer say nothing
_FEW = 20  # pixels of a block that is compared
_SMOOTH = 2  # pixels of a block: in larger ones, linear interpolation costs next to no detail
_SEEN = 0.8  # of a block: with less of it, what was filled in counts
_PASSES = 4  # fits to blocks that agree
_LIMITS = np.array([_FEW, _TELLS, _DIFFERS, _VAGUE, _STAYS])


class Fitted(Protocol):
    """A motion and a brightness that were fitted; a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def matrix(self) -> Array:
        """Moving -> reference, (3, 3)."""
        ...

    @property
    def gain(self) -> float:
        """Brightness of the moving image over that of the reference."""
        ...

    @property
    def offset(self) -> float:
        """What the moving image has more, intensity units."""
        ...

    @property
    def overlap(self) -> float:
        """Share of the reference that is in view."""
        ...


_Fit = TypeVar("_Fit", bound=Fitted)


@dataclass(frozen=True, slots=True, eq=False)
class Consensus:
    """Blocks of a reference that a frame was laid on.

    Attributes
    ----------
    told, still : ndarray of bool (blocks, blocks)
        Could have told a shift; do not want one.
    """

    told: NDArray[np.bool_]
    still: NDArray[np.bool_]

    @property
    def count(self) -> int:
        """How many blocks could tell and agree."""
        return int((self.still & self.told).sum())

    @property
    def support(self) -> float:
        """Share of the blocks that could tell that agree with the motion; 1 where too few could."""
        told = int(self.told.sum())
        return self.count / told if told >= _ENOUGH else 1.0

    def masked(self, frame: NDArray[Any], matrix: Array, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return a frame with NaN where it lies on blocks that contradict.

        Parameters
        ----------
        frame : ndarray (y, x)
            The frame.
        matrix : ndarray (3, 3)
            Frame -> reference.
        shape : tuple of int
            Of the reference.
        """
        from stackalign.core.verdicts.consensus_kernels import punch

        image = np.array(frame, np.float32)
        punch(image, np.asarray(matrix, float), self.told & ~self.still, np.asarray(shape, np.int64))
        return image


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """A reference that is ready to be asked.

    Attributes
    ----------
    shape, factors : tuple of int
        Of the reference; how it is reduced.
    image : ndarray of float32 (y, x)
        The reduced one.
    noise : float
        Variance of the noise of the reference.
    """

    shape: tuple[int, ...]
    factors: tuple[int, ...]
    image: NDArray[np.float32]
    noise: float

    @classmethod
    def of(cls, reference: NDArray[np.float32]) -> Blocks:
        """Reduce a reference (y, x); NaN do not count."""
        factors = reduction(reference.shape, _COMPARED)
        return cls(reference.shape, factors, binned(reference, factors), noise_variance(reference))

    def consensus(self, moving: NDArray[Any], matrix: Array, gain: float, offset: float) -> Consensus:
        """Return which blocks a frame agrees with.

        Parameters
        ----------
        moving : ndarray (y, x)
            NaN do not count.
        matrix : ndarray (3, 3)
            Moving -> reference.
        gain, offset : float
            Brightness of the moving image against the reference.
        """
        image = as_read(moving)
        known = np.isfinite(image) if image.dtype.kind == "f" else None
        noise = noise_variance(image)
        if known is None or known.all():
            return self.consensus_of(image[None], matrix[None], np.array([[gain, offset]]), np.array([noise]))[0]
        from stackalign.core.verdicts.consensus_kernels import ask

        laid = self._laid(image, matrix)
        noise = (noise / gain**2 + self.noise) / float(np.prod(self.factors))
        told, still = np.empty((_BLOCKS, _BLOCKS), bool), np.empty((_BLOCKS, _BLOCKS), bool)
        ask(laid, self.image, gain, offset, noise, np.asarray(self.factors, float), _LIMITS, told, still)
        return Consensus(told, still)

    def consensus_of(
        self, frames: NDArray[Any], matrices: Array, brightness: Array, noise: NDArray[np.float64]
    ) -> list[Consensus]:
        """Return which blocks each of some frames without holes agrees with, in one go.

        Parameters
        ----------
        frames : ndarray (n, y, x)
        matrices : ndarray (n, 3, 3)
            Frame -> reference.
        brightness : ndarray (n, 2)
            Gain and offset of each frame against the reference.
        noise : ndarray (n,)
            Variance of the noise of each frame.
        """
        from stackalign.core.verdicts.consensus_kernels import ask_frames

        fine, factors = max(self.factors) <= _SMOOTH, np.array(self.factors)
        back = np.linalg.inv(np.asarray(matrices, float))
        if fine:
            back = np.array([reduced(m, self.factors) for m in back])
        both = (noise / brightness[:, 0] ** 2 + self.noise) / float(factors.prod())
        told, still = (np.empty((len(frames), _BLOCKS, _BLOCKS), bool) for _ in range(2))
        frames = np.ascontiguousarray(frames, np.float32)  # few are asked: one kind of pixel is compiled
        ask_frames(frames, fine, back, factors, self.image, brightness, both, _LIMITS, told, still)
        return [Consensus(t, s) for t, s in zip(told, still, strict=True)]

    def _laid(self, image: NDArray[Any], matrix: Array) -> NDArray[np.float32]:
        """Return a frame, reduced and laid on the reduced reference; NaN where it shows nothing."""
        from stackalign.core.verdicts.consensus_kernels import lay

        factors, fixed = self.factors, self.image
        if max(factors) <= _SMOOTH:
            small = binned(image, factors)
            return warp_frame(small, reduced(matrix, factors), order=3, fill="nan", output_shape=fixed.shape)
        laid, back = np.full_like(fixed, np.nan), np.linalg.inv(np.asarray(matrix, float))
        known = np.isfinite(image) if image.dtype.kind == "f" else None
        if known is None or known.all():
            lay(image, back, *factors, laid)
        elif known.any():
            seen = np.empty_like(fixed)
            lay(filled_along_lines(image, known), back, *factors, laid)
            lay(known.astype(np.float32), back, *factors, seen)
            laid[~(seen > _SEEN)] = np.nan
        return laid


@dataclass(frozen=True, slots=True, eq=False)
class Jury(Generic[_Fit]):
    """Blocks of a reference that say which parts of a frame count, and how these are fitted.

    Attributes
    ----------
    blocks : Blocks
        Of the reference.
    fitted : callable
        Fits a frame with holes, from a matrix (3, 3) on; None if that fails.
    overlap : callable
        Returns the share of the reference that a whole frame covers where a fit has it.
    least : float
        Pixels, at the corners of the reference, that a part must move the fit to be better than the whole: tissue that
        bends, and cells that light up, disagree in places, too.
    """

    blocks: Blocks
    fitted: Callable[[NDArray[Any], Array], _Fit | None]
    overlap: Callable[[NDArray[Any], _Fit], float]
    least: float = 0.0

    def agreed(self, fit: _Fit, frame: NDArray[Any], found: Consensus | None = None) -> tuple[_Fit, Consensus]:
        """Fit again to the blocks that agree with a motion, until these do not change.

        Parameters
        ----------
        fit : object with matrix, gain, offset
            How the frame was found to lie.
        frame : ndarray (y, x)
            The frame.
        found : Consensus, optional
            What the blocks say of the whole frame, if that is known.

        Returns
        -------
        fit : object
            The last one that more blocks agree with.
        found : Consensus
            Which blocks agree with it.
        """
        begun, blocks = fit, self.blocks
        found = found or blocks.consensus(frame, fit.matrix, fit.gain, fit.offset)
        for _ in range(_PASSES):
            if not LEAST_SUPPORT <= found.support < MOST_SUPPORT:
                break
            other = self.fitted(found.masked(frame, fit.matrix, blocks.shape), fit.matrix)
            if other is None or apart(other.matrix, fit.matrix, blocks.shape) < self.least:
                break
            then = blocks.consensus(frame, other.matrix, other.gain, other.offset)
            if then.support < found.support:
                break
            settled = np.array_equal(then.still, found.still)
            fit, found = other, then
            if settled:
                break
        return seen(fit, begun.overlap), found


def seen(fit: _Fit, overlap: float) -> _Fit:
    """Return the fit of a part of a frame that covers as much as the whole: what was left out is in view, too."""
    return replace(fit, overlap=max(fit.overlap, overlap))


def apart(one: Array, other: Array, shape: tuple[int, ...]) -> float:
    """Return the largest distance between the places where two motions put the corners of a reference, pixels."""
    way = moved_points(one @ np.asarray(np.linalg.inv(other), float), corners(shape)) - corners(shape)
    return float(np.linalg.norm(way, axis=1).max())


def dissent(found: Consensus) -> str:
    """Return what is wrong with a motion that these blocks agree with; empty if nothing is."""
    if found.support >= LEAST_SUPPORT:
        return ""
    return f"only {found.support:.0%} of the blocks of the field agree with its motion: {FOLLOWED}"
