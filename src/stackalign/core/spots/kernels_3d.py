"""Numba kernel of the 3-D Gaussian fit, widths along the axes (or one width); patch voxels (z, y, x), float64.

Volumes are few, so the Jacobian is formed voxel by voxel. A step is taken in units of the widths and in their
logarithms, as in the 2-D kernels, so that the normal equations are well scaled and no width turns negative.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# numba infers the types of what it compiles
from __future__ import annotations

import numpy as np

from stackalign.core.compiled import kernel
from stackalign.core.spots.kernels import AT_BOUND, CONVERGED, FLAT, ROUNDS_SPENT, TOO_FEW
from stackalign.core.spots.linear import cholesky, substitute

# Columns of the result: the eight parameters and the angle (always 0), their errors, then as in 2-D
A, Z, Y, X, SZ, SY, SX, OFFSET, ANGLE = range(9)
ERRORS = 9
R2, SNR, CHI2, ROUNDS, NEIGHBOUR, EXTREME, COLUMNS = 18, 19, 20, 21, 22, 23, 24


@kernel
def _normal(data, mask, p, round_spot, mle, noise, floor, robust, matrix, right):
    """Build the normal equations (upper triangle mirrored); return merit and sum of squares.

    ``robust``: weigh with squared residuals instead, for the sandwich.
    """
    depth, h, w = data.shape
    n = 6 if round_spot else 8
    matrix[:] = 0.0
    right[:] = 0.0
    merit = sse = 0.0
    f = np.zeros(8)
    gx = np.empty(w)
    for i in range(w):
        gx[i] = np.exp(-0.5 * ((i - p[X]) / p[SX]) ** 2)
    for a in range(depth):
        u = (a - p[Z]) / p[SZ]
        ga = np.exp(-0.5 * u * u)
        for b in range(h):
            v = (b - p[Y]) / p[SY]
            gb = ga * np.exp(-0.5 * v * v)
            for c in range(w):
                if not mask[a, b, c]:
                    continue
                t = (c - p[X]) / p[SX]
                g = gb * gx[c]
                e = data[a, b, c] - p[A] * g - p[OFFSET]
                sse += e * e
                if mle:
                    total = max(p[A] * g + p[OFFSET] + noise, floor)
                    seen = data[a, b, c] + noise
                    weight = 1.0 / total
                    merit += total - seen - (seen * np.log(total / seen) if seen > 0 else seen * np.log(total))
                else:
                    weight = 1.0 / noise
                    merit += 0.5 * e * e * weight
                if robust:
                    weight *= weight * e * e
                k = p[A] * g
                f[0], f[1], f[2], f[3] = g, k * u, k * v, k * t
                if round_spot:
                    f[4], f[5] = k * (u * u + v * v + t * t), 1.0
                else:
                    f[4], f[5], f[6], f[7] = k * u * u, k * v * v, k * t * t, 1.0
                for i in range(n):
                    fw = f[i] * weight
                    right[i] += fw * e
                    for j in range(i + 1):
                        matrix[i, j] += fw * f[j]
    for i in range(n):
        for j in range(i):
            matrix[j, i] = matrix[i, j]
    return merit, sse


@kernel
def _start(data, mask, polarity, p):
    """Estimate the parameters from the voxels above half height; False if the patch is flat."""
    depth, h, w = data.shape
    level = total = 0.0
    for a in range(depth):  # the border in y and x: a spot may fill the whole depth
        for b in range(h):
            for c in range(w):
                if mask[a, b, c] and (b == 0 or c == 0 or b == h - 1 or c == w - 1):
                    level += data[a, b, c]
                    total += 1.0
    if total == 0.0:
        return False
    level /= total
    best = least = 0.0
    at, under = np.zeros(3), np.zeros(3)
    for a in range(depth):
        for b in range(1, h - 1):
            for c in range(1, w - 1):
                s = n = 0.0
                for i in range(max(a - 1, 0), min(a + 2, depth)):
                    for j in range(b - 1, b + 2):
                        for k in range(c - 1, c + 2):
                            if mask[i, j, k]:
                                s += data[i, j, k] - level
                                n += 1.0
                s /= max(n, 1.0)
                if s > best:
                    best = s
                    at[0], at[1], at[2] = a, b, c
                if s < least:
                    least = s
                    under[0], under[1], under[2] = a, b, c
    sign = 1.0
    if polarity < 0 or (polarity == 0 and -least > best):
        sign, best = -1.0, -least
        at[:] = under
    if not best > 0.0:
        return False
    # width from the part of the profile along each axis above half height
    middle = np.zeros(3)
    width = np.zeros(3)
    for axis in range(3):
        size = data.shape[axis]
        first = last = int(at[axis])
        for direction in (-1, 1):
            k = int(at[axis]) + direction
            while 0 <= k < size:
                a = k if axis == 0 else int(at[0])
                b = k if axis == 1 else int(at[1])
                c = k if axis == 2 else int(at[2])
                if (data[a, b, c] - level) * sign < 0.5 * best:
                    break
                first, last = min(first, k), max(last, k)
                k += direction
        middle[axis] = 0.5 * (first + last)
        width[axis] = max((last - first + 1) / 2.355, 0.6)
    p[A] = sign * best * 1.2
    p[Z], p[Y], p[X] = middle
    p[SZ], p[SY], p[SX] = width
    p[OFFSET] = level
    return True


@kernel
def _advance(p, theta, round_spot, low, high, shape, out):
    """Move the parameters by a solution of the normal equations; True if a width was held at its bound."""
    n = 6 if round_spot else 8
    fresh = p[A] + theta[0]
    out[A] = fresh if fresh * p[A] > 0.1 * p[A] * p[A] else 0.1 * p[A]
    held = False
    for axis in range(3):
        step = min(max(theta[1 + axis], -1.5), 1.5) * p[SZ + axis]
        out[Z + axis] = min(max(p[Z + axis] + step, -1.0), float(shape[axis]))
        grow = theta[4] if round_spot else theta[4 + axis]
        sigma = p[SZ + axis] * np.exp(min(max(grow, -0.7), 0.7))
        out[SZ + axis] = min(max(sigma, low), high)
        held = held or out[SZ + axis] != sigma
    out[OFFSET] = p[OFFSET] + theta[n - 1]
    return held


@kernel
def fit_spots(patches, top, noise, mle, round_spot, polarity, rounds, low, high, out, ended):
    """Fit every patch (N, d, h, w), as the kernel of the same name in 2-D."""
    n = 6 if round_spot else 8
    shape = patches.shape[1:]
    data, mask = np.empty(shape), np.empty(shape, np.bool_)
    p, trial, theta, right, fresh_right = np.zeros(8), np.zeros(8), np.zeros(8), np.zeros(8), np.zeros(8)
    matrix, fresh_matrix, factor = np.zeros((8, 8)), np.zeros((8, 8)), np.zeros((8, 8))
    inverse, column = np.zeros((8, 8)), np.zeros(8)
    for spot in range(patches.shape[0]):
        usable = extreme = 0
        mean = 0.0
        for a in range(shape[0]):
            for b in range(shape[1]):
                for c in range(shape[2]):
                    v = patches[spot, a, b, c]
                    good = np.isfinite(v) and v < top
                    mask[a, b, c] = good
                    data[a, b, c] = v if good else 0.0
                    if good:
                        usable += 1
                        mean += v
                    elif v >= top:
                        extreme += 1
        out[spot, :] = np.nan
        out[spot, EXTREME] = extreme
        if usable < n + 3 or min(shape[1], shape[2]) < 3:
            ended[spot] = TOO_FEW
            continue
        mean /= usable
        spread = 0.0
        for a in range(shape[0]):
            for b in range(shape[1]):
                for c in range(shape[2]):
                    if mask[a, b, c]:
                        spread += (data[a, b, c] - mean) ** 2
        if not spread > 1e-12 * usable * mean * mean or not _start(data, mask, polarity, p):
            ended[spot] = FLAT
            continue
        if round_spot:
            p[SZ] = p[SY] = p[SX] = (p[SZ] * p[SY] * p[SX]) ** (1 / 3)
        variance = max(noise, 0.0) if mle else spread / usable
        floor = max(1e-3 * mean, 1e-3)
        merit, sse = _normal(data, mask, p, round_spot, mle, variance, floor, False, matrix, right)
        damping = 1e-2
        state = ROUNDS_SPENT
        held = False
        done = rounds
        for trip in range(rounds):
            while damping < 1e8 and not cholesky(matrix, n, damping, factor):
                damping = max(10.0 * damping, 1e-6)
            if damping >= 1e8:
                break
            substitute(factor, n, right, theta)
            gain = 0.0
            for i in range(n):
                gain += theta[i] * right[i]
            held = _advance(p, theta, round_spot, low, high, shape, trial)
            limit = 1e-5 * (1.0 if mle else 2.0 * merit / usable)
            if gain < limit or gain < 1e-12:
                p[:] = trial
                state = AT_BOUND if held else CONVERGED
                done = trip + 1
                break
            fresh, fresh_sse = _normal(
                data, mask, trial, round_spot, mle, variance, floor, False, fresh_matrix, fresh_right
            )
            if fresh <= merit:
                gained = merit - fresh
                p[:] = trial
                merit, sse = fresh, fresh_sse
                matrix, fresh_matrix = fresh_matrix, matrix
                right, fresh_right = fresh_right, right
                damping *= 0.1
                if held and gained < 1e-3 * (1.0 if mle else 2.0 * merit / usable):
                    state = AT_BOUND
                    done = trip + 1
                    break
            else:
                damping = max(10.0 * damping, 1e-3)
                if damping > 1e6:
                    break
        ended[spot] = state
        row = out[spot]
        freedom = max(usable - n, 1)
        row[A], row[Z], row[Y], row[X], row[SZ], row[SY], row[SX], row[OFFSET] = p
        row[ANGLE] = 0.0
        if cholesky(matrix, n, 0.0, factor):
            inverse[:] = 0.0
            for i in range(n):
                theta[:] = 0.0
                theta[i] = 1.0
                substitute(factor, n, theta, column)
                inverse[:, i] = column
            if not mle:  # White's sandwich: whatever the noise of each voxel
                _normal(data, mask, p, round_spot, mle, variance, floor, True, fresh_matrix, fresh_right)
                inverse = (inverse @ fresh_matrix @ inverse) * (usable / freedom)
            row[ERRORS + A] = np.sqrt(inverse[0, 0])
            row[ERRORS + OFFSET] = np.sqrt(inverse[n - 1, n - 1])
            for axis in range(3):
                row[ERRORS + Z + axis] = np.sqrt(inverse[1 + axis, 1 + axis]) * p[SZ + axis]
                k = 4 if round_spot else 4 + axis
                row[ERRORS + SZ + axis] = np.sqrt(inverse[k, k]) * p[SZ + axis]
        row[R2] = 1.0 - sse / spread
        row[SNR] = abs(p[A]) / np.sqrt(max(sse / freedom, 1e-300))
        row[CHI2] = 2.0 * merit / freedom if mle else np.nan
        row[ROUNDS] = done
        row[NEIGHBOUR] = 0.0
