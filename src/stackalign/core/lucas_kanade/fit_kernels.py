"""Read and judge some frames in one compiled call: threads then seldom wait for each other's turn in Python."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import kernel
from stackalign.core.lucas_kanade import steps
from stackalign.core.lucas_kanade.steps import standard_errors
from stackalign.core.verdicts.motion_residuals import judge
from stackalign.core.warping.kernels import plane_coefficients

# Places in the vector of a verdict.
CORRELATION, RESIDUAL, CHI2, EXPECTED, SPREAD, RMS, COUNT, KIND, CONDITION = range(9)
VERDICTS = 9
HUBER, TUKEY = 1, 2


@kernel
def splined_plane(frame, level, poles, pad, image, padded):
    """Fill ``image`` with a plane less ``level``, and ``padded`` with the coefficients of its spline, less it.

    Parameters
    ----------
    frame : uint8, uint16 or float32 (y, x)
        All finite.
    level : float32
    poles, pad
        See `plane_coefficients`.
    image : float32 (y, x)
    padded : float32 (y + 2 pad, x + 2 pad)
    """
    plane_coefficients(frame, poles, pad, padded)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            image[y, x] = np.float32(frame[y, x]) - level
    for y in range(padded.shape[0]):
        for x in range(padded.shape[1]):
            padded[y, x] -= level


@kernel
def inflation(standard, scale, kind, cut):
    """Return the variance of an M-estimate over that of weighted least squares with its weights, unit noise.

    ``E[psi^2] E[w] / E[psi']^2`` (Huber & Ronchetti, Robust Statistics, 2009, section 7.6), from the residuals.
    """
    count = len(standard)
    squares = weights = slopes = 0.0
    for n in range(count):
        u = abs(standard[n]) / scale
        if kind == HUBER:
            weight, slope = min(1.0, cut / max(u, 1e-9)), 1.0 if u <= cut else 0.0
        else:
            ratio = (u / cut) ** 2
            inner = max(1.0 - ratio, 0.0)
            weight, slope = inner * inner, inner * (1.0 - 5.0 * ratio) if u < cut else 0.0
        squares += (weight * u) ** 2
        weights += weight
        slopes += slope
    steepness = max(slopes / count, 0.05)
    return squares / count * (weights / count) / steepness**2


@kernel
def judge_frames(
    images, seen, coefficients, known, noise, step, group, widened, points, noise_share, which, matrices, normals,
    results, kind, cut, verdicts, errors,
):  # fmt: skip
    """Judge the residuals of some frames, and work out the standard errors of their motions.

    Parameters
    ----------
    images : float32 (n, z, y, x)
        Frames less the template's level.
    seen, which, matrices, normals, results
        See `settle`.
    coefficients, known, noise, step
        See `judge`.
    group : float64 (K, d + 1, d + 1)
        Generators.
    widened : float64 (K, K)
        Deviation of motions, in units of that to a reference free of noise.
    points : float64 (N, d)
        Places that standard errors are wanted of; none if there are none.
    noise_share : float
        Variance of a frame's noise over that of residuals.
    kind, cut
        Robust weights: see `products`.
    verdicts : float64 (n, VERDICTS)
        Filled: see the constants.
    errors : float64 (n, N, d)
        Filled with standard errors.
    """
    d = group.shape[1] - 1
    for n in which:
        result, verdict, matrix = results[n], verdicts[n], matrices[n]
        standard, told = judge(images[n], seen, coefficients, known, matrix, result[: steps.SCALE], step, noise)
        verdict[CORRELATION], verdict[RESIDUAL], verdict[CHI2], verdict[EXPECTED] = told[0], told[1], told[2], told[3]
        verdict[SPREAD], verdict[RMS], verdict[COUNT], verdict[KIND] = told[4], told[5], len(standard), kind
        if len(standard) == 0 or len(points) == 0:
            continue
        spread = told[2]
        if kind:
            spread = result[steps.SCALE] ** 2 * inflation(standard, result[steps.SCALE], kind, cut)
        spread *= noise_share / result[steps.GAIN] ** 2
        flat = np.ascontiguousarray(matrix[3 - d :, 3 - d :])
        verdict[CONDITION] = standard_errors(normals[n], group, widened, flat, points, spread, errors[n])
