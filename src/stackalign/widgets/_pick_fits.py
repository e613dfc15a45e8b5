"""The fits of the picks that have been made so far, and where each particle is in the frame on show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.picking import Particles, box_around, fit_box

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.spots.gaussian import SpotFit
    from stackalign.core.spots.picks import Pick


class PickFits:
    """Remembers the fit of each pick in its own frame for as long as nothing changes that it depends on."""

    def __init__(self) -> None:
        self._fits: dict[tuple[Pick, Any], SpotFit] = {}

    def clear(self) -> None:
        """Forget everything: another movie."""
        self._fits.clear()

    def of(self, pick: Pick, particles: Particles) -> SpotFit | None:
        """Return the fit of a pick; None as long as its frame has not been seen."""
        return self._fits.get((pick, _options(particles)))

    def fit_missing(self, image: NDArray[Any], frame: int, particles: Particles) -> None:
        """Fit the picks of this frame that have no fit yet; those of other frames wait until theirs is shown."""
        options = _options(particles)
        for pick in particles.picks:
            if pick.frame == frame and (pick, options) not in self._fits:
                self._fits[(pick, options)] = fit_box(image, pick.box, particles.registrar)

    def seen(self, image: NDArray[Any], frame: int, number: int, particles: Particles) -> SpotFit | None:
        """Return the fit of a particle in this frame: in its own box, or where it was followed to."""
        pick = particles.pick(number)
        if pick.frame == frame:
            return self.of(pick, particles)
        place = followed_to(particles, number, frame)
        if place is None:
            return None
        return fit_box(image, box_around(place, pick.box.shape, image.shape), particles.registrar)


def followed_to(particles: Particles, number: int, frame: int) -> NDArray[np.float64] | None:
    """Return where a particle was followed to in a frame, pixels; None if it was not, or has been picked anew since."""
    tracks = particles.tracks
    if tracks is None or not 0 <= frame < tracks.length:
        return None
    rows = np.flatnonzero(tracks.ids == number)
    followed = next((pick for pick in particles.followed if pick.id == number), None)
    if not len(rows) or followed is None or followed not in particles.picks:
        return None
    place = tracks.position[int(rows[0]), frame]
    return place if np.isfinite(place).all() else None


def _options(particles: Particles) -> Any:
    """Return what a fit depends on besides the pick."""
    registrar = particles.registrar
    return (registrar.polarity, *registrar.fit_options.values())
