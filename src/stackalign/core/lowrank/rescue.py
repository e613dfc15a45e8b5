"""Frames that the search did not place, or placed wrongly: looked for again on what the others have in common.

A frame full of activity has little in common with another frame, or with a mean in which the activity of all has left
its traces. The low-rank image has few, and tells what cannot belong to the scene: it is brighter than anything there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.lowrank.placing import Placed, stepped
from stackalign.core.lowrank.start import usual_range
from stackalign.core.transform import TransformModel
from stackalign.core.work import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.lowrank.state import State
    from stackalign.core.work import Work

    Floats = NDArray[np.float32]

_DOUBTFUL = 1.25  # times the usual residual: such a frame may lie elsewhere
_BETTER = 0.9  # times its residual: then it does
_POOR = 1.6  # times the usual residual: no place for a frame that has none
_CANDIDATES, _STEPS = 12, 8
_LEAST_OVERLAP = 0.25


def rescued(state: State) -> Work[list[int]]:
    """Search again for frames without a place, and for those that differ much from the low-rank image.

    Each candidate of a search over all shifts and turns is refined by robust steps; the one that leaves the least
    residual, by the median of its pixels, is taken if that is about as small as usual or clearly smaller than before.

    Returns
    -------
    list of int
        Frames that have a new place.
    """
    from stackalign.core.lucas_kanade.search import SearchBank, angles_within

    level = state.level
    measured = state.scale[np.isfinite(state.scale)]
    there, usual = state.present, float(np.median(measured)) if measured.size else np.nan
    doubtful = [k for k in range(len(state.matrices)) if k in state.trouble or not state.scale[k] < _DOUBTFUL * usual]
    if not doubtful or len(there) < 2 or not np.isfinite(usual):
        return []
    typical = state.typical()
    images, known = state.images, state.images.known
    scene = np.tensordot(typical.astype(np.float32), images.basis, 1).reshape(level.shape)
    low, high = usual_range(scene[(known > 0).reshape(level.shape)])
    counted = (known > 0).reshape(level.shape) & (scene >= low) & (scene <= high)
    scene = np.where(counted, scene, np.float32(np.nan))
    o = level.options
    spacing = np.ones(level.d) if o.spacing is None else np.asarray(o.spacing)
    bank = SearchBank.of(
        scene,
        angles_within(o.max_rotation if o.model is not TransformModel.TRANSLATION else 0.0),
        [1.0],
        list(spacing * np.asarray(level.factors)),
        max_shift=None if o.max_shift is None else [np.ceil(o.max_shift / f) + 1 for f in level.factors],
        min_overlap=_LEAST_OVERLAP,
        thorough=True,
    )
    found = []
    for done, k in enumerate(doubtful):
        yield Progress(done, len(doubtful), "Joint alignment: frames that lie elsewhere")
        frame = level.frame(k)
        best: Placed | None = None
        places = [
            Placed(candidate.matrix, typical)
            for candidate in bank.candidates([quiet(level.image(k), scene)], thorough=True, most=_CANDIDATES)[0]
        ]
        for first in range(0, len(places), images.together):
            some = places[first : first + images.together]
            seen = images.compare([frame] * len(some), [p.matrix for p in some])
            for placed in stepped(state, seen, some, _STEPS):
                if isinstance(placed, str) or placed.pixels < _LEAST_OVERLAP * images.counted:
                    continue
                if best is None or placed.scale < best.scale:
                    best = placed
        before = state.scale[k] if np.isfinite(state.scale[k]) else np.inf
        if best is not None and best.scale < min(_BETTER * before, _POOR * usual if np.isinf(before) else np.inf):
            state.place(k, best)
            found.append(k)
    return found


def quiet(image: Floats, scene: Floats) -> Floats:
    """Return a frame with NaN where it is brighter or darker than the scene, brought to its brightness, ever is."""
    if not (np.isfinite(image).any() and np.isfinite(scene).any()):
        return image
    low, high = usual_range(scene)
    with np.errstate(invalid="ignore", divide="ignore"):
        gain = float(np.nanmedian(image)) / float(np.nanmedian(scene))
        if not np.isfinite(gain) or gain <= 0:
            gain = 1.0
        active = (image > gain * high) | (image < gain * low)
    return image if active.mean() > 0.5 else np.where(active, np.float32(np.nan), image)
