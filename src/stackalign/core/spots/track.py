"""Follow picked particles through a stack, each frame read once; positions in pixels, (y, x) or (z, y, x).

Every frame is predicted from what the particles did together (a rigid motion of the scene) and from what each one does
on its own. Fits at the predicted places come first; where they fail or contradict each other, spots are searched around
and the motion that most particles can follow decides which spot is whose. A particle that is not found stays at the
place that the others predict for it, so it is found again after a gap.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

from stackalign.core.frames.frame_check import read_frame
from stackalign.core.spots.follower import Follower
from stackalign.core.spots.gaussian import FitStatus
from stackalign.core.spots.leap import leap, reach
from stackalign.core.spots.options import TrackOptions
from stackalign.core.spots.picks import Pick, check_picks, numbered
from stackalign.core.spots.tracks import TrackSet
from stackalign.core.stack import ImageStack
from stackalign.core.threads import map_ahead
from stackalign.core.work import Progress, Work, drain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray


def track_spots(
    stack: ImageStack | ArrayLike,
    picks: Sequence[Pick],
    options: TrackOptions | None = None,
    *,
    on_progress: Callable[[Progress], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
    **overrides: Any,
) -> TrackSet:
    """Follow picked particles through all frames, forward and backward from where each was picked.

    Parameters
    ----------
    stack : ImageStack or array_like (t, y, x) or (t, z, y, x)
        The frames.
    picks : sequence of Pick
        The particles.
    options : TrackOptions, optional
        How to fit and to search; ``overrides`` replace single fields of it.
    on_progress, should_stop : callable, optional
        As for `drain`.

    Returns
    -------
    TrackSet
        NaN, and a status, where a particle was not found.

    Raises
    ------
    ValueError
        If there is no pick, or one does not fit the stack.
    WorkCancelled
        If ``should_stop`` said so; its ``partial`` holds the tracks so far.
    """
    chosen = (options or TrackOptions()).model_copy(update=TrackOptions(**overrides).model_dump(include=set(overrides)))
    return drain(track_spots_work(stack, picks, chosen), on_progress, should_stop).unwrap()


def track_spots_work(
    stack: ImageStack | ArrayLike, picks: Sequence[Pick], options: TrackOptions | None = None
) -> Work[TrackSet]:
    """Do what `track_spots` does as a generator; its partial results hold the frames done so far."""
    movie = ImageStack.of(stack)
    check_picks(picks, movie.shape)
    wanted = numbered(picks)
    chosen = options or TrackOptions()
    missing: dict[int, str] = {}
    tracks = replace(TrackSet.empty([pick.id for pick in wanted], len(movie), movie.ndim), missing=missing)
    tracks.start[:] = [pick.frame for pick in wanted]
    tracks.status[:] = FitStatus.PENDING
    follower = Follower(wanted, chosen, tracks, movie.frame_shape)
    first, last = int(tracks.start.min()), int(tracks.start.max())
    forward = range(first, len(movie))
    backward = range(last - 1, -1, -1)
    total, done = len(forward) + len(backward), 0
    for frames in (forward, backward):
        follower.turn(-1 if frames is backward else 1)
        waiting: deque[tuple[int, NDArray[Any] | None]] = deque()
        source = _frames(movie, frames, missing, chosen)
        while True:
            while len(waiting) < max(reach(follower), 1) and (item := next(source, None)) is not None:
                waiting.append(item)
            if not waiting:
                break
            count = leap(follower, waiting)
            if count == 0:
                follower.step(*waiting[0])
                count = 1
            for _ in range(count):
                waiting.popleft()
            done += count
            yield Progress(done, total, f"Following {len(wanted)} particles", tracks)
    return tracks


def _frames(
    movie: ImageStack, frames: range, missing: dict[int, str], options: TrackOptions
) -> Iterator[tuple[int, NDArray[Any] | None]]:
    """Yield each frame's number and image, read ahead in threads; None, and the reason noted, if it holds nothing."""
    depth = options.frames_ahead(prod(movie.frame_shape) * movie.dtype.itemsize)
    source = map_ahead(lambda t: read_frame(movie, t), frames, workers=options.readers, depth=depth)
    for t, (image, why) in zip(frames, source, strict=True):
        if why:
            missing[t] = why
        yield t, None if why else image
