"""Deep homography network: one network looks at both images and says where four corners go."""

from __future__ import annotations

from typing import ClassVar

import torch

from stackalign.core.deep.networks.base import Batch, PairNetwork, corner_distance, resting_corners, standardised
from stackalign.core.deep.networks.regression import CornerHead, halved, reach_of, seen_at_rest


class DeepHomographyNetwork(PairNetwork):
    """DHN: D. DeTone, T. Malisiewicz and A. Rabinovich, Deep Image Homography Estimation, arXiv:1606.03798, 2016.

    Eight convolutions of 3 x 3 (64, 64, 64, 64, 128, 128, 128, 128), maxima after each second one, a layer of 1024
    and eight numbers. As in the paper the network regresses offsets of corners; unlike there the template is smaller
    than the image, so it is compared with the middle of it, the offsets are bounded by what keeps each corner in the
    image, and the last maps are averaged to 8 x 8 cells. The loss is the distance of the corners, not its square: few
    pairs that are far off do not outweigh the rest. About 9 million parameters with the published widths.

    Parameters
    ----------
    widths : sequence of int
        Channels of the four stages.
    hidden : int
        Units of the fully connected layer.
    halvings : int
        How often both images are halved first: motions that are small for the last maps are learnt sooner.
    """

    paper: ClassVar[str] = "DeTone, Malisiewicz and Rabinovich, arXiv:1606.03798 (2016)"

    def __init__(
        self, widths: tuple[int, ...] = (64, 64, 128, 128), hidden: int = 1024, dropout: float = 0.0, halvings: int = 0
    ) -> None:
        super().__init__()
        self.halvings = halvings
        self.head = CornerHead(2, tuple(widths), hidden, dropout=dropout)

    def corners(self, reference: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """Return where the corners of ``moving`` lie: (B, 4, 2), pixels (y, x)."""
        planes = torch.cat([seen_at_rest(standardised(reference), moving), standardised(moving)], 1)
        planes = halved(planes, self.halvings)
        return resting_corners(reference, moving) + self.head(planes, reach_of(reference, moving))

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the distance of the corners in units of their reach."""
        apart = corner_distance(self.corners(batch.reference, batch.moving), batch.corners).mean()
        return apart / reach_of(batch.reference, batch.moving), {"corners": float(apart.detach())}
