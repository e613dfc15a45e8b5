"""Piecewise-rigid motion of a stack: block shifts on top of translations that are known already.

The reference is the mean of the frames where their blocks lie, re-estimated until it settles. Which deformation the
reference itself has cannot be known from the frames: their mean at each node is taken for none, that of the frame that
was named as the reference, or that of an external image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.frame_check import read_frame
from stackalign.core.frames.reduction import binned
from stackalign.core.piecewise.block_template import BlockTemplate
from stackalign.core.piecewise.series import BlockGrid, PiecewiseSeries
from stackalign.core.run_state import spread
from stackalign.core.threads import map_frames
from stackalign.core.transform import TransformModel
from stackalign.core.transform_series import TransformSeries
from stackalign.core.warping.resample import spline_coefficients, warp_frame
from stackalign.core.work import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from stackalign.core.references.reference import Reference
    from stackalign.core.registration import Registration
    from stackalign.core.stack import ImageStack
    from stackalign.core.work import Work

    Load = Callable[[int], NDArray[np.float32] | None]

SAMPLE = 80  # frames from which the reference is estimated
MAX_ROUNDS = 3
_STEPS = 8
_SETTLED = 0.01  # px: a step below is the last one
_COARSE = 96  # pixels that a frame keeps along its shorter axis when it is reduced for the first steps


@dataclass(frozen=True, slots=True, eq=False)
class _Level:
    """A reference prepared at one reduction."""

    factor: int
    template: BlockTemplate
    counted: NDArray[np.bool_]  # (y, x) where the reference is known and counts


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """Block shifts of one frame, (gy, gx, 2) px, and how well it then fits the reference."""

    shifts: NDArray[np.float64]
    correlation: float
    residual: float
    noise: float
    reason: str = ""


def refine_blocks(
    stack: ImageStack,
    registration: Registration,
    policy: Reference,
    *,
    spacing: float,
    difference: float,
    mask: NDArray[np.bool_] | None = None,
    filtered: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
) -> Work[Registration]:
    """Add block shifts to the translations of a registration.

    Parameters
    ----------
    stack : ImageStack
        Frames (y, x).
    registration : Registration
        Translations, moving -> reference, with the quality of each frame.
    policy : Reference
        What the translations refer to.
    spacing : float
        Distance between block centres, pixels.
    difference : float
        How much neighbouring blocks are expected to differ, pixels (one standard deviation).
    mask : ndarray of bool (y, x), optional
        True where a pixel of the reference counts.
    filtered : callable, optional
        What is done to a frame before it is compared.

    Returns
    -------
    Registration
        Its transforms are a `PiecewiseSeries`. ``details["block_error"]`` (gy, gx, 2) is the standard error of a
        node's shift in one frame, pixels. A frame that its blocks fit worse than the translation alone keeps that, and
        is flagged.

    Raises
    ------
    ValueError
        If the frames are volumes or too small for two blocks a side.
    """
    rigid = registration.transforms
    if stack.ndim != 2 or rigid.model is not TransformModel.TRANSLATION:
        raise ValueError("blocks need frames (y, x) and translations: leave them out for volumes")
    grid = BlockGrid.with_spacing((stack.frame_shape[0], stack.frame_shape[1]), spacing)
    good = [int(t) for t in np.flatnonzero(rigid.valid)]
    shifts = np.zeros((len(stack), *grid.shape, 2))
    if len(good) < 2 and policy.kind != "image":
        return replace(registration, transforms=PiecewiseSeries(rigid.matrices, rigid.model, rigid.valid, grid, shifts))
    external = policy.kind == "image"
    # the frames' middle field, in whole pixels, so that a mask moves along without resampling
    away = np.zeros(2) if external else np.round(np.median(rigid.translations[good], axis=0))
    places = rigid.translations - away
    if mask is not None and away.any():
        home = np.eye(3)
        home[:2, 2] = -away
        mask = warp_frame(mask.astype(np.uint8), home, order=0).astype(bool)
    load = partial(_loaded, stack, filtered)
    sample = spread(good, SAMPLE)
    noise, error = 0.0, np.zeros((*grid.shape, 2))
    found: dict[int, _Found] = {}
    rounds, change, previous = 0, np.inf, np.inf
    while True:
        if external:
            assert policy.image is not None
            image = np.asarray(policy.image if filtered is None else filtered(policy.image), np.float32)
        else:
            # a mean of frames that are bent is blurred, and what is aligned to it creeps: one frame is sharp
            used = [min(sample, key=lambda t: float(np.hypot(*places[t])))] if rounds == 0 else sample
            image = yield from _mean(load, used, places, shifts, grid)
        if rounds == 0:
            few = spread(sample, 8)
            noise = _rigid_noise(load, few, places, image, grid)
        levels = _levels(image, mask, grid, noise, difference)
        error = np.sqrt(levels[-1].template.covariance)
        settled = rounds > 0 and (external or _is_settled(change, previous, error) or rounds >= MAX_ROUNDS)
        frames = good if settled or external else sample
        rounds += 1
        begun = levels if rounds == 1 or (settled and len(sample) < len(good)) else levels[-1:]
        message = "Refining blocks" if frames is good else f"Refining blocks, round {rounds}"
        before = shifts.copy()
        align = partial(_aligned, load, places, shifts.copy(), begun, grid)
        for done, (t, result) in enumerate(zip(frames, map_frames(align, frames), strict=True), start=1):
            found[t] = result
            shifts[t] = result.shifts
            yield Progress(done, len(frames), message)
        noise = float(np.median([found[t].noise for t in sample]))
        if not external:
            shifts[good] -= np.mean(shifts[sample], axis=0)
        previous, change = change, float(np.sqrt(np.mean((shifts[sample] - before[sample]) ** 2)))
        if settled or (external and rounds > 1):
            break
    series: TransformSeries = PiecewiseSeries(
        TransformSeries.from_translations(places, rigid.valid).matrices, rigid.model, rigid.valid, grid, shifts
    )
    if policy.kind == "frame" and policy.frame in found:
        series = _relative_to(series, policy.frame)  # type: ignore[arg-type]
    back = TransformSeries.from_translations(np.tile(away, (len(stack), 1)))
    series = series.then(back).interpolated()
    quality = registration.quality
    correlation, residual = quality.correlation.copy(), quality.residual.copy()
    for t, result in found.items():
        if not result.reason:
            correlation[t], residual[t] = result.correlation, result.residual
    quality = replace(quality, correlation=correlation, residual=residual)
    quality = quality.with_reasons({t: r.reason for t, r in found.items() if r.reason})
    details = {**registration.details, "block_error": error, "block_rounds": rounds}
    return replace(registration, transforms=series, quality=quality, details=details)


def _loaded(
    stack: ImageStack, filtered: Callable[[NDArray[Any]], NDArray[Any]] | None, t: int
) -> NDArray[np.float32] | None:
    """Read a frame as it is compared; None if it holds nothing."""
    frame, reason = read_frame(stack, t)
    if reason:
        return None
    image = np.asarray(frame if filtered is None else filtered(frame), np.float32)
    known = np.isfinite(image)
    return image if known.all() else np.where(known, image, np.float32(image[known].mean()))


def _sources(grid: BlockGrid, shape: tuple[int, int], place: NDArray[Any], shifts: NDArray[Any]) -> NDArray[Any]:
    out = grid.field(shifts, shape)
    out[0] += (np.arange(shape[0]) - place[0])[:, None]
    out[1] += (np.arange(shape[1]) - place[1])[None, :]
    return out


def _sampled(coefficients: NDArray[Any], shape: tuple[int, int], sources: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return a frame, given by its spline coefficients, at ``sources`` (2, y, x); NaN outside of it."""
    from stackalign.core.warping.kernels import gather_field

    out = np.empty((1, *sources.shape[1:]), coefficients.dtype)
    gather_field(coefficients, sources, np.array([1, *shape]), False, np.nan, out, 0, sources.shape[1])
    return np.asarray(out[0], np.float32)


def _mean(
    load: Load, frames: Sequence[int], places: NDArray[Any], shifts: NDArray[Any], grid: BlockGrid
) -> Work[NDArray[np.float32]]:
    """Return the mean of frames where their blocks lie; NaN where fewer than half of them are."""
    shape = grid.frame_shape
    total, count = np.zeros(shape), np.zeros(shape)
    warp = partial(_warped, load, places, shifts, grid)
    for done, image in enumerate(map_frames(warp, frames), start=1):
        if image is not None:
            inside = np.isfinite(image)
            total[inside] += image[inside]
            count += inside
        yield Progress(done, len(frames), "Estimating the mean of the blocks")
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count >= max(0.5 * count.max(), 1), total / count, np.nan).astype(np.float32)


def _warped(
    load: Load, places: NDArray[Any], shifts: NDArray[Any], grid: BlockGrid, t: int
) -> NDArray[np.float32] | None:
    image = load(t)
    if image is None:
        return None
    sources = _sources(grid, grid.frame_shape, places[t], shifts[t])
    return _sampled(spline_coefficients(image, 3), grid.frame_shape, sources)


def _rigid_noise(
    load: Load, frames: Sequence[int], places: NDArray[Any], image: NDArray[np.float32], grid: BlockGrid
) -> float:
    """Return the median over frames of the robust residual to the reference, before any block has moved."""
    still = np.zeros((len(places), *grid.shape, 2))
    found = []
    for t in frames:
        moved = _warped(load, places, still, grid, t)
        if moved is not None and (np.isfinite(moved) & np.isfinite(image)).any():
            residual = _residual(moved, image)[0]
            found.append(_spread(residual[np.isfinite(residual)]))
    level = float(np.nanstd(image))
    return max(float(np.median(found)) if found else 0.0, 1e-6 * level, 1e-12)


def _levels(
    image: NDArray[np.float32], mask: NDArray[np.bool_] | None, grid: BlockGrid, noise: float, difference: float
) -> list[_Level]:
    """Prepare the reference, reduced for the first steps and at full size."""
    known = np.isfinite(image)
    counted = known if mask is None else known & mask
    if not counted.any():
        raise ValueError("no pixel of the reference is left for the blocks: the mask covers all that is known of it")
    filled = image if known.all() else np.where(known, image, np.float32(image[known].mean()))
    inner = counted.copy()  # gradients at the border of what is known are made up
    for axis in (0, 1):
        for step in (-1, 1):
            inner &= np.roll(counted, step, axis)
    inner[[0, -1]] = False
    inner[:, [0, -1]] = False
    levels = []
    factor = max(min(4, min(image.shape) // _COARSE), 1)
    if factor > 1:
        small = binned(filled, (factor, factor))
        share = binned(inner.astype(np.float32), (factor, factor)) > 0.99
        coarse = BlockGrid((small.shape[0], small.shape[1]), grid.shape)
        prepared = BlockTemplate.prepare(
            small, share.astype(np.float32), coarse, noise / factor, difference / factor, scale=1.0
        )
        levels.append(_Level(factor, prepared, share))
    else:
        wide = BlockTemplate.prepare(filled, inner.astype(np.float32), grid, noise / 4, difference, scale=2.0)
        levels.append(_Level(1, wide, inner))
    full = BlockTemplate.prepare(filled, inner.astype(np.float32), grid, noise, difference)
    levels.append(_Level(1, full, inner))
    return levels


def _aligned(
    load: Load, places: NDArray[Any], starts: NDArray[Any], levels: Sequence[_Level], grid: BlockGrid, t: int
) -> _Found:
    """Return the blocks of frame ``t``, from ``starts`` on."""
    from scipy.ndimage import gaussian_filter

    image, shifts = load(t), starts[t].copy()
    if image is None:
        return _Found(shifts, np.nan, np.nan, 0.0, "it can no longer be read")
    residual: NDArray[np.float32]
    whole = (grid.frame_shape[0], grid.frame_shape[1])
    full = spline_coefficients(image, 3)
    for k, level in enumerate(levels):
        f, template = level.factor, level.template
        coefficients = full
        if len(levels) > 1 and k == 0:
            small = gaussian_filter(binned(image, (f, f)) if f > 1 else image, 1.0 if f > 1 else 2.0)
            coefficients = spline_coefficients(small, 3)
        h, w = template.image.shape
        for _ in range(_STEPS):
            at = _sources(template.grid, (h, w), places[t] / f, shifts / f)
            residual = _residual(_sampled(coefficients, (h, w), at), template.image, level.counted)[0]
            change = f * template.step(residual, shifts / f)
            shifts = shifts + change
            if np.abs(change).max() < _SETTLED * f:
                break
    last = levels[-1].template.image
    moved = _sampled(full, whole, _sources(grid, whole, places[t], shifts))
    still = _sampled(full, whole, _sources(grid, whole, places[t], np.zeros_like(shifts)))
    residual, correlation = _residual(moved, last, levels[-1].counted)
    at_rest, _ = _residual(still, last, levels[-1].counted & np.isfinite(moved))
    inside = np.isfinite(residual)
    if not inside.any():
        return _Found(np.zeros_like(shifts), np.nan, np.nan, 0.0, "nothing of the reference is in view for its blocks")
    rms = float(np.sqrt(np.mean(residual[inside] ** 2, dtype=np.float64)))
    noise = _spread(residual[inside])
    if not np.isfinite(shifts).all() or _spread(at_rest[np.isfinite(at_rest)]) < 0.98 * noise:
        return _Found(np.zeros_like(shifts), np.nan, np.nan, noise, "its blocks do not settle: only its shift is used")
    return _Found(shifts, correlation, rms, noise)


def _residual(
    moved: NDArray[np.float32], image: NDArray[np.float32], counted: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float32], float]:
    """Return reference minus frame, with the frame's brightness fitted to it, NaN where nothing counts; correlation."""
    from stackalign.core.piecewise.block_template import brightness, difference

    used = np.isfinite(image) if counted is None else counted
    n, mean_a, mean_b, own, power, both = brightness(moved, image, used)
    if n == 0:
        return np.full(moved.shape, np.nan, np.float32), float("nan")
    # a poor fit lowers the slope, and dividing by that would raise the noise: never by less than half of the contrast
    least = 0.5 * np.sqrt(own / power) if power > 0 else 1.0
    gain = max(both / power if power > 0 else 1.0, least, 1e-12)
    out = difference(moved, image, used, mean_a, mean_b, gain)
    return out, both / np.sqrt(own * power) if own * power > 0 else float("nan")


def _spread(values: NDArray[np.floating]) -> float:
    """Return the standard deviation as the median of absolute values tells it."""
    return 1.4826 * float(np.median(np.abs(values[:: max(values.size // 65536, 1)]))) if values.size else 0.0


def _is_settled(change: float, previous: float, error: NDArray[np.float64]) -> bool:
    ahead = change * (min(change / previous, 1.0) if np.isfinite(previous) else 1.0)
    return ahead < max(0.2 * float(np.median(error)), 2e-3) or change > 0.9 * previous


def _relative_to(series: PiecewiseSeries, frame: int) -> PiecewiseSeries:
    """Return the same motion with the blocks of ``frame`` at rest.

    With ``u_k`` its blocks, what lies at ``p`` in the old reference lies at ``q = p + u_k(p)`` in the new one, where
    frame t has the blocks ``u_t(p) - u_k(p)``; ``p`` is found by fixed-point iteration.
    """
    own = series.shifts[frame]
    grid = series.grid
    at_y, at_x = grid.nodes
    nodes = np.stack(np.meshgrid(at_y, at_x, indexing="ij"), axis=-1)
    points = nodes.copy()
    for _ in range(20):
        points = nodes - _at(grid, own, points)
    moved = np.stack([_at(grid, shifts - own, points) for shifts in series.shifts])
    return replace(series, shifts=moved)


def _at(grid: BlockGrid, shifts: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate node shifts at points (..., 2)."""
    index, share = [], []
    for axis, nodes in enumerate(grid.nodes):
        position = np.clip((points[..., axis] - nodes[0]) / (nodes[1] - nodes[0]), 0, len(nodes) - 1)
        low = np.minimum(position.astype(int), len(nodes) - 2)
        index.append(low)
        share.append((position - low)[..., None])
    (y, x), (fy, fx) = index, share
    top = shifts[y, x] * (1 - fx) + shifts[y, x + 1] * fx
    bottom = shifts[y + 1, x] * (1 - fx) + shifts[y + 1, x + 1] * fx
    return np.asarray(top * (1 - fy) + bottom * fy)
