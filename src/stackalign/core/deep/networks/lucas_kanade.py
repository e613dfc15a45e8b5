"""Inverse compositional Lucas-Kanade of homographies on maps of features, in batches and differentiable."""

from __future__ import annotations

import torch
from torch.nn import functional as fn

from stackalign.core.deep.homography import pixel_grid, warp

_SHIFTED, _AFFINE = 14, 20  # pixels a side: smaller maps are only shifted, moved by an affinity


def lucas_kanade(
    reference: torch.Tensor,
    moving: torch.Tensor,
    matrix: torch.Tensor,
    *,
    iterations: int = 5,
    damping: float = 1e-2,
    limit: float = 0.15,
) -> torch.Tensor:
    """Return homographies that bring features together better.

    S. Baker and I. Matthews, Int. J. Computer Vision 56, 2004, section 3.2: the step is worked out on the moving image,
    whose derivatives do not change, and undone on the reference's side. A small map does not fix eight numbers: one of
    less than 14 pixels a side is only shifted, one of less than 20 moved by an affinity.

    Parameters
    ----------
    reference : Tensor (B, C, H, W)
    moving : Tensor (B, C, h, w)
    matrix : Tensor (B, 3, 3)
        Where to begin, pixels of ``moving`` -> pixels of ``reference``.
    iterations : int
    damping : float
        Share of each parameter's own curvature that is added to it (Levenberg).
    limit : float
        Largest step, as a share of half the image: a bounded step cannot run away.
    """
    h, w = moving.shape[-2:]
    slopes = _slopes(moving)
    unit = max(h, w) / 2
    middle = moving.new_tensor([(h - 1) / 2, (w - 1) / 2])
    u, v = ((pixel_grid(h, w, device=moving.device) - middle) / unit).T
    one, zero = torch.ones_like(u), torch.zeros_like(u)
    # eight first-order motions of a homography in coordinates from -1 to 1, along y and along x: (8, P)
    along_y = torch.stack([one, u, v, zero, zero, zero, u * u, u * v])
    along_x = torch.stack([zero, zero, zero, one, u, v, u * v, v * v])
    jacobian = slopes[0].flatten(2)[:, :, None] * along_y + slopes[1].flatten(2)[:, :, None] * along_x  # (B, C, 8, P)
    side = min(h, w)
    free = [0, 3] if side < _SHIFTED else list(range(6 if side < _AFFINE else 8))
    jacobian = jacobian[:, :, free]
    to_pixels = moving.new_tensor([[unit, 0, middle[0]], [0, unit, middle[1]], [0, 0, 1]])
    from_pixels = torch.linalg.inv(to_pixels)
    for _ in range(iterations):
        seen, inside = warp(reference, matrix, (h, w))
        weight = inside.flatten(2)
        left = ((_levelled(seen.flatten(2), moving.flatten(2), weight) - moving.flatten(2)) * weight)[:, :, None]
        flow = _without_level(jacobian, moving.flatten(2)[:, :, None], weight[:, :, None])
        normal = torch.einsum("bcip,bcjp->bij", flow * weight[:, :, None], flow)
        right = (flow * left).sum((1, 3))
        scale = torch.diagonal(normal, dim1=1, dim2=2)
        ridge = torch.diag_embed(damping * scale + 1e-4 * scale.mean(1, keepdim=True) + 1e-8)
        step = torch.linalg.solve(normal + ridge, right)
        step = step.new_zeros(len(step), 8).index_copy(1, torch.tensor(free, device=step.device), step)
        size = step.abs().amax(1, keepdim=True)
        step = step * (limit / size.clamp_min(limit))
        matrix = matrix @ to_pixels @ torch.linalg.inv(_change(step)) @ from_pixels
        matrix = matrix / matrix[:, 2:, 2:]
    return matrix


def _levelled(seen: torch.Tensor, moving: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return ``seen`` (B, C, P) with the mean and spread of ``moving`` over what both show: contents differ outside."""
    total = weight.sum(-1, keepdim=True).clamp_min(1.0)
    means = [(x * weight).sum(-1, keepdim=True) / total for x in (seen, moving)]
    spreads = [
        (((x - mean).square() * weight).sum(-1, keepdim=True) / total + 1e-6).sqrt()
        for x, mean in zip((seen, moving), means, strict=True)
    ]
    return means[1] + (seen - means[0]) * (spreads[1] / spreads[0]).clamp(0.3, 3.0)


def _without_level(jacobian: torch.Tensor, moving: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return derivatives freed from what levelling takes away: a constant, and the map itself."""
    total = weight.sum(-1, keepdim=True).clamp_min(1.0)
    apart = moving - (moving * weight).sum(-1, keepdim=True) / total
    flow = jacobian - (jacobian * weight).sum(-1, keepdim=True) / total
    share = (flow * apart * weight).sum(-1, keepdim=True) / ((apart.square() * weight).sum(-1, keepdim=True) + 1e-6)
    return flow - share * apart


def _slopes(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return central differences along y and x, in units of half the longer side; one-sided at the border."""
    padded = fn.pad(maps, (1, 1, 1, 1), mode="replicate")
    unit = max(maps.shape[-2:]) / 2
    along_y = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) * (unit / 2)
    along_x = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) * (unit / 2)
    # normalised coordinates: displacements p are in units of half the side, so slopes are per unit
    return along_y, along_x


def _change(step: torch.Tensor) -> torch.Tensor:
    """Return the homography of small motions (B, 8), in coordinates from -1 to 1."""
    p = step.unbind(1)
    one = torch.ones_like(p[0])
    rows = [[one + p[1], p[2], p[0]], [p[4], one + p[5], p[3]], [-p[6], -p[7], one]]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)
