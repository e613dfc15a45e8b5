"""Figures of trials on pairs: how many are right to how many pixels, and whether probabilities keep their word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stackalign.plots import AFTER, BEFORE, FLAG, new_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_COLOURS = (AFTER, FLAG, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def errors_figure(trials: pd.DataFrame) -> Figure:
    """Show the share of all pairs whose corner error is below a value, a line a method, doing nothing in grey.

    A refused pair never counts as below, so that a line ends at the share that was accepted.
    """
    figure = new_figure((5.2, 3.6))
    axes = figure.subplots()
    still = trials.drop_duplicates(["group", "pair"])["nothing_px"].to_numpy(float)
    axes.step(*_rising(still, len(still)), where="post", color=BEFORE, label="doing nothing")
    for k, (name, part) in enumerate(trials.groupby("method", sort=False)):
        accepted = part.loc[~part["refused"].astype(bool), "error_px"].to_numpy(float)
        colour = _COLOURS[k % len(_COLOURS)]
        axes.step(*_rising(accepted, len(part)), where="post", color=colour, label=str(name))
    for limit in (1, 3, 5):
        axes.axvline(limit, color="#cccccc", lw=0.6, zorder=0)
    axes.set_xscale("log")
    axes.set_xlabel("mean corner error (px)")
    axes.set_ylabel("share of the pairs below")
    axes.set_ylim(0, 1.02)
    axes.legend(fontsize=7, loc="upper left")
    return figure


def reliability_figure(bins: pd.DataFrame, limit: float = 3.0) -> Figure:
    """Show the share of accepted pairs under ``limit`` pixels against the probability that was promised."""
    figure = new_figure((3.8, 3.6))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=BEFORE, lw=0.8)
    for k, (name, part) in enumerate(bins.groupby("method", sort=False)):
        colour = _COLOURS[k % len(_COLOURS)]
        axes.plot(part["promised"], part["found"], "o-", color=colour, ms=4, label=str(name))
        for promised, found, count in zip(part["promised"], part["found"], part["pairs"], strict=True):
            axes.annotate(str(count), (promised, found), fontsize=6, xytext=(3, 3), textcoords="offset points")
    axes.set_xlabel(f"promised probability of under {limit:g} px")
    axes.set_ylabel("share that was")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    if len(bins):
        axes.legend(fontsize=7)
    return figure


def _rising(errors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps of a cumulative share."""
    ordered = np.sort(np.maximum(errors, 1e-2))
    last = max(float(ordered[-1]) if len(ordered) else 1.0, 100.0)
    return np.r_[1e-2, ordered, last], np.r_[0, np.arange(1, len(ordered) + 1), len(ordered)] / max(count, 1)
