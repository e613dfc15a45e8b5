"""What walks through the scene, as a thing of its own: followed through the frames, and hidden to its outline.

The cells in which frames differ from their median are coarse. Where the thing lies in most frames the median shows it,
not the scene: the few frames that do show the scene there differ then, and the thing counts as the scene in the others.
Once its own motion is known, all frames together tell what it covers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from stackalign.core.references.draft import SAMPLE
from stackalign.core.references.mean_image import mean_in_place
from stackalign.core.references.reference import Lenient
from stackalign.core.run_state import RunState, align_all, spread
from stackalign.core.verdicts.cells import hiding, over_pixels, without_cells
from stackalign.core.verdicts.joining import begin_together
from stackalign.core.verdicts.median_scene import JUDGES, median_scene, strange_cells
from stackalign.core.verdicts.outline import outlined
from stackalign.core.warping.resample import warp_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from stackalign.core.work import Work

    Array = NDArray[np.float64]
    Cells = NDArray[np.bool_]
    Hidden = Callable[[int, NDArray[Any]], NDArray[Any]]

_FOUND = 0.6  # of the frames that show it, in which it must be found
_LEAST_FRAMES = 5
_KEPT = 0.95  # of the frames that must be found with the outline
_OFTEN = 0.5  # of the frames that show a place of it, in which cells must differ there
_ROUNDS = 2  # of its mean
_OUTLINES = 2  # times that it is outlined: more of the scene is known then
_WIDEST = 0.5  # of the field: no more of it is hidden
_CLEARER = 0.02  # of correlation, by which a place must fit better than the one that was begun from
MESSAGE = "Following what walks through the scene"


def without_walker(
    run: RunState,
    again: Callable[[RunState], Work[None]],
    places: Mapping[int, Array],
    cells: Mapping[int, Cells],
    bare: Hidden | None,
) -> Work[RunState]:
    """Return a run aligned with what walks through the scene hidden to its outline; as it is where that is not told.

    Parameters
    ----------
    run : RunState
        Planes, aligned with what differs from the scene hidden.
    again : callable
        Aligns the frames of a run.
    places : mapping of int to ndarray (3, 3)
        Where frames lie (frame -> scene) that show what walks through,
    cells : mapping of int to ndarray of bool (cells, cells)
        and in which cells of the scene.
    bare : callable, optional
        What is hidden of the frames wherever they lie.
    """
    if run.stack.ndim != 2 or len(places) < _LEAST_FRAMES:
        return run
    thing = yield from _followed(run, places, cells, bare)
    if thing is None:
        return run
    covered = _often(thing, places, cells)
    for _ in range(_OUTLINES):
        if not covered.any():
            break
        outline = yield from outlined(thing, run, covered)
        if outline is None or outline.covered.mean() > _WIDEST:
            break
        twin = yield from _hidden(run, thing, outline.covered, places, cells, bare)
        try:
            yield from begin_together(twin)
            yield from again(twin)
        except ValueError:  # no reference can be made of what is left
            break
        if twin.good().sum() < _KEPT * run.good().sum():
            break
        run, covered = twin, outline.covered
    return run


def _hidden(
    run: RunState,
    thing: RunState,
    covered: Cells,
    places: Mapping[int, Array],
    cells: Mapping[int, Cells],
    bare: Hidden | None,
) -> Work[RunState]:
    """Return the run with what a thing covers hidden, and what else differs from the scene that is told then."""
    found, shape = thing.places(), run.stack.frame_shape
    lost = {t: at for t, at in places.items() if t not in found}
    twin = run.anew()
    twin.results = list(run.results)
    twin.hidden = hiding(found, dict.fromkeys(found, covered), shape, hiding(lost, cells, shape, bare))
    here = {t: r for t, r in enumerate(twin.results) if r is not None and not r.reason}
    scene = yield from median_scene(twin, spread(list(here), JUDGES))
    others = yield from strange_cells(twin, here, scene)
    differ = {t: here[t].matrix for t, other in others.items() if other.any()}
    twin.hidden = hiding(differ, others, shape, twin.hidden)
    return twin


def _followed(
    run: RunState, places: Mapping[int, Array], cells: Mapping[int, Cells], bare: Hidden | None
) -> Work[RunState | None]:
    """Return the run by what walks through alone; None if it is not one thing that moves as the model says."""
    thing = run.anew()
    if isinstance(run.aligner, Lenient):
        thing.aligner = run.aligner.lenient()
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
    seen = {t: np.isfinite(thing.load(t)) for t in usable}
    usual = float(np.median([shown[t] for t in usable]))
    # where it is cut by the border nothing tells how far it goes; others show more that differs, or less
    like = min(usable, key=lambda t: (_cut(seen[t]), abs(shown[t] - usual)))
    middles = {t: np.array(ndimage.center_of_mass(there)) for t, there in seen.items() if there.any()}
    if like not in middles:
        return None
    starts: dict[int, Array] = {}
    for t, middle in middles.items():
        starts[t] = np.eye(3)
        starts[t][:2, 2] = middles[like] - middle
    image = np.asarray(thing.load(like), np.float32)
    try:
        template = thing.aligner.prepare(image, None)
        yield from align_all(thing, usable, template, starts, MESSAGE)
        near = list(thing.results)
        yield from align_all(thing, usable, template, {}, MESSAGE)
        for t, (before, now) in enumerate(zip(near, thing.results, strict=True)):
            if before is None or now is None or before.reason:
                continue
            if now.reason or now.correlation < before.correlation + _CLEARER:
                thing.results[t] = before
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
    return sum(int(edge.sum()) for edge in edges) if there.any() else there.size


def _often(thing: RunState, places: Mapping[int, Array], cells: Mapping[int, Cells]) -> Cells:
    """Return the pixels of the reference of a thing that most frames differ in, (y, x)."""
    shape = thing.stack.frame_shape
    differs, seen = np.zeros(shape), np.zeros(shape)
    for t, at in thing.places().items():
        strange = over_pixels(cells[t], shape).astype(np.uint8)
        differs += warp_frame(strange, at @ np.linalg.inv(places[t]), order=0) > 0
        seen += warp_frame(np.ones(shape, np.uint8), at, order=0) > 0
    often = (seen > 0) & (differs > _OFTEN * seen)
    pieces, count = ndimage.label(often)
    if not count:
        return np.asarray(often, bool)
    largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    return np.asarray(ndimage.binary_fill_holes(pieces == largest), bool)
