"""A second look for frames that were not found, once what walks through the scene is known, and the reference clear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from stackalign.core.references.chained import shares_in_view
from stackalign.core.references.reference import Lenient, PairResult
from stackalign.core.run_state import safely, spread
from stackalign.core.threads import map_frames
from stackalign.core.verdicts.cell_evidence import laid, reduced_frame
from stackalign.core.verdicts.cells import without_cells
from stackalign.core.verdicts.consensus import Blocks, apart
from stackalign.core.verdicts.median_scene import JUDGES, median_scene, strange

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from stackalign.core.references.reference import PairAligner
    from stackalign.core.run_state import RunState
    from stackalign.core.verdicts.median_scene import MedianScene
    from stackalign.core.work import Work

    Array = NDArray[np.float64]
    Hidden = Callable[[int, NDArray[Any]], NDArray[Any]]

NEAR = 0.05  # of the field: a frame that was pulled farther lies elsewhere
_LEAST_FRAMES = 5  # that were found
_BLOCKS = 2  # of the reference that must agree: of little that is in view, a search alone finds something anywhere;
_MORE = 3  # where less is in view than
_LITTLE = 0.4  # of a frame
UNSURE = "little of it lies on the reference, and too few blocks of that agree"

_Hides: TypeAlias = (
    "list[tuple[Array, NDArray[np.bool_]]]"  # places of a scene (frame -> scene), and its cells to hide there
)


def look_again(
    run: RunState, strangers: Mapping[int, Array], cells: Mapping[int, NDArray[np.bool_]], bare: Hidden | None
) -> Work[None]:
    """Look on the reference for frames that were not found, with what walks through hidden of them.

    A frame of which the reference shows a part may show more of what walks through than of the scene: if the frame as
    it is leads nowhere, that is looked for first. Frames that were found by next to nothing are given up before.

    Parameters
    ----------
    run : RunState
        Aligned to a reference without what walks through; results of lost frames, and what it hides of them, are
        replaced.
    strangers : mapping of int to ndarray (3, 3)
        Where frames lie (frame -> scene) that show what walks through,
    cells : mapping of int to ndarray of bool (cells, cells)
        and in which cells of the scene.
    bare : callable, optional
        What was hidden of the frames wherever they lie.
    """
    image = np.asarray(run.details["reference"], np.float32)
    blocks = Blocks.of(image)
    _doubt_little(run, blocks)
    good = np.flatnonzero(run.good()).tolist()
    lost = [t for t in run.usable() if (r := run.results[t]) is not None and r.reason]
    if not lost or len(good) < _LEAST_FRAMES:
        return
    scene = yield from median_scene(run, spread(good, JUDGES))
    template = run.aligner.prepare(image, None, noise=run.details.get("noise"), frames=float(len(good)))
    like, thing = _thing(run, strangers, cells)
    nowhere = np.eye(run.stack.ndim + 1)

    def look(t: int) -> tuple[PairResult, _Hides] | None:
        frame, before = run.load(t), run.results[t]
        found = _found(run, frame, [], template, blocks, scene)
        if found is None and thing is not None:
            at = safely(run.aligner, frame, thing, None)
            if not at.reason:
                found = _found(run, frame, [(strangers[like] @ at.matrix, cells[like])], template, blocks, scene)
        if found is None and before is not None and not np.array_equal(before.matrix, nowhere):
            found = _confirmed(run, frame, before, [], template, blocks, scene)
        return found

    before, hidden = run.hidden, dict[int, "_Hides"]()
    run.hidden = bare  # what was hidden of lost frames was so where they may not lie
    try:
        for k, (t, found) in enumerate(zip(lost, map_frames(look, lost), strict=True)):
            if found is not None:
                run.results[t], hidden[t] = found
            yield run.progress(k + 1, len(lost), "Looking again for frames that were not found")
    finally:
        run.hidden = before

    def hide(t: int, frame: NDArray[Any]) -> NDArray[Any]:
        if t not in hidden:
            return frame if before is None else before(t, frame)
        frame = frame if bare is None else bare(t, frame)
        return _without(frame, hidden[t], run.stack.frame_shape)

    run.hidden = hide


def _doubt_little(run: RunState, blocks: Blocks) -> None:
    """Give up frames of which little lies on the reference, where too few blocks agree."""
    for t, matrix in run.places().items():
        result = run.results[t]
        assert result is not None
        needed = _needed(run, matrix)
        if needed > _BLOCKS:
            found = blocks.consensus(run.load(t), matrix, result.gain, result.offset)
            if found.count < needed:
                run.results[t] = result.given_up(UNSURE)


def _found(
    run: RunState, frame: NDArray[Any], hides: _Hides, template: Any, blocks: Blocks, scene: MedianScene
) -> tuple[PairResult, _Hides] | None:
    """Return where a frame is found, and what is hidden of it, with what it differs in from the scene there."""
    result = safely(_lenient(run), _without(frame, hides, run.stack.frame_shape), template, None)
    return None if result.reason else _confirmed(run, frame, result, hides, template, blocks, scene)


def _confirmed(
    run: RunState,
    frame: NDArray[Any],
    result: PairResult,
    hides: _Hides,
    template: Any,
    blocks: Blocks,
    scene: MedianScene,
) -> tuple[PairResult, _Hides] | None:
    """Return where a frame lies without what differs from the scene where it was found, if that is there, too."""
    shape = run.stack.frame_shape
    frame = _without(frame, hides, shape)
    small, noise = reduced_frame(frame, result, scene.factors)
    other = strange(laid(small, result, scene.factors), noise, scene)
    if other is None:
        return None
    hides = [*hides, (result.matrix, other)]
    frame = _without(frame, hides[-1:], shape)
    again = safely(_lenient(run), frame, template, result.matrix)
    if again.reason or apart(again.matrix, result.matrix, shape) > NEAR * max(shape):
        return None
    agree = blocks.consensus(frame, again.matrix, again.gain, again.offset).count
    return (again, hides) if agree >= _needed(run, again.matrix) else None


def _lenient(run: RunState) -> PairAligner[Any]:
    """Return an aligner that asks for less overlap: of what is hidden, little is in view, and blocks decide."""
    return run.aligner.lenient() if isinstance(run.aligner, Lenient) else run.aligner


def _needed(run: RunState, matrix: Array) -> int:
    """Return how many blocks must agree with where a frame lies: the less is in view, the more places are alike."""
    return _MORE if shares_in_view(run.stack.frame_shape, matrix[None])[0] < _LITTLE else _BLOCKS


def _without(frame: NDArray[Any], hides: _Hides, shape: tuple[int, ...]) -> NDArray[Any]:
    for place, cells in hides:
        frame = without_cells(frame, place, cells, shape)
    return frame


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
