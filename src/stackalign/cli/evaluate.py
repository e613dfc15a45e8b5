"""``stackalign evaluate``: a method on simulated motions or on pairs, with tables and figures beside doing nothing."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from stackalign.cli.options import (
    Debug,
    Gaussian,
    Overwrite,
    Peak,
    Quiet,
    Settings,
    Threads,
    bad,
    refuse_both,
    settings_of,
)

if TYPE_CHECKING:
    import pandas as pd

    from stackalign.core.simulate import Simulation
    from stackalign.core.trial import Trial
    from stackalign.core.work import Work

BASE = {"scene": "camera", "shape": [512, 512], "frames": 60, "model": "euclidean", "motion": "uniform"}
KEYS = ["variant", "translation_px", "rotation_deg", "draw"]
FIGURES = ("heat-map.png", "heat-map-px.png", "bars.png", "bars-px.png", "time.png")


class EvaluateCommand(TyperCommand):
    """Adds the parameters of the simulation to the help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, then the parameters."""
        from stackalign.cli.methods import parameter_table
        from stackalign.core.simulate import Simulation

        super().format_help(ctx, formatter)
        formatter.write(f"\nThe movie (--set key=value):\n{parameter_table(Simulation)}\n")
        formatter.write("\nThe method (--with key=value): `stackalign methods METHOD` lists its parameters.\n")


def evaluate(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where tables and figures go.")],
    method: Annotated[str, typer.Option("-m", "--method", metavar="METHOD", help="What is tried.")] = "reals",
    translations: Annotated[
        str, typer.Option(metavar="A:B:STEP|A,B,...", help="Largest shifts along each axis (px).")
    ] = "0:27:3",
    rotations: Annotated[
        str, typer.Option(metavar="A:B:STEP|A,B,...", help="Largest rotations about the centre (deg).")
    ] = "0:18:2",
    draws: Annotated[int, typer.Option(min=1, metavar="N", help="Movies at each point of the grid.")] = 5,
    gaussian: Gaussian = None,
    peak: Peak = None,
    pairs: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Try pairs of images instead of movies; pictures: pairs are made of them."),
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="With --pairs: only the first N, or so many are made.")
    ] = None,
    split: Annotated[
        str, typer.Option(metavar="NAME", help="With --pairs: train or val, of a set that has both.")
    ] = "val",
    settings: Settings = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="KEY=VALUE", help="Set a parameter of the method; may be given many times."),
    ] = None,
    vary: Annotated[
        str | None,
        typer.Option(metavar="KEY=V1,V2,...", help="Try these values of a parameter of the method, a bar each."),
    ] = None,
    threads: Threads = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Try a method on simulated movies of known motion.

    FOLDER then holds trials.csv (a row a movie), course.csv, evaluation.yaml and figures. A run that was stopped keeps
    what it has and goes on if it is called again; so does one whose grid, draws or --vary have grown.

    With --pairs: pairs.csv (a row a pair), summary.csv and figures. FOLDER is in the layout of DLKFM's sets, or holds
    gt_corners.csv, or vi and ir, or gt_N.txt, or pictures only. METHOD may be several with commas between them, and a
    file of weights: its network is tried alone.
    """
    from stackalign.cli.methods import words
    from stackalign.cli.records import checked
    from stackalign.cli.terminal import finish
    from stackalign.config import METHODS
    from stackalign.core.simulate import Simulation
    from stackalign.core.threads import set_threads
    from stackalign.core.trial import with_noise

    if pairs is not None:
        from stackalign.cli.evaluate_pairs import evaluate_pairs

        if threads is not None:
            set_threads(threads)
        made = settings_of(settings)
        evaluate_pairs(output, method, pairs, made, settings_of(given), count, split, overwrite=overwrite, quiet=quiet)
        return
    if method not in METHODS:
        raise bad("--method", f"{method!r} is no method: choose {words(METHODS)}")
    refuse_both(gaussian, peak)
    shifts, angles = grid_of(translations, "--translations"), grid_of(rotations, "--rotations")
    base = checked(Simulation, {**BASE, **settings_of(settings)})
    if gaussian is not None or peak is not None:
        base = with_noise(base, gaussian=gaussian, peak=peak)
    fixed = settings_of(given)
    if "model" in METHODS[method].model_fields:
        fixed = {"model": base.model.value, **fixed}
    variants = {name: checked(METHODS[method], values, "--with") for name, values in varied(method, fixed, vary)}
    said = {
        "simulation": base.model_dump(mode="json"),
        "variants": {name: record.model_dump(mode="json") for name, record in variants.items()},
    }
    if threads is not None:
        set_threads(threads)
    begun = _begin(output, said, overwrite)
    finish(_carried_out(output, base, variants, shifts, angles, draws, begun), quiet=quiet)
    if not quiet:
        typer.echo(_summary(output))


def grid_of(text: str, option: str) -> list[float]:
    """Read ``A:B:STEP``, B included, or a list with commas."""
    import numpy as np

    try:
        if ":" in text:
            low, high, step = (float(part) for part in text.split(":"))
            values = [float(v) for v in np.round(np.arange(low, high + 1e-9, step), 9)] if step > 0 else []
        else:
            values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < 0:
        raise bad(
            option, f"{text!r} is neither A:B:STEP, such as 0:27:3, nor a list, such as 0,6,12, of numbers from 0 up"
        )
    return values


def varied(method: str, fixed: dict[str, Any], vary: str | None) -> list[tuple[str, dict[str, Any]]]:
    """Return the variants of a method by name; one if nothing varies."""
    if vary is None:
        return [(method, fixed)]
    key, sign, text = vary.partition("=")
    values = [part for part in text.split(",") if part.strip()]
    if not sign or not values:
        raise bad("--vary", f"{vary!r} is not of the form KEY=V1,V2,..., such as batch_size=8,16,none")
    return [(f"{key} {v.strip()}", {**fixed, **settings_of([f"{key}={v}"])}) for v in values]


def _begin(folder: Path, said: dict[str, Any], overwrite: bool) -> "pd.DataFrame | None":
    """Make the folder; returns the trials of earlier runs that the same movies and variants go on from.

    Raises
    ------
    FileExistsError
        If the folder holds trials of other movies, or of a variant of the same name that is another one.
    """
    import yaml

    from stackalign.io.atomic import replacing
    from stackalign.io.tables import read_table

    folder.mkdir(parents=True, exist_ok=True)
    record, trials = folder / "evaluation.yaml", folder / "trials.csv"
    table = None
    if record.exists() and trials.exists() and not overwrite:
        before = yaml.safe_load(record.read_text(encoding="utf-8"))
        same = before.get("simulation") == said["simulation"] and all(
            before["variants"].get(name, values) == values for name, values in said["variants"].items()
        )
        if not same:
            raise FileExistsError(f"{folder} holds trials of other settings: choose another folder or say --overwrite")
        said = {**said, "variants": {**before["variants"], **said["variants"]}}
        table = read_table(trials)
    else:
        for old in (trials, folder / "course.csv", *(folder / name for name in FIGURES)):
            old.unlink(missing_ok=True)
    with replacing(record) as part:
        part.write_text(yaml.safe_dump(said, sort_keys=False), encoding="utf-8")
    return table


def _carried_out(
    folder: Path,
    base: "Simulation",
    variants: dict[str, Any],
    shifts: list[float],
    angles: list[float],
    draws: int,
    begun: "pd.DataFrame | None",
) -> "Work[None]":
    """Run all trials that are not there yet; tables are written after each, figures at the end or when cancelled."""
    import pandas as pd

    from stackalign.core.trial import perturbations, run_trial
    from stackalign.core.work import Progress
    from stackalign.io.tables import read_table, write_table

    rows: list[dict[Any, Any]] = [] if begun is None else begun.to_dict("records")
    course_file = folder / "course.csv"
    courses: list[dict[Any, Any]] = read_table(course_file).to_dict("records") if course_file.exists() else []
    there = {tuple(row[key] for key in KEYS) for row in rows}
    courses = [row for row in courses if tuple(row[key] for key in KEYS) in there]
    todo = [(name, *point) for point in perturbations(base, shifts, angles, draws) for name in variants]
    try:
        for done, (name, shift, angle, draw, movie) in enumerate(todo):
            key = dict(zip(KEYS, (name, shift, angle, draw), strict=True))
            if tuple(key.values()) in there:
                continue
            message = f"{name}: {shift:g} px, {angle:g} deg, movie {draw + 1} of {draws}"
            yield Progress(done, len(todo), message)
            work = run_trial(movie, variants[name])
            while True:
                try:
                    next(work)
                except StopIteration as stop:
                    trial: Trial = stop.value
                    break
                yield Progress(done, len(todo), message)
            rows.append({**key, **trial.numbers})
            courses += [{**key, "time_s": seconds, "inconsistency": value} for seconds, value in trial.course]
            write_table(course_file, pd.DataFrame(courses))
            write_table(folder / "trials.csv", pd.DataFrame(rows))
        yield Progress(len(todo), len(todo), "Drawing")
    finally:
        if rows:
            draw_figures(folder)


def draw_figures(folder: Path) -> None:
    """Draw what the tables of a folder hold."""
    from stackalign.io.tables import read_table
    from stackalign.plots import save_figure
    from stackalign.plots_evaluation import bars_figure, course_figure, heat_map_figure

    trials, course = read_table(folder / "trials.csv"), read_table(folder / "course.csv")
    lines = {
        str(name): [list(zip(one["time_s"], one["inconsistency"], strict=True)) for _, one in part.groupby(KEYS[1:])]
        for name, part in course.groupby("variant", sort=False)
    }
    figures = (
        heat_map_figure(trials),
        heat_map_figure(trials, "error_px"),
        bars_figure(trials),
        bars_figure(trials, "error_px"),
        course_figure(lines, float(trials["inconsistency_before"].mean())),
    )
    for name, figure in zip(FIGURES, figures, strict=True):
        save_figure(figure, folder / name)


def _summary(folder: Path) -> str:
    """Return what came out, a line a variant."""
    from stackalign.io.tables import read_table

    trials = read_table(folder / "trials.csv")
    lines = []
    for name, part in trials.groupby("variant", sort=False):
        lines.append(
            f"{name}: inconsistency {part['inconsistency_before'].mean():.4g} -> {part['inconsistency'].mean():.4g},"
            f" corners {part['error_before_px'].mean():.3g} -> {part['error_px'].mean():.3g} px"
            f" (at most {part['error_max_px'].max():.3g}), {int(part['flagged'].sum())} frames flagged,"
            f" {part['seconds'].mean():.3g} s a movie ({len(part)} movies)"
        )
    return "\n".join([*lines, f"-> {folder}"])
