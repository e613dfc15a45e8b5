"""One pick as a line of the table and as a box on the canvas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stackalign.picking import Particles, box_around, reason_of
from stackalign.widgets._pick_canvas import BoxView
from stackalign.widgets._picks_table import PickRow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.spots.gaussian import SpotFit
    from stackalign.core.spots.picks import Pick


def pick_row(pick: Pick, fit: SpotFit | None, particles: Particles, first: int) -> PickRow:
    """Return the line of a pick.

    Parameters
    ----------
    pick : Pick
        The box.
    fit : SpotFit or None
        In its own frame; None as long as that has not been read.
    particles : Particles
        What is known of all of them.
    first : int
        The movie's frame that the time range begins with.
    """
    tracks, found = particles.tracks, "–"
    if tracks is not None and pick in particles.followed:
        k = int(np.flatnonzero(tracks.ids == pick.id)[0])
        found = f"{int(tracks.found[k].sum())}"
    where = f"picked in frame {pick.frame + first}"
    if fit is None:
        y, x = pick.centre[-2:]
        return PickRow(pick.id, (str(pick.id), f"{y:.0f}", f"{x:.0f}", "–", "–", found), "", f"{where}, not fitted")
    known = bool(np.isfinite(fit.position).all())
    words = (
        str(pick.id),
        f"{fit.y:.2f}" if known else "–",
        f"{fit.x:.2f}" if known else "–",
        f"{float(np.mean(fit.spot.sigma)):.2f}" if known else "–",
        f"{fit.r_squared:.2f}" if np.isfinite(fit.r_squared) else "–",
        found,
    )
    reason = reason_of(fit)
    return PickRow(pick.id, words, reason, f"Particle {pick.id}, {where}: {reason or 'good fit'}")


def box_view(
    pick: Pick, fit: SpotFit | None, here: bool, place: NDArray[np.float64] | None, chosen: bool, shape: tuple[int, ...]
) -> BoxView:
    """Return the box of a pick as it is drawn.

    Parameters
    ----------
    pick : Pick
        The box.
    fit : SpotFit or None
        In the frame on show.
    here : bool
        Whether it was picked in the frame on show.
    place : ndarray or None
        Where it was followed to, pixels.
    chosen : bool
        Whether the panel shows it.
    shape : tuple of int
        Of the frame.
    """
    box, centre, state = pick.box, pick.centre, "elsewhere"
    if here:
        state = "bad" if fit is not None and reason_of(fit) else "good"
        if fit:
            centre = tuple(float(v) for v in fit.position)
    elif place is not None:
        box, state, centre = box_around(place, pick.box.shape, shape), "good", tuple(map(float, place))
    return BoxView(pick.id, pair(box.start[-2:]), pair(box.stop[-2:]), state, chosen, (centre[-2], centre[-1]))


def pair(values: tuple[int, ...]) -> tuple[int, int]:
    """Return two numbers as plain ones."""
    return int(values[0]), int(values[1])
