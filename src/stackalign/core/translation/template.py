"""A reference that translations are fitted to: its slopes and weights, and the equations of frames that have no holes.

Images are float32 (z, y, x) inside, one plane in 2-D.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.denoise import Denoised, wiener
from stackalign.core.frames.holes import filled_along_lines, filled_smoothly
from stackalign.core.frames.noise import NoiseModel
from stackalign.core.threads import map_threads
from stackalign.core.translation import projection_kernels, template_kernels
from stackalign.core.warping.kernels import PAD
from stackalign.core.warping.resample import filter_spline, spline_coefficients

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_WIDE = 128  # px: from here on a pixel lost at each border costs less than filtering every frame
_DEEP = 24  # planes: the same; a plane lost costs more, but so does the filter of a volume
_LEAST = 16  # pixels of an image that only leads to the next finer one
_TALL = 256  # rows: from here on every fourth of them tells the first steps
_EVERY = 4
_EVEN = 0.1  # of the mean variance: the least that a dark pixel's counts for, so that few do not rule the fit
_PLANES = slice(PAD - 1, 2 - PAD)  # what a volume's coefficients keep of the mirrored planes
_SLOPE = 3  # pixels along an axis that it takes to tell a slope
_HOLED = 0.97  # of the inside of a reference: with less of it known, what is missing is not just a narrow border
_NARROW, _WIDEST = 64, 16  # of an axis: the width of blocks near its ends and in its middle
_PARTS, _SMALL = 8, 1 << 16  # that a pass over all pixels is split into; pixels of one, at least
_NOTHING = np.zeros((1, 1, 1), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class TranslationTemplate:
    """A reference with its derivatives, weights and normal equations.

    Attributes
    ----------
    shape : tuple of int
        Of the reference, (y, x) or (z, y, x).
    level : float
        Mean that is subtracted from the reference.
    coefficients, known : float32 (z, y, x)
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
    known: NDArray[np.float32]
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
    def passed(self) -> float:
        """Variance of the noise that is left in the values, over that of a frame."""
        return 0.0 if self.denoised is None else self.denoised.passed / self.frames

    @property
    def heard(self) -> float:
        """What the noise of the reference adds to the variance of a fit, over what that of a frame adds."""
        return 0.0 if self.denoised is None else self.denoised.heard / self.frames

    @property
    def padded(self) -> NDArray[np.float32]:
        """The spline coefficients with mirrored pixels around them."""
        return self._later["padded"]  # type: ignore[no-any-return]

    @property
    def raw(self) -> NDArray[np.float32]:
        """The reference less ``level``, not filtered."""
        return self._later["raw"]  # type: ignore[no-any-return]

    @property
    def basis(self) -> NDArray[np.float32]:
        """Gradients and values (K - 1, z, y, x), worked out once."""
        if "basis" not in self._later:
            basis = _slopes(self.padded, self.values.shape)
            basis[-1] = self.values
            self._later["basis"] = basis
        return self._later["basis"]  # type: ignore[no-any-return]

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
        raw = centred = (filled - np.float32(level)).astype(np.float32)
        denoised: Denoised | None = None
        model = noise or NoiseModel(1.0)
        camera = np.array([model.constant, model.slope, model.floor])
        if np.isfinite(frames):
            variance = template_kernels.mean_variance(volume_of(centred), used, level, camera) / frames
            denoised = wiener(centred, None if noise is None else variance, resampled=frames > 1)
            centred = denoised.image
        padded = spline_coefficients(centred, 3)
        whole, cut = slice(None), slice(PAD, -PAD)
        inner = (whole, cut, cut) if d == 2 else (cut, cut, cut)
        volume = volume_of(centred)
        # variance of the filtered reference: noise that pulls a pixel down must not raise its weight
        least = _EVEN * template_kernels.mean_variance(volume, used, level, camera)
        shade = _NOTHING if window is None else np.ascontiguousarray(volume_of(window), np.float32)
        weight = np.empty(volume.shape, np.float32)
        template_kernels.weigh(volume, used, shade, level, camera, least, weight)
        parts = map_threads(lambda b: template_kernels.slope_products(padded, PAD, volume, weight, *b), _parts(volume))
        normal = np.asarray(sum(parts))
        usable = used.astype(np.float32)
        deep = reference.shape[0] >= (_LEAST if rough else _DEEP)
        for k, n in enumerate(reference.shape):
            if n < _SLOPE:
                normal[k, k] = 1.0  # all else in its row is zero, so that its step is zero too
        return cls(
            reference.shape,
            level,
            np.ascontiguousarray(padded[_PLANES, cut, cut] if d == 3 else padded[inner]),
            np.pad(usable, ((1, 2), (0, 0), (0, 0)), mode="edge") if d == 3 else usable,
            volume,
            weight,
            normal,
            model,
            frames,
            mask is None and min(reference.shape[-2:]) >= (_LEAST if rough else _WIDE) and (d == 2 or deep),
            denoised,
            {"padded": padded, "raw": volume if raw is centred else np.ascontiguousarray(volume_of(raw))},
        )

    @property
    def ndim(self) -> int:
        """Spatial dimensions."""
        return len(self.shape)

    @property
    def blind(self) -> NDArray[np.bool_]:
        """(d,) True along axes of one or two pixels: no slope is known there, so only whole steps can be told."""
        return np.array([n < _SLOPE for n in self.shape])

    def contrast(self) -> float:
        """Return the weighted variance of the reference, intensity squared."""
        n = self.normal
        return float(n[-2, -2] / n[-1, -1] - (n[-2, -1] / n[-1, -1]) ** 2)

    def sensitivity(self) -> NDArray[np.float64]:
        """Return the Cramer-Rao bound of a frame that covers all of it, standard error per axis, pixels."""
        covariance = _inverse(self.normal)
        return np.sqrt(np.maximum(np.diag(covariance)[: self.ndim], 0))


@dataclass(frozen=True, slots=True, eq=False)
class ShiftEquations:
    """The linear equations of a shift for frames whose pixels are read as B-spline coefficients.

    A frame would have to be filtered to be interpolated (its pixels turned into coefficients). Filter and shift
    commute, so that the filter can be moved to the images that the frame is projected on: once for all frames. The
    price is a pixel at each border, whose smoothed value the reference does not tell: little of a wide image.

    Attributes
    ----------
    basis : float32 (K - 1, z, y, x)
        Gradients and values of the reference, smoothed by the B-spline like the frames. The values are those before
        the Wiener filter, which bends them near the borders: frames that leave a border would be pulled to the other.
        ``phi`` is filtered and serves as an instrument, so that their noise moves all frames alike.
    phi, scale : int16 (K, z, y, x), float64 (K,)
        Weighted gradients, values and 1, filtered, in units of the scale.
    sums : float64 (M, N, K, K)
        Sums of ``phi_i * basis_j`` over the rows above and the columns before each of the ``edges``, so that those of a
        block are the difference of its corners' (Crow, SIGGRAPH 1984); of a volume, just the sum of all.
    thinned : float64 (M, N, K, K)
        The same over one of ``every`` rows, which tell the first steps.
    edges : int64 (M,), (N,)
        Rows and columns where what a frame covers may begin and end: narrow near the borders, wide in the middle.
    every : int
        1 for small templates.
    """

    basis: NDArray[np.float32]
    phi: NDArray[np.int16]
    scale: NDArray[np.float64]
    sums: NDArray[np.float64]
    thinned: NDArray[np.float64]
    edges: tuple[NDArray[np.int64], NDArray[np.int64]]
    every: int

    @classmethod
    def of(cls, template: TranslationTemplate) -> ShiftEquations:
        """Work them out."""
        d, weight = template.ndim, template.weight
        counted = weight > 0
        if template.filters:
            basis = _slopes(spline_coefficients(_image(template.values, d), 1), weight.shape)
            for axis in range(3 - d, 3):
                counted[(slice(None),) * axis + ([0, -1],)] = False
        else:
            basis = _slopes(template.padded, weight.shape)
        if template.raw is not template.values:
            basis[-1] = _smoothed(template.raw, d) if template.filters else template.raw
        elif not template.filters:
            basis[-1] = template.values
        phi, scale = np.empty((d + 2, *weight.shape), np.int16), np.ones(d + 2)
        spare: list[NDArray[np.float32]] = []  # fresh memory is slow

        def project(k: int) -> None:
            image = spare.pop() if spare else np.empty_like(weight)
            if k == d + 1:
                image[:] = weight
            elif k == d:
                np.multiply(weight, template.values, out=image)
            else:
                template_kernels.weighted_slope(template.padded, PAD, k, weight, image)
            if template.filters:
                filter_spline(image, 3)
            # beyond what counts the reference is not known: what the filter spread there is cut off again
            scale[k] = projection_kernels.quantised(image, counted, phi[k])
            spare.append(image)

        map_threads(project, range(d + 2))
        every = _EVERY if basis.shape[2] >= _TALL else 1
        edges = (_edges(weight.shape[1]), _edges(weight.shape[2]))
        products = partial(_block_sums, edges=edges) if d == 2 else _gram
        sums = products(basis, phi, scale, 1)
        thinned = sums if every == 1 else products(basis, phi, scale, every)
        for k in np.flatnonzero(template.blind):
            # all else in its row is zero, so that its step is zero too
            sums[..., k, k] = thinned[..., k, k] = _counted(sums.shape[:2])
        return cls(basis, phi, scale, sums, thinned, edges, every)


def _slopes(padded: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the slopes along the axes, and the values, of a spline (d + 1, z, y, x)."""
    basis = np.empty((3 if len(padded) == 1 else 4, *shape), np.float32)
    map_threads(lambda b: template_kernels.slopes(padded, PAD, basis, *b), _parts(basis[0]))
    return basis


def _smoothed(volume: NDArray[np.float32], d: int) -> NDArray[np.float32]:
    """Return the cubic spline whose coefficients are the pixels, at the pixels."""
    padded = spline_coefficients(_image(volume, d), 1)
    out = np.empty_like(volume)
    map_threads(lambda b: template_kernels.smoothed(padded, PAD, out, *b), _parts(out))
    return out


def _gram(
    basis: NDArray[np.float32], phi: NDArray[np.int16], scale: NDArray[np.float64], every: int
) -> NDArray[np.float64]:
    parts = _parts(basis[0])
    whole = sum(map_threads(lambda b: projection_kernels.gram(basis, phi, scale, every, *b), parts))
    return np.asarray(whole)[None, None]


def _edges(n: int) -> NDArray[np.int64]:
    """Return where blocks along an axis of ``n`` pixels begin and end: what lies between frame and block is lost."""
    narrow, wide = max(n // _NARROW, 1), max(n // _WIDEST, 1)
    near = [1, *range(narrow, n // 8, narrow)]
    middle = range(n // 8, n - n // 8, wide)
    return np.unique([0, *near, *middle, *(n - k for k in near), n])


def _block_sums(
    basis: NDArray[np.float32],
    phi: NDArray[np.int16],
    scale: NDArray[np.float64],
    every: int,
    edges: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> NDArray[np.float64]:
    """Return the sums over all blocks before each of the edges, see `ShiftEquations`."""
    rows, columns = edges
    count = len(rows) - 1
    out = np.zeros((count + 1, len(columns), 4, 4))
    cuts = [count * k // _PARTS for k in range(_PARTS + 1)]
    map_threads(
        lambda b: projection_kernels.block_products(basis, phi, every, rows, columns, *b, out[1:, 1:]), pairwise(cuts)
    )
    out *= scale[:, None]
    for axis in (0, 1):
        np.cumsum(out, axis=axis, out=out)
    return out


def _counted(shape: Sequence[int]) -> NDArray[np.float64]:
    """Return how many blocks lie before each edge, so that any box of them holds some; of a volume, 1."""
    if shape == (1, 1):
        return np.ones((1, 1))
    return np.asarray(np.multiply.outer(np.arange(shape[0]), np.arange(shape[1])), float)


def _parts(volume: NDArray[Any]) -> list[tuple[int, int]]:
    """Split the rows of all planes; the same however many threads there are, as sums depend on it."""
    rows = volume.shape[0] * volume.shape[1]
    count = max(min(_PARTS, volume.size // _SMALL), 1)
    return [(rows * k // count, rows * (k + 1) // count) for k in range(count)]


def volume_of(image: NDArray[Any]) -> NDArray[Any]:
    """Return an image as the kernels read it: one plane if it has no more."""
    return image if image.ndim == 3 else image[None]


def _image(volume: NDArray[Any], d: int) -> NDArray[Any]:
    return volume if d == 3 else volume[0]


def _inverse(normal: NDArray[np.float64]) -> NDArray[np.float64]:
    scale = 1 / np.sqrt(np.maximum(np.diag(normal), 1e-300))
    try:
        return np.asarray(np.linalg.inv(normal * np.outer(scale, scale)) * np.outer(scale, scale))
    except np.linalg.LinAlgError:
        return np.full_like(normal, np.nan)
