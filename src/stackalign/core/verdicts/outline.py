"""The outline of something that moves through a scene, once the motions of both are known.

Where it lies, it is there in every frame, whatever of the scene is below: what the scene leaves of the frames, squared
and added up over them in its own pixels, is noise beyond its outline and more within. Cells of the field, by which it
was found, are coarse: they hide much of the scene that it does not, and leave its faint parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from stackalign.core.frames.reduction import reduced, reduction
from stackalign.core.run_state import spread
from stackalign.core.verdicts.agreement import noise_variance
from stackalign.core.verdicts.cell_evidence import COMPARED, EXACT, ReducedScene, reduced_frame
from stackalign.core.verdicts.cells import over_pixels
from stackalign.core.warping.resample import warp_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.run_state import RunState
    from stackalign.core.work import Work

    Image = NDArray[np.float32]

_FRAMES = 32  # that are looked at
_KEPT = 0.8  # of them that are added up
_SEEN = 3  # of them that must show the scene at a pixel
_AROUND = 3  # pixels that are asked together
_PLAIN = 2.0  # times what the scene leaves elsewhere, what it must leave where something else is,
_SURE = 1.4  # and in a single pixel: four standard deviations of what noise leaves


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """The pixels of the reduced reference of a thing that it covers, and their share of those that can be told."""

    covered: NDArray[np.bool_]
    share: float


def outlined(thing: RunState, scene: RunState, cells: NDArray[np.bool_]) -> Work[Outline | None]:
    """Return what a thing covers; None if it cannot be told.

    Parameters
    ----------
    thing : RunState
        Planes, aligned by the thing.
    scene : RunState
        The same frames, aligned by the scene.
    cells : ndarray of bool (cells, cells)
        Of the reference of the thing: where it is, roughly. Those that show too little of the scene stay.
    """
    sample = spread(np.flatnonzero(thing.good() & scene.good()).tolist(), _FRAMES)
    left = yield from _left(thing, scene, sample)
    known = np.isfinite(left).sum(0) >= _SEEN
    squares = np.zeros(known.shape)
    squares[known] = _usual(left[:, known])
    near = np.ones((3, 3), bool)
    inside, around = (over_pixels(part, known.shape) for part in (cells, ndimage.binary_dilation(cells, near)))
    beyond = ~around
    if not (known & inside).any() or not (known & beyond).any():
        return None
    low, high = float(np.median(squares[known & beyond])), float(squares[known & inside].mean())
    if high < _PLAIN * low:
        return None
    # what a scene of much contrast leaves at its edges is far from what something else leaves, and from noise
    other = np.where(known, squares > low * max((high / low) ** 0.25, _SURE), inside)
    pieces, _ = ndimage.label(ndimage.binary_opening(other, near), near)
    found = np.isin(pieces, np.setdiff1d(pieces[inside], 0))
    covered = np.asarray(ndimage.binary_fill_holes(ndimage.binary_dilation(found, near)), bool)
    return Outline(covered, float(covered[known].mean()))


def _left(thing: RunState, scene: RunState, sample: list[int]) -> Work[Image]:
    """Return what the scene leaves of frames, squared, smoothed and over the noise, where the thing lies (n, y, x)."""
    left: list[Image] = []
    factors = reduction(scene.stack.frame_shape, COMPARED[2])
    image = ReducedScene.of(scene, factors)
    share = noise_variance(np.asarray(scene.details["reference"], np.float32)) / float(np.prod(factors))
    share += (EXACT * float(np.nanstd(image.image))) ** 2
    for t in sample:
        at, on = thing.results[t], scene.results[t]
        assert at is not None
        assert on is not None
        small, noise = reduced_frame(thing.load(t), on, factors)  # of the scene's own frames it is hidden
        rest = small - image.on(reduced(on.matrix, factors), small.shape)
        squares = (rest**2 / max(noise + share, 1e-30)).astype(np.float32)
        there = reduced(at.matrix, factors)
        left.append(_smoothed(warp_frame(squares, there, order=1, fill="nan", output_shape=small.shape)))
        yield scene.progress(len(left), len(sample), "Outlining what walks through the scene")
    return np.array(left)


def _smoothed(image: Image) -> Image:
    """Return the mean around each pixel; NaN do not count, and stay."""
    known = np.isfinite(image)
    total = ndimage.uniform_filter(np.where(known, image, np.float32(0)), _AROUND, mode="constant")
    share = ndimage.uniform_filter(known.astype(np.float32), _AROUND, mode="constant")
    return np.asarray(np.where(known, total / np.maximum(share, np.float32(1e-6)), np.nan), np.float32)


def _usual(values: Image) -> NDArray[np.float64]:
    """Return the mean over frames (n, ...) but the largest ones, as of frames that lie elsewhere; NaN do not count."""
    kept = np.ceil(_KEPT * np.isfinite(values).sum(0))
    ordered = np.sort(values, axis=0)  # NaN are last
    below = np.arange(len(values)).reshape(-1, *[1] * (values.ndim - 1)) < kept
    return np.asarray(np.where(below, ordered, 0).sum(0) / kept, float)
