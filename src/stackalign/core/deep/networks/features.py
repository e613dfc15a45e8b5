"""Ours: a small network whose features look alike in all modalities, coarse ones to search, fine ones to refine."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as fn

from stackalign.core.deep.homography import pixel_grid, sample, transform_points
from stackalign.core.deep.networks.base import Batch, PairNetwork, standardised

COARSE, FINE = 4, 2  # pixels of the image in one of the features, along each axis
_STRIDE = 16  # images are padded to multiples of this
_WINDOW = 5  # fine features around the true place that a fine feature is told apart from
_JITTER = 2.5  # fine features by which the window is off: its middle must say nothing
_FLOOR = 0.05  # least weight of a place


class InvariantFeatures(PairNetwork):
    """Features of one plane, the same network for both images of a pair.

    A U of plain convolutions, pooled by means so that pixel centres stay where they are: from 1/8 of the resolution
    up, 32 coarse channels at 1/4 and 16 fine ones at 1/2 of the resolution, each of unit length times a weight in
    (0, 1) that says how much a place is worth. Each image is normalised channel by channel, which takes away much of
    what a modality adds (instance normalisation, Ulyanov et al., arXiv:1607.08022). About 0.4 million parameters.

    Trained to tell each place of one image from all others of the other image (coarse: InfoNCE, van den Oord et al.,
    arXiv:1807.03748) and from its neighbours (fine), weighted by what it says a place is worth (as in R2D2, Revaud et
    al., NeurIPS 2019). Pairs under known homographies, rendered at random, are all it sees: no modality is learnt by
    name, as in Zhao, Huang and Zhang (CVPR 2021) or Cao et al. (CVPR 2022), whose features are for one modality each.

    Parameters
    ----------
    widths : sequence of 5 int
        Channels at full, 1/2, 1/4, 1/8 and 1/16 of the resolution.
    coarse, fine : int
        Channels of the features.
    """

    paper: ClassVar[str] = "stackalign; losses after van den Oord et al. 2018 and Revaud et al. 2019"

    def __init__(self, widths: tuple[int, ...] = (8, 24, 48, 80, 96), coarse: int = 32, fine: int = 16) -> None:
        super().__init__()
        a, b, c, d, e = widths
        self.down_full = _block(2, a)
        self.down_half = nn.Sequential(_block(a, b), _block(b, b))
        self.down_quarter = nn.Sequential(_block(b, c), _block(c, c), _block(c, c))
        self.down_eighth = nn.Sequential(_block(c, d), _block(d, d))
        self.bottom = nn.Sequential(_block(d, e), _block(e, e))
        self.up_eighth = _Joined(e, d, d)
        self.up_quarter = _Joined(d, c, c)
        self.up_half = _Joined(c, b, b)
        self.head_coarse = nn.Conv2d(c, coarse + 1, 1)
        self.head_fine = nn.Conv2d(b, fine + 1, 1)
        self.log_sharpness = nn.Parameter(torch.tensor([2.5, 2.0]))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features of images (B, 1, y, x).

        Returns
        -------
        coarse : Tensor (B, 32, ceil(y / 4), ceil(x / 4))
            The centre of pixel k lies at 4 k + 1.5 of the image. Length: the weight of the place.
        fine : Tensor (B, 16, ceil(y / 2), ceil(x / 2))
            The centre of pixel k lies at 2 k + 0.5 of the image.
        """
        y, x = image.shape[-2:]
        padded = fn.pad(image, (0, -x % _STRIDE, 0, -y % _STRIDE), mode="replicate")
        full = self.down_full(normalised(padded))
        half = self.down_half(_halved(full))
        quarter = self.down_quarter(_halved(half))
        eighth = self.down_eighth(_halved(quarter))
        eighth = self.up_eighth(self.bottom(_halved(eighth)), eighth)
        quarter = self.up_quarter(eighth, quarter)
        half = self.up_half(quarter, half)
        coarse, fine = _weighed(self.head_coarse(quarter)), _weighed(self.head_fine(half))
        return coarse[..., : -(-y // COARSE), : -(-x // COARSE)], fine[..., : -(-y // FINE), : -(-x // FINE)]

    def loss(self, batch: Batch, points: int = 128) -> tuple[torch.Tensor, dict[str, float]]:
        """Return how badly places are told from others, over ``points`` random ones of each pair, both levels."""
        if batch.reference.shape[-2:] == batch.moving.shape[-2:]:
            both = [f.chunk(2) for f in self(torch.cat([batch.reference, batch.moving]))]
            (coarse_there, coarse_here), (fine_there, fine_here) = both
        else:
            (coarse_there, fine_there), (coarse_here, fine_here) = self(batch.reference), self(batch.moving)
        sharp = self.log_sharpness.clamp(max=4.0).exp()
        coarse, found = self._coarse(coarse_here, coarse_there, batch.matrix, sharp[0], points)
        fine, off = self._fine(fine_here, fine_there, batch.matrix, sharp[1], points)
        return coarse + fine, {
            "coarse": float(coarse.detach()),
            "fine": float(fine.detach()),
            "hit": found,
            "off": FINE * off,
        }

    @staticmethod
    def _coarse(
        here: torch.Tensor, there: torch.Tensor, matrix: torch.Tensor, sharp: torch.Tensor, points: int
    ) -> tuple[torch.Tensor, float]:
        h, w = here.shape[-2:]
        count = min(points, h * w)
        chosen = torch.rand(len(here), h * w, device=here.device).argsort(1)[:, :count]
        places = pixel_grid(h, w, device=here.device)[chosen]
        true = (transform_points(matrix, places * COARSE + 1.5) - 1.5) / COARSE
        query = here.flatten(2).gather(2, chosen[:, None].expand(-1, here.shape[1], -1))
        weight = _worth(query, sample(there, true))
        key = fn.normalize(there, dim=1).flatten(2)
        likeness = sharp * torch.einsum("bcn,bcm->bnm", fn.normalize(query, dim=1), key)
        size = there.shape[-2:]
        score = likeness.log_softmax(-1)
        inside = _within(true, size)
        losses = -_at_soft(score, true, size)
        best = likeness.argmax(-1)
        guess = torch.stack([best // size[1], best % size[1]], -1)
        near = ((guess - true).abs().amax(-1) < 1.5).float()[inside].mean()
        return _mean(losses, weight * inside), float(near)

    @staticmethod
    def _fine(
        here: torch.Tensor, there: torch.Tensor, matrix: torch.Tensor, sharp: torch.Tensor, points: int
    ) -> tuple[torch.Tensor, float]:
        h, w = here.shape[-2:]
        low = torch.tensor([2.0, 2.0], device=here.device)
        span = torch.tensor([h - 5.0, w - 5.0], device=here.device)
        places = (low + span * torch.rand(len(here), points, 2, device=here.device)).round()
        true = (transform_points(matrix, places * FINE + 0.5) - 0.5) / FINE
        middle = (true + _JITTER * (2 * torch.rand_like(true) - 1)).round()
        side = 2 * _WINDOW + 1
        window = pixel_grid(side, side, device=here.device) - _WINDOW
        query = sample(here, places)
        keys = sample(there, middle[:, :, None] + window)
        weight = _worth(query, sample(there, true))
        likeness = sharp * torch.einsum("bcn,bcnm->bnm", fn.normalize(query, dim=1), fn.normalize(keys, dim=1))
        inside = _within(true, there.shape[-2:])
        wanted = true - middle + _WINDOW
        losses = -_at_soft(likeness.log_softmax(-1), wanted, (side, side))
        chance = likeness.softmax(-1)
        expected = chance @ (window + _WINDOW)
        apart = torch.linalg.vector_norm(expected - wanted, dim=-1)
        best = likeness.argmax(-1)
        guess = torch.stack([best // side, best % side], -1)
        off = torch.linalg.vector_norm(guess - wanted, dim=-1)[inside].median()
        return _mean(losses + 0.2 * apart, weight * inside), float(off.detach())


class _Joined(nn.Module):
    """Bring coarse features up, add those of the level, mix."""

    def __init__(self, coarse: int, level: int, out: int) -> None:
        super().__init__()
        self.coarse = nn.Conv2d(coarse, out, 1, bias=False)
        self.level = nn.Conv2d(level, out, 1, bias=False)
        self.norm = nn.InstanceNorm2d(out, affine=True)
        self.mix = _block(out, out)

    def forward(self, coarse: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        raised = fn.interpolate(self.coarse(coarse), scale_factor=2, mode="bilinear", align_corners=False)
        return self.mix(fn.relu(self.norm(raised + self.level(level))))


def normalised(image: torch.Tensor, window: int = 31) -> torch.Tensor:
    """Return two planes: brightness in units of the image's spread, and of the spread nearby."""
    plain = standardised(image)
    mean = _box_mean(plain, window)
    spread = (_box_mean(plain * plain, window) - mean * mean).clamp_min(0).sqrt()
    return torch.cat([plain.clamp(-4, 4), ((plain - mean) / (spread + 0.1)).clamp(-4, 4)], 1)


def _box_mean(image: torch.Tensor, window: int) -> torch.Tensor:
    half = window // 2
    padded = fn.pad(image, (half, half, half, half), mode="replicate")
    return fn.avg_pool2d(fn.avg_pool2d(padded, (window, 1), 1), (1, window), 1)


def _block(inside: int, outside: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=False),
        nn.InstanceNorm2d(outside, affine=True),
        nn.ReLU(),
    )


def _halved(x: torch.Tensor) -> torch.Tensor:
    return fn.avg_pool2d(x, 2)


def _weighed(x: torch.Tensor) -> torch.Tensor:
    """Return vectors of unit length times the weight that the last channel stands for."""
    weight = _FLOOR + (1 - _FLOOR) * x[:, -1:].sigmoid()
    return fn.normalize(x[:, :-1], dim=1) * weight


def _worth(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)


def _within(places: torch.Tensor, size: torch.Size | tuple[int, int]) -> torch.Tensor:
    ends = places.new_tensor([size[0] - 1.0, size[1] - 1.0])
    return ((places >= 0) & (places <= ends)).all(-1)


def _at_soft(score: torch.Tensor, places: torch.Tensor, size: torch.Size | tuple[int, int]) -> torch.Tensor:
    """Return the mean of ``score`` (B, N, H * W) over the four pixels around ``places``, weighted by nearness."""
    ends = places.new_tensor([size[0] - 1.0, size[1] - 1.0])
    inside = torch.minimum(places.clamp_min(0), ends)
    low = torch.minimum(inside.floor(), (ends - 1).clamp_min(0))
    part = inside - low
    first = (low[..., 0] * size[1] + low[..., 1]).long()
    out = torch.zeros_like(part[..., 0])
    for dy in (0, 1):
        for dx in (0, 1):
            share = (part[..., 0] if dy else 1 - part[..., 0]) * (part[..., 1] if dx else 1 - part[..., 1])
            out = out + share * score.gather(-1, (first + dy * size[1] + dx)[..., None])[..., 0]
    return out


def _mean(losses: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted mean of each pair, then of the batch: no pair counts for nothing because it is hard."""
    each = (losses * weight).sum(1) / weight.sum(1).clamp_min(1e-6)
    return each.mean()
