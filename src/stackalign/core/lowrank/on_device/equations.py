"""The robust weights of frames on a device, and their normal equations, as in `stackalign.core.lowrank.kernels`.

Frames are (n, z, y, x). Products are summed along a row in single precision, then over the rows in double where the
device has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from stackalign.core.lowrank.on_device.splines import Grid


def robust_weights(
    rest: Tensor, around: Tensor, precision: Tensor, clip: Tensor, tail: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the weight of each pixel, and its loss.

    Parameters
    ----------
    rest, around : Tensor (n, z, y, x)
        What frames differ by from their low-rank images; the largest weighted difference nearby.
    precision : Tensor (n, z, y, x)
        Of each pixel, relative to the usual one; 0 where it does not count.
    clip, tail : Tensor (n, 1, 1, 1)
        Weighted residual up to which the loss is squared, and from which it levels off.
    """
    a = rest.abs() * precision.sqrt()
    squared = a <= clip
    far = tail / torch.maximum(a, tail)
    near = tail / torch.maximum(torch.maximum(a, around), tail)
    weight = precision * torch.where(squared, 1, clip / torch.maximum(a, clip)) * near * near
    loss = torch.where(squared, a * a / (2 * clip), torch.minimum(a, tail) - clip / 2 + tail * (1 - far))
    return weight, loss


def combined(coefficients: Tensor, images: Tensor) -> Tensor:
    """Return combinations (n, ...) of images (k, ...) with coefficients (n, k), in single precision throughout."""
    shape = (-1, *[1] * (images.ndim - 1))
    total = coefficients[:, 0].reshape(shape) * images[0]
    for j in range(1, len(images)):
        total.addcmul_(coefficients[:, j].reshape(shape), images[j])
    return total


class Slopes:
    """How the low-rank image of a frame changes along the generators of the motion.

    ``flows`` (m, 4, 4) over (z, y, x, 1): velocities along each axis, on the grid of the reference.
    """

    def __init__(self, flows: NDArray[np.float64], grid: Grid) -> None:
        self._count = len(flows)
        self._fields: list[list[tuple[int, Tensor]]] = []  # for each axis, the generators that move anything along it
        for axis in grid.axes:
            fields = []
            for p, flow in enumerate(flows):
                if not (flow[axis].any() or flow[3].any()):
                    continue
                field = grid.linear(flow[None, axis])[0]
                if flow[3].any():
                    field = field - grid.places[axis] * grid.linear(flow[None, 3])[0]
                fields.append((p, field))
            self._fields.append(fields)

    def equations(self, gradients: Tensor, basis: Tensor, rest: Tensor, weight: Tensor, coefficients: Tensor) -> Tensor:
        """Return the weighted products of all columns and of what is left, (n, m + k + 1, m + k + 1).

        Parameters
        ----------
        gradients : Tensor (k, d, z, y, x)
            Of the images of the basis.
        basis : Tensor (k, z, y, x)
        rest, weight : Tensor (n, z, y, x)
        coefficients : Tensor (n, k)
        """
        n, (k, m) = len(rest), (len(basis), self._count)
        z, y, x = rest.shape[1:]
        columns = rest.new_zeros((n, z, y, m + k + 1, x))
        for axis, fields in enumerate(self._fields):
            slope = combined(coefficients, gradients[:, axis])
            for p, field in fields:
                columns[:, :, :, p].addcmul_(slope, field)
        columns[:, :, :, m : m + k] = basis.permute(1, 2, 0, 3)
        columns[:, :, :, m + k] = rest
        products = torch.matmul(columns * weight[:, :, :, None], columns.transpose(-1, -2)).flatten(1, 2)
        return products.sum(1) if rest.device.type == "mps" else products.sum(1, dtype=torch.float64)
