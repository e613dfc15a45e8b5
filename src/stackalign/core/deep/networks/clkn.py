"""Cascaded Lucas-Kanade networks: features of one network for both images, aligned by Lucas-Kanade layers."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as fn

from stackalign.core.deep.homography import corners_from_homography, homography_from_corners, rescaled, template_corners
from stackalign.core.deep.networks.base import Batch, PairNetwork, corner_distance, resting_corners, standardised
from stackalign.core.deep.networks.lucas_kanade import lucas_kanade
from stackalign.core.deep.networks.regression import bounded, convolution, reach_of


class CascadedLucasKanade(PairNetwork):
    """CLKN: C.-H. Chang, C.-N. Chou and E. Y. Chang, CLKN: Cascaded Lucas-Kanade Networks, CVPR 2017.

    One fully convolutional network gives features of both images at three resolutions; at each, from coarse to fine, an
    inverse compositional Lucas-Kanade layer of fixed iterations refines the homography, and the loss on the corners
    goes back through all of them. In use there are more iterations, which cost little and still converge, and corners
    that run away are brought back into their squares after each layer; the paper does neither. About 0.07 million
    parameters.

    Parameters
    ----------
    width : int
        Channels of the first stage, a multiple of 4; the next ones have twice and four times as many.
    channels : int
        Features of each resolution.
    iterations, settling : int
        Of each Lucas-Kanade layer, in training and in use.
    """

    paper: ClassVar[str] = "Chang, Chou and Chang, CVPR 2017"

    def __init__(self, width: int = 16, channels: int = 4, iterations: int = 5, settling: int = 15) -> None:
        super().__init__()
        self.iterations, self.settling = iterations, settling
        widths = [width, 2 * width, 4 * width]
        self.stages = nn.ModuleList(
            nn.Sequential(*convolution(a, b, "replicate", alone=True), *convolution(b, b, "replicate", alone=True))
            for a, b in zip([1, *widths[:2]], widths, strict=True)
        )
        self.heads = nn.ModuleList(nn.Conv2d(w, channels, 3, padding=1, padding_mode="replicate") for w in widths)

    def pyramid(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return features at 1/2, 1/4 and 1/8 of the resolution, fine to coarse."""
        x, out = standardised(image), []
        for stage, head in zip(self.stages, self.heads, strict=True):
            x = fn.avg_pool2d(stage(x), 2)
            out.append(head(x))
        return out

    def courses(self, reference: torch.Tensor, moving: torch.Tensor, iterations: int) -> list[torch.Tensor]:
        """Return the corners after each layer of the cascade."""
        h, w = moving.shape[-2:]
        here = template_corners(h, w, device=moving.device)
        rest, reach = resting_corners(reference, moving), reach_of(reference, moving)
        corners, out = rest, []
        levels = list(enumerate(zip(self.pyramid(reference), self.pyramid(moving), strict=True)))
        for level, (there, over_here) in reversed(levels):
            factor = 2.0 ** (level + 1)
            start = rescaled(homography_from_corners(here, corners), factor, factor)
            found = lucas_kanade(there, over_here, start, iterations=iterations)
            corners = bounded(corners_from_homography(rescaled(found, 1 / factor, 1 / factor), h, w), rest, reach)
            out.append(corners)
        return out

    def corners(self, reference: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """Return where the corners of ``moving`` lie: (B, 4, 2), pixels (y, x)."""
        return self.courses(reference, moving, self.settling)[-1]

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the distance of the corners after each layer, in units of their reach."""
        courses = self.courses(batch.reference, batch.moving, self.iterations)
        reach = reach_of(batch.reference, batch.moving)
        total = torch.stack([corner_distance(c, batch.corners).mean() for c in courses]).sum()
        return total / reach, {"corners": float(corner_distance(courses[-1], batch.corners).detach().mean())}
