"""Find a motion over the whole range: blocks of one image looked for in the other by FFT, which may give way.

For each rotation and scale, blocks of the moving features are correlated with the fixed ones everywhere. Then the place
is sought where all of them fit together, each up to some pixels beside where a similarity puts it (deformable parts:
Felzenszwalb et al., IEEE PAMI 32, 2010, eq. 2 to 4): shear and perspective, which no grid of similarities can cover,
are taken up by that, and follow from where the blocks went. Correlations are normalised on what overlaps (Padfield,
IEEE Trans. Image Processing 21, 2012, eq. 4 to 7), so a template may be smaller or larger than the image.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stackalign.core.geometry import centre, corners
from stackalign.core.multimodal.block_fits import agreed_motions
from stackalign.core.multimodal.refine import FeatureImage
from stackalign.core.threads import map_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Features = NDArray[np.float32]

_LEAST_VIEW = 0.5  # of a block that must be in view to be compared


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A place where the moving features may belong.

    Attributes
    ----------
    matrix : ndarray (3, 3)
        Moving -> fixed, pixels.
    score : float
        Mean correlation of the blocks, less what their giving way costs; blocks out of view count as 0.
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
    blocks: int = 3,
    block_size: float = 0.45,
    give: float = 0.16,
    cost: float = 0.2,
    max_shift: float | None = None,
    least_overlap: float = 0.4,
    by_energy: bool = False,
) -> list[Candidate]:
    """Return the likeliest motions, the best first.

    Parameters
    ----------
    fixed, moving : ndarray (channels, y, x) float32, or FeatureImage
        Zero-mean features of the same channels, any sizes; reduce them first to about 100 pixels a side: the time grows
        with the pixels, the angles and the scales.
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
    blocks : int
        Along each axis of the moving image.
    block_size : float
        Side of a block as a share of the moving image's smaller side.
    give : float
        How far a block may lie beside its place, as a share of the moving image's smaller side.
    cost : float
        Of correlation, for going as far as that.
    max_shift : float, optional
        Pixels by which the centre of the moving image may lie away from that of the fixed one.
    least_overlap : float
        Share that must be in view, of as many blocks as can be at once.
    by_energy : bool
        Blocks count by the energy of their features: of features that are weak where little is seen, such blocks tell
        little. False: all blocks that are in view count the same.
    """
    first, second = FeatureImage.of(fixed), FeatureImage.of(moving)
    if first.values.shape[2] != second.values.shape[2]:
        raise ValueError(
            f"both need the same channels: fixed has {first.values.shape[2]}, moving {second.values.shape[2]}"
        )
    view = turned if turned is not None else Resampled(second)
    grid = _Grid(second.shape, blocks, block_size, give, cost, max_shift, least_overlap, by_energy)
    scene = _Scene.of(first, grid.side(max(scales)))
    motions = [(a, s) for s in scales for a in angles]
    placed = map_threads(lambda motion: _placed(scene, view, grid, *motion, peaks), motions)
    found = sorted((c for part in placed for c in part), key=lambda c: -c.score)
    best = found[:count]
    if not best:
        return []
    places, weights = np.stack([c.found for c in best]), np.stack([c.weights for c in best])
    agreed = agreed_motions(grid.centres(), places, weights, np.array([c.give for c in best], float), grid.shape)
    return [
        Candidate(motion if np.isfinite(motion).all() else c.similarity, c.score, c.significance)
        for c, motion in zip(best, agreed, strict=True)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class Resampled:
    """Turned copies of features by linear interpolation of the maps themselves; see `Turned`."""

    moving: FeatureImage

    def __call__(self, matrix: Array, shape: tuple[int, int]) -> FeatureImage:
        """Return the maps and weights, resampled."""
        from stackalign.core.warping.resample import warp_frame

        maps = [
            warp_frame(np.ascontiguousarray(self.moving.values[..., k]), matrix, order=1, output_shape=shape)
            for k in range(self.moving.values.shape[2])
        ]
        weight = warp_frame(self.moving.weight, matrix, order=1, output_shape=shape)
        return FeatureImage(np.ascontiguousarray(np.stack(maps, -1)), np.where(weight > 0.5, weight, np.float32(0)))


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    """How the moving image is cut into blocks."""

    shape: tuple[int, int]
    blocks: int
    block_size: float
    give: float
    cost: float
    max_shift: float | None
    least_overlap: float
    by_energy: bool

    def centres(self) -> Array:
        """Return the centres of the blocks, pixels of the moving image, (N, 2)."""
        half = self.block_size * min(self.shape) / 2
        lines = [np.linspace(min(half, n / 2), max(n - half, n / 2), self.blocks) - 0.5 for n in self.shape]
        return np.stack(np.meshgrid(*lines, indexing="ij"), -1).reshape(-1, 2)

    def allowed(self, scene: _Scene, counted: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return where the middle of the moving image may lie, if so many blocks can be compared there."""
        # the smaller of both images counts: a small fixed one, or a mask, never shows all blocks of a large moving one
        out = counted >= np.float32(self.least_overlap * max(float(counted.max()), 1.0))
        out[scene.shape[0] :] = False  # it is in view
        out[:, scene.shape[1] :] = False
        if self.max_shift is not None:
            away = [np.arange(n) - (f - 1) / 2 for n, f in zip(scene.padded, scene.shape, strict=True)]
            out &= np.hypot(away[0][:, None], away[1]) <= self.max_shift
        return np.asarray(out)

    def side(self, scale: float) -> int:
        """Return the side of a block in a copy of this magnification, an odd number of pixels."""
        return 2 * max(round(self.block_size * min(self.shape) * scale / 2), 3) + 1


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """The spectra of the fixed features, worked out once for all turns."""

    shape: tuple[int, int]
    padded: tuple[int, int]
    values: NDArray[Any]
    energy: NDArray[Any]
    known: NDArray[Any]
    _boxes: dict[tuple[int, int], tuple[NDArray[np.float32], NDArray[np.float32]]] = field(default_factory=dict)

    @classmethod
    def of(cls, fixed: FeatureImage, block: int) -> _Scene:
        from scipy import fft

        h, w = (fft.next_fast_len(n + block, real=True) for n in fixed.shape)
        weighted = np.moveaxis(fixed.values, -1, 0) * fixed.weight
        energy = (np.moveaxis(fixed.values, -1, 0) * weighted).sum(0)
        return cls(
            fixed.shape, (h, w), np.ascontiguousarray(fft.rfft2(weighted, (h, w))), fft.rfft2(energy, (h, w)),
            fft.rfft2(fixed.weight, (h, w)),
        )  # fmt: skip

    def correlation(self, block: FeatureImage) -> NDArray[np.float32]:
        """Return the correlation with a block at every place of its first pixel, circularly; 0 where it is not seen."""
        from scipy import fft

        from stackalign.core.multimodal.search_kernels import cross_spectra, normalised, weighted_maps

        whole = bool((block.weight == 1).all())
        stack = np.empty((len(self.values) + (1 if whole else 2), *block.shape), np.float32)
        weighted_maps(block.values, block.weight, stack)
        spectra = self._spectrum(stack)
        parts = np.empty((2 if whole else 4, *self.known.shape), np.complex64)
        cross_spectra(self.values, self.energy, self.known, spectra, parts)
        found = fft.irfft2(parts, self.padded)
        of_fixed, seen = self._box(block.shape) if whole else found[2:]
        out = np.empty(self.padded, np.float32)
        normalised(found, of_fixed, seen, np.float32(_LEAST_VIEW * max(float(block.weight.sum()), 1e-6)), out)
        return out

    def _spectrum(self, maps: NDArray[np.float32]) -> NDArray[Any]:
        """Return the spectra of small maps; rows of zeros are not transformed."""
        from scipy import fft

        return np.asarray(fft.fft(fft.rfft(maps, self.padded[1], axis=-1), self.padded[0], axis=-2))

    def _box(self, shape: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the fixed energy and how many known pixels lie under a block of this shape, at every place."""
        if shape not in self._boxes:
            from scipy import fft

            box = np.conj(self._spectrum(np.ones((1, *shape), np.float32))[0])
            of_fixed, seen = fft.irfft2(np.stack([self.energy * box, self.known * box]), self.padded)
            self._boxes[shape] = (of_fixed, seen)
        return self._boxes[shape]


@dataclass(frozen=True, slots=True, eq=False)
class _Fitting:
    """A place where blocks fit together: where each of them went, and how much each counts."""

    score: float
    significance: float
    similarity: Array
    found: Array
    weights: Array
    give: int


def _placed(scene: _Scene, view: Turned, grid: _Grid, angle: float, scale: float, peaks: int) -> list[_Fitting]:
    """Return the best places of one rotation and scale."""
    from scipy.ndimage import maximum_filter

    from stackalign.core.multimodal.search_kernels import gathered, pooled

    c, s = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[c, -s], [s, c]])
    side = grid.side(scale)
    reach = np.ptp(corners(grid.shape) @ linear.T, axis=0)
    canvas = (int(np.ceil(reach[0])) + 1 + side, int(np.ceil(reach[1])) + 1 + side)
    onto = np.eye(3)
    onto[:2, :2] = linear
    onto[:2, 2] = centre(canvas) - linear @ centre(grid.shape)
    copy = view(onto, canvas)
    middles = grid.centres() @ linear.T + onto[:2, 2]
    starts = np.round(middles).astype(int) - side // 2
    give = max(round(grid.give * min(grid.shape) * scale), 1)
    usable: list[tuple[int, int, int, Any, Any, Any, float]] = []
    total, counted = np.zeros(scene.padded, np.float32), np.zeros(scene.padded, np.float32)
    for k, (y, x) in enumerate(starts):
        part = FeatureImage(copy.values[y : y + side, x : x + side], copy.weight[y : y + side, x : x + side])
        if part.shape != (side, side) or part.known < _LEAST_VIEW * side**2:
            continue
        score = scene.correlation(part)
        energy = float(np.einsum("yxk,yxk,yx->", part.values, part.values, part.weight)) if grid.by_energy else 1.0
        best, along_y, along_x = np.empty_like(score), np.empty(score.shape, np.int16), np.empty(score.shape, np.int16)
        pooled(score, give, grid.cost / give**2, best, along_y, along_x)
        if grid.by_energy:
            best *= np.float32(energy)
        # index: where the canvas's middle lies
        gathered(best, score, -y + canvas[0] // 2, -x + canvas[1] // 2, total, counted)
        usable.append((k, y, x, along_y, along_x, score, energy))
    worth = sum(block[-1] for block in usable)
    if worth <= 0:
        return []
    total /= np.float32(worth)
    allowed = grid.allowed(scene, counted)
    if not allowed.any():
        return []
    total = np.where(allowed, total, np.float32(-1))
    middle = float(np.median(total[allowed]))
    spread = 1.4826 * float(np.median(np.abs(total[allowed] - middle))) + 1e-9
    tops = np.flatnonzero((total == maximum_filter(total, 2 * (give // 2) + 1, mode="wrap")) & allowed)
    tops = tops[np.argsort(-total.ravel()[tops], kind="stable")[:peaks]]
    out = []
    h, w = scene.padded
    for top in tops:
        at = np.array(np.unravel_index(top, total.shape))
        found, weights = np.tile(centre(scene.shape), (len(starts), 1)), np.zeros(len(starts))
        for k, y, x, along_y, along_x, score, energy in usable:
            i, j = at - np.array(canvas) // 2 + (y, x)
            di, dj = int(along_y[i % h, j % w]), int(along_x[i % h, j % w])
            rest = middles[k] - (np.array([y, x]) + side // 2)  # centres were rounded
            found[k] = np.array([i + di, j + dj]) + side // 2 + rest
            weights[k] = max(float(score[(i + di) % h, (j + dj) % w]), 0.0) * energy * len(usable) / worth
        matrix = onto.copy()
        matrix[:2, 2] += at - np.array(canvas) // 2
        value = float(total.ravel()[top])
        out.append(_Fitting(value, (value - middle) / spread, matrix, found, weights, give))
    return out
