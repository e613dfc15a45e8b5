"""The motion of another choice among particles, at once: their places and weights stay those of all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.geometry import centre
from stackalign.core.spots import motion_kernels as kernels
from stackalign.core.spots.motion import FLOOR
from stackalign.core.transform_fit import needed_points

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from stackalign.core.spots.motion import TrackMotion
    from stackalign.core.spots.tracks import TrackSet

    Array = NDArray[np.float64]

_CODES = {"translation": 0, "euclidean": 1, "similarity": 2, "affine": 3}


class Reselection:
    """Fits each frame once to the places of the chosen particles, instead of settling places, weights and motion.

    Parameters
    ----------
    tracks : TrackSet
        The particles.
    motion : TrackMotion
        Of all of them: places in the scene and robust weights are taken from it.
    model : str
        "translation", "euclidean", "similarity" or "affine".
    shape : tuple of int
        Of the frames.
    """

    def __init__(self, tracks: TrackSet, motion: TrackMotion, model: str, shape: tuple[int, ...]) -> None:
        self._ids = np.asarray(tracks.ids)
        self._code, self._needed = _CODES[model], needed_points(model, tracks.ndim)
        self._middle = centre(shape)
        here = tracks.found.T
        self._points = np.ascontiguousarray(
            np.where(here[..., None], np.swapaxes(tracks.position, 0, 1) - self._middle, 0.0)
        )
        self._scene = np.nan_to_num(motion.scene - self._middle)
        known = np.mean(np.swapaxes(tracks.position_error, 0, 1) ** 2, axis=2)
        finite = np.isfinite(known) & here
        usual = float(np.median(known[finite])) if finite.any() else 1.0
        variance = np.where(np.isfinite(known), known, usual) + FLOOR**2
        # a particle that moves on its own among all may be the only one that is left: its weight is small, not nothing
        self._weight = np.where(here, np.maximum(np.nan_to_num(motion.weight.T), 1e-3) / variance, 0.0)

    def motion(self, include: Iterable[int]) -> tuple[Array, Array, Array]:
        """Return drift (T, d) of the field's centre, angle (T,) in degrees, error (T, d); NaN without particles."""
        length, count, ndim = self._points.shape
        chosen = np.isin(self._ids, list(include))
        weight = np.ascontiguousarray(np.where(chosen[None], self._weight, 0.0))
        linear, shift = np.tile(np.eye(ndim), (length, 1, 1)), np.zeros((length, ndim))
        used = np.zeros(length, np.int64)
        if count:
            kernels.fit_frames(self._points, self._scene, weight, self._code, self._needed, linear, shift, used)
        seen = used > 0
        if seen.any():
            # the first frame that was seen is the reference
            first = int(np.argmax(seen))
            back = np.linalg.inv(linear[first])
            shift = (shift - shift[first]) @ back.T
            linear = back @ linear
        matrices = np.tile(np.eye(ndim + 1), (length, 1, 1))
        matrices[:, :-1, :-1], matrices[:, :-1, -1] = linear, shift
        drift = -np.linalg.solve(linear, shift[..., None])[..., 0]
        angle = _degrees(linear)
        with np.errstate(divide="ignore"):
            error = 1.0 / np.sqrt(weight.sum(1))
        drift[~seen], angle[~seen], error[~seen] = np.nan, np.nan, np.nan
        return np.asarray(drift), angle, np.repeat(error[:, None], ndim, axis=1)

    def seen(self, matrices: Array) -> tuple[Array, Array]:
        """Return drift (T, d) of the field's centre and angle (T,) in degrees of matrices moving -> reference."""
        linear = matrices[:, :-1, :-1]
        right = self._middle - matrices[:, :-1, -1]
        return np.linalg.solve(linear, right[..., None])[..., 0] - self._middle, _degrees(linear)


def _degrees(linear: Array) -> Array:
    """Return how far the scene turned, degrees; in 3-D the magnitude."""
    if linear.shape[1] == 2:
        turned = np.arctan2(linear[:, 1, 0] - linear[:, 0, 1], linear[:, 0, 0] + linear[:, 1, 1])
        return np.asarray(-np.rad2deg(turned))
    trace = np.trace(linear, axis1=1, axis2=2) / np.cbrt(np.maximum(np.linalg.det(linear), 1e-12))
    return np.asarray(np.rad2deg(np.arccos(np.clip((trace - 1) / 2, -1, 1))))
