"""Numba kernels of the equations of a shift: products of a template's images, over blocks of it.

The plain images are worked out line by line as they are needed: stored, they would take as much memory as four frames,
and memory that no one used before is slow.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from stackalign.core.compiled import fast_inlined, kernel
from stackalign.core.translation.template_kernels import slope_lines


@fast_inlined
def _plane_products(line, phi, y, x0, x1, out):
    """Fill the products of four weighted images with three plain ones and with 1, over a part of a row."""
    p0, p1, p2, p3 = phi[0, 0, y, x0:x1], phi[1, 0, y, x0:x1], phi[2, 0, y, x0:x1], phi[3, 0, y, x0:x1]
    b0, b1, b2 = line[0, x0:x1], line[1, x0:x1], line[2, x0:x1]
    a00 = a01 = a02 = a03 = a10 = a11 = a12 = a13 = np.float32(0)
    a20 = a21 = a22 = a23 = a30 = a31 = a32 = a33 = np.float32(0)
    for x in range(x1 - x0):
        q0, q1, q2, q3 = np.float32(p0[x]), np.float32(p1[x]), np.float32(p2[x]), np.float32(p3[x])
        u, v, w = b0[x], b1[x], b2[x]
        a00 += q0 * u
        a01 += q0 * v
        a02 += q0 * w
        a03 += q0
        a10 += q1 * u
        a11 += q1 * v
        a12 += q1 * w
        a13 += q1
        a20 += q2 * u
        a21 += q2 * v
        a22 += q2 * w
        a23 += q2
        a30 += q3 * u
        a31 += q3 * v
        a32 += q3 * w
        a33 += q3
    rows = ((a00, a01, a02, a03), (a10, a11, a12, a13), (a20, a21, a22, a23), (a30, a31, a32, a33))
    for i in range(4):
        for j in range(4):
            out[i, j] = rows[i][j]


@fast_inlined
def _volume_products(line, phi, z, y, x0, x1, out):
    """Fill the products of five weighted images with four plain ones and with 1, over a part of a row."""
    b0, b1, b2, b3 = line[0, x0:x1], line[1, x0:x1], line[2, x0:x1], line[3, x0:x1]
    for i in range(5):
        p = phi[i, z, y, x0:x1]
        a0 = a1 = a2 = a3 = a4 = np.float32(0)
        for x in range(x1 - x0):
            q = np.float32(p[x])
            a0 += q * b0[x]
            a1 += q * b1[x]
            a2 += q * b2[x]
            a3 += q * b3[x]
            a4 += q
        out[i, 0] = a0
        out[i, 1] = a1
        out[i, 2] = a2
        out[i, 3] = a3
        out[i, 4] = a4


@kernel
def block_products(c, front, raw, smooth, phi, every, planes, rows, columns, part, out, thinned):
    """Fill ``out`` with the products of the weighted and the plain images over each of the blocks of a template.

    Parameters
    ----------
    c, front
        Coefficients of a spline, whose slopes are the first of the plain images; see `template_kernels.slopes`.
    raw : float32 (z, y, x), or (0, 1, 1)
        The values, the next one; those of the spline if it is empty. The constant image 1 comes last.
    smooth : bool
        Whether the B-spline smooths ``raw``, too.
    phi : int16 (K, z, y, x)
        The weighted images.
    every : int
        Only rows ``every // 2``, ``every // 2 + every``, ... count for ``thinned``.
    planes, rows, columns : int64 (L + 1,), (M + 1,), (N + 1,)
        Where blocks begin and end.
    part : int64 (2, 2)
        Blocks along z and y that are looked at: first, and behind the last one.
    out, thinned : float64 (L, M, N, K, K)
        In units of ``phi``.
    """
    count, nx = phi.shape[0], phi.shape[3]
    kept, lines = np.empty((2, 3, nx + 2), np.float32), np.empty((3, nx + 2), np.float32)
    others, values = np.empty((2, 3, nx + 2), np.float32), np.empty((count - 1, nx), np.float32)
    line, some = np.empty((count - 1, nx), np.float32), np.empty((count, count))
    for k in range(part[0, 0], part[1, 0]):
        out[k, part[0, 1] : part[1, 1]] = 0.0
        thinned[k, part[0, 1] : part[1, 1]] = 0.0
        for z in range(planes[k], planes[k + 1]):
            for i in range(part[0, 1], part[1, 1]):
                for y in range(rows[i], rows[i + 1]):
                    fresh = y == rows[part[0, 1]]
                    slope_lines(c, front, z, y, fresh, kept, lines, line)
                    if raw.shape[0] > 0 and smooth:
                        slope_lines(raw, 0, z, y, fresh, others, lines, values)
                    for x in range(nx if raw.shape[0] > 0 else 0):
                        line[count - 2, x] = values[count - 2, x] if smooth else raw[z, y, x]
                    for j in range(len(columns) - 1):
                        if count == 4:
                            _plane_products(line, phi, y, columns[j], columns[j + 1], some)
                        else:
                            _volume_products(line, phi, z, y, columns[j], columns[j + 1], some)
                        among = y % every == every // 2
                        for a in range(count):
                            for b in range(count):
                                out[k, i, j, a, b] += some[a, b]
                                if among:
                                    thinned[k, i, j, a, b] += some[a, b]
