"""Numba kernels of the motion of tracks: frames fitted to the scene, the scene placed from the frames, medians.

Arrays are (T, P, d): frame, particle, axis, in pixels about the field's centre; a weight of 0 means "not found". The
transform of a frame maps it into the scene: ``linear @ x + shift``.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# numba infers the types of what it compiles
from __future__ import annotations

import numpy as np

from stackalign.core.compiled import kernel
from stackalign.core.spots.linear import cholesky, forward

TRANSLATION, EUCLIDEAN, SIMILARITY, AFFINE = 0, 1, 2, 3


@kernel
def fit_frames(points, scene, weight, model, needed, linear, shift, used):
    """Fit the transform of every frame; one with too few particles keeps the linear part of the frame before it.

    ``used`` gets the number of particles with weight. Frames without any keep what they had.
    """
    length, count, ndim = points.shape
    mean_p, mean_s = np.zeros(ndim), np.zeros(ndim)
    cross, own = np.zeros((ndim, ndim)), np.zeros((ndim, ndim))
    first = -1
    for t in range(length):
        total = 0.0
        mean_p[:] = 0.0
        mean_s[:] = 0.0
        n = 0
        if ndim == 2:  # written out: in this order of loops it is the bulk of the time
            py = px = sy = sx = 0.0
            for p in range(count):
                w = weight[t, p]
                if w > 0:
                    n += 1
                    total += w
                    py += w * points[t, p, 0]
                    px += w * points[t, p, 1]
                    sy += w * scene[p, 0]
                    sx += w * scene[p, 1]
            mean_p[0], mean_p[1], mean_s[0], mean_s[1] = py, px, sy, sx
        else:
            for p in range(count):
                w = weight[t, p]
                if w > 0:
                    n += 1
                    total += w
                    for i in range(ndim):
                        mean_p[i] += w * points[t, p, i]
                        mean_s[i] += w * scene[p, i]
        used[t] = n
        if n == 0:
            if model != TRANSLATION and t > 0:
                linear[t] = linear[t - 1]
                shift[t] = shift[t - 1]
            continue
        for i in range(ndim):
            mean_p[i] /= total
            mean_s[i] /= total
        full = model == TRANSLATION
        if model != TRANSLATION and n >= needed:
            cross[:] = 0.0
            own[:] = 0.0
            if ndim == 2:
                _second_moments(points[t], scene, weight[t], mean_p, mean_s, cross, own)
            for p in range(0 if ndim == 2 else count):
                w = weight[t, p]
                if w > 0:
                    for i in range(ndim):
                        a = w * (scene[p, i] - mean_s[i])
                        b = w * (points[t, p, i] - mean_p[i])
                        for j in range(ndim):
                            d = points[t, p, j] - mean_p[j]
                            cross[i, j] += a * d
                            own[i, j] += b * d
            full = _linear(cross, own, model, ndim, linear[t])
        if not full and t > 0:
            linear[t] = linear[t - 1]
        if full and first < 0:
            first = t
        for i in range(ndim):
            s = mean_s[i]
            for j in range(ndim):
                s -= linear[t, i, j] * mean_p[j]
            shift[t, i] = s
    if first > 0 and model != TRANSLATION:  # the frames before the first full one
        for t in range(first):
            if used[t] > 0:
                total = 0.0
                mean_p[:] = 0.0
                mean_s[:] = 0.0
                for p in range(count):
                    w = weight[t, p]
                    if w > 0:
                        total += w
                        for i in range(ndim):
                            mean_p[i] += w * points[t, p, i]
                            mean_s[i] += w * scene[p, i]
                linear[t] = linear[first]
                for i in range(ndim):
                    s = mean_s[i] / total
                    for j in range(ndim):
                        s -= linear[t, i, j] * mean_p[j] / total
                    shift[t, i] = s


@kernel
def _second_moments(points, scene, weight, mean_p, mean_s, cross, own):
    """Fill the weighted second moments of one frame, 2-D."""
    yy = yx = xy = xx = oyy = oyx = oxx = 0.0
    for p in range(len(weight)):
        w = weight[p]
        if w > 0:
            py, px = points[p, 0] - mean_p[0], points[p, 1] - mean_p[1]
            sy, sx = w * (scene[p, 0] - mean_s[0]), w * (scene[p, 1] - mean_s[1])
            yy += sy * py
            yx += sy * px
            xy += sx * py
            xx += sx * px
            oyy += w * py * py
            oyx += w * py * px
            oxx += w * px * px
    cross[0, 0], cross[0, 1], cross[1, 0], cross[1, 1] = yy, yx, xy, xx
    own[0, 0], own[0, 1], own[1, 0], own[1, 1] = oyy, oyx, oyx, oxx


@kernel
def _linear(cross, own, model, ndim, out):
    """Solve for the linear part from the weighted second moments; False if they do not fix it."""
    trace = 0.0
    for i in range(ndim):
        trace += own[i, i]
    if not trace > 1e-12:
        return False
    if model == AFFINE:
        if ndim == 2:
            det = own[0, 0] * own[1, 1] - own[0, 1] * own[1, 0]
            if not det > 1e-6 * trace * trace:
                return False
            i00, i01, i11 = own[1, 1] / det, -own[0, 1] / det, own[0, 0] / det
            for i in range(2):
                a, b = cross[i, 0], cross[i, 1]
                out[i, 0] = a * i00 + b * i01
                out[i, 1] = a * i01 + b * i11
            return True
        values = np.linalg.eigvalsh(own)
        if not values[0] > 1e-6 * trace:
            return False
        out[:] = np.linalg.solve(own, cross.T).T
        return True
    if ndim == 2:
        along = cross[0, 0] + cross[1, 1]
        across = cross[1, 0] - cross[0, 1]
        size = np.sqrt(along * along + across * across)
        if not size > 0:
            return False
        norm = size if model == EUCLIDEAN else trace
        c, s = along / norm, across / norm
        out[0, 0], out[0, 1], out[1, 0], out[1, 1] = c, -s, s, c
        return True
    u, values, vt = np.linalg.svd(cross)
    if not values[1] > 1e-9 * values[0]:
        return False
    sign = np.ones(ndim)
    if np.linalg.det(u) * np.linalg.det(vt) < 0:
        sign[ndim - 1] = -1.0
    scale = 1.0
    if model == SIMILARITY:
        scale = (values * sign).sum() / trace
    for i in range(ndim):
        for j in range(ndim):
            s = 0.0
            for k in range(ndim):
                s += u[i, k] * sign[k] * vt[k, j]
            out[i, j] = scale * s
    return True


@kernel
def place_scene(points, weight, linear, shift, scene):
    """Place every particle at the weighted mean of where the frames put it; one without weight keeps its place."""
    length, count, ndim = points.shape
    total, place = np.zeros(count), np.zeros((count, ndim))
    for t in range(length):
        for p in range(count):
            w = weight[t, p]
            if w > 0:
                total[p] += w
                for i in range(ndim):
                    s = shift[t, i]
                    for j in range(ndim):
                        s += linear[t, i, j] * points[t, p, j]
                    place[p, i] += w * s
    for p in range(count):
        if total[p] > 0:
            for i in range(ndim):
                scene[p, i] = place[p, i] / total[p]


@kernel
def distances(points, here, scene, linear, shift, out):
    """Write the distance of every particle from its place in the scene; NaN where it was not found."""
    length, count, ndim = points.shape
    for t in range(length):
        for p in range(count):
            if not here[t, p]:
                out[t, p] = np.nan
                continue
            total = 0.0
            for i in range(ndim):
                s = shift[t, i] - scene[p, i]
                for j in range(ndim):
                    s += linear[t, i, j] * points[t, p, j]
                total += s * s
            out[t, p] = np.sqrt(total)


@kernel
def median_drift(points, here, drift):
    """Accumulate the median step of the particles from frame to frame, each against where it was seen last."""
    length, count, ndim = points.shape
    last = np.full(count, -1, np.int64)
    values = np.empty(count)
    drift[:] = 0.0
    for t in range(length):
        if t > 0:
            for i in range(ndim):
                n = 0
                for p in range(count):
                    if here[t, p] and last[p] >= 0:
                        values[n] = points[t, p, i] - points[last[p], p, i] + drift[last[p], i]
                        n += 1
                drift[t, i] = np.median(values[:n]) if n else drift[t - 1, i]
        for p in range(count):
            if here[t, p]:
                last[p] = t


@kernel
def median_scene(points, here, drift, scene):
    """Place every particle at the median of its positions less the drift."""
    length, count, ndim = points.shape
    values = np.empty(length)
    for p in range(count):
        for i in range(ndim):
            n = 0
            for t in range(length):
                if here[t, p]:
                    values[n] = points[t, p, i] - drift[t, i]
                    n += 1
            scene[p, i] = np.median(values[:n]) if n else 0.0


@kernel
def median_particle(values, out):
    """Write the median over time of each particle's values (T, P), NaN left out; NaN where there are none."""
    length, count = values.shape
    kept = np.empty(length)
    for p in range(count):
        n = 0
        for t in range(length):
            if values[t, p] == values[t, p]:
                kept[n] = values[t, p]
                n += 1
        out[p] = np.median(kept[:n]) if n else np.nan


@kernel
def scene_equations(points, scene, weight, model, needed, linear, shift, used, matrix, right):
    """Build the normal equations of the scene with the frames eliminated (Schur complement), 2-D.

    ``matrix`` (2 P, 2 P) and ``right`` (2 P,) give the step of the scene after which, with the best motion of every
    frame, the weighted squares are least. Its null space is the choice of the reference.
    """
    length, count, _ = points.shape
    matrix[:] = 0.0
    right[:] = 0.0
    present = np.empty(count, np.int64)
    jacobian = np.empty((count, 6, 2))  # of a frame's parameters, for its particles
    solved = np.empty((count, 6, 2))
    normal, factor = np.empty((6, 6)), np.zeros((6, 6))
    gradient, step = np.empty(6), np.empty(6)
    for t in range(length):
        n = 0
        for p in range(count):
            if weight[t, p] > 0:
                present[n] = p
                n += 1
        if n == 0:
            continue
        kind = model if used[t] >= needed else TRANSLATION
        k = 2 + (0 if kind == TRANSLATION else (1 if kind == EUCLIDEAN else (2 if kind == SIMILARITY else 4)))
        normal[:] = 0.0
        gradient[:] = 0.0
        for i in range(n):
            p = present[i]
            w = weight[t, p]
            y = linear[t, 0, 0] * points[t, p, 0] + linear[t, 0, 1] * points[t, p, 1] + shift[t, 0]
            x = linear[t, 1, 0] * points[t, p, 0] + linear[t, 1, 1] * points[t, p, 1] + shift[t, 1]
            ry, rx = y - scene[p, 0], x - scene[p, 1]
            j = jacobian[i]
            j[:] = 0.0
            j[0, 0] = j[1, 1] = 1.0
            if kind == AFFINE:
                j[2, 0], j[3, 0], j[4, 1], j[5, 1] = y, x, y, x
            elif kind != TRANSLATION:
                j[2, 0], j[2, 1] = -x, y
                if kind == SIMILARITY:
                    j[3, 0], j[3, 1] = y, x
            for a in range(k):
                gradient[a] += w * (j[a, 0] * ry + j[a, 1] * rx)
                for b in range(a + 1):
                    normal[a, b] += w * (j[a, 0] * j[b, 0] + j[a, 1] * j[b, 1])
            matrix[2 * p, 2 * p] += w
            matrix[2 * p + 1, 2 * p + 1] += w
            right[2 * p] += w * ry
            right[2 * p + 1] += w * rx
        if not cholesky(normal, k, 0.0, factor, 1e-10):
            continue
        forward(factor, k, gradient, step)
        for i in range(n):
            w = weight[t, present[i]]
            for axis in range(2):
                for a in range(k):
                    s = w * jacobian[i, a, axis]
                    for b in range(a):
                        s -= factor[a, b] * solved[i, b, axis]
                    solved[i, a, axis] = s / factor[a, a]
        for i in range(n):
            p = present[i]
            for a in range(k):
                right[2 * p] -= solved[i, a, 0] * step[a]
                right[2 * p + 1] -= solved[i, a, 1] * step[a]
            for m in range(n):
                q = present[m]
                yy = yx = xy = xx = 0.0
                for a in range(k):
                    yy += solved[i, a, 0] * solved[m, a, 0]
                    yx += solved[i, a, 0] * solved[m, a, 1]
                    xy += solved[i, a, 1] * solved[m, a, 0]
                    xx += solved[i, a, 1] * solved[m, a, 1]
                matrix[2 * p, 2 * q] -= yy
                matrix[2 * p, 2 * q + 1] -= yx
                matrix[2 * p + 1, 2 * q] -= xy
                matrix[2 * p + 1, 2 * q + 1] -= xx
