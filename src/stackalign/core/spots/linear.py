"""Small symmetric systems of equations for the kernels: Cholesky factor, solution, inverse; in place, no allocation."""

# mypy: allow-untyped-defs, allow-untyped-calls
# numba infers the types of what it compiles
from __future__ import annotations

import numpy as np

from stackalign.core.compiled import kernel


@kernel
def cholesky(matrix, n, damping, out, least=1e-7):
    """Factor ``matrix`` with its diagonal times (1 + damping); False if a pivot is under ``least`` of the diagonal."""
    for i in range(n):
        for j in range(i + 1):
            s = matrix[i, j] * (1.0 + damping) if i == j else matrix[i, j]
            for k in range(j):
                s -= out[i, k] * out[j, k]
            if i == j:
                if not s > least * matrix[i, i]:
                    return False
                out[i, i] = np.sqrt(s)
            else:
                out[i, j] = s / out[j, j]
    return True


@kernel
def forward(factor, n, right, out):
    """Solve with the lower factor alone."""
    for i in range(n):
        s = right[i]
        for k in range(i):
            s -= factor[i, k] * out[k]
        out[i] = s / factor[i, i]


@kernel
def substitute(factor, n, right, out):
    """Solve with a Cholesky factor."""
    forward(factor, n, right, out)
    for i in range(n - 1, -1, -1):
        s = out[i]
        for k in range(i + 1, n):
            s -= factor[k, i] * out[k]
        out[i] = s / factor[i, i]


@kernel
def invert(factor, n, out):
    """Write the inverse of a matrix of which ``factor`` is the Cholesky factor; ``factor`` becomes its own inverse."""
    for j in range(n):
        factor[j, j] = 1.0 / factor[j, j]
        for i in range(j + 1, n):
            s = 0.0
            for k in range(j, i):
                s -= factor[i, k] * factor[k, j]
            factor[i, j] = s / factor[i, i]
    for i in range(n):
        for j in range(i + 1):
            s = 0.0
            for k in range(i, n):
                s += factor[k, i] * factor[k, j]
            out[i, j] = s
            out[j, i] = s
