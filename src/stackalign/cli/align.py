"""``stackalign align`` and ``stackalign run``: estimate the motion of a movie, align it, and write the proof of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from stackalign.cli.apply import Crop, Fill, Order, name_of, warp_options
from stackalign.cli.files import asking
from stackalign.cli.options import (
    Axes,
    Channel,
    Debug,
    Frames,
    Overwrite,
    Quiet,
    Settings,
    Threads,
    bad,
    channel_of,
    frames_of,
    region_of,
    settings_of,
)
from stackalign.cli.track import Auto, ImageSet, Picks, picks_of

if TYPE_CHECKING:
    from stackalign.config import AlignmentConfig
    from stackalign.core.parameters import Parameters
    from stackalign.pipeline import RunResult

GROUPS = ("registrar", "preprocess", "warp", "output")
Folder = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FOLDER", help="Where the result goes; INPUT's name with _aligned."),
]


class AlignCommand(TyperCommand):
    """Takes the help of its options from the records, and adds the parameters of every method."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, then the parameters."""
        from stackalign.cli.apply import describe_warp
        from stackalign.cli.methods import described, method_table, parameter_table, words
        from stackalign.config import METHODS, AlignmentConfig, OutputSpec
        from stackalign.core.frames.preprocess import Preprocess

        describe_warp(self)
        params: list[Any] = self.params
        for param in params:
            if param.name in ("reference", "anchor", "seed"):
                param.help = described(AlignmentConfig, param.name)
            elif param.name == "method":
                param.help = f"How: {words(METHODS)}."
        super().format_help(ctx, formatter)
        formatter.write("\nParameters of each method (--set key=value):\n\n")
        formatter.write("\n\n".join(method_table(name) for name in METHODS) + "\n")
        formatter.write(f"\nPreparation (--set key=value):\n{parameter_table(Preprocess, 'preprocess.')}\n")
        formatter.write(f"\nFiles (--set key=value):\n{parameter_table(OutputSpec, 'output.')}\n")


def align(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT", help="A TIFF, a folder or quoted glob of TIFFs, an OME-Zarr.")
    ],
    method: Annotated[str, typer.Option("-m", "--method", metavar="METHOD")] = "cross-correlation",
    output: Folder = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="Family of the motion, where the method has several.")
    ] = None,
    reference: Annotated[str | None, typer.Option("--reference", metavar="first|N|previous|mean|FILE")] = None,
    anchor: Annotated[str | None, typer.Option("--anchor", metavar="N|mean")] = None,
    axes: Axes = None,
    channel: Channel = None,
    frames: Frames = None,
    region: Annotated[
        str | None,
        typer.Option("--region", metavar="Y0:Y1,X0:X1", help="Look only at this part of the reference (pixels)."),
    ] = None,
    picks: Picks = None,
    auto: Auto = None,
    image_set: ImageSet = None,
    order: Order = None,
    fill: Fill = None,
    crop: Crop = None,
    settings: Settings = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N")] = None,
    threads: Threads = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Align a movie.

    FOLDER then holds aligned.tif, transforms.json, transforms.csv, quality.csv, recipe.yaml, report.html and run.log.
    """
    from stackalign.cli.methods import words
    from stackalign.cli.records import checked
    from stackalign.config import METHODS, AlignmentConfig, InputSpec, OutputSpec
    from stackalign.core.frames.preprocess import Preprocess
    from stackalign.core.warping.warp import WarpOptions

    input = _one(inputs)
    if method not in METHODS:
        raise bad("--method", f"{method!r} is no method: choose {words(METHODS)}")
    groups = grouped(settings_of(settings), method)
    if model is not None:
        if "model" not in METHODS[method].model_fields:
            raise bad("--model", f"{method} has one model only; `stackalign methods {method}` lists its parameters")
        checked(METHODS[method], {"model": model}, "--model")
        groups["registrar"]["model"] = model
    _take_picks(groups["registrar"], method, picks, auto, image_set)
    if region is not None:
        groups["preprocess"]["region"] = region_of(region)
    groups["warp"] |= warp_options(order, fill, crop)
    groups["output"].setdefault("folder", str(output or f"{name_of(input)}_aligned"))
    given = {"reference": _number_or_word(reference), "anchor": _number_or_word(anchor), "seed": seed}
    given = {name: value for name, value in given.items() if value is not None}
    _check_reference(given.get("reference"))
    source = InputSpec(path=input, axes=axes, channel=channel_of(channel), frames=_span(input, axes, frames))
    for name, value in given.items():
        checked(AlignmentConfig, {"input": source, name: value}, f"--{name}")
    config = AlignmentConfig(
        input=source,
        registrar=checked(METHODS[method], groups["registrar"]),
        preprocess=checked(Preprocess, groups["preprocess"]),
        warp=checked(WarpOptions, groups["warp"]),
        output=checked(OutputSpec, groups["output"]),
        **given,
    )
    carry_out(config, threads=threads, overwrite=overwrite, quiet=quiet)


def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="recipe.yaml of an earlier run, or your own.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FOLDER", help="Where the result goes, if elsewhere.")
    ] = None,
    threads: Threads = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Repeat a run from its recipe."""
    from stackalign.config import load_recipe

    carry_out(load_recipe(recipe), folder=output, threads=threads, overwrite=overwrite, quiet=quiet)


def carry_out(
    config: "AlignmentConfig",
    *,
    folder: Path | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> "RunResult":
    """Run a recipe with a progress line, and tell how it went."""
    from stackalign.cli.terminal import duration, finish
    from stackalign.core.threads import set_threads
    from stackalign.pipeline import run_work
    from stackalign.report import write_report

    set_threads(threads)
    with asking():
        work = run_work(config, folder=folder, overwrite=overwrite, write_report=write_report)
        result = finish(work, quiet=quiet)
    if not quiet:
        typer.echo(result.sentence)
        where = f" -> {result.folder.path}" if result.folder is not None else ""
        typer.echo(f"{len(result.registration)} frames in {duration(result.seconds)}{where}")
    return result


def grouped(settings: dict[str, Any], method: str) -> dict[str, dict[str, Any]]:
    """Sort ``key=value`` settings into the groups of a recipe: by their dotted name, or the first group that has it.

    Raises
    ------
    typer.BadParameter
        If no group has such a key; names the nearest one.
    """
    from stackalign.cli.records import unknown
    from stackalign.config import METHODS, OutputSpec
    from stackalign.core.frames.preprocess import Preprocess
    from stackalign.core.warping.warp import WarpOptions

    kinds: tuple[type[Parameters], ...] = (METHODS[method], Preprocess, WarpOptions, OutputSpec)
    records = dict(zip(GROUPS, kinds, strict=True))
    found: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for key, value in settings.items():
        group, dot, name = key.rpartition(".")
        places = [group] if dot else [g for g, record in records.items() if key in record.model_fields]
        if name == "method":
            raise bad("--set", "the method is chosen with -m")
        if not places:
            names = [*METHODS[method].model_fields]
            names += [f"{g}.{n}" for g in GROUPS[1:] for n in records[g].model_fields]
            raise bad("--set", unknown(key, names))
        if places[0] not in records:
            raise bad("--set", f"there is no group {group!r}: choose {', '.join(GROUPS)}")
        if name not in records[places[0]].model_fields:
            raise bad("--set", unknown(name, records[places[0]].model_fields))
        found[places[0]][name] = value
    return found


def _number_or_word(text: str | None) -> int | str | None:
    """Return a frame's number, or the word or file as it is."""
    return int(text) if text is not None and text.strip().lstrip("-").isdigit() else text


def _one(inputs: list[str]) -> str:
    """Return the one input; several are a glob that the shell wrote out, in its order, not ours."""
    if len(inputs) > 1:
        folder = Path(inputs[0]).parent
        pattern = folder / f"*{Path(inputs[0]).suffix}"
        raise bad(
            "INPUT", f"{len(inputs)} files were given: name their folder ({folder}) or quote the glob ('{pattern}')"
        )
    return inputs[0]


def _take_picks(
    values: dict[str, Any], method: str, picks: Path | None, auto: int | None, image_set: str | None
) -> None:
    """Put picked or suggested particles among the parameters of a method that follows particles."""
    from stackalign.config import METHODS

    given = [option for option, value in (("--picks", picks), ("--auto", auto)) if value is not None]
    if len(given) == 2:
        raise bad("--picks", "say either --picks FILE or --auto N, not both")
    if given and "picks" not in METHODS[method].model_fields:
        follow = [name for name, record in METHODS.items() if "picks" in record.model_fields]
        raise bad(given[0], f"{method} follows no particles" + (f": choose -m {follow[0]}" if follow else ""))
    if image_set is not None and picks is None:
        raise bad("--image-set", "it chooses among the image sets of a file: name that with --picks")
    if picks is not None:
        values["picks"] = [pick.model_dump() for pick in picks_of(picks, image_set)]
    if auto is not None:
        values["auto"] = auto


def _check_reference(reference: int | str | None) -> None:
    from stackalign.cli.methods import words
    from stackalign.config import REFERENCES

    if isinstance(reference, str) and reference not in REFERENCES and not Path(reference).expanduser().exists():
        raise bad("--reference", f"{reference!r} is neither {words([*REFERENCES, 'a frame number'])}, nor a file")


def _span(path: str, axes: str | None, text: str | None) -> tuple[int, int] | None:
    """Return a range of frames; the file is asked for its length only where the end is left open."""
    if text is None or not text.strip().endswith(":"):
        return frames_of(text)
    from stackalign.io.info import describe

    return frames_of(text, describe(path, axes=axes).frames)
