"""Train in a folder: recipe, checkpoints, curves, weights and their card. A training that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from pydantic import ValidationError

from stackalign.core.deep.pairs import FixedPairs
from stackalign.core.deep.requirement import require_torch
from stackalign.core.deep.train import Trainer, Training
from stackalign.core.deep.weights import WeightsError, arrays_of, digest, packed, unpacked
from stackalign.core.work import Progress
from stackalign.io.atomic import replacing
from stackalign.io.pictures import PictureFolder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from stackalign.core.work import Work

HELD_OUT = "held_out"
_VALIDATION = 1_000_003  # seed of the pairs that are only looked at


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What a training left behind.

    Attributes
    ----------
    weights, card, curves : Path
        ``weights.safetensors``, ``card.md`` and ``curves.png`` of the folder.
    history : tuple of dict
        A row a report: step, seconds, loss and what the network says; validation rows have ``validation`` set.
    """

    weights: Path
    card: Path
    curves: Path
    history: tuple[dict[str, Any], ...]


def load_training(path: str | PathLike[str]) -> Training:
    """Read a training's recipe.

    Raises
    ------
    ValueError
        Names the file, the key and what is wrong.
    """
    place = Path(path).expanduser()
    try:
        data = yaml.safe_load(place.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{place} cannot be read as YAML: {error}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{place} holds no recipe of a training: it needs keys such as network, images and steps")
    try:
        return Training.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        given = "" if first["type"] == "missing" else f" = {first['input']!r}"
        raise ValueError(f"{place}: {key}{given}: {first['msg']}") from None


def train_work(
    recipe: Training, folder: str | PathLike[str], *, command: str = "", base: str | PathLike[str] = "."
) -> Work[Trained]:
    """Train, step by step; what stands in the folder is gone on with.

    Parameters
    ----------
    recipe : Training
    folder : path
        Made if it is not there.
    command : str
        What started the training, for the card.
    base : path
        What a relative path of the images starts from.

    Raises
    ------
    ValueError
        If the folder holds a training of another recipe, or there are no images.
    ImportError
        If PyTorch is missing.
    """
    require_torch("training")
    place = Path(folder).expanduser()
    place.mkdir(parents=True, exist_ok=True)
    pictures = Path(base) / Path(recipe.images).expanduser()
    images = PictureFolder(pictures / "train" if (pictures / "train").is_dir() else pictures).loaded()
    held_out = PictureFolder(pictures / HELD_OUT).loaded() if (pictures / HELD_OUT).is_dir() else images
    looked_at = recipe.pairs.model_copy(update={"seed": _VALIDATION})
    validation = [FixedPairs(looked_at, held_out, recipe.validation_pairs)[k] for k in range(recipe.validation_pairs)]
    trainer = Trainer(recipe, images)
    history, spent = _resumed(place, recipe, trainer)
    begun = time.monotonic() - spent
    since: list[dict[str, float]] = []
    try:
        while trainer.step < recipe.steps:
            since.append(trainer.advance())
            step = trainer.step
            if step % recipe.report_every == 0 or step == recipe.steps:
                means = {key: float(np.mean([row[key] for row in since])) for key in since[0]}
                history.append({"step": step, "seconds": round(time.monotonic() - begun, 1), **means})
                since = []
            if step % recipe.checkpoint_every == 0 or step == recipe.steps:
                seen = trainer.judge(validation)
                if seen:
                    history.append({"step": step, "validation": True, **seen})
                _put_away(place, recipe, trainer, history, time.monotonic() - begun)
            last = history[-1]["loss"] if history else since[-1]["loss"]
            yield Progress(step, recipe.steps, f"Training {recipe.network}, loss {last:.3g}")
    finally:
        if 0 < trainer.step < recipe.steps and since:
            _put_away(place, recipe, trainer, history, time.monotonic() - begun)
    return _finished(place, recipe, trainer, history, command, pictures)


def _put_away(
    folder: Path, recipe: Training, trainer: Trainer, history: Sequence[dict[str, Any]], seconds: float
) -> None:
    """Write a checkpoint: first the arrays under a new name, then the state that names them, then drop the old."""
    data = packed(trainer.arrays(), {"network": recipe.network, "options": recipe.options, "step": trainer.step})
    target = folder / f"checkpoint-{trainer.step:07d}.safetensors"
    with replacing(target) as part:
        part.write_bytes(data)
    state = {
        "recipe": recipe.model_dump(mode="json"),
        "step": trainer.step,
        "seconds": round(seconds, 1),
        "checkpoint": target.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "history": list(history),
    }
    with replacing(folder / "state.json") as part:
        part.write_text(json.dumps(state, indent=1), encoding="utf-8")
    for old in folder.glob("checkpoint-*.safetensors"):
        if old != target:
            old.unlink(missing_ok=True)
    _draw(folder, history)


def _resumed(folder: Path, recipe: Training, trainer: Trainer) -> tuple[list[dict[str, Any]], float]:
    """Take up what a stopped training left; returns its curve and the seconds that it took."""
    record = folder / "state.json"
    if not record.exists():
        return [], 0.0
    try:
        state = json.loads(record.read_text(encoding="utf-8"))
        said, step, file = state["recipe"], int(state["step"]), folder / Path(state["checkpoint"]).name
        history, seconds, expected = list(state["history"]), float(state["seconds"]), state["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{record} is damaged ({error}): start anew in another folder") from None
    wanted = recipe.model_dump(mode="json")
    for key in ("device", "steps"):  # a training may be moved, and made longer
        said = {**said, key: wanted[key]}
    changed = [key for key in wanted if said.get(key) != wanted[key]]
    if changed:
        other = changed[0]
        raise ValueError(
            f"{folder} was begun with {other} = {said.get(other)!r}, not {wanted[other]!r}: choose another folder"
        )
    arrays, _ = unpacked(file)
    if hashlib.sha256(file.read_bytes()).hexdigest() != expected:
        raise WeightsError(f"{file} is not the checkpoint that {record.name} names: start anew in another folder")
    trainer.restore(arrays, step)
    return history, seconds


def _finished(
    folder: Path,
    recipe: Training,
    trainer: Trainer,
    history: Sequence[dict[str, Any]],
    command: str,
    pictures: Path,
) -> Trained:
    from stackalign import __version__
    from stackalign.core.deep.networks.base import count_parameters

    arrays = arrays_of(trainer.network)
    curve = [row for row in history if not row.get("validation")]
    seen = [row for row in history if row.get("validation")]
    card = {
        "network": recipe.network,
        "options": recipe.options,
        "paper": type(trainer.network).paper,
        "parameters": count_parameters(trainer.network),
        "recipe": recipe.model_dump(mode="json"),
        "images": _listed(pictures),
        "seed": recipe.seed,
        "steps": trainer.step,
        "seconds": curve[-1]["seconds"] if curve else 0.0,
        "scores": {k: round(v, 5) for k, v in (seen or curve or [{}])[-1].items() if isinstance(v, float)},
        "sha256": digest(arrays),
        "command": command,
        "stackalign": __version__,
    }
    weights = folder / "weights.safetensors"
    with replacing(weights) as part:
        part.write_bytes(packed(arrays, card))
    with replacing(folder / "card.md") as part:
        part.write_text(card_text(card), encoding="utf-8")
    return Trained(weights, folder / "card.md", _draw(folder, history), tuple(history))


def card_text(card: dict[str, Any]) -> str:
    """Return a model card as Markdown."""
    pairs = card["recipe"]["pairs"]
    scores = "\n".join(f"| {key} | {value:.4g} |" for key, value in card["scores"].items())
    files = "\n".join(f"- {name} ({count} images)" for name, count in card["images"]["packages"].items())
    return f"""# Weights of the network `{card["network"]}`

{card["parameters"]} parameters; {card["paper"]}. Made by stackalign {card["stackalign"]}:

    {card["command"] or "stackalign train CONFIG -o FOLDER"}

| what | value |
|---|---|
| steps | {card["steps"]}, batch {card["recipe"]["batch_size"]} |
| time (s) | {card["seconds"]:.0f} |
| seed | {card["seed"]} |
| pairs | {pairs["size"]} px image, {pairs["template"]} px template, corners within {pairs["reach"]:g} px |
| SHA-256 of the arrays | {card["sha256"]} |

On synthetic pairs of held-out images:

| score | value |
|---|---|
{scores}

Trained on pairs synthesised from {card["images"]["count"]} single images (SHA-256 of their list:
{card["images"]["sha256"]}):

{files or "- " + card["recipe"]["images"]}

The recipe:

```yaml
{yaml.safe_dump(card["recipe"], sort_keys=False).strip()}
```
"""


def _listed(pictures: Path) -> dict[str, Any]:
    """Say which images were trained on, as images.csv of their folder lists them."""
    from stackalign.io.tables import read_table

    table = pictures / "images.csv"
    if not table.exists():
        return {"count": len(PictureFolder(pictures)), "packages": {}, "sha256": ""}
    rows = read_table(table)
    used = rows[rows["file"].str.startswith("train/")]
    names = used["package"] + " " + used["version"].astype(str) + ", " + used["licence"]
    counts = {str(name): int(count) for name, count in names.value_counts().sort_index().items()}
    return {"count": len(used), "packages": counts, "sha256": hashlib.sha256(table.read_bytes()).hexdigest()}


def _draw(folder: Path, history: Sequence[dict[str, Any]]) -> Path:
    from stackalign.plots import save_figure
    from stackalign.plots_training import curves_figure

    target = folder / "curves.png"
    if history:
        save_figure(curves_figure(history), target)
    return target
