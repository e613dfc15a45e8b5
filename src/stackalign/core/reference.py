"""Reference policies: which image each frame is aligned to, and the rounds in which that image is re-estimated.

A method that aligns one frame to one image is a `PairAligner`; `align_stack` runs it over a stack for every policy
("first", a frame number, "previous", "mean", "median", "rolling", "all-pairs", an external image). Matrices are
homogeneous, in pixels, and map moving -> reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.transform import TransformModel

Template = TypeVar("Template")


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
    """

    matrix: NDArray[np.float64]
    correlation: float
    residual: float
    confidence: float
    error: NDArray[np.float64]
    reason: str = ""

    @classmethod
    def failed(cls, ndim: int, reason: str) -> PairResult:
        """Return the result of a frame that could not be aligned at all."""
        return cls(np.eye(ndim + 1), np.nan, np.nan, 0.0, np.full(ndim, np.nan), reason)


class PairAligner(Protocol[Template]):
    """Aligns one frame to one image. Both verbs are pure and thread-safe: frames are worked on in threads."""

    @property
    def model(self) -> TransformModel:
        """The family of the matrices."""
        ...

    def prepare(self, reference: NDArray[np.float32], mask: NDArray[np.bool_] | None) -> Template:
        """Return whatever ``align`` needs of a reference, worked out once.

        Parameters
        ----------
        reference : ndarray, frame shape, float32
            NaN where it is not known (no frame covers the pixel): such pixels do not count.
        mask : ndarray of bool, frame shape, or None
            True where a pixel of the reference counts.

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
