"""What frames have in common at one size, on a device: tensors, float32; frames come in batches as memory allows.

See `stackalign.core.lowrank.pixels` for what each part answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stackalign.core.lowrank.on_device.comparison import DeviceComparison
from stackalign.core.lowrank.on_device.equations import Slopes, combined
from stackalign.core.lowrank.on_device.splines import Grid, spline_coefficients
from stackalign.core.lowrank.pixels import AGREED, SEEN
from stackalign.core.threads import map_ahead

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from stackalign.core.frames.noise import NoiseModel
    from stackalign.core.lowrank.level import Level
    from stackalign.core.lowrank.pixels import Align, Array, Floats

    Totals = tuple[Tensor, Tensor, Tensor]

_MOST = 64  # frames that are compared at once
_WORKING = 0.25  # of the memory that is free, for what is worked out at once
_KEPT = 0.5  # and for frames that stay on the device
_ON_PROCESSOR = 1 << 32  # bytes, where torch computes on the processor itself
_IMAGES = 32  # of a frame's size that comparing it takes, and two for each unknown
_PIXELS = 1 << 16  # whose images are solved for at once


@dataclass(frozen=True, slots=True, eq=False)
class DeviceFrame:
    """A frame as padded spline coefficients; ``finite`` is 0 in its holes, None if it has none."""

    spline: Tensor
    finite: Tensor | None
    shape: tuple[int, ...]


class DeviceImages:
    """`Images` as tensors on a device."""

    def __init__(self, level: Level, device: str) -> None:
        self.level, self.device = level, torch.device(device)
        rank, volume = level.options.rank, level.volume
        self.grid = Grid(volume, level.d, self.device)
        self.weight = self.there(level.weight)
        self.images = torch.zeros((rank, *volume), device=self.device)
        self.slopes = Slopes(level.flows, self.grid)
        self.gradients = torch.zeros((rank, level.d, *volume), device=self.device)
        self.totals: Totals = self.new_totals(rank)
        self.precise = self.certain = self.weight
        self.motion_weight = self.weight
        self._shown = self._agreed = self.weight > 0
        self.counted = int(np.count_nonzero(level.weight))
        free = free_bytes(self.device)
        self.together = frames_at_once(level.shape, len(level.flows) + rank, free, device)
        self.room = int(_KEPT * free)

    @property
    def basis(self) -> Floats:
        """The images, on the host."""
        return self._here(self.images)

    @property
    def known(self) -> Floats:
        """Precision of the pixels that count, on the host."""
        return self._here(self.motion_weight)

    @property
    def shown(self) -> NDArray[np.bool_]:
        """Pixels that enough frames show, on the host."""
        return np.asarray(self._shown.cpu().numpy())

    def there(self, array: NDArray[Any]) -> Tensor:
        """Return an array on the device, float32."""
        return torch.from_numpy(np.array(array, np.float32)).to(self.device)

    def exactly(self, tensor: Tensor) -> Tensor:
        """Return a tensor in double precision, on the device if that knows it."""
        return (tensor.cpu() if self.device.type == "mps" else tensor).double()

    def _here(self, tensor: Tensor) -> Floats:
        return np.array(tensor.cpu().numpy())  # not the tensor's own memory, where that is the host's

    def frame(self, image: Floats) -> DeviceFrame:
        """Return a reduced frame ready to be compared."""
        finite = np.isfinite(image)
        if finite.all():
            return DeviceFrame(spline_coefficients(self.there(image)), None, image.shape)
        whole = np.where(finite, image, np.float32(image[finite].mean() if finite.any() else 0))
        return DeviceFrame(spline_coefficients(self.there(whole)), self.there(finite), image.shape)

    def compare(self, frames: Sequence[DeviceFrame], matrices: Sequence[Array]) -> DeviceComparison:
        """Return frames ready to be placed."""
        return DeviceComparison(self, frames, matrices)

    def new_totals(self, rank: int) -> Totals:
        """Return products (k (k + 1) / 2, z, y, x), sums (k, z, y, x) and counts (z, y, x)."""
        shapes = ((rank * (rank + 1) // 2, *self.level.volume), (rank, *self.level.volume), self.level.volume)
        products, sums, counts = (torch.zeros(shape, device=self.device) for shape in shapes)
        return products, sums, counts

    def weights(self, totals: Totals) -> Floats:
        """Return totals of one image, on the host."""
        return self._here(torch.stack([totals[0][0], totals[1][0], totals[2]]))

    def accumulate(self, batch: Sequence[int], align: Align) -> Iterator[tuple[float, float]]:
        """Align frames, as many at once as memory allows, while threads read the next."""
        read = map_ahead(self.level.frame, batch)
        for first in range(0, len(batch), self.together):
            numbers = batch[first : first + self.together]
            yield from align(numbers, list(islice(read, len(numbers))), self.totals)

    def fade(self, keep: float) -> None:
        """Keep a share of the totals."""
        for total in self.totals:
            total.mul_(keep)

    def start(self, basis: Floats, known: Floats | None) -> None:
        """Begin with these images."""
        self.images = self.there(basis)
        if known is not None:
            self.motion_weight = self.there(known)
            self.counted = int(np.count_nonzero(known))
        else:
            self._slope()

    def solve(self) -> None:
        """Solve the normal equations of every pixel."""
        products, sums, counts = self.totals
        rank = len(self.images)
        diagonal = [k * (k + 3) // 2 for k in range(rank)]
        trace = products[diagonal].sum(0)
        shown = (counts > 0) & (counts >= SEEN * counts.max()) & (trace > 0)
        if rank == 1:
            solved = sums / torch.where(shown, products, 1)
        else:
            solved = self._solved(products.flatten(1), sums.flatten(1), trace.flatten(), shown.flatten())
        self.images = torch.where(shown, solved.reshape(self.images.shape), 0)
        self._shown = self._agreed = shown
        weight = torch.where(shown, trace / torch.where(shown, self.precise * counts, 1), 0)
        usual = weight[shown]
        if len(usual):
            self._agreed = weight > AGREED * usual.median()

    def _solved(self, products: Tensor, sums: Tensor, trace: Tensor, shown: Tensor) -> Tensor:
        """Return the images (k, N) of several, in double precision, some pixels at once."""
        rank, found = len(sums), []
        rows, columns = np.tril_indices(rank)
        for first in range(0, sums.shape[1], _PIXELS):
            part = slice(first, first + _PIXELS)
            flat = self.exactly(products[:, part])
            matrix = flat.new_zeros((flat.shape[1], rank, rank))
            matrix[:, rows, columns] = flat.T
            matrix[:, columns, rows] = flat.T
            ridge = 1e-6 * self.exactly(trace[part]) + self.exactly(~shown[part])
            matrix += torch.diag_embed(ridge[:, None].expand(-1, rank))
            found.append(torch.linalg.solve(matrix, self.exactly(sums[:, part]).T[..., None])[..., 0].T.float())
        return torch.cat(found, 1).to(self.device)

    def orthonormal(self) -> Array | None:
        """Keep the images orthonormal: the same product with well-scaled coefficients."""
        rank = len(self.images)
        flat = (self.images * (self._shown & (self.weight > 0))).flatten(1)
        gram = np.zeros((rank, rank))
        for i in range(rank):
            for j in range(i + 1):
                gram[i, j] = gram[j, i] = float(self.exactly(flat[i] * flat[j]).sum())
        scale = np.sqrt(flat.shape[1])
        try:
            change: Array = np.linalg.cholesky(gram) / scale
        except np.linalg.LinAlgError:
            return None
        inverse = self.there(np.linalg.inv(change))
        self.images = combined(inverse, flat).reshape(self.images.shape)
        products, sums, _ = self.totals
        if rank == 1:
            products.mul_(float(change[0, 0]) ** 2)
            sums.mul_(float(change[0, 0]))
        elif self.level.options.batch_size is not None:
            rows, columns = np.tril_indices(rank)
            whole = products.new_empty((rank, rank, *products.shape[1:]))
            whole[rows, columns] = whole[columns, rows] = products
            across = self.there(change.T)
            half = torch.stack([combined(across, part) for part in whole])  # over the columns, then over the rows
            products[...] = combined(across, half.flatten(1)).reshape(whole.shape)[rows, columns]
            sums[...] = combined(across, sums)
        return change

    def weigh(self, noise: NoiseModel | None, usual: float, typical: Array) -> None:
        """Weigh the pixels by the noise at their brightness."""
        self.precise = self.weight
        if noise is not None:
            scene = combined(self.there(typical[None]), self.images)[0]
            variance = (noise.constant + noise.slope * scene).clamp(min=noise.floor)
            self.precise = self.weight * usual / variance

    def settle(self) -> None:
        """Work out what is known, and the slopes there."""
        self.certain = self.precise * self._shown
        self.motion_weight = self.certain * self._agreed
        self.counted = int((self.motion_weight != 0).sum())
        self._slope()

    def _slope(self) -> None:
        known = self.motion_weight > 0
        filled = torch.where(known, self.images, 0)
        unknown = ~known
        # only what lies beside a known pixel enters its slope: the first neighbour in memory that is known
        steps = [(axis, -1) for axis in reversed(self.grid.axes)] + [(axis, 1) for axis in self.grid.axes]
        for axis, step in steps:
            count = known.shape[axis]
            if count == 1:
                continue
            to, of = (slice(1, None), slice(None, -1)) if step < 0 else (slice(None, -1), slice(1, None))
            here, beside = _along(axis, to), _along(axis, of)
            taken = unknown[here] & known[beside]
            filled[(slice(None), *here)] = torch.where(
                taken, self.images[(slice(None), *beside)], filled[(slice(None), *here)]
            )
            unknown[here] &= ~taken
        for n, axis in enumerate(self.grid.axes):
            if known.shape[axis] > 1:
                self.gradients[:, n] = _gradient(filled, axis + 1)


def frames_at_once(shape: Sequence[int], unknowns: int, free: int, device: str) -> int:
    """Return how many frames are compared at once where so many bytes are free.

    Raises
    ------
    ValueError
        If not even one can be.
    """
    each = 4 * int(np.prod(shape)) * (_IMAGES + 2 * unknowns)
    if each > free:
        raise ValueError(
            f"a frame of shape {tuple(shape)} takes {each / 1e9:.1f} GB on the device {device!r}, where"
            f" {free / 1e9:.1f} GB are free: choose the device 'cpu'"
        )
    return int(np.clip(_WORKING * free // each, 1, _MOST))


def free_bytes(device: torch.device) -> int:
    """Return how much memory a device has to spare."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, and free
        return int(torch.cuda.mem_get_info(device)[0] + held)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return _ON_PROCESSOR


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return tuple(part if a == axis else slice(None) for a in range(3))


def _gradient(image: Tensor, axis: int) -> Tensor:
    """Return half of the difference of the neighbours along an axis; at the ends that to the one neighbour."""
    count = image.shape[axis]
    out = torch.empty_like(image)
    out.narrow(axis, 1, count - 2)[...] = (image.narrow(axis, 2, count - 2) - image.narrow(axis, 0, count - 2)) / 2
    out.narrow(axis, 0, 1)[...] = image.narrow(axis, 1, 1) - image.narrow(axis, 0, 1)
    out.narrow(axis, count - 1, 1)[...] = image.narrow(axis, count - 1, 1) - image.narrow(axis, count - 2, 1)
    return out
