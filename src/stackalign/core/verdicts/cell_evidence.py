"""What the cells of a field say of two motions, summed over several frames: whose scene they look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.holes import filled_smoothly
from stackalign.core.frames.reduction import binned, reduced, reduction
from stackalign.core.verdicts.agreement import noise_variance
from stackalign.core.verdicts.cells import CELLS, cell_numbers, cells_below
from stackalign.core.warping.resample import warp_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.references.reference import PairResult
    from stackalign.core.run_state import RunState

    Array = NDArray[np.float64]
    Image = NDArray[np.float32]

COMPARED = {2: 64, 3: 48}  # pixels along an axis of the images that are compared
_CHANGED = 5.0  # variance of a cell over time, beyond which it shows more than noise, in units of the noise's
EXACT = 0.03  # of the contrast: what interpolation of reduced frames may change
_SHARE = 0.5  # of the other cells that must have changed
_SURE = 3.0  # standard deviations by which a cell of a frame must look more like one motion
_DIFFERS = 0.15  # of the contrast of the scene, by which the mean of a cell must differ to show something else
_STRANGE = 0.12  # of the cells in view that may show something else,
_ALIKE = 0.5  # or more, if as many of those with contrast show at least half of it


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A sample of a run, reduced, each frame in the brightness of the reference.

    Attributes
    ----------
    shape, factors : tuple of int
        Of the full frames; how they are reduced.
    frames : dict of int to ndarray
    noise : dict of int to float
        Variance of the noise of each, reduced.
    """

    shape: tuple[int, ...]
    factors: tuple[int, ...]
    frames: dict[int, Image]
    noise: dict[int, float]

    @classmethod
    def of(cls, run: RunState, sample: Sequence[int]) -> View:
        """Read and reduce frames that are aligned."""
        factors = reduction(run.stack.frame_shape, COMPARED[run.stack.ndim])
        frames, noise = {}, {}
        for t in sample:
            result = run.results[t]
            assert result is not None
            frames[t], noise[t] = reduced_frame(run.load(t), result, factors)
        return cls(run.stack.frame_shape, factors, frames, noise)


@dataclass(frozen=True, slots=True, eq=False)
class ReducedScene:
    """A reduced reference that is laid back on frames: its unknown pixels are filled in once, and known again there."""

    image: Image
    filled: Image
    known: NDArray[np.uint8]

    @classmethod
    def of(cls, run: RunState, factors: tuple[int, ...]) -> ReducedScene:
        """Reduce the reference of a run."""
        image = binned(np.asarray(run.details["reference"], np.float32), factors)
        known = np.isfinite(image)
        return cls(image, filled_smoothly(image, known), known.astype(np.uint8))

    def on(self, matrix: Array, shape: tuple[int, ...]) -> Image:
        """Return it on the grid of a frame that lies at ``matrix``, reduced; NaN where it is not known."""
        back = np.linalg.inv(matrix)
        laid = warp_frame(self.filled, back, order=3, fill="nan", output_shape=shape)
        laid[warp_frame(self.known, back, order=0, output_shape=shape) == 0] = np.nan
        return laid


def restless(run: RunState, view: View, followed: NDArray[np.bool_]) -> bool:
    """Return whether most cells that are not followed change by more than noise."""
    images = np.stack([laid(small, r, view.factors) for t, small in view.frames.items() if (r := run.results[t])])
    count = np.isfinite(images).sum(0)
    mean = np.where(count > 1, np.nansum(images, 0) / np.maximum(count, 1), np.nan)
    if not count.max() > 1:
        return False
    least = (EXACT * float(np.nanstd(mean))) ** 2
    cell, n = cell_numbers(mean.shape), followed.size
    change, seen = np.zeros(n), np.zeros(n)
    for image, noise in zip(images, view.noise.values(), strict=True):
        known = np.isfinite(image) & np.isfinite(mean)
        rest = image - mean
        pixels = np.bincount(cell[known], minlength=n)
        total = np.bincount(cell[known], rest[known], n)
        enough = pixels > 0.5 * known.size / n
        change += np.where(enough, total**2 / np.maximum(pixels, 1) / max(noise + least, 1e-30), 0)
        seen += enough
    asked = ~followed.ravel() & (seen > 2)
    return bool(asked.sum() > 0.25 * n and (change[asked] > _CHANGED * (seen[asked] - 1)).mean() > _SHARE)


def areas(run: RunState, twin: RunState, view: View) -> tuple[int, int]:
    """Return how many cells of the scene that either motion follows look like that motion, summed over the frames.

    Both scenes are laid on each frame, and the squares of what they leave are compared: where the frame is one of them
    and noise, the difference is normal, with a variance of four times that of the noise times the squared distance of
    the scenes.
    """
    runs = (run, twin)
    share = max(noise_variance(np.asarray(r.details["reference"], np.float32)) for r in runs)
    share /= float(np.prod(view.factors))
    scenes = [ReducedScene.of(r, view.factors) for r in runs]
    n = CELLS[len(view.shape)] ** len(view.shape)
    gains, variances = np.zeros((2, n)), np.zeros((2, n))
    for t, frame in view.frames.items():
        one, other = (r.results[t] for r in runs)
        if one is None or other is None or other.reason:
            continue
        left, cells = [], []
        for scene, result in zip(scenes, (one, other), strict=True):
            matrix = reduced(result.matrix, view.factors)
            bright = result.gain / one.gain, (result.offset - one.offset) / one.gain  # in that of the view
            left.append(frame - (scene.on(matrix, frame.shape) * np.float32(bright[0]) + np.float32(bright[1])))
            cells.append(cells_below(scene.image.shape, matrix, frame.shape))
        known = np.isfinite(left[0]) & np.isfinite(left[1])
        gain, apart = left[0] ** 2 - left[1] ** 2, (left[0] - left[1]) ** 2
        for k, cell in enumerate(cells):
            inside = known & (cell >= 0)
            gains[k] += np.bincount(cell[inside], gain[inside], n)
            variances[k] += 4 * (view.noise[t] + share) * np.bincount(cell[inside], apart[inside], n)
    sure = gains / np.sqrt(np.maximum(variances, 1e-30))
    return int((sure[0] < -_SURE).sum()), int((sure[1] > _SURE).sum())


def unlike(run: RunState, t: int, scene: ReducedScene, factors: tuple[int, ...]) -> bool:
    """Return whether a frame shows something else than a scene in the cells in view, and in most that have contrast."""
    result = run.results[t]
    assert result is not None
    small, noise = reduced_frame(run.load(t), result, factors)
    shown = scene.on(reduced(result.matrix, factors), small.shape)
    known = np.isfinite(shown) & np.isfinite(small)
    cell, n = cell_numbers(small.shape), CELLS[small.ndim] ** small.ndim
    pixels = np.bincount(cell[known], minlength=n)
    asked = pixels > 0.5 * small.size / n
    if not asked.any():
        return True
    expected, there = (np.bincount(cell[known], part[known], n)[asked] / pixels[asked] for part in (shown, small))
    sure = _SURE * np.sqrt(noise / pixels[asked])
    differs, contrast = np.abs(there - expected), np.abs(expected - np.median(expected))
    strange = (differs > np.maximum(sure, _DIFFERS * float(np.nanstd(scene.image)))).mean() > _STRANGE
    # something that hides a part of a scene leaves the rest as it is
    alike = contrast > sure
    return bool(strange and (differs < contrast / 2)[alike].sum() <= _ALIKE * alike.sum())


def reduced_frame(frame: NDArray[Any], result: PairResult, factors: tuple[int, ...]) -> tuple[Image, float]:
    """Return a frame, reduced and in the brightness of the reference, and the variance of its noise then."""
    small = (binned(frame, factors) - np.float32(result.offset)) / np.float32(result.gain)
    return small, noise_variance(frame) / result.gain**2 / float(np.prod(factors))


def laid(small: Image, result: PairResult, factors: tuple[int, ...]) -> Image:
    """Return a reduced frame on the reduced grid of the reference; NaN where it shows nothing."""
    return warp_frame(small, reduced(result.matrix, factors), order=3, fill="nan", output_shape=small.shape)
