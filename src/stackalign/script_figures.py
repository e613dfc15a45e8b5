"""The pictures in ``script_output``: averaged drift, where particles went, each one before and after, a summary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.work import Progress
from stackalign.io.atomic import replacing
from stackalign.plots import AFTER, AXIS_COLOURS, BEFORE, new_figure, save_figure

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from matplotlib.figure import Figure

    from stackalign.core.work import Work
    from stackalign.script_output import ScriptOutput

LABELLED = 20  # particles up to which each one's number stands beside its track


def write_figures(output: ScriptOutput, drift: Path, validation: Path) -> Work[None]:
    """Write all pictures into the folders of the drift and of the validation."""
    todo: list[tuple[Path, Any]] = [
        (drift / "averaged_drift_trajectory.png", lambda: averaged_figure(output)),
        (drift / "absolute_trajectories.png", lambda: absolute_figure(output)),
        (validation / "drift_reduction_summary.png", lambda: summary_figure(output)),
    ]
    for k in output.chosen:
        path = validation / f"particle_{k}_comparison.png"
        todo.append((path, lambda k=k: comparison_figure(output, k)))
    for done, (path, draw) in enumerate(todo, start=1):
        figure = draw()
        with replacing(path) as part:
            save_figure(figure, part, dpi=110, format="png")
        yield Progress(done, len(todo), "Drawing the figures")


def averaged_figure(output: ScriptOutput) -> Figure:
    """Return the drift of the chosen particles and their mean: over time, and as a path."""
    figure = new_figure((11, 4.2))
    time, path = figure.subplots(1, 2, width_ratios=(3, 2))
    mean = output.averaged
    for k in output.chosen:
        rows = _of(output.tracking, k)
        for axis in "xy":
            time.plot(rows["image_index"], rows[f"drift_{axis}"], color=AXIS_COLOURS[axis], lw=0.6, alpha=0.35)
        path.plot(rows["drift_x"], rows["drift_y"], color=BEFORE, lw=0.6, alpha=0.6)
    for axis in "xy":
        centre, spread = mean[f"avg_drift_{axis}"], np.nan_to_num(mean[f"std_drift_{axis}"])
        time.plot(mean["image_index"], centre, color=AXIS_COLOURS[axis], lw=1.6, label=f"{axis}, mean and spread")
        time.fill_between(mean["image_index"], centre - spread, centre + spread, color=AXIS_COLOURS[axis], alpha=0.2)
    time.set(xlabel="image", ylabel="drift (px)", title=f"drift of {len(output.chosen)} particles")
    time.legend(frameon=False)
    path.plot(mean["avg_drift_x"], mean["avg_drift_y"], color="black", lw=1.4, label="mean")
    path.plot(0, 0, "*", color=AXIS_COLOURS["x"], ms=12, label="first image")
    path.set(xlabel="drift x (px)", ylabel="drift y (px)", title="path", aspect="equal", adjustable="datalim")
    path.legend(frameon=False)
    time.xaxis.get_major_locator().set_params(integer=True)
    return figure


def absolute_figure(output: ScriptOutput) -> Figure:
    """Return where each particle went in the images; those that make no part of the motion in grey."""
    figure = new_figure((7, 7))
    panel = figure.subplots()
    for k in output.particles:
        rows = _of(output.tracking, k)
        if not len(rows):
            continue
        used = k in output.chosen
        panel.plot(rows["center_x"], rows["center_y"], color=AFTER if used else BEFORE, lw=1, ls="-" if used else "--")
        panel.plot(*rows[["center_x", "center_y"]].iloc[0], "o", ms=3, color=AFTER if used else BEFORE)
        if len(output.particles) <= LABELLED:
            x, y = rows[["center_x", "center_y"]].iloc[-1]
            panel.annotate(f"{k}", (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
    panel.set(xlabel="x (px)", ylabel="y (px)", aspect="equal", adjustable="datalim")
    panel.set_title("where the particles went; dashed: not used", fontsize=10)
    panel.invert_yaxis()  # as the image is shown
    return figure


def comparison_figure(output: ScriptOutput, particle: int) -> Figure:
    """Return the drift of one particle before and after, as a path and over time."""
    figure = new_figure((11, 4.2))
    path, time = figure.subplots(1, 2, width_ratios=(2, 3))
    for table, colour, name in ((output.tracking, BEFORE, "as it is"), (output.validation, AFTER, "aligned")):
        rows = _of(table, particle)
        path.plot(rows["drift_x"], rows["drift_y"], color=colour, lw=1.2, label=name)
        time.plot(rows["image_index"], rows["drift_magnitude"], color=colour, lw=1.2, label=name)
    path.set(xlabel="drift x (px)", ylabel="drift y (px)", aspect="equal", adjustable="datalim")
    path.set_title(f"particle {particle}")
    path.legend(frameon=False)
    time.set(xlabel="image", ylabel="distance from the first image (px)")
    numbers = output.reduction()
    row = numbers[numbers["particle_id"] == particle] if len(numbers) else numbers
    if len(row):
        one = row.iloc[0]
        less = f"{one['max_reduction_percent']:.0f} % less"
        time.set_title(f"at most {one['max_before']:.2f} px -> {one['max_after']:.2f} px: {less}", fontsize=10)
    time.xaxis.get_major_locator().set_params(integer=True)
    return figure


def summary_figure(output: ScriptOutput) -> Figure:
    """Return the greatest drift of each chosen particle before and after, as bars and in numbers."""
    numbers = output.reduction()
    figure = new_figure((8.5, 1.6 + 0.32 * max(len(numbers), 3)))
    panel = figure.subplots()
    place = np.arange(len(numbers))
    if len(numbers):
        before, after = numbers["max_before"], numbers["max_after"]
        panel.barh(place - 0.2, before, 0.4, color=BEFORE, label="as it is")
        panel.barh(place + 0.2, after, 0.4, color=AFTER, label="aligned")
        for y, was, left, less in zip(place.tolist(), before, after, numbers["max_reduction_percent"], strict=True):
            panel.text(max(was, left), y, f"  {was:.2f} -> {left:.2f} px, {less:.0f} % less", va="center", fontsize=8)
        panel.set_xlim(0, 1.45 * float(max(before.max(), after.max())) or 1.0)
        panel.set_yticks(place, [f"{int(k)}" for k in numbers["particle_id"]])
        figure.legend(frameon=False, ncols=2, loc="outside lower center")
    panel.invert_yaxis()
    panel.set(xlabel="greatest drift (px)", ylabel="particle")
    panel.set_title("drift before and after, fitted anew in the aligned images", fontsize=10)
    return figure


def _of(table: pd.DataFrame, particle: int) -> pd.DataFrame:
    return table[(table["particle_id"] == particle) & table["success"]]
