"""Find rotation, scale and translation over the whole range: correlation of feature maps by FFT, on what overlaps.

Masked normalised correlation after Padfield, IEEE Trans. Image Processing 21, 2012, eq. 4 to 7, summed over channels;
the features have no mean, so that only their energies on the overlap are normalised. A template may be smaller or
larger than the image that it is looked for in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stackalign.core.geometry import centre, corners
from stackalign.core.multimodal.refine import FeatureImage
from stackalign.core.threads import map_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Features = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A place where the moving features may belong.

    Attributes
    ----------
    matrix : ndarray (3, 3)
        Moving -> fixed, pixels; a similarity.
    score : float
        Correlation on the overlap times the root of the overlap's share of the smaller image: chance alone reaches the
        same height wherever the image lies.
    significance : float
        Height of the score above all other places of this rotation and scale, in (robust) standard deviations.
    """

    matrix: Array
    score: float
    significance: float


class Turned(Protocol):
    """Gives the moving features as a similarity lays them on a canvas of their own."""

    def __call__(self, matrix: Array, shape: tuple[int, int]) -> FeatureImage:
        """Return the features of the moving image carried by ``matrix`` (moving -> canvas) onto ``shape`` pixels."""
        ...


def search(
    fixed: Features | FeatureImage,
    moving: Features | FeatureImage,
    *,
    angles: Sequence[float] = (0.0,),
    scales: Sequence[float] = (1.0,),
    turned: Turned | None = None,
    count: int = 24,
    peaks: int = 3,
    max_shift: float | None = None,
    least_overlap: float = 0.3,
) -> list[Candidate]:
    """Return the likeliest similarities, the best first.

    Parameters
    ----------
    fixed, moving : ndarray (channels, y, x) float32, or FeatureImage
        Zero-mean features of the same channels, any sizes; reduce them first: the time grows with the pixels, the
        angles and the scales.
    angles : sequence of float
        Rotations to try, radians.
    scales : sequence of float
        Magnifications moving -> fixed to try.
    turned : callable, optional
        Gives the features of a turned copy; without it, those of the moving image are resampled, which suits features
        that do not depend on orientation.
    count : int
        Candidates that are returned at most.
    peaks : int
        Of them from each angle and scale.
    max_shift : float, optional
        Pixels by which the centre of the moving image may lie away from that of the fixed one.
    least_overlap : float
        Share of the smaller image that both must show.
    """
    first, second = FeatureImage.of(fixed), FeatureImage.of(moving)
    if first.values.shape[2] != second.values.shape[2]:
        raise ValueError(
            f"both need the same channels: fixed has {first.values.shape[2]}, moving {second.values.shape[2]}"
        )
    view = turned if turned is not None else Resampled(second)
    motions = [similarity(a, s) for s in scales for a in angles]
    extent = np.ceil(np.max([_extent(m, second.shape) for m in motions], axis=0)).astype(int)
    correlator = _Correlator.of(first, (int(extent[0]), int(extent[1])), max_shift, least_overlap)
    placed = map_threads(lambda motion: _best(correlator, view, motion, second.shape, peaks), motions)
    found = sorted((c for part in placed for c in part), key=lambda c: -c.score)
    return found[:count]


@dataclass(frozen=True, slots=True, eq=False)
class Resampled:
    """Turned copies of features by linear interpolation of the maps themselves; see `Turned`."""

    moving: FeatureImage

    def __call__(self, matrix: Array, shape: tuple[int, int]) -> FeatureImage:
        """Return the maps and weights, resampled."""
        from stackalign.core.resample import warp_frame

        maps = [
            warp_frame(np.ascontiguousarray(self.moving.values[..., k]), matrix, order=1, output_shape=shape)
            for k in range(self.moving.values.shape[2])
        ]
        weight = warp_frame(self.moving.weight, matrix, order=1, output_shape=shape)
        return FeatureImage(np.ascontiguousarray(np.stack(maps, -1)), np.where(weight > 0.5, weight, 0))


def similarity(angle: float, scale: float) -> Array:
    """Return the linear part (2, 2) of a rotation (y axis towards x axis) and magnification."""
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s], [s, c]])


@dataclass(frozen=True, slots=True, eq=False)
class _Correlator:
    """The spectra of the fixed features, worked out once for all turns."""

    shape: tuple[int, int]
    canvas: tuple[int, int]
    padded: tuple[int, int]
    values: NDArray[Any]
    energy: NDArray[Any]
    known: NDArray[Any]
    area: float
    max_shift: float | None
    least_overlap: float

    @classmethod
    def of(
        cls, fixed: FeatureImage, canvas: tuple[int, int], max_shift: float | None, least_overlap: float
    ) -> _Correlator:
        from scipy import fft

        h, w = (fft.next_fast_len(n + m - 1, real=True) for n, m in zip(fixed.shape, canvas, strict=True))
        weighted = np.moveaxis(fixed.values, -1, 0) * fixed.weight
        energy = (np.moveaxis(fixed.values, -1, 0) * weighted).sum(0)
        return cls(
            fixed.shape, canvas, (h, w), fft.rfft2(weighted, (h, w)), fft.rfft2(energy, (h, w)),
            fft.rfft2(fixed.weight, (h, w)), float(fixed.weight.sum()), max_shift, least_overlap,
        )  # fmt: skip

    def score(self, turned: FeatureImage) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the score of every shift (canvas -> fixed), circularly indexed, and where it is allowed."""
        from scipy import fft

        weighted = np.moveaxis(turned.values, -1, 0) * turned.weight
        energy = (np.moveaxis(turned.values, -1, 0) * weighted).sum(0)
        spectra = fft.rfft2(np.concatenate([weighted, energy[None], turned.weight[None]]), self.padded)
        both = fft.irfft2((self.values * np.conj(spectra[:-2])).sum(0), self.padded)
        of_moving = fft.irfft2(self.known * np.conj(spectra[-2]), self.padded)
        of_fixed = fft.irfft2(self.energy * np.conj(spectra[-1]), self.padded)
        overlap = fft.irfft2(self.known * np.conj(spectra[-1]), self.padded)
        smaller = min(self.area, float(turned.weight.sum()))
        allowed = overlap > self.least_overlap * smaller
        norm = np.sqrt(np.maximum(of_moving, 1e-12) * np.maximum(of_fixed, 1e-12))
        share = np.minimum(np.maximum(overlap, 0) / max(smaller, 1e-6), 1.0)
        if self.max_shift is not None:
            away = [
                _signed(n, f) + (c - f) / 2 for n, c, f in zip(self.padded, self.canvas, self.shape, strict=True)
            ]  # of the canvas's centre from the fixed one's
            allowed &= np.hypot(away[0][:, None], away[1]) <= self.max_shift
        return np.where(allowed, both / norm * np.sqrt(share), -1.0).astype(np.float32), allowed


def _best(correlator: _Correlator, view: Turned, motion: Array, shape: tuple[int, int], peaks: int) -> list[Candidate]:
    """Return the best places of one rotation and scale."""
    from scipy.ndimage import maximum_filter

    canvas = correlator.canvas
    onto = np.eye(3)
    onto[:2, :2] = motion
    onto[:2, 2] = centre(canvas) - motion @ centre(shape)
    score, allowed = correlator.score(view(onto, canvas))
    if not allowed.any():
        return []
    middle = float(np.median(score[allowed]))
    spread = 1.4826 * float(np.median(np.abs(score[allowed] - middle))) + 1e-9
    tops = np.flatnonzero((score == maximum_filter(score, 5, mode="wrap")) & allowed)
    tops = tops[np.argsort(-score.ravel()[tops], kind="stable")[:peaks]]
    out = []
    for top in tops:
        at = np.unravel_index(top, score.shape)
        shift = [float(_signed(n, f)[i]) for i, n, f in zip(at, correlator.padded, correlator.shape, strict=True)]
        matrix = onto.copy()
        matrix[:2, 2] += shift
        value = float(score[at])
        out.append(Candidate(matrix, value, (value - middle) / spread))
    return out


def _signed(padded: int, size: int) -> Array:
    """Return the shift that each circular index stands for: up to ``size`` - 1 forwards, else backwards."""
    index = np.arange(padded, dtype=float)
    return np.where(index < size, index, index - padded)


def _extent(motion: Array, shape: tuple[int, int]) -> Array:
    """Return the size of the box that holds a turned image."""
    placed = corners(shape) @ motion.T
    return np.asarray(np.ptp(placed, axis=0) + 1)
