"""Corrections of a result by hand: reject, accept, interpolate, smooth, nudge, align some frames again. No Qt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.geometry import centre
from stackalign.core.quality import measure_work
from stackalign.core.transform import TransformModel
from stackalign.core.translation.registrar import CrossCorrelation
from stackalign.core.warping.warp import warp_frame
from stackalign.core.work import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from stackalign.core.registration import Registration
    from stackalign.core.transform_series import TransformSeries
    from stackalign.core.work import Work
    from stackalign.runs import Run

REJECTED = "rejected by hand"
MOST_IN_MEAN = 64  # frames that make the image which others are aligned to again


def rejected(run: Run, frames: Iterable[int]) -> Run:
    """Return the run without the motion that was measured in some frames: theirs follows from their neighbours.

    Parameters
    ----------
    run : Run
        The result.
    frames : iterable of int
        Counted from the run's first frame.

    Raises
    ------
    ValueError
        If no frame would be left.
    """
    chosen = _chosen(run, frames)
    series = run.registration.transforms
    valid = series.valid.copy()
    valid[chosen] = False
    if not valid.any():
        raise ValueError("all frames would be rejected: leave one at least, or align again")
    filled = series.with_valid(valid).interpolated(centre=_middle(run))
    reasons = {t: REJECTED for t in chosen.tolist() if REJECTED not in run.registration.quality.reasons[t]}
    quality = run.registration.quality.with_reasons(reasons)
    return _with(run, f"reject {_frames(run, chosen)}", filled, replace(run.registration, quality=quality))


def accepted(run: Run, frames: Iterable[int]) -> Run:
    """Return the run with the flags of some frames taken off; their motion stays as it is."""
    chosen = _chosen(run, frames)
    valid = run.registration.transforms.valid.copy()
    valid[chosen] = True
    reasons = list(run.registration.quality.reasons)
    for t in chosen.tolist():
        reasons[t] = ""
    quality = replace(run.registration.quality, reasons=tuple(reasons))
    series = run.registration.transforms.with_valid(valid)
    return _with(run, f"accept {_frames(run, chosen)}", series, replace(run.registration, quality=quality))


def interpolated(run: Run, frames: Iterable[int]) -> Run:
    """Return the run with the motion of some frames replaced by that between their neighbours; they stay valid."""
    chosen = _chosen(run, frames)
    series = run.registration.transforms
    without = series.valid.copy()
    without[chosen] = False
    if not without.any():
        raise ValueError("there is no frame left to interpolate from")
    filled = series.with_valid(without).interpolated(centre=_middle(run)).with_valid(series.valid)
    return _with(run, f"interpolate {_frames(run, chosen)}", filled)


def smoothed(run: Run, frames: Iterable[int], sigma: float) -> Run:
    """Return the run with the motion of some frames smoothed in time by a Gaussian of ``sigma`` frames."""
    chosen = _chosen(run, frames)
    series = run.registration.transforms
    matrices = series.matrices.copy()
    matrices[chosen] = series.smoothed(sigma, centre=_middle(run)).matrices[chosen]
    return _with(run, f"smooth {_frames(run, chosen)}", replace(series, matrices=matrices))


def nudged(run: Run, frames: Iterable[int], shift: Sequence[float], degrees: float = 0.0) -> Run:
    """Return the run with some frames moved further in the reference.

    Parameters
    ----------
    run : Run
        The result.
    frames : iterable of int
        Counted from the run's first frame.
    shift : sequence of float
        (y, x), or (z, y, x) pixels that the aligned frames move by.
    degrees : float
        Turn about the middle of the frame, from y towards x; in 3-D in the plane.
    """
    chosen = _chosen(run, frames)
    series = run.registration.transforms
    ndim = series.ndim
    step = np.eye(ndim + 1)
    full = np.zeros(ndim)
    full[-len(tuple(shift)) :] = shift
    if degrees:
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        step[ndim - 2 : ndim, ndim - 2 : ndim] = [[c, -s], [s, c]]
    middle = _middle(run)
    step[:-1, -1] = middle - step[:-1, :-1] @ middle + full
    model = series.model | TransformModel.EUCLIDEAN if degrees else series.model
    matrices = series.matrices.copy()
    matrices[chosen] = step @ matrices[chosen]
    return _with(run, f"nudge {_frames(run, chosen)}", replace(series, matrices=matrices, model=model))


def align_again_work(run: Run, frames: Iterable[int]) -> Work[Run]:
    """Align some frames once more, onto the mean of the others as they are aligned now.

    Parameters
    ----------
    run : Run
        The result. A method that follows particles is replaced by cross-correlation here: the particles were lost.
    frames : iterable of int
        Counted from the run's first frame.

    Returns
    -------
    Run
        With the new motion of these frames.

    Raises
    ------
    ValueError
        If no other frame is valid.
    """
    chosen = _chosen(run, frames)
    stack, series = run.stack, run.registration.transforms
    others = np.setdiff1d(np.flatnonzero(series.valid), chosen)
    if not len(others):
        raise ValueError("there is no other valid frame to align to: select fewer frames")
    some = others[np.unique(np.linspace(0, len(others) - 1, MOST_IN_MEAN).round().astype(int))]
    total = np.zeros(stack.frame_shape)
    steps = len(some) + len(chosen)
    for done, t in enumerate(some, start=1):
        total += warp_frame(stack[int(t)].astype(np.float32), series.matrices[t], fill="edge")
        yield Progress(done, steps, "Mean of the other frames")
    image = (total / len(some)).astype(np.float32)
    registrar = run.choices.registrar if run.choices.registrar.method != "particles" else CrossCorrelation()
    mask = run.choices.preprocess.mask(stack.frame_shape)
    matrices, valid = series.matrices.copy(), series.valid.copy()
    reasons = list(run.registration.quality.reasons)
    model, done = series.model, len(some)
    for first, last in _stretches(chosen):
        part = stack.selected(slice(first, last + 1))
        result = yield from _counted(registrar.fit(part, reference=image, mask=mask), done, steps)
        done += last + 1 - first
        matrices[first : last + 1] = result.transforms.matrices
        valid[first : last + 1] = result.transforms.valid
        reasons[first : last + 1] = result.quality.reasons
        model = model | result.transforms.model
    again = type(series)(matrices, model, valid)
    quality = replace(run.registration.quality, reasons=tuple(reasons))
    return _with(run, f"align {_frames(run, chosen)} again", again, replace(run.registration, quality=quality))


def measure_again_work(run: Run) -> Work[Run]:
    """Measure before and after once more, as the result is now."""
    quality = yield from measure_work(run.stack, run.registration.transforms)
    return replace(run, quality=quality)


def edits_of(run: Run) -> tuple[str, ...]:
    """Return what was done to a result by hand, the first edit first."""
    return tuple(str(name) for name in run.registration.provenance.get("edits", ()))


def _chosen(run: Run, frames: Iterable[int]) -> NDArray[np.int64]:
    chosen = np.unique(np.asarray(list(frames), np.int64))
    count = len(run.registration)
    if not len(chosen):
        raise ValueError("no frame is selected")
    if chosen[0] < 0 or chosen[-1] >= count:
        raise ValueError(f"frames {chosen[0]} to {chosen[-1]} do not lie within the {count} frames of the run")
    return chosen


def _middle(run: Run) -> NDArray[np.float64]:
    return np.asarray(centre(run.movie.stack.frame_shape), float)


def _stretches(chosen: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return the first and the last of each run of neighbouring frames."""
    parts = np.split(chosen, np.flatnonzero(np.diff(chosen) > 1) + 1)
    return [(int(part[0]), int(part[-1])) for part in parts]


def _frames(run: Run, chosen: NDArray[np.int64]) -> str:
    parts = _stretches(chosen + run.first)
    if len(parts) > 2:
        return f"{len(chosen)} frames"
    words = [str(a) if a == b else f"{a} to {b}" for a, b in parts]
    return f"frame{'s' if len(chosen) > 1 else ''} {' and '.join(words)}"


def _with(run: Run, name: str, series: TransformSeries, registration: Registration | None = None) -> Run:
    base = run.registration if registration is None else registration
    edits = edits_of(run)
    if edits[-1:] != (name,):  # many nudges of the same frames are one edit
        edits = (*edits, name)
    provenance = {**base.provenance, "edits": edits}
    return replace(run, registration=replace(base, transforms=series, provenance=provenance), quality=None)


def _counted(work: Work[Registration], before: int, steps: int) -> Work[Registration]:
    """Count the steps of a part within the whole."""
    try:
        while True:
            progress = next(work)
            yield Progress(min(before + progress.done, steps), steps, progress.message)
    except StopIteration as end:
        result: Registration = end.value
        return result
    finally:
        work.close()
