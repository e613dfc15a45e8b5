"""``stackalign evaluate --pairs``: methods on pairs of images whose truth is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from stackalign.cli.options import bad

if TYPE_CHECKING:
    from pathlib import Path

MADE = 100  # pairs that are made of pictures if nobody says how many
FILES = ("pairs.csv", "summary.csv", "errors.png", "reliability.png")


def evaluate_pairs(
    output: Path,
    methods: str,
    folder: Path,
    made: dict[str, Any],
    given: dict[str, Any],
    count: int | None,
    split: str,
    *,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Try methods on the pairs of ``folder``; tables and figures go to ``output``.

    ``methods`` are names and files of weights, with commas between them: a network is tried alone.
    """
    from stackalign.cli.files import refuse_existing
    from stackalign.cli.records import checked
    from stackalign.cli.terminal import finish
    from stackalign.core.deep.pairs import SyntheticPairs
    from stackalign.io.pair_sets import open_pairs
    from stackalign.io.tables import write_table
    from stackalign.pair_evaluation import reliability, summary, try_pairs_work
    from stackalign.plots import save_figure
    from stackalign.plots_pairs import errors_figure, reliability_figure

    if split not in ("train", "val"):
        raise bad("--split", f"{split!r} is neither train nor val")
    tried: dict[str, Any] = {}
    for name in (part.strip() for part in methods.split(",")):
        label, record, own = _chosen(name)
        same = {**own, **{k: v for k, v in given.items() if k in record.model_fields}}
        tried[label if label not in tried else f"{label} ({name})"] = checked(record, same, "--with")
    strange = [key for key in given if not any(key in type(method).model_fields for method in tried.values())]
    if strange:
        raise bad("--with", f"none of the methods has a parameter {strange[0]!r}")
    recipe = checked(SyntheticPairs, made)
    refuse_existing(overwrite, *(output / file for file in FILES))
    pairs = open_pairs(folder, split=split, recipe=recipe, count=count or MADE).first(count)
    output.mkdir(parents=True, exist_ok=True)
    trials = finish(try_pairs_work(pairs, tried), quiet=quiet)
    short = summary(trials)
    write_table(output / "pairs.csv", trials)
    write_table(output / "summary.csv", short)
    save_figure(errors_figure(trials), output / "errors.png")
    save_figure(reliability_figure(reliability(trials)), output / "reliability.png")
    if not quiet:
        typer.echo(short.to_string(index=False))
        typer.echo(f"-> {output}")


def _chosen(name: str) -> tuple[str, Any, dict[str, Any]]:
    """Return what a method is called in the tables, its record, and what a file of weights says of it."""
    from pathlib import Path

    from stackalign.cli.methods import words
    from stackalign.pair_evaluation import PAIR_METHODS

    if name in PAIR_METHODS:
        return name, PAIR_METHODS[name], {}
    if not name.endswith(".safetensors"):
        raise bad("--method", f"{name!r} registers no pairs: choose {words([*PAIR_METHODS, 'a file of weights'])}")
    from stackalign.core.deep.weights import WeightsError, load_network

    try:
        _, card = load_network(Path(name).expanduser())
    except (WeightsError, ImportError) as error:
        raise bad("--method", str(error)) from None
    return str(card["network"]), PAIR_METHODS["deep"], {"trained": name, "refine": False}
