"""The state of tracking: where every particle is expected next, and the step that finds it there; pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from stackalign.core.geometry import Box
from stackalign.core.spots.consensus import choose_candidates, predict, robust_rigid
from stackalign.core.spots.fit import fit_spots
from stackalign.core.spots.gaussian import FitStatus, GaussianSpot, SpotFits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.spots.options import TrackOptions
    from stackalign.core.spots.picks import Pick
    from stackalign.core.spots.tracks import TrackSet

    Array = NDArray[np.float64]

MEMORY = 0.3  # share of a new frame in what is remembered of a particle's brightness and width
CHANGE = 3.0  # factor by which the brightness may differ from the remembered one
WIDTH_CHANGE = 1.8
TOLERANCE = 2.0  # px around the common motion in which a particle counts as following it
CROWD_ROUNDS = 3  # of subtracting the neighbours and fitting again
_DARK = (FitStatus.NO_CONTRAST, FitStatus.OUT_OF_VIEW)
LEAST_SHARE = 0.4  # of the particles usually found: fewer that agree after a search prove nothing
ENOUGH = 0.6  # share of the particles that must be found together before no search is needed


@dataclass(slots=True, eq=False)
class Follower:
    """The state of tracking: where everything is expected in the next frame."""

    picks: tuple[Pick, ...]
    options: TrackOptions
    tracks: TrackSet
    shape: tuple[int, ...]
    direction: int = 1
    time: int | None = None  # the last frame met
    box: NDArray[np.int64] = field(init=False)  # (P, d)
    alive: NDArray[np.bool_] = field(init=False)  # picked already, and with a good first fit
    scene: Array = field(init=False)  # (P, d) place in the scene
    own: Array = field(init=False)  # (P, d) what a particle has moved within the scene
    own_speed: Array = field(init=False)
    amplitude: Array = field(init=False)  # remembered, signed
    width: Array = field(init=False)
    missed: NDArray[np.int64] = field(init=False)
    motion: Array = field(init=False)  # scene -> last frame
    speed: Array = field(init=False)  # (d,) of the scene's centre, px per frame
    usual: float = field(init=False, default=0.0)  # how many particles are found in a frame
    hold_error: float = field(init=False, default=1.0)
    speed_error: float = field(init=False, default=1.0)

    def __post_init__(self) -> None:
        count, ndim = len(self.picks), len(self.shape)
        boxes = [pick.box.clipped(self.shape) for pick in self.picks]
        self.box = np.array([box.shape for box in boxes])
        self.tracks.box_shape[:] = self.box
        self.alive = np.zeros(count, bool)
        self.scene, self.own, self.own_speed = (np.full((count, ndim), np.nan) for _ in range(3))
        self.amplitude, self.width = np.full(count, np.nan), np.full(count, np.nan)
        self.missed = np.zeros(count, np.int64)
        self.turn(1)

    def turn(self, direction: int) -> None:
        """Begin anew, in the other direction of time."""
        self.direction = direction
        self.time = None
        self.usual = 0.0
        self.motion = np.eye(len(self.shape) + 1)
        self.speed = np.zeros(len(self.shape))
        self.alive[:] = False
        self.missed[:] = 0
        self.hold_error = self.speed_error = 1.0

    def step(self, t: int, image: NDArray[Any] | None) -> None:
        """Find every particle in frame ``t``."""
        self.time = t
        if self.direction < 0:
            self._wake(t + 1)  # a particle picked in the frame before this one starts from its fit there
        following = np.flatnonzero(self.alive)
        if image is None:
            self.tracks.status[following, t] = FitStatus.NO_FRAME
            self.tracks.status[[k for k, p in enumerate(self.picks) if p.frame == t], t] = FitStatus.NO_FRAME
            self.missed[following] += 1
        elif len(following):
            self._follow(t, image, following)
        if self.direction > 0 and image is not None:
            self._begin(t, image)

    def _begin(self, t: int, image: NDArray[Any]) -> None:
        """Fit the particles picked in this frame."""
        for k, pick in enumerate(self.picks):
            if pick.frame == t:
                box = pick.box.clipped(self.shape)
                fits = fit_spots(image[box.slices][None], polarity=self.options.polarity, **self.options.fit_options)
                self._store(np.array([k]), t, fits, np.array([box.start]), fits.status)
        self._wake(t)

    def _wake(self, t: int) -> None:
        """Start to follow the particles picked in frame ``t``, from what was found there."""
        for k, pick in enumerate(self.picks):
            if pick.frame == t and self.tracks.status[k, t] == FitStatus.OK and not self.alive[k]:
                inverse = np.asarray(np.linalg.inv(self.motion), np.float64)
                self.scene[k] = predict(inverse, self.tracks.position[k, t][None])[0]
                self.own[k] = self.own_speed[k] = 0.0
                self.amplitude[k] = self.tracks.amplitude[k, t]
                self.width[k] = np.sqrt(np.prod(self.tracks.sigma[k, t, -2:]))
                self.missed[k] = 0
                self.alive[k] = True
                self.usual += 1
        lost = [k for k, p in enumerate(self.picks) if p.frame == t and self.tracks.status[k, t] != FitStatus.OK]
        for k in lost:  # what is no particle where it was picked is followed nowhere, for the same reason
            self.tracks.status[k, :] = self.tracks.status[k, t]

    def _follow(self, t: int, image: NDArray[Any], rows: NDArray[np.int64]) -> None:
        held = self.motion
        sped = self.motion.copy()
        sped[:-1, -1] += self.speed
        expected = sped if self.speed_error < self.hold_error else held
        own = self.own[rows] + self.own_speed[rows]
        scene = self.scene[rows]
        place = predict(expected, scene) + own
        fits, corner, status = self._fit(image, rows, place)
        found = fits.position + corner
        good = self.judge(rows, fits, found, place, status)
        motion, follow = expected, good.copy()
        recent = self.missed[rows] == 0
        if good.any():
            motion, agreed = robust_rigid(scene[good], found[good] - own[good], expected, TOLERANCE)
            follow[good] = agreed
        enough = self.usual * LEAST_SHARE
        if follow[recent].sum() < max(ENOUGH * recent.sum(), enough, 1):
            motion, chosen = self._search(image, rows, expected, own)
            again = np.flatnonzero(np.isfinite(chosen).all(1))
            # particles that no candidate was chosen for: where the common motion puts them
            target = predict(motion, scene) + own
            target[again] = chosen[again]
            fits, corner, status = self._fit(image, rows, target)
            found = fits.position + corner
            good = self.judge(rows, fits, found, target, status)
            if good.any():
                motion, agreed = robust_rigid(scene[good], found[good] - own[good], motion, TOLERANCE)
                follow = good.copy()
                follow[good] = agreed
            if follow.sum() < enough:  # that few fall into place by chance in any other scene too
                motion, follow[:] = held, False
                status[good] = FitStatus.NOT_FOUND
                good[:] = False
            place = predict(motion, scene) + own
        else:
            place = predict(motion, scene) + own
            # those not found where they were expected are looked for where the others say that they are, if elsewhere
            retry = np.flatnonzero(~good)
            if len(retry):
                self._second_look(image, rows, retry, place, fits, corner, status, found, good)
        self._settle_conflicts(rows, found, place, good, status)
        # a gap makes the place less certain; but a spot far from both its own and the common path is another one
        gate = np.maximum(TOLERANCE, self.width[rows]) * np.sqrt(1.0 + 0.2 * self.missed[rows])
        far = good & (np.sqrt(((found - place) ** 2).sum(1)) > np.maximum(gate, 0.4 * self.box[rows, -2:].min(1)))
        if good.sum() > 1:
            status[far] = FitStatus.JUMPED
            good &= ~far
        self._store(rows, t, fits, corner, status)
        self.remember(rows, found, fits, good, motion, held, sped)

    def corners(self, rows: NDArray[np.int64], place: Array) -> NDArray[np.int64]:
        """Return the first pixel of the box of each particle at its place, inside the frame."""
        corner = np.round(place).astype(np.int64) - (self.box[rows] - 1) // 2
        return np.asarray(np.clip(corner, 0, np.array(self.shape) - self.box[rows]))

    def crowded(self, rows: NDArray[np.int64], place: Array, margin: float = 0.0) -> NDArray[np.bool_]:
        """(P, P) True where the second particle lies in the first one's box, or nearly so."""
        near = np.asarray((np.abs(place[:, None] - place[None]) < 0.8 * self.box[rows][:, None] + margin).all(2))
        np.fill_diagonal(near, False)
        return near

    @property
    def until_pick(self) -> int:
        """How many frames there are before one in which another particle was picked."""
        if self.time is None:
            return 0
        ahead = (self.tracks.start - self.time) * self.direction
        # forward, the pick's own frame is met alone; backward, the one after it, where its track begins
        ahead = ahead[ahead > 0] - 1 if self.direction > 0 else ahead[ahead >= 0]
        return int(ahead.min(initial=1 << 30))

    def _fit(
        self, image: NDArray[Any], rows: NDArray[np.int64], place: Array
    ) -> tuple[SpotFits, NDArray[np.int64], NDArray[np.int8]]:
        """Fit every particle at its place; two in one box are told apart by what is remembered of the other."""
        corner = self.corners(rows, place)
        patches = [
            np.array(image[tuple(slice(c, c + n) for c, n in zip(at, size, strict=True))])
            for at, size in zip(corner.tolist(), self.box[rows].tolist(), strict=True)
        ]
        fits = self.fit_patches(patches, rows, image.dtype)
        near = self.crowded(rows, place)
        crowded = np.flatnonzero(near.any(1))
        for _ in range(CROWD_ROUNDS if len(crowded) else 0):
            centre = self._crowd_centres(fits, corner, place, rows)
            clean = []
            for k in crowded:
                patch = patches[k].astype(np.float64)
                for other in np.flatnonzero(near[k] & ~np.isin(fits.status, _DARK)):
                    spot = GaussianSpot(
                        float(self.amplitude[rows[other]]),
                        centre[other],
                        np.full(len(self.shape), self.width[rows[other]]),
                    )
                    patch -= spot.image(patch.shape, corner[k])
                clean.append(patch)
            again = self.fit_patches(clean, rows[crowded], np.dtype(np.float64))
            for name in SpotFits.__dataclass_fields__:
                getattr(fits, name)[crowded] = getattr(again, name)
        status = fits.status.copy()
        status[((place < -1) | (place > np.array(self.shape))).any(1)] = FitStatus.OUT_OF_VIEW
        apart = np.sqrt(((place[:, None] - place[None]) ** 2).sum(2)) + np.where(near, 0.0, np.inf)
        # nearer than that, the two make one spot: better no position than a mixed one
        merged = (apart < 1.2 * np.maximum(self.width[rows][:, None], self.width[rows][None])).any(1)
        status[merged & (status == FitStatus.OK)] = FitStatus.AMBIGUOUS
        return fits, corner, status

    def fit_patches(self, patches: list[NDArray[Any]], rows: NDArray[np.int64], dtype: np.dtype[Any]) -> SpotFits:
        """Fit patches of any sizes, those of one size and polarity at once."""
        options = self.options.fit_options
        if dtype.kind == "u":
            options["saturation"] = float(np.iinfo(dtype).max)
        groups: dict[tuple[Any, ...], list[int]] = {}
        for k, patch in enumerate(patches):
            groups.setdefault((patch.shape, bool(self.amplitude[rows[k]] < 0)), []).append(k)
        parts = [
            fit_spots(np.stack([patches[k] for k in members]), polarity="dark" if dark else "bright", **options)
            for (_, dark), members in groups.items()
        ]
        if len(parts) == 1:
            return parts[0]
        order = np.argsort(np.concatenate([np.array(members) for members in groups.values()]), kind="stable")
        names = SpotFits.__dataclass_fields__
        return SpotFits(**{name: np.concatenate([getattr(p, name) for p in parts])[order] for name in names})

    def _crowd_centres(self, fits: SpotFits, corner: NDArray[np.int64], place: Array, rows: NDArray[np.int64]) -> Array:
        """Return where each particle is thought to be: its fit, unless that is another one's spot."""
        found = fits.position + corner
        ok = fits.ok
        moved = np.median((found - place)[ok], axis=0) if ok.any() else np.zeros(place.shape[1])
        expected = place + moved
        trusted = ok & (np.sqrt(((found - expected) ** 2).sum(1)) < np.maximum(TOLERANCE, self.width[rows]))
        apart = np.sqrt(((found[:, None] - found[None]) ** 2).sum(2))
        np.fill_diagonal(apart, np.inf)
        with np.errstate(invalid="ignore"):
            trusted &= ~(apart < 1.0).any(1)
        return np.where(trusted[:, None], found, expected)

    def judge(
        self, rows: NDArray[np.int64], fits: SpotFits, found: Array, place: Array, status: NDArray[np.int8]
    ) -> NDArray[np.bool_]:
        """Return which fits are the particle; the status of the others says why not."""
        good = np.asarray(status == FitStatus.OK)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = fits.amplitude / self.amplitude[rows]
            width = np.sqrt(np.prod(fits.sigma[:, -2:], axis=1)) / self.width[rows]
            # brightness in all: a defocused spot is lower and wider
            changed = ~((ratio > 1 / CHANGE) & (ratio < CHANGE) & (width > 1 / WIDTH_CHANGE) & (width < WIDTH_CHANGE))
            far = np.sqrt(((found - place) ** 2).sum(1)) > self.options.search
        status[good & changed] = FitStatus.CHANGED
        good &= ~changed
        status[good & far] = FitStatus.JUMPED
        return np.asarray(good & ~far)

    def _search(self, image: NDArray[Any], rows: NDArray[np.int64], expected: Array, own: Array) -> tuple[Array, Array]:
        """Return the motion that most particles can follow, and each particle's spot under it (NaN: none)."""
        scene = self.scene[rows]
        place = predict(expected, scene) + own
        candidates = [self._spots(image, place[i], int(rows[i])) for i in range(len(rows))]
        moved = [c - own[i] for i, c in enumerate(candidates)]
        motion, choice = choose_candidates(scene, moved, expected, 1.5 * TOLERANCE)
        chosen = np.full_like(place, np.nan)
        for i, k in enumerate(choice):
            if k >= 0:
                chosen[i] = candidates[i][k]
        return motion, chosen

    def _spots(self, image: NDArray[Any], place: Array, row: int) -> Array:
        """Return where spots like a particle lie around a place, the likeliest first, (C, d)."""
        reach = int(np.ceil(self.options.search))
        half = [reach + int(np.ceil(2 * self.width[row]))] * len(self.shape)
        bounds = [b for p, h in zip(place, half, strict=True) for b in (round(p) - h, round(p) + h + 1)]
        try:
            window = Box(*bounds).clipped(self.shape)
        except ValueError:
            return np.empty((0, len(self.shape)))
        part = np.array(image[window.slices], np.float32)
        lost = ~np.isfinite(part)
        if lost.any():
            if lost.all():
                return np.empty((0, len(self.shape)))
            part[lost] = np.median(part[~lost])
        sigma = float(np.clip(self.width[row], 0.7, 10))
        sign = -1.0 if self.amplitude[row] > 0 else 1.0
        response = sign * sigma**2 * ndimage.gaussian_laplace(part, sigma, mode="nearest")
        # a Gaussian of the filter's own width gives half its height (2-D)
        usual = 0.5 * abs(self.amplitude[row])
        peak = (response == ndimage.maximum_filter(response, size=3)) & (response > usual / CHANGE)
        where = np.argwhere(peak).astype(float) + np.array(window.start)
        if not len(where):
            return np.asarray(where)
        strength = response[peak]
        distance = np.sqrt(((where - place) ** 2).sum(1))
        cost = distance / self.options.search + np.abs(np.log(strength / usual))
        cost[distance > self.options.search + 1] = np.inf
        order = np.argsort(cost, kind="stable")[:8]
        return np.asarray(where[order][np.isfinite(cost[order])])

    def _second_look(
        self,
        image: NDArray[Any],
        rows: NDArray[np.int64],
        retry: NDArray[np.int64],
        place: Array,
        fits: SpotFits,
        corner: NDArray[np.int64],
        status: NDArray[np.int8],
        found: Array,
        good: NDArray[np.bool_],
    ) -> None:
        """Fit some particles again where the found ones say that they are; updates the arrays in place."""
        again, where, why = self._fit(image, rows, place)
        better = self.judge(rows, again, again.position + where, place, why)
        for k in retry:
            if better[k] or status[k] == FitStatus.OFF_EDGE:
                for name in SpotFits.__dataclass_fields__:
                    getattr(fits, name)[k] = getattr(again, name)[k]
                corner[k], status[k], found[k], good[k] = where[k], why[k], again.position[k] + where[k], better[k]

    def _settle_conflicts(
        self, rows: NDArray[np.int64], found: Array, place: Array, good: NDArray[np.bool_], status: NDArray[np.int8]
    ) -> None:
        """Let no two particles have one spot: the one that it fits better keeps it."""
        index = np.flatnonzero(good)
        if len(index) < 2:
            return
        apart = np.sqrt(((found[index][:, None] - found[index][None]) ** 2).sum(2))
        limit = np.maximum(1.0, 0.7 * np.minimum(self.width[rows[index]][:, None], self.width[rows[index]][None]))
        away = np.sqrt(((found - place) ** 2).sum(1))
        for a, b in zip(*np.nonzero(np.triu(apart < limit, 1)), strict=True):
            i, j = index[a], index[b]
            if good[i] and good[j]:
                loser = i if away[i] > away[j] else j
                good[loser] = False
                status[loser] = FitStatus.TAKEN

    def _store(
        self, rows: NDArray[np.int64], t: int, fits: SpotFits, corner: NDArray[np.int64], status: NDArray[np.int8]
    ) -> None:
        tracks, good = self.tracks, np.asarray(status == FitStatus.OK)
        tracks.status[rows, t] = status
        tracks.r_squared[rows, t] = fits.r_squared
        kept = rows[good]
        tracks.position[kept, t] = (fits.position + corner)[good]
        for name in ("position_error", "amplitude", "background", "angle", "sigma"):
            getattr(tracks, name)[kept, t] = getattr(fits, name)[good]

    def remember(
        self,
        rows: NDArray[np.int64],
        found: Array,
        fits: SpotFits,
        good: NDArray[np.bool_],
        motion: Array,
        held: Array,
        sped: Array,
        frames: int = 1,
    ) -> None:
        """Update what is expected of the next frame, after ``frames`` frames of which this was the last."""
        self.missed[rows] = np.where(good, 0, self.missed[rows] + frames)
        lost = rows[~good]
        self.own[lost] += frames * self.own_speed[lost]  # one that moves on its own moves on, ever slower
        self.own_speed[lost] *= 0.95**frames
        if not good.any():
            self.usual *= 0.98**frames
            return
        kept = rows[good]
        self.usual += (1 - 0.8**frames) * (len(kept) - self.usual)
        scene = self.scene[kept]
        here = predict(motion, scene)
        middle = scene.mean(0, keepdims=True)
        now = predict(motion, middle)[0]
        self.hold_error += 0.2 * (float(((now - predict(held, middle)[0]) ** 2).sum()) - self.hold_error)
        self.speed_error += 0.2 * (float(((now - predict(sped, middle)[0]) ** 2).sum()) - self.speed_error)
        self.speed = now - predict(held, middle)[0]
        self.motion = motion
        own = found[good] - here
        change = own - self.own[kept]
        self.own_speed[kept] += (1 - 0.7**frames) * (change / frames - self.own_speed[kept])
        self.own[kept] += (1 - 0.3**frames) * change
        share = 1 - (1 - MEMORY) ** frames
        self.amplitude[kept] += share * (fits.amplitude[good] - self.amplitude[kept])
        width = np.sqrt(np.prod(fits.sigma[good][:, -2:], axis=1))
        self.width[kept] += share * (width - self.width[kept])
