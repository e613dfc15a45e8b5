"""``stackalign demo``: the main job on sample data, in napari where there is a display, else into a folder."""

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stackalign.cli.options import Debug, Overwrite, Quiet

logger = logging.getLogger(__name__)
SAMPLE = "drifting_beads"
VIEWER = "stackalign.widgets.demo"  # started as a program of its own: the command line imports neither napari nor Qt
XVFB = ("xvfb-run", "-a", "-s", "-screen 0 1400x900x24")
PATIENCE = 180  # seconds for a screenshot on a slow machine


def demo(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where the result goes without a display.")
    ] = Path("demo"),
    headless: Annotated[
        bool, typer.Option("--headless", help="Open no window, even where there is a display.")
    ] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Align a sample movie: in napari if there is a display, else into a folder, with a report and a screenshot."""
    if not headless and has_display() and importlib.util.find_spec("napari") is not None:
        if not quiet:
            typer.echo("Opening napari on a sample movie: press Align in the panel on the right.")
        ended = subprocess.run([sys.executable, "-m", VIEWER], check=False)
        if ended.returncode in (0, 130, -2):
            return
        logger.warning("napari could not be shown (it ended with %d): aligning without it", ended.returncode)
    _without_window(output, overwrite=overwrite, quiet=quiet)


def has_display() -> bool:
    """Tell whether a window can be opened."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _without_window(output: Path, *, overwrite: bool, quiet: bool) -> None:
    from stackalign.cli.align import carry_out
    from stackalign.config import AlignmentConfig, InputSpec, OutputSpec
    from stackalign.samples import sample_path

    movie = sample_path(SAMPLE)
    config = AlignmentConfig(input=InputSpec(path=str(movie)), output=OutputSpec(folder=str(output)))
    result = carry_out(config, overwrite=overwrite, quiet=quiet)
    picture = output / "screenshot.png"
    if not viewer_screenshot(picture):
        _before_and_after(result, picture)
    if not quiet:
        typer.echo(f"Open {output / 'report.html'} and {picture}.")


def viewer_screenshot(picture: Path) -> bool:
    """Take a picture of the viewer on a virtual screen; False where that is not possible here."""
    if importlib.util.find_spec("napari") is None or not (has_display() or shutil.which(XVFB[0])):
        return False
    command = [sys.executable, "-m", VIEWER, "--screenshot", str(picture)]
    screen = [] if has_display() else list(XVFB)
    settings = {} if has_display() else {"QT_QPA_PLATFORM": "xcb", "LIBGL_ALWAYS_SOFTWARE": "1"}
    try:
        ended = subprocess.run(
            [*screen, *command],
            env=os.environ | settings,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
            text=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.info("no screenshot of the viewer: %s", error)
        return False
    if ended.returncode != 0 or not picture.is_file():
        logger.info("no screenshot of the viewer: it ended with %d\n%s", ended.returncode, ended.stderr[-2000:])
        return False
    return True


def _before_and_after(result: Any, picture: Path) -> None:
    from stackalign.io.atomic import replacing
    from stackalign.plots import mean_images_figure, save_figure

    with replacing(picture) as part:
        save_figure(mean_images_figure(result.quality), part, format="png")
