"""What aligns one frame to one image, and which image that is: the reference policies.

A method that aligns one frame to one image is a `PairAligner`; `references.rounds.align_stack` runs it over a
stack for every policy. Matrices are homogeneous, in pixels, and map moving -> reference.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.frames.noise import NoiseModel
    from stackalign.core.registration import ReferenceLike
    from stackalign.core.transform import TransformModel

Template = TypeVar("Template")

POLICIES = {
    "mean": "mean of the aligned frames, re-estimated until it settles",
    "median": "median of the aligned frames, re-estimated until it settles",
    "first": "first frame",
    "previous": "frame before, motion added up",
    "rolling": "running mean of the frames aligned so far",
    "all-pairs": "all pairs of frames within a lag, solved together",
}
LENIENT = 0.3  # times the least overlap, where something else tells whether a frame lies right


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A policy: ``kind`` is one of `POLICIES`, "frame" (number ``frame``) or "image" (an external ``image``)."""

    kind: str
    frame: int = 0
    image: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, reference: ReferenceLike | Reference, length: int, frame_shape: tuple[int, ...]) -> Reference:
        """Return the policy that a user named.

        Raises
        ------
        ValueError
            If there is no such frame or policy, or the image does not fit the frames.
        """
        if isinstance(reference, cls):
            return reference
        if isinstance(reference, str) and reference.strip().lstrip("-").isdigit():
            reference = int(reference)
        if isinstance(reference, str):
            if reference == "first":
                return cls("frame", 0)
            if reference not in POLICIES:
                known = ", ".join(map(repr, POLICIES))
                raise ValueError(f"reference must be a frame number, an image or one of {known}, not {reference!r}")
            return cls(reference)
        if isinstance(reference, int | np.integer) and not isinstance(reference, bool):
            number = int(reference)
            if not -length <= number < length:
                raise ValueError(f"there is no frame {number} to align to: the stack has frames 0 to {length - 1}")
            return cls("frame", number % length)
        image = np.asarray(reference, np.float32)
        if image.shape != frame_shape:
            raise ValueError(f"the reference image is {image.shape}, the frames are {frame_shape}: they must be alike")
        return cls("image", image=image)

    def __str__(self) -> str:
        return (
            f"frame {self.frame}"
            if self.kind == "frame"
            else "an external image"
            if self.kind == "image"
            else self.kind
        )


@dataclass(frozen=True, slots=True, eq=False)
class PairResult:
    """How one frame lies on a reference.

    Attributes
    ----------
    matrix : ndarray (d+1, d+1)
        Moving -> reference, pixels. Of no meaning (the identity) where ``reason`` is not empty and nothing was found.
    correlation : float
        Pearson correlation with the reference on the common region; NaN if not measured.
    residual : float
        Root mean square of the difference to the reference, in intensity units of the input; NaN if not measured.
    confidence : float
        In [0, 1].
    error : ndarray (d,)
        Standard error of the motion of the frame's centre, pixels; NaN if not measured.
    reason : str
        Empty for a good result, else why the frame is flagged, in words.
    gain, offset : float
        Brightness of the frame against the reference.
    hold : ndarray (d, d), optional
        Of a translation: how many times as far a frame would go that did not hold a share of the reference, the mean of
        noisy frames; the identity if it holds none. None: not known.
    """

    matrix: NDArray[np.float64]
    correlation: float
    residual: float
    confidence: float
    error: NDArray[np.float64]
    reason: str = ""
    gain: float = 1.0
    offset: float = 0.0
    hold: NDArray[np.float64] | None = None

    @classmethod
    def failed(cls, ndim: int, reason: str) -> PairResult:
        """Return the result of a frame that could not be aligned at all."""
        return cls(np.eye(ndim + 1), np.nan, np.nan, 0.0, np.full(ndim, np.nan), reason)

    def given_up(self, reason: str) -> PairResult:
        """Return the result of a frame that is doubted where it was found: the place stays, what it was worth does not.

        The brightness there stays as well.
        """
        failed = PairResult.failed(len(self.error), reason)
        return replace(failed, matrix=self.matrix, gain=self.gain, offset=self.offset)


class PairAligner(Protocol[Template]):
    """Aligns one frame to one image. Both verbs are pure and thread-safe: frames are worked on in threads."""

    @property
    def model(self) -> TransformModel:
        """The family of the matrices."""
        ...

    def prepare(
        self,
        reference: NDArray[np.float32],
        mask: NDArray[np.bool_] | None,
        *,
        noise: NoiseModel | None = None,
        frames: float = 1.0,
    ) -> Template:
        """Return whatever ``align`` needs of a reference, worked out once.

        Parameters
        ----------
        reference : ndarray, frame shape, float32
            NaN where it is not known (no frame covers the pixel): such pixels do not count.
        mask : ndarray of bool, frame shape, or None
            True where a pixel of the reference counts.
        noise : NoiseModel, optional
            Of a frame; all pixels weigh the same if it is not known yet.
        frames : float
            How many frames were averaged into the reference; infinite: it is free of noise.

        Raises
        ------
        ValueError
            If the reference cannot serve at all (constant, nothing left under the mask).
        """
        ...

    def align(self, frame: NDArray[Any], template: Template, start: NDArray[np.float64] | None) -> PairResult:
        """Return how ``frame`` lies on the reference.

        Parameters
        ----------
        frame : ndarray
            In the dtype of the stack; pixels that are not finite do not count.
        template : object
            From ``prepare``.
        start : ndarray (d+1, d+1) or None
            A good first guess to refine; None: nothing is known, search the whole range.

        Returns
        -------
        PairResult
            A frame that cannot be aligned is a result with a ``reason``, never an exception.
        """
        ...

    def residuals(
        self, frame: NDArray[Any], template: Template, result: PairResult, *, own: bool = False
    ) -> NDArray[np.float64]:
        """Return (model, residual) pairs (N, 2) of some thousand pixels, in intensity units of the reference.

        What the noise of the reference adds is taken out; ``own``: the frame lies in the reference, a mean, where the
        result puts it, and its noise is missing from the difference.
        """
        ...

    def filtered(self, frame: NDArray[Any]) -> NDArray[Any]:
        """Return the frame as ``prepare`` and ``align`` take it (band-passed, if the user asked for that)."""
        ...


@runtime_checkable
class SplineReader(Protocol):
    """A `PairAligner` that reads frames between their pixels: those that are read again may keep their splines."""

    reads_splines: bool


@runtime_checkable
class NoiseTeller(Protocol):
    """A `PairAligner` that knows how far a frame is held where it lay by its own noise, a share of a mean."""

    def pull(self, template: Any) -> float:
        """Return how far a frame is held by the noise of a template of its own, of the way that it should go."""
        ...


@runtime_checkable
class Lenient(Protocol):
    """A `PairAligner` that can leave it to others whether enough of the reference is in view of what it finds."""

    def lenient(self) -> PairAligner[Any]:
        """Return the aligner that asks for `LENIENT` times the overlap."""
        ...


@runtime_checkable
class ManyAligner(Protocol):
    """A `PairAligner` that aligns some frames in one go: threads then seldom wait for each other's turn in Python."""

    def align_many(
        self, frames: Sequence[NDArray[Any]], template: Any, starts: Sequence[NDArray[np.float64] | None]
    ) -> list[PairResult]:
        """Return how each of the frames, of one shape and dtype, lies on the reference; see `PairAligner.align`."""
        ...
