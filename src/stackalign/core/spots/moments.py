"""Weighted moments of a patch and the normal equations of a Gaussian spot that follow from them; patch pixels (y, x).

With ``u = L^T (r - r0)`` the Jacobian is ``g {1, u1, u2, u1^2, u1 u2, u2^2}`` and 1: one set of moments serves the
circular, the elliptic and the rotated model, and is well scaled for float32.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# numba infers the types of what it compiles
from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, kernel
from stackalign.core.spots.approximations import exp, log

# Models: free shape terms of S. Estimators.
CIRCULAR, ELLIPTIC, ROTATED = 0, 1, 2
LSQ, MLE = 0, 1

# Places in the vector of sums: w; w g u^k (6); w g^2 u^k (15); e w g u^k (6), e w; merit; sum of squares
GU, GGU, RHS, MERIT, SSE, SUMS = 1, 7, 22, 29, 30, 31
# w g^2 u1^i u2^j for each pair of the six basis terms 1, u1, u2, u1^2, u1 u2, u2^2 -> its place in GGU
PAIRS = np.array(
    [
        [0, 1, 2, 3, 4, 5],
        [1, 3, 4, 6, 7, 8],
        [2, 4, 5, 7, 8, 9],
        [3, 6, 7, 10, 11, 12],
        [4, 7, 8, 11, 12, 13],
        [5, 8, 9, 12, 13, 14],
    ]
)

# the basis term of each row of the normal equations; -1: the sum of u1^2 and u2^2; 6: the constant
ROWS = np.array([[0, 1, 2, -1, 6, 0, 0], [0, 1, 2, 3, 5, 6, 0], [0, 1, 2, 3, 4, 5, 6]])

_F = np.float32
_ZERO, _HALF, _ONE = _F(0), _F(0.5), _F(1)
_FAR = _F(-80.0)


@fast_inlined
def moments(data, mask, inverse, yy, xx, y, x, l11, l21, l22, amplitude, offset, mle, noise, floor, sums):
    """Fill ``sums`` with the moments of the weighted normal equations at one set of parameters.

    ``noise`` is the constant part of the variance: the camera's for MLE (the model is added), all of it for LSQ.
    ``inverse`` holds 1 / max(data + noise, small), so that the logarithm of the likelihood ratio loses no digits.
    """
    w0 = _ZERO
    a0 = a1 = a2 = a3 = a4 = a5 = _ZERO
    b0 = b1 = b2 = b3 = b4 = b5 = b6 = b7 = b8 = b9 = b10 = b11 = b12 = b13 = b14 = _ZERO
    c0 = c1 = c2 = c3 = c4 = c5 = c6 = _ZERO
    merit = sse = _ZERO
    constant = _ONE / noise if not mle else _ZERO
    for k in range(data.shape[0]):
        dx = xx[k] - x
        u1 = l11 * (yy[k] - y) + l21 * dx
        u2 = l22 * dx
        u11 = u1 * u1
        u12 = u1 * u2
        u22 = u2 * u2
        g = exp(max(-_HALF * (u11 + u22), _FAR))
        model = amplitude * g + offset
        e = data[k] - model
        ok = mask[k]
        if mle:
            total = max(model + noise, floor)
            w = ok / total
            seen = data[k] + noise
            merit += ok * ((total - seen) - seen * log(total * inverse[k]))
        else:
            w = ok * constant
            merit += _HALF * e * e * w
        sse += ok * e * e
        we = w * e
        wg = w * g
        wgg = wg * g
        eg = we * g
        w0 += w
        a0 += wg
        a1 += wg * u1
        a2 += wg * u2
        a3 += wg * u11
        a4 += wg * u12
        a5 += wg * u22
        b0 += wgg
        b1 += wgg * u1
        b2 += wgg * u2
        s11 = wgg * u11
        s12 = wgg * u12
        s22 = wgg * u22
        b3 += s11
        b4 += s12
        b5 += s22
        b6 += s11 * u1
        b7 += s11 * u2
        b8 += s22 * u1
        b9 += s22 * u2
        b10 += s11 * u11
        b11 += s11 * u12
        b12 += s11 * u22
        b13 += s22 * u12
        b14 += s22 * u22
        c0 += eg
        c1 += eg * u1
        c2 += eg * u2
        c3 += eg * u11
        c4 += eg * u12
        c5 += eg * u22
        c6 += we
    sums[0] = w0
    sums[1], sums[2], sums[3], sums[4], sums[5], sums[6] = a0, a1, a2, a3, a4, a5
    sums[7], sums[8], sums[9], sums[10], sums[11], sums[12], sums[13], sums[14] = b0, b1, b2, b3, b4, b5, b6, b7
    sums[15], sums[16], sums[17], sums[18], sums[19], sums[20], sums[21] = b8, b9, b10, b11, b12, b13, b14
    sums[22], sums[23], sums[24], sums[25], sums[26], sums[27], sums[28] = c0, c1, c2, c3, c4, c5, c6
    sums[29], sums[30] = merit, sse


@fast_inlined
def squares(residual, mask, yy, xx, y, x, l11, l21, l22, h, sums):
    """Fill the weighted parts of ``sums`` with squares of residuals over 1 - leverage; ``h``: its 22 coefficients."""
    for k in range(SUMS):
        sums[k] = 0.0
    h0, h1, h2, h3, h4, h5, h6 = h[0], h[1], h[2], h[3], h[4], h[5], h[6]
    h7, h8, h9, h10, h11, h12, h13, h14 = h[7], h[8], h[9], h[10], h[11], h[12], h[13], h[14]
    h15, h16, h17, h18, h19, h20, h21 = h[15], h[16], h[17], h[18], h[19], h[20], h[21]
    w0 = _ZERO
    a0 = a1 = a2 = a3 = a4 = a5 = _ZERO
    b0 = b1 = b2 = b3 = b4 = b5 = b6 = b7 = b8 = b9 = b10 = b11 = b12 = b13 = b14 = _ZERO
    for k in range(residual.shape[0]):
        dx = xx[k] - x
        u1 = l11 * (yy[k] - y) + l21 * dx
        u2 = l22 * dx
        u11, u12, u22 = u1 * u1, u1 * u2, u2 * u2
        g = exp(max(-_HALF * (u11 + u22), _FAR))
        slope = h1 + h2 * u1 + h3 * u2 + h4 * u11 + h5 * u12 + h6 * u22
        cubic = (h13 * u1 + h14 * u2) * u11 + (h15 * u1 + h16 * u2) * u22
        quartic = (h17 * u11 + h18 * u12 + h19 * u22) * u11 + (h20 * u12 + h21 * u22) * u22
        square = h7 + h8 * u1 + h9 * u2 + h10 * u11 + h11 * u12 + h12 * u22 + cubic + quartic
        lever = min(h0 + g * (slope + g * square), _F(0.9))
        loose = residual[k] / (_ONE - lever)
        w = mask[k] * loose * loose
        wg = w * g
        wgg = wg * g
        s11, s12, s22 = wgg * u11, wgg * u12, wgg * u22
        w0 += w
        a0 += wg
        a1 += wg * u1
        a2 += wg * u2
        a3 += wg * u11
        a4 += wg * u12
        a5 += wg * u22
        b0 += wgg
        b1 += wgg * u1
        b2 += wgg * u2
        b3 += s11
        b4 += s12
        b5 += s22
        b6 += s11 * u1
        b7 += s11 * u2
        b8 += s22 * u1
        b9 += s22 * u2
        b10 += s11 * u11
        b11 += s11 * u12
        b12 += s11 * u22
        b13 += s22 * u12
        b14 += s22 * u22
    sums[0] = w0
    sums[1], sums[2], sums[3], sums[4], sums[5], sums[6] = a0, a1, a2, a3, a4, a5
    sums[7], sums[8], sums[9], sums[10], sums[11], sums[12], sums[13], sums[14] = b0, b1, b2, b3, b4, b5, b6, b7
    sums[15], sums[16], sums[17], sums[18], sums[19], sums[20], sums[21] = b8, b9, b10, b11, b12, b13, b14


@kernel
def normal_equations(sums, model, matrix, right):
    """Build the normal equations of a model: terms g, g u1, g u2, its shape terms, 1. Return how many terms."""
    n = 5 + model
    if model == ROTATED:
        for i in range(6):
            right[i] = sums[RHS + i]
            matrix[6, i] = matrix[i, 6] = sums[GU + i]
            for j in range(i + 1):
                matrix[i, j] = matrix[j, i] = sums[GGU + PAIRS[i, j]]
        right[6], matrix[6, 6] = sums[RHS + 6], sums[0]
        return n
    for i in range(n):
        p = ROWS[model, i]
        right[i] = sums[RHS + p] if p >= 0 else sums[RHS + 3] + sums[RHS + 5]
        for j in range(i + 1):
            q = ROWS[model, j]
            if p == 6:
                if q == 6:
                    value = sums[0]
                elif q == -1:
                    value = sums[GU + 3] + sums[GU + 5]
                else:
                    value = sums[GU + q]
            elif p == -1:
                if q == -1:
                    value = sums[GGU + 10] + 2.0 * sums[GGU + 12] + sums[GGU + 14]
                else:
                    value = sums[GGU + PAIRS[3, q]] + sums[GGU + PAIRS[5, q]]
            else:
                value = sums[GGU + PAIRS[p, q]]
            matrix[i, j] = value
            matrix[j, i] = value
    return n
