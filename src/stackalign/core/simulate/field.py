"""Periodic, band-limited fields, known between their samples: exact Fourier shifts, quintic splines for the rest.

A field is a trigonometric polynomial, so a translation is a multiplication of its spectrum: exact to float32 rounding.
For other transforms it is sampled twice as finely (exactly, by padding the spectrum) and read with a B-spline of order
5 (Unser, IEEE Signal Processing Magazine 16(6), 1999), whose error falls with the sixth power of the sampling.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Pixels = NDArray[np.float32]

FINER = 2  # samples a pixel for the splines
ROOM = 2**25  # finer samples, 128 MB: larger scenes are refined only along axes blurred by less than SMOOTH pixels
SMOOTH = 1.3


class Field:
    """A periodic scene.

    Parameters
    ----------
    samples : (…, y, x)
        One period. What lies at the Nyquist frequency counts as a cosine, in phase with the samples.
    origin : (d,)
        Reference coordinates of the first sample.
    shape : tuple of int
        Of a frame; may exceed the period, then the scene repeats within it.
    sigmas : tuple of float, optional
        Standard deviations of a Gaussian that blurs the field, pixels.
    """

    def __init__(
        self, samples: NDArray[np.floating], origin: Array, shape: Sequence[int], sigmas: Sequence[float] | None = None
    ) -> None:
        self.period = samples.shape
        self.origin = np.asarray(origin, float)
        self.shape = tuple(shape)
        self._frequencies = [fft.fftfreq(n) for n in self.period[:-1]] + [fft.rfftfreq(self.period[-1])]
        spectrum = fft.rfftn(np.asarray(samples, np.float32))
        for axis, f in enumerate(self._frequencies):
            if sigmas is not None:
                factor = np.exp(-2 * (np.pi * sigmas[axis] * f) ** 2)
                spectrum *= _along(factor, axis, samples.ndim).astype(np.float32)
        self._spectrum = spectrum
        blur = sigmas if sigmas is not None else (0.0,) * samples.ndim
        tight = samples.size * FINER**samples.ndim > ROOM
        self._finer = tuple(1 if tight and s >= SMOOTH else FINER for s in blur)

    def render(self, matrix: Array, frame: int | None = None) -> Pixels:
        """Return the frame (…, y, x) that sees the scene through ``matrix``; see `Scene.render`."""
        d = len(self.shape)
        if np.array_equal(matrix[:, :d], np.eye(d + 1)[:, :d]):
            return self._shifted(matrix[:d, d] - self.origin)
        from stackalign.core.simulate.field_kernels import read_plane, read_volume

        to_samples = np.diag([*map(float, self._finer), 1.0])
        to_samples[:d, d] = -np.asarray(self._finer) * self.origin
        out = np.empty(self.shape, np.float32)
        (read_plane if d == 2 else read_volume)(self._coefficients, to_samples @ matrix, out)
        return out

    def _shifted(self, shift: Array) -> Pixels:
        spectrum = self._spectrum
        for axis, f in enumerate(self._frequencies):
            # the phase in double precision: a far shift costs no accuracy
            ramp = np.exp(2j * np.pi * np.remainder(f * shift[axis], 1.0))
            ramp[np.abs(f) == 0.5] = np.cos(np.pi * shift[axis])
            spectrum = spectrum * _along(ramp.astype(np.complex64), axis, spectrum.ndim)
        whole = fft.irfftn(spectrum, self.period, overwrite_x=True)
        if all(n <= p for n, p in zip(self.shape, self.period, strict=True)):
            return np.ascontiguousarray(whole[tuple(slice(n) for n in self.shape)])
        return np.pad(whole, [(0, max(n - p, 0)) for n, p in zip(self.shape, self.period, strict=True)], "wrap")[
            tuple(slice(n) for n in self.shape)
        ]

    @cached_property
    def _coefficients(self) -> Pixels:
        """Spline coefficients of the finer field."""
        wide = self._spectrum
        for axis, (n, factor) in enumerate(zip(self.period, self._finer, strict=True)):
            wide = _widened(wide, axis, n, factor, half=axis == len(self.period) - 1)
        size = [n * factor for n, factor in zip(self.period, self._finer, strict=True)]
        # the spline's prefilter is a division by the transform of its samples (Unser 1999, eq. 15)
        for axis, n in enumerate(size):
            f = fft.rfftfreq(n) if axis == len(size) - 1 else fft.fftfreq(n)
            sampled = (66 + 52 * np.cos(2 * np.pi * f) + 2 * np.cos(4 * np.pi * f)) / 120
            wide = wide * _along(self._finer[axis] / sampled, axis, wide.ndim).astype(np.float32)
        return np.asarray(fft.irfftn(wide, size, overwrite_x=True))


def _widened(spectrum: NDArray[np.complex64], axis: int, n: int, factor: int, *, half: bool) -> NDArray[np.complex64]:
    """Return the spectrum of the same field sampled ``factor`` times as finely along an axis of ``n`` samples."""
    if factor == 1:
        return spectrum
    old = np.moveaxis(spectrum, axis, 0)
    size = factor * n // 2 + 1 if half else factor * n
    new = np.zeros((size, *old.shape[1:]), old.dtype)
    positive = (n + 1) // 2
    new[:positive] = old[:positive]
    if n % 2 == 0:  # the Nyquist term is shared by both signs
        new[n // 2] = old[n // 2] / 2
    if not half and n > 1:
        new[-(n // 2) :] = old[-(n // 2) :]
        if n % 2 == 0:
            new[-(n // 2)] /= 2
    return np.moveaxis(new, 0, axis)


def _along(values: NDArray[np.generic], axis: int, ndim: int) -> NDArray[np.generic]:
    return values.reshape([-1 if i == axis else 1 for i in range(ndim)])
