"""Estimation of piecewise-rigid motion: all blocks of a frame at once, tied together by a prior on how they may differ.

With ``T`` the reference and ``h_b`` the hat function of block ``b``, one Gauss-Newton step solves

    (A / s^2 + P / d^2) step = sum_p h_b(p) grad T(p) psi(T(p) - I(p - t + u(p))) / s^2  -  P u / d^2

where ``A`` holds the products of ``h_b grad T``, ``P`` is the squared difference of neighbouring blocks, ``s`` the
noise and ``d`` the expected difference between neighbours. ``A`` belongs to the reference (inverse compositional: Baker
& Matthews, IJCV 56, 2004), so it is factorised once for all frames; a block without texture leans on its neighbours by
just as much as its information lacks. ``psi`` clips residuals (Huber): what moves through a block does not drag it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.compiled import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.piecewise.series import BlockGrid

HUBER = 1.345  # 95 % efficient on Gaussian noise (Huber 1981)


@kernel
def _hat(n: int, nodes: int) -> Any:
    """Lower node and weight of the upper one for each of ``n`` pixels."""
    low = np.empty(n, np.int64)
    weight = np.empty(n, np.float32)
    spacing = (n - 1) / (nodes - 1)
    for i in range(n):
        k = min(int(i / spacing), nodes - 2)
        low[i] = k
        weight[i] = i / spacing - k
    return low, weight


@kernel
def interpolated(shifts: Any, low_y: Any, frac_y: Any, low_x: Any, frac_x: Any) -> Any:
    """Node values (gy, gx, 2) at pixels, from the lower node of each row and column and the weight of the upper one."""
    h, w = len(low_y), len(low_x)
    out = np.empty((2, h, w))
    line = np.empty((shifts.shape[1], 2))
    for y in range(h):
        k, f = low_y[y], frac_y[y]
        for x in range(shifts.shape[1]):
            for c in range(2):
                line[x, c] = shifts[k, x, c] + f * (shifts[k + 1, x, c] - shifts[k, x, c])
        for c in range(2):
            for x in range(w):
                j = low_x[x]
                out[c, y, x] = line[j, c] + frac_x[x] * (line[j + 1, c] - line[j, c])
    return out


@kernel
def brightness(moved: Any, image: Any, counted: Any) -> Any:
    """Number, means, variances and covariance of the pixels that count and are known in both images."""
    n, sums = 0, np.zeros(5)
    a0 = b0 = 0.0
    for y in range(moved.shape[0]):
        row = np.zeros(5)
        for x in range(moved.shape[1]):
            if not counted[y, x] or np.isnan(moved[y, x]) or np.isnan(image[y, x]):
                continue
            if n == 0:  # about some value of theirs: squares of large offsets would drown the contrast
                a0, b0 = float(moved[y, x]), float(image[y, x])
            n += 1
            a, b = moved[y, x] - a0, image[y, x] - b0
            row[0] += a
            row[1] += b
            row[2] += a * a
            row[3] += b * b
            row[4] += a * b
        sums += row
    if n == 0:
        return 0, 0.0, 0.0, 0.0, 0.0, 0.0
    sums /= n
    a, b = sums[0], sums[1]
    return n, a + a0, b + b0, sums[2] - a * a, sums[3] - b * b, sums[4] - a * b


@kernel
def difference(moved: Any, image: Any, counted: Any, mean_a: float, mean_b: float, gain: float) -> Any:
    """Reference minus frame at the reference's brightness, NaN where nothing counts."""
    out = np.empty(moved.shape, np.float32)
    for y in range(moved.shape[0]):
        for x in range(moved.shape[1]):
            if counted[y, x]:
                out[y, x] = image[y, x] - mean_b - (moved[y, x] - mean_a) / gain
            else:
                out[y, x] = np.nan
    return out


@kernel
def _normal_matrix(gy: Any, gx: Any, weight: Any, nodes_y: int, nodes_x: int) -> Any:
    """Products of ``h_b grad T`` over all pixels, (2 B, 2 B)."""
    h, w = gy.shape
    low_y, frac_y = _hat(h, nodes_y)
    low_x, frac_x = _hat(w, nodes_x)
    size = nodes_y * nodes_x
    out = np.zeros((2 * size, 2 * size))
    index = np.empty(4, np.int64)
    hat = np.empty(4)
    for y in range(h):
        for x in range(w):
            if weight[y, x] == 0:
                continue
            k = 0
            for dy in range(2):
                for dx in range(2):
                    fy = frac_y[y] if dy else 1 - frac_y[y]
                    fx = frac_x[x] if dx else 1 - frac_x[x]
                    index[k] = (low_y[y] + dy) * nodes_x + low_x[x] + dx
                    hat[k] = fy * fx
                    k += 1
            yy = gy[y, x] * gy[y, x] * weight[y, x]
            yx = gy[y, x] * gx[y, x] * weight[y, x]
            xx = gx[y, x] * gx[y, x] * weight[y, x]
            for a in range(4):
                for b in range(4):
                    both = hat[a] * hat[b]
                    i, j = 2 * index[a], 2 * index[b]
                    out[i, j] += both * yy
                    out[i, j + 1] += both * yx
                    out[i + 1, j] += both * yx
                    out[i + 1, j + 1] += both * xx
    return out


@kernel
def _gradient_sum(residual: Any, gy: Any, gx: Any, weight: Any, clip: float, nodes_y: int, nodes_x: int) -> Any:
    """Sum of ``h_b grad T psi(residual)``, (B, 2); NaN residuals (outside the frame) count nothing."""
    h, w = gy.shape
    low_y, frac_y = _hat(h, nodes_y)
    low_x, frac_x = _hat(w, nodes_x)
    out = np.zeros((nodes_y * nodes_x, 2))
    row = np.zeros((nodes_x, 2))
    for y in range(h):
        row[:] = 0
        for x in range(w):
            r = residual[y, x]
            if np.isnan(r) or weight[y, x] == 0:
                continue
            r = min(max(r, -clip), clip) * weight[y, x]
            a, b = r * gy[y, x], r * gx[y, x]
            k, f = low_x[x], frac_x[x]
            row[k, 0] += (1 - f) * a
            row[k, 1] += (1 - f) * b
            row[k + 1, 0] += f * a
            row[k + 1, 1] += f * b
        k, f = low_y[y], frac_y[y]
        for x in range(nodes_x):
            for c in range(2):
                out[k * nodes_x + x, c] += (1 - f) * row[x, c]
                out[(k + 1) * nodes_x + x, c] += f * row[x, c]
    return out


def _difference_penalty(nodes_y: int, nodes_x: int) -> NDArray[np.float64]:
    """Squared differences of neighbouring blocks as a (2 B, 2 B) matrix: the graph Laplacian for both components."""
    size = nodes_y * nodes_x
    index = np.arange(size).reshape(nodes_y, nodes_x)
    laplacian = np.zeros((size, size))
    for a, b in ((index[1:], index[:-1]), (index[:, 1:], index[:, :-1])):
        i, j = a.ravel(), b.ravel()
        np.add.at(laplacian, (i, i), 1.0)
        np.add.at(laplacian, (j, j), 1.0)
        laplacian[i, j] -= 1.0
        laplacian[j, i] -= 1.0
    return np.asarray(np.kron(laplacian, np.eye(2)), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class BlockTemplate:
    """A reference prepared for one smoothing scale: its image, gradient and factorised normal matrix."""

    image: NDArray[np.float32]
    gradient: tuple[NDArray[np.float32], NDArray[np.float32]]
    weight: NDArray[np.float32]
    grid: BlockGrid
    noise: float
    factor: Any
    penalty: NDArray[np.float64]
    covariance: NDArray[np.float64]  # (gy, gx, 2) variance of each node's shift, px^2
    textured: NDArray[np.bool_]  # (y, x) pixels whose gradient says something

    @classmethod
    def prepare(
        cls,
        reference: NDArray[np.float32],
        weight: NDArray[np.float32],
        grid: BlockGrid,
        noise: float,
        difference: float,
        *,
        scale: float = 0.0,
    ) -> BlockTemplate:
        """Prepare ``reference`` smoothed by a Gaussian of ``scale`` pixels.

        Parameters
        ----------
        reference, weight : ndarray (y, x)
            Image to align to and what each pixel counts (0: nothing).
        grid : BlockGrid
            Where the nodes are.
        noise : float
            Standard deviation of a frame's pixel about the reference, intensity units.
        difference : float
            Expected difference between neighbouring blocks, pixels: the prior.
        scale : float
            Smoothing; large ones catch large shifts.
        """
        from scipy.linalg import cho_factor, cho_solve
        from scipy.ndimage import gaussian_filter

        image = np.asarray(gaussian_filter(reference, scale) if scale > 0 else reference, np.float32)
        gy, gx = (np.asarray(g, np.float32) for g in np.gradient(image))
        strength = (gy**2 + gx**2) * weight
        information = _normal_matrix(gy, gx, weight, *grid.shape) / noise**2
        penalty = _difference_penalty(*grid.shape) / difference**2
        ridge = np.eye(len(penalty)) * (np.trace(information) / len(information) * 1e-9 + 1e-12)
        factor = cho_factor(information + penalty + ridge)
        variance = np.diag(cho_solve(factor, np.eye(len(penalty)))).reshape(*grid.shape, 2)
        textured = strength > strength.mean()
        return cls(image, (gy, gx), weight, grid, noise, factor, penalty, variance, textured)

    def step(self, residual: NDArray[np.float32], shifts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the change of ``shifts`` (gy, gx, 2) that a residual ``T - I`` (y, x) asks for."""
        at_edges = np.abs(residual[self.textured])
        at_edges = at_edges[np.isfinite(at_edges)]
        if not at_edges.size:
            return np.zeros_like(shifts)
        clip = HUBER * 1.4826 * float(np.median(at_edges)) + 1e-6 * self.noise
        # the matrix counts every pixel: only those that are not clipped answer to a step (Huber's H-algorithm)
        kept = float((at_edges <= clip).mean())
        summed = _gradient_sum(residual, *self.gradient, self.weight, clip, *self.grid.shape).ravel()
        from scipy.linalg import cho_solve

        change = cho_solve(self.factor, summed / (kept * self.noise**2) - self.penalty @ shifts.ravel())
        return np.asarray(change.reshape(shifts.shape), np.float64)
