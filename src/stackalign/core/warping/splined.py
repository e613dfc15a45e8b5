"""A frame that is filtered once, however often it is read between its pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.warping.resample import spline_coefficients

if TYPE_CHECKING:
    from numpy.typing import NDArray


class SplinedFrame(np.ndarray):
    """A frame that keeps the coefficients of its cubic spline once they are worked out; see `spline_coefficients`."""

    _coefficients: NDArray[np.float32] | None

    def __array_finalize__(self, obj: Any) -> None:
        """Forget them: a part of a frame, or what is worked out from it, has others."""
        self._coefficients = None

    def coefficients(self) -> NDArray[np.float32]:
        """Return the coefficients, float32, padded."""
        if self._coefficients is None:
            self._coefficients = spline_coefficients(np.asarray(self, np.float32), 3)
        return self._coefficients


def cubic(frame: NDArray[Any], level: float = 0.0, values: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return the coefficients of a frame's cubic spline less ``level``, which the filter leaves as it is.

    ``values`` are the pixels as float32, if these are at hand.
    """
    # the same sums in the same order, kept or not
    if isinstance(frame, SplinedFrame):
        return frame.coefficients() - np.float32(level) if level else frame.coefficients()
    coefficients = spline_coefficients(np.asarray(frame, np.float32) if values is None else values, 3)
    if level:
        coefficients -= np.float32(level)
    return coefficients
