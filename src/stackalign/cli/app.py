"""The command ``stackalign``: all its commands. Their modules are light; each imports what it needs when it runs."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

import stackalign
from stackalign.cli import align, apply, demo, evaluate, files, methods, simulate, track, train
from stackalign.cli.group import Group

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"stackalign {stackalign.__version__}")
        raise typer.Exit


@app.callback()
def _stackalign(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Align image stacks: drift and motion correction.

    `stackalign COMMAND --help` tells more about a command.
    """


app.command("align", cls=align.AlignCommand, short_help="Align a movie; writes the result with its proof.")(align.align)
app.command("run", short_help="Repeat a run from its recipe.")(align.run)
app.command("apply", cls=apply.ApplyCommand, short_help="Resample a stack by known transforms.")(apply.apply)
app.command("measure", short_help="Compare a stack before and after its transforms.")(apply.measure)
app.command("track", cls=track.TrackCommand, short_help="Follow particles through a movie, into a table.")(track.track)
app.command("simulate", cls=simulate.SimulateCommand, short_help="Make a movie that moves in a known way.")(
    simulate.simulate
)
app.command("evaluate", cls=evaluate.EvaluateCommand, short_help="Try a method on a grid of simulated motions.")(
    evaluate.evaluate
)
app.command("train", cls=train.TrainCommand, short_help="Train a network on pairs made of single images.")(train.train)
app.command("convert", short_help="Write a stack or transforms in another format.")(files.convert)
app.command("info", short_help="Tell what a file holds.")(files.info)
app.command("methods", short_help="List the methods with all their parameters.")(methods.methods)
app.command("demo", short_help="Align a sample movie, in napari if there is a display.")(demo.demo)


def main() -> NoReturn:
    """Run the command line; the process ends with 0, 1 (failed), 2 (bad usage) or 130 (cancelled)."""
    app(prog_name="stackalign")
    sys.exit(0)
