"""Where frames lie to begin with: searched for on reduced frames in which nothing that flickers stands out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.references.draft import drafted
from stackalign.core.run_state import RunState

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.references.reference import PairAligner
    from stackalign.core.work import Work

_REACH = 3.0  # times the range of most pixels that brighter and darker ones may stick out


def searched(run: RunState) -> Work[dict[int, NDArray[np.float64]]]:
    """Find starts for all frames that hold something, moving -> reference; also notes which frames hold nothing.

    Cells that light up are a frame's brightest pixels and, where the scene is faint, outweigh it in any correlation.
    """
    # cells that light up are in most blocks of the field, and keep correlations low: the joint alignment itself tells
    # which frames do not fit, so that none needs a second look here
    aligner: Any = run.aligner
    limited: Any = _Limited(replace(aligner, asks_blocks=False, doubted=0.0))
    twin = RunState(run.stack, limited, run.policy, run.anchor, run.mask, unusable=run.unusable)
    return (yield from drafted(twin))


def limited(frame: NDArray[Any]) -> NDArray[Any]:
    """Clip what lies far outside the range of the middle 70 % of the pixels."""
    low, high = usual_range(frame)
    return frame if np.isneginf(low) and np.isposinf(high) else np.clip(np.asarray(frame, np.float32), low, high)


def usual_range(image: NDArray[Any]) -> tuple[float, float]:
    """Return between which intensities a scene lies: three times the range of the middle 70 % of its pixels."""
    step = max(1, round((image.size / 20_000) ** (1 / image.ndim)))
    sample = np.asarray(image[(slice(None, None, step),) * image.ndim], float)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return -np.inf, np.inf
    low, middle, high = np.percentile(sample, (15, 50, 85))
    # counts of so few photons that most pixels are alike leave no range to tell by
    return (
        float(middle - _REACH * (middle - low)) if low < middle else -np.inf,
        float(middle + _REACH * (high - middle)) if high > middle else np.inf,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Limited:
    """An aligner that looks at limited frames."""

    aligner: PairAligner[Any]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.aligner, name)

    def filtered(self, frame: NDArray[Any]) -> NDArray[Any]:
        return limited(self.aligner.filtered(frame))
