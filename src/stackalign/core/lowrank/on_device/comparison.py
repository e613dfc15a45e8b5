"""Frames on the grid of the reference, several at once, on a device, and what each leaves of its low-rank image.

See `stackalign.core.lowrank.pixels` for what each part answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stackalign.core.lowrank.on_device.equations import combined, robust_weights
from stackalign.core.lowrank.pixels import REACH
from stackalign.core.lowrank.placing import spatial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from stackalign.core.lowrank.on_device.images import DeviceFrame, DeviceImages
    from stackalign.core.lowrank.pixels import Array, Equations, Floats

    Totals = tuple[Tensor, Tensor, Tensor]

_SAMPLED = 20_000  # pixels from which the spread of a frame is told


class DeviceComparison:
    """`Comparison` as tensors (n, z, y, x)."""

    def __init__(self, images: DeviceImages, frames: Sequence[DeviceFrame], matrices: Sequence[Array]) -> None:
        self._images, self._frames = images, frames
        shape = (len(frames), *images.level.volume)
        self._shown, self._rest, self._around = (torch.zeros(shape, device=images.device) for _ in range(3))
        self._inside = torch.zeros(shape, dtype=torch.bool, device=images.device)
        self._taken = torch.zeros((len(frames), len(images.images)), device=images.device)
        everything = range(len(frames))
        self._known = images.motion_weight * self._holes(everything, matrices)

    def place(self, which: Sequence[int], matrices: Sequence[Array], coefficients: Sequence[Array]) -> None:
        """Read frames."""
        images, at = self._images, self._at(which)
        back = self._backward(matrices)
        inside = self._covered(which, back)
        moved = images.grid.displacements(back, inside)
        splines = torch.stack([self._frames[i].spline for i in which])
        taken = images.there(np.array(coefficients))
        shown = torch.where(inside, images.grid.read_cubic(splines, moved), 0)
        rest = shown - torch.where(inside, combined(taken, images.images), 0)
        self._shown[at], self._rest[at], self._inside[at], self._taken[at] = shown, rest, inside, taken
        if np.isfinite(images.level.options.tail):
            reach = REACH if max(images.level.factors) == 1 else 1
            certain = images.certain * self._holes(which, matrices)
            self._around[at] = largest_nearby(rest.abs() * certain.sqrt(), reach)

    def spreads(self, which: Sequence[int]) -> list[tuple[int, float]]:
        """Return how many pixels count, and how they spread."""
        at = self._at(which)
        rest, known, inside = (self._rows(part[at]) for part in (self._rest, self._known, self._inside))
        counts = inside & (known > 0)
        found = counts.sum(1)
        step = max(1, counts.shape[1] // _SAMPLED)
        values = torch.where(counts, rest.abs() * known.sqrt(), torch.inf)[:, ::step].sort(1).values
        number = counts[:, ::step].sum(1, keepdim=True)
        # the median: of an even number, the mean of the middle two
        middle = [(number - 1).clamp(min=0) // 2, (number // 2).clamp(max=values.shape[1] - 1)]
        median = sum(values.gather(1, k)[:, 0] for k in middle) / 2
        spread = torch.where(number[:, 0] > 0, 1.4826 * median, 0)
        return list(zip(found.tolist(), spread.tolist(), strict=True))

    def sample(self, i: int) -> Floats:
        """Return a sample of the pixels."""
        common = combined(self._taken[i : i + 1], self._images.images)
        parts = (common, self._rest[i : i + 1], self._known[i : i + 1], self._around[i : i + 1])
        values = torch.cat([self._rows(part) for part in parts])
        counts = self._rows(self._inside[i : i + 1])[0] & (values[2] > 0)
        return np.asarray(values[:, counts].cpu().numpy())

    def equations(self, which: Sequence[int], limits: Sequence[float]) -> list[Equations]:
        """Linearise frames."""
        if not which:
            return []
        images, at = self._images, self._at(which)
        precision = self._known[at] * self._inside[at]
        rest = self._rest[at]
        weight, loss = robust_weights(rest, self._around[at], precision, *self._limits(limits))
        products = images.slopes.equations(images.gradients, images.images, rest, weight, self._taken[at])
        totals = torch.stack([images.exactly(part.flatten(1, 2).sum(2)).sum(1) for part in (loss, precision > 0)])
        normal, sums = products.cpu().double().numpy(), totals.cpu().numpy()
        return [(p[:-1, :-1], p[:-1, -1], float(a), float(n)) for p, (a, n) in zip(normal, sums.T, strict=True)]

    def add(
        self,
        which: Sequence[int],
        matrices: Sequence[Array],
        coefficients: Sequence[Array],
        limits: Sequence[float],
        totals: Totals,
    ) -> None:
        """Add frames to the normal equations."""
        images, at = self._images, self._at(which)
        precision = images.precise * self._holes(which, matrices) * self._inside[at]
        weight, _ = robust_weights(self._rest[at], self._around[at], precision, *self._limits(limits))
        products, sums, counts = totals
        taken = images.there(np.array(coefficients))
        shown = self._shown[at] * weight
        counts += (precision > 0).sum(0)
        p = 0
        for i in range(taken.shape[1]):
            ci = taken[:, i, None, None, None]
            sums[i] += (ci * shown).sum(0)
            for j in range(i + 1):
                products[p] += (ci * taken[:, j, None, None, None] * weight).sum(0)
                p += 1

    def seen(self, i: int) -> Floats:
        """Return a frame as it was read."""
        counts = self._inside[i] & (self._known[i] > 0)
        return np.array(torch.where(counts, self._shown[i], torch.nan).cpu().numpy())

    def _at(self, which: Sequence[int]) -> Any:
        """Return an index of the frames named: no copy is made of all of them."""
        if len(which) == len(self._frames):
            return slice(None)
        return torch.tensor(list(which), device=self._images.device)

    def _limits(self, limits: Sequence[float]) -> tuple[Tensor, Tensor]:
        clip = self._images.there(np.array(limits))[:, None, None, None]
        return clip, clip * self._images.level.tail

    def _backward(self, matrices: Sequence[Array]) -> Array:
        return np.array([spatial(np.asarray(np.linalg.inv(matrix), np.float64), 1.0) for matrix in matrices])

    def _covered(self, which: Sequence[int], back: Array) -> Tensor:
        """Return which pixels of the reference the frames cover."""
        from stackalign.core.lucas_kanade.kernels import covered

        level = self._images.level
        sizes = [np.array((1,) * (3 - level.d) + self._frames[i].shape) for i in which]
        spans = np.array([covered(m, size, level.volume) for m, size in zip(back, sizes, strict=True)])
        spans = spans.reshape(len(which), *level.volume[:2], 2)
        first, last = torch.from_numpy(spans.astype(np.int32)).to(self._images.device)[..., None].unbind(3)
        columns = torch.arange(level.volume[2], dtype=torch.int32, device=self._images.device)
        return (columns >= first) & (columns < last)

    def _holes(self, which: Sequence[int], matrices: Sequence[Array]) -> Tensor:
        """Return 0 where a frame, which lies at its matrix, has a hole, else 1; (n, z, y, x) or, without any, (1,)."""
        images = self._images
        finite = [self._frames[i].finite for i in which]
        if all(part is None for part in finite):
            return torch.ones(1, device=images.device).expand(len(which), 1, 1, 1)
        whole = [
            torch.ones(self._frames[i].shape, device=images.device) if f is None else f
            for i, f in zip(which, finite, strict=True)
        ]
        back = self._backward(matrices)
        moved = images.grid.displacements(back, self._covered(which, back))
        return (images.grid.read_linear(torch.stack(whole), moved) > 0.999).float()

    def _rows(self, part: Tensor) -> Tensor:
        """Return some rows of frames, (n, N)."""
        return part.flatten(1, 2)[:, :: max(part.shape[2] // 24, 1)].flatten(1)


def largest_nearby(size: Tensor, reach: int) -> Tensor:
    """Return the largest of (n, z, y, x), none of them negative, within a box of ``reach`` pixels around each."""
    for axis in (1, 2, 3):
        other, count = size, size.shape[axis]
        size = size.clone()
        for away in range(1, min(reach, count - 1) + 1):
            for to, of in ((0, away), (away, 0)):
                part = size.narrow(axis, to, count - away)
                torch.maximum(part, other.narrow(axis, of, count - away), out=part)
    return size
