"""Where a motion may be when nothing is known: translation searches over rotated and scaled copies of the reference."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.frames.holes import filled_along_lines
from stackalign.core.geometry import centre
from stackalign.core.search.correlation import FILLABLE, Peak, SearchTemplate, prepare_search, search, search_frames
from stackalign.core.warping.resample import warp_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

ANGLE_STEP = 5.0  # degrees: half of it moves the borders of a frame of 64 pixels by 1.4, which a refinement makes good
SCALE_STEP = 1.08


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A motion (d+1, d+1) moving -> reference of reduced frames, and the peak that it is."""

    matrix: Array
    peak: Peak


@dataclass(frozen=True, slots=True, eq=False)
class SearchBank:
    """Copies of a reduced reference, turned and scaled, the least first."""

    poses: tuple[tuple[Array, SearchTemplate], ...]
    thorough: bool

    @classmethod
    def of(
        cls,
        reference: NDArray[np.float32],
        angles: Sequence[float],
        scales: Sequence[float],
        spacing: Sequence[float],
        *,
        max_shift: Sequence[float] | None = None,
        min_overlap: float = 0.25,
        thorough: bool = False,
        fillable: bool = False,
    ) -> SearchBank:
        """Turn and scale a reference.

        Parameters
        ----------
        reference : ndarray (y, x) or (z, y, x), float32
            Reduced; NaN where it does not count.
        angles, scales : sequences of float
            Degrees, in the plane of y and x; factors.
        spacing : sequence of float (d,)
            Size of a pixel along each axis.
        max_shift, min_overlap
            See `prepare_search`.
        thorough : bool
            Try every pose, even if one fits clearly.
        fillable : bool
            Whether little that is not known may be made up from what is beside it: searches are twice as fast then.
        """
        poses = []
        for angle, scale in sorted(product(angles, scales), key=lambda p: abs(p[0]) + 30 * abs(np.log(p[1]))):
            turned = pose(angle, scale, reference.shape, spacing)
            image = reference
            if angle or scale != 1:
                image = warp_frame(reference, turned, order=3, fill="nan")
            known = np.isfinite(image)
            if fillable and 1 > known.mean() > FILLABLE:
                image, known = filled_along_lines(image, known), np.ones_like(known)
            mask = None if known.all() else known
            if mask is not None:
                if mask.sum() < 16:
                    continue
                image = np.where(mask, image, np.float32(0))
            if float(np.ptp(image if mask is None else image[mask])) == 0:
                continue
            poses.append((turned, prepare_search(image, mask, max_shift=max_shift, min_overlap=min_overlap)))
        return cls(tuple(poses), thorough)

    def candidates(
        self, frames: Sequence[NDArray[np.float32]], *, thorough: bool = False, most: int = 6
    ) -> list[list[Candidate]]:
        """Return the best motions of each reduced frame, NaN where it does not count; ``thorough``: try every pose."""
        found: list[list[Candidate]] = [[] for _ in frames]
        pending = list(range(len(frames)))
        for turned, template in self.poses:
            if not pending:
                break
            home, unclear = np.linalg.inv(turned), []
            for k, peak in zip(pending, _peaks([frames[k] for k in pending], template), strict=True):
                if np.isfinite(peak.significance):
                    shift = np.eye(len(turned))
                    shift[:-1, -1] = np.where(np.array(frames[k].shape) > 2, peak.shift, 0)  # few planes: no slope
                    found[k].append(Candidate(home @ shift, peak))
                if thorough or self.thorough or not (np.isfinite(peak.significance) and peak.clear):
                    unclear.append(k)
            pending = unclear
        return [sorted(some, key=lambda c: -c.peak.significance)[:most] for some in found]


def _peaks(frames: Sequence[NDArray[np.float32]], template: SearchTemplate) -> list[Peak]:
    """Return the best shift of each frame, those without holes in one go."""
    known = [np.isfinite(frame) for frame in frames]
    whole = [k for k, seen in enumerate(known) if seen.all()]
    peaks = (
        dict(zip(whole, search_frames(np.stack([frames[k] for k in whole]), template), strict=True)) if whole else {}
    )
    for k, seen in enumerate(known):
        if k not in peaks:
            peaks[k] = search(np.where(seen, frames[k], np.float32(0)), seen, template)
    return [peaks[k] for k in range(len(frames))]


def angles_within(limit: float) -> list[float]:
    """Return the angles in degrees that are tried for rotations up to ``limit``."""
    if limit >= 180 - ANGLE_STEP / 2:
        return [float(a) for a in np.arange(-180 + ANGLE_STEP, 180 + 1e-9, ANGLE_STEP)]
    count = int(np.ceil((limit - ANGLE_STEP / 2) / ANGLE_STEP)) if limit > ANGLE_STEP / 2 else 0
    return [k * ANGLE_STEP for k in range(-count, count + 1)]


def scales_within(limit: float) -> list[float]:
    """Return the factors that are tried for scales from ``1 / limit`` to ``limit``."""
    reach = np.log(max(limit, 1.0)) / np.log(SCALE_STEP)
    count = int(np.ceil(reach - 0.5)) if reach > 0.5 else 0
    return [float(SCALE_STEP**k) for k in range(-count, count + 1)]


def pose(angle: float, scale: float, shape: Sequence[int], spacing: Sequence[float]) -> Array:
    """Return the matrix that turns by ``angle`` degrees in (y, x) and scales about the centre, in physical units."""
    d = len(shape)
    size = np.asarray(spacing, float)
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    turn = np.eye(d)
    turn[-2:, -2:] = [[c, -s], [s, c]]
    linear = scale * turn * size[None, :] / size[:, None]
    middle = centre(shape)
    out = np.eye(d + 1)
    out[:-1, :-1] = linear
    out[:-1, -1] = middle - linear @ middle
    return out
