"""Numba kernels that fit the shift of a whole frame: its spline, read on the template's grid, projected on images.

All derivatives are those of the template and worked out once (inverse compositional). How long a step really must be
is read off the frame's own slopes, on every few rows: noise that is left in a template makes its own slopes too steep.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, inlined, kernel
from stackalign.core.frames.noise_kernels import middle_curve
from stackalign.core.translation.kernels import judged, solved, spline_weights
from stackalign.core.translation.projection_kernels import project

#: columns of what `fit_frames` tells of each frame; the variances along the axes come last
STATUS, STEPS, GAIN, OFFSET, COUNT, CORRELATION, RESIDUAL, CHI2, OVERLAP, CURVE, VARIANCE = range(11)
#: states of a fit
NO_OVERLAP, NO_STRUCTURE, NO_CORRELATION, MOVED, SETTLED = -3, -2, -1, 0, 1

_NEAR = 0.2  # px: a step on every few rows, from which on all rows are taken
_CLOSE = 0.05  # px: what is left after a step that the frame's own slopes scaled is some thousandths of it
_CLOSER = 0.02  # px: the same, where slopes were taken on every few rows
_FAR = 0.3  # px: beyond, the slopes at a place say little about the way to the best one
_STEEP = 0.5  # of a step that slopes too steep leave: below, longer ones would be a guess
_LOST = 0.1  # below, nothing of the scene is there to answer


@inlined
def _boxed(shape, size, shift, d, box):
    """Fill ``box`` with the part of a template that a frame covers but for its outermost pixels; False: too little."""
    for axis in range(3):
        if axis < 3 - d:
            box[0, axis], box[1, axis] = 0, 1
            continue
        margin = 1 if shape[axis] > 8 else 0
        low = max(int(np.ceil(margin + shift[axis])), 0)
        high = min(int(np.floor(shape[axis] - 1 - margin + shift[axis])), size[axis] - 1)
        if high - low < min(3, size[axis] // 2):
            return False
        box[0, axis], box[1, axis] = low, high - low + 1
    return True


@inlined
def _block_sums(sums, planes, rows, columns, box, normal):
    """Fill ``normal`` with what blocks within a box add up to; the box shrinks to these. False: there are none."""
    first, last = np.zeros(3, np.int64), np.zeros(3, np.int64)
    for axis in range(3):
        edges = planes if axis == 0 else rows if axis == 1 else columns
        first[axis] = np.searchsorted(edges, box[0, axis])
        last[axis] = np.searchsorted(edges, box[0, axis] + box[1, axis], side="right") - 1
        if last[axis] <= first[axis]:
            return False
        box[0, axis], box[1, axis] = edges[first[axis]], edges[last[axis]] - edges[first[axis]]
    normal[:] = 0.0
    for corner in range(8):
        sign, at = 1.0, last.copy()
        for axis in range(3):
            if corner >> axis & 1:
                at[axis], sign = first[axis], -sign
        some = sums[at[0], at[1], at[2]]
        for i in range(normal.shape[0]):
            for j in range(normal.shape[1]):
                normal[i, j] += sign * some[i, j]
    return True


@inlined
def _largest(step):
    most = 0.0
    for k in range(step.shape[0]):
        if not abs(step[k]) <= most and most == most:  # NaN stays
            most = abs(step[k])
    return most


@inlined
def fit_shift(
    c,
    pad,
    shape,
    phi,
    scale,
    whole,
    thinned,
    planes,
    rows,
    columns,
    every,
    shift,
    tolerance,
    longest,
    iterations,
    normal,
    theta,
    answer,
):
    """Find the shift of a whole frame against a template by inverse compositional Gauss-Newton steps.

    Parameters
    ----------
    c : (Z, Y, X)
        The frame, mirrored beyond its borders: its pixels are read as the coefficients of a cubic B-spline, which
        smooths it as ``basis`` is smoothed.
    pad : int
        Pixels that ``c`` has around each axis of the frame.
    shape : int64 (3,)
        Of the frame.
    phi, scale
        Images that the frame is projected on; see `project`.
    whole, thinned : float64 (L, M, N, K, K)
        Products over the blocks above and before each of their edges, and the same over every few rows.
    planes, rows, columns : int64 (L,), (M,), (N,)
        Edges of the blocks.
    every : int
        Which rows these are; 1: all rows are taken from the first step on.
    shift : float64 (3,)
        Frame -> template, pixels; first guess, changed in place.
    tolerance, longest : float
        Step that ends the search, and the longest step taken, pixels.
    iterations : int
    normal, theta : float64 (K, K), (K,)
        Filled with the products over the overlap and the last solution: gain times step, gain, offset.
    answer : float64 (d, d)
        Filled with how far a step goes that the true displacement asks for; the identity if the template's slopes are
        those of the frame.

    Returns
    -------
    status : int
        `SETTLED`, `MOVED` (still moving by over 0.02 px) or what went wrong.
    done : int
        Steps taken.
    """
    count = phi.shape[0]
    d = count - 2
    size = np.array([phi.shape[1], phi.shape[2], phi.shape[3]])
    box, boxed = np.zeros((2, 3), np.int64), np.full(3, np.inf)
    first, weights = np.zeros(3, np.int64), np.zeros((3, 2, 4), np.float32)
    sums, column = np.zeros((count, 1 + d)), np.zeros(count)
    step, scaled = np.zeros(d), np.zeros(d)
    longest_step = np.inf
    thin, told = every, False
    for done in range(1, iterations + 1):
        near = True
        for axis in range(3):
            near = near and abs(shift[axis] - boxed[axis]) <= 0.25
        if not near:
            if not _boxed(shape, size, shift, d, box):
                return NO_OVERLAP, done
            if not _block_sums(whole if thin == 1 else thinned, planes, rows, columns, box, normal):
                return NO_OVERLAP, done
            boxed[:] = shift
        for axis in range(3 - d, 3):
            n = int(np.floor(-shift[axis]))
            taps = spline_weights(-shift[axis] - n)
            for i in range(2):
                for k in range(4):
                    weights[axis, i, k] = taps[i, k]
            first[axis] = box[0, axis] + n + pad - 1
        sloped = thin > 1 or every == 1 or not told
        project(c, first, weights, box, thin, phi, scale, sloped, sums)
        if not solved(normal, sums[:, 0], theta):
            if thin > 1:  # all rows may tell what some do not
                thin, boxed[0] = 1, np.inf
                continue
            return NO_STRUCTURE, done
        if theta[d] <= 0.0:
            return NO_CORRELATION, done
        for k in range(d):
            step[k] = theta[k] / theta[d]
        longest_step = _largest(step)
        if sloped:
            told = True
            for k in range(d):
                answer[:, k] = 0.0
                if solved(normal, sums[:, 1 + k], column):
                    for i in range(d):
                        answer[i, k] = column[i] / theta[d]
                if size[3 - d + k] < 3:  # no slope is known
                    answer[:, k], answer[k, :], answer[k, k] = 0.0, 0.0, 1.0
        near, least = longest_step < _FAR, np.inf
        for k in range(d):
            least = min(least, answer[k, k])
        near = near and least > _STEEP and solved(answer, step, scaled)
        if near:
            step[:] = scaled
            longest_step = _largest(step)
        elif not least > _LOST:
            for i in range(d):
                for k in range(d):
                    answer[i, k] = 1.0 if i == k else 0.0
        for k in range(d):
            shift[3 - d + k] += min(max(step[k], -longest), longest)
        if thin > 1:
            if longest_step < _NEAR:
                thin, boxed[0] = 1, np.inf
        elif longest_step < ((_CLOSE if sloped else _CLOSER) if near else tolerance):
            return SETTLED, done
    return (SETTLED if longest_step < 0.02 else MOVED), iterations


@kernel
def variances(normal, answer):
    """Return the variance (d,) of a shift in units of the noise; parameters as `fit_shift` fills them.

    With N the products of basis images and weights, and A how far a step goes for a unit of displacement, the solution
    has the covariance ``A^-1 N^-1 A^-T``.
    """
    d, count = answer.shape[0], normal.shape[0]
    even = np.empty((count, count))
    for i in range(count):
        for j in range(count):
            even[i, j] = 0.5 * (normal[i, j] + normal[j, i])
    unit, column = np.zeros(count), np.zeros(count)
    some, part = np.zeros(d), np.zeros(d)
    inverse = np.full((count, count), np.nan)
    back = np.full((d, d), np.nan)
    for k in range(count):
        unit[:], unit[k] = 0.0, 1.0
        if solved(even, unit, column):
            inverse[:, k] = column
    for k in range(d):
        some[:], some[k] = 0.0, 1.0
        if solved(answer, some, part):
            back[:, k] = part
    out = np.zeros(d)
    for k in range(d):
        for i in range(d):
            for j in range(d):
                out[k] += back[k, i] * inverse[i, j] * back[k, j]
        out[k] = max(out[k], 0.0)
    return out


@inlined
def _fit_frame(
    c, pad, frame, phi, scale, whole, thinned, planes, rows, columns, every, coefficients, known, noise, sampled,
    curved, shift, tolerance, longest, iterations, answer, told,
):  # fmt: skip
    """Fit and judge one frame; see `fit_frames`."""
    count = phi.shape[0]
    d = count - 2
    normal, theta = np.zeros((count, count)), np.zeros(count)
    shape = np.array(frame.shape)
    status, done = fit_shift(
        c, pad, shape, phi, scale, whole, thinned, planes, rows, columns, every, shift, tolerance, longest, iterations,
        normal, theta, answer,
    )  # fmt: skip
    told[STATUS], told[STEPS] = status, done
    if status < 0:
        return
    told[GAIN], told[OFFSET] = theta[d], theta[d + 1]
    told[OVERLAP] = normal[count - 1, count - 1] / whole[-1, -1, -1, count - 1, count - 1]
    if curved[0] > 0:
        told[CURVE] = middle_curve(frame, curved[0], curved[1])
    if sampled == 0:
        return
    there, first, last = shift.copy(), 0, shape[0]
    if d == 3:
        first = max(int(np.ceil(-shift[0] - 1e-6)), 0)
        last = max(min(int(np.floor(shape[0] - 1 - shift[0] + 1e-6)), shape[0] - 1) + 1, first)
        there[0] += first + 1.0
    nothing = np.zeros((1, 1, 1), np.float32)
    told[COUNT], told[CORRELATION], told[RESIDUAL], told[CHI2] = judged(
        frame[first:last], nothing, coefficients, known, there, theta[d:], noise, sampled
    )
    told[VARIANCE : VARIANCE + d] = variances(normal, answer)


@fast_inlined
def _converted(frame, out):
    for z in range(out.shape[0]):
        for y in range(out.shape[1]):
            row, to = frame[z, y], out[z, y]
            for x in range(to.shape[0]):
                to[x] = np.float32(row[x])


@kernel
def fit_frames(
    c, pad, frame, bytes_, words, floats, phi, scale, whole, thinned, planes, rows, columns, every, coefficients, known,
    noise, sampled, curved, shifts, tolerance, longest, iterations, answers, out,
):  # fmt: skip
    """Fit the shifts of whole frames, and judge them: `fit_shift`, residuals, standard errors and noise, in one call.

    Threads that work on some frames each then hardly wait for one another: Python is entered once for all of these.

    Parameters
    ----------
    c : float32 (n, Z, Y, X)
        Not looked at if ``pad`` is 0: the frames themselves are taken.
    frame : float32 (z, y, x)
        Room for one that is converted. The same memory for all: what is read several times then lies near the
        processor, and memory that no one used before is slow.
    bytes_, words, floats : uint8, uint16, float32 (n, z, y, x)
        The frames, in one of them; the others are empty. All that follows is compiled once for all kinds.
    pad, phi, scale, whole, thinned, planes, rows, columns, every, tolerance, longest, iterations
        See `fit_shift`.
    coefficients, known : float32, uint8 (z, y, x)
        Of the template; volumes with one mirrored plane in front and two behind.
    noise : float64 (3,)
        Variance at zero, per intensity, and the least, of the template less its level.
    sampled : int
        Every which pixel is compared along each axis; 0: nothing is judged.
    curved : int64 (2,)
        Planes and rows from which the noise of a frame is told; 0: from none.
    shifts : float64 (n, 3)
        First guesses, changed in place.
    answers : float64 (n, d, d)
        See `fit_shift`.
    out : float64 (n, 10 + d)
        Filled with: status and steps taken (see `fit_shift`), gain, offset, pixels compared, correlation, mean squared
        residual, chi squared, share of the template's weight in view, what `median_curve` says of the frame, and the
        variance of the shift along the axes in units of the noise.
    """
    for n in range(bytes_.shape[0] + words.shape[0] + floats.shape[0]):
        if bytes_.size:
            _converted(bytes_[n], frame)
        elif words.size:
            _converted(words[n], frame)
        else:
            frame = floats[n]
        _fit_frame(
            frame if pad == 0 else c[n], pad, frame, phi, scale, whole, thinned, planes, rows, columns, every,
            coefficients, known, noise, sampled, curved, shifts[n], tolerance, longest, iterations, answers[n], out[n],
        )  # fmt: skip
