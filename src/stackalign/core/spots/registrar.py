"""Alignment by particles: picked or suggested, followed, and the motion that they share; maps moving -> reference."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from stackalign.core.frames.frame_check import read_frame
from stackalign.core.geometry import centre
from stackalign.core.references.reference import Reference
from stackalign.core.registration import FrameQuality, RegistrarParameters, Registration
from stackalign.core.spots.gaussian import FitStatus
from stackalign.core.spots.options import TrackOptions
from stackalign.core.spots.picks import Pick
from stackalign.core.stack import ImageStack
from stackalign.core.work import Progress, Work

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from stackalign.core.registration import ReferenceLike
    from stackalign.core.spots.motion import TrackMotion
    from stackalign.core.spots.tracks import TrackSet

SUGGESTED = 12  # particles, where neither picks nor a number are given
BETWEEN_DRAFTS = 0.5  # s between results so far, for a preview and for who cancels


class ParticleTracking(RegistrarParameters, TrackOptions):
    """Follow particles and take the motion that they share: translation, rotation, scale or shear."""

    method: Literal["particles"] = "particles"
    picks: tuple[Pick, ...] = Field(
        (),
        title="Picks",
        description="Particles to follow; none: some are suggested",
        json_schema_extra={"hidden": True},
    )
    auto: int | None = Field(
        None,
        title="Suggested particles",
        description="How many particles to suggest where none is picked; empty: 12",
        ge=1,
        le=10_000,
    )
    model: Literal["translation", "euclidean", "similarity", "affine"] = Field(
        "euclidean",
        title="Model",
        description="Motion of the field: shift; and rotation (euclidean); and scale (similarity); and shear (affine)",
    )
    exclude: tuple[int, ...] = Field(
        (),
        title="Excluded particles",
        description="Numbers of particles that are followed but take no part in the motion",
        json_schema_extra={"hidden": True},
    )

    def fit(
        self,
        stack: ImageStack | ArrayLike,
        *,
        reference: ReferenceLike | None = None,
        anchor: int | str | None = None,
        mask: NDArray[np.bool_] | None = None,
    ) -> Work[Registration]:
        """Estimate one transform per frame.

        Parameters
        ----------
        stack : ImageStack or array_like
            The frames.
        reference : str, int or ndarray, optional
            A frame number or "first" becomes the identity. An image: the particles are followed into it, and it becomes
            the reference. Other words change nothing: all frames together make the scene.
        anchor : int or "mean", optional
            Frame that becomes the identity; the first valid one if None.
        mask : ndarray of bool, frame shape, optional
            True where particles may be suggested. Picks are taken wherever they are.

        Returns
        -------
        generator of Progress
            Returns a `Registration`; its ``details`` hold "tracks" (TrackSet), "motion" (TrackMotion) and "picks".

        Raises
        ------
        ValueError
            If no particle is picked and none stands out, a pick does not fit the stack, or the particles cannot be
            found in the reference image.
        """
        movie = ImageStack.of(stack)
        anchor = _checked(anchor, len(movie))
        image = None
        if reference is not None and not isinstance(reference, str | int | np.integer):
            image = np.asarray(reference)
            if image.shape != movie.frame_shape:
                raise ValueError(f"the reference image is {image.shape}, the frames are {movie.frame_shape}")
        elif anchor is None and reference is not None:
            anchor = _anchor(reference, len(movie))
        picks = self.picks
        if not picks:
            yield Progress(0, len(movie), "Looking for particles")
            picks = self._suggested(movie, mask)
        work = self.follow(movie, picks)
        due = time.monotonic() + BETWEEN_DRAFTS
        while True:
            try:
                progress = next(work)
            except StopIteration as end:
                tracks: TrackSet = end.value
                break
            draft = None
            if time.monotonic() >= due:
                draft = self._result(self._motion(progress.partial, movie, anchor), progress.partial, picks)
                due = time.monotonic() + BETWEEN_DRAFTS
            yield replace(progress, partial=draft)
        motion = self._motion(tracks, movie, anchor)
        if image is not None:
            motion = self._onto(motion, image, movie, picks, tracks)
            if anchor is not None:
                middle = centre(movie.frame_shape)
                motion = replace(motion, transforms=motion.transforms.rebased(anchor, centre=middle))
        return self._result(motion, tracks, picks)

    def follow(self, stack: ImageStack, picks: tuple[Pick, ...]) -> Work[TrackSet]:
        """Follow particles through all frames; partial results hold the frames so far."""
        # here and not above: a recipe is read and a form drawn without compiled code
        from stackalign.core.spots.track import track_spots_work

        return track_spots_work(stack, picks, self)

    def _motion(self, tracks: TrackSet, movie: ImageStack, anchor: int | Literal["mean"] | None) -> TrackMotion:
        from stackalign.core.spots.motion import motion_from_tracks

        included = [int(k) for k in tracks.ids if int(k) not in self.exclude]
        return motion_from_tracks(tracks, self.model, shape=movie.frame_shape, anchor=anchor, include=included)

    def _result(self, motion: TrackMotion, tracks: TrackSet, picks: tuple[Pick, ...]) -> Registration:
        return Registration(
            transforms=motion.transforms,
            quality=_quality(motion, tracks),
            details={"tracks": tracks, "motion": motion, "picks": tuple(picks)},
        )

    def _suggested(self, movie: ImageStack, mask: NDArray[np.bool_] | None) -> tuple[Pick, ...]:
        from stackalign.core.spots.detect import suggest_picks

        count = SUGGESTED if self.auto is None else self.auto
        for t in range(len(movie)):
            if not read_frame(movie, t)[1]:
                picks = suggest_picks(movie, count, frame=t, mask=mask, polarity=self.polarity)
                if picks:
                    return picks
                raise ValueError(
                    f"no particle stands out in frame {t}: pick some by hand, or choose a method that aligns images"
                )
        raise ValueError("no frame of the stack can be read: there is nothing to follow")

    def _onto(
        self, motion: TrackMotion, image: NDArray[Any], movie: ImageStack, picks: tuple[Pick, ...], tracks: TrackSet
    ) -> TrackMotion:
        """Return the motion onto an image of its own: the particles are followed from one frame into it."""
        from stackalign.core.spots.motion import motion_from_tracks
        from stackalign.core.spots.track import track_spots_work

        seen = np.where(motion.transforms.valid, tracks.found.sum(0), 0)
        best = int(seen.argmax())
        here = tracks.found[:, best]
        frame = movie[best]
        pair = ImageStack(np.stack([image.astype(np.float64), frame.astype(np.float64)]))
        moved = []
        for k in np.flatnonzero(here):
            half = tracks.box_shape[k] // 2
            start = np.clip(np.round(tracks.position[k, best]).astype(int) - half, 0, None)
            stop = np.minimum(start + tracks.box_shape[k], movie.frame_shape)
            bounds = tuple(int(b) for ends in zip(start, stop, strict=True) for b in ends)
            moved.append(Pick(id=int(tracks.ids[k]), frame=1, bounds=bounds))
        found: TrackSet | None = None
        if moved:
            work = track_spots_work(pair, moved, self)
            try:
                while True:
                    next(work)
            except StopIteration as stop_:
                found = stop_.value
        if found is None or not found.found[:, 0].any():
            raise ValueError("the particles are not found in the reference image: is it of the same scene?")
        # onto the particles' places in the scene, which all frames know together, rather than in that one frame
        rows = [k for k, name in enumerate(motion.ids) if int(name) in found.ids]
        known = found.selected(motion.ids[rows])
        known.position[:, 1] = np.where(known.found[:, 1, None], motion.scene[rows], np.nan)
        known.position_error[:, 1] = 0.0
        step = motion_from_tracks(known, self.model, shape=movie.frame_shape, anchor=0)
        if not step.transforms.valid.all():
            raise ValueError("the particles are not found in the reference image: is it of the same scene?")
        matrices = step.transforms.matrices[1] @ motion.transforms.matrices
        return replace(motion, transforms=replace(motion.transforms, matrices=matrices))


def _checked(anchor: int | str | None, length: int) -> int | Literal["mean"] | None:
    if anchor is None or anchor == "mean":
        return None if anchor is None else "mean"
    if isinstance(anchor, str):
        raise ValueError(f"anchor must be a frame number or 'mean', not {anchor!r}")
    if not -length <= anchor < length:
        raise ValueError(f"there is no frame {anchor} to anchor: the stack has frames 0 to {length - 1}")
    return int(anchor) % length


def _anchor(reference: str | int | ArrayLike, length: int) -> int | None:
    policy = Reference.of(reference, length, ())
    return policy.frame if policy.kind == "frame" else None


def _quality(motion: TrackMotion, tracks: TrackSet) -> FrameQuality:
    length = len(motion.transforms)
    known = motion.particles["suggestion"].to_numpy() == ""
    count = max(int(known.sum()), 1)
    with np.errstate(invalid="ignore"):
        share = np.nansum(np.where(known[:, None], motion.weight, 0.0), axis=0) / count
        sure = 1.0 / (1.0 + np.nan_to_num(motion.corner_error.max(1), nan=1.0) ** 2)
    quality = FrameQuality.empty(length, tracks.ndim)
    pending = (tracks.status == FitStatus.PENDING).all(0)
    reasons = tuple(
        FitStatus.PENDING.sentence if later else tracks.missing.get(t, reason)
        for t, (reason, later) in enumerate(zip(motion.reasons, pending.tolist(), strict=True))
    )
    return replace(
        quality,
        confidence=np.where(motion.used > 0, np.clip(share, 0, 1) * sure, 0.0),
        error=motion.centre_error,
        reasons=reasons,
    )
