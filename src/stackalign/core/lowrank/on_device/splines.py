"""Cubic splines in torch: their coefficients, and frames read at the sources of all pixels of the reference.

A cubic B-spline is read by two linear look-ups along each axis, at places between its taps that give these the right
weights (Sigg and Hadwiger, GPU Gems 2, ch. 20, 2005): 4 in the plane, 8 in space, instead of
16 and 64 taps. Sources are kept as displacements, which are small: single precision is enough for large frames then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import grid_sample

from stackalign.core.warping.kernels import PAD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_POLE = 3**0.5 - 2
_REACH = 14  # pixels: the filter has fallen to 1e-8 there


def spline_coefficients(image: Tensor) -> Tensor:
    """Return the B-spline coefficients of images (..., y, x) or (..., z, y, x), float32.

    Every axis of the last ``d`` that is longer than a pixel is padded by ``PAD`` mirrored pixels; see `filtered_along`.
    """
    for axis in range(image.ndim):
        image = filtered_along(image, axis)
    return image


def filtered_along(image: Tensor, axis: int) -> Tensor:
    """Return the coefficients along one axis, ``PAD`` mirrored pixels longer at both ends.

    The two recursions of Unser (IEEE Signal Processing Magazine 16 (6), 1999) as their impulse response,
    ``-6 z / (1 - z^2) z^|k|`` with ``z = sqrt(3) - 2``.
    """
    count = image.shape[axis]
    places = np.arange(-PAD - _REACH, count + PAD + _REACH)
    period = max(2 * (count - 1), 1)
    places = np.abs((places + count - 1) % period - (count - 1))
    mirrored = image.index_select(axis, torch.from_numpy(places).to(image.device))
    length = count + 2 * PAD
    first = -6 * _POLE / (1 - _POLE**2)
    out = mirrored.narrow(axis, _REACH, length) * first
    for k in range(1, _REACH + 1):
        both = mirrored.narrow(axis, _REACH - k, length) + mirrored.narrow(axis, _REACH + k, length)
        out.add_(both, alpha=first * _POLE**k)
    return out


class Grid:
    """The pixels of the reference, (z, y, x), one plane of them where frames are images.

    Attributes
    ----------
    axes : list of int
        Those along which frames extend, of 0 (z), 1 (y) and 2 (x).
    places : list of Tensor (z, 1, 1), (y, 1) and (x,)
        Coordinates of the pixels along each.
    """

    def __init__(self, volume: Sequence[int], d: int, device: Any) -> None:
        self.axes = [0, 1, 2][3 - d :]
        self.places = [
            torch.arange(n, dtype=torch.float32, device=device).reshape(-1, *[1] * (2 - axis))
            for axis, n in enumerate(volume)
        ]

    def linear(self, rows: np.ndarray) -> Tensor:
        """Return ``a z + b y + c x + e`` on the grid, of rows (n, 4): a, b, c, e; 1 long where nothing changes."""
        parts = torch.from_numpy(rows.astype(np.float32)).to(self.places[0].device)[:, :, None, None, None]
        out = parts[:, 3]
        for axis in (2, 1, 0):
            if rows[:, axis].any():
                out = out + parts[:, axis] * self.places[axis]
        return out

    def displacements(self, matrices: np.ndarray, inside: Tensor) -> list[Tensor]:
        """Return by how far the source of each pixel lies from it along each of ``axes``, each as `linear` has it.

        Parameters
        ----------
        matrices : ndarray (n, 4, 4)
            Reference -> frame, over (z, y, x, 1).
        inside : Tensor of bool (n, z, y, x)
            Pixels whose source lies in the frame; elsewhere nothing is promised.
        """
        tilt = matrices[:, 3] - np.array([0, 0, 0, 1.0])
        depth = self.linear(tilt) if tilt.any() else None  # less one
        found = []
        for axis in self.axes:
            own = np.zeros(4)
            own[axis] = 1
            moved = self.linear(matrices[:, axis] - own)
            if depth is not None:
                moved = (moved - self.places[axis] * depth) / torch.where(inside, 1 + depth, 1)
            found.append(moved)
        return found

    def read_cubic(self, splines: Tensor, moved: Sequence[Tensor]) -> Tensor:
        """Return splines (n, [z,] y, x), from `spline_coefficients`, at the sources of the pixels, (n, z, y, x)."""
        ends = []  # along each axis: the two places, and the weight of the second
        for axis, away in zip(self.axes, moved, strict=True):
            whole = torch.floor(away)
            f = away - whole
            g = 1 - f
            w0, w3 = g * g * g / 6, f * f * f / 6
            w1 = 2 / 3 - f * f * (1 - f / 2)
            low = w0 + w1
            start = whole + self.places[axis] + PAD
            ends.append((start - 1 + w1 / low, start + 1 + w3 / (1 - low), 1 - low))
        total: Tensor | None = None
        for corner in range(1 << len(ends)):
            weight: Tensor | None = None
            places = []
            for k, (near, far, share) in enumerate(ends):
                second = corner >> k & 1
                places.append(far if second else near)
                factor = share if second else 1 - share
                weight = factor if weight is None else weight * factor
            assert weight is not None
            value = _looked_up(splines, places).mul_(weight)
            total = value if total is None else total.add_(value)
        assert total is not None
        return total

    def read_linear(self, images: Tensor, moved: Sequence[Tensor]) -> Tensor:
        """Return images (n, [z,] y, x) at the sources of the pixels, linear between theirs, 0 outside."""
        return _looked_up(images, [away + self.places[axis] for axis, away in zip(self.axes, moved, strict=True)])


def _looked_up(images: Tensor, places: Sequence[Tensor]) -> Tensor:
    """Return images (n, [z,] y, x) at places, in their pixels, one tensor an axis that broadcasts to (n, z, y, x)."""
    sizes = images.shape[1:]
    # torch wants x first, from -1 to 1
    normal = [place * (2 / max(size - 1, 1)) - 1 for place, size in zip(reversed(places), reversed(sizes), strict=True)]
    grid = torch.stack(torch.broadcast_tensors(*normal), -1)
    if len(sizes) == 2:
        grid = grid[:, 0]
    out = grid_sample(images[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return out[:, 0] if len(sizes) == 3 else out
