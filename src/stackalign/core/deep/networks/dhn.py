"""Deep homography network: one network looks at both images and says where four corners go."""

from __future__ import annotations

from typing import ClassVar

import torch

from stackalign.core.deep.homography import warp
from stackalign.core.deep.networks.base import Batch, PairNetwork, corner_distance, standardised
from stackalign.core.deep.networks.regression import CornerHead, halved, reach_of, regressed


class DeepHomographyNetwork(PairNetwork):
    """DHN: D. DeTone, T. Malisiewicz and A. Rabinovich, Deep Image Homography Estimation, arXiv:1606.03798, 2016.

    Eight convolutions of 3 x 3 (64, 64, 64, 64, 128, 128, 128, 128), maxima after each second one, a layer of 1024
    and eight numbers. As in the paper the network regresses offsets of corners; unlike there the template is smaller
    than the image, so it is compared with the middle of it, the offsets are bounded by what keeps each corner in the
    image, and the last maps are averaged to 8 x 8 cells. The loss is the distance of the corners, not its square: few
    pairs that are far off do not outweigh the rest. In use, not in training, the network looks again at what its answer
    leaves. About 9 million parameters with the published widths.

    Parameters
    ----------
    widths : sequence of int
        Channels of the four stages.
    hidden : int
        Units of the fully connected layer.
    halvings : int
        How often both images are halved first: motions that are small for the last maps are learnt sooner.
    passes : int
        How often it looks, in use.
    """

    paper: ClassVar[str] = "DeTone, Malisiewicz and Rabinovich, arXiv:1606.03798 (2016)"

    def __init__(
        self,
        widths: tuple[int, ...] = (64, 64, 128, 128),
        hidden: int = 1024,
        dropout: float = 0.0,
        halvings: int = 0,
        passes: int = 4,
    ) -> None:
        super().__init__()
        self.halvings, self.passes = halvings, passes
        self.head = CornerHead(2, tuple(widths), hidden, dropout=dropout)

    def corners(self, reference: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """Return where the corners of ``moving`` lie: (B, 4, 2), pixels (y, x)."""
        return self._regressed(reference, moving, self.passes)

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the distance of the corners in units of their reach."""
        apart = corner_distance(self._regressed(batch.reference, batch.moving, 1), batch.corners).mean()
        return apart / reach_of(batch.reference, batch.moving), {"corners": float(apart.detach())}

    def _regressed(self, reference: torch.Tensor, moving: torch.Tensor, passes: int) -> torch.Tensor:
        there, here, reach = standardised(reference), standardised(moving), reach_of(reference, moving)

        def offsets(matrix: torch.Tensor) -> torch.Tensor:
            seen, _ = warp(there, matrix, (moving.shape[-2], moving.shape[-1]))
            return self.head(halved(torch.cat([seen, here], 1), self.halvings), reach)

        return regressed(offsets, reference, moving, passes)
