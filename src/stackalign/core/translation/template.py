"""A reference that translations are fitted to: its slopes and weights, and the equations of frames that have no holes.

Images are float32 (z, y, x) inside, one plane in 2-D.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.denoise import Denoised, wiener
from stackalign.core.frames.holes import filled_along_lines, filled_smoothly
from stackalign.core.frames.noise import NoiseModel
from stackalign.core.threads import map_threads
from stackalign.core.translation import equation_kernels, projection_kernels, template_kernels
from stackalign.core.translation.response import spread_of_shifts
from stackalign.core.warping.resample import filter_spline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_WIDE = 128  # px: from here on a pixel lost at each border costs less than filtering every frame
_DEEP = 24  # planes: the same; a plane lost costs more, but so does the filter of a volume
_LEAST = 16  # pixels of an image that only leads to the next finer one
_TALL = 256, 64  # rows of planes and volumes: from here on every fourth of them tells the first steps
_EVERY = 4
_LEAST_LEFT = 0.1  # of the noise of a frame, between it and a mean of few that it is part of
_EVEN = 0.1  # of the mean variance: the least that a dark pixel's counts for, so that few do not rule the fit
_PLANES = 1, 2  # mirrored ones, before and behind the coefficients of a volume
_SLOPE = 3  # pixels along an axis that it takes to tell a slope
_HOLED = 0.97  # of the inside of a reference: with less of it known, what is missing is not just a narrow border
_NARROW, _WIDEST = 64, 16  # of an axis: the width of blocks near its ends and in its middle
_PARTS, _SMALL = 8, 1 << 16  # that a pass over all pixels is split into; pixels of one, at least
_NOTHING, _NO_VALUES = np.zeros((1, 1, 1), np.float32), np.zeros((0, 1, 1), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class TranslationTemplate:
    """A reference with its derivatives, weights and normal equations.

    Attributes
    ----------
    shape : tuple of int
        Of the reference, (y, x) or (z, y, x).
    level : float
        Mean that is subtracted from the reference.
    coefficients, known : float32, uint8 (z, y, x)
        Spline coefficients of the reference (less ``level``), and 1 where a pixel and its neighbours are known. Volumes
        carry one mirrored plane in front and two behind, so that those of few planes are read up to their borders.
    values, weight : float32 (z, y, x)
        The reference less ``level``; inverse variance of each pixel, 0 where it does not count.
    normal : float64 (K, K)
        Products of gradients, values and 1 over all pixels.
    noise : NoiseModel
        In intensity units of the reference.
    frames : float
        Frames that were averaged into the reference; infinite if it is free of noise.
    filters : bool
        Whether frames are taken as they are, and the B-spline's filter is applied to the template instead.
    denoised : Denoised, optional
        What is left of the noise of the reference; None if it is free of noise.
    """

    shape: tuple[int, ...]
    level: float
    coefficients: NDArray[np.float32]
    known: NDArray[np.uint8]
    values: NDArray[np.float32]
    weight: NDArray[np.float32]
    normal: NDArray[np.float64]
    noise: NoiseModel
    frames: float
    filters: bool
    denoised: Denoised | None
    _later: dict[str, Any] = field(default_factory=dict)

    @property
    def equations(self) -> ShiftEquations:
        """The equations of whole frames, worked out once."""
        if "shift" not in self._later:
            self._later["shift"] = ShiftEquations.of(self)
        return self._later["shift"]  # type: ignore[no-any-return]

    @property
    def spread(self) -> NDArray[np.float64]:
        """Deviation (d, d) of a shift, in units of that to a reference free of noise, worked out once."""
        if "spread" not in self._later:
            self._later["spread"] = spread_of_shifts(self)
        return self._later["spread"]  # type: ignore[no-any-return]

    @property
    def passed(self) -> float:
        """Variance of the noise that is left in the values, over that of a frame."""
        return 0.0 if self.denoised is None else self.denoised.passed / self.frames

    @property
    def heard(self) -> float:
        """What the noise of the reference adds to the variance of a fit, over what that of a frame adds."""
        return 0.0 if self.denoised is None else self.denoised.heard / self.frames

    @property
    def variance(self) -> NDArray[np.float32]:
        """Variance of each pixel of the reference, before it was filtered (z, y, x)."""
        return self.noise.variance(self.values + np.float32(self.level)) / np.float32(self.frames)

    def left_over(self, *, own: bool = False) -> float:
        """Return the variance of what noise leaves between a frame and the values, over that of the frame.

        ``own``: the frame is one of those that were averaged, where it lies, and shares their noise.
        """
        shared = 0.0 if self.denoised is None or not own else self.denoised.value_noise() / self.frames
        return max(1 + self.passed - 2 * shared, _LEAST_LEFT)

    def value_noise(self) -> float:
        """Return what noise adds to the product of the values and the reference as it came, a unit of weight."""
        if self.denoised is None or self.raw is self.values:
            return 0.0
        weighed = float(np.vdot(self.weight, self.variance))
        return self.denoised.value_noise() * weighed / float(self.weight.sum(dtype=np.float64))

    @property
    def raw(self) -> NDArray[np.float32]:
        """The reference less ``level``, not filtered."""
        return self._later["raw"]  # type: ignore[no-any-return]

    @property
    def basis(self) -> NDArray[np.float32]:
        """Gradients and values (K - 1, z, y, x), worked out once."""
        if "basis" not in self._later:
            basis = self._later["basis"] = self._slopes(self.coefficients)
            basis[-1] = self.values
        return self._later["basis"]  # type: ignore[no-any-return]

    def lost_slopes(self) -> NDArray[np.float32]:
        """Return slopes and values (K - 1, z, y, x) of what the filter took away."""
        return self._slopes(_coefficients(self.raw - self.values, self.ndim))

    def _slopes(self, coefficients: NDArray[np.float32]) -> NDArray[np.float32]:
        out = np.empty((self.ndim + 1, *self.values.shape), np.float32)
        parts = _parts(self.values)
        map_threads(lambda b: template_kernels.slopes(coefficients, self.front, out, *b), parts)
        return out

    @classmethod
    def of(
        cls,
        reference: NDArray[np.float32],
        mask: NDArray[np.bool_] | None = None,
        *,
        noise: NoiseModel | None = None,
        frames: float = 1.0,
        window: NDArray[np.float32] | None = None,
        rough: bool = False,
    ) -> TranslationTemplate:
        """Prepare a reference.

        Parameters
        ----------
        reference : ndarray (y, x) or (z, y, x), float32
            NaN where it is not known.
        mask : ndarray of bool, optional
            True where a pixel counts.
        noise : NoiseModel, optional
            Weights are the inverse variance of it; equal if left out.
        frames : float
            Frames averaged into the reference.
        window : ndarray, optional
            Further weight of each pixel.
        rough : bool
            Speed counts more than the outermost pixels.

        Raises
        ------
        ValueError
            If no pixel is left, or the reference has no contrast.
        """
        d = reference.ndim
        known = np.isfinite(reference)
        counted = known if mask is None else known & mask
        if not counted.any():
            raise ValueError("no pixel of the reference is left: the mask covers all that is known of it")
        filled = np.asarray(reference, np.float32)
        if not known.all():
            # streaks across a wide hole would pass the Wiener filter as structure
            inside = known[tuple(slice(n // 10, n - n // 10) for n in known.shape)]
            fill = filled_smoothly if inside.mean() < _HOLED else filled_along_lines
            filled = np.asarray(fill(filled, known), np.float32)
            # values are known, but slopes and spline weights reach two pixels further; of a thin volume one plane at
            # each side is all that can be spared
            reach = [(n > 4) + (n >= 32) for n in known.shape]
            near = np.empty_like(known)
            template_kernels.eroded(volume_of(known), np.array([0] * (3 - d) + reach), volume_of(near))
            counted = near if mask is None else near & mask
            if not counted.any():
                raise ValueError("no pixel of the reference is left: too little of it is known")
        used = np.ascontiguousarray(volume_of(counted))
        level, spread = template_kernels.moments(volume_of(filled), used)
        if spread <= 1e-6 * max(abs(level), 1e-30) or spread == 0:
            raise ValueError("the reference has no contrast: all its pixels are equal")
        raw = centred = np.subtract(filled, np.float32(level), out=None if filled is reference else filled)
        denoised: Denoised | None = None
        model = noise or NoiseModel(1.0)
        camera = np.array([model.constant, model.slope, model.floor])
        if np.isfinite(frames):
            variance = template_kernels.mean_variance(volume_of(centred), used, level, camera) / frames
            denoised = wiener(centred, None if noise is None else variance, resampled=frames > 1)
            centred = denoised.image
        volume = np.ascontiguousarray(volume_of(centred))
        coefficients, front = _coefficients(volume, d), _front(d)
        # variance of the filtered reference: noise that pulls a pixel down must not raise its weight
        least = _EVEN * template_kernels.mean_variance(volume, used, level, camera)
        shade = _NOTHING if window is None else np.ascontiguousarray(volume_of(window), np.float32)
        weight = np.empty(volume.shape, np.float32)
        template_kernels.weigh(volume, used, shade, level, camera, least, weight)
        parts = map_threads(
            lambda b: template_kernels.slope_products(coefficients, front, volume, weight, *b), _parts(volume)
        )
        normal = np.asarray(sum(parts))
        usable = used.view(np.uint8)
        deep = reference.shape[0] >= (_LEAST if rough else _DEEP)
        for k, n in enumerate(reference.shape):
            if n < _SLOPE:
                normal[k, k] = 1.0  # all else in its row is zero, so that its step is zero too
        return cls(
            reference.shape,
            level,
            coefficients,
            np.pad(usable, (_PLANES, (0, 0), (0, 0)), mode="edge") if d == 3 else usable,
            volume,
            weight,
            normal,
            model,
            frames,
            mask is None and min(reference.shape[-2:]) >= (_LEAST if rough else _WIDE) and (d == 2 or deep),
            denoised,
            {"raw": volume if raw is centred else np.ascontiguousarray(volume_of(raw))},
        )

    @property
    def ndim(self) -> int:
        """Spatial dimensions."""
        return len(self.shape)

    @property
    def front(self) -> int:
        """Mirrored planes before the first one of the coefficients."""
        return _front(self.ndim)

    @property
    def blind(self) -> NDArray[np.bool_]:
        """(d,) True along axes of one or two pixels: no slope is known there, so only whole steps can be told."""
        return np.array([n < _SLOPE for n in self.shape])

    def contrast(self) -> float:
        """Return the weighted variance of the reference, intensity squared."""
        n = self.normal
        return float(n[-2, -2] / n[-1, -1] - (n[-2, -1] / n[-1, -1]) ** 2)

    def pull(self) -> float:
        """Return how far a frame is held, of the way it should go, by its own noise in a mean that it is part of.

        That is what noise has of the information: what the Wiener filter took away, over what it left.
        """
        if self.raw is self.values:
            return np.inf
        coefficients = _coefficients(self.raw, self.ndim)
        parts = map_threads(
            lambda b: template_kernels.slope_products(coefficients, self.front, self.raw, self.weight, *b),
            _parts(self.raw),
        )
        noisy, clean = np.diag(np.asarray(sum(parts)))[: self.ndim], np.diag(self.normal)[: self.ndim]
        return float(max((noisy / np.maximum(clean, 1e-300) - 1).max(), 0.0))

    def covariance(self) -> NDArray[np.float64]:
        """Return the Cramer-Rao bound of the shift of a frame that covers all of it, (d, d)."""
        return _inverse(self.normal)[: self.ndim, : self.ndim]

    def sensitivity(self) -> NDArray[np.float64]:
        """Return the same as a standard error per axis, pixels."""
        return np.sqrt(np.maximum(np.diag(self.covariance()), 0))


@dataclass(frozen=True, slots=True, eq=False)
class ShiftEquations:
    """The linear equations of a shift for frames whose pixels are read as B-spline coefficients.

    A frame would have to be filtered to be interpolated (its pixels turned into coefficients). Filter and shift
    commute, so that the filter can be moved to the images that the frame is projected on: once for all frames. The
    price is a pixel at each border, whose smoothed value the reference does not tell: little of a wide image.

    They tell how the frame is made of slopes and values of the reference, smoothed by the B-spline like the frames. The
    values are those before the Wiener filter, which bends them near the borders: frames that leave a border would be
    pulled to the other.

    Attributes
    ----------
    phi, scale : int16 (K, z, y, x), float64 (K,)
        Weighted gradients, values and 1, filtered, in units of the scale. They serve as instruments, so that the noise
        of the reference moves all frames alike.
    sums : float64 (L, M, N, K, K)
        Sums of the products of ``phi`` with slopes, values and 1 over the planes and rows above and the columns before
        each of the ``edges``, so that those of a block follow from its corners' (Crow, SIGGRAPH 1984).
    thinned : float64 (L, M, N, K, K)
        The same over one of ``every`` rows, which tell the first steps.
    edges : int64 (L,), (M,), (N,)
        Planes, rows and columns where what a frame covers may begin and end: narrow near the borders, wide in the
        middle.
    every : int
        1 for small templates.
    """

    phi: NDArray[np.int16]
    scale: NDArray[np.float64]
    sums: NDArray[np.float64]
    thinned: NDArray[np.float64]
    edges: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
    every: int
    rooms: list[NDArray[np.float32]]  # that frames are converted in: fresh memory is slow

    @classmethod
    def of(cls, template: TranslationTemplate) -> ShiftEquations:
        """Work them out."""
        d, weight = template.ndim, template.weight
        counted = weight > 0
        if template.filters:
            for axis in range(3 - d, 3):
                counted[(slice(None),) * axis + ([0, -1],)] = False
        phi, scale = np.empty((d + 2, *weight.shape), np.int16), np.ones(d + 2)
        spare: list[NDArray[np.float32]] = []  # fresh memory is slow

        def project(k: int) -> None:
            image = spare.pop() if spare else np.empty_like(weight)
            if k == d + 1:
                image[:] = weight
            elif k == d:
                np.multiply(weight, template.values, out=image)
            else:
                template_kernels.weighted_slope(template.coefficients, template.front, k, weight, image)
            if template.filters:
                filter_spline(image, 3)
            # beyond what counts the reference is not known: what the filter spread there is cut off again
            scale[k] = projection_kernels.quantised(image, counted, phi[k])
            spare.append(image)

        map_threads(project, range(d + 2))
        every = _EVERY if weight.shape[1] >= _TALL[d - 2] else 1
        edges = (_edges(weight.shape[0]), _edges(weight.shape[1]), _edges(weight.shape[2]))
        sums, thinned = _block_sums(template, phi, scale, every, edges)
        for k in np.flatnonzero(template.blind):
            # all else in its row is zero, so that its step is zero too
            sums[..., k, k] = thinned[..., k, k] = _counted(sums.shape[:3])
        return cls(phi, scale, sums, thinned, edges, every, spare)


def _front(d: int) -> int:
    return _PLANES[0] if d == 3 else 0


def _coefficients(volume: NDArray[np.float32], d: int) -> NDArray[np.float32]:
    """Return the spline's coefficients of an image (z, y, x); volumes get mirrored planes around them."""
    if d == 2:
        out = volume.copy()
        filter_spline(out, 3)
        return out
    before, behind = _PLANES
    count = len(volume)
    out = np.empty((count + before + behind, *volume.shape[1:]), np.float32)
    out[before : before + count] = volume
    filter_spline(out[before : before + count], 3)
    beyond = np.pad(np.arange(count), _PLANES, mode="reflect" if count > 1 else "edge")
    for k in (*range(before), *range(-behind, 0)):
        out[k] = out[before + beyond[k]]
    return out


def _edges(n: int) -> NDArray[np.int64]:
    """Return where blocks along an axis of ``n`` pixels begin and end: what lies between frame and block is lost."""
    if n < _SLOPE:
        return np.arange(n + 1)
    narrow, wide = max(n // _NARROW, 1), max(n // _WIDEST, 1)
    near = [1, *range(narrow, n // 8, narrow)]
    middle = range(n // 8, n - n // 8, wide)
    return np.unique([0, *near, *middle, *(n - k for k in near), n])


def _block_sums(
    template: TranslationTemplate,
    phi: NDArray[np.int16],
    scale: NDArray[np.float64],
    every: int,
    edges: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sums over all blocks before each of the edges, and over some rows of these; see `ShiftEquations`."""
    counts = [len(e) - 1 for e in edges]
    shape = (*(n + 1 for n in counts), len(phi), len(phi))
    sums, thinned = np.zeros(shape), np.zeros(shape)
    inner = (slice(1, None),) * 3
    if template.filters:
        c, front, smooth = template.values, 0, True
        raw = _NO_VALUES if template.raw is template.values else template.raw
    else:
        c, front, raw, smooth = template.coefficients, template.front, template.raw, False

    def multiply(part: tuple[int, int]) -> None:
        blocks = np.array([[0, 0], counts[:2]])
        blocks[:, 0 if template.ndim == 3 else 1] = part
        equation_kernels.block_products(c, front, raw, smooth, phi, every, *edges, blocks, sums[inner], thinned[inner])

    count = counts[0 if template.ndim == 3 else 1]
    map_threads(multiply, pairwise([count * k // _PARTS for k in range(_PARTS + 1)]))
    # values and noise of the reference as it came belong together, which frames do not share
    noisy = template.value_noise()
    for out in (sums, thinned):
        out *= scale[:, None]
        out[..., -2, -2] -= noisy * out[..., -1, -1]
        for axis in range(3):
            np.cumsum(out, axis=axis, out=out)
    return sums, thinned


def _counted(shape: Sequence[int]) -> NDArray[np.float64]:
    """Return how many blocks lie before each edge, so that any box of them holds some."""
    planes, rows, columns = (np.arange(n, dtype=float) for n in shape)
    return np.asarray(planes[:, None, None] * rows[:, None] * columns)


def _parts(volume: NDArray[Any]) -> list[tuple[int, int]]:
    """Split the rows of all planes; the same however many threads there are, as sums depend on it."""
    rows = volume.shape[0] * volume.shape[1]
    count = max(min(_PARTS, volume.size // _SMALL), 1)
    return [(rows * k // count, rows * (k + 1) // count) for k in range(count)]


def volume_of(image: NDArray[Any]) -> NDArray[Any]:
    """Return an image as the kernels read it: one plane if it has no more."""
    return image if image.ndim == 3 else image[None]


def _inverse(normal: NDArray[np.float64]) -> NDArray[np.float64]:
    scale = 1 / np.sqrt(np.maximum(np.diag(normal), 1e-300))
    try:
        return np.asarray(np.linalg.inv(normal * np.outer(scale, scale)) * np.outer(scale, scale))
    except np.linalg.LinAlgError:
        return np.full_like(normal, np.nan)
