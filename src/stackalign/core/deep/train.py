"""Train a network on pairs: one optimiser, one schedule, seeds for everything, a state that can be put away."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from stackalign.core.deep.pairs import SyntheticPairs, turned
from stackalign.core.deep.requirement import choose_device, require_torch
from stackalign.core.deep.scenes import Scenes
from stackalign.core.parameters import Parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.deep.pairs import ImagePair

NetworkName = Literal["features", "dhn", "mhn", "clkn", "dlkfm", "embedding-corners", "embedding-matrix", "description"]
_GRADIENT = 1.0  # largest norm of a step's gradient


class Training(Parameters):
    """Everything that a training depends on: one YAML document."""

    network: NetworkName = Field("features", title="Network", description="What is trained")
    options: dict[str, Any] = Field(
        default_factory=dict, title="Options", description="Arguments of the network, such as its widths"
    )
    images: str = Field(
        title="Images",
        description="Folder of pictures to make pairs of; scripts/fetch_training_images.py fills one",
        min_length=1,
    )
    pairs: SyntheticPairs = Field(default_factory=SyntheticPairs, title="Pairs", description="How pairs are made")
    distinct_pairs: int | None = Field(
        None,
        ge=1,
        title="Distinct pairs",
        description="Only so many pairs are made, kept in memory and seen again and again, from the second time on"
        " turned and mirrored at random; none: every pair is new",
    )
    redraw: bool = Field(
        False,
        title="Draw anew",
        description="Of distinct pairs only what they show is kept; homographies are drawn anew whenever one is seen",
    )
    steps: int = Field(20000, ge=1, title="Steps", description="Steps of the optimiser")
    batch_size: int = Field(8, ge=1, le=1024, title="Batch", description="Pairs in a step")
    learning_rate: float = Field(2e-3, gt=0, le=1, title="Learning rate", description="Largest step of AdamW")
    warm_up: int = Field(100, ge=0, title="Warm-up", description="Steps until the rate is reached; it then falls to 0")
    weight_decay: float = Field(1e-4, ge=0, le=1, title="Weight decay", description="As AdamW's")
    report_every: int = Field(50, ge=1, title="Report every", description="Steps between points of the curve")
    checkpoint_every: int = Field(250, ge=1, title="Checkpoint every", description="Steps between checkpoints")
    validation_pairs: int = Field(
        32, ge=0, title="Validation pairs", description="Pairs of held-out images that are looked at with a checkpoint"
    )
    seed: int = Field(0, ge=0, title="Seed", description="Of the first weights and of what is drawn in training")
    device: str = Field("auto", title="Device", description="'auto', 'cpu', 'cuda' or 'cuda:1'", min_length=1)
    mixed_precision: bool = Field(
        True, title="Mixed precision", description="Compute in 16 bits where it is safe; on a GPU only"
    )


class Trainer:
    """A network in training.

    Every step draws its pairs and random numbers from the seed and its own number, so a training that was stopped and
    goes on takes the same steps as one that was not.

    Parameters
    ----------
    recipe : Training
    images : sequence of ndarray (y, x, 3), uint8

    Raises
    ------
    ImportError
        If PyTorch is missing.
    ValueError
        If there are no images, or the network does not take its options.
    """

    def __init__(self, recipe: Training, images: Sequence[NDArray[np.uint8]]) -> None:
        require_torch("training")
        import torch

        from stackalign.core.deep.networks import build

        if not len(images):
            raise ValueError("there are no images to train on: run scripts/fetch_training_images.py")
        self.recipe, self.images, self.step = recipe, images, 0
        self.scenes: Scenes | None = None
        if recipe.redraw:
            if recipe.distinct_pairs is None:
                raise ValueError(
                    "only distinct pairs can be drawn anew: say how many (distinct_pairs), or redraw: false"
                )
            self.scenes = Scenes(recipe.pairs, images, recipe.distinct_pairs)
        self._kept: dict[int, ImagePair] = {}
        self._order: tuple[int, NDArray[np.int64]] = (0, np.empty(0, np.int64))
        self.device = choose_device(recipe.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.network = build(recipe.network, recipe.options)
        self.network.to(device=self.device, memory_format=torch.channels_last)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self._mixed = recipe.mixed_precision and self.device.type == "cuda"

    def advance(self) -> dict[str, float]:
        """Take a step; returns the loss and what the network reports.

        Raises
        ------
        FloatingPointError
            If the loss is no number any more.
        """
        import torch

        indices = range(self.step * self.recipe.batch_size, (self.step + 1) * self.recipe.batch_size)
        if self.scenes is None:
            batch = self.batch([self.pair(k) for k in indices])
        else:
            rng = np.random.default_rng([self.recipe.seed, self.step])
            batch = self.scenes.batch([self._number(k) for k in indices], rng, self.device)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate(self.step)
        self.network.train()
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.recipe.seed * 1_000_003 + self.step)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._mixed):
                loss, said = self.network.loss(batch)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss of step {self.step} is no number: lower the learning rate")
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), _GRADIENT)
        self.optimiser.step()
        self.step += 1
        return {"loss": float(loss.detach()), **said}

    def rate(self, step: int) -> float:
        """Return the learning rate of a step: a ramp, then half a cosine down to a hundredth."""
        recipe = self.recipe
        if step < recipe.warm_up:
            return recipe.learning_rate * (step + 1) / recipe.warm_up
        share = (step - recipe.warm_up) / max(recipe.steps - recipe.warm_up, 1)
        return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))

    def pair(self, index: int) -> ImagePair:
        """Return a pair of the training."""
        if self.recipe.distinct_pairs is None:
            return self.recipe.pairs.pair(self.images, index)
        number = self._number(index)
        if number not in self._kept:
            self._kept[number] = self.recipe.pairs.pair(self.images, number)
        if index < self.recipe.distinct_pairs:
            return self._kept[number]
        return turned(self._kept[number], int(np.random.default_rng([self.recipe.seed, index]).integers(8)))

    def _number(self, index: int) -> int:
        """Return which of the distinct pairs comes at an index: all of them in each epoch, in another order."""
        epoch, place = divmod(index, self.recipe.distinct_pairs or 1)
        if epoch == 0:
            return place
        if self._order[0] != epoch:
            rng = np.random.default_rng([self.recipe.seed, epoch])
            self._order = epoch, rng.permutation(self.recipe.distinct_pairs or 1)
        return int(self._order[1][place])

    def batch(self, pairs: Sequence[ImagePair]) -> Any:
        """Return pairs as a batch on the device."""
        from stackalign.core.deep.networks.base import Batch

        return Batch.of(pairs, self.device)

    def judge(self, pairs: Sequence[ImagePair]) -> dict[str, float]:
        """Return means of the loss and the reports over held-out pairs; random numbers are the same on every call."""
        import torch

        if not pairs:
            return {}
        self.network.eval()
        rows = []
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(self.recipe.seed)
            for start in range(0, len(pairs), self.recipe.batch_size):
                loss, said = self.network.loss(self.batch(pairs[start : start + self.recipe.batch_size]))
                rows.append({"loss": float(loss), **said})
        return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return network and optimiser as arrays: with the number of the step, all that going on needs."""
        out = {f"network.{key}": value.detach().cpu().numpy() for key, value in self.network.state_dict().items()}
        for number, state in self.optimiser.state_dict()["state"].items():
            for key, value in state.items():
                out[f"optimiser.{number}.{key}"] = value.detach().cpu().numpy()
        return out

    def restore(self, arrays: dict[str, NDArray[Any]], step: int) -> None:
        """Go on from what `arrays` returned after ``step`` steps; WeightsError if it is of another network."""
        import torch

        from stackalign.core.deep.weights import WeightsError, put_into

        learnt = {k.removeprefix("network."): v for k, v in arrays.items() if k.startswith("network.")}
        put_into(self.network, learnt, "the checkpoint's weights")
        states: dict[int, dict[str, torch.Tensor]] = {}
        try:
            for key, value in arrays.items():
                if key.startswith("optimiser."):
                    _, number, what = key.split(".")
                    states.setdefault(int(number), {})[what] = torch.from_numpy(np.array(value))
            whole = self.optimiser.state_dict()
            self.optimiser.load_state_dict({**whole, "state": states})
        except (ValueError, KeyError) as error:
            raise WeightsError(
                f"the checkpoint's optimiser is damaged ({error}): start anew in another folder"
            ) from None
        self.step = step
