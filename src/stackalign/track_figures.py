"""Figures of followed particles for files; no pyplot, no display."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from matplotlib.figure import Figure

    from stackalign.trajectories import Trajectories

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a500", "#8c6bb1")
_GREY = "#999999"


def trajectories_figure(trajectories: Trajectories, exclude: Iterable[int] = ()) -> Figure:
    """Return drift, residual and common motion, a row an axis; excluded particles grey and dashed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    out = set(exclude)
    ndim = trajectories.tracks.ndim
    figure = Figure(figsize=(12, 2.6 * ndim + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(ndim, 3, sharex=True, squeeze=False)
    frames = np.arange(trajectories.tracks.length)
    motion = trajectories.exact(out) if trajectories.included(out) else None
    for i, axis in enumerate("zyx"[-ndim:]):
        for k, number in enumerate(trajectories.numbers):
            grey = number in out
            look = {
                "color": _GREY if grey else _COLOURS[(number - 1) % len(_COLOURS)],
                "lw": 0.8,
                "ls": "--" if grey else "-",
            }
            panels[i, 0].plot(frames, trajectories.drift[k, :, i], label=f"{number}", **look)
            panels[i, 1].plot(frames, trajectories.residual[k, :, i], **look)
        panels[i, 0].set_ylabel(f"{axis} (px)")
        if motion is not None:
            panels[i, 2].plot(frames, motion.drift[:, i], color="#000000", lw=1.0)
            low, high = motion.drift[:, i] - motion.error[:, i], motion.drift[:, i] + motion.error[:, i]
            panels[i, 2].fill_between(frames, low, high, color="#56b4e9", alpha=0.5, lw=0)
    included = len(trajectories.included(out))
    titles = (
        "drift of each particle",
        "beside the common motion",
        f"motion of {included} of {len(trajectories.numbers)}",
    )
    for panel, title in zip(panels[0], titles, strict=True):
        panel.set_title(title)
    for panel in panels[-1]:
        panel.set_xlabel("frame")
    if len(trajectories.numbers) <= 20:
        panels[0, 0].legend(fontsize=6, ncols=4, title="particle", title_fontsize=6)
    return figure


def save_trajectories(path: str | PathLike[str], trajectories: Trajectories, exclude: Iterable[int] = ()) -> Path:
    """Write `trajectories_figure` to a file; a name without an ending becomes a PNG.

    Raises
    ------
    StackWriteError
        If it cannot be written; an old file stands.
    """
    from stackalign.io.atomic import replacing

    target = Path(path)
    if not target.suffix:
        target = target.with_suffix(".png")
    figure = trajectories_figure(trajectories, exclude)
    with replacing(target) as part:
        figure.savefig(part, format=target.suffix[1:].lower(), dpi=150)
    return target
