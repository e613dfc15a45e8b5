"""What walks through the scene, as a thing of its own: followed through the frames, and hidden to its outline.

The cells in which frames differ from their median are coarse. Where the thing lies in most frames the median shows it,
not the scene: the few frames that do show the scene there differ then, and the thing counts as the scene in the others.
Once its own motion is known, all frames together tell what it covers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from stackalign.core.references.draft import SAMPLE
from stackalign.core.references.mean_image import mean_in_place
from stackalign.core.references.reference import Lenient
from stackalign.core.run_state import RunState, align_all, spread
from stackalign.core.verdicts.cells import hiding, over_pixels, without_cells
from stackalign.core.verdicts.clearing import common_motion
from stackalign.core.verdicts.consensus import apart
from stackalign.core.verdicts.joining import begin_together
from stackalign.core.verdicts.median_scene import JUDGES, median_scene, strange_cells
from stackalign.core.verdicts.outline import outlined
from stackalign.core.verdicts.second_look import NEAR
from stackalign.core.verdicts.two_motions import follow
from stackalign.core.warping.resample import warp_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stackalign.core.verdicts.cells import Strangers
    from stackalign.core.work import Work

    Array = NDArray[np.float64]
    Cells = NDArray[np.bool_]

_FOUND = 0.6  # of the frames that show it, in which it must be found
_LEAST_FRAMES = 5
_KEPT = 0.75  # of the frames that must be found with the outline; the others keep their places
_OFTEN = 0.5  # of the frames that show a place of it, in which cells must differ there
_ROUNDS = 2  # of its mean
_OUTLINES = 2  # times that it is outlined: more of the scene is known then
_WIDEST = 0.5  # of the field: no more of it is hidden
MESSAGE = "Following what walks through the scene"


def outline_walker(run: RunState, again: Callable[[RunState], Work[None]]) -> Work[None]:
    """Hide what walks through the scene to its outline, and align again; nothing is done where that is not told.

    Parameters
    ----------
    run : RunState
        Planes, aligned with what differs from the scene hidden by cells. Results, details and what is hidden are
        replaced; frames that would lie elsewhere then stay.
    again : callable
        Aligns the frames of a run.
    """
    strangers, known = run.strangers, run.places()
    if run.stack.ndim != 2 or strangers is None or len(known) < _LEAST_FRAMES or "reference" not in run.details:
        return
    strangers = replace(strangers, places={t: m for t, m in strangers.places.items() if t in known})
    thing = yield from _followed(run, strangers)
    if thing is None:
        return
    twin, covered = run, _often(thing, strangers)
    for _ in range(_OUTLINES):
        outline = (yield from outlined(thing, twin, covered)) if covered.any() else None
        if outline is None or outline.covered.mean() > _WIDEST:
            break
        other = yield from _hidden(run, twin, thing, outline.covered)
        try:
            yield from begin_together(other)
            yield from again(other)
        except ValueError:  # no reference can be made of what is left
            break
        if other.good().sum() < _KEPT * len(known):
            break
        twin, covered = other, outline.covered
    if twin is not run:
        _take_over(run, twin)


def _take_over(run: RunState, twin: RunState) -> None:
    """Let frames lie where another run has them, if that is near; the others keep their places."""
    shape, common = run.stack.frame_shape, common_motion(run, twin)
    found = {t: r for t, r in enumerate(twin.results) if r is not None and not r.reason}
    near = NEAR * max(shape)
    for t, before in enumerate(run.results):
        if before is None:
            continue
        there = common @ before.matrix
        if not before.reason and t in found and apart(found[t].matrix, there, shape) < near:
            run.results[t] = found[t]
        elif not before.reason or not np.array_equal(before.matrix, np.eye(3)):  # else it was found nowhere
            run.results[t] = replace(before, matrix=there)
    run.hidden, run.details, run.noise = twin.hidden, twin.details, twin.noise


def _hidden(run: RunState, twin: RunState, thing: RunState, covered: Cells) -> Work[RunState]:
    """Return a run with what a thing covers hidden, and what else differs from the scene that is told then.

    ``twin``: where its frames lie; where the thing was not found, of ``run`` is hidden what was.
    """
    found, shape = thing.places(), run.stack.frame_shape
    before = run.hidden  # as it is now: the run takes over what hides more
    to_outline = hiding(found, dict.fromkeys(found, covered), shape, thing.hidden)

    def outlines(t: int, frame: NDArray[Any]) -> NDArray[Any]:
        if t in found:
            return to_outline(t, frame)
        return frame if before is None else before(t, frame)

    other = run.anew()
    other.results, other.hidden = list(twin.results), outlines
    here = {t: r for t, r in enumerate(other.results) if r is not None and not r.reason}
    scene = yield from median_scene(other, spread(list(here), JUDGES))
    others = yield from strange_cells(other, here, scene)
    differ = {t: here[t].matrix for t, cells in others.items() if cells.any()}
    other.hidden = hiding(differ, others, shape, outlines)
    return other


def _followed(run: RunState, strangers: Strangers) -> Work[RunState | None]:
    """Return the run by what walks through alone; None if it is not one thing that moves as the model says."""
    thing = run.anew()
    if isinstance(run.aligner, Lenient):
        thing.aligner = run.aligner.lenient()
    places, cells, bare = strangers.places, strangers.cells, strangers.bare
    shape = run.stack.frame_shape
    shown = {t: int(cells[t].sum()) for t in places}
    thing.unusable |= {t: "nothing walks through it" for t in range(len(run.stack)) if not shown.get(t)}

    def alone(t: int, frame: NDArray[Any]) -> NDArray[Any]:
        frame = np.asarray(frame if bare is None else bare(t, frame), np.float32)
        rest = without_cells(frame, places[t], cells[t], shape)
        return np.where(np.isfinite(rest), np.float32(np.nan), frame)

    thing.hidden = alone
    usable = thing.usable()
    if len(usable) < _LEAST_FRAMES:
        return None
    usual = float(np.median([shown[t] for t in usable]))
    middles: dict[int, Array] = {}
    whole: dict[int, tuple[int, float]] = {}
    for k, t in enumerate(usable):
        there = np.isfinite(thing.load(t))
        if there.any():
            middles[t], whole[t] = np.array(ndimage.center_of_mass(there)), (_cut(there), abs(shown[t] - usual))
        yield run.progress(k + 1, len(usable), MESSAGE)
    if not whole:
        return None
    # where it is cut by the border nothing tells how far it goes; others show more that differs, or less
    like = min(whole, key=lambda t: whole[t])
    starts: dict[int, Array] = {}
    for t, middle in middles.items():
        starts[t] = np.eye(3)
        starts[t][:2, 2] = middles[like] - middle
    image = np.asarray(thing.load(like), np.float32)
    try:
        template = thing.aligner.prepare(image, None)
        yield from follow(thing, template, starts, MESSAGE)
        for _ in range(_ROUNDS):
            if thing.good().sum() < max(_FOUND * len(usable), _LEAST_FRAMES):
                return None
            sample = spread(list(thing.places()), SAMPLE)
            image = yield from run.counted(mean_in_place(thing, sample), len(sample), MESSAGE)
            template = thing.aligner.prepare(image, None, frames=float(len(sample)))
            yield from align_all(thing, usable, template, thing.places(), MESSAGE)
    except ValueError:  # too little of it for a reference
        return None
    thing.details["reference"], thing.hidden = image, bare
    return thing


def _cut(there: Cells) -> int:
    """Return how many pixels of a thing lie at the border of the frame."""
    edges = there[0], there[-1], there[:, 0], there[:, -1]
    return sum(int(edge.sum()) for edge in edges)


def _often(thing: RunState, strangers: Strangers) -> Cells:
    """Return the pixels of the reference of a thing that most frames differ in, (y, x)."""
    shape = thing.stack.frame_shape
    differs, seen = np.zeros(shape), np.zeros(shape)
    places = thing.places()
    for t in spread(list(places), SAMPLE):
        at = places[t]
        strange = over_pixels(strangers.cells[t], shape).astype(np.uint8)
        differs += warp_frame(strange, at @ np.linalg.inv(strangers.places[t]), order=0) > 0
        seen += warp_frame(np.ones(shape, np.uint8), at, order=0) > 0
    often = (seen > 0) & (differs > _OFTEN * seen)
    pieces, count = ndimage.label(often)
    if not count:
        return np.asarray(often, bool)
    largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    return np.asarray(ndimage.binary_fill_holes(pieces == largest), bool)
