"""Scenes seen in two modalities, and batches of pairs whose homographies are drawn anew each time a scene is seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.deep.pairs import corners_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from stackalign.core.deep.networks.base import Batch
    from stackalign.core.deep.pairs import SyntheticPairs


@dataclass(slots=True, eq=False)
class Scenes:
    """A pool of scenes, each made when it is first asked for.

    Parameters
    ----------
    recipe : SyntheticPairs
        How they are made. ``wander`` must be 0: a scene ends where its image does.
    images : sequence of ndarray (y, x, 3), uint8
    count : int
        Of the pool.
    pool : ndarray (count, 2, y, x) float32, optional
        Scenes that were made before, pixel on pixel: the image, and what the template is cut from.
    """

    recipe: SyntheticPairs
    images: Sequence[NDArray[np.uint8]]
    count: int
    pool: NDArray[np.float32] | None = None
    _made: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        if self.recipe.wander:
            raise ValueError("a pair whose homography is drawn anew cannot wander out of its scene: set wander to 0")
        side, given = self.recipe.size, self.pool is not None
        if self.pool is None:
            self.pool = np.zeros((self.count, 2, side, side), np.float32)
        if self.pool.shape != (self.count, 2, side, side):
            raise ValueError(
                f"{self.count} scenes of {side} px are ({self.count}, 2, {side}, {side}), got {self.pool.shape}"
            )
        self._made = np.full(self.count, given)

    def batch(self, numbers: Sequence[int], rng: np.random.Generator, device: torch.device | str = "cpu") -> Batch:
        """Return pairs of these scenes, under homographies and in one of eight symmetries that ``rng`` draws."""
        import torch

        from stackalign.core.deep.homography import homography_from_corners, template_corners, warp
        from stackalign.core.deep.networks.base import Batch

        assert self.pool is not None
        for number in numbers:
            if not self._made[number]:
                self.pool[number] = self.recipe.scene(self.images, number)
                self._made[number] = True
        shown, turn = self.pool[list(numbers)], int(rng.integers(8))
        shown = np.rot90(shown if turn < 4 else np.swapaxes(shown, 2, 3), turn % 4, (2, 3))
        side, margin = self.recipe.template, (self.recipe.size - self.recipe.template) / 2
        moves = rng.uniform(-self.recipe.reach, self.recipe.reach, (len(numbers), 4, 2))
        corners = torch.tensor(corners_of((side, side)) + margin + moves, dtype=torch.float32, device=device)
        both = torch.from_numpy(np.ascontiguousarray(shown)).to(device)
        matrix = homography_from_corners(template_corners(side, side, device=corners.device), corners)
        moving, _ = warp(both[:, 1:], matrix, (side, side))
        if self.recipe.inverted:
            noise = rng.standard_normal(moving.shape, np.float32)
            moving = moving + self.recipe.noise * torch.from_numpy(noise).to(device)
        return Batch(both[:, :1], moving, corners, matrix)
