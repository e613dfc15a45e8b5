"""Deep Lucas-Kanade feature maps: one map for each image, made so that Lucas-Kanade on them converges."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as fn

from stackalign.core.deep.homography import (
    corners_from_homography,
    homography_from_corners,
    rescaled,
    template_corners,
    warp,
)
from stackalign.core.deep.networks.base import Batch, PairNetwork, corner_distance, resting_corners, standardised
from stackalign.core.deep.networks.lucas_kanade import lucas_kanade
from stackalign.core.deep.networks.regression import bounded, convolution, reach_of


class LucasKanadeFeatureMaps(PairNetwork):
    """DLKFM: Y. Zhao, X. Huang and Z. Zhang, Deep Lucas-Kanade Homography for Multimodal Image Alignment, CVPR 2021.

    A branch for each modality turns its image into one map at each of three resolutions. Two losses shape the maps, as
    in the paper: the maps of both images are alike under the true homography (brightness consistency), and the sum of
    squared differences rises on the way from the true homography to a disturbed one at least like a parabola
    (convergence), so that Lucas-Kanade from far away runs downhill. Unlike the paper the maps come straight from
    convolutions, not from eigenvalues of local covariances, all levels are trained at once, no DHN makes the first
    guess, and corners that run away are brought back into their squares. About 0.14 million parameters.

    Parameters
    ----------
    width : int
        Channels of the first stage of each branch; the next ones have twice and four times as many.
    iterations : int
        Of Lucas-Kanade at each resolution, when the network is used.
    """

    paper: ClassVar[str] = "Zhao, Huang and Zhang, CVPR 2021"

    def __init__(self, width: int = 16, iterations: int = 15) -> None:
        super().__init__()
        self.iterations = iterations
        self.branches = nn.ModuleList(_Branch(width) for _ in range(2))

    def corners(self, reference: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """Return where the corners of ``moving`` lie: (B, 4, 2), pixels (y, x)."""
        h, w = moving.shape[-2:]
        here = template_corners(h, w, device=moving.device)
        rest, reach = resting_corners(reference, moving), reach_of(reference, moving)
        corners = rest
        maps = zip(self.branches[0](reference), self.branches[1](moving), strict=True)
        for level, (there, over_here) in reversed(list(enumerate(maps))):
            factor = 2.0 ** (level + 1)
            start = rescaled(homography_from_corners(here, corners), factor, factor)
            found = lucas_kanade(there, over_here, start, iterations=self.iterations)
            corners = bounded(corners_from_homography(rescaled(found, 1 / factor, 1 / factor), h, w), rest, reach)
        return corners

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return both losses over all resolutions; the corners are reported, not trained on."""
        reach = reach_of(batch.reference, batch.moving)
        h, w = batch.moving.shape[-2:]
        here = template_corners(h, w, device=batch.moving.device)
        alike, rising = [], []
        maps = zip(self.branches[0](batch.reference), self.branches[1](batch.moving), strict=True)
        for level, (there, moved) in enumerate(maps):
            factor = 2.0 ** (level + 1)
            size = (moved.shape[-2], moved.shape[-1])

            def energy(
                corners: torch.Tensor,
                there: torch.Tensor = there,
                moved: torch.Tensor = moved,
                factor: float = factor,
                size: tuple[int, int] = size,
            ) -> torch.Tensor:
                matrix = rescaled(homography_from_corners(here, corners), factor, factor)
                seen, inside = warp(there, matrix, size)
                return ((seen - moved).square() * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3)).clamp_min(1.0)

            least = energy(batch.corners)
            alike.append(least.mean())
            # the coarsest maps must lead from the whole reach, finer ones from what the coarser leave
            apart = (2 * torch.rand_like(batch.corners) - 1) * min(reach, 2.5 * factor * (1 + (factor == 8) * reach))
            share = torch.rand(len(apart), 1, 1, device=apart.device)
            near, far = energy(batch.corners + share * apart), energy(batch.corners + apart)
            steep = apart.square().sum(-1).mean(-1) / (factor * 4) ** 2
            parabola = share[:, 0, 0].square() * steep.clamp(max=0.5)
            rising.append(
                fn.relu(least + parabola - near).mean() + fn.relu(near + 0.1 * (1 - share[:, 0, 0]) - far).mean()
            )
        total = torch.stack(alike).mean() + 2 * torch.stack(rising).mean()
        with torch.no_grad():
            found = self.corners(batch.reference, batch.moving)
        distance = corner_distance(found, batch.corners)
        return total, {"corners": float(distance.mean()), "median": float(distance.median())}


class _Branch(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width]
        self.stages = nn.ModuleList(
            nn.Sequential(*convolution(a, b, "replicate"), *convolution(b, b, "replicate"))
            for a, b in zip([1, *widths[:2]], widths, strict=True)
        )
        self.heads = nn.ModuleList(nn.Conv2d(w, 1, 3, padding=1, padding_mode="replicate") for w in widths)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return maps at 1/2, 1/4 and 1/8 of the resolution, each of mean 0 and spread 1: else all could shrink."""
        x, out = standardised(image), []
        for stage, head in zip(self.stages, self.heads, strict=True):
            x = fn.avg_pool2d(stage(x), 2)
            out.append(standardised(head(x)))
        return out
