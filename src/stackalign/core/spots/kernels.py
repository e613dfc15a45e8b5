"""Numba kernels of the 2-D Gaussian fit: Levenberg-Marquardt on one patch, started from moments; patch pixels (y, x).

The model is ``A exp(-|u|^2 / 2) + o`` with ``u = L^T (r - r0)`` and ``L`` lower triangular: ``L L^T`` is the inverse of
the spot's covariance matrix. A step is taken in the frame of ``u`` (``r0 += L^-T q``, ``L L^T -> L exp(S) L^T``), where
the Jacobian is ``g {1, u1, u2, u1^2, u1 u2, u2^2}`` and 1. So one set of moments gives the normal equations of the
circular, the elliptic and the rotated model, they are well scaled for float32, and no width can turn negative.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# numba infers the types of what it compiles
from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, inlined, kernel
from stackalign.core.spots.approximations import exp
from stackalign.core.spots.linear import cholesky, invert, substitute
from stackalign.core.spots.moments import (
    CIRCULAR,
    ELLIPTIC,
    GGU,
    GU,
    MERIT,
    PAIRS,
    ROTATED,
    SSE,
    SUMS,
    moments,
    normal_equations,
    squares,
)
from stackalign.core.spots.pair_test import SIGNIFICANT, TERMS, elongated, pairness
from stackalign.core.spots.start import rim_weights, start, to_model

# Columns of the result
A, Y, X, SY, SX, ANGLE, OFFSET = range(7)
ERRORS = 7  # the standard errors of the seven, in their order
R2, SNR, CHI2, ROUNDS, NEIGHBOUR, EXTREME, PAIR, COLUMNS = 14, 15, 16, 17, 18, 19, 20, 21
# How the iteration ended
CONVERGED, ROUNDS_SPENT, AT_BOUND, TOO_FEW, FLAT = 0, 1, 2, 3, 4

_F = np.float32
_ZERO, _HALF, _ONE = _F(0), _F(0.5), _F(1)
# twice the gain in log-likelihood: a step is a twentieth of a standard error
SETTLED = 3e-3
_FAR, _HUGE = _F(-80.0), _F(np.inf)


@kernel
def advance(p, theta, model, least, most, h, w, out):
    """Move the parameters by a solution of the normal equations; True if a bound held a step back."""
    amplitude = p[5]
    fresh = amplitude + theta[0]
    if fresh * amplitude <= 0.1 * amplitude * amplitude:  # keep the sign: bright stays bright
        fresh = 0.1 * amplitude
    q1, q2 = theta[1] / amplitude, theta[2] / amplitude
    long = np.sqrt(q1 * q1 + q2 * q2)
    if long > 1.5:  # widths
        q1, q2 = q1 * 1.5 / long, q2 * 1.5 / long
    if model == CIRCULAR:
        s11 = s22 = -2.0 * theta[3] / amplitude
        s12 = 0.0
    elif model == ELLIPTIC:
        s11, s12, s22 = -2.0 * theta[3] / amplitude, 0.0, -2.0 * theta[4] / amplitude
    else:
        s11, s12, s22 = -2.0 * theta[3] / amplitude, -theta[4] / amplitude, -2.0 * theta[5] / amplitude
    size = np.sqrt(s11 * s11 + s22 * s22 + 2.0 * s12 * s12)
    if size > 1.2:
        s11, s12, s22 = s11 * 1.2 / size, s12 * 1.2 / size, s22 * 1.2 / size
    dx = q2 / p[4]
    dy = (q1 - p[3] * dx) / p[2]
    out[0] = min(max(p[0] + dy, -1.0), float(h))
    out[1] = min(max(p[1] + dx, -1.0), float(w))
    # exp of the symmetric S, then L exp(S) L^T
    mid, half = 0.5 * (s11 + s22), 0.5 * (s11 - s22)
    radius = np.sqrt(half * half + s12 * s12)
    ch, sh = np.cosh(radius), (np.sinh(radius) / radius if radius > 1e-9 else 1.0)
    scale = np.exp(mid)
    e11, e12, e22 = scale * (ch + sh * half), scale * sh * s12, scale * (ch - sh * half)
    r11 = np.sqrt(e11)
    r21 = e12 / r11
    r22 = np.sqrt(max(e22 - r21 * r21, 1e-30))
    l11 = p[2] * r11
    l21 = p[3] * r11 + p[4] * r21
    l22 = p[4] * r22
    out[2], out[3], out[4], out[5], out[6] = l11, l21, l22, fresh, p[6] + theta[4 + model]
    # widths: eigenvalues of L L^T are 1 / variance
    a, b, c = l11 * l11, l11 * l21, l21 * l21 + l22 * l22
    mean, spread = 0.5 * (a + c), np.sqrt(0.25 * (a - c) ** 2 + b * b)
    big, small = mean + spread, max(mean - spread, 1e-12)
    top, bottom = 1.0 / (least * least), 1.0 / (most * most)
    if big <= top and small >= bottom:
        return False
    # rebuild with clipped eigenvalues
    angle = 0.5 * np.arctan2(2.0 * b, a - c)
    big, small = min(max(big, bottom), top), min(max(small, bottom), top)
    cs, sn = np.cos(angle), np.sin(angle)
    a, b, c = big * cs * cs + small * sn * sn, (big - small) * cs * sn, big * sn * sn + small * cs * cs
    out[2] = np.sqrt(a)
    out[3] = b / out[2]
    out[4] = np.sqrt(max(c - out[3] * out[3], 1e-12))
    return True


@kernel
def widths(vyy, vxy, vxx):
    """Return the widths along the axes nearest to y and x, and the angle of the first from y towards x, radians."""
    angle = 0.5 * np.arctan2(2.0 * vxy, vyy - vxx)  # of the wide axis, in (-pi/2, pi/2]
    mean, spread = 0.5 * (vyy + vxx), np.sqrt(0.25 * (vyy - vxx) ** 2 + vxy * vxy)
    wide, narrow = np.sqrt(mean + spread), np.sqrt(max(mean - spread, 0.0))
    if abs(angle) <= np.pi / 4:
        return wide, narrow, angle
    return narrow, wide, angle - np.sign(angle) * np.pi / 2


@kernel
def _spread(inverse, first, last, term):
    """Return the standard error of the sum of ``term[i]`` times the terms ``first`` to ``last`` - 1."""
    total = 0.0
    for i in range(first, last):
        total += term[i] * term[i] * inverse[i, i]
        for j in range(first, i):
            total += 2.0 * term[i] * term[j] * inverse[i, j]
    return np.sqrt(total)


@kernel
def describe(p, inverse, model, term, out):
    """Write amplitude, centre, widths, angle, offset and their standard errors, given the terms' covariance."""
    n = 5 + model
    amplitude, l11, l21, l22 = p[5], p[2], p[3], p[4]
    det = (l11 * l22) ** 2
    vyy, vxx, vxy = (l21 * l21 + l22 * l22) / det, l11 * l11 / det, -l11 * l21 / det
    sy, sx, angle = widths(vyy, vxy, vxx)
    out[A], out[Y], out[X], out[SY], out[SX], out[ANGLE], out[OFFSET] = amplitude, p[0], p[1], sy, sx, angle, p[6]
    out[ERRORS + A] = np.sqrt(inverse[0, 0])
    out[ERRORS + OFFSET] = np.sqrt(inverse[n - 1, n - 1])
    # centre: L^-T q, q = theta / A
    term[1], term[2] = 1.0 / (amplitude * l11), -l21 / (amplitude * l11 * l22)
    out[ERRORS + Y] = _spread(inverse, 1, 3, term)
    out[ERRORS + X] = np.sqrt(inverse[2, 2]) / abs(amplitude * l22)
    # widths along the unit vectors v: d variance = - (L^-1 v)^T S (L^-1 v), S = -2 theta / A (the tilt: - theta / A)
    cs, sn = np.cos(angle), np.sin(angle)
    ay, ax = cs / l11, (sn - l21 / l11 * cs) / l22  # L^-1 of the axis near y
    by, bx = -sn / l11, (cs + l21 / l11 * sn) / l22  # and of the one near x
    for axis in range(3):
        if axis == 0:
            py, px, qy, qx, scale = ay, ax, ay, ax, 0.5 / sy
        elif axis == 1:
            py, px, qy, qx, scale = by, bx, by, bx, 0.5 / sx
        else:
            gap = sy * sy - sx * sx
            py, px, qy, qx = ay, ax, by, bx
            scale = 1.0 / gap if abs(gap) > 1e-12 else np.inf
        if model == CIRCULAR:
            term[3] = (py * qy + px * qx) * 2.0 / amplitude
        elif model == ELLIPTIC:
            term[3], term[4] = py * qy * 2.0 / amplitude, px * qx * 2.0 / amplitude
        else:
            term[3], term[5] = py * qy * 2.0 / amplitude, px * qx * 2.0 / amplitude
            term[4] = (py * qx + px * qy) / amplitude
        spread = _spread(inverse, 3, n - 1, term)
        out[ERRORS + SY + axis] = spread * abs(scale) if np.isfinite(scale) else np.inf
    if model != ROTATED:
        out[ANGLE] = 0.0
        out[ERRORS + ANGLE] = np.nan


@fast_inlined
def residuals(data, yy, xx, p, out):
    """Write data less model; return nothing. ``p`` in float32."""
    for k in range(data.shape[0]):
        dx = xx[k] - p[1]
        u1 = p[2] * (yy[k] - p[0]) + p[3] * dx
        u2 = p[4] * dx
        out[k] = data[k] - p[5] * exp(max(-_HALF * (u1 * u1 + u2 * u2), _FAR)) - p[6]


@kernel
def neighbour(residual, h, w, p, work):
    """Return the highest 3 x 3 mean of the residual outside the spot's core, in units of the amplitude."""
    sign = _ONE if p[5] > 0 else -_ONE
    for i in range(h):
        row = i * w
        for j in range(1, w - 1):
            work[row + j] = residual[row + j - 1] + residual[row + j] + residual[row + j + 1]
    best = _ZERO
    for i in range(1, h - 1):
        row = i * w
        for j in range(1, w - 1):
            v = sign * (work[row - w + j] + work[row + j] + work[row + w + j])
            if v > best:
                dx = j - p[1]
                u1 = p[2] * (i - p[0]) + p[3] * dx
                u2 = p[4] * dx
                if u1 * u1 + u2 * u2 > 1.5:
                    best = v
    return best / (9.0 * abs(p[5]))


@inlined
def take(patch, top, data, mask):
    """Copy a patch, 0 where a pixel is not finite or saturated; return how many count, and how many are saturated."""
    usable = extreme = 0
    for k in range(patch.shape[0]):
        v = patch[k]
        good = v < top and v > -_HUGE
        data[k] = v if good else _ZERO
        mask[k] = _ONE if good else _ZERO
        usable += 1 if good else 0
        extreme += 1 if v >= top else 0
    return usable, extreme


@fast_inlined
def total(data):
    """Return the sum."""
    s = _ZERO
    for k in range(data.shape[0]):
        s += data[k]
    return s


@fast_inlined
def squares_about(data, mask, mean):
    """Return the sum of squared distances from the mean where the mask is 1."""
    s = _ZERO
    for k in range(data.shape[0]):
        away = (data[k] - mean) * mask[k]
        s += away * away
    return s


@inlined
def settle(
    data, mask, inverse, yy, xx, h, w, model, mle, constant, floor, usable, rounds, least, most, p, sums,
    trial, fresh, matrix, factor, right, theta,
):  # fmt: skip
    """Move ``p`` to the best fit by Levenberg and Marquardt's method; ``sums`` become the moments there.

    Returns how it ended, the iterations, and whether a bound held the last step back. The arguments up to ``most`` are
    those of `moments` and `fit_spots`; the last six are room to work in.
    """
    terms = 5 + model
    state, done, bounded = ROUNDS_SPENT, rounds, False
    damping, before, gain, unit = 1e-2, 0.0, 0.0, 1.0
    for i in range(7):
        trial[i] = p[i]
    for trip in range(rounds + 1):
        moments(
            data, mask, inverse, yy, xx, _F(trial[0]), _F(trial[1]), _F(trial[2]), _F(trial[3]), _F(trial[4]),
            _F(trial[5]), _F(trial[6]), mle, constant, floor, fresh,
        )  # fmt: skip
        if trip == 0 or fresh[MERIT] <= sums[MERIT] + 1e-6 * abs(sums[MERIT]):
            gained = sums[MERIT] - fresh[MERIT]
            for i in range(7):
                p[i] = trial[i]
            for i in range(SUMS):
                sums[i] = fresh[i]
            if trip > 0:
                damping *= 0.1
                before = gain
                if bounded and gained < 1e-3 * unit:
                    state, done = AT_BOUND, trip
                    break
        else:
            damping = max(damping * 10.0, 1e-3)
            before = 0.0
            if damping > 1e6:
                break
        if trip == rounds:
            break
        normal_equations(sums, model, matrix, right)
        while not cholesky(matrix, terms, damping, factor):
            damping = max(10.0 * damping, 1e-6)
            if damping > 1e8:
                break
        if damping > 1e8:
            break
        substitute(factor, terms, right, theta)
        gain = 0.0
        for i in range(terms):
            gain += theta[i] * right[i]
        unit = 1.0 if mle else 2.0 * sums[MERIT] / usable  # of the gain: the variance
        bounded = advance(p, theta, model, least, most, h, w, trial)
        # this step is taken; the next would be to it as it is to the one before
        if gain < SETTLED * unit or gain < 1e-9 or gain * gain < SETTLED * unit * before:
            for i in range(7):
                p[i] = trial[i]
            state, done = CONVERGED, trip + 1
            break
    return state, done, bounded


@kernel
def fit_spots(patches, top, noise, mle, model, polarity, rounds, least, most, out, ended):
    """Fit every patch; never fails: ``ended`` says how each one went.

    Parameters
    ----------
    patches : float32 (N, h, w)
        Photons for MLE, anything for LSQ. NaN pixels do not count.
    top : float
        Pixels of at least this value are saturated and do not count.
    noise : float
        Variance of the camera's read noise, photons^2 (MLE only).
    mle : bool
        Poisson likelihood, else least squares.
    model, polarity : int
        CIRCULAR, ELLIPTIC or ROTATED; 1 bright, -1 dark, 0 whichever stands out.
    rounds : int
        Most iterations.
    least, most : float
        Bounds of the widths, pixels.
    out : float64 (N, COLUMNS)
        Result, NaN where there is none.
    ended : int8 (N,)
        CONVERGED, ROUNDS_SPENT, AT_BOUND, TOO_FEW or FLAT.
    """
    count, h, w = patches.shape
    size = h * w
    terms = 5 + model
    data, mask, inverse = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    smooth, queue = np.empty(size, np.float32), np.empty(size + 1, np.float32)
    rim = np.empty(size, np.float32)
    yy, xx = np.empty(size, np.float32), np.empty(size, np.float32)
    for k in range(size):
        yy[k], xx[k] = k // w, k % w
    rim_weights(h, w, rim)
    p, trial = np.empty(7), np.empty(7)
    p32 = np.empty(7, np.float32)
    sums, fresh = np.zeros(SUMS), np.zeros(SUMS)
    matrix, factor, right, theta = np.zeros((7, 7)), np.zeros((7, 7)), np.zeros(7), np.zeros(7)
    covariance = np.zeros((7, 7))
    flat = patches.reshape(count, size)
    gram, gram_factor, room = np.zeros((TERMS, TERMS)), np.zeros((TERMS, TERMS)), np.zeros((3, TERMS))
    for spot in range(count):
        usable, extreme = take(flat[spot], top, data, mask)
        out[spot, :] = np.nan
        out[spot, EXTREME] = extreme
        if usable < terms + 3 or h < 3 or w < 3:
            ended[spot] = TOO_FEW
            continue
        mean = total(data) / usable
        spread = squares_about(data, mask, _F(mean))
        even = not spread > 1e-12 * usable * mean * mean
        if even or not start(data, mask, h, w, polarity, rim, smooth, queue, sums, p):
            ended[spot] = FLAT
            continue
        to_model(model, p)
        if mle:
            constant, floor = _F(max(noise, 0.0)), _F(max(1e-3 * mean, 1e-3))
            for k in range(size):
                v = data[k] + constant
                inverse[k] = _ONE / v if v > floor else _ONE
        else:
            constant, floor = _F(spread / usable), _ZERO
        state, done, bounded = settle(
            data, mask, inverse, yy, xx, h, w, model, mle, constant, floor, usable, rounds, least, most, p, sums,
            trial, fresh, matrix, factor, right, theta,
        )  # fmt: skip
        ended[spot] = AT_BOUND if bounded and state == CONVERGED else state
        normal_equations(sums, model, matrix, right)
        if not cholesky(matrix, terms, 0.0, factor) and not cholesky(matrix, terms, 1e-6, factor):
            ended[spot] = ROUNDS_SPENT if ended[spot] == CONVERGED else ended[spot]
            covariance[:] = np.nan
        else:
            invert(factor, terms, covariance)
        row = out[spot]
        freedom = max(usable - terms, 1)
        sse = sums[SSE]
        # a second spot that would be named leaves far more than that unexplained
        alone = 1.0 - sse / spread > 0.9
        long = elongated(p)
        if not (mle and alone) or long:
            for k in range(7):
                p32[k] = _F(p[k])
            residuals(data, yy, xx, p32, smooth)
        if not mle:
            robust_covariance(smooth, mask, yy, xx, p, constant, model, covariance, matrix, factor, fresh)
        describe(p, covariance, model, theta, row)
        row[R2] = 1.0 - sse / spread
        row[SNR] = abs(p[5]) / np.sqrt(max(sse / freedom, 1e-300))
        row[CHI2] = 2.0 * sums[MERIT] / freedom if mle else np.nan
        row[ROUNDS] = done
        row[PAIR] = 0.0
        row[NEIGHBOUR] = 0.0 if alone else neighbour(smooth, h, w, p, queue)
        if model != ROTATED and ended[spot] == CONVERGED:
            unit = 1.0 if mle else 2.0 * sums[MERIT] / usable
            normal_equations(sums, ROTATED, matrix, right)
            if cholesky(matrix, 7, 1e-6, factor):
                substitute(factor, 7, right, theta)
                gain = 0.0
                for i in range(7):
                    gain += theta[i] * right[i]
                if gain > SIGNIFICANT * unit:  # no spot of this model: two of them may be a long one of the free model
                    settle(
                        data, mask, inverse, yy, xx, h, w, ROTATED, mle, constant, floor, usable, rounds, least, most,
                        p, sums, trial, fresh, matrix, factor, right, theta,
                    )  # fmt: skip
                    long = elongated(p)
                    freedom, sse = max(usable - 7, 1), sums[SSE]
                    if long:
                        for k in range(7):
                            p32[k] = _F(p[k])
                        residuals(data, yy, xx, p32, smooth)
        if long:
            row[PAIR] = pairness(smooth, mask, yy, xx, p, mle, constant, sse / freedom, gram, gram_factor, room)


@inlined
def robust_covariance(residual, mask, yy, xx, p, constant, model, covariance, middle, work, sums):
    """Turn the inverse normal matrix of least squares into a covariance that holds whatever the noise of each pixel.

    White's sandwich, J^T diag(e^2 / (1 - h)^2) J between two inverses, h the leverage of a pixel (MacKinnon & White,
    J. Econometrics 29, 1985, HC3): the shot noise of a spot is higher on the spot, where few pixels carry the fit.
    """
    terms = 5 + model
    leverage = np.zeros(22, np.float32)
    for i in range(terms):
        for j in range(terms):
            value = covariance[i, j] / constant
            p_first, p_last, q_first, q_last = i, i, j, j
            if i == terms - 1:
                p_first = p_last = 6
            elif i >= 3 and model != ROTATED:
                p_first, p_last = (3, 5) if model == CIRCULAR else (2 * i - 3, 2 * i - 3)
            if j == terms - 1:
                q_first = q_last = 6
            elif j >= 3 and model != ROTATED:
                q_first, q_last = (3, 5) if model == CIRCULAR else (2 * j - 3, 2 * j - 3)
            for a in range(p_first, p_last + 1, 2):
                for b in range(q_first, q_last + 1, 2):
                    if a == 6 and b == 6:
                        leverage[0] += value
                    elif a == 6 or b == 6:
                        leverage[GU + min(a, b)] += value
                    else:
                        leverage[GGU + PAIRS[a, b]] += value
    squares(residual, mask, yy, xx, _F(p[0]), _F(p[1]), _F(p[2]), _F(p[3]), _F(p[4]), leverage, sums)
    scale = 1.0 / (constant * constant)
    normal_equations(sums, model, middle, work[0])
    for i in range(terms):
        for j in range(terms):
            total = 0.0
            for k in range(terms):
                total += covariance[i, k] * middle[k, j]
            work[i, j] = total
    for i in range(terms):
        for j in range(i + 1):
            total = 0.0
            for k in range(terms):
                total += work[i, k] * covariance[k, j]
            middle[i, j] = total * scale
            middle[j, i] = total * scale
    covariance[:] = middle
