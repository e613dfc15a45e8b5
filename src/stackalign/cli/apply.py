"""``stackalign apply`` and ``stackalign measure``: known transforms on a stack, and how much better it is for them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from stackalign.cli.files import Compression, Json, open_channels, open_stack, refuse_existing
from stackalign.cli.options import Axes, Channel, Debug, Frames, Overwrite, Quiet, Threads

if TYPE_CHECKING:
    from stackalign.core.stack import ImageStack
    from stackalign.core.transform_series import TransformSeries

Order = Annotated[str | None, typer.Option("--order", metavar="N")]
Fill = Annotated[str | None, typer.Option("--fill", metavar="VALUE")]
Crop = Annotated[str | None, typer.Option("--crop", metavar="HOW")]
Transforms = Annotated[Path, typer.Argument(metavar="TRANSFORMS", help="transforms.json, a .csv or .npy.")]
Input = Annotated[str, typer.Argument(metavar="INPUT", help="A file, folder or glob; with several channels, all.")]
WARP = ("order", "fill", "crop")


class ApplyCommand(TyperCommand):
    """Takes the help of the options on resampling from their record."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        describe_warp(self)
        super().format_help(ctx, formatter)


def describe_warp(command: Any) -> None:
    """Give the options on resampling the help of their fields."""
    from stackalign.cli.methods import described
    from stackalign.core.warping.warp import WarpOptions

    for param in command.params:
        if param.name in WARP:
            param.help = described(WarpOptions, param.name)


def apply(
    transforms: Transforms,
    input: Input,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="The aligned stack; INPUT's name with _aligned.tif."),
    ] = None,
    axes: Axes = None,
    channel: Channel = None,
    frames: Frames = None,
    order: Order = None,
    fill: Fill = None,
    crop: Crop = None,
    compression: Compression = "none",
    threads: Threads = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Resample a stack by transforms that are known already, all its channels alike."""
    from stackalign.cli.terminal import finish
    from stackalign.core.threads import set_threads
    from stackalign.core.warping.warp import warp
    from stackalign.io.transforms import load_transforms
    from stackalign.io.write import write_stack_work

    set_threads(threads)
    options = warp_options(order, fill, crop)
    target = output or Path(f"{name_of(input)}_aligned.tif")
    refuse_existing(overwrite, target)
    series = load_transforms(transforms)
    stacks = open_channels(input, axes, channel, frames)
    _fit(series, stacks[0], transforms, input)
    fixed = [warp(stack, series, **options) for stack in stacks]
    finish(write_stack_work(target, fixed, compression=compression), quiet=quiet)
    if not quiet:
        typer.echo(f"{len(series)} frames aligned -> {target}")


def measure(
    transforms: Transforms,
    input: Annotated[str, typer.Argument(metavar="INPUT", help="The stack before alignment.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.csv", help="A table with a row a frame.")
    ] = None,
    axes: Axes = None,
    channel: Channel = None,
    frames: Frames = None,
    as_json: Json = False,
    threads: Threads = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare a stack before and after its transforms, on the region that is valid in all frames."""
    import json

    from stackalign.cli.terminal import finish
    from stackalign.core.quality import measure_work
    from stackalign.core.threads import set_threads
    from stackalign.io.tables import write_table
    from stackalign.io.transforms import load_transforms

    set_threads(threads)
    if output is not None:
        refuse_existing(overwrite, output)
    series = load_transforms(transforms)
    stack = open_stack(input, axes, channel, frames)
    _fit(series, stack, transforms, input)
    quality = finish(measure_work(stack, series), quiet=quiet)
    if output is not None:
        write_table(output, quality.to_frame())
    if as_json:
        summary = {name: {"before": before, "after": after} for name, (before, after) in quality.summary.items()}
        typer.echo(json.dumps({"sentence": quality.sentence, "summary": summary}, indent=2, ensure_ascii=False))
    else:
        typer.echo("\n".join([*summary_lines(quality.summary), quality.sentence]))


def summary_lines(summary: Any) -> list[str]:
    """Return a table of measures: name, doing nothing, after."""
    wide = max(len(name) for name in summary)
    lines = [f"{'':<{wide}}  {'doing nothing':>13}  {'after':>10}"]
    return lines + [f"{name:<{wide}}  {before:>13.4g}  {after:>10.4g}" for name, (before, after) in summary.items()]


def warp_options(order: str | None, fill: str | None, crop: str | None) -> dict[str, Any]:
    """Return how to resample as far as it was said, checked against the record; a usage error names the option."""
    from stackalign.cli.records import checked
    from stackalign.core.warping.warp import WarpOptions

    given = {key: _number(text) for key, text in zip(WARP, (order, fill, crop), strict=True) if text is not None}
    return {key: getattr(checked(WarpOptions, {key: value}, f"--{key}"), key) for key, value in given.items()}


def name_of(path: str) -> str:
    """Return what to call the result of a file, folder or glob: its name without ending."""
    from stackalign.cli.simulate import plain_stem

    place = Path(path)
    if any(c in place.name for c in "*?["):
        place = Path(place.name.translate(dict.fromkeys(map(ord, "*?[]"), None)))
    place = place if place.name not in ("", ".", "..") else place.resolve()
    return plain_stem(place) or "stack"


def _number(text: str) -> Any:
    """Return an option's text as the number that it spells, if it does."""
    for kind in (int, float):
        try:
            return text if text.strip().lower() == "nan" else kind(text)
        except ValueError:
            continue
    return text


def _fit(series: "TransformSeries", stack: "ImageStack", transforms: Path, input: str) -> None:
    if len(series) != len(stack):
        raise ValueError(
            f"{transforms} holds {len(series)} transforms, {input} {len(stack)} frames: they must be as many;"
            " choose a range with --frames A:B"
        )
    if series.ndim != stack.ndim:
        raise ValueError(f"{transforms} is for {series.ndim}-D frames, those of {input} are {stack.ndim}-D: {stack}")
