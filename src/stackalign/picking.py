"""Picked particles of a session: the record that edits replace, live fits, patches to look at. No Qt, no napari."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.frame_check import read_frame
from stackalign.core.geometry import Box
from stackalign.core.spots.detect import box_at, suggest_picks
from stackalign.core.spots.fit import fit_spot
from stackalign.core.spots.picks import Pick
from stackalign.core.spots.registrar import ParticleTracking
from stackalign.core.spots.track import track_spots_work
from stackalign.core.work import Progress
from stackalign.runs import frames_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from stackalign.core.spots.gaussian import SpotFit
    from stackalign.core.spots.tracks import TrackSet
    from stackalign.core.stack import ImageStack
    from stackalign.core.work import Work

BOX = 15  # pixels: where nothing says how large a particle is
LEAST_SIDE = 5  # pixels: a smaller box holds no more pixels than the fit has numbers
DEPTH = 5  # pixels along z of a box that is drawn in a plane
LONG = 1.8  # times as long as wide: no single particle, unless all of them look like that
WIDE = 0.3  # of the box: there is no rim of background left to tell the spot from
FOUND = 0.95  # share of the frames in which a particle must be found to be called followed


@dataclass(frozen=True, slots=True, eq=False)
class Particles:
    """What a session knows about particles; frozen, replaced as a whole by every edit.

    Attributes
    ----------
    registrar : ParticleTracking
        The picks, the particles that are excluded, and how they are fitted and followed.
    tracks : TrackSet or None
        Where they were in each frame of the time range; None before they were followed.
    followed : tuple of Pick
        The picks that the tracks belong to.
    complete : bool
        False if following them was cancelled.
    """

    registrar: ParticleTracking = field(default_factory=ParticleTracking)
    tracks: TrackSet | None = None
    followed: tuple[Pick, ...] = ()
    complete: bool = True

    @property
    def picks(self) -> tuple[Pick, ...]:
        """The boxes, each in the frame in which it was drawn."""
        return self.registrar.picks

    @property
    def stale(self) -> bool:
        """Whether the picks have changed since they were followed."""
        return self.tracks is not None and self.followed != self.picks

    def pick(self, number: int) -> Pick:
        """Return the pick of a number; ValueError if there is none."""
        for pick in self.picks:
            if pick.id == number:
                return pick
        raise ValueError(f"there is no particle {number}: there are {[p.id for p in self.picks]}")

    def with_picks(self, picks: Iterable[Pick]) -> Particles:
        """Return the record with other picks; an exclusion goes with its particle."""
        kept = tuple(picks)
        names = {pick.id for pick in kept}
        exclude = tuple(k for k in self.registrar.exclude if k in names)
        return self.with_registrar(self.registrar.model_copy(update={"picks": kept, "exclude": exclude}))

    def with_registrar(self, registrar: ParticleTracking) -> Particles:
        """Return the record with other parameters; the tracks stay until they are followed again."""
        return replace(self, registrar=registrar)

    def added(self, boxes: Iterable[Box], frame: int) -> Particles:
        """Return the record with further boxes in a frame, numbered on."""
        first = max((pick.id for pick in self.picks), default=0) + 1
        new = [Pick.of(box, frame=frame, id=k) for k, box in enumerate(boxes, start=first)]
        return self.with_picks((*self.picks, *new))

    def moved(self, number: int, box: Box, frame: int | None = None) -> Particles:
        """Return the record with the box of one particle replaced, in its frame or in another one."""
        old = self.pick(number)
        new = Pick.of(box, frame=old.frame if frame is None else frame, id=number)
        return self.with_picks(new if pick.id == number else pick for pick in self.picks)

    def removed(self, number: int) -> Particles:
        """Return the record without a particle."""
        self.pick(number)
        return self.with_picks(pick for pick in self.picks if pick.id != number)

    def excluding(self, numbers: Iterable[int]) -> Particles:
        """Return the record with these particles, and no others, out of the motion."""
        return self.with_registrar(self.registrar.model_copy(update={"exclude": tuple(sorted(set(numbers)))}))

    def with_tracks(self, tracks: TrackSet, complete: bool = True) -> Particles:
        """Return the record with what following the present picks found."""
        return replace(self, tracks=tracks, followed=self.picks, complete=complete)

    def without_tracks(self) -> Particles:
        """Return the record as it was before the particles were followed."""
        return self if self.tracks is None else replace(self, tracks=None, followed=(), complete=True)

    def shifted(self, frames: int, count: int) -> Particles:
        """Return the record for a time range of ``count`` frames that begins ``frames`` later; tracks are dropped."""
        picks = (p.model_copy(update={"frame": int(np.clip(p.frame - frames, 0, count - 1))}) for p in self.picks)
        return self.with_picks(picks).without_tracks()

    @property
    def sentence(self) -> str:
        """What following them came to, for a user."""
        tracks = self.tracks
        if tracks is None:
            return ""
        found = tracks.found.mean(1)
        well = int((found >= FOUND).sum())
        text = f"Followed {particles_text(len(tracks))} through {frames_text(tracks.length)}: "
        if not self.complete:
            seen = int(tracks.found.any(0).sum())
            text = f"Cancelled after {seen} of {frames_text(tracks.length)}: "
        poor = [f"{int(k)} in {share:.0%}" for k, share in zip(tracks.ids, found, strict=True) if share < FOUND]
        text += f"{well or 'none'} found in at least {FOUND:.0%} of the frames"
        if poor:
            text += "; " + ", ".join(poor[:4]) + (f" and {len(poor) - 4} more" if poor[4:] else "")
        return text + "."


def particles_text(count: int) -> str:
    """Return "1 particle", "2 particles"."""
    return f"{count} particle{'' if count == 1 else 's'}"


def fit_box(image: NDArray[Any], box: Box, registrar: ParticleTracking) -> SpotFit:
    """Fit the spot in a box as following it will.

    Parameters
    ----------
    image : ndarray (y, x) or (z, y, x)
        The frame.
    box : Box
        Cut at the border of the frame.
    registrar : ParticleTracking
        Spot shape, estimator, polarity, camera.

    Returns
    -------
    SpotFit
        In frame pixels; false, with a ``reason``, when it is rejected.

    Raises
    ------
    ValueError
        If the box lies outside the frame.
    """
    return fit_spot(image, box, polarity=registrar.polarity, **registrar.fit_options)


def propose_box(
    image: NDArray[Any], point: Sequence[float], registrar: ParticleTracking, reach: float = 8.0
) -> tuple[Box, str]:
    """Return the box of the particle next to a clicked point, and why it may be none (empty if it is one)."""
    box = box_at(image, point, reach=reach, polarity=registrar.polarity)
    fit = fit_box(image, box, registrar)
    if fit:
        # centred once more on what was fitted: a click at the rim of a wide spot finds its flank
        centre = np.round(fit.position).astype(int)
        half = np.array(box.shape) // 2
        start = np.clip(centre - half, 0, np.maximum(np.array(image.shape) - np.array(box.shape), 0))
        bounds = [int(b) for a, n in zip(start, box.shape, strict=True) for b in (a, a + n)]
        again = Box(*bounds)
        fit_again = fit_box(image, again, registrar)
        if fit_again:
            return again, reason_of(fit_again)
    return box, reason_of(fit)


def drawn_box(corner: Sequence[float], opposite: Sequence[float], shape: Sequence[int]) -> Box:
    """Return the box between two corners of a drag, pixels, at least 5 wide and inside the frame.

    In 3-D both corners lie in one plane; the box is as deep as a small particle around it.
    """
    first, second = np.asarray(corner, float), np.asarray(opposite, float)
    low = np.round(np.minimum(first, second)).astype(int)
    high = np.round(np.maximum(first, second)).astype(int) + 1
    if len(shape) == 3:
        low[0] -= DEPTH // 2
        high[0] += DEPTH // 2
    return inside(low, high - low, shape)


def inside(start: Sequence[int] | NDArray[Any], size: Sequence[int] | NDArray[Any], shape: Sequence[int]) -> Box:
    """Return the box of a size at a place, moved inside the frame; at least 5 pixels a side where there are."""
    whole = np.asarray(shape, int)
    side = np.clip(np.asarray(size, int), np.minimum(LEAST_SIDE, whole), whole)
    begin = np.clip(np.asarray(start, int), 0, whole - side)
    return Box(*(int(b) for a, n in zip(begin, side, strict=True) for b in (a, a + n)))


def box_around(point: Sequence[float] | NDArray[Any], size: Sequence[int], shape: Sequence[int]) -> Box:
    """Return the box of a size around a point, moved inside the frame."""
    half = (np.asarray(size, int) - 1) / 2
    return inside(np.round(np.asarray(point, float) - half).astype(int), size, shape)


def nudged(box: Box, step: Sequence[int], shape: Sequence[int]) -> Box:
    """Return a box moved by whole pixels, inside the frame; steps for the last axes."""
    full = np.zeros(len(shape), int)
    full[-len(step) :] = step
    return inside(np.array(box.start) + full, box.shape, shape)


def grown(box: Box, pixels: int, shape: Sequence[int]) -> Box:
    """Return a box larger by ``pixels`` on every side in the plane, about the same centre."""
    by = np.zeros(len(shape), int)
    by[-2:] = pixels
    size = np.array(box.shape) + 2 * by
    if (size[-2:] < LEAST_SIDE).any():
        return box
    return inside(np.array(box.start) - by, size, shape)


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """What is looked at to judge a fit: images of the box (the plane through the centre in 3-D), and its profiles.

    Attributes
    ----------
    data, model, residual : ndarray (h, w)
        Intensity units; ``model`` and ``residual`` are NaN where there is no fit.
    start : tuple of int
        Row and column of the first pixel.
    rows, columns : tuple of (places, data, curve places, curve)
        Cuts through the centre along y and along x; pixels and intensity units.
    """

    data: NDArray[np.float64]
    model: NDArray[np.float64]
    residual: NDArray[np.float64]
    start: tuple[int, int]
    rows: tuple[NDArray[np.float64], ...]
    columns: tuple[NDArray[np.float64], ...]


def patches_of(image: NDArray[Any], fit: SpotFit) -> Patches:
    """Return the patches of a fit in its frame; a fit without a position is cut through the middle of its box."""
    box = fit.box
    if box is None:
        raise ValueError("this fit does not know its box")
    data = np.asarray(image[box.slices], float)
    known = bool(np.isfinite(fit.position).all() and np.isfinite(fit.spot.amplitude))
    model = fit.spot.image(box.shape, box.start) if known else np.full(box.shape, np.nan)
    middle = (np.array(box.start) + np.array(box.stop) - 1) / 2
    centre = np.where(np.isfinite(fit.position), fit.position, middle)
    index = np.clip(np.round(centre).astype(int), box.start, np.array(box.stop) - 1)
    if data.ndim == 3:
        plane = index[0] - box.start[0]
        data, model = data[plane], model[plane]

    def cut(axis: int) -> tuple[NDArray[np.float64], ...]:
        places = np.arange(box.start[axis], box.stop[axis], dtype=float)
        other = -1 if axis == -2 else -2
        line = np.take(data, index[other] - box.start[other], axis=other)
        fine = np.linspace(places[0], places[-1], 120)
        if not known:
            return places, line, fine, np.full(len(fine), np.nan)
        at = [np.full(len(fine), float(i)) for i in index]
        at[axis] = fine
        curve = np.array([_value(fit, point) for point in zip(*at, strict=True)])
        return places, line, fine, curve

    return Patches(data, model, data - model, (box.start[-2], box.start[-1]), cut(-2), cut(-1))


def _value(fit: SpotFit, point: Sequence[float]) -> float:
    return float(fit.spot.image((1,) * len(point), point).ravel()[0])


def numbers_of(fit: SpotFit, pixel_size: Sequence[float] | None = None, unit: str = "µm") -> str:
    """Return the numbers of a fit with their standard errors, for a user."""
    if not np.isfinite(fit.position).all():
        return ""
    axes = "zyx"[-len(fit.position) :]
    parts = []
    for k, axis in enumerate(axes):
        parts.append(f"{axis} {measured(float(fit.position[k]), float(fit.error.position[k]))}")
    place = "  ".join(parts) + " px"
    if pixel_size is not None:
        error = np.asarray(fit.error.position, float) * np.asarray(pixel_size, float)
        nm = 1000.0 if unit in ("µm", "um", "micrometer") else None
        spread = float(np.sqrt(np.mean(error**2)))
        if np.isfinite(spread):
            place += f"  (± {spread * nm:.3g} nm)" if nm else f"  (± {spread:.2g} {unit})"
    widths = " × ".join(f"{s:.2f}" for s in fit.spot.sigma)
    if len(fit.spot.sigma) == 2 and abs(fit.spot.sigma[0] - fit.spot.sigma[1]) < 0.005:
        widths = f"{fit.spot.sigma[0]:.2f}"
    return (
        f"{place}\nσ {widths} ± {float(np.nanmax(fit.error.sigma)):.2f} px   "
        f"R² {fit.r_squared:.3f}   SNR {fit.snr:.3g}   amplitude {fit.spot.amplitude:.4g}"
    )


def measured(value: float, error: float) -> str:
    """Return "231.42 ± 0.02" with as many digits as count; without the error where it is not known."""
    if not error >= 0:  # NaN too
        return f"{value:.2f}"
    digits = 3 if error < 0.0095 else 2 if error < 0.95 else 1
    return f"{value:.{digits}f} ± {max(error, 0.001):.{digits}f}"


def reason_of(fit: SpotFit) -> str:
    """Return why a spot should not be picked, in words; empty for a good one.

    Besides a rejected fit: a spot far longer than wide may be two, one that fills its box may be none.
    """
    if not fit:
        return fit.reason
    plane = np.sort(np.abs(fit.spot.sigma[-2:]))
    if plane[1] > LONG * plane[0]:
        return f"the spot is {plane[1] / plane[0]:.1f} times as long as wide: it may be two; choose a lone particle"
    if fit.box is not None and plane[1] > WIDE * min(fit.box.shape[-2:]):
        return "the spot fills its box: make the box larger, or choose a smaller particle"
    return ""


def suggested(
    stack: ImageStack, count: int, frame: int, particles: Particles, mask: NDArray[np.bool_] | None = None
) -> Particles:
    """Return the record with up to ``count`` proposed particles of a frame added, none where one is picked already.

    Raises
    ------
    ValueError
        If nothing new stands out in the frame.
    """
    found = suggest_picks(
        stack, count + len(particles.picks), frame=frame, polarity=particles.registrar.polarity, mask=mask
    )
    taken = [(np.array(pick.centre), np.array(pick.box.shape) / 2) for pick in particles.picks if pick.frame == frame]
    boxes = [
        pick.box for pick in found if not any((np.abs(np.array(pick.centre) - at) <= half).all() for at, half in taken)
    ][:count]
    if not boxes:
        what = "no further particle" if particles.picks else "no particle"
        raise ValueError(f"{what} stands out in frame {frame}: try another frame, or pick by hand")
    return particles.added(boxes, frame)


def suggest_work(
    stack: ImageStack, count: int, frame: int, particles: Particles, mask: NDArray[np.bool_] | None = None
) -> Work[Particles]:
    """Do what `suggested` does as work."""
    yield Progress(0, 1, "Looking for particles")
    return suggested(stack, count, frame, particles, mask)


def load_frame(stack: ImageStack, frame: int, registrar: ParticleTracking) -> tuple[NDArray[Any], str]:
    """Read a frame to fit in; returns it with what is wrong with it, if anything.

    Fits a spot of its own too, so that the first fit under the mouse need not wait for the compiled code.
    """
    image, why = read_frame(stack, frame)
    fit_box(np.zeros((9,) * stack.ndim, np.float32), Box(*(0, 9) * stack.ndim), registrar)
    return image, why


def follow_work(stack: ImageStack, registrar: ParticleTracking) -> Work[TrackSet]:
    """Follow the picks of a record through the frames of the time range; partial results hold the frames so far."""
    return track_spots_work(stack, registrar.picks, registrar)
