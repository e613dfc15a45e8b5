"""What walks through the scene is left out of the frames, and of the reference: once it is known where most frames lie.

A frame is fitted to the blocks that agree with it, but the mean that it is fitted to holds a ghost of everything that
walked through: frames are then pulled by tenths of a pixel, and more where little else is in view. The median of the
frames has no ghost where each place is free most of the time. Cells of a frame that differ from it by more than noise
and a small shift explain are hidden, and the frames are aligned again; a place that is never free is in no reference
then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from stackalign.core.frames.reduction import reduction
from stackalign.core.generators import fitted, moved_points
from stackalign.core.geometry import corners
from stackalign.core.references.reference import PairResult
from stackalign.core.run_state import RunState, spread
from stackalign.core.verdicts.block_votes import LEAST_SIDE
from stackalign.core.verdicts.cell_evidence import EXACT, laid, reduced_frame
from stackalign.core.verdicts.cells import CELLS, cell_numbers, hiding
from stackalign.core.verdicts.consensus import MOST_SUPPORT, Blocks, apart
from stackalign.core.verdicts.continuity import REASON as CONTRADICTED
from stackalign.core.verdicts.joining import join

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from stackalign.core.work import Work

    Array = NDArray[np.float64]
    Image = NDArray[np.float32]

_ASKED = 8  # frames whose blocks tell whether something walks through the scene
_OFTEN = 0.5  # of these in which blocks must contradict
_JUDGES = 24  # frames whose median is the scene
_LEAST_FRAMES = 5
_COMPARED = 64  # pixels along an axis of the images that are compared
_SEEN = 3  # frames that must show a place
_FEW = 8  # pixels of a cell that is compared
_NOISY = 4.0  # times the noise, what is left of a cell that shows something else
_DIFFERS = 0.1  # of the contrast, by which the brightness of a cell must differ
_SURE = 5.0  # standard errors, for a cell that differs in brightness
_STAYS = 1.0  # px, beside twice its standard error, that a cell may want to go
_MOST = 0.8  # of the cells in view: a frame that differs in more shows something else, or lies elsewhere
_MOST_DOUBTED = 0.5  # the same of a frame whose neighbours contradict where it lies
_WHOLE = 0.75  # of the field, which it must show, too: parts of a scene look like other parts
_FOUND = 0.6  # of the frames that must be found again
_NEAR = 0.05  # of the field: a frame that was pulled farther lies elsewhere
ELSEWHERE = "where it lies, it shows little of what the other frames show"
REASON = "it was found elsewhere once what walks through the scene was left out"
_TOLD = 5.0  # standard errors of a slope of brightness, from which on it is told
_SETTLES = 3  # fits of brightness to the pixels that agree


@dataclass(frozen=True, slots=True, eq=False)
class MedianScene:
    """The median of reduced frames, with its slopes, and the variance of its noise."""

    image: Image
    slopes: Array  # (2, y, x)
    noise: float
    contrast: float
    factors: tuple[int, ...]


def clear(run: RunState, again: Callable[[RunState], Work[None]]) -> Work[None]:
    """Align frames again without what walks through the scene, if something does in most of them.

    Parameters
    ----------
    run : RunState
        Aligned; its results, its details and what it hides of frames are replaced.
    again : callable
        Aligns the frames of a run.
    """
    good = np.flatnonzero(run.good()).tolist()
    if (
        run.policy.kind not in ("mean", "median")
        or run.stack.ndim != 2
        or run.mask is not None
        or len(good) < _LEAST_FRAMES
        or "reference" not in run.details  # one frame was left, and the others were chained to it
        or min(run.stack.frame_shape) < LEAST_SIDE
        or not (run.hidden is not None or _walked_through(run, spread(good, _ASKED)))
    ):
        return
    # what walks through may be what neighbours said, too: those that they contradict are asked
    found = {t: r for t, r in enumerate(run.results) if r is not None and r.reason in ("", CONTRADICTED)}
    scene = yield from _scene(run, spread(good, _JUDGES))
    cells = yield from _strange_cells(run, found, scene)
    # less of the scene is left, on which a frame that was not found before would be found anywhere
    lost = {t: r.reason or ELSEWHERE for t, r in enumerate(run.results) if r is not None and t not in cells}
    twin = RunState(run.stack, run.aligner, run.policy, run.anchor, None, unusable=run.unusable | lost)
    strangers = {t: found[t].matrix for t, other in cells.items() if other.any()}
    twin.hidden = hiding(strangers, cells, run.stack.frame_shape, run.hidden)
    twin.starts = {t: found[t].matrix for t in cells}
    twin.brightness = {t: (found[t].gain, found[t].offset) for t in cells}
    try:
        yield from again(twin)
        if run.hidden is not None:  # the frames show different parts
            yield from join(twin, again)
    except ValueError:  # no reference can be made of what is left
        return
    if twin.good().sum() < _FOUND * len(good):
        return
    hidden, run.hidden, run.details, run.noise = run.hidden, twin.hidden, twin.details, twin.noise
    common, eye = _common(run, twin), np.eye(run.stack.ndim + 1)
    near = _NEAR * max(run.stack.frame_shape)
    for t, before in enumerate(run.results):
        if before is None or (before.reason and np.array_equal(before.matrix, eye)):  # it was found nowhere
            continue
        there = common @ before.matrix
        result = twin.results[t] if t in found else before
        reason = ELSEWHERE if result is None else result.reason
        if result is not None and not reason and apart(result.matrix, there, run.stack.frame_shape) < near:
            # that of where frames lie by each other, if it is known, is larger: their mean moves with them
            error = result.error if hidden is None else np.fmax(result.error, before.error)
            run.results[t] = replace(result, error=error)
        else:  # what it is given up for is where it was found before
            run.results[t] = replace(PairResult.failed(run.stack.ndim, reason or REASON), matrix=there)


def _common(run: RunState, twin: RunState) -> Array:
    """Return how the reference of a run lies on that of another one, by the frames that both have."""
    both = run.good() & twin.good()
    points = corners(run.stack.frame_shape)
    places = moved_points(twin.matrices()[both] @ np.linalg.inv(run.matrices()[both]), points)
    return fitted(points, np.asarray(np.median(places, axis=0)), run.aligner.model, run.stack.pixel_size)


def _walked_through(run: RunState, sample: list[int]) -> bool:
    """Return whether blocks contradict in most frames of a sample."""
    blocks = Blocks.of(np.asarray(run.details["reference"], np.float32))
    contradicted = 0
    for t in sample:
        result = run.results[t]
        assert result is not None
        found = blocks.consensus(run.load(t), result.matrix, result.gain, result.offset)
        contradicted += found.support < MOST_SUPPORT
    return contradicted >= _OFTEN * len(sample)


def _scene(run: RunState, sample: list[int]) -> Work[MedianScene]:
    """Return the median of frames where they lie."""
    factors = reduction(run.stack.frame_shape, _COMPARED)
    images, noise = [], []
    for t in sample:
        result = run.results[t]
        assert result is not None
        small, variance = reduced_frame(run.load(t), result, factors)
        images.append(laid(small, result, factors))
        noise.append(variance)
        yield run.progress(len(images), len(sample), "Looking for what walks through the scene")
    every = np.array(images)
    shown = np.isfinite(every).sum(0) >= min(_SEEN, len(sample))
    image = np.full(every.shape[1:], np.nan, np.float32)
    image[shown] = np.nanmedian(every[:, shown], axis=0)
    slopes = np.stack(np.gradient(image.astype(float)))
    return MedianScene(
        image, slopes, np.pi / 2 * float(np.median(noise)) / len(sample), float(np.nanstd(image)), factors
    )


def _strange_cells(
    run: RunState, found: Mapping[int, PairResult], scene: MedianScene
) -> Work[dict[int, NDArray[np.bool_]]]:
    """Return which cells of each frame show something else than the scene, without frames where most cells do."""
    cells = {}
    for t, result in found.items():
        frame = run.load(t)
        small, noise = reduced_frame(frame, result, scene.factors)
        shown = laid(small, result, scene.factors)
        other = strange(shown, noise, scene, _MOST_DOUBTED if result.reason else _MOST)
        if other is not None and (not result.reason or np.isfinite(shown).mean() > _WHOLE):
            cells[t] = other
        yield run.progress(len(cells), len(found), "Looking for what walks through the scene")
    return cells


def strange(shown: Image, noise: float, scene: MedianScene, most: float = _MOST) -> NDArray[np.bool_] | None:
    """Return the cells (cells, cells) of a frame that show something else than a scene; None if nearly all do.

    Parameters
    ----------
    shown : ndarray of float32 (y, x)
        A reduced frame where it lies; NaN do not count.
    noise : float
        Variance of its noise.
    scene : MedianScene
    most : float
        Share of the cells in view that may.
    """
    known = np.isfinite(shown) & np.isfinite(scene.slopes).all(0)
    value, target = shown[known].astype(float), scene.image[known].astype(float)
    if value.size < _FEW:
        return None
    noise = noise + scene.noise + (EXACT * scene.contrast) ** 2
    rest = _same_light(value, target, noise) - target
    cell, grid = cell_numbers(shown.shape)[known], (CELLS[shown.ndim],) * shown.ndim
    n = math.prod(grid)
    terms = np.stack([*scene.slopes[:, known], np.ones_like(rest)])

    def added(values: Array) -> Array:
        return np.asarray(np.bincount(cell, values, n), float)

    pixels = added(terms[2])
    normal = np.array([[added(a * b) for a in terms] for b in terms]).transpose(2, 0, 1)
    right = np.array([added(a * rest) for a in terms]).T
    inverse = np.linalg.inv(normal + 1e-3 * noise * np.eye(3))
    step = np.einsum("nij,nj->ni", inverse, right)
    left = (added(rest**2) - (step * right).sum(1)) / np.maximum(pixels - 3, 1)
    error = np.sqrt(np.maximum(inverse[:, [0, 1, 2], [0, 1, 2]], 0) * np.maximum(left, noise)[:, None])
    scale = np.asarray(scene.factors)
    way = np.linalg.norm(step[:, :2] * scale, axis=1)
    moved = way > _STAYS + 2 * np.linalg.norm(error[:, :2] * scale, axis=1)
    lit = np.abs(added(rest) / np.maximum(pixels, 1)) > np.maximum(
        _SURE * np.sqrt(noise / np.maximum(pixels, 1)), _DIFFERS * scene.contrast
    )
    seen = pixels >= _FEW
    out = seen & ((left > _NOISY * noise) | moved | lit)
    if out.sum() > most * seen.sum():
        return None
    return np.asarray(ndimage.binary_fill_holes(out.reshape(grid)), bool)


def _same_light(value: Array, target: Array, noise: float) -> Array:
    """Return pixels in the brightness of a scene, by a line through those that agree with it."""
    lit: Array = value
    for _ in range(_SETTLES):
        rest = np.abs(lit - target)
        agree = rest <= max(3 * np.sqrt(noise), 1.5 * float(np.median(rest)))
        v, w = value[agree], target[agree]
        # noise of the frame would flatten a line that tells the scene: one that tells the frame is turned round
        along, below = float(((v - v.mean()) * (w - w.mean())).sum()), float(np.square(w - w.mean()).sum())
        gain = below / along if along > _TOLD * np.sqrt(noise * below) else 1.0
        lit = w.mean() + gain * (value - v.mean())
    return lit
