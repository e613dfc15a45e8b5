"""Follow particles through several frames at once while nothing happens; pixels.

As long as the scene moves less than a fraction of a box over some frames, a few scouts are fitted in all these frames
around the places of the last one. Where they went all particles are fitted in one go, those that are off the middle of
their box once more. The frames up to the first in which anything is out of the ordinary are kept; from that one on
`Follower.step` looks closely, frame by frame.
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

FRAMES = 32  # most at once
DRIFT = 2.0  # px that a particle may lie off where the scouts say
ROAM = 0.25  # of the smallest box: how far the scene may move over the frames, as it has moved lately
SCOUTS = 5  # the brightest particles tell where all of them went


def reach(follower: Follower) -> int:
    """Return how many frames may be followed at once: 0 where each one needs a close look."""
    rows = np.flatnonzero(follower.alive)
    if not len(rows) or (follower.missed[rows] > 0).all():
        return 0
    speed = float(np.abs(follower.speed).max())
    count = int(min(_roam(follower, rows) / max(speed, 1e-3), FRAMES, follower.until_pick))
    return count if count > 1 else 0


def _roam(follower: Follower, rows: NDArray[np.int64]) -> float:
    return ROAM * float(follower.box[rows, -2:].min())


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
    # each particle is expected to go on by itself as it did, the scene where the scouts say
    alone = still + follower.own_speed[rows] * np.arange(1, count + 1)[:, None, None]
    moved = _scouted(follower, images, rows, alone)
    count = len(moved)
    if count < 2:
        return 0
    images = images[:count]
    place = alone[:count] + moved[:, None]
    corner = follower.corners(rows, place)
    fits = _fit(follower, images, rows, corner)
    found = fits.position.reshape(count, -1, ndim) + corner
    # again in boxes centred on what was found; what was not found is looked for where the others have gone
    ok = fits.ok.reshape(count, -1)
    off = found - place
    rest = _medians(off, ok)
    near = ok & (np.abs(off) < DRIFT + TOLERANCE).all(2)
    better = follower.corners(rows, np.where(near[..., None], found, place + rest[:, None]))
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
    together = np.abs(found - place - rest[:, None]).max(2) <= TOLERANCE
    recent = follower.missed[rows] == 0
    usual = (good & together)[:, recent].all(1) & ~(good & ~together).any(1) & (np.abs(rest).max(1) <= DRIFT)
    kept = count if usual.all() else int(usual.argmin())
    if kept < 2:
        return 0
    _keep(follower, [t for t, _ in frames][:kept], rows, fits, status.reshape(count, particles), found)
    return kept


def _scouted(follower: Follower, images: list[NDArray[Any]], rows: NDArray[np.int64], alone: Array) -> Array:
    """Return how far the scene has moved in each frame (T, d), as a few particles have it; ends where they disagree.

    Their boxes stay where they are in the last frame: half of a spot is enough for that.
    """
    recent = np.flatnonzero(follower.missed[rows] == 0)
    best = recent[np.argsort(-np.abs(follower.amplitude[rows[recent]]), kind="stable")[:SCOUTS]]
    count, ndim = len(images), alone.shape[2]
    place = alone[:, best]
    corner = follower.corners(rows[best], place)
    fits = _fit(follower, images, rows[best], corner)
    off = fits.position.reshape(count, -1, ndim) + corner - place
    ok = fits.ok.reshape(count, -1) & (np.abs(off) <= 1.5 * _roam(follower, rows)).all(2)
    moved = _medians(off, ok)
    with np.errstate(invalid="ignore"):
        agree = (ok & (np.abs(off - moved[:, None]) <= TOLERANCE).all(2)).sum(1)
    sure = 2 * agree > len(best)
    return moved if sure.all() else moved[: int(sure.argmin())]


def _medians(off: Array, ok: NDArray[np.bool_]) -> Array:
    """Return the median over the good ones of each frame (T, d); 0 where there are none."""
    if not ok.all():
        off = np.where(ok[..., None], off, np.nan)
        empty = ~ok.any(1)
        off[empty] = 0.0
        return np.asarray(np.nanmedian(off, axis=1))
    return np.asarray(np.median(off, axis=1))


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
