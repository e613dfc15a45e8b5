"""``stackalign track``: follow picked or suggested particles through a movie, into a table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from stackalign.cli.apply import name_of
from stackalign.cli.files import open_stack, refuse_existing
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
    settings_of,
)

if TYPE_CHECKING:
    from stackalign.core.spots.picks import Pick
    from stackalign.core.stack import ImageStack

Picks = Annotated[
    Path | None, typer.Option("--picks", metavar="FILE", help="Picked particles, as the viewer saves them (JSON).")
]
Auto = Annotated[int | None, typer.Option("--auto", min=1, metavar="N", help="Suggest N particles instead.")]


ImageSet = Annotated[
    str | None,
    typer.Option("--image-set", metavar="NAME", help="Which image set of a selection file that holds several."),
]


class TrackCommand(TyperCommand):
    """Adds the parameters of the record to the help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, then the parameters."""
        from stackalign.cli.methods import parameter_table
        from stackalign.core.spots.options import TrackOptions

        super().format_help(ctx, formatter)
        formatter.write(f"\nParameters (--set key=value):\n{parameter_table(TrackOptions)}\n")


def track(
    input: Annotated[str, typer.Argument(metavar="INPUT", help="A file, folder or glob.")],
    picks: Picks = None,
    auto: Auto = None,
    image_set: ImageSet = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE.csv", help="The table; INPUT's name with _tracks.csv."),
    ] = None,
    axes: Axes = None,
    channel: Channel = None,
    frames: Frames = None,
    settings: Settings = None,
    threads: Threads = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Follow particles through a movie: a row a particle and frame, in pixels; suggested picks go beside the table."""
    from stackalign.cli.records import checked
    from stackalign.cli.terminal import finish
    from stackalign.core.spots.options import TrackOptions
    from stackalign.core.spots.track import track_spots_work
    from stackalign.core.threads import set_threads
    from stackalign.io.picks import write_picks
    from stackalign.io.tables import write_table

    options = checked(TrackOptions, settings_of(settings))
    if (picks is None) == (auto is None):
        raise bad("--picks", "say which particles: either --picks FILE or --auto N")
    if image_set is not None and picks is None:
        raise bad("--image-set", "it chooses among the image sets of a file: name that with --picks")
    table = output or Path(f"{name_of(input)}_tracks.csv")
    chosen_file = table.with_suffix(".picks.json")
    refuse_existing(overwrite, table, *([chosen_file] if auto is not None else []))
    set_threads(threads)
    stack = open_stack(input, axes, channel, frames)
    chosen = chosen_picks(stack, picks, auto, options.polarity, image_set)
    tracks = finish(track_spots_work(stack, chosen, options), quiet=quiet)
    write_table(table, tracks.to_frame())
    if auto is not None:
        write_picks(chosen_file, chosen)
    if not quiet:
        typer.echo(f"{tracks} -> {table}")


def picks_of(path: Path, image_set: str | None) -> "tuple[Pick, ...]":
    """Return the picks of a file."""
    from stackalign.cli.files import asking
    from stackalign.io.picks import read_picks

    with asking():
        return read_picks(path, image_set=image_set)


def chosen_picks(
    stack: "ImageStack", picks: Path | None, auto: int | None, polarity: Any, image_set: str | None
) -> "tuple[Pick, ...]":
    """Return the picks of a file, or as many suggested ones in the first frame that can be read."""
    from stackalign.core.frames.frame_check import read_frame
    from stackalign.core.spots.detect import suggest_picks

    if picks is not None:
        return picks_of(picks, image_set)
    first = next((t for t in range(len(stack)) if not read_frame(stack, t)[1]), None)
    if first is None:
        raise ValueError("no frame of the stack can be read: there is nothing to follow")
    found = suggest_picks(stack, auto or 1, frame=first, polarity=polarity)
    if not found:
        raise ValueError(f"no particle stands out in frame {first}: pick some in the viewer and give them with --picks")
    return found
