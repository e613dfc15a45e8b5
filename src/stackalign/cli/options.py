"""Options that several commands share, and how their text is read. What they mean stands in the parameter records."""

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackalign.cli.group import set_debug, set_quiet

if TYPE_CHECKING:
    from collections.abc import Sequence

Debug = Annotated[
    bool, typer.Option("--debug", callback=set_debug, help="Show the traceback of an error, and the log.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", callback=set_quiet, help="Print errors only.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Axes = Annotated[
    str | None, typer.Option("--axes", metavar="AXES", help="What each axis of the file is: tyx, tzyx, tcyx, zyx, ...")
]
Channel = Annotated[
    str | None, typer.Option("--channel", metavar="NAME|N", help="Which channel, by number (from 0) or name.")
]
Frames = Annotated[
    str | None, typer.Option("--frames", metavar="A:B", help="Only the frames from A to B - 1; 0 is the first.")
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, metavar="N", help="Threads to use; all cores if left out.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a parameter; may be given many times. The keys are below."),
]

Gaussian = Annotated[
    float | None,
    typer.Option(min=0, metavar="F", help="Gaussian noise only, as a fraction of the brightest pixel: 0.01."),
]
Peak = Annotated[
    float | None, typer.Option(min=1e-6, metavar="N", help="Poisson noise only, photons of the brightest pixel.")
]


def bad(option: str, message: str) -> typer.BadParameter:
    """Return a usage error (exit code 2) that names the option."""
    return typer.BadParameter(message, param_hint=f"'{option}'")


def refuse_both(gaussian: float | None, peak: float | None) -> None:
    """Refuse two kinds of noise at once."""
    if gaussian is not None and peak is not None:
        raise bad("--peak", "Gaussian and Poisson noise are two experiments: give one of them")


def channel_of(text: str | None) -> int | str | None:
    """Return a channel's number or name."""
    return int(text) if text is not None and text.strip().isdigit() else text


def frames_of(text: str | None, count: int | None = None) -> tuple[int, int] | None:
    """Read ``A:B``, ``A:`` or ``:B`` as (start, stop) of ``count`` frames; None stands for all."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d*)\s*:\s*(\d*)\s*", text)
    if match is None:
        raise bad("--frames", f"{text!r} is not of the form A:B, such as 0:100 (frames 0 to 99)")
    start = int(match[1] or 0)
    if not match[2] and count is None:
        raise bad("--frames", f"{text!r} needs its end, such as {start}:100")
    stop = int(match[2]) if match[2] else int(count or 0)
    if start >= stop:
        raise bad("--frames", f"{text!r} holds no frame: the end {stop} must lie behind the start {start}")
    return start, stop


def region_of(text: str | None) -> tuple[int, ...] | None:
    """Read ``y0:y1,x0:x1``, pixels, as the bounds of a box."""
    if text is None:
        return None
    parts = [re.fullmatch(r"\s*(\d+)\s*:\s*(\d+)\s*", part) for part in text.split(",")]
    if len(parts) != 2 or not all(parts):
        raise bad("--region", f"{text!r} is not of the form y0:y1,x0:x1, such as 20:200,0:128")
    bounds = tuple(int(n) for part in parts if part is not None for n in part.groups())
    for low, high in zip(bounds[::2], bounds[1::2], strict=True):
        if low >= high:
            raise bad("--region", f"{text!r} is empty: {high} must lie behind {low}")
    return bounds


def settings_of(pairs: "Sequence[str] | None") -> dict[str, Any]:
    """Read ``key=value`` pairs; values are YAML: 3, 0.5, true, none, [64, 64], word."""
    import yaml

    found: dict[str, Any] = {}
    for pair in pairs or ():
        key, sign, text = pair.partition("=")
        key = key.strip().replace("-", "_")
        if not sign or not key:
            raise bad("--set", f"{pair!r} is not of the form key=value")
        if key in found:
            raise bad("--set", f"{key!r} is given twice")
        if text.strip().lower() == "none":
            found[key] = None
            continue
        try:
            found[key] = yaml.safe_load(text)
        except yaml.YAMLError:
            found[key] = text
    return found
