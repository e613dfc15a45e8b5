"""Say how likely a homography is right, and refuse it if that is not likely enough."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

RIGHT = 3.0  # px: mean corner error up to which a result counts as right


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for and against a result; distances are mean corner distances in pixels of the moving image.

    Attributes
    ----------
    score : float
        Correlation of the features over the overlap.
    chance : float
        Height of that score above the scores of wrong places, in standard deviations of those.
    rival : float
        Best score of another place over this one's: 1 if another is as good.
    inverse : float
        Distance between the result and the one found with the roles of both images exchanged.
    restarts : float
        Median distance between the result and where disturbed restarts end.
    subsets : float
        Distance between the results of two families of features, or of two halves of the channels.
    spread : float
        Standard error of the corners that curvature and residual imply.
    overlap : float
        Share of the smaller image that both show.
    size : float
        Side of the smaller image, root of its pixels.
    """

    score: float
    chance: float
    rival: float
    inverse: float
    restarts: float
    subsets: float
    spread: float
    overlap: float
    size: float

    def features(self) -> Array:
        """Return the regressors of the logistic model: distances and heights on scales that saturate."""
        values = {f.name: float(getattr(self, f.name)) for f in fields(self)}
        far = 32.0
        logs = [
            np.log1p(min(values[k] if np.isfinite(values[k]) else far, far))
            for k in ("inverse", "restarts", "subsets", "spread")
        ]
        return np.array([
            1.0, values["score"], np.log1p(max(values["chance"], 0.0)), values["rival"], *logs,
        ])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a result can be trusted.

    Attributes
    ----------
    probability : float
        That the mean corner error is under 3 pixels.
    refused : bool
        Whether it is too small.
    reason : str
        The strongest objection, in words; empty if it is not refused.
    """

    probability: float
    refused: bool
    reason: str
