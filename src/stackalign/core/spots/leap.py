"""Follow particles through several frames at once while nothing happens; pixels.

As long as the scene moves less than a fraction of a box over some frames, the spots of all these frames are fitted in
one go around the places of the last one, and once more in boxes centred on what was found. The frames up to the first
in which anything is out of the ordinary are kept; from that one on `Follower.step` looks closely, frame by frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.spots.consensus import predict, robust_rigid
from stackalign.core.spots.follower import TOLERANCE, Follower
from stackalign.core.spots.gaussian import FitStatus, SpotFits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

FRAMES = 16  # most at once
DRIFT = 2.0  # px that the scene may move over them, as it has moved lately


def reach(follower: Follower) -> int:
    """Return how many frames may be followed at once: 0 where each one needs a close look."""
    rows = np.flatnonzero(follower.alive)
    if not len(rows) or (follower.missed[rows] > 0).all():
        return 0
    speed = float(np.abs(follower.speed).max())
    count = int(min(DRIFT / max(speed, 1e-3), FRAMES, follower.until_pick))
    return count if count > 1 else 0


def leap(follower: Follower, frames: Sequence[tuple[int, NDArray[Any] | None]]) -> int:
    """Follow all particles through the first of ``frames``; return how many, 0 if the next one needs a close look."""
    images = []
    for _, image in list(frames)[: reach(follower)]:
        if image is None:
            break
        images.append(image)
    if len(images) < 2:
        return 0
    rows = np.flatnonzero(follower.alive)
    count, particles, ndim = len(images), len(rows), len(follower.shape)
    still = predict(follower.motion, follower.scene[rows]) + follower.own[rows]
    if follower.crowded(rows, still, DRIFT + TOLERANCE).any():
        return 0
    # the scene is expected to rest, each particle to go on by itself as it did
    place = still + follower.own_speed[rows] * np.arange(1, count + 1)[:, None, None]
    corner = follower.corners(rows, place)
    fits = _fit(follower, images, rows, corner)
    found = fits.position.reshape(count, -1, ndim) + corner
    # again in boxes centred on what was found; what was not found is looked for where the others have gone
    ok = fits.ok.reshape(count, -1)
    off = found - place
    moved = np.stack(
        [np.median(o[good], axis=0) if good.any() else np.zeros(ndim) for o, good in zip(off, ok, strict=True)]
    )
    near = ok & (np.abs(off) < DRIFT + 2 * TOLERANCE).all(2)
    better = follower.corners(rows, np.where(near[..., None], found, place + moved[:, None]))
    aside = (np.abs(better - corner) > 1).any(2)  # one pixel off the middle costs nothing
    again = np.flatnonzero(aside.ravel())
    if len(again):
        corner = np.where(aside[..., None], better, corner)
        fresh = _fit(follower, images, rows, corner, again)
        for name in SpotFits.__dataclass_fields__:
            getattr(fits, name)[again] = getattr(fresh, name)
        found = fits.position.reshape(count, -1, ndim) + corner
    status = fits.status.copy()
    status[((place < -1) | (place > np.array(follower.shape))).any(2).ravel()] = FitStatus.OUT_OF_VIEW
    every = np.tile(rows, count)
    good = follower.judge(every, fits, found.reshape(-1, ndim), place.reshape(-1, ndim), status).reshape(count, -1)
    together = np.abs(found - place - moved[:, None]).max(2) <= TOLERANCE
    recent = follower.missed[rows] == 0
    usual = (good & together)[:, recent].all(1) & ~(good & ~together).any(1) & (np.abs(moved).max(1) <= 2 * DRIFT)
    kept = count if usual.all() else int(usual.argmin())
    if kept < 2:
        return 0
    _keep(follower, [t for t, _ in frames][:kept], rows, fits, status.reshape(count, particles), found)
    return kept


def _fit(
    follower: Follower,
    images: list[NDArray[Any]],
    rows: NDArray[np.int64],
    corner: NDArray[np.int64],
    only: NDArray[np.int64] | None = None,
) -> SpotFits:
    """Fit the boxes at ``corner`` (frames, particles, d), or only some of them, numbered through."""
    count, particles, ndim = corner.shape
    box = follower.box[rows].tolist()
    flat = corner.reshape(-1, ndim).tolist()
    index = range(count * particles) if only is None else only.tolist()
    patches = []
    if ndim == 2:
        for i in index:
            (y, x), (h, w) = flat[i], box[i % particles]
            patches.append(images[i // particles][y : y + h, x : x + w])
    else:
        for i in index:
            cut = tuple(slice(c, c + n) for c, n in zip(flat[i], box[i % particles], strict=True))
            patches.append(images[i // particles][cut])
    every = np.tile(rows, count)
    return follower.fit_patches(patches, every if only is None else every[only], images[0].dtype)


def _keep(
    follower: Follower,
    times: list[int],
    rows: NDArray[np.int64],
    fits: SpotFits,
    status: NDArray[np.int8],
    found: Array,
) -> None:
    """Store the frames, and move what is expected on to the last one."""
    tracks, n, count = follower.tracks, len(rows), len(times)
    head = slice(0, n * count)
    code = status[:count].T
    where = np.ix_(rows, np.array(times))
    tracks.status[where] = code
    tracks.r_squared[where] = fits.r_squared[head].reshape(count, n).T
    good = code == FitStatus.OK
    p, t = np.nonzero(good)
    row, time = rows[p], np.array(times)[t]
    flat = t * n + p
    tracks.position[row, time] = found[:count].reshape(n * count, -1)[flat]
    for name in ("position_error", "amplitude", "background", "angle", "sigma"):
        getattr(tracks, name)[row, time] = getattr(fits, name)[flat]
    for k in (count - 2, count - 1):
        here = good[:, k]
        if not here.any():
            continue
        seen = found[k][here] - follower.own[rows][here]
        before = follower.motion
        motion, _ = robust_rigid(follower.scene[rows][here], seen, before, TOLERANCE + 2 * DRIFT)
        part = SpotFits(**{m: getattr(fits, m)[k * n : (k + 1) * n] for m in SpotFits.__dataclass_fields__})
        if k == count - 2:
            follower.motion = motion
            continue
        sped = before.copy()
        sped[:-1, -1] += follower.speed
        follower.remember(rows, found[k], part, good[:, k], motion, before, sped, frames=count)
    follower.time = times[-1]
