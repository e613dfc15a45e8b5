"""Compiled Lucas-Kanade on feature maps, every channel of a pixel in one pass."""

# mypy: allow-untyped-defs, allow-untyped-calls
import numpy as np

from stackalign.core.compiled import fast_inlined, fast_kernel, inlined, kernel

FLOWS = 8  # first-order motions of a homography: see `flow_of`
# their powers of u and v along y, and along x; -1: none
_P, _Q = (0, 1, 0, -1, -1, -1, 2, 1), (0, 0, 1, 0, 0, 0, 0, 1)
_R, _S = (-1, -1, -1, 0, 1, 0, 1, 0), (0, 0, 0, 0, 0, 1, 1, 2)


@fast_inlined
def _read(moving, y, x, out):
    """Read all channels at (y, x), linearly; False outside."""
    h, w, channels = moving.shape
    if not (y >= 0.0 and x >= 0.0 and y <= h - 1.0 and x <= w - 1.0):
        return False
    i, j = min(int(y), h - 2), min(int(x), w - 2)
    fy, fx = np.float32(y - i), np.float32(x - j)
    one = np.float32(1)
    a, b, c, d = (one - fy) * (one - fx), (one - fy) * fx, fy * (one - fx), fy * fx
    for k in range(channels):
        out[k] = a * moving[i, j, k] + b * moving[i, j + 1, k] + c * moving[i + 1, j, k] + d * moving[i + 1, j + 1, k]
    return True


@fast_inlined
def _row_added(normal, right, curved, pulled, u):
    """Add the sums of a row to the upper half of the normal equations.

    Flow a is u^P[a] v^Q[a] along y where P[a] >= 0, and u^R[a] v^S[a] along x where R[a] >= 0.
    """
    for a in range(FLOWS):
        if _P[a] >= 0:
            right[a] += u ** _P[a] * pulled[0, _Q[a]]
        if _R[a] >= 0:
            right[a] += u ** _R[a] * pulled[1, _S[a]]
        for b in range(a, FLOWS):
            total = 0.0
            if _P[a] >= 0 and _P[b] >= 0:
                total += u ** (_P[a] + _P[b]) * curved[0, _Q[a] + _Q[b]]
            if _R[a] >= 0 and _P[b] >= 0:
                total += u ** (_R[a] + _P[b]) * curved[1, _S[a] + _Q[b]]
            if _P[a] >= 0 and _R[b] >= 0:
                total += u ** (_P[a] + _R[b]) * curved[1, _Q[a] + _S[b]]
            if _R[a] >= 0 and _R[b] >= 0:
                total += u ** (_R[a] + _R[b]) * curved[2, _S[a] + _S[b]]
            normal[a, b] += total


@fast_inlined
def _equations(fixed, moving, weight, moving_weight, backward, gain, cut, middle, radius, step):
    """Return the normal equations of one Gauss-Newton step of the fixed features towards the moved ones.

    Parameters
    ----------
    fixed : float32 (y, x, channel)
        Whose gradients are taken.
    moving : float32 (y, x, channel)
    weight : float32 (y, x)
        Of the pixels of ``fixed``; 0: does not count.
    moving_weight : float32 (y, x)
        The same of ``moving``.
    backward : float64 (3, 3)
        Pixels of fixed -> pixels of moving.
    gain : float
        What the fixed features are multiplied with to be compared.
    cut : float
        Squared distance of features at which a pixel's weight has fallen to a quarter; 0: no robust weights.
    middle, radius : float64 (2,), float
        Normalise coordinates: u = (y - middle[0]) / radius, v likewise.
    step : int
        Every step-th row and column counts.

    Returns
    -------
    normal : float64 (8, 8)
        Symmetric; flows in the order of `flow_of`.
    right : float64 (8,)
    sums : float64 (6,)
        Of the robustly weighted products fixed x moving, fixed^2 and moving^2, of the weights before and after the
        robust weighting, and of the weighted squared distance.
    """
    h, w, channels = fixed.shape
    normal, right, sums = np.zeros((FLOWS, FLOWS)), np.zeros(FLOWS), np.zeros(6)
    seen = np.empty(channels, np.float32)
    # sums over a row of curvatures and right sides times powers of v: u is the same all along it
    curved, pulled = np.empty((3, 5)), np.empty((2, 3))
    half, g = np.float32(0.5), np.float32(gain)
    mh, mw = moving_weight.shape
    for i in range(1, h - 1, step):
        u = (i - middle[0]) / radius
        curved[:] = 0.0
        pulled[:] = 0.0
        for j in range(1, w - 1, step):
            known = weight[i, j]
            if known <= 0.0:
                continue
            depth = backward[2, 0] * i + backward[2, 1] * j + backward[2, 2]
            if depth <= 1e-6:
                continue
            y = (backward[0, 0] * i + backward[0, 1] * j + backward[0, 2]) / depth
            x = (backward[1, 0] * i + backward[1, 1] * j + backward[1, 2]) / depth
            if not _read(moving, y, x, seen):
                continue
            known *= moving_weight[min(int(y + 0.5), mh - 1), min(int(x + 0.5), mw - 1)]
            if known <= 0.0:
                continue
            fm = ff = mm = ry = rx = yy = yx = xx = distance = np.float32(0)
            for k in range(channels):
                f, m = fixed[i, j, k], seen[k]
                gy = half * (fixed[i + 1, j, k] - fixed[i - 1, j, k])
                gx = half * (fixed[i, j + 1, k] - fixed[i, j - 1, k])
                r = m - g * f
                distance += r * r
                fm += f * m
                ff += f * f
                mm += m * m
                ry += gy * r
                rx += gx * r
                yy += gy * gy
                yx += gy * gx
                xx += gx * gx
            used = np.float64(known)
            if cut > 0.0:
                share = cut / (cut + distance)
                used *= share * share
            sums[0] += used * fm
            sums[1] += used * ff
            sums[2] += used * mm
            sums[3] += known
            sums[4] += used
            sums[5] += known * distance
            v = (j - middle[1]) / radius
            power = used
            for k in range(5):
                curved[0, k] += power * yy
                curved[1, k] += power * yx
                curved[2, k] += power * xx
                if k < 3:
                    pulled[0, k] += power * ry
                    pulled[1, k] += power * rx
                power *= v
        _row_added(normal, right, curved, pulled, u)
    for a in range(FLOWS):
        for b in range(a):
            normal[a, b] = normal[b, a]
    return normal, right, sums


@inlined
def _mean_distance(first, second, corners):
    """Return the mean distance of corners (4, 2) under two homographies (3, 3); infinite where one is not in front."""
    total = 0.0
    for k in range(corners.shape[0]):
        y, x = corners[k, 0], corners[k, 1]
        a = first[2, 0] * y + first[2, 1] * x + first[2, 2]
        b = second[2, 0] * y + second[2, 1] * x + second[2, 2]
        if not (a > 0.0 and b > 0.0):
            return np.inf
        dy = (first[0, 0] * y + first[0, 1] * x + first[0, 2]) / a
        dy -= (second[0, 0] * y + second[0, 1] * x + second[0, 2]) / b
        dx = (first[1, 0] * y + first[1, 1] * x + first[1, 2]) / a
        dx -= (second[1, 0] * y + second[1, 1] * x + second[1, 2]) / b
        total += np.sqrt(dy * dy + dx * dx)
    return total / corners.shape[0]


@inlined
def _inverse(matrix):
    """Return the inverse (3, 3) by cofactors, its last entry 1; NaN if there is none."""
    out = np.empty((3, 3))
    for i in range(3):
        for j in range(3):
            a, b, c, d = (j + 1) % 3, (j + 2) % 3, (i + 1) % 3, (i + 2) % 3
            out[i, j] = matrix[a, c] * matrix[b, d] - matrix[a, d] * matrix[b, c]
    return out / out[2, 2]


@inlined
def _factored(matrix):
    """Turn a symmetric matrix into its lower Cholesky factor, in place; False if it is not positive definite."""
    n = matrix.shape[0]
    for i in range(n):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            if i > j:
                matrix[i, j] = total / matrix[j, j]
            elif total > 0.0:
                matrix[i, i] = np.sqrt(total)
            else:
                return False
    return True


@inlined
def _solved(factor, right, out):
    """Write the solution of L L' x = right, L lower; returns the squared length of the solution of L y = right."""
    n = len(right)
    length = 0.0
    for i in range(n):
        total = right[i]
        for k in range(i):
            total -= factor[i, k] * out[k]
        out[i] = total / factor[i, i]
        length += out[i] * out[i]
    for i in range(n - 1, -1, -1):
        total = out[i]
        for k in range(i + 1, n):
            total -= factor[k, i] * out[k]
        out[i] = total / factor[i, i]
    return length


@inlined
def _combined(first, second, out):
    """Write the product of two homographies, its last entry 1."""
    for i in range(3):
        for j in range(3):
            out[i, j] = first[i, 0] * second[0, j] + first[i, 1] * second[1, j] + first[i, 2] * second[2, j]
    out /= out[2, 2]


@kernel
def descended(
    fixed, moving, weight, moving_weight, begun, space, flows, middle, radius, ends, reach, alike, iterations, robust,
    damping, tolerance, step,
):  # fmt: skip
    """Return where Gauss-Newton steps lead, whether the last was small, and the standard error of the corners.

    Parameters
    ----------
    fixed, moving, weight, moving_weight, middle, radius, step
        See `_equations`.
    begun : float64 (3, 3)
        Moving -> fixed, the last entry 1.
    space : float64 (8, N)
        Orthonormal corner offsets that are allowed, as columns.
    flows : float64 (8, 8)
        Corner offsets -> first-order motions.
    ends : float64 (4, 2)
        Corners of the moving image.
    reach : float
        Pixels that they may go, on average.
    alike : float
        Pixels whose residuals are alike.
    iterations, robust, damping, tolerance
        See `stackalign.core.multimodal.refine.refine`.
    """
    n = space.shape[1]
    motions = flows @ space  # numbers of the model -> first-order motions
    current, following, small = begun.copy(), np.empty((3, 3)), np.empty((3, 3))
    projected, target, found, unit = np.empty((n, n)), np.empty(n), np.empty(n), np.zeros(n)
    here = np.array([[radius, 0.0, middle[0]], [0.0, radius, middle[1]], [0.0, 0.0, 1.0]])
    away = np.array([[1.0, 0.0, -middle[0]], [0.0, 1.0, -middle[1]], [0.0, 0.0, radius]])
    limit = 0.1 * min(fixed.shape[0], fixed.shape[1])
    gain, cut, converged, spread = 1.0, 0.0, False, np.nan
    for k in range(iterations + 1):
        normal, right, sums = _equations(
            fixed, moving, weight, moving_weight, _inverse(current), gain, cut, middle, radius, step
        )
        if not (sums[3] > 0.0 and sums[1] > 0.0 and np.isfinite(right).all()):
            break
        best = max(sums[0] / sums[1], 0.05)
        if k > 0:
            projected[:] = motions.T @ normal @ motions
            mean = np.trace(projected) / n
            if not mean > 0.0:
                break
            for a in range(n):
                projected[a, a] += damping * mean
            target[:] = motions.T @ right / gain
            if not _factored(projected):
                break
            _solved(projected, target, found)
            move = space @ found
            size = np.abs(move).max()
            p = flows @ move * (min(1.0, limit / max(size, 1e-12)) / radius)
            small[0, 0], small[0, 1], small[0, 2] = 1.0 + p[1], p[2], p[0]
            small[1, 0], small[1, 1], small[1, 2] = p[4], 1.0 + p[5], p[3]
            small[2, 0], small[2, 1], small[2, 2] = -p[6], -p[7], 1.0
            _combined(here @ small @ away, current, following)
            if not _mean_distance(following, begun, ends) <= reach:
                break
            current[:] = following
            variance = 0.0
            for a in range(n):
                unit[:] = 0.0
                unit[a] = 1.0
                variance += _solved(projected, unit, found)
            noise = sums[5] / sums[3] / fixed.shape[2] / best**2
            spread = np.sqrt(variance * noise * alike / 8.0) * step
            if size < tolerance:
                converged = True
                break
        # the first pass only measures brightness and residual
        gain, cut = best, robust * sums[5] / sums[3]
    return current, converged, spread


@fast_kernel
def overlap_sums(fixed, moving, weight, moving_weight, backward, step):
    """Return the weighted sums of fixed x moving, fixed^2, moving^2, and of the weights, over what both show."""
    h, w, channels = fixed.shape
    sums, seen = np.zeros(4), np.empty(channels, np.float32)
    mh, mw = moving_weight.shape
    for i in range(0, h, step):
        for j in range(0, w, step):
            known = weight[i, j]
            if known <= 0.0:
                continue
            depth = backward[2, 0] * i + backward[2, 1] * j + backward[2, 2]
            if depth <= 1e-6:
                continue
            y = (backward[0, 0] * i + backward[0, 1] * j + backward[0, 2]) / depth
            x = (backward[1, 0] * i + backward[1, 1] * j + backward[1, 2]) / depth
            if not _read(moving, y, x, seen):
                continue
            known *= moving_weight[min(int(y + 0.5), mh - 1), min(int(x + 0.5), mw - 1)]
            fm = ff = mm = np.float32(0)
            for k in range(channels):
                f, m = fixed[i, j, k], seen[k]
                fm += f * m
                ff += f * f
                mm += m * m
            sums[0] += known * fm
            sums[1] += known * ff
            sums[2] += known * mm
            sums[3] += known
    return sums
