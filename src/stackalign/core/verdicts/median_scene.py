"""The median of frames where they lie, which no passing thing shows in, and what of a frame differs from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from stackalign.core.frames.reduction import reduction
from stackalign.core.verdicts.cell_evidence import EXACT, laid, reduced_frame
from stackalign.core.verdicts.cells import CELLS, cell_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stackalign.core.references.reference import PairResult
    from stackalign.core.run_state import RunState
    from stackalign.core.work import Work

    Array = NDArray[np.float64]
    Image = NDArray[np.float32]

JUDGES = 24  # frames whose median is the scene
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
_TOLD = 5.0  # standard errors of a slope of brightness, from which on it is told
_SETTLES = 3  # fits of brightness to the pixels that agree
MESSAGE = "Looking for what walks through the scene"


@dataclass(frozen=True, slots=True, eq=False)
class MedianScene:
    """The median of reduced frames, with its slopes, and the variance of its noise."""

    image: Image
    slopes: Array  # (2, y, x)
    noise: float
    contrast: float
    factors: tuple[int, ...]


def median_scene(run: RunState, sample: list[int]) -> Work[MedianScene]:
    """Return the median of frames where they lie."""
    factors = reduction(run.stack.frame_shape, _COMPARED)
    images, noise = [], []
    for t in sample:
        result = run.results[t]
        assert result is not None
        small, variance = reduced_frame(run.load(t), result, factors)
        images.append(laid(small, result, factors))
        noise.append(variance)
        yield run.progress(len(images), len(sample), MESSAGE)
    every = np.array(images)
    shown = np.isfinite(every).sum(0) >= min(_SEEN, len(sample))
    image = np.full(every.shape[1:], np.nan, np.float32)
    image[shown] = np.nanmedian(every[:, shown], axis=0)
    slopes = np.stack(np.gradient(image.astype(float)))
    return MedianScene(
        image, slopes, np.pi / 2 * float(np.median(noise)) / len(sample), float(np.nanstd(image)), factors
    )


def strange_cells(
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
        yield run.progress(len(cells), len(found), MESSAGE)
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
    if value.size < _FEW or not np.isfinite(noise):  # little of the frame is known
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
