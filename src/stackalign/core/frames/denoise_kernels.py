"""Numba kernels of the Wiener filter: the power of a spectrum over the distance from zero, and its gain."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import inlined, kernel


@inlined
def _bins(row, steps, z, y, bins):
    """Fill the bin of each coefficient of a row."""
    last = np.float32(bins - 1)
    along = np.float32((steps[0] * z) ** 2 + (steps[1] * y) ** 2)
    step = np.float32(steps[2] * steps[2])
    for x in range(row.shape[0]):
        far = np.float32(x)
        row[x] = np.int32(min(np.sqrt(along + step * (far * far)), last))


@kernel
def radial_power(spectrum, steps, bins):
    """Return the sum of squares, and the number, of the coefficients in each bin.

    Parameters
    ----------
    spectrum : float32 (z, y, x)
    steps : float64 (3,)
        Bins from one coefficient to the next along each axis.
    bins : int
        What lies beyond counts to the last one.
    """
    power, count = np.zeros(bins), np.zeros(bins)
    row = np.empty(spectrum.shape[2], np.int32)
    for z in range(spectrum.shape[0]):
        for y in range(spectrum.shape[1]):
            _bins(row, steps, z, y, bins)
            for x in range(spectrum.shape[2]):
                value = spectrum[z, y, x]
                power[row[x]] += value * value
                count[row[x]] += 1.0
    return power, count


@kernel
def scale_radially(spectrum, steps, gain):
    """Multiply each coefficient by the gain of its bin, in place; parameters as `radial_power`."""
    row = np.empty(spectrum.shape[2], np.int32)
    for z in range(spectrum.shape[0]):
        for y in range(spectrum.shape[1]):
            _bins(row, steps, z, y, gain.shape[0])
            for x in range(spectrum.shape[2]):
                spectrum[z, y, x] *= gain[row[x]]
