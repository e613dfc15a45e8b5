"""Numba kernels that project frames, read as splines, on the weighted images of a template.

Frames are read row by row, moved by a shift that is the same for all pixels; images have 16 bits, since half the memory
is read for each frame then.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, kernel
from stackalign.core.warping.kernels import mirrored


@fast_inlined
def weighted(a, b, c, d, w, out):
    """Fill ``out`` with the sum of four lines, weighted."""
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    for x in range(out.shape[0]):
        out[x] = w0 * np.float32(a[x]) + w1 * np.float32(b[x]) + w2 * np.float32(c[x]) + w3 * np.float32(d[x])


@fast_inlined
def combined(a, b, c, d, first, w, out):
    """Combine four lines from column ``first`` on, mirrored beyond their ends."""
    n, width = a.shape[0], out.shape[0]
    low = min(max(-first, 0), width)
    high = max(min(n - first, width), low)
    if high > low:
        i, j = first + low, first + high
        weighted(a[i:j], b[i:j], c[i:j], d[i:j], w, out[low:high])
    for k in range(low + width - high):
        x = k if k < low else high + k - low
        i = mirrored(first + x, n)
        out[x] = w[0] * np.float32(a[i]) + w[1] * np.float32(b[i]) + w[2] * np.float32(c[i]) + w[3] * np.float32(d[i])


@fast_inlined
def tapped(line, w, out):
    """Fill ``out`` with the sum of four neighbours along a line, weighted."""
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    for x in range(out.shape[0]):
        out[x] = w0 * line[x] + w1 * line[x + 1] + w2 * line[x + 2] + w3 * line[x + 3]


@fast_inlined
def _plane_sums(line, w, phi, y, x0, nx, out):
    """Add the products of the frame's values in a row with four images."""
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    end = x0 + nx
    p0, p1, p2, p3 = phi[0, 0, y, x0:end], phi[1, 0, y, x0:end], phi[2, 0, y, x0:end], phi[3, 0, y, x0:end]
    a0 = a1 = a2 = a3 = np.float32(0)
    for x in range(nx):
        f = w0 * line[x] + w1 * line[x + 1] + w2 * line[x + 2] + w3 * line[x + 3]
        a0 += np.float32(p0[x]) * f
        a1 += np.float32(p1[x]) * f
        a2 += np.float32(p2[x]) * f
        a3 += np.float32(p3[x]) * f
    out[0, 0] += a0
    out[1, 0] += a1
    out[2, 0] += a2
    out[3, 0] += a3


@fast_inlined
def _sloped_plane_sums(line, slope, w, s, phi, y, x0, nx, out):
    """Add the products of the frame's values and slopes in a row with four images."""
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    s0, s1, s2, s3 = s[0], s[1], s[2], s[3]
    end = x0 + nx
    p0, p1, p2, p3 = phi[0, 0, y, x0:end], phi[1, 0, y, x0:end], phi[2, 0, y, x0:end], phi[3, 0, y, x0:end]
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = c0 = c1 = c2 = c3 = np.float32(0)
    for x in range(nx):
        i, j, k, m = line[x], line[x + 1], line[x + 2], line[x + 3]
        f = w0 * i + w1 * j + w2 * k + w3 * m
        gx = s0 * i + s1 * j + s2 * k + s3 * m
        gy = w0 * slope[x] + w1 * slope[x + 1] + w2 * slope[x + 2] + w3 * slope[x + 3]
        a0 += np.float32(p0[x]) * f
        a1 += np.float32(p1[x]) * f
        a2 += np.float32(p2[x]) * f
        a3 += np.float32(p3[x]) * f
        b0 += np.float32(p0[x]) * gy
        b1 += np.float32(p1[x]) * gy
        b2 += np.float32(p2[x]) * gy
        b3 += np.float32(p3[x]) * gy
        c0 += np.float32(p0[x]) * gx
        c1 += np.float32(p1[x]) * gx
        c2 += np.float32(p2[x]) * gx
        c3 += np.float32(p3[x]) * gx
    out[0, 0] += a0
    out[1, 0] += a1
    out[2, 0] += a2
    out[3, 0] += a3
    out[0, 1] += b0
    out[1, 1] += b1
    out[2, 1] += b2
    out[3, 1] += b3
    out[0, 2] += c0
    out[1, 2] += c1
    out[2, 2] += c2
    out[3, 2] += c3


@fast_inlined
def _volume_sums(f, phi, z, y, x0, a, out):
    """Add the products of a row with five images to column ``a``."""
    end = x0 + f.shape[0]
    p0, p1, p2 = phi[0, z, y, x0:end], phi[1, z, y, x0:end], phi[2, z, y, x0:end]
    p3, p4 = phi[3, z, y, x0:end], phi[4, z, y, x0:end]
    a0 = a1 = a2 = a3 = a4 = np.float32(0)
    for x in range(f.shape[0]):
        a0 += np.float32(p0[x]) * f[x]
        a1 += np.float32(p1[x]) * f[x]
        a2 += np.float32(p2[x]) * f[x]
        a3 += np.float32(p3[x]) * f[x]
        a4 += np.float32(p4[x]) * f[x]
    out[0, a] += a0
    out[1, a] += a1
    out[2, a] += a2
    out[3, a] += a3
    out[4, a] += a4


@fast_inlined
def _volume_values(c, z, y, first, weights, sloped, fresh, rows, line, values):
    """Read a row of a volume; ``rows`` (2, 4, width) keeps what is common to neighbouring rows unless ``fresh``."""
    nz, ny = c.shape[0], c.shape[1]
    for j in range(0 if fresh else 3, 4):
        at, slot = mirrored(y + j, ny), (y + j) % 4
        a, b = c[mirrored(z, nz), at], c[mirrored(z + 1, nz), at]
        d, e = c[mirrored(z + 2, nz), at], c[mirrored(z + 3, nz), at]
        combined(a, b, d, e, first, weights[0, 0], rows[0, slot])
        if sloped:
            combined(a, b, d, e, first, weights[0, 1], rows[1, slot])
    p, q, r, s = y % 4, (y + 1) % 4, (y + 2) % 4, (y + 3) % 4
    weighted(rows[0, p], rows[0, q], rows[0, r], rows[0, s], weights[1, 0], line)
    tapped(line, weights[2, 0], values[0])
    if sloped:
        tapped(line, weights[2, 1], values[3])
        weighted(rows[0, p], rows[0, q], rows[0, r], rows[0, s], weights[1, 1], line)
        tapped(line, weights[2, 0], values[2])
        weighted(rows[1, p], rows[1, q], rows[1, r], rows[1, s], weights[1, 0], line)
        tapped(line, weights[2, 0], values[1])


@fast_inlined
def project(c, first, weights, box, every, phi, scale, sloped, out):
    """Project a shifted frame, and its slopes, on the weighted basis images of a template.

    Parameters
    ----------
    c : (Z, Y, X)
        Spline coefficients of the frame, mirrored beyond its borders.
    first : int64 (3,)
        Index in ``c`` of the first tap of the box's first pixel.
    weights : float32 (3, 2, 4)
        Of the taps along each axis, for values and for slopes.
    box : int64 (2, 3)
        Start and size of the part of the template that is used.
    every : int
        Only rows ``every // 2``, ``every // 2 + every``, ... of the template count.
    phi, scale : int16 (K, z, y, x), float64 (K,)
        Basis images times weight, in units of the scale; the last one is the weight itself.
    sloped : bool
        Whether the slopes are asked for.
    out : float64 (K, 1 + d)
        Filled with the sums of ``phi_k`` times the frame, and times its slopes along the axes.
    """
    count, nx = phi.shape[0], box[1, 2]
    d = count - 2
    out[:] = 0.0
    columns = 1 + d if sloped else 1
    line, slope = np.empty(nx + 3, np.float32), np.empty(nx + 3, np.float32)
    rows = np.empty((2, 4, nx + 3 if d == 3 else 1), np.float32)
    values = np.empty((4, nx if d == 3 else 1), np.float32)
    start = (every // 2 - box[0, 1]) % every
    for z in range(box[1, 0]):
        fresh = True
        for y in range(start, box[1, 1], every):
            row, x0 = box[0, 1] + y, box[0, 2]
            if d == 3:
                _volume_values(
                    c, first[0] + z, first[1] + y, first[2], weights, sloped, fresh or every > 1, rows, line, values
                )
                fresh = False
                for a in range(columns):
                    _volume_sums(values[a], phi, box[0, 0] + z, row, x0, a, out)
                continue
            at, n = first[1] + y, c.shape[1]
            i, j = c[0, mirrored(at, n)], c[0, mirrored(at + 1, n)]
            k, m = c[0, mirrored(at + 2, n)], c[0, mirrored(at + 3, n)]
            combined(i, j, k, m, first[2], weights[1, 0], line)
            if sloped:
                combined(i, j, k, m, first[2], weights[1, 1], slope)
                _sloped_plane_sums(line, slope, weights[2, 0], weights[2, 1], phi, row, x0, nx, out)
            else:
                _plane_sums(line, weights[2, 0], phi, row, x0, nx, out)
    for k in range(count):
        for a in range(1 + d):
            out[k, a] *= scale[k]


@fast_inlined
def _largest(row):
    """Return the largest size in a row: of four parts at a time, as one after the other takes four times as long."""
    a = b = c = d = np.float32(0)
    whole = row.shape[0] // 4 * 4
    for x in range(0, whole, 4):
        a, b = max(a, abs(row[x])), max(b, abs(row[x + 1]))
        c, d = max(c, abs(row[x + 2])), max(d, abs(row[x + 3]))
    for x in range(whole, row.shape[0]):
        a = max(a, abs(row[x]))
    return max(max(a, b), max(c, d))


@kernel
def quantised(image, counted, out):
    """Fill ``out`` with an image in whole units, zero where it does not count; returns the unit.

    Images that frames are projected on need no more: all that matters is that the products of them with what frames are
    made of are those of the very same images. Half the memory is read for each frame.

    Parameters
    ----------
    image : float32 (z, y, x)
    counted : bool (z, y, x)
    out : int16 (z, y, x)
    """
    top = np.float32(0)
    for z in range(image.shape[0]):
        for y in range(image.shape[1]):
            top = max(top, _largest(image[z, y]))
    unit = top / np.float32(32767) if top > 0 else np.float32(1)
    scale = np.float32(1) / unit
    for z in range(image.shape[0]):
        for y in range(image.shape[1]):
            row, use, to = image[z, y], counted[z, y], out[z, y]
            for x in range(row.shape[0]):
                to[x] = np.int16(np.floor(row[x] * scale + np.float32(0.5))) if use[x] else np.int16(0)
    return float(unit)
