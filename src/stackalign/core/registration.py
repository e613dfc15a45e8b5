"""What every method takes and returns: `Registrar`, `Registration`, `FrameQuality`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from stackalign.core.parameters import Parameters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from stackalign.core.stack import ImageStack
    from stackalign.core.transform_series import TransformSeries
    from stackalign.core.work import Work

    ReferenceLike: TypeAlias = str | int | ArrayLike


@dataclass(frozen=True, slots=True, eq=False)
class FrameQuality:
    """How well each frame was aligned. Arrays of length T; NaN means "not measured".

    Attributes
    ----------
    correlation : ndarray (T,)
        Pearson correlation of the aligned frame with its reference on their common region.
    residual : ndarray (T,)
        Root mean square of the difference to the reference, in intensity units of the input.
    confidence : ndarray (T,)
        In [0, 1]: how sure the method is of the frame; its definition is on the method's page.
    error : ndarray (T, d) or (T, n)
        Estimated standard error of the motion, pixels: of the translation, (y, x) or (z, y, x).
    reasons : tuple of str
        Empty for a good frame, else why it is flagged, in words.
    """

    correlation: NDArray[np.float64]
    residual: NDArray[np.float64]
    confidence: NDArray[np.float64]
    error: NDArray[np.float64]
    reasons: tuple[str, ...]

    @classmethod
    def empty(cls, length: int, ndim: int) -> FrameQuality:
        """Return a record in which nothing is measured and nothing flagged."""
        nan = np.full(length, np.nan)
        return cls(nan, nan.copy(), nan.copy(), np.full((length, ndim), np.nan), ("",) * length)

    @property
    def flagged(self) -> NDArray[np.bool_]:
        """(T,) True where a frame has a reason."""
        return np.array([bool(reason) for reason in self.reasons], bool)

    def with_reasons(self, reasons: Mapping[int, str]) -> FrameQuality:
        """Return the record with further frames flagged; a frame's first reason stays in front."""
        merged = list(self.reasons)
        for t, reason in reasons.items():
            merged[t] = f"{merged[t]}; {reason}" if merged[t] else reason
        return replace(self, reasons=tuple(merged))

    def to_frame(self) -> pd.DataFrame:
        """Return a table: frame, correlation, residual, confidence, error per axis (px), flagged, reason."""
        import pandas as pd

        axes = "zyx"[-self.error.shape[1] :]
        return pd.DataFrame(
            {
                "frame": np.arange(len(self.reasons)),
                "correlation": self.correlation,
                "residual": self.residual,
                "confidence": self.confidence,
                **{f"error_{a}_px": self.error[:, i] for i, a in enumerate(axes)},
                "flagged": self.flagged,
                "reason": list(self.reasons),
            }
        )


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """What every method returns.

    Attributes
    ----------
    transforms : TransformSeries
        Moving -> reference, one a frame; frames that are not valid are interpolated.
    quality : FrameQuality
        Per frame.
    details : mapping
        What only this method knows (the reference image, rounds until convergence, tracks, the low-rank part...).
    provenance : mapping
        Plain values: method, parameters, version, source, reference, created, seconds.
    """

    transforms: TransformSeries
    quality: FrameQuality
    details: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.transforms)


@runtime_checkable
class Registrar(Protocol):
    """A method: its own frozen parameter record, with the verb ``fit``."""

    @property
    def method(self) -> str:
        """Name of the method, the tag in a recipe."""
        ...

    def fit(
        self,
        stack: ImageStack,
        *,
        reference: ReferenceLike | None = None,
        anchor: int | str | None = None,
        mask: NDArray[np.bool_] | None = None,
    ) -> Work[Registration]:
        """Estimate one transform per frame.

        Parameters
        ----------
        stack : ImageStack
            The frames.
        reference : str, int or ndarray, optional
            "first", "previous", "mean", ..., a frame number or an image; the method's default if None.
        anchor : int or "mean", optional
            Frame that becomes the identity; None: the first valid frame, or the reference frame that was named, or
            no rebasing where the reference is an external image.
        mask : ndarray of bool, frame shape, optional
            True where a pixel of the reference counts.
        """
        ...


class RegistrarParameters(Parameters):
    """Base of the parameter records of all methods: they add the literal ``method`` and the verb ``fit``."""


def merged_reasons(*parts: Sequence[str]) -> tuple[str, ...]:
    """Join reasons of several checks, frame by frame, leaving out what is empty."""
    return tuple("; ".join(reason for reason in reasons if reason) for reasons in zip(*parts, strict=True))
