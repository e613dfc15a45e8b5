"""Batched, differentiable homographies in pixels (y, x): from four corners, of points, and warps by `grid_sample`.

A matrix acts on columns (y, x, 1). An integer coordinate is the centre of a pixel, as everywhere else.
"""

from __future__ import annotations

import torch


def template_corners(height: int, width: int, *, device: torch.device | None = None) -> torch.Tensor:
    """Return the centres of the corner pixels of an image, clockwise from the first one: (4, 2), float32."""
    h, w = height - 1.0, width - 1.0
    return torch.tensor([[0.0, 0.0], [0.0, w], [h, w], [h, 0.0]], device=device)


def homography_from_corners(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the homographies that carry four points onto four others.

    The direct linear transform with the last entry set to 1: eight equations, solved exactly in coordinates whose
    origin and unit are those of ``source`` (Hartley and Zisserman, 2nd edition, section 4.1 and algorithm 4.2).

    Parameters
    ----------
    source : Tensor (4, 2) or (B, 4, 2)
        Pixels (y, x).
    target : Tensor (B, 4, 2)
        Where they go.

    Returns
    -------
    Tensor (B, 3, 3)
        In the dtype of ``target``; differentiable in both.

    Raises
    ------
    ValueError
        If the shapes are others.
    """
    if target.ndim != 3 or target.shape[1:] != (4, 2) or source.shape[-2:] != (4, 2):
        raise ValueError(
            f"four corners are (B, 4, 2), got source {tuple(source.shape)} and target {tuple(target.shape)}"
        )
    here = source.to(target).expand_as(target)
    to_here, to_there = _normaliser(here), _normaliser(target)
    a, b = transform_points(to_here, here), transform_points(to_there, target)
    one, zero = torch.ones_like(a[..., :1]), torch.zeros_like(a)
    homogeneous = torch.cat([a, one], -1)
    blank = torch.cat([zero, torch.zeros_like(one)], -1)
    rows_y = torch.cat([homogeneous, blank, -b[..., :1] * a], -1)
    rows_x = torch.cat([blank, homogeneous, -b[..., 1:] * a], -1)
    system = torch.cat([rows_y, rows_x], 1)
    answer = torch.cat([b[..., 0], b[..., 1]], 1)
    entries = torch.linalg.solve(system, answer)
    matrix = torch.cat([entries, torch.ones_like(entries[:, :1])], 1).reshape(-1, 3, 3)
    whole = torch.linalg.solve(to_there, matrix @ to_here)
    return whole / whole[:, 2:, 2:]


def corners_from_homography(matrix: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return where the corners of an image go: (B, 4, 2)."""
    return transform_points(matrix, template_corners(height, width, device=matrix.device).to(matrix)[None])


def transform_points(matrix: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Map points (B, N, 2) or (1, N, 2), pixels (y, x), by matrices (B, 3, 3)."""
    linear = points @ matrix[:, :, :2].transpose(1, 2) + matrix[:, :, 2][:, None]
    depth = linear[..., 2:]
    # a point on the horizon goes far away instead of to infinity: its gradient stays finite
    return linear[..., :2] / torch.where(depth.abs() < 1e-6, torch.full_like(depth, 1e-6), depth)


def pixel_grid(height: int, width: int, *, device: torch.device | None = None) -> torch.Tensor:
    """Return the coordinates of all pixels, row by row: (height * width, 2)."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack([y, x], -1).reshape(-1, 2).float()


def sample(image: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Interpolate images linearly at points.

    Parameters
    ----------
    image : Tensor (B, C, h, w)
    points : Tensor (B, ..., 2)
        Pixels (y, x).

    Returns
    -------
    Tensor (B, C, ...)
        Zero outside the image.
    """
    h, w = image.shape[-2:]
    scale = points.new_tensor([2.0 / max(w - 1, 1), 2.0 / max(h - 1, 1)])
    flat = points.reshape(len(points), -1, 1, 2).flip(-1) * scale - 1.0
    found = torch.nn.functional.grid_sample(image, flat, align_corners=True, padding_mode="zeros")
    return found.reshape(*image.shape[:2], *points.shape[1:-1])


def warp(image: torch.Tensor, matrix: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Show images as another frame sees them.

    Parameters
    ----------
    image : Tensor (B, C, h, w)
    matrix : Tensor (B, 3, 3)
        Pixels of the result -> pixels of ``image``.
    size : (int, int)
        Height and width of the result.

    Returns
    -------
    warped : Tensor (B, C, height, width)
        Linear interpolation.
    inside : Tensor (B, 1, height, width)
        1 where the image covers the result, else 0.
    """
    h, w = image.shape[-2:]
    grid = pixel_grid(*size, device=image.device).to(matrix)
    points = transform_points(matrix, grid[None])
    ends = points.new_tensor([h - 1.0, w - 1.0])
    inside = ((points >= -1e-4) & (points <= ends + 1e-4)).all(-1)
    ahead = (torch.cat([grid, torch.ones_like(grid[:, :1])], 1) @ matrix[:, 2].T).T > 0
    warped = sample(image, points.reshape(len(points), *size, 2))
    return warped, (inside & ahead).to(image.dtype).reshape(-1, 1, *size)


def rescaled(matrix: torch.Tensor, source: float, target: float) -> torch.Tensor:
    """Return matrices for images ``source`` (``target``) times coarser, whose pixels are means of blocks.

    A pixel k of an image that is n times coarser has its centre at n k + (n - 1) / 2.
    """
    there = matrix.new_tensor([[1 / target, 0, (1 / target - 1) / 2], [0, 1 / target, (1 / target - 1) / 2], [0, 0, 1]])
    back = matrix.new_tensor([[source, 0, (source - 1) / 2], [0, source, (source - 1) / 2], [0, 0, 1]])
    return there @ matrix @ back


def _normaliser(points: torch.Tensor) -> torch.Tensor:
    """Return matrices (B, 3, 3) that bring points to zero mean and unit spread."""
    mean = points.mean(1)
    spread = (points - mean[:, None]).square().mean((1, 2)).clamp_min(1e-12).sqrt()
    out = torch.zeros(len(points), 3, 3, dtype=points.dtype, device=points.device)
    out[:, 0, 0] = out[:, 1, 1] = 1 / spread
    out[:, :2, 2] = -mean / spread[:, None]
    out[:, 2, 2] = 1
    return out
