"""Numba kernels that compare a frame with a template at the frame's own pixels, where its noise is white."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import inlined, kernel
from stackalign.core.frames.noise_kernels import binned_median


@kernel
def residuals(frame, seen, coefficients, valid, matrix, brightness, step):
    """Return (model, residual) pairs (N, 2) on every ``step``-th pixel of a frame's own grid, where noise is white.

    ``coefficients`` and ``valid`` (z, y, x) are those of the template, ``matrix`` (4, 4) maps frame -> template.
    """
    flat = coefficients.shape[0] == 1
    nz, ny, nx = coefficients.shape
    line = coefficients.reshape(coefficients.size)
    zs = 1 if frame.shape[0] == 1 else step
    total = ((frame.shape[0] + zs - 1) // zs) * ((frame.shape[1] + step - 1) // step)
    out = np.empty((total * ((frame.shape[2] + step - 1) // step), 2))
    wz, wy, wx = np.ones(4), np.empty(4), np.empty(4)
    tz, ty, tx = np.zeros(4, np.int64), np.zeros(4, np.int64), np.zeros(4, np.int64)
    n = 0
    for z in range(0, frame.shape[0], zs):
        for y in range(0, frame.shape[1], step):
            for x in range(0, frame.shape[2], step):
                if seen.size > 1 and seen[z, y, x] == 0:
                    continue
                depth = matrix[3, 0] * z + matrix[3, 1] * y + matrix[3, 2] * x + matrix[3, 3]
                if depth <= 1e-3:
                    continue
                pz = (matrix[0, 0] * z + matrix[0, 1] * y + matrix[0, 2] * x + matrix[0, 3]) / depth
                py = (matrix[1, 0] * z + matrix[1, 1] * y + matrix[1, 2] * x + matrix[1, 3]) / depth
                px = (matrix[2, 0] * z + matrix[2, 1] * y + matrix[2, 2] * x + matrix[2, 3]) / depth
                if pz < -1e-6 or py < -1e-6 or px < -1e-6:
                    continue
                if pz > nz - 1 + 1e-6 or py > ny - 1 + 1e-6 or px > nx - 1 + 1e-6:
                    continue
                if valid[int(pz + 0.5), int(py + 0.5), int(px + 0.5)] == 0:
                    continue
                if not flat:
                    _taps(pz, nz, wz, tz)
                _taps(py, ny, wy, ty)
                _taps(px, nx, wx, tx)
                value = 0.0
                for a in range(1 if flat else 4):
                    for b in range(4):
                        row = (tz[a] * ny + ty[b]) * nx
                        part = 0.0
                        for e in range(4):
                            part += wx[e] * line[row + tx[e]]
                        value += wz[a] * wy[b] * part
                model = brightness[0] * value + brightness[1]
                out[n, 0], out[n, 1] = model, frame[z, y, x] - model
                n += 1
    return out[:n]


@inlined
def _taps(at, n, weights, indices):
    """Write the weights of four taps and where they are: beyond the border, the spline was filtered with mirrors."""
    whole = int(np.floor(at))
    f = at - whole
    g = 1.0 - f
    weights[0] = g * g * g / 6
    weights[1] = 2 / 3 - f * f * (1 - f / 2)
    weights[2] = 2 / 3 - g * g * (1 - g / 2)
    weights[3] = f * f * f / 6
    if whole >= 1 and whole + 2 < n:
        for k in range(4):
            indices[k] = whole + k - 1
        return
    for k in range(4):
        i = whole + k - 1
        if i < 0 or i >= n:
            i = abs(i) % max(2 * n - 2, 1)
            i = i if i < n else 2 * n - 2 - i
        indices[k] = i


@kernel
def judged(pairs, gain, offset, noise, standard):
    """Standardise (model, residual) pairs and sum them up.

    Parameters
    ----------
    pairs : float64 (N, 2)
    gain, offset : float
        Brightness that the model holds already.
    noise : (constant, slope, floor)
        Variance of a pixel of the reference, less the level, is ``max(constant + slope * value, floor)``.
    standard : float64 (N,)
        Filled with residuals over their deviation.

    Returns
    -------
    correlation, residual, chi2 : float
        Pearson correlation of frame and model, mean squared residual, and that over the noise.
    expected : float
        The correlation that the noise model leaves of a perfect match.
    scale, rms : float
        Robust deviation of ``standard``, and its root mean square: where that is larger, tails are heavier than noise.
    """
    n = len(pairs)
    if n == 0:
        return 0.0, 0.0, 0.0, 1.0, 1e-9, 0.0
    sm = sv = sr = variance = chi = 0.0
    for k in range(n):
        m, r = pairs[k, 0], pairs[k, 1]
        v = max(noise[0] + noise[1] * (m - offset) / gain, noise[2])
        standard[k] = r / np.sqrt(v)
        sm += m
        sv += m + r
        sr += r * r
        variance += v
        chi += r * r / v
    sm, sv = sm / n, sv / n
    smm = svv = smv = 0.0
    for k in range(n):
        m, v = pairs[k, 0] - sm, pairs[k, 0] + pairs[k, 1] - sv
        smm += m * m
        svv += v * v
        smv += m * v
    below = np.sqrt(smm * svv)
    correlation = smv / below if below > 0.0 else 0.0
    expected = np.sqrt(smm / (smm + variance)) if smm > 0.0 else 1.0
    reach = 4.0 * np.sqrt(chi / n)
    middle = binned_median(standard, -reach, reach)
    scale = max(1.4826 * binned_median(np.abs(standard - middle), 0.0, reach), 1e-9)
    return correlation, sr / n, chi / n, expected, scale, np.sqrt(chi / n)


@kernel
def judge(frame, seen, coefficients, valid, matrix, brightness, step, noise):
    """Compare a frame with a template in one call: what `judged` says of the `residuals`, and these standardised."""
    pairs = residuals(frame, seen, coefficients, valid, matrix, brightness, step)
    standard = np.empty(len(pairs))
    return standard, judged(pairs, brightness[0], brightness[1], noise, standard)
