"""Ours: self-similarity and edges, as `multimodal` describes images, and what a network learns to make of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as fn

from stackalign.core.deep.homography import transform_points
from stackalign.core.deep.networks.base import Batch, Gives, PairNetwork
from stackalign.core.frames.reduction import binned, reduced
from stackalign.core.multimodal.features import (
    EDGES,
    MARGIN,
    SIMILARITIES,
    away_from_holes,
    blurred_once,
    contrast_plane,
    families,
)
from stackalign.core.transform_fit import fit_matrix
from stackalign.core.warping.resample import warp_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

GIVEN = SIMILARITIES + EDGES
STRENGTHS = 2  # maps of how strong slopes and curvature are: descriptors say nothing of that
_STRIDE = 8  # maps are padded to multiples of this
_SEEN = 0.6  # of a block that must be known
_SIDES = (15, 21, 29)  # px: blocks that are looked for
_BLOCKS = 5  # of each pair
_TURN, _GROWTH = 0.16, 0.12  # rad, log: how far beside the right rotation and scale blocks are looked for


class LearntDescription(PairNetwork):
    """Features of every pixel: those of `describe`, recombined, and weighed by how much a place is worth.

    The first step is the training-free method: a linear layer over 5 x 5 pixels that begins as the identity passes
    the eleven channels of self-similarity and edges on, and what a U of convolutions adds to them, and the gain
    that it multiplies a pixel by, begin with nothing. It sees those channels at the resolution of the image and at
    half of it, and how strong slopes and curvature are; all of these are the same for an image and its negative, so
    that the answer is, too. About 0.14 million parameters.

    Trained on what the search does: blocks of one image, turned and magnified about right, are looked for in all of
    the other image by normalised correlation; the loss is the cross entropy of the right place among all places
    (InfoNCE, van den Oord et al., arXiv:1807.03748). Pairs are looked at whole, at half of their resolution, and in
    parts at the full one, for the same network serves all levels.

    Parameters
    ----------
    widths : sequence of 4 int
        Channels at 1, 1/2, 1/4 and 1/8 of the resolution.
    added : int
        Channels of the features beside the eleven that are given.
    """

    paper: ClassVar[str] = "stackalign; loss after van den Oord et al. 2018"
    gives: ClassVar[Gives] = "description"

    def __init__(self, widths: tuple[int, ...] = (16, 32, 48, 64), added: int = 5) -> None:
        super().__init__()
        a, b, c, d = widths
        first, out = GIVEN + STRENGTHS, GIVEN + added
        self.plain = nn.Conv2d(GIVEN, out, 5, padding=2, padding_mode="replicate", bias=False)
        self.down_half = nn.Sequential(_block(first + GIVEN, b), _block(b, b))
        self.down_quarter = nn.Sequential(_block(b, c), _block(c, c))
        self.bottom = nn.Sequential(_block(c, d), _block(d, c))
        self.up_quarter = _block(c, b)
        self.up_half = _block(b, a)
        self.full = _block(first + a, a)
        self.head = nn.Conv2d(a, out + 1, 3, padding=1)
        nn.init.normal_(self.plain.weight, std=0.01)
        nn.init.zeros_(self.plain.weight[:GIVEN])
        for k in range(GIVEN):
            self.plain.weight.data[k, k, 2, 2] = 1.0
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.log_sharpness = nn.Parameter(torch.tensor(3.0))

    def forward(self, full: torch.Tensor, half: torch.Tensor) -> torch.Tensor:
        """Return features (B, 11 + added, y, x) of what `channels` returns, both with a first axis B."""
        y, x = full.shape[-2:]
        pad = (0, -x % _STRIDE, 0, -y % _STRIDE)
        maps = fn.pad(full, pad, mode="replicate")
        size = (maps.shape[-2] // 2, maps.shape[-1] // 2)
        coarse = fn.pad(half, (0, size[1] - half.shape[-1], 0, size[0] - half.shape[-2]), mode="replicate")
        at_half = self.down_half(torch.cat([_halved(maps), coarse], 1))
        at_quarter = self.down_quarter(_halved(at_half))
        at_quarter = at_quarter + _raised(self.bottom(_halved(at_quarter)))
        at_half = at_half + _raised(self.up_quarter(at_quarter))
        learnt = self.head(self.full(torch.cat([maps, _raised(self.up_half(at_half))], 1)))
        out = (self.plain(maps[:, :GIVEN]) + learnt[:, :-1]) * learnt[:, -1:].clamp(-3, 3).exp()
        return torch.as_tensor(out[..., :y, :x])

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return how badly blocks of ``moving`` are told from all other places of ``reference``."""
        device = batch.reference.device
        draw = np.random.default_rng(int(torch.randint(2**31, (1,))))
        whole = bool(draw.random() < 0.5)
        fixed, moved, maps = [], [], []
        for k in range(len(batch.matrix)):
            still, other = (image[k, 0].float().cpu().numpy() for image in (batch.reference, batch.moving))
            seen = _part(still, other, batch.matrix[k].double().cpu().numpy(), draw, whole)
            fixed.append(channels(seen[0]))
            moved.append(channels(seen[1]))
            maps.append(seen[2])
        there, here = (
            [torch.from_numpy(np.stack([c[n] for c in kind])).to(device) for n in range(3)] for kind in (fixed, moved)
        )
        matrix = torch.tensor(np.stack(maps), dtype=torch.float32, device=device)
        side = int(draw.choice(_SIDES))
        blocks = _drawn(here[2], side, draw)
        score, open_ = _correlated(self(*there[:2]), there[2], self(*here[:2]), here[2], blocks, side)
        true = transform_points(matrix, blocks + (side - 1) / 2) - (side - 1) / 2
        return _told_apart(score * self.log_sharpness.clamp(max=5.0).exp(), open_, true, score.shape[-2:])


def channels(image: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return what the network sees of an image (y, x), not a number where it is not known.

    Returns
    -------
    full : ndarray (11 + 2, y, x)
        Self-similarity and edges as `describe` weighs them, and the logarithms of local slope and curvature.
    half : ndarray (11, y // 2, x // 2)
        Self-similarity and edges at half of the resolution.
    known : ndarray (y, x)
        1 where the image is known, and all around, else 0.
    """
    plane, known = contrast_plane(image)
    known = away_from_holes(known, MARGIN)
    coarse = binned(plane, (2, 2))
    return (
        np.concatenate([_given(plane, known), _strengths(plane)]),
        _given(coarse, np.ones(coarse.shape, bool)),
        known.astype(np.float32),
    )


def _given(plane: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.concatenate([maps * gain for maps, gain in zip(*families(plane, known), strict=True)])


def _strengths(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return logarithms of the local energies of slope and curvature over their means, (2, y, x)."""
    out = []
    slopes = np.gradient(plane)
    bent = sum(np.gradient(slope, axis=k) for k, slope in enumerate(slopes))
    for energy in (slopes[0] ** 2 + slopes[1] ** 2, bent**2):
        local = blurred_once(energy, 1.5)
        out.append(np.log(local / max(float(local.mean()), 1e-12) + np.float32(1e-3)) / 2)
    return np.stack(out).astype(np.float32)


def _part(
    still: NDArray[np.float32], other: NDArray[np.float32], matrix: Array, draw: np.random.Generator, whole: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32], Array]:
    """Return both images, the moving one turned about right, and where pixels of that one lie in the fixed one.

    ``whole``: at half of the resolution; else parts of half the side.
    """
    if whole:
        still, other, matrix = binned(still, (2, 2)), binned(other, (2, 2)), reduced(matrix, (2, 2))
    else:
        sides = [[n // 2 for n in image.shape] for image in (still, other)]
        low = [int(draw.integers(n - side + 1)) for n, side in zip(other.shape, sides[1], strict=True)]
        middle = matrix @ [low[0] + sides[1][0] / 2, low[1] + sides[1][1] / 2, 1.0]
        beside = draw.uniform(-0.15, 0.15, 2) * sides[0]
        begin = np.rint(middle[:2] / middle[2] - np.array(sides[0]) / 2 + beside).astype(int)
        begin = np.clip(begin, 0, np.array(still.shape) - sides[0])
        still = np.ascontiguousarray(still[begin[0] : begin[0] + sides[0][0], begin[1] : begin[1] + sides[0][1]])
        other = np.ascontiguousarray(other[low[0] : low[0] + sides[1][0], low[1] : low[1] + sides[1][1]])
        matrix = _moved(-begin) @ matrix @ _moved(np.array(low))
    h, w = other.shape
    ends = np.array([[0.0, 0], [0, w - 1], [h - 1, w - 1], [h - 1, 0]])
    places = np.c_[ends, np.ones(4)] @ matrix.T
    near = fit_matrix(ends, places[:, :2] / places[:, 2:], "similarity")
    angle, growth = draw.uniform(-_TURN, _TURN), np.exp(draw.uniform(-_GROWTH, _GROWTH))
    beside = growth * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    canvas = (round(1.2 * h), round(1.2 * w))
    onto = np.eye(3)
    onto[:2, :2] = beside @ near[:2, :2]
    onto[:2, 2] = (np.array(canvas) - 1) / 2 - onto[:2, :2] @ ((np.array([h, w]) - 1) / 2)
    seen = warp_frame(other, onto, order=1, fill=np.nan, output_shape=canvas)
    return still, seen, matrix @ np.linalg.inv(onto)


def _moved(shift: NDArray[Any]) -> Array:
    out = np.eye(3)
    out[:2, 2] = shift
    return out


def _drawn(known: torch.Tensor, side: int, draw: np.random.Generator) -> torch.Tensor:
    """Return the first pixels (B, N, 2) of blocks most of which are known, as far as there are such."""
    count = fn.avg_pool2d(known[:, None], side, 1)[:, 0].cpu().numpy()
    out = np.empty((len(count), _BLOCKS, 2), np.float32)
    for k, share in enumerate(count):
        usable = np.argwhere(share >= min(0.95, float(share.max())))
        out[k] = usable[draw.integers(len(usable), size=_BLOCKS)]
    return torch.from_numpy(out).to(known.device)


def _correlated(
    there: torch.Tensor,
    known: torch.Tensor,
    here: torch.Tensor,
    seen: torch.Tensor,
    blocks: torch.Tensor,
    side: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return normalised correlations (B, N, y, x) of blocks with their first pixel at (y, x), and which can be."""
    from scipy.fft import next_fast_len

    h, w = there.shape[-2:]
    size = (next_fast_len(h + side, real=True), next_fast_len(w + side, real=True))
    cut = [(k, slice(y, y + side), slice(x, x + side)) for k, row in enumerate(blocks.long().tolist()) for y, x in row]
    mask = torch.stack([seen[place] for place in cut]).unflatten(0, blocks.shape[:2])  # (B, N, side, side)
    maps = here.unbind()
    block = torch.stack([maps[k][:, y, x] for k, y, x in cut]).unflatten(0, blocks.shape[:2]) * mask[:, :, None]
    weighted = there * known[:, None]
    spectrum = torch.fft.rfft2(weighted, size)[:, None]
    found = torch.fft.irfft2((spectrum * torch.fft.rfft2(block, size).conj()).sum(2), size)[..., :h, :w]
    of_mask = torch.fft.rfft2(mask, size).conj()
    both = torch.stack([weighted.square().sum(1), known], 1)
    under = torch.fft.irfft2(torch.fft.rfft2(both, size)[:, None] * of_mask[:, :, None], size)[..., :h, :w]
    open_ = under[:, :, 1] >= _SEEN * mask.sum((2, 3))[..., None, None]
    energy = block.square().sum((2, 3, 4))[..., None, None] * under[:, :, 0]
    return found / energy.clamp_min(1e-6).sqrt(), open_


def _told_apart(
    score: torch.Tensor, open_: torch.Tensor, true: torch.Tensor, size: torch.Size
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the mean cross entropy of the right places, and the share of blocks found within two pixels."""
    chance = score.masked_fill(~open_, -1e4).flatten(2).log_softmax(-1)
    ends = true.new_tensor([size[0] - 1.0, size[1] - 1.0])
    low = torch.minimum(true.floor().clamp_min(0), ends - 1)
    part = true - low
    inside = ((part >= 0) & (part <= 1)).all(-1)
    first = (low[..., 0] * size[1] + low[..., 1]).long()
    inside &= open_.flatten(2).gather(-1, first[..., None])[..., 0]
    right = torch.zeros_like(part[..., 0])
    for dy in (0, 1):
        for dx in (0, 1):
            share = (part[..., 0] if dy else 1 - part[..., 0]) * (part[..., 1] if dx else 1 - part[..., 1])
            right = right + share * chance.gather(-1, (first + dy * size[1] + dx)[..., None])[..., 0].clamp_min(-30)
    best = chance.argmax(-1)
    apart = torch.stack([best // size[1], best % size[1]], -1) - true
    near = (torch.linalg.vector_norm(apart, dim=-1) < 2) & inside
    count = inside.sum().clamp_min(1)
    return -(right * inside).sum() / count, {"hit": float(near.sum() / count)}


def _block(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1, padding_mode="replicate"), nn.ReLU())


def _halved(x: torch.Tensor) -> torch.Tensor:
    return fn.avg_pool2d(x, 2)


def _raised(x: torch.Tensor) -> torch.Tensor:
    return fn.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
