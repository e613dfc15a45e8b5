"""What all networks share: a batch of pairs, counting parameters, bringing brightness to one scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from torch import nn

from stackalign.core.deep.homography import homography_from_corners, template_corners

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackalign.core.deep.pairs import ImagePair


Gives = Literal["corners", "features", "description"]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Pairs of one size.

    Attributes
    ----------
    reference : Tensor (B, 1, H, W)
    moving : Tensor (B, 1, h, w)
    corners : Tensor (B, 4, 2)
        Where the corners of ``moving`` lie in ``reference``, pixels (y, x).
    matrix : Tensor (B, 3, 3)
        Pixels of ``moving`` -> pixels of ``reference``.
    """

    reference: torch.Tensor
    moving: torch.Tensor
    corners: torch.Tensor
    matrix: torch.Tensor

    @classmethod
    def of(cls, pairs: Sequence[ImagePair], device: torch.device | str = "cpu") -> Batch:
        """Return pairs of one size as a batch; several channels are averaged."""
        planes = [
            [_plane(image) for image in images] for images in ([p.reference for p in pairs], [p.moving for p in pairs])
        ]
        reference, moving = (torch.from_numpy(np.stack(p)[:, None]).to(device) for p in planes)
        corners = torch.tensor(np.stack([p.corners for p in pairs]), dtype=torch.float32, device=device)
        here = template_corners(*moving.shape[-2:], device=corners.device)
        return cls(reference, moving, corners, homography_from_corners(here, corners))


class PairNetwork(nn.Module):
    """A network that is trained on pairs: `loss` says how wrong it is on a batch.

    A network that says itself where the corners lie overrides `corners`; one whose features are matched does not.

    Attributes
    ----------
    paper : str
        Where it is from.
    gives : str
        "corners"; "features": coarse and fine ones, for `stackalign.core.deep.matching`; "description": those of every
        pixel, for `stackalign.core.multimodal.matching`.
    """

    paper: ClassVar[str] = ""
    gives: ClassVar[Gives] = "corners"

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss and numbers to report."""
        raise NotImplementedError

    def corners(self, reference: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """Return where the corners of ``moving`` (B, 1, h, w) lie in ``reference`` (B, 1, H, W): (B, 4, 2)."""
        raise NotImplementedError


def count_parameters(network: nn.Module) -> int:
    """Return how many numbers a network learns."""
    return sum(p.numel() for p in network.parameters())


def standardised(image: torch.Tensor) -> torch.Tensor:
    """Return images (B, C, y, x) of mean 0 and spread 1 each; a flat one becomes 0."""
    spread, mean = torch.std_mean(image, (2, 3), keepdim=True, correction=0)
    return (image - mean) / spread.clamp_min(1e-6)


def resting_corners(reference: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
    """Return the corners of ``moving`` in the middle of ``reference``: (B, 4, 2)."""
    h, w = moving.shape[-2:]
    apart = reference.new_tensor([(reference.shape[-2] - h) / 2, (reference.shape[-1] - w) / 2])
    return (template_corners(h, w, device=moving.device) + apart).expand(len(moving), 4, 2)


def corner_distance(found: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Return the mean distance of four corners, pixels: (B,)."""
    return torch.linalg.vector_norm(found - true, dim=-1).mean(-1)


def _plane(image: np.ndarray) -> np.ndarray:
    array = np.asarray(image, np.float32)
    return array if array.ndim == 2 else array.mean(-1)
