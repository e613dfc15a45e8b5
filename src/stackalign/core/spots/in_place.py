"""Fit spots in boxes that stay where they are, frame after frame: particles of an aligned stack; pixels."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.frame_check import read_frame
from stackalign.core.spots.fit import fit_spots
from stackalign.core.spots.tracks import TrackSet
from stackalign.core.threads import map_ahead
from stackalign.core.work import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from stackalign.core.geometry import Box
    from stackalign.core.stack import ImageStack
    from stackalign.core.work import Work

FRAMES = 32  # whose patches are fitted in one go


def fit_in_place_work(
    stack: ImageStack, boxes: Sequence[Box], ids: ArrayLike, *, only: NDArray[np.bool_] | None = None, **options: Any
) -> Work[TrackSet]:
    """Fit one spot a box and frame.

    Parameters
    ----------
    stack : ImageStack
        The frames.
    boxes : sequence of Box
        Of P particles, inside the frame.
    ids : array_like (P,)
        Numbers of the particles.
    only : ndarray of bool (P, T), optional
        Which ones to fit; all if None.
    **options
        Of `fit_spots`.

    Returns
    -------
    generator of Progress
        Returns a `TrackSet`; NaN, and a status, where a fit was rejected.
    """
    count = len(stack)
    tracks = TrackSet.empty(ids, count, stack.ndim)
    tracks.box_shape[:] = [box.shape for box in boxes]
    groups: dict[tuple[int, ...], list[int]] = {}
    for k, box in enumerate(boxes):
        groups.setdefault(box.shape, []).append(k)
    wanted = np.ones((len(boxes), count), bool) if only is None else only
    times = iter(range(count))
    source = map_ahead(lambda t: read_frame(stack, t), range(count))
    while some := list(islice(times, FRAMES)):
        frames = [frame if not why else None for frame, why in islice(source, len(some))]
        for rows in groups.values():
            todo = [(k, t) for t, frame in zip(some, frames, strict=True) if frame is not None
                    for k in rows if wanted[k, t]]  # fmt: skip
            if todo:
                cut = [frames[t - some[0]][boxes[k].slices] for k, t in todo]  # type: ignore[index]
                _store(tracks, todo, np.array([boxes[k].start for k, _ in todo]), np.stack(cut), options)
        yield Progress(some[-1] + 1, count, "Fitting the particles in the aligned images")
    return tracks


def _store(
    tracks: TrackSet,
    todo: list[tuple[int, int]],
    corner: NDArray[np.int64],
    patches: NDArray[Any],
    options: dict[str, Any],
) -> None:
    fits = fit_spots(patches, **options)
    row, time = np.array(todo).T
    tracks.status[row, time] = fits.status
    tracks.r_squared[row, time] = fits.r_squared
    good = fits.ok
    tracks.position[row[good], time[good]] = (fits.position + corner)[good]
    for name in ("position_error", "amplitude", "background", "angle", "sigma"):
        getattr(tracks, name)[row[good], time[good]] = getattr(fits, name)[good]
