"""Ours: a small network whose features look alike in all modalities, coarse ones to search, fine ones to refine."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as fn

from stackalign.core.deep.homography import pixel_grid, sample, transform_points
from stackalign.core.deep.networks.base import Batch, Gives, PairNetwork, standardised

COARSE, FINE = 4, 2  # pixels of the image in one of the features, along each axis
_STRIDE = 16  # images are padded to multiples of this
_WINDOW = 5  # fine features around the true place that a fine feature is told apart from
_JITTER = 2.5  # fine features by which the window is off: its middle must say nothing
_FLOOR = 0.05  # least weight of a place
_LAST = torch.channels_last
EDGES = 6  # maps of edges at each scale


class InvariantFeatures(PairNetwork):
    """Features of one plane, the same network for both images of a pair.

    What goes in is known not to depend on the modality much: edges by strength and orientation modulo 180 degrees at
    three scales, local normalisation (as CFOG: Ye et al., IEEE TGRS 57, 2019), and brightness itself. Two linear layers
    over neighbourhoods of these maps are descriptors already, good from the first step on; a U of convolutions, from
    1/2 down to 1/16 of the resolution and up again, learns what to add to them: 32 coarse channels at 1/4 and 16 fine
    ones at 1/2 of the resolution. Maps are pooled by means, so that pixel centres stay where they are. Each vector is
    of unit length times a weight in (0, 1) that says how much a place is worth. Each image is normalised channel by
    channel (instance normalisation, Ulyanov et al., arXiv:1607.08022). About 0.34 million parameters.

    Trained to tell each place of one image from all others of the other image (coarse: InfoNCE, van den Oord et al.,
    arXiv:1807.03748) and from its neighbours (fine), weighted by what it says a place is worth (as in R2D2, Revaud et
    al., NeurIPS 2019). Pairs under known homographies, rendered at random, are all it sees: no modality is learnt by
    name, as in Zhao, Huang and Zhang (CVPR 2021) or Cao et al. (CVPR 2022), whose features are for one modality each.

    Parameters
    ----------
    widths : sequence of 4 int
        Channels at 1/2, 1/4, 1/8 and 1/16 of the resolution.
    coarse, fine : int
        Channels of the features.
    """

    paper: ClassVar[str] = "stackalign; losses after van den Oord et al. 2018 and Revaud et al. 2019"
    gives: ClassVar[Gives] = "features"

    def __init__(self, widths: tuple[int, ...] = (24, 48, 64, 96), coarse: int = 32, fine: int = 16) -> None:
        super().__init__()
        b, c, d, e = widths
        first = 2 * EDGES + 2
        self.down_half = _block(first, b)
        self.down_quarter = nn.Sequential(_block(b + EDGES, c), _block(c, c))
        self.down_eighth = nn.Sequential(_block(c, d), _block(d, d))
        self.bottom = nn.Sequential(_block(d, e), _block(e, e))
        self.up_eighth = _Joined(e, d, d)
        self.up_quarter = _Joined(d, c, c)
        self.up_half = _Joined(c, b, b)
        self.head_coarse = nn.Conv2d(c, coarse + 1, 1)
        self.head_fine = nn.Conv2d(b, fine + 1, 1)
        self.plain_coarse = nn.Conv2d(first + EDGES, coarse, 5, padding=2, bias=False)
        self.plain_fine = nn.Conv2d(first, fine, 3, padding=1, bias=False)
        for plain, head in ((self.plain_coarse, self.head_coarse), (self.plain_fine, self.head_fine)):
            nn.init.orthogonal_(plain.weight)
            plain.weight.data[:, 2 * EDGES : first] = 0  # brightness tells nothing of the other modality at first
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)
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
        with torch.no_grad():
            at_half, at_quarter = modality_free(padded)
        half = self.down_half(at_half)
        quarter = self.down_quarter(torch.cat([_halved(half), at_quarter], 1))
        eighth = self.down_eighth(_halved(quarter))
        eighth = self.up_eighth(self.bottom(_halved(eighth)), eighth)
        quarter = self.up_quarter(eighth, quarter)
        half = self.up_half(quarter, half)
        coarse = self.plain_coarse(torch.cat([_halved(at_half), at_quarter], 1))
        coarse = _weighed(coarse, self.head_coarse(quarter))
        fine = _weighed(self.plain_fine(at_half), self.head_fine(half))
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
        self.norm = nn.GroupNorm(out, out)
        self.mix = _block(out, out)

    def forward(self, coarse: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        raised = fn.interpolate(self.coarse(coarse), scale_factor=2, mode="bilinear", align_corners=False)
        return self.mix(fn.relu(self.norm(raised + self.level(level))))


def modality_free(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return maps that change little with the modality.

    Returns
    -------
    half : Tensor (B, 2 * 6 + 2, y / 2, x / 2)
        Edges of the image at full and at half resolution; brightness in units of the image's spread, and of the
        spread nearby.
    quarter : Tensor (B, 6, y / 4, x / 4)
        Edges at a quarter of the resolution.
    """
    plain = standardised(image)
    mean = _around(plain, 3)
    spread = (_around(plain * plain, 3) - mean * mean).clamp_min(0).sqrt()
    local = (plain - mean) / (spread + 0.1)
    bright = _halved(torch.cat([plain.clamp(-4, 4), local.clamp(-4, 4)], 1))
    once = _halved(plain)
    full, half, quarter = _edges(plain), _edges(once), _edges(_halved(once))
    at_half = torch.cat([_evened(_halved(full)), _evened(half), bright], 1)
    return at_half.contiguous(memory_format=_LAST), _evened(quarter).contiguous(memory_format=_LAST)


def _edges(image: torch.Tensor) -> torch.Tensor:
    """Return the root of the gradient, its parts by twice and four times its angle, and the root of the curvature.

    A gradient and its negative give the same: inverted contrast changes nothing.
    """
    padded = fn.pad(image, (2, 2, 2, 2), mode="replicate")
    soft = fn.avg_pool2d(fn.avg_pool2d(padded, 2, 1), 2, 1)  # binomial, 1 2 1
    gy = (soft[..., 2:, 1:-1] - soft[..., :-2, 1:-1]) / 2
    gx = (soft[..., 1:-1, 2:] - soft[..., 1:-1, :-2]) / 2
    four = soft[..., 2:, 1:-1] + soft[..., :-2, 1:-1] + soft[..., 1:-1, 2:] + soft[..., 1:-1, :-2]
    bent = (four - 4 * soft[..., 1:-1, 1:-1]).abs().sqrt()
    size = (gy * gy + gx * gx).sqrt() + 1e-6
    root = size.sqrt()
    cosine, sine = (gx * gx - gy * gy) / (size * size), 2 * gx * gy / (size * size)
    return torch.cat(
        [root, root * cosine, root * sine, root * (2 * cosine * cosine - 1), root * 2 * cosine * sine, bent], 1
    )


def _evened(maps: torch.Tensor) -> torch.Tensor:
    """Return maps freed from their local means, over the strength of all of them nearby."""
    apart = maps - _around(maps, 2)
    energy = _around(apart.square().mean(1, keepdim=True), 2)
    return apart / (energy + 0.01 * energy.mean((2, 3), keepdim=True) + 1e-12).sqrt()


def _around(maps: torch.Tensor, octaves: int) -> torch.Tensor:
    """Return smooth local means: of blocks of 2 ** octaves pixels and those around them."""
    size, step = maps.shape[-2:], 2**octaves
    coarse = fn.avg_pool2d(fn.pad(maps, (0, -size[1] % step, 0, -size[0] % step), mode="replicate"), step)
    coarse = fn.avg_pool2d(fn.pad(coarse, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return fn.interpolate(coarse, scale_factor=step, mode="bilinear", align_corners=False)[..., : size[0], : size[1]]


def _block(inside: int, outside: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=False),
        nn.GroupNorm(outside, outside),
        nn.ReLU(),
    )


def _halved(x: torch.Tensor) -> torch.Tensor:
    return fn.avg_pool2d(x, 2)


def _weighed(plain: torch.Tensor, learnt: torch.Tensor) -> torch.Tensor:
    """Return sums of unit length times the weight that the last channel of ``learnt`` stands for."""
    weight = _FLOOR + (1 - _FLOOR) * learnt[:, -1:].sigmoid()
    return fn.normalize(plain + learnt[:, :-1], dim=1) * weight


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
