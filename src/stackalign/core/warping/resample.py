"""Resample one frame: B-splines at exact float64 coordinates, whole-pixel shifts by copying, holes kept as holes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stackalign.core.frames.holes import filled_from_nearest
from stackalign.core.threads import bands, map_threads, spare
from stackalign.core.transform import Transform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

Fill = float | Literal["nan", "edge"]
ORDERS = (0, 1, 3, 5)
_SMALL = 1 << 19  # pixels of a plane that one thread filters as fast as several


def warp_frame(
    frame: NDArray[Any],
    matrix: ArrayLike | Transform,
    *,
    order: int = 3,
    fill: Fill = 0.0,
    output_shape: Sequence[int] | None = None,
    origin: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Resample one frame onto the reference.

    Parameters
    ----------
    frame : ndarray (y, x) or (z, y, x)
        Integers or real numbers. NaN stay NaN, and so does every pixel that one of them reaches.
    matrix : array_like (d+1, d+1) or Transform
        Moving -> reference, pixels.
    order : {0, 1, 3, 5}
        Order of the B-spline.
    fill : float, "nan" or "edge"
        What pixels outside the frame become; "edge" repeats the border.
    output_shape : sequence of int, optional
        Shape of the result; the frame's if left out.
    origin : array_like (d,), optional
        Where the result's pixel (0, 0) lies in the reference; zero if left out.
    out : ndarray, optional
        Array to write to, of the output's shape and the frame's dtype.

    Returns
    -------
    ndarray
        The dtype of ``frame``; integers are rounded and clipped.

    Raises
    ------
    ValueError
        If the order is not known, the matrix does not fit the frame, or "nan" is asked of integers.
    """
    image = np.asarray(frame)
    check_options(image, order, fill)
    d = image.ndim
    forward = matrix.matrix if isinstance(matrix, Transform) else np.asarray(matrix, float)
    if forward.shape != (d + 1, d + 1):
        raise ValueError(f"a frame of shape {image.shape} needs a {(d + 1, d + 1)} matrix, got {forward.shape}")
    shape = tuple(image.shape if output_shape is None else output_shape)
    start = np.zeros(d) if origin is None else np.asarray(origin, float)
    backward = np.linalg.inv(forward)
    backward[:, -1] += backward[:, :-1] @ start
    result = np.empty(shape, image.dtype) if out is None else out
    if result.shape != shape or result.dtype != image.dtype:
        raise ValueError(f"out must be {shape} {image.dtype}, got {result.shape} {result.dtype}")
    pure = np.array_equal(backward[:-1, :-1], np.eye(d)) and not backward[-1, :-1].any()
    if pure and np.abs(backward[:-1, -1] - np.round(backward[:-1, -1])).max() < 1e-9:
        offset = np.round(backward[:-1, -1]).astype(int)
        if fill == "edge":
            result[...] = image[_nearest_inside(image.shape, offset, shape)]
        else:
            _copy_shifted(image, offset, _value(fill), result)
    elif order == 0 or image.dtype.kind == "b":
        _warp_nearest(image, backward, fill, result)
    elif image.dtype.kind == "f" and not (known := np.isfinite(image)).all():
        _warp_known(image, known, backward, order, fill, result)
    else:
        _warp_smooth(image, backward, order, fill, result, pure)
    return result


def valid_mask(
    frame_shape: Sequence[int],
    matrix: ArrayLike | Transform,
    *,
    output_shape: Sequence[int] | None = None,
    origin: ArrayLike | None = None,
) -> NDArray[np.bool_]:
    """Return where the output of `warp_frame` is covered by the frame; parameters as there."""
    from stackalign.core.warping.kernels import covered

    d = len(frame_shape)
    forward = matrix.matrix if isinstance(matrix, Transform) else np.asarray(matrix, float)
    shape = tuple(frame_shape if output_shape is None else output_shape)
    backward = np.linalg.inv(forward)
    if origin is not None:
        backward[:, -1] += backward[:, :-1] @ np.asarray(origin, float)
    out = np.empty(shape, np.bool_)
    volume = _volume(out)
    size = np.array([1] * (3 - d) + list(frame_shape), np.int64)
    _in_bands(partial(covered, _spatial(backward), size, volume), volume.shape[0] * volume.shape[1])
    return out


def warp_sources(
    frame: NDArray[Any], sources: NDArray[np.float64], *, order: int = 3, fill: Fill = 0.0
) -> NDArray[Any]:
    """Resample a 2-D frame at ``sources`` (2, y, x), pixels of the frame; order 0 takes the nearest, else cubic.

    Returns (y, x) in the dtype of ``frame``; `warp_frame` explains ``fill``.
    """
    from stackalign.core.warping.kernels import gather_field

    image = np.asarray(frame)
    check_options(image, order, fill)
    h, w = image.shape
    if order == 0:
        inside = (sources >= -1e-6).all(0) & (sources[0] <= h - 1 + 1e-6) & (sources[1] <= w - 1 + 1e-6)
        y, x = (np.clip(np.floor(s + 0.5), 0, n - 1).astype(int) for s, n in zip(sources, image.shape, strict=True))
        picked = image[y, x]
        if fill != "edge":
            picked[~inside] = _cast(_value(fill), image.dtype)
        return np.asarray(picked)
    known = np.isfinite(image) if image.dtype.kind == "f" else None
    if known is not None and not known.all():
        filled = warp_sources(filled_from_nearest(image, known), sources, order=order, fill=fill)
        lost = warp_sources((~known).astype(np.float32), sources, order=3, fill=0.0)
        filled[np.abs(lost) > _REACH] = np.nan
        return filled
    coefficients = spline_coefficients(image, 3)
    buffer = np.empty((1, *sources.shape[1:]), coefficients.dtype)
    task = partial(gather_field, coefficients, sources, np.array([1, h, w]), fill == "edge", _value(fill), buffer)
    _in_bands(task, sources.shape[1])
    result = np.empty(sources.shape[1:], image.dtype)
    _store(buffer, result[None])
    return result


_REACH = 1e-3  # weight from which a pixel that is not known spoils what is interpolated from it


def check_options(image: Any, order: int, fill: Fill) -> None:
    """Raise ValueError if pixels of the dtype of ``image`` cannot be resampled so."""
    if order not in ORDERS:
        raise ValueError(f"order must be one of {ORDERS}, not {order!r}")
    if isinstance(fill, str) and fill not in ("nan", "edge"):
        raise ValueError(f"fill must be a number, 'nan' or 'edge', not {fill!r}")
    empty = fill == "nan" or (not isinstance(fill, str) and np.isnan(fill))
    if empty and np.dtype(image.dtype).kind != "f":
        raise ValueError(
            f"{image.dtype} pixels cannot hold NaN: choose a number or 'edge' to fill with, or a float stack"
        )


def _value(fill: Fill) -> float:
    return np.nan if fill == "nan" else 0.0 if fill == "edge" else float(fill)


def _spatial(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a (4, 4) matrix over (z, y, x, 1)."""
    if len(matrix) == 4:
        return np.ascontiguousarray(matrix)
    out = np.eye(4)
    out[1:, 1:] = matrix
    return out


def _volume(image: NDArray[Any]) -> NDArray[Any]:
    return image if image.ndim == 3 else image[None]


def _in_bands(task: Any, rows: int) -> None:
    """Run ``task(start, stop)`` over bands of rows in threads."""
    map_threads(lambda band: task(*band), bands(rows))


def _copy_shifted(image: NDArray[Any], offset: NDArray[np.int_], fill: float, out: NDArray[Any]) -> None:
    """Copy ``out[p] = image[p + offset]``: whole-pixel shifts lose nothing."""
    low = np.maximum(0, -offset)
    high = np.minimum(out.shape, np.array(image.shape) - offset)
    if (high <= low).any() or (low > 0).any() or (high < out.shape).any():
        out[...] = _cast(fill, out.dtype)
    if (high > low).all():
        there = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        out[there] = image[tuple(slice(a, b) for a, b in zip(low + offset, high + offset, strict=True))]


def _nearest_inside(frame: tuple[int, ...], offset: NDArray[np.int_], shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Return the index of the pixel at ``p + offset`` for every ``p``, or of the one at the border next to it."""
    return np.ix_(*[np.clip(np.arange(m) + o, 0, n - 1) for n, o, m in zip(frame, offset, shape, strict=True)])


def _cast(value: float, dtype: np.dtype[Any]) -> Any:
    if dtype.kind in "ui":
        info = np.iinfo(dtype)
        return dtype.type(min(max(round(value), info.min), info.max))
    return dtype.type(value)


def _warp_nearest(image: NDArray[Any], backward: NDArray[np.float64], fill: Fill, out: NDArray[Any]) -> None:
    from stackalign.core.warping.kernels import nearest

    # pixels are only copied: as unsigned integers of their size, four compiled kernels serve every dtype
    plain = np.dtype(f"u{image.dtype.itemsize}")
    source = np.ascontiguousarray(image)
    target = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
    value = np.array([_cast(_value(fill), image.dtype)], image.dtype).view(plain)[0]
    volume = _volume(target.view(plain))
    task = partial(nearest, _volume(source.view(plain)), _spatial(backward), fill == "edge", value, volume)
    _in_bands(task, volume.shape[0] * volume.shape[1])
    if target is not out:
        out[...] = target


def _warp_known(
    image: NDArray[Any],
    known: NDArray[np.bool_],
    backward: NDArray[np.float64],
    order: int,
    fill: Fill,
    out: NDArray[Any],
) -> None:
    """Resample a frame with holes: they are filled from their neighbours, and cut out again."""
    if not known.any():
        out[...] = np.nan
        return
    pure = np.array_equal(backward[:-1, :-1], np.eye(image.ndim)) and not backward[-1, :-1].any()
    _warp_smooth(filled_from_nearest(image, known), backward, order, fill, out, pure)
    lost = np.empty(out.shape, np.float32)
    _warp_smooth((~known).astype(np.float32), backward, order, 0.0, lost, pure)
    out[np.abs(lost) > _REACH] = np.nan


def _warp_smooth(
    image: NDArray[Any], backward: NDArray[np.float64], order: int, fill: Fill, out: NDArray[Any], pure: bool
) -> None:
    from stackalign.core.warping.kernels import GATHER_2D, GATHER_3D

    coefficients = spline_coefficients(image, order)
    direct = out.dtype == coefficients.dtype and out.flags.c_contiguous
    buffer = _volume(out) if direct else np.empty(_volume(out).shape, coefficients.dtype)
    value = coefficients.dtype.type(_value(fill))
    if pure and fill != "edge":
        _shift(coefficients, image.shape, backward[:-1, -1], order, value, buffer)
    else:
        gather = GATHER_2D[order] if image.ndim == 2 else GATHER_3D[order]
        size = np.array(_volume(image).shape, np.int64)
        task = partial(gather, coefficients, _spatial(backward), size, fill == "edge", value, buffer)
        _in_bands(task, buffer.shape[0] * buffer.shape[1])
    if not direct:
        _store(buffer, _volume(out))


def _shift(
    coefficients: NDArray[Any],
    shape: tuple[int, ...],
    shift: NDArray[np.float64],
    order: int,
    fill: Any,
    out: NDArray[Any],
) -> None:
    """Resample at ``p + shift`` with weights that are the same for all pixels."""
    from stackalign.core.warping.kernels import PAD, shift_rows, spline_taps

    offset, size = np.zeros(3), np.ones(3, int)
    offset[3 - len(shape) :], size[3 - len(shape) :] = shift, shape
    low = np.clip(np.ceil(-offset - 1e-6), 0, out.shape).astype(np.int64)
    high = np.clip(np.floor(size - 1 - offset + 1e-6) + 1, low, out.shape).astype(np.int64)
    count = high - low
    whole = (count == np.array(out.shape)).all()
    if not whole:
        out[...] = fill
    if (count == 0).any():
        return
    first, weights, taps = np.zeros(3, np.int64), np.zeros((3, 6), coefficients.dtype), np.ones(3, np.int64)
    for axis in range(3):
        if axis < 3 - len(shape):
            weights[axis, 0] = 1
            continue
        n = int(np.floor(offset[axis]))
        fraction = offset[axis] - n
        if fraction > 1 - 1e-9:  # a rounding below a whole pixel would reach beyond the padding
            n, fraction = n + 1, 0.0
        taps[axis] = order + 1
        weights[axis] = spline_taps(order, fraction)
        first[axis] = low[axis] + n + PAD - (order - 1) // 2
    box = np.stack([low, count])
    _in_bands(partial(shift_rows, coefficients, first, weights, taps, box, out), int(count[0] * count[1]))


def spline_coefficients(image: NDArray[Any], order: int) -> NDArray[Any]:
    """Return B-spline coefficients (z, y, x), padded by mirrored pixels."""
    from stackalign.core.warping.kernels import PAD, POLES, plane_coefficients

    if image.ndim == 2 and order > 1 and (image.size < _SMALL or spare() == 1):
        plane = np.require(image, _spline_dtype(image), ["C", "A", "W"])
        out = np.empty((1, *(n + 2 * PAD for n in plane.shape)), plane.dtype)
        plane_coefficients(plane, POLES[order], PAD, out[0])
        return out
    volume = _volume(image)
    pads = [PAD if axis >= 3 - image.ndim else 0 for axis in range(3)]
    padded = np.empty([n + 2 * p for n, p in zip(volume.shape, pads, strict=True)], _spline_dtype(image))
    inner = tuple(slice(p, n + p) for n, p in zip(volume.shape, pads, strict=True))
    padded[inner] = volume if order == 1 else _volume(spline_filtered(image, order))
    for axis, (n, p) in enumerate(zip(volume.shape, pads, strict=True)):
        if p:
            _mirror(np.moveaxis(padded, axis, 0), n, p)
    return padded


def spline_filtered(image: NDArray[Any], order: int) -> NDArray[Any]:
    """Return B-spline coefficients of the image's shape: the filter that interpolation of this order needs."""
    work = _volume(image).astype(_spline_dtype(image), order="C")
    filter_spline(work, order)
    return work.reshape(image.shape)


def filter_spline(work: NDArray[Any], order: int) -> None:
    """Turn an image (z, y, x), float, into its B-spline coefficients, in place."""
    from stackalign.core.warping.kernels import POLES, filter_columns, filter_rows

    poles = POLES[order]
    nz, ny, nx = work.shape
    rows = work.reshape(nz * ny, nx)
    if nx > 1:
        map_threads(lambda b: filter_rows(rows, *b, poles), bands(nz * ny))
    if ny > 1:
        map_threads(lambda b: [filter_columns(work[z], *b, poles) for z in range(nz)], bands(nx, 128))
    if nz > 1:
        columns = work.reshape(nz, ny * nx)
        map_threads(lambda b: filter_columns(columns, *b, poles), bands(ny * nx, 128))


def _spline_dtype(image: NDArray[Any]) -> type[np.floating]:
    wide = image.dtype.itemsize > 4 or (image.dtype.itemsize == 4 and image.dtype.kind in "ui")
    return np.float64 if wide else np.float32


def _mirror(a: NDArray[Any], n: int, pad: int) -> None:
    period = max(2 * n - 2, 1)
    for k in range(1, pad + 1):
        for target, index in ((pad - k, -k), (pad + n - 1 + k, n - 1 + k)):
            inside = index % period
            a[target] = a[pad + (inside if inside < n else period - inside)]


def _store(buffer: NDArray[Any], out: NDArray[Any]) -> None:
    """Write floats in the dtype that came in: integers rounded and clipped."""

    def store(band: tuple[int, int]) -> None:
        rows = slice(*band)
        part = buffer[rows] if len(buffer) > 1 else buffer[:, rows]
        target = out[rows] if len(buffer) > 1 else out[:, rows]
        if out.dtype.kind in "ui":
            info = np.iinfo(out.dtype)
            np.rint(part, out=part)
            np.clip(part, info.min, info.max, out=part)
        np.copyto(target, part, casting="unsafe")

    map_threads(store, bands(len(buffer) if len(buffer) > 1 else buffer.shape[1]))
