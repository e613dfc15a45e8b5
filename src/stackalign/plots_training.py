"""Figures of a training: the loss and what the network reports against steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackalign.plots import AFTER, BEFORE, new_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

_NOT_SHOWN = ("step", "seconds", "validation")
LABELS = {"hit": "coarse matches right (share)", "off": "fine matches off (px, median)", "corners": "corner error (px)"}


def curves_figure(history: Sequence[dict[str, Any]]) -> Figure:
    """Show each number of a training against steps: a line for the pairs trained on, points for held-out ones.

    Parameters
    ----------
    history : sequence of dict
        Rows with ``step`` and numbers; ``validation`` marks those of held-out pairs.
    """
    keys = [key for key in history[0] if key not in _NOT_SHOWN]
    figure = new_figure((3.0 * len(keys) + 0.6, 2.8))
    for panel, key in zip(figure.subplots(1, len(keys), squeeze=False)[0], keys, strict=True):
        for held_out, colour, style in ((False, BEFORE, "-"), (True, AFTER, "o-")):
            rows = [row for row in history if bool(row.get("validation")) is held_out and key in row]
            label = "held out" if held_out else "training"
            panel.plot([r["step"] for r in rows], [r[key] for r in rows], style, color=colour, ms=3, lw=1, label=label)
        panel.set_xlabel("step")
        panel.set_title(LABELS.get(key, key), fontsize=9)
        panel.tick_params(labelsize=7)
    figure.axes[0].legend(fontsize=7)
    return figure
