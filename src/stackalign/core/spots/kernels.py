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
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

# Models: free shape terms of S. Estimators.
CIRCULAR, ELLIPTIC, ROTATED = 0, 1, 2
LSQ, MLE = 0, 1

# Places in the vector of sums: w; w g u^k (6); w g^2 u^k (15); e w g u^k (6), e w; merit; sum of squares
GU, GGU, RHS, MERIT, SSE, SUMS = 1, 7, 22, 29, 30, 31
# w g^2 u1^i u2^j for each pair of the six basis terms 1, u1, u2, u1^2, u1 u2, u2^2 -> its place in GGU
_PAIRS = np.array(
    [
        [0, 1, 2, 3, 4, 5],
        [1, 3, 4, 6, 7, 8],
        [2, 4, 5, 7, 8, 9],
        [3, 6, 7, 10, 11, 12],
        [4, 7, 8, 11, 12, 13],
        [5, 8, 9, 12, 13, 14],
    ]
)

# Columns of the result
A, Y, X, SY, SX, ANGLE, OFFSET = range(7)
ERRORS = 7  # the standard errors of the seven, in their order
R2, SNR, CHI2, ROUNDS, NEIGHBOUR, EXTREME, COLUMNS = 14, 15, 16, 17, 18, 19, 20
# How the iteration ended
CONVERGED, ROUNDS_SPENT, AT_BOUND, TOO_FEW, FLAT = 0, 1, 2, 3, 4

_F = np.float32
_ZERO, _HALF, _ONE = _F(0), _F(0.5), _F(1)
_LOG2E, _LN2_HI, _LN2_LO = _F(1.44269504), _F(0.693359375), _F(-2.12194440e-4)
_E2, _E3, _E4, _E5, _E6, _E7 = (_F(v) for v in (0.5, 0.16666666, 0.041666508, 0.0083333679, 0.0013981999, 1.987569e-4))
_LOG = tuple(
    _F(v)
    for v in (
        7.0376836292e-2,
        -1.1514610310e-1,
        1.1676998740e-1,
        -1.2420140846e-1,
        1.4249322787e-1,
        -1.6668057665e-1,
        2.0000714765e-1,
        -2.4999993993e-1,
        3.3333331174e-1,
    )
)
_P0, _P1, _P2, _P3, _P4, _P5, _P6, _P7, _P8 = _LOG
_FAR = _F(-80.0)


@intrinsic
def _bits(typingctx, value):
    def code(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), code


@intrinsic
def _number(typingctx, value):
    def code(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), code


@njit(cache=True, nogil=True, error_model="numpy")
def _exp(x):
    """Return exp(x) for x in [-80, 0], to 1e-7: arithmetic only, so that LLVM makes vector code of it."""
    n = np.floor(x * _LOG2E + _HALF)
    f = x - n * _LN2_HI - n * _LN2_LO
    p = ((((_E7 * f + _E6) * f + _E5) * f + _E4) * f + _E3) * f + _E2
    p = p * f * f + f + _ONE
    return p * _number((np.int32(n) + np.int32(127)) << np.int32(23))


@njit(cache=True, nogil=True, error_model="numpy")
def _log(x):
    """Return log(x) for normal x > 0, to 1e-7 (Cephes' polynomial)."""
    bits = _bits(x) - np.int32(0x3F3504F3)  # so that the fraction lies in [sqrt(1/2), sqrt(2))
    n = _F(bits >> np.int32(23))
    f = _number((bits & np.int32(0x007FFFFF)) + np.int32(0x3F3504F3)) - _ONE
    p = ((((_P0 * f + _P1) * f + _P2) * f + _P3) * f + _P4) * f + _P5
    p = ((p * f + _P6) * f + _P7) * f + _P8
    z = f * f
    return f + (f * z * p - _HALF * z + n * _LN2_LO) + n * _LN2_HI


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", boundscheck=False)
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
        g = _exp(max(-_HALF * (u11 + u22), _FAR))
        model = amplitude * g + offset
        e = data[k] - model
        ok = mask[k]
        if mle:
            total = max(model + noise, floor)
            w = ok / total
            seen = data[k] + noise
            merit += ok * ((total - seen) - seen * _log(total * inverse[k]))
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


@njit(cache=True, nogil=True, error_model="numpy")
def normal_equations(sums, model, matrix, right):
    """Build the normal equations of a model: terms g, g u1, g u2, its shape terms, 1. Return how many terms."""
    # the basis term of each row; -1: the sum of u1^2 and u2^2; 6: the constant
    rows = np.empty(7, np.int64)
    rows[0], rows[1], rows[2] = 0, 1, 2
    if model == CIRCULAR:
        rows[3], rows[4] = -1, 6
        n = 5
    elif model == ELLIPTIC:
        rows[3], rows[4], rows[5] = 3, 5, 6
        n = 6
    else:
        rows[3], rows[4], rows[5], rows[6] = 3, 4, 5, 6
        n = 7
    for i in range(n):
        p = rows[i]
        right[i] = sums[RHS + p] if p >= 0 else sums[RHS + 3] + sums[RHS + 5]
        for j in range(i + 1):
            q = rows[j]
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
                    value = sums[GGU + _PAIRS[3, q]] + sums[GGU + _PAIRS[5, q]]
            else:
                value = sums[GGU + _PAIRS[p, q]]
            matrix[i, j] = value
            matrix[j, i] = value
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def cholesky(matrix, n, damping, out):
    """Factor ``matrix`` with its diagonal times (1 + damping); False if it is not positive definite."""
    for i in range(n):
        for j in range(i + 1):
            s = matrix[i, j] * (1.0 + damping) if i == j else matrix[i, j]
            for k in range(j):
                s -= out[i, k] * out[j, k]
            if i == j:
                if not s > 1e-7 * matrix[i, i]:
                    return False
                out[i, i] = np.sqrt(s)
            else:
                out[i, j] = s / out[j, j]
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def substitute(factor, n, right, out):
    """Solve with a Cholesky factor."""
    for i in range(n):
        s = right[i]
        for k in range(i):
            s -= factor[i, k] * out[k]
        out[i] = s / factor[i, i]
    for i in range(n - 1, -1, -1):
        s = out[i]
        for k in range(i + 1, n):
            s -= factor[k, i] * out[k]
        out[i] = s / factor[i, i]


@njit(cache=True, nogil=True, error_model="numpy")
def _sorted_middle(a, b, c, d):
    """Return the mean of the two middle ones of four numbers, which one neighbour at the border cannot spoil."""
    return (a + b + c + d - max(max(a, b), max(c, d)) - min(min(a, b), min(c, d))) / 2.0


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def weigh_rim(smooth, base, h, w, out):
    """Write the contrast, less towards the rim; return its greatest and least value."""
    cy, cx = _F((h - 1) / 2), _F((w - 1) / 2)
    sy, sx = _F(0.4) / (cy * cy), _F(0.4) / (cx * cx)
    high, low = _F(-1e30), _F(1e30)
    for i in range(h):
        fy = _ONE - (_F(i) - cy) * (_F(i) - cy) * sy
        row = i * w
        for j in range(w):
            x = _F(j) - cx
            v = (smooth[row + j] - base) * (fy - x * x * sx)
            out[row + j] = v
            high = max(high, v)
            low = min(low, v)
    return high, low


@njit(cache=True, nogil=True, error_model="numpy")
def start(data, mask, h, w, polarity, smooth, queue, seen, p):
    """Estimate y, x, L, amplitude, offset (7 numbers in ``p``) from the region above half height around the extremum.

    Fills the masked pixels of ``data`` with the border's level. Returns False if the patch is flat.
    """
    sides = np.zeros(4)
    counts = np.zeros(4)
    for i in range(h):
        sides[0] += data[i * w] * mask[i * w]
        counts[0] += mask[i * w]
        sides[1] += data[i * w + w - 1] * mask[i * w + w - 1]
        counts[1] += mask[i * w + w - 1]
    for j in range(w):
        sides[2] += data[j] * mask[j]
        counts[2] += mask[j]
        sides[3] += data[(h - 1) * w + j] * mask[(h - 1) * w + j]
        counts[3] += mask[(h - 1) * w + j]
    total = counts.sum()
    if total > 0:
        mean = sides.sum() / total
        for k in range(4):
            sides[k] = sides[k] / counts[k] if counts[k] > 0 else mean
        level = _sorted_middle(sides[0], sides[1], sides[2], sides[3])
    else:
        level = 0.0
        total = 0.0
        for k in range(h * w):
            level += data[k] * mask[k]
            total += mask[k]
        level /= max(total, 1.0)
    base = _F(level)
    for k in range(h * w):
        if mask[k] == _ZERO:
            data[k] = base
    # 3 x 3 means, borders repeated
    third = _F(1.0 / 3.0)
    for i in range(h):
        row = i * w
        queue[row] = (data[row] + data[row] + data[row + 1]) * third
        for j in range(1, w - 1):
            queue[row + j] = (data[row + j - 1] + data[row + j] + data[row + j + 1]) * third
        queue[row + w - 1] = (data[row + w - 2] + data[row + w - 1] + data[row + w - 1]) * third
    for i in range(h):
        up, down = max(i - 1, 0) * w, min(i + 1, h - 1) * w
        for j in range(w):
            smooth[i * w + j] = (queue[up + j] + queue[i * w + j] + queue[down + j]) * third
    # a box is drawn around its spot: what lies at the rim counts less
    high, low = weigh_rim(smooth, base, h, w, queue)
    at_high = at_low = 0
    for k in range(h * w):
        if queue[k] == high:
            at_high = k
        if queue[k] == low:
            at_low = k
    low = -low
    sign = _ONE
    peak = at_high
    if polarity < 0 or (polarity == 0 and low > high):
        sign, peak = -_ONE, at_low
    height = (smooth[peak] - base) * sign
    if not height > _ZERO:
        return False
    # grow the region above half height from the extremum
    cut = height * _HALF
    for k in range(h * w):
        seen[k] = False
    count = 1
    queue[0] = _F(peak)
    seen[peak] = True
    head = 0
    my = mx = weight = 0.0
    n = my1 = mx1 = myy = mxx = mxy = 0.0
    while head < count:
        k = int(queue[head])
        head += 1
        i, j = k // w, k % w
        v = float((smooth[k] - base) * sign - cut)
        weight += v
        my += v * i
        mx += v * j
        n += 1.0
        my1 += i
        mx1 += j
        myy += i * i
        mxx += j * j
        mxy += i * j
        for step in range(4):
            ii = i + (1 if step == 0 else (-1 if step == 1 else 0))
            jj = j + (1 if step == 2 else (-1 if step == 3 else 0))
            if ii < 0 or jj < 0 or ii >= h or jj >= w:
                continue
            kk = ii * w + jj
            if not seen[kk] and (smooth[kk] - base) * sign > cut:
                seen[kk] = True
                queue[count] = _F(kk)
                count += 1
    # a uniform ellipse cut at half height has 2 ln 2 / 4 of the covariance; the 3 x 3 mean added 2/3 to each width
    scale = 1.0 / 0.34657
    vyy = max(((myy - my1 * my1 / n) / n + 1 / 12) * scale - 0.667, 0.3)
    vxx = max(((mxx - mx1 * mx1 / n) / n + 1 / 12) * scale - 0.667, 0.3)
    vxy = ((mxy - my1 * mx1 / n) / n) * scale
    limit = 0.8 * np.sqrt(vyy * vxx)
    vxy = min(max(vxy, -limit), limit)
    p[0] = my / weight if weight > 0 else peak // w
    p[1] = mx / weight if weight > 0 else peak % w
    lower(vyy, vxy, vxx, p)
    gain = np.sqrt((vyy + 0.667) * (vxx + 0.667) / (vyy * vxx))  # what the 3 x 3 mean took from the height
    p[5] = sign * height * min(gain, 3.0)
    p[6] = level
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def lower(vyy, vxy, vxx, p):
    """Put L (l11, l21, l22) of a covariance matrix into p[2:5]: L L^T is its inverse."""
    det = vyy * vxx - vxy * vxy
    a, b, c = vxx / det, -vxy / det, vyy / det
    p[2] = np.sqrt(a)
    p[3] = b / p[2]
    p[4] = np.sqrt(max(c - p[3] * p[3], 1e-300))


@njit(cache=True, nogil=True, error_model="numpy")
def to_model(model, p):
    """Restrict L to the model: no tilt, or no tilt and one width."""
    if model == ROTATED:
        return
    det = (p[2] * p[4]) ** 2
    vyy, vxx = (p[3] * p[3] + p[4] * p[4]) / det, p[2] * p[2] / det
    if model == CIRCULAR:
        vyy = vxx = np.sqrt(vyy * vxx)
    lower(vyy, 0.0, vxx, p)


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
def widths(vyy, vxy, vxx):
    """Return the widths along the axes nearest to y and x, and the angle of the first from y towards x, radians."""
    angle = 0.5 * np.arctan2(2.0 * vxy, vyy - vxx)  # of the wide axis, in (-pi/2, pi/2]
    mean, spread = 0.5 * (vyy + vxx), np.sqrt(0.25 * (vyy - vxx) ** 2 + vxy * vxy)
    wide, narrow = np.sqrt(mean + spread), np.sqrt(max(mean - spread, 0.0))
    if abs(angle) <= np.pi / 4:
        return wide, narrow, angle
    return narrow, wide, angle - np.sign(angle) * np.pi / 2


@njit(cache=True, nogil=True, error_model="numpy")
def _variance(inverse, n, first, second):
    """Return first^T inverse second for sparse vectors of n terms."""
    total = 0.0
    for i in range(n):
        if first[i] != 0.0:
            for j in range(n):
                total += first[i] * inverse[i, j] * second[j]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def describe(p, inverse, model, out):
    """Write amplitude, centre, widths, angle, offset and their standard errors, given the terms' covariance."""
    n = 5 + model
    amplitude, l11, l21, l22 = p[5], p[2], p[3], p[4]
    det = (l11 * l22) ** 2
    vyy, vxx, vxy = (l21 * l21 + l22 * l22) / det, l11 * l11 / det, -l11 * l21 / det
    sy, sx, angle = widths(vyy, vxy, vxx)
    out[A], out[Y], out[X], out[SY], out[SX], out[ANGLE], out[OFFSET] = amplitude, p[0], p[1], sy, sx, angle, p[6]
    term = np.zeros(7)
    term[0] = 1.0
    out[ERRORS + A] = np.sqrt(_variance(inverse, n, term, term))
    term[:] = 0.0
    term[n - 1] = 1.0
    out[ERRORS + OFFSET] = np.sqrt(_variance(inverse, n, term, term))
    # centre: L^-T q, q = theta / A
    term[:] = 0.0
    term[2] = 1.0 / (amplitude * l22)
    out[ERRORS + X] = np.sqrt(_variance(inverse, n, term, term))
    term[1] = 1.0 / (amplitude * l11)
    term[2] = -l21 / (amplitude * l11 * l22)
    out[ERRORS + Y] = np.sqrt(_variance(inverse, n, term, term))
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
        term[:] = 0.0
        if model == CIRCULAR:
            term[3] = (py * qy + px * qx) * 2.0 / amplitude
        elif model == ELLIPTIC:
            term[3], term[4] = py * qy * 2.0 / amplitude, px * qx * 2.0 / amplitude
        else:
            term[3], term[5] = py * qy * 2.0 / amplitude, px * qx * 2.0 / amplitude
            term[4] = (py * qx + px * qy) / amplitude
        spread = np.sqrt(_variance(inverse, n, term, term))
        out[ERRORS + SY + axis] = spread * abs(scale) if np.isfinite(scale) else np.inf
    if model != ROTATED:
        out[ANGLE] = 0.0
        out[ERRORS + ANGLE] = np.nan


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def residuals(data, yy, xx, p, out):
    """Write data less model; return nothing. ``p`` in float32."""
    for k in range(data.shape[0]):
        dx = xx[k] - p[1]
        u1 = p[2] * (yy[k] - p[0]) + p[3] * dx
        u2 = p[4] * dx
        out[k] = data[k] - p[5] * _exp(max(-_HALF * (u1 * u1 + u2 * u2), _FAR)) - p[6]


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
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
    seen = np.empty(size, np.bool_)
    yy, xx = np.empty(size, np.float32), np.empty(size, np.float32)
    for k in range(size):
        yy[k], xx[k] = k // w, k % w
    p, trial = np.empty(7), np.empty(7)
    p32 = np.empty(7, np.float32)
    sums, fresh = np.zeros(SUMS), np.zeros(SUMS)
    matrix, factor, right, theta = np.zeros((7, 7)), np.zeros((7, 7)), np.zeros(7), np.zeros(7)
    unit, column, covariance = np.zeros(7), np.zeros(7), np.zeros((7, 7))
    for spot in range(count):
        usable = 0
        mean = 0.0
        extreme = 0
        for i in range(h):
            for j in range(w):
                v = patches[spot, i, j]
                k = i * w + j
                if np.isfinite(v) and v < top:
                    data[k], mask[k] = v, _ONE
                    mean += v
                    usable += 1
                else:
                    data[k], mask[k] = _ZERO, _ZERO
                    if v >= top:
                        extreme += 1
        out[spot, :] = np.nan
        out[spot, EXTREME] = extreme
        if usable < terms + 3 or h < 3 or w < 3:
            ended[spot] = TOO_FEW
            continue
        mean /= usable
        spread = 0.0
        for k in range(size):
            if mask[k] > 0:
                spread += (data[k] - mean) ** 2
        if not spread > 1e-12 * usable * mean * mean or not start(data, mask, h, w, polarity, smooth, queue, seen, p):
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
        moments(
            data, mask, inverse, yy, xx, _F(p[0]), _F(p[1]), _F(p[2]), _F(p[3]), _F(p[4]), _F(p[5]), _F(p[6]),
            mle, constant, floor, sums,
        )  # fmt: skip
        damping = 1e-2
        state = ROUNDS_SPENT
        bounded = False
        done = rounds
        for trip in range(rounds):
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
            # twice what the step should gain, in units of the variance: 4e-4 is 2 % of a standard error still to go
            limit = 4e-4 if mle else 4e-4 * 2.0 * sums[MERIT] / usable
            bounded = advance(p, theta, model, least, most, h, w, trial)
            if gain < limit or gain < 1e-9:
                p[:] = trial
                state = CONVERGED
                done = trip + 1
                break
            moments(
                data, mask, inverse, yy, xx, _F(trial[0]), _F(trial[1]), _F(trial[2]), _F(trial[3]), _F(trial[4]),
                _F(trial[5]), _F(trial[6]), mle, constant, floor, fresh,
            )  # fmt: skip
            if fresh[MERIT] <= sums[MERIT] + 1e-6 * abs(sums[MERIT]):
                gained = sums[MERIT] - fresh[MERIT]
                p[:] = trial
                sums, fresh = fresh, sums
                damping *= 0.1
                if bounded and gained < 1e-3 * (1.0 if mle else 2.0 * sums[MERIT] / usable):
                    state = AT_BOUND
                    done = trip + 1
                    break
            else:
                damping = max(damping * 10.0, 1e-3)
                if damping > 1e6:
                    break
        ended[spot] = AT_BOUND if bounded and state == CONVERGED else state
        normal_equations(sums, model, matrix, right)
        if not cholesky(matrix, terms, 0.0, factor) and not cholesky(matrix, terms, 1e-6, factor):
            ended[spot] = ROUNDS_SPENT if ended[spot] == CONVERGED else ended[spot]
            covariance[:] = np.nan
        else:
            for i in range(terms):
                unit[:] = 0.0
                unit[i] = 1.0
                substitute(factor, terms, unit, column)
                for j in range(terms):
                    covariance[j, i] = column[j]
        row = out[spot]
        freedom = max(usable - terms, 1)
        sse = sums[SSE]
        # a second spot of half the height leaves far more than that unexplained
        alone = 1.0 - sse / spread > 0.9
        if not (mle and alone):
            for k in range(7):
                p32[k] = _F(p[k])
            residuals(data, yy, xx, p32, smooth)
        if not mle:
            robust_covariance(smooth, mask, yy, xx, p, constant, model, covariance, matrix, factor, fresh)
        describe(p, covariance, model, row)
        row[R2] = 1.0 - sse / spread
        row[SNR] = abs(p[5]) / np.sqrt(max(sse / freedom, 1e-300))
        row[CHI2] = 2.0 * sums[MERIT] / freedom if mle else np.nan
        row[ROUNDS] = done
        row[NEIGHBOUR] = 0.0 if alone else neighbour(smooth, h, w, p, queue)


@njit(cache=True, nogil=True, error_model="numpy")
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
                        leverage[GGU + _PAIRS[a, b]] += value
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


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
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
        g = _exp(max(-_HALF * (u11 + u22), _FAR))
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
