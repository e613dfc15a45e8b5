"""Which of the followed particles make the motion: their residuals, suggestions, a draft at once. No Qt, no napari."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import PrivateAttr

from stackalign.core.spots.motion import motion_from_tracks
from stackalign.core.spots.registrar import ParticleTracking
from stackalign.core.spots.reselect import Reselection
from stackalign.runs import Motion, run_work

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from stackalign.core.spots.motion import TrackMotion
    from stackalign.core.spots.picks import Pick
    from stackalign.core.spots.tracks import TrackSet
    from stackalign.core.stack import ImageStack
    from stackalign.core.work import Work
    from stackalign.runs import Choices, RunOutput

    Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Particle:
    """One line of the table.

    Attributes
    ----------
    number : int
        Of the particle.
    found : int
        Frames in which it was found.
    r_squared : float
        Mean share of its boxes that the fits explain.
    residual : float
        Root mean square per axis of what it moves beside the common motion, pixels.
    p_value : float
        Of the hypothesis that it follows the common motion.
    width_drift : float
        Change of its width, pixels over the whole movie.
    suggestion : str
        Why it should be left out, in words; empty: keep it.
    """

    number: int
    found: int
    r_squared: float
    residual: float
    p_value: float
    width_drift: float
    suggestion: str


@dataclass(frozen=True, slots=True, eq=False)
class Trajectories:
    """Tracks with the motion that all of them together suggest.

    Attributes
    ----------
    tracks : TrackSet
        What was followed.
    model : str
        Of the motion.
    shape : tuple of int
        Of the frames.
    drift : ndarray (P, T, d)
        How far each particle is from its place in the reference, pixels.
    residual : ndarray (P, T, d)
        What of it the common motion does not explain, pixels.
    particles : tuple of Particle
        The table.
    """

    tracks: TrackSet
    model: str
    shape: tuple[int, ...]
    drift: Array
    residual: Array
    particles: tuple[Particle, ...]
    _reselection: Reselection

    @classmethod
    def of(cls, tracks: TrackSet, model: str, shape: tuple[int, ...]) -> Trajectories:
        """Return the trajectories of tracks on frames of ``shape``."""
        motion = motion_from_tracks(tracks, model, shape=shape)
        summary = tracks.summary()
        table = motion.particles
        rows = tuple(
            Particle(
                number=int(table["particle"][k]),
                found=int(table["frames_found"][k]),
                r_squared=float(summary["r_squared_mean"][k]),
                residual=float(table["residual_rms_px"][k]),
                p_value=float(table["own_motion_p"][k]),
                width_drift=float(summary["sigma_drift_px_per_frame"][k]) * max(tracks.length - 1, 0),
                suggestion=str(table["suggestion"][k]),
            )
            for k in range(len(tracks))
        )
        drift = tracks.position - motion.scene[:, None]
        return cls(tracks, model, shape, drift, motion.residual, rows, Reselection(tracks, motion, model, shape))

    @property
    def numbers(self) -> tuple[int, ...]:
        """Of the particles, in the order of the tracks."""
        return tuple(int(k) for k in self.tracks.ids)

    @property
    def suggested(self) -> dict[int, str]:
        """Particles that should be left out, with the reason."""
        return {particle.number: particle.suggestion for particle in self.particles if particle.suggestion}

    def included(self, exclude: Iterable[int]) -> tuple[int, ...]:
        """Return the particles that make the motion."""
        out = set(exclude)
        return tuple(k for k in self.numbers if k not in out)

    def draft(self, exclude: Iterable[int]) -> Motion:
        """Return the motion without some particles, in a few milliseconds: places and weights are those of all."""
        drift, angle, error = self._reselection.motion(self.included(exclude))
        return Motion(drift, angle, error, ("",) * self.tracks.length, "zyx"[-self.tracks.ndim :])

    def exact(self, exclude: Iterable[int]) -> Motion:
        """Return the motion as an alignment with these particles estimates it."""
        motion = self.motion(exclude)
        drift, angle = self._reselection.seen(motion.transforms.matrices)
        valid = motion.transforms.valid
        return Motion(
            np.where(valid[:, None], drift, np.nan),
            np.where(valid, angle, np.nan),
            motion.centre_error,
            motion.reasons,
            "zyx"[-self.tracks.ndim :],
        )

    def motion(self, exclude: Iterable[int]) -> TrackMotion:
        """Return the motion with everything that is known about it.

        Raises
        ------
        ValueError
            If no particle is left.
        """
        include = self.included(exclude)
        if not include:
            raise ValueError("all particles are excluded: include one at least")
        return motion_from_tracks(self.tracks, self.model, shape=self.shape, include=include)

    def average(self, exclude: Iterable[int]) -> pd.DataFrame:
        """Return the mean drift of the included particles and its spread over them, one row a frame."""
        import pandas as pd

        include = set(self.included(exclude))
        rows = [k for k, number in enumerate(self.numbers) if number in include]
        drift = self.drift[rows]
        count = np.isfinite(drift).all(2).sum(0)
        some = np.maximum(count, 1)
        mean = np.where(count[:, None] > 0, np.nan_to_num(drift).sum(0) / some[:, None], np.nan)
        square = np.nan_to_num(np.where(np.isfinite(drift), drift - mean, 0.0) ** 2).sum(0)
        spread = np.where(count[:, None] > 1, np.sqrt(square / np.maximum(some - 1, 1)[:, None]), np.nan)
        columns: dict[str, Any] = {"frame": np.arange(self.tracks.length)}
        for i, axis in enumerate("zyx"[-self.tracks.ndim :]):
            columns[f"drift_{axis}_px"] = mean[:, i]
            columns[f"drift_{axis}_std_px"] = spread[:, i]
        columns["particles"] = count
        return pd.DataFrame(columns)

    def table(self, exclude: Iterable[int]) -> pd.DataFrame:
        """Return what is known about each particle, one row a particle."""
        import pandas as pd

        out = set(exclude)
        return pd.DataFrame(
            {
                "particle": [p.number for p in self.particles],
                "included": [p.number not in out for p in self.particles],
                "frames_found": [p.found for p in self.particles],
                "r_squared_mean": [p.r_squared for p in self.particles],
                "residual_rms_px": [p.residual for p in self.particles],
                "own_motion_p": [p.p_value for p in self.particles],
                "sigma_drift_px": [p.width_drift for p in self.particles],
                "suggestion": [p.suggestion for p in self.particles],
            }
        )

    def save_tables(self, path: str | PathLike[str], exclude: Iterable[int]) -> tuple[Path, ...]:
        """Write three tables beside each other: NAME_tracks.csv, NAME_average.csv and NAME_particles.csv."""
        from pathlib import Path

        from stackalign.io.tables import write_table

        base, out = Path(path), tuple(exclude)
        stem = base.with_suffix("") if base.suffix.lower() == ".csv" else base
        written = []
        for name, table in (
            ("tracks", self.tracks.to_frame(lost=True)),
            ("average", self.average(out)),
            ("particles", self.table(out)),
        ):
            target = stem.with_name(f"{stem.name}_{name}.csv")
            write_table(target, table)
            written.append(target)
        return tuple(written)


class _Followed(ParticleTracking):
    """The method with particles that were followed already."""

    _tracks: Any = PrivateAttr(None)

    def follow(self, stack: ImageStack, picks: tuple[Pick, ...]) -> Work[TrackSet]:
        """Return the tracks that are there."""
        yield from ()
        tracks: TrackSet = self._tracks
        return tracks

    def _suggested(self, movie: ImageStack, mask: NDArray[np.bool_] | None) -> tuple[Pick, ...]:
        return ()  # tracks made elsewhere were picked elsewhere


def align_tracks_work(
    stack: ImageStack, choices: Choices, tracks: TrackSet, picks: tuple[Pick, ...]
) -> Work[RunOutput]:
    """Align by tracks that are there; the same result as if the particles were followed again.

    Parameters
    ----------
    stack : ImageStack
        The frames within the time range.
    choices : Choices
        Of the method "particles": its exclusions and model count.
    tracks : TrackSet
        Of these frames.
    picks : tuple of Pick
        What was followed.

    Raises
    ------
    ValueError
        If the tracks do not cover the frames.
    """
    if tracks.length != len(stack):
        raise ValueError(f"the tracks cover {tracks.length} frames, the time range has {len(stack)}: follow them again")
    values = {name: getattr(choices.registrar, name) for name in ParticleTracking.model_fields}
    followed = _Followed.model_construct(**(values | {"picks": picks}))
    followed._tracks = tracks
    return run_work(stack, replace(choices, registrar=followed))
