"""Two-stage regressors: each modality is embedded in features of its own network, then corners are regressed."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from stackalign.core.deep.homography import homography_from_corners, rescaled, template_corners, warp
from stackalign.core.deep.networks.base import Batch, PairNetwork, corner_distance, standardised
from stackalign.core.deep.networks.regression import CornerHead, convolution, halved, reach_of, regressed

_WRONG = 2.0  # px of the features: how far away they must not be alike any more
_UNLIKE = 0.5  # mean square of how they have to differ there: images do by so much, and sharper ones only match nearby


class EmbeddedCorners(PairNetwork):
    """VisIRNet's corners: S. Ozer and A. P. Ndigande, VisIRNet, IEEE Trans. Geoscience and Remote Sensing 62, 2024.

    First stage: two networks of residual blocks, one a modality, bring both images to features of the same kind;
    the loss is the squared difference between the template's features and those of the image under the true
    homography, and how alike those two pixels beside are. The image itself passes by the blocks, weighted: features
    begin as smooth as images are, and of sharper ones large motions are harder to regress. Second stage: with these
    networks held still, convolutions over both features regress the four corners. They learn along from the first
    step, though nothing of their errors reaches the features: begun anew at the full learning rate they often stay
    at doing nothing. The first stage ends after ``first_stage`` steps, which are counted in the weights. In use,
    not in training, the second stage looks again at what its answer leaves. About 2.5 million parameters.

    Parameters
    ----------
    width : int
        Channels of the embedding networks.
    features : int
        Features of each pixel.
    widths : sequence of int
        Channels of the stages of the regression.
    hidden : int
        Units of its fully connected layer.
    first_stage : int
        Steps of the first stage.
    halvings : int
        How often both images are halved first: motions that are small for the last maps are learnt sooner.
    passes : int
        How often the second stage looks, in use.
    """

    paper: ClassVar[str] = "Ozer and Ndigande, IEEE TGRS 62 (2024)"

    def __init__(
        self,
        width: int = 32,
        features: int = 8,
        widths: tuple[int, ...] = (32, 64, 64, 128),
        hidden: int = 256,
        first_stage: int = 2000,
        halvings: int = 0,
        passes: int = 4,
    ) -> None:
        super().__init__()
        self.halvings, self.passes = halvings, passes
        self.first_stage = first_stage
        self.embeddings = nn.ModuleList(_Embedding(width, features) for _ in range(2))
        self.head = CornerHead(2 * features, tuple(widths), hidden)
        self.register_buffer("taken", torch.zeros((), dtype=torch.int64))

    def corners(self, reference: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """Return where the corners of ``moving`` lie: (B, 4, 2), pixels (y, x)."""
        return self._regressed(*self._embedded(reference, moving), reference, moving, self.passes)

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of the stage that is on."""
        first = int(self.taken) < self.first_stage
        if self.training:
            self.taken += 1
        with torch.set_grad_enabled(torch.is_grad_enabled() and first):
            there, here = self._embedded(batch.reference, batch.moving)
        found = self._regressed(there.detach(), here.detach(), batch.reference, batch.moving, 1)
        loss = self._corner_loss(found, batch)
        if first:
            loss = loss + self._embedding_loss(there, here, batch)
        return loss, {"corners": float(corner_distance(found, batch.corners).detach().mean())}

    def _embedded(self, reference: torch.Tensor, moving: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        images = (halved(standardised(image), self.halvings) for image in (reference, moving))
        there, here = (embedding(image) for embedding, image in zip(self.embeddings, images, strict=True))
        return there, here

    def _regressed(
        self, there: torch.Tensor, here: torch.Tensor, reference: torch.Tensor, moving: torch.Tensor, passes: int
    ) -> torch.Tensor:
        reach, factor = reach_of(reference, moving), 2.0**self.halvings

        def offsets(matrix: torch.Tensor) -> torch.Tensor:
            seen, _ = warp(there, rescaled(matrix, factor, factor), (here.shape[-2], here.shape[-1]))
            return self.head(torch.cat([seen, here], 1), reach)

        return regressed(offsets, reference, moving, passes)

    def _embedding_loss(self, there: torch.Tensor, here: torch.Tensor, batch: Batch) -> torch.Tensor:
        size = (here.shape[-2], here.shape[-1])
        factor = 2.0**self.halvings
        seen, inside = warp(there, rescaled(batch.matrix, factor, factor), size)
        alike = ((seen - here).square() * inside).mean()
        # a wrong place some pixels away: features that differ only farther away could not tell where a corner lies
        turn = 2 * torch.pi * torch.rand(len(here), 1, 1, device=here.device)
        away = factor * _WRONG * torch.cat([torch.sin(turn), torch.cos(turn)], -1)
        beside = homography_from_corners(
            template_corners(*batch.moving.shape[-2:], device=here.device), batch.corners + away
        )
        wrong, known = warp(there, rescaled(beside, factor, factor), size)
        shown = (known.sum((1, 2, 3)) * here.shape[1]).clamp_min(1.0)
        unlike = ((wrong - here).square() * known).sum((1, 2, 3)) / shown
        return alike + torch.relu(_UNLIKE - unlike).mean()

    def _corner_loss(self, found: torch.Tensor, batch: Batch) -> torch.Tensor:
        return ((found - batch.corners) / reach_of(batch.reference, batch.moving)).square().sum(-1).mean()


class EmbeddedMatrix(EmbeddedCorners):
    """VisIRNet's matrix: as `EmbeddedCorners`, but the loss is on the entries of the homography.

    The network still regresses corners, and the matrix follows from them: raw entries of a matrix, as the original
    regresses, have no common scale, and small errors of the last row throw corners far away. The entries are compared
    in coordinates that run from -1 to 1 over both images. About 2.5 million parameters.
    """

    def _corner_loss(self, found: torch.Tensor, batch: Batch) -> torch.Tensor:
        h, w = batch.moving.shape[-2:]
        here = template_corners(h, w, device=found.device)
        unit = [_unit(image) for image in (batch.reference, batch.moving)]
        matrices = [homography_from_corners(here, c) for c in (found, batch.corners)]
        entries = [torch.linalg.inv(unit[0]) @ m @ unit[1] for m in matrices]
        entries = [e / e[:, 2:, 2:] for e in entries]
        return 10 * torch.linalg.vector_norm(entries[0] - entries[1], dim=(1, 2)).clamp(max=3).mean()


class _Embedding(nn.Module):
    """A convolution, two residual blocks, the image past them; features of mean 0 and spread 1."""

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.first = nn.Sequential(*convolution(1, width))
        self.blocks = nn.ModuleList(nn.Sequential(*convolution(width, width), *convolution(width, width)) for _ in "ab")
        self.last = nn.Conv2d(width, features, 3, padding=1)
        self.past = nn.Conv2d(1, features, 1, bias=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.first(image)
        for block in self.blocks:
            x = x + block(x)
        return standardised(self.last(x) + self.past(image))


def _unit(image: torch.Tensor) -> torch.Tensor:
    """Return the matrix from coordinates -1 .. 1 to pixels (y, x) of an image."""
    h, w = image.shape[-2] - 1.0, image.shape[-1] - 1.0
    return image.new_tensor([[h / 2, 0, h / 2], [0, w / 2, w / 2], [0, 0, 1]])
