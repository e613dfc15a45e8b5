"""Proof of a motion: estimate it without some of the particles, and see how those move after it; pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.spots.motion import motion_from_tracks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.spots.tracks import TrackSet


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """How well the motion of some particles predicts the others.

    Attributes
    ----------
    ids : ndarray (P,)
        Particles, each held out once.
    before, after : ndarray (P, T, d)
        Where each particle lies off its mean place in the stack as it is, and after the motion estimated without it;
        pixels, NaN where it was not found.
    floor : float
        Root mean square per axis that the fit errors of the particles alone would leave, pixels.
    """

    ids: NDArray[np.int64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    floor: float

    @property
    def before_rms(self) -> float:
        """Root mean square per axis over all particles before, pixels."""
        return float(np.sqrt(np.nanmean(self.before**2)))

    @property
    def after_rms(self) -> float:
        """Root mean square per axis over all held-out particles after, pixels."""
        return float(np.sqrt(np.nanmean(self.after**2)))

    @property
    def reduction_percent(self) -> float:
        """How much of the drift is gone."""
        return 100.0 * (1.0 - self.after_rms / self.before_rms) if self.before_rms > 0 else 0.0

    @property
    def sentence(self) -> str:
        """The result in words."""
        return (
            f"held-out particles move {self.before_rms:.3g} px rms before and {self.after_rms:.3g} px after alignment "
            f"({self.reduction_percent:.0f} % less); their fit errors alone would leave {self.floor:.3g} px"
        )


def hold_out(
    tracks: TrackSet,
    model: str = "euclidean",
    *,
    folds: int | None = None,
    shape: tuple[int, ...] | None = None,
    include: list[int] | None = None,
) -> HeldOut:
    """Estimate the motion without some of the particles and measure how those move after it.

    Parameters
    ----------
    tracks : TrackSet
        At least two particles.
    model : str
        As for `motion_from_tracks`.
    folds : int, optional
        Parts into which the particles are split; each particle alone (leave-one-out) if None.
    shape : tuple of int, optional
        Shape of the frames.
    include : list of int, optional
        Particles to use; all but those that move on their own if None.

    Returns
    -------
    HeldOut

    Raises
    ------
    ValueError
        If fewer than two particles can be used.
    """
    if include is None:
        strays = motion_from_tracks(tracks, model, shape=shape).outliers
        include = [int(k) for k in tracks.ids if int(k) not in strays]
    used = tracks.selected(include)
    if len(used) < 2:
        raise ValueError(f"holding particles out needs at least two that follow the motion, there are {len(used)}")
    parts = len(used) if folds is None else min(max(int(folds), 2), len(used))
    after = np.full(used.position.shape, np.nan)
    for part in range(parts):
        out = np.arange(len(used)) % parts == part
        rest = motion_from_tracks(used.selected(used.ids[~out]), model, shape=shape)
        matrices = rest.transforms.matrices
        mapped = np.einsum("tij,ptj->pti", matrices[:, :-1, :-1], used.position[out]) + matrices[:, :-1, -1]
        # a frame that none of the others saw says nothing about them
        mapped[:, ~rest.transforms.valid] = np.nan
        after[out] = mapped
    error = used.position_error[np.isfinite(used.position_error)]
    return HeldOut(
        ids=used.ids,
        before=_centred(used.position),
        after=_centred(after),
        floor=float(np.sqrt(np.mean(error**2))) if len(error) else np.nan,
    )


def _centred(position: NDArray[np.float64]) -> NDArray[np.float64]:
    count = np.isfinite(position).sum(1, keepdims=True)
    mean = np.where(np.isfinite(position), position, 0.0).sum(1, keepdims=True) / np.maximum(count, 1)
    return np.asarray(position - mean)
