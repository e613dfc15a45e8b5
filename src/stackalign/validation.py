"""Proof of an alignment: particles that took no part, spots fitted again in the aligned images, image quality.

The do-nothing column is the movie as it is, on the same pixels and the same particles. No Qt, no napari.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.frame_check import read_frame
from stackalign.core.quality import measure_work
from stackalign.core.spots.detect import suggest_picks
from stackalign.core.spots.held_out import HeldOut, hold_out
from stackalign.core.spots.in_place import fit_in_place_work
from stackalign.core.spots.motion import motion_from_tracks
from stackalign.core.spots.registrar import ParticleTracking
from stackalign.core.spots.track import track_spots_work
from stackalign.core.work import Progress
from stackalign.export import aligned, origin_of
from stackalign.picking import BOX, box_around, particles_text

if TYPE_CHECKING:
    from os import PathLike
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from stackalign.core.quality import Quality
    from stackalign.core.spots.tracks import TrackSet
    from stackalign.core.stack import ImageStack
    from stackalign.core.work import Work
    from stackalign.runs import Run

    Array = NDArray[np.float64]

SUGGESTED = 12  # particles to look for, where none were followed
MOST_ALONE = 16  # particles up to which each one is left out by itself; beyond, they are left out in parts
PARTS = 8
WORST = 6  # frames that are shown
THUMBNAIL = 96  # pixels
CLEAR = 0.9  # share of the drift before, below which what is left counts as less, above whose inverse as more
SAME = 0.0005  # a correlation that changes by less is the same in the digits that are shown
AT_FLOOR = 1.5  # times the fit errors: particles that move no more than that stand still


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what, its unit, without and with the alignment, and whether less is better."""

    name: str
    unit: str
    before: float
    after: float
    less_is_better: bool

    @property
    def better(self) -> bool | None:
        """Whether the alignment made it better; None where that cannot be told."""
        if not np.isfinite([self.before, self.after]).all() or self.before == self.after:
            return None
        return (self.after < self.before) == self.less_is_better


@dataclass(frozen=True, slots=True)
class Worst:
    """A frame that fits the others least after the alignment.

    Attributes
    ----------
    frame : int
        Of the movie.
    correlation : float
        With the mean of the aligned frames.
    image : ndarray (h, w)
        Small, aligned.
    """

    frame: int
    correlation: float
    image: NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """What was found out about one run.

    Attributes
    ----------
    number : int
        Of the run.
    quality : Quality
        Of the images.
    held_out : HeldOut or None
        Particles before and after; None where there are not enough.
    how : str
        Which particles these are, in words; or why there are none.
    refitted : ndarray (P, T, d) or None
        Where the same spots lie off their mean place when they are fitted in the aligned images, pixels.
    worst : tuple of Worst
        The worst one first.
    first : int
        Frame of the movie that the first row belongs to.
    flagged : int
        Frames that the run itself flags.
    """

    number: int
    quality: Quality
    held_out: HeldOut | None
    how: str
    refitted: Array | None
    worst: tuple[Worst, ...]
    first: int
    flagged: int

    @property
    def rows(self) -> tuple[Row, ...]:
        """The table."""
        rows = []
        if self.held_out is not None:
            before, after = self.held_out.before, self.held_out.after
            rows.append(Row("particles, rms", "px", _rms(before), _rms(after), True))
            rows.append(Row("particles, most", "px", _greatest(before), _greatest(after), True))
            if self.refitted is not None:
                rows.append(Row("fitted again", "px", _rms(before), _rms(self.refitted), True))
        q = self.quality
        rows.append(Row("correlation", "", q.correlation_before, q.correlation_after, False))
        rows.append(Row("crispness", "", q.crispness_before, q.crispness_after, False))
        rows.append(Row("residual", "", q.residual_before, q.residual_after, True))
        return tuple(rows)

    @property
    def passed(self) -> bool | None:
        """True: better than doing nothing; False: worse; None: neither."""
        q = self.quality
        gain = q.correlation_after - q.correlation_before
        if self.held_out is None:
            return True if gain > SAME else False if gain < -SAME else None
        before, after = self.held_out.before_rms, self.held_out.after_rms
        if after <= CLEAR * before and gain > -SAME:
            return True
        if after * CLEAR >= before or (gain < -SAME and after > CLEAR * before):
            return False
        return None

    @property
    def verdict(self) -> str:
        """One sentence and one number."""
        held, q = self.held_out, self.quality
        if held is None:
            words = {True: "Better than doing nothing", False: "Worse than doing nothing", None: "No better, no worse"}
            return (
                f"{words[self.passed]}: correlation with the mean {q.correlation_before:.3f} → "
                f"{q.correlation_after:.3f}. Images alone say so: {self.how}."
            )
        numbers = f"held-out particles move {held.after_rms:.2g} px instead of {held.before_rms:.2g} px"
        if self.passed:
            floor = ", as little as their fit errors allow" if held.after_rms <= AT_FLOOR * held.floor else ""
            return f"It holds: {held.reduction_percent:.0f} % of the motion is gone; {numbers}{floor}."
        if held.before_rms <= AT_FLOOR * held.floor:
            return f"There was no motion to correct: particles move {held.before_rms:.2g} px, as their fit errors do."
        if self.passed is False:
            return f"Worse than doing nothing: {numbers}. Try another reference, region or method."
        if held.after_rms <= CLEAR * held.before_rms:
            return (
                f"Particles and images disagree: {numbers}, but the correlation with the mean fell from "
                f"{q.correlation_before:.3f} to {q.correlation_after:.3f}. Look at the worst frames."
            )
        return f"No better than doing nothing: {numbers}."

    def summary(self) -> pd.DataFrame:
        """Return the table."""
        import pandas as pd

        return pd.DataFrame(
            {
                "measure": [row.name for row in self.rows],
                "unit": [row.unit for row in self.rows],
                "do_nothing": [row.before for row in self.rows],
                "aligned": [row.after for row in self.rows],
            }
        )

    def particles(self) -> pd.DataFrame:
        """Return one row a held-out particle: rms and greatest distance from its mean place, before and after."""
        import pandas as pd

        held = self.held_out
        if held is None:
            return pd.DataFrame(columns=["particle", "before_rms_px", "after_rms_px", "before_max_px", "after_max_px"])
        columns: dict[str, Any] = {"particle": held.ids}
        for name, measure in (("rms", _rms), ("max", _greatest)):
            columns[f"before_{name}_px"] = [measure(part) for part in held.before]
            columns[f"after_{name}_px"] = [measure(part) for part in held.after]
        return pd.DataFrame(columns)

    def save_tables(self, path: str | PathLike[str]) -> tuple[Path, ...]:
        """Write NAME_summary.csv, NAME_particles.csv and NAME_frames.csv."""
        from pathlib import Path

        from stackalign.io.tables import write_table

        base = Path(path)
        stem = base.with_suffix("") if base.suffix.lower() == ".csv" else base
        tables = {"summary": self.summary(), "particles": self.particles(), "frames": self.quality.to_frame()}
        written = []
        for name, table in tables.items():
            target = stem.with_name(f"{stem.name}_{name}.csv")
            write_table(target, table)
            written.append(target)
        return tuple(written)


def validate_work(run: Run, tracks: TrackSet | None = None) -> Work[Validation]:
    """Find out whether a run is better than doing nothing.

    Parameters
    ----------
    run : Run
        What is put to the proof.
    tracks : TrackSet, optional
        Particles of the same frames; where there are none and the run followed none, some are suggested and followed.

    Returns
    -------
    Validation
    """
    stack = run.stack
    quality = run.quality
    if quality is None:
        quality = yield from measure_work(stack, run.registration.transforms)
    own = run.registration.details.get("tracks")
    known = own if own is not None else tracks
    if known is not None and known.length != len(stack):
        known = None
    if known is None:
        known = yield from _follow_some(stack)
    held, how = None, "no particle stands out that could be followed"
    if known is not None:
        yield Progress(0, 1, "Holding particles out")
        held, how = _held_out(run, known, own is not None)
    refitted = None
    if held is not None and known is not None:
        refitted = yield from _refit(run, known.selected(held.ids))
    yield Progress(0, 1, "Looking for the worst frames")
    return Validation(
        run.number, quality, held, how, refitted, _worst_frames(run, quality), run.first, len(run.flagged)
    )


def _follow_some(stack: ImageStack) -> Work[TrackSet | None]:
    """Suggest and follow particles; None if none stands out."""
    yield Progress(0, len(stack), "Looking for particles")
    for t in range(len(stack)):
        if not read_frame(stack, t)[1]:
            picks = suggest_picks(stack, SUGGESTED, frame=t)
            if not picks:
                return None
            tracks: TrackSet = yield from _quiet(track_spots_work(stack, picks, ParticleTracking(picks=picks)))
            return tracks
    return None


def _quiet(work: Work[Any]) -> Work[Any]:
    """Pass progress on without partial results: they are not what this work returns."""
    from dataclasses import replace

    try:
        while True:
            yield replace(next(work), partial=None)
    except StopIteration as end:
        return end.value
    finally:
        work.close()


def _held_out(run: Run, tracks: TrackSet, own: bool) -> tuple[HeldOut | None, str]:
    shape = run.movie.stack.frame_shape
    found = tracks.selected(tracks.ids[tracks.found.any(1)])
    strays = motion_from_tracks(found, "euclidean", shape=shape).outliers if len(found) else {}
    if own:
        registrar = run.choices.registrar
        left = [int(k) for k in found.ids if int(k) not in strays and int(k) not in registrar.exclude]
        if len(left) < 2:
            return None, "holding particles out needs at least two that follow the motion"
        folds = None if len(left) <= MOST_ALONE else PARTS
        held = hold_out(found, registrar.model, folds=folds, shape=shape, include=left)
        parts = "one at a time" if folds is None else f"in {folds} parts"
        return held, f"{particles_text(len(left))}, left out {parts}: the motion of the others is put to the proof"
    left = [int(k) for k in found.ids if int(k) not in strays]
    if not left:
        return None, "no particle could be followed that moves with the scene"
    used = found.selected(left)
    matrices = run.registration.transforms.matrices
    mapped = np.einsum("tij,ptj->pti", matrices[:, :-1, :-1], used.position) + matrices[:, :-1, -1]
    mapped[:, ~run.registration.transforms.valid] = np.nan
    error = used.position_error[np.isfinite(used.position_error)]
    floor = float(np.sqrt(np.mean(error**2))) if len(error) else np.nan
    return (
        HeldOut(used.ids, _centred(used.position), _centred(mapped), floor),
        f"{particles_text(len(left))} that took no part in the alignment",
    )


def _refit(run: Run, tracks: TrackSet) -> Work[Array]:
    """Fit the spots in the aligned images, around their mean places there; NaN where that fails."""
    images = aligned(run)
    series = run.registration.transforms
    mapped = np.einsum("tij,ptj->pti", series.matrices[:, :-1, :-1], tracks.position) + series.matrices[:, :-1, -1]
    known = np.isfinite(mapped).all(2)
    middle = np.nansum(mapped, axis=1) / np.maximum(known.sum(1), 1)[:, None] - np.asarray(origin_of(run), float)
    size = np.where(tracks.box_shape > 0, tracks.box_shape, BOX)
    boxes = [box_around(place, extent, images.frame_shape) for place, extent in zip(middle, size, strict=True)]
    again = yield from fit_in_place_work(
        images, boxes, tracks.ids, only=known & series.valid, model="elliptic", estimator="lsq"
    )
    return _centred(again.position)


def _worst_frames(run: Run, quality: Quality) -> tuple[Worst, ...]:
    values = quality.frame_correlation_after
    order = np.argsort(np.where(np.isfinite(values), values, np.inf))[:WORST]
    images = aligned(run)
    out = []
    for t in order:
        if not np.isfinite(values[t]):
            continue
        image = np.asarray(images[int(t)])
        if image.ndim == 3:
            image = image.max(0)
        step = max(-(-max(image.shape) // THUMBNAIL), 1)
        out.append(Worst(int(t) + run.first, float(values[t]), image[::step, ::step].astype(np.float32)))
    return tuple(out)


def _centred(position: Array) -> Array:
    known = np.isfinite(position)
    count = known.all(2).sum(1)[:, None, None]
    mean = np.where(known, position, 0.0).sum(1, keepdims=True) / np.maximum(count, 1)
    return np.asarray(position - mean)


def _rms(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(known**2))) if len(known) else np.nan


def _greatest(values: Array) -> float:
    away = np.sqrt((values**2).sum(-1))
    known = away[np.isfinite(away)]
    return float(known.max()) if len(known) else np.nan
