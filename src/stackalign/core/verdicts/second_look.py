"""A second look for frames that were not found, once what walks through the scene is known, and the reference clear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.references.reference import Lenient
from stackalign.core.run_state import safely, spread
from stackalign.core.verdicts.cell_evidence import laid, reduced_frame
from stackalign.core.verdicts.cells import hiding, without_cells
from stackalign.core.verdicts.consensus import Blocks, apart
from stackalign.core.verdicts.median_scene import JUDGES, median_scene, strange

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stackalign.core.references.reference import PairResult
    from stackalign.core.run_state import RunState
    from stackalign.core.verdicts.median_scene import MedianScene
    from stackalign.core.work import Work

    Array = NDArray[np.float64]

NEAR = 0.05  # of the field: a frame that was pulled farther lies elsewhere
_LEAST_FRAMES = 5  # that were found
_BLOCKS = 2  # of the reference that must agree: of little that is in view, a search alone finds something anywhere


def look_again(run: RunState, strangers: Mapping[int, Array], cells: Mapping[int, NDArray[np.bool_]]) -> Work[None]:
    """Look on the reference for frames that were not found, with what walks through hidden of them.

    A frame of which the reference shows a part may show more of what walks through than of the scene: if the frame as
    it is leads nowhere, that is looked for first.

    Parameters
    ----------
    run : RunState
        Aligned to a reference without what walks through; results of lost frames, and what it hides of them, are
        replaced.
    strangers : mapping of int to ndarray (3, 3)
        Where frames lie (frame -> scene) that show what walks through,
    cells : mapping of int to ndarray of bool (cells, cells)
        and in which cells of the scene.
    """
    good = np.flatnonzero(run.good()).tolist()
    lost = [t for t in run.usable() if (r := run.results[t]) is not None and r.reason]
    if not lost or len(good) < _LEAST_FRAMES:
        return
    scene = yield from median_scene(run, spread(good, JUDGES))
    image = np.asarray(run.details["reference"], np.float32)
    template = run.aligner.prepare(image, None, noise=run.details.get("noise"), frames=float(len(good)))
    blocks = Blocks.of(image)
    like, thing = _thing(run, strangers, cells)
    before, hidden = run.hidden, {}
    for k, t in enumerate(lost):
        found = _found(run, t, template, blocks, scene)
        if found is None and thing is not None:
            run.hidden = before
            at = run.align(t, thing, None)
            if not at.reason:
                place = strangers[like] @ at.matrix
                run.hidden = hiding({t: place}, {t: cells[like]}, run.stack.frame_shape, before)
                found = _found(run, t, template, blocks, scene)
        if found is not None and run.hidden is not None:
            run.results[t], hidden[t] = found, run.hidden
        run.hidden = before
        yield run.progress(k + 1, len(lost), "Looking again for frames that were not found")

    def hide(t: int, frame: NDArray[Any]) -> NDArray[Any]:
        own = hidden.get(t, before)
        return frame if own is None else own(t, frame)

    run.hidden = hide


def _found(run: RunState, t: int, template: Any, blocks: Blocks, scene: MedianScene) -> PairResult | None:
    """Return where a frame is found, as it is and without what differs from the scene there, which is hidden then."""
    shape = run.stack.frame_shape
    # of what is hidden, little is in view: blocks decide
    aligner = run.aligner.lenient() if isinstance(run.aligner, Lenient) else run.aligner
    result = safely(aligner, run.load(t), template, None)
    if result.reason:
        return None
    small, noise = reduced_frame(run.load(t), result, scene.factors)
    other = strange(laid(small, result, scene.factors), noise, scene)
    if other is None:
        return None
    run.hidden = hiding({t: result.matrix}, {t: other}, shape, run.hidden)
    again = safely(aligner, run.load(t), template, result.matrix)
    if again.reason or apart(again.matrix, result.matrix, shape) > NEAR * max(shape):
        return None
    return again if blocks.consensus(run.load(t), again.matrix, again.gain, again.offset).count >= _BLOCKS else None


def _thing(run: RunState, strangers: Mapping[int, Array], cells: Mapping[int, NDArray[np.bool_]]) -> tuple[int, Any]:
    """Return a frame that shows what walks through the scene, and this as a template; None if nothing is told of it."""
    sizes = {t: int(cells[t].sum()) for t in strangers}
    if not sizes:
        return 0, None
    like = sorted(sizes, key=lambda t: sizes[t])[len(sizes) // 2]  # others are cut, or show more that is strange
    frame = np.asarray(run.stack[like], np.float32)
    rest = without_cells(frame, strangers[like], cells[like], run.stack.frame_shape)
    try:
        return like, run.aligner.prepare(np.where(np.isfinite(rest), np.float32(np.nan), frame), None)
    except ValueError:  # it is too small
        return like, None
