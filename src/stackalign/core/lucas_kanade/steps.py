"""The compiled loop of gradient alignment: warp, project, solve, compose, until the corners rest."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import inlined, kernel
from stackalign.core.lucas_kanade.kernels import TERMS, covered, gram, products
from stackalign.core.translation.kernels import solved

# How a loop ended.
FAR, NO_OVERLAP, NO_STRUCTURE, NO_CORRELATION, MOVED, SETTLED = -4, -3, -2, -1, 0, 1
# Places in the vector of results.
GAIN, OFFSET, SCALE, STEP, OVERLAP, OUTLIERS, DONE = 0, 1, 2, 3, 4, 5, 6
RESULTS = 7
_LEAST_OVERLAP = 1e-3
_SLOPELESS = 1e-8  # of the best known motion's information: below, what looks like a slope is rounding
_RESTS = 0.02  # px: a last step of that size is as good as settled
_TURNED = 0.25  # of a step: if the next one takes back as much, both are shortened
_SMALLEST = 1 / 16  # of a step
_ROUGH = 10.0  # times the tolerance: what some rows leave for all of them to mend


@kernel
def _exponential(group, step, out):
    """Write the exponential of ``sum_k step_k group_k`` (4, 4): the series of a tiny one, then squared."""
    flow = np.zeros((4, 4))
    for k in range(len(step)):
        flow += step[k] * group[k]
    size = np.abs(flow[:, :3]).max()
    halvings = 0
    while size > 0.1 and halvings < 60:
        size *= 0.5
        halvings += 1
    flow /= 2.0**halvings
    out[:] = np.eye(4)
    term = np.eye(4)
    for k in range(1, 12):
        term = term @ flow / k
        out += term
    for _ in range(halvings):
        out[:] = out @ out


@kernel
def _places(matrix, points, out):
    """Write where points (N, 3) go, (N, 3)."""
    for n in range(len(points)):
        z, y, x = points[n]
        depth = matrix[3, 0] * z + matrix[3, 1] * y + matrix[3, 2] * x + matrix[3, 3]
        for a in range(3):
            out[n, a] = (matrix[a, 0] * z + matrix[a, 1] * y + matrix[a, 2] * x + matrix[a, 3]) / depth


@inlined
def _settled(
    c, seen, basis, phi, lost, noisy, flow, middle, radius, group, swing, points, whole, thin, every, size, matrix,
    normal, results, kind, cut, tolerance, longest, reach, iterations,
):  # fmt: skip
    """Refine one motion, and return how that ended; see `settle`."""
    count = len(group)
    shape = np.array([basis.shape[1], basis.shape[2], basis.shape[3]])
    there, boxed = np.empty_like(points), np.full_like(points, np.inf)
    spans = np.zeros((shape[0] * shape[1], 2), np.int64)
    part, right, theta = np.zeros((count + 2, count + 3)), np.zeros(count + 2), np.zeros(count + 2)
    more = np.zeros(count + 2)
    move, step = np.zeros((4, 4)), np.zeros(count)
    slow = kind != 0 or seen.size > 1
    begun, before, rate = results[DONE], np.inf, 1.0
    last, share, thinned = np.zeros(count), 1.0, every
    for _ in range(iterations):
        results[DONE] += 1
        total_of = thin if thinned > 1 else whole
        backward = np.linalg.inv(matrix)
        _places(backward, points, there)
        if not np.abs(there - boxed).max() < 0.25:
            spans[:] = covered(backward, size, shape)
            boxed[:] = there
            if not slow:
                most = 2 * (spans[:, 1] - spans[:, 0]).sum() > shape[0] * shape[1] * shape[2]
                part[:] = 0.0
                gram(basis, phi[-1], lost, flow, middle, radius, spans, thinned, most, part)
                for i in range(count + 2):
                    more[i] = total_of[i, -1] - part[i, -1] if most else part[i, -1]
                    for j in range(i, count + 2):
                        normal[i, j] = normal[j, i] = total_of[i, j] - part[i, j] if most else part[i, j]
        moments, values, upper, vector, also, counted = products(
            c, seen, backward, spans, thinned, basis, phi, lost, flow, middle, radius, not slow, results[:3], kind, cut
        )
        if slow:
            for i in range(count + 2):
                right[i], more[i] = vector[i], also[i]
                for j in range(i, count + 2):
                    normal[i, j] = normal[j, i] = upper[i, j]
            results[OVERLAP] = counted[0] / total_of[-1, -2]
            results[OUTLIERS] = 1.0 - counted[1] / max(counted[0], 1e-300)
        else:
            for i in range(count):
                total = 0.0
                for a in range(3):
                    for t in range(TERMS):
                        total += flow[i, a, t] * moments[a, t]
                right[i] = total
            right[count], right[count + 1] = values
            results[OVERLAP] = normal[-1, -1] / total_of[-1, -2]
        if results[OVERLAP] <= _LEAST_OVERLAP:
            return NO_OVERLAP
        if lost.size > 1:  # frames are compared with the reference as it came, which its filter bends near borders
            bright = results[GAIN] if results[GAIN] > 0.0 else 1.0
            right -= more * bright
            right[count] += noisy * bright * normal[count + 1, count + 1]
        most_told, least_told = 0.0, np.inf
        for k in range(count):
            most_told, least_told = max(most_told, normal[k, k]), min(least_told, normal[k, k])
        if not least_told > _SLOPELESS * most_told or not solved(normal, right, theta):
            return NO_STRUCTURE
        gain = theta[count]
        results[GAIN], results[OFFSET] = gain, theta[count + 1]
        if not gain > 0.0:
            return NO_CORRELATION
        results[STEP] = 0.0
        for k in range(count):
            step[k] = theta[k] / gain
        for m in range(len(swing)):
            results[STEP] = max(results[STEP], abs((swing[m] * step).sum()))
        if not np.isfinite(results[STEP]):
            return NO_STRUCTURE
        if results[DONE] == begun + 1 and results[STEP] > reach:
            return FAR
        if results[STEP] > longest:
            step *= longest / results[STEP]
        along = length = 0.0
        for m in range(len(swing)):
            way = (swing[m] * last).sum()
            along += (swing[m] * step).sum() * way
            length += way * way
        last[:] = step
        if along < -_TURNED * length:  # a filtered template is flatter than the frame: it went too far
            share = max(0.5 * share, _SMALLEST)
        step *= share
        _exponential(group, step, move)
        matrix[:] = move @ matrix
        matrix /= matrix[3, 3]
        if np.isfinite(before):
            rate = results[STEP] / max(before, 1e-300)
        left = results[STEP] * rate / (1.0 - rate) if rate < 0.9 else results[STEP]
        left = min(left, results[STEP])
        if thinned > 1:
            before = results[STEP]
            if left < _ROUGH * tolerance or results[DONE] - begun >= iterations // 3:
                thinned, before = 1, np.inf  # the rate stays known
                boxed[:] = np.inf
                last[:], share = 0.0, 1.0  # all rows ask for another place than some: that is no step back
            continue
        before = results[STEP]
        if left < tolerance:
            return SETTLED
    return SETTLED if thinned == 1 and results[STEP] < _RESTS else MOVED


@kernel
def settle(
    frames, seen, basis, phi, lost, noisy, flow, middle, radius, group, swing, points, whole, thin, every, which, size,
    matrices, normals, vectors, ends, kind, cut, tolerance, longest, reach, iterations,
):  # fmt: skip
    """Refine motions by inverse compositional Gauss-Newton steps: first on some rows, then on all.

    Steps shrink by the same factor from one to the next, so that the second one tells how far the end is.

    Parameters
    ----------
    frames : float32 (n, Z, Y, X)
        Spline coefficients, padded.
    seen : float32
        Of a single frame, or (1, 1, 1) where all pixels are known: see `products`.
    basis, phi, lost, flow, middle, radius
        The template: see `products` and `gram`.
    noisy : float64
        What the noise of ``lost`` adds to its product with the template's values, a unit of weight: gain would be
        held down by noise that the frame does not share, and the motion with it.
    group : float64 (K, 4, 4)
        Generators, over (z, y, x, 1).
    swing : float64 (M, K)
        How coordinates of the corners move along each.
    points : float64 (N, 3)
        Corners of the template.
    whole, thin : float64 (K + 2, K + 3)
        Products over the whole template, and over the first of ``every`` rows.
    every : int
        1: all rows count from the beginning.
    which : int64 (m,)
        The frames that are worked on.
    size : int64 (3,)
        Of the frames without padding.
    matrices : float64 (n, 4, 4)
        Frame -> template: first guesses, changed in place.
    normals : float64 (n, K + 2, K + 2)
        Filled with the last normal equations.
    vectors : float64 (n, 7)
        Gain, offset and scale of residuals are read where ``kind`` is not 0; all are written, see the constants.
    ends : int64 (n,)
        Filled: how each ended.
    kind, cut
        Robust weights: see `products`.
    tolerance, longest, reach : float
        What may be left to go at the corners, the longest step taken, and the longest first one, pixels.
    iterations : int
    """
    for n in which:
        ends[n] = _settled(
            frames[n], seen, basis, phi, lost, noisy, flow, middle, radius, group, swing, points, whole, thin, every,
            size, matrices[n], normals[n], vectors[n], kind, cut, tolerance, longest, reach, iterations,
        )  # fmt: skip


@kernel
def standard_errors(normal, group, widened, matrix, points, spread, out):
    """Fill ``out`` (N, d) with the standard errors of the places of points; returns the condition of the equations.

    Parameters
    ----------
    normal : float64 (K + 2, K + 2)
        Normal equations of the motion, gain and offset, for unit noise.
    group : float64 (K, d + 1, d + 1)
        Generators.
    widened : float64 (K, K)
        Deviation of motions, in units of that to a reference free of noise.
    matrix : float64 (d + 1, d + 1)
        Frame -> template.
    points : float64 (N, d)
        Of the frame.
    spread : float
        Variance of the noise over the squared gain.
    """
    count, free, d = normal.shape[0], group.shape[0], points.shape[1]
    unit, scaled = np.empty(count), np.empty((count, count))
    for i in range(count):
        unit[i] = 1.0 / np.sqrt(max(normal[i, i], 1e-300))
    for i in range(count):
        for j in range(count):
            scaled[i, j] = normal[i, j] * unit[i] * unit[j]
    values, vectors = np.linalg.eigh(scaled)
    covariance = np.zeros((free, free))
    for i in range(free):
        for j in range(free):
            total = 0.0
            for k in range(count):
                total += vectors[i, k] * vectors[j, k] / max(values[k], 1e-300)
            covariance[i, j] = total * unit[i] * unit[j] * spread
    covariance = widened @ covariance @ widened.T
    place, move = np.empty(d + 1), np.empty(free)
    for n in range(points.shape[0]):
        for a in range(d + 1):
            place[a] = matrix[a, d]
            for b in range(d):
                place[a] += matrix[a, b] * points[n, b]
        for a in range(d):
            place[a] /= place[d]
        place[d] = 1.0
        for a in range(d):
            for k in range(free):
                flow = depth = 0.0
                for b in range(d + 1):
                    flow += group[k, a, b] * place[b]
                    depth += group[k, d, b] * place[b]
                move[k] = flow - place[a] * depth
            total = 0.0
            for i in range(free):
                for j in range(free):
                    total += move[i] * covariance[i, j] * move[j]
            out[n, a] = np.sqrt(max(total, 0.0)) if np.any(move != 0.0) else np.nan
    return values[count - 1] / max(values[0], 1e-300)
