"""``stackalign train``: train a network by a recipe, into a folder; called again, it goes on where it was stopped."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from stackalign.cli.options import Debug, Quiet, Settings, Threads, settings_of


class TrainCommand(TyperCommand):
    """Adds the keys of the recipe to the help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, then the parameters."""
        from stackalign.cli.methods import parameter_table
        from stackalign.core.deep.pairs import SyntheticPairs
        from stackalign.core.deep.train import Training

        super().format_help(ctx, formatter)
        formatter.write(f"\nKeys of CONFIG, also for --set key=value:\n{parameter_table(Training)}\n")
        formatter.write(f"\nKeys of pairs:\n{parameter_table(SyntheticPairs)}\n")


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The recipe, YAML; its keys are below.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where weights and curves go.")],
    settings: Settings = None,
    threads: Threads = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a network on pairs made of single images.

    FOLDER then holds weights.safetensors, card.md, curves.png and the last checkpoint. A training that was stopped
    goes on where it ended if it is called again in the same way.
    """
    from stackalign.cli.records import checked
    from stackalign.cli.terminal import finish
    from stackalign.core.deep.requirement import require_torch
    from stackalign.core.deep.train import Training
    from stackalign.core.threads import set_threads
    from stackalign.core.threads import threads as thread_count
    from stackalign.training import load_training, train_work

    require_torch("training")
    import torch

    recipe = load_training(config)
    if settings:
        recipe = checked(Training, {**recipe.model_dump(), **settings_of(settings)})
    if threads is not None:
        set_threads(threads)
    torch.set_num_threads(thread_count())
    command = shlex.join(["stackalign", *sys.argv[1:]])
    trained = finish(train_work(recipe, output, command=command), quiet=quiet)
    if not quiet:
        last = trained.history[-1] if trained.history else {}
        typer.echo(f"loss {last.get('loss', float('nan')):.4g} -> {trained.weights}, {trained.card}, {trained.curves}")
