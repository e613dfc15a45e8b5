"""What networks that regress four corners share: where a template is laid, a trunk of convolutions, bounded offsets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as fn

from stackalign.core.deep.homography import homography_from_corners, template_corners, transform_points
from stackalign.core.deep.networks.base import resting_corners

if TYPE_CHECKING:
    from collections.abc import Callable


class CornerHead(nn.Module):
    """Convolutions in the manner of VGG, then eight numbers: offsets of four corners within ``reach``.

    Parameters
    ----------
    channels : int
        Planes of the input.
    widths : sequence of int
        Channels of each stage: two convolutions, and all but the last end with a maximum over 2 x 2.
    hidden : int
        Units of the fully connected layer.
    grid : int
        The last maps are averaged to this many cells a side, so that images may be of any size.
    dropout : float
        Share of the units that are silenced in training.
    """

    def __init__(
        self, channels: int, widths: tuple[int, ...], hidden: int, grid: int = 8, dropout: float = 0.0
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for k, width in enumerate(widths):
            layers += [*convolution(before, width), *convolution(width, width)]
            if k < len(widths) - 1:
                layers.append(nn.MaxPool2d(2))
            before = width
        self.trunk = nn.Sequential(*layers)
        self.grid = grid
        self.out = nn.Sequential(
            nn.Flatten(), nn.Linear(before * grid * grid, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 8)
        )
        last = self.out[-1]
        nn.init.normal_(last.weight, std=1e-3)  # it begins with doing nothing
        nn.init.zeros_(last.bias)

    def forward(self, planes: torch.Tensor, reach: float) -> torch.Tensor:
        """Return offsets (B, 4, 2) within ``reach`` pixels of zero along each axis."""
        maps = fn.adaptive_avg_pool2d(self.trunk(planes), self.grid)
        return reach * torch.tanh(self.out(maps).reshape(-1, 4, 2))


def convolution(inside: int, outside: int, padding: str = "zeros", alone: bool = False) -> tuple[nn.Module, ...]:
    """Return a 3 x 3 convolution, normalised, cut at zero.

    Features that are compared with those of a larger image need ``padding`` "replicate": zeros are an edge. Where one
    network looks at images of two kinds, each has to be normalised ``alone``, in groups of channels: over batches, the
    statistics in training are those of one kind, and those in use of both.
    """
    layer = nn.Conv2d(inside, outside, 3, padding=1, padding_mode=padding, bias=False)
    return layer, nn.GroupNorm(4, outside) if alone else nn.BatchNorm2d(outside), nn.ReLU(inplace=True)


def reach_of(reference: torch.Tensor, moving: torch.Tensor) -> float:
    """Return how far a corner may lie from its place in the middle: what keeps it in the reference, or 1/4 of it."""
    apart = (min(reference.shape[-2:]) - min(moving.shape[-2:])) / 2
    return float(apart if apart > 0 else min(reference.shape[-2:]) / 4)


def bounded(corners: torch.Tensor, rest: torch.Tensor, reach: float) -> torch.Tensor:
    """Return corners brought back within ``reach`` of where they rest: Lucas-Kanade that diverges ends there."""
    return rest + (corners - rest).clamp(-reach, reach)


def halved(image: torch.Tensor, times: int) -> torch.Tensor:
    """Return images (B, C, y, x) whose pixels are means of blocks of 2 ** times pixels a side."""
    return fn.avg_pool2d(image, 2**times) if times else image


def regressed(
    offsets: Callable[[torch.Tensor], torch.Tensor], reference: torch.Tensor, moving: torch.Tensor, passes: int
) -> torch.Tensor:
    """Return where the corners of ``moving`` (B, c, h, w) lie in ``reference`` (B, C, H, W): (B, 4, 2).

    ``offsets`` looks at what of the reference a homography (B, 3, 3) lays the template on, and says by how much the
    corners (B, 4, 2) are off there. It begins in the middle: two views of one size, pixel on pixel, are what the papers
    regress from; a small image within an empty large one shows the same, but in the time that a CPU has a network does
    not learn to see past the frame around it. Each of the ``passes`` looks at what the last one has left.
    """
    here = template_corners(*moving.shape[-2:], device=moving.device)
    rest, reach = resting_corners(reference, moving), reach_of(reference, moving)
    corners = rest
    for _ in range(passes):
        matrix = homography_from_corners(here, corners)
        corners = bounded(transform_points(matrix, here + offsets(matrix)), rest, reach)
    return corners
