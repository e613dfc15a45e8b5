"""Multi-scale homography network: a cascade from coarse to fine, each sees the image as the last one warps it."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as fn

from stackalign.core.deep.homography import homography_from_corners, template_corners, transform_points, warp
from stackalign.core.deep.networks.base import Batch, PairNetwork, corner_distance, resting_corners, standardised
from stackalign.core.deep.networks.regression import CornerHead, reach_of


class MultiscaleHomographyNetwork(PairNetwork):
    """MHN: H. Le, F. Liu, S. Zhang and A. Agarwala, Deep Homography Estimation for Dynamic Scenes, CVPR 2020.

    Three networks at 1/4, 1/2 and full resolution. Each regresses the corners that are left to move, from the template
    and the image as the homography so far shows it, and their homographies are composed. The mask of moving objects
    that the paper adds is left out: a pair of microscope images has none. About 1.3 million parameters as built here.

    Parameters
    ----------
    widths : sequence of int
        Channels of the stages of each network.
    hidden : int
        Units of the fully connected layers.
    levels : int
        Networks of the cascade.
    """

    paper: ClassVar[str] = "Le, Liu, Zhang and Agarwala, CVPR 2020"

    def __init__(self, widths: tuple[int, ...] = (32, 32, 64, 64), hidden: int = 256, levels: int = 3) -> None:
        super().__init__()
        self.heads = nn.ModuleList(CornerHead(2, tuple(widths), hidden, grid=4) for _ in range(levels))

    def courses(self, reference: torch.Tensor, moving: torch.Tensor) -> list[torch.Tensor]:
        """Return the corners after each network of the cascade."""
        first, second = standardised(reference), standardised(moving)
        h, w = moving.shape[-2:]
        here = template_corners(h, w, device=moving.device)
        corners, reach = resting_corners(reference, moving), reach_of(reference, moving)
        out: list[torch.Tensor] = []
        for k, head in enumerate(self.heads):
            level = len(self.heads) - 1 - k
            matrix = homography_from_corners(here, corners.detach())
            seen, _ = warp(first, matrix, (h, w))
            pair = torch.cat([seen, second], 1)
            coarse = fn.avg_pool2d(pair, 2**level) if level else pair
            offsets = head(coarse, reach / 2**k)
            corners = transform_points(matrix, here + offsets)
            out.append(corners)
        return out

    def corners(self, reference: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """Return where the corners of ``moving`` lie: (B, 4, 2), pixels (y, x)."""
        return self.courses(reference, moving)[-1]

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the distance of the corners after each network, in units of their reach."""
        courses = self.courses(batch.reference, batch.moving)
        reach = reach_of(batch.reference, batch.moving)
        total = torch.stack([corner_distance(c, batch.corners).clamp(max=4 * reach).mean() for c in courses]).sum()
        return total / reach, {"corners": float(corner_distance(courses[-1], batch.corners).detach().mean())}
