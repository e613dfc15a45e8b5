"""Whether a long spot is two: the shape of the residual along it, in units of what two equal spots would leave.

A sum of two spots of one width has the third and fourth moments of two points blurred by it. Along the long axis, with
``f`` the share of the variance that comes from the distance of the two, the excess kurtosis is ``f^2 (c^2 - 2)``, the
skewness ``f^(3/2) c``; a uniform rod has ``-1.2 f^2``, a Gaussian 0. Both moments are the coefficients of ``g v^3`` and
``g v^4`` beside the spot's own terms (Gram and Charlier's series), found by one weighted linear fit to the residual.
The series stops there, so that what it says of two spots grows as they part, about with the square of the aspect ratio;
divided by that, two spots 2 to 4 widths apart come out at .65 to 2, uniform rods at .3 to .55 (aspect up to 2).
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# numba infers the types of what it compiles
from __future__ import annotations

import numpy as np

from stackalign.core.compiled import kernel
from stackalign.core.spots.linear import cholesky, invert, substitute

TERMS = 9  # g {1, v, s, v^2, v s, s^2, v^3, v^4} and 1, v along the spot and s across it, in widths
LEAST_ASPECT = 1.3  # spots as round as that could only be two that are nearer than 1.7 of their widths
SIGNIFICANT = 25.0  # chi^2 of two degrees of freedom: 3e-6 by chance


@kernel
def elongated(p):
    """Return whether a spot is long enough to be put to the test; ``p`` as below."""
    a, b, c = p[2] * p[2], p[2] * p[3], p[3] * p[3] + p[4] * p[4]
    mean, spread = 0.5 * (a + c), np.sqrt(0.25 * (a - c) ** 2 + b * b)
    flat = mean - spread
    return flat > 0.0 and mean + spread > LEAST_ASPECT * LEAST_ASPECT * flat


@kernel
def pairness(residual, mask, yy, xx, p, mle, noise, variance, gram, factor, work):
    """Return over 0.6 for two spots in a row, less for a rod, 0 for one spot and where noise hides the difference.

    Parameters
    ----------
    residual, mask, yy, xx : float32 (N,)
        Data less model, what counts, and where.
    p : float64 (7,)
        y, x, l11, l21, l22, amplitude, offset of the fit.
    mle : bool
        Weigh by the Poisson variance of the model plus ``noise``; else all pixels alike, of ``variance``.
    gram, factor, work
        Room for (9, 9), (9, 9) and (3, 9) numbers.
    """
    l11, l21, l22, amplitude = p[2], p[3], p[4], p[5]
    a, b, c = l11 * l11, l11 * l21, l21 * l21 + l22 * l22  # the inverse of the covariance, in (y, x)
    mean, spread = 0.5 * (a + c), np.sqrt(0.25 * (a - c) ** 2 + b * b)
    flat, steep = mean - spread, mean + spread
    if not flat > 0.0:
        return 0.0
    angle = 0.5 * np.arctan2(2.0 * b, a - c) + 0.5 * np.pi  # of the long axis, from y towards x
    cy, cx = np.cos(angle) * np.sqrt(flat), np.sin(angle) * np.sqrt(flat)
    ey, ex = -np.sin(angle) * np.sqrt(steep), np.cos(angle) * np.sqrt(steep)
    gram[:] = 0.0
    right, column, basis = work[0], work[1], work[2]
    right[:] = 0.0
    for k in range(residual.shape[0]):
        if mask[k] <= 0:
            continue
        dy, dx = yy[k] - p[0], xx[k] - p[1]
        v, s = cy * dy + cx * dx, ey * dy + ex * dx
        g = np.exp(-0.5 * (v * v + s * s))
        basis[0], basis[1], basis[2], basis[3] = g, g * v, g * s, g * v * v
        basis[4], basis[5], basis[6], basis[7], basis[8] = g * v * s, g * s * s, g * v**3, g * v**4, 1.0
        weight = 1.0 / max(amplitude * g + p[6] + noise, 1e-3) if mle else 1.0 / variance
        for i in range(TERMS):
            term = weight * basis[i]
            right[i] += term * residual[k]
            for j in range(i + 1):
                gram[i, j] += term * basis[j]
    if not cholesky(gram, TERMS, 1e-9, factor, 1e-12):
        return 0.0
    substitute(factor, TERMS, right, column)
    third, fourth = column[6], column[7]
    invert(factor, TERMS, gram)  # their covariance
    v33, v34, v44 = gram[6, 6], gram[6, 7], gram[7, 7]
    det = v33 * v44 - v34 * v34
    if not det > 0.0:
        return 0.0
    chi2 = (third * third * v44 - 2.0 * third * fourth * v34 + fourth * fourth * v33) / det
    if chi2 < SIGNIFICANT:
        return 0.0
    share = 1.0 - flat / steep
    skewness, kurtosis = 6.0 * third / amplitude, 24.0 * fourth / amplitude
    return 0.5 * (skewness * skewness / share**3 - kurtosis / share**2) * flat / steep
