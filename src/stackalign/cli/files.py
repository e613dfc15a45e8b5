"""``stackalign info`` and ``stackalign convert``: what a file holds, and the same in another format."""

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stackalign.cli.options import Axes, Channel, Debug, Frames, Overwrite, Quiet, bad, channel_of, frames_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackalign.core.stack import ImageStack

TRANSFORMS = (".json", ".csv", ".tfm", ".txt")  # by these endings a file of transforms is told from a stack
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Compression = Annotated[
    Literal["none", "deflate", "zstd"],
    typer.Option("--compression", help="Lossless. deflate can be read by every program, zstd is the fastest."),
]


def info(
    input: Annotated[str, typer.Argument(metavar="INPUT", help="A stack, or a file of transforms.")],
    axes: Axes = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Tell what a file, folder or glob holds, without reading its pixels."""
    import json

    if Path(input).suffix.lower() in TRANSFORMS:
        facts = _transforms(Path(input))
        if as_json:
            typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        else:
            typer.echo("\n".join(f"{key + ':':<12} {value}" for key, value in facts.items()))
        return
    with asking():
        from stackalign.io.info import describe

        found = describe(input, axes=axes)
    typer.echo(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) if as_json else str(found))


def convert(
    input: Annotated[str, typer.Argument(metavar="INPUT", help="A stack, or a file of transforms.")],
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUTPUT", help="Stacks: .tif, .ome.tif, .zarr, .npy. Transforms: .json, .csv, .npy, .tfm."
        ),
    ],
    axes: Axes = None,
    channel: Channel = None,
    frames: Frames = None,
    compression: Compression = "none",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a stack (all its channels, or one) or a file of transforms in another format."""
    refuse_existing(overwrite, output)
    if Path(input).suffix.lower() in TRANSFORMS or output.suffix.lower() in TRANSFORMS:
        from stackalign.io.transforms import load_transforms, save_transforms

        series = load_transforms(input)
        save_transforms(output, series, provenance_of(Path(input)))
        done: Any = series
    else:
        from stackalign.cli.terminal import finish
        from stackalign.io.write import write_stack_work

        stacks = open_channels(input, axes, channel, frames)
        finish(write_stack_work(output, stacks, compression=compression), quiet=quiet)
        done = f"{len(stacks)} channels of {stacks[0]}" if len(stacks) > 1 else stacks[0]
    if not quiet:
        typer.echo(f"{done} -> {output}")


def open_channels(path: str, axes: str | None, channel: str | None, frames: str | None) -> "list[ImageStack]":
    """Return every channel of a file, or the one that was asked for, within a range of frames."""
    from stackalign.io.read import read_channels, read_stack

    with asking():
        if channel is None:
            stacks = list(read_channels(path, axes=axes))
        else:
            stacks = [read_stack(path, axes=axes, channel=channel_of(channel))]
    return [within(stack, frames, path) for stack in stacks]


def open_stack(path: str, axes: str | None, channel: str | None, frames: str | None) -> "ImageStack":
    """Return one channel of a file within a range of frames."""
    from stackalign.io.read import read_stack

    with asking():
        stack = read_stack(path, axes=axes, channel=channel_of(channel))
    return within(stack, frames, path)


def within(stack: "ImageStack", frames: str | None, path: str) -> "ImageStack":
    """Return the frames ``A:B`` of a stack; a usage error if it has fewer."""
    span = frames_of(frames, len(stack))
    if span is None:
        return stack
    if span[1] > len(stack):
        raise bad("--frames", f"{frames!r} goes beyond the {len(stack)} frames of {path}")
    return stack.selected(slice(*span))


@contextmanager
def asking() -> "Iterator[None]":
    """Tell how a question that a file leaves open is answered on the command line."""
    from stackalign.io.errors import AmbiguousAxesError, ChannelChoiceError, ImageSetChoiceError

    try:
        yield
    except AmbiguousAxesError as error:
        raise AmbiguousAxesError(_typed(error, "--axes"), error.choices) from error
    except ChannelChoiceError as error:
        raise ChannelChoiceError(_typed(error, "--channel"), error.choices) from error
    except ImageSetChoiceError as error:
        text = str(error).replace("image_set=", "--image-set NAME")
        raise ImageSetChoiceError(text, error.choices) from error


def refuse_existing(overwrite: bool, *paths: Path) -> None:
    """Raise FileExistsError if something stands where a result is to go."""
    for path in paths:
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} is there already: say --overwrite to replace it")


def provenance_of(path: Path) -> dict[str, Any]:
    """Return what a file of transforms says about where they come from; only our own JSON says anything."""
    from stackalign.io.transforms import load_provenance

    name = path.name.lower()
    return load_provenance(path) if name.endswith(".json") and not name.endswith(".ngff.json") else {}


def _typed(error: Any, option: str) -> str:
    """Return what a file leaves open, with the answers as they are typed here: ``--axes tyx (z read as time)``."""
    name = option.strip("-")
    text = str(error)
    for spoken in (f"Say so with {name}= ({option} on the command line): ", f"with {name}= ({option}), "):
        question, found, answers = text.partition(spoken)
        if found:
            answers = re.sub(rf"\"([^\"]*)\"|{name}='([^']*)'|\b(\d+)(?= \()", rf"{option} \1\2\3", answers)
            return f"{question}{'Say' if spoken.startswith('Say') else 'with'} {answers}"
    return text + "".join(f" {option} {choice}" for choice in error.choices if str(choice) not in text)


def _transforms(path: Path) -> dict[str, Any]:
    """Return what a file of transforms holds, in words."""
    import numpy as np

    from stackalign.io.transforms import load_transforms

    series = load_transforms(path)
    said = provenance_of(path)
    axes = "zyx"[-series.ndim :]
    low, high = series.translations.min(0), series.translations.max(0)
    spans = ", ".join(f"{a} {lo:.3f} to {hi:.3f}" for a, lo, hi in zip(axes, low, high, strict=True))
    degrees = np.degrees(series.angles)
    facts: dict[str, Any] = {
        "file": str(path),
        "format": "transforms, moving -> reference",
        "frames": len(series),
        "model": series.model.value,
        "translation": f"{spans} px",
        "rotation": f"{degrees.min():.4f} to {degrees.max():.4f} deg",
        "not valid": ", ".join(map(str, np.flatnonzero(~series.valid))) or "none",
    }
    return facts | {key: said[key] for key in ("method", "source", "version") if said.get(key)}
