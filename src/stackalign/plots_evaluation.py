"""Figures of experiments: error over translation and rotation, bars over a parameter, inconsistency against time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.plots import AFTER, AXIS_COLOURS, BEFORE, new_figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_FEW = 6  # lines of one colour that can still be told apart
_COLOURS = (AFTER, AXIS_COLOURS["x"], AXIS_COLOURS["z"], "#CC79A7", "#D55E00", "#56B4E9")
QUANTITIES = {
    "inconsistency": "alignment inconsistency",
    "error_px": "rms error of the corners (px)",
}


def heat_map_figure(table: pd.DataFrame, quantity: str = "inconsistency", *, ink: str = "black") -> Figure:
    """Show the mean over draws for each translation and rotation: one map for doing nothing, one for each variant.

    Parameters
    ----------
    table : DataFrame
        A row a trial: ``variant``, ``translation_px``, ``rotation_deg``, ``inconsistency`` and ``error_px`` with
        ``inconsistency_before`` and ``error_before_px``.
    quantity : {"inconsistency", "error_px"}
        What is shown; all maps share one logarithmic scale.
    ink : str
        Colour of text and axes.
    """
    from matplotlib.colors import LogNorm

    before = {"inconsistency": "inconsistency_before", "error_px": "error_before_px"}[quantity]
    maps = [("doing nothing", _gridded(table, before))]
    maps += [(str(name), _gridded(part, quantity)) for name, part in table.groupby("variant", sort=False)]
    values = np.concatenate([grid.to_numpy(float).ravel() for _, grid in maps])
    positive = values[np.isfinite(values) & (values > 0)]
    low, high = (float(positive.min()), float(positive.max())) if positive.size else (0.1, 1.0)
    norm = LogNorm(low, max(high, low * 1.01))
    figure = new_figure((2.9 * len(maps) + 1.0, 3.1))
    panels = figure.subplots(1, len(maps), squeeze=False, sharey=True)[0]
    for panel, (title, grid) in zip(panels, maps, strict=True):
        shown = panel.imshow(
            np.maximum(grid.to_numpy(float), low), norm=norm, cmap="viridis", origin="lower", aspect="auto"
        )
        panel.set_xticks(range(len(grid.columns)), [f"{v:g}" for v in grid.columns])
        panel.set_yticks(range(len(grid.index)), [f"{v:g}" for v in grid.index])
        panel.set_xlabel("translation (px)")
        panel.set_title(title, color=ink, fontsize=9)
        _plain(panel, ink)
        if grid.size <= 30:
            for i, row in enumerate(grid.to_numpy(float)):
                for j, value in enumerate(row):
                    bright = norm(max(value, low)) > 0.6
                    panel.text(j, i, f"{value:.2g}", ha="center", va="center", fontsize=6, color="k" if bright else "w")
    panels[0].set_ylabel("rotation (deg)")
    bar = figure.colorbar(shown, ax=list(panels), shrink=0.9, aspect=25)
    bar.set_label(QUANTITIES[quantity], color=ink)
    bar.ax.tick_params(colors=ink, labelsize=7, which="both")
    return figure


def bars_figure(table: pd.DataFrame, quantity: str = "inconsistency", *, ink: str = "black") -> Figure:
    """Show the mean over all trials of each variant as a bar with its standard deviation, beside doing nothing."""
    before = {"inconsistency": "inconsistency_before", "error_px": "error_before_px"}[quantity]
    parts = list(table.groupby("variant", sort=False))
    names = ["doing nothing", *(str(name) for name, _ in parts)]
    columns = [table[before], *(part[quantity] for _, part in parts)]
    means = np.array([c.mean() for c in columns])
    spread = np.array([c.std(ddof=0) for c in columns])
    figure = new_figure((1.2 + 0.9 * len(names), 3.4))
    panel = figure.subplots()
    # down to where the smallest value still has a bar to see: the axis is logarithmic
    below = np.minimum(spread, 0.9 * means)
    panel.bar(names, means, color=[BEFORE, *[AFTER] * len(parts)], yerr=[below, spread], capsize=3, ecolor=ink)
    panel.set_yscale("log")
    if (means > 0).any():
        panel.set_ylim(bottom=float(means[means > 0].min()) / 4)
    panel.set_ylabel(QUANTITIES[quantity])
    panel.tick_params(axis="x", rotation=30)
    _plain(panel, ink)
    return figure


def course_figure(
    courses: Mapping[str, Sequence[Sequence[tuple[float, float]]]], before: float, *, ink: str = "black"
) -> Figure:
    """Show the inconsistency against the time since the start, a line a trial, and that of doing nothing.

    Of many trials the median stands out, drawn while at least half of them still run.

    Parameters
    ----------
    courses : mapping of str to lists of (seconds, inconsistency)
        By variant.
    before : float
        Mean inconsistency of doing nothing.
    ink : str
        Colour of text and axes.
    """
    figure = new_figure((6.0, 3.4))
    panel = figure.subplots()
    for k, (name, lines) in enumerate(courses.items()):
        colour = _COLOURS[k % len(_COLOURS)]
        arrays = [np.array(line, float).T for line in lines]
        many = len(arrays) > _FEW
        for n, (seconds, values) in enumerate(arrays):
            label = name if n == 0 and not many else None
            shown: dict[str, Any] = {"color": colour, "lw": 0.5 if many else 1, "alpha": 0.25 if many else 1}
            panel.plot(np.maximum(seconds, 1e-2), values, drawstyle="steps-post", label=label, **shown)
            panel.plot(max(seconds[-1], 1e-2), values[-1], "o", ms=2 if many else 3, color=colour, alpha=shown["alpha"])
        if many:
            panel.plot(*_median_course(arrays), drawstyle="steps-post", color=colour, lw=2, label=name)
    panel.axhline(before, color=BEFORE, lw=1, ls="--", label="doing nothing")
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel("time (s)")
    panel.set_ylabel(QUANTITIES["inconsistency"])
    _plain(panel, ink)
    figure.legend(frameon=False, ncols=3, loc="outside lower center", labelcolor=ink)
    return figure


def _median_course(arrays: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return (seconds, median) of steps that each hold their value until the next, to the median end."""
    end = float(np.median([seconds[-1] for seconds, _ in arrays]))
    times = np.geomspace(1e-2, max(end, 2e-2), 400)
    held = [values[np.searchsorted(seconds, times, side="right") - 1] for seconds, values in arrays]
    return np.array([times, np.median(held, axis=0)])


def _gridded(table: pd.DataFrame, quantity: str) -> pd.DataFrame:
    return table.pivot_table(index="rotation_deg", columns="translation_px", values=quantity, aggfunc="mean")


def _plain(panel: Any, ink: str) -> None:
    panel.patch.set_alpha(0)
    panel.tick_params(colors=ink, labelsize=8, which="both")
    panel.xaxis.label.set_color(ink)
    panel.yaxis.label.set_color(ink)
    for side, spine in panel.spines.items():
        spine.set_color(ink)
        spine.set_visible(side in ("left", "bottom"))
