"""Homogeneous transforms of points (y, x) or (z, y, x), in pixels, that map moving -> reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.transform_fit import fit_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray


class TransformModel(StrEnum):
    """The family of a transform, from the most rigid to the most flexible (scikit-image's names)."""

    TRANSLATION = "translation"
    EUCLIDEAN = "euclidean"
    SIMILARITY = "similarity"
    AFFINE = "affine"
    PROJECTIVE = "projective"

    @property
    def rank(self) -> int:
        """Position in the chain of inclusions: each model contains all of lower rank."""
        return list(TransformModel).index(self)

    def parameters(self, ndim: int) -> int:
        """Return the number of free parameters in ``ndim`` dimensions."""
        rotations = ndim * (ndim - 1) // 2
        return {
            TransformModel.TRANSLATION: ndim,
            TransformModel.EUCLIDEAN: ndim + rotations,
            TransformModel.SIMILARITY: ndim + rotations + 1,
            TransformModel.AFFINE: ndim * (ndim + 1),
            TransformModel.PROJECTIVE: ndim * (ndim + 2),
        }[self]

    def __or__(self, other: TransformModel) -> TransformModel:
        """Return the smallest model that contains both: that of a composition."""
        return self if self.rank >= other.rank else other


def as_matrix(matrix: ArrayLike) -> NDArray[np.float64]:
    """Return a read-only float64 copy, scaled so that its last entry is 1; ValueError if it is no such matrix."""
    out = np.array(matrix, np.float64)
    if out.shape not in ((3, 3), (4, 4)):
        raise ValueError(f"a transform is a (3, 3) or (4, 4) matrix, not {out.shape}")
    if not np.isfinite(out).all():
        raise ValueError("a transform's matrix holds NaN or infinity")
    corner, size = out[-1, -1], np.abs(out[-1]).max()
    if abs(corner) > 1e-12 * size and corner != 1.0:
        out /= corner
    with np.errstate(over="ignore", invalid="ignore"):
        volume = abs(np.linalg.det(out))
    if abs(corner) <= 1e-12 * size or not 1e-12 <= volume < np.inf:
        raise ValueError(f"this matrix cannot be inverted, so it is no transform:\n{out}")
    out.setflags(write=False)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class Transform:
    """A transform of points that maps moving -> reference.

    Parameters
    ----------
    matrix : array_like (3, 3) or (4, 4)
        Homogeneous, acts on columns (y, x, 1) or (z, y, x, 1), in pixels.
    model : TransformModel or str
        The family that it belongs to.

    Raises
    ------
    ValueError
        If the matrix has another shape, is not finite or cannot be inverted.

    Examples
    --------
    >>> shift = Transform.from_translation((3.0, -1.5))
    >>> shift([10.0, 10.0]).tolist()
    [13.0, 8.5]
    >>> (shift @ shift.inverse).matrix.tolist() == Transform.identity(2).matrix.tolist()
    True
    """

    matrix: NDArray[np.float64]
    model: TransformModel = field(default=TransformModel.AFFINE)

    def __post_init__(self) -> None:
        object.__setattr__(self, "matrix", as_matrix(self.matrix))
        object.__setattr__(self, "model", TransformModel(self.model))

    def __repr__(self) -> str:
        rows = np.array2string(self.matrix, precision=4, suppress_small=True, separator=", ").replace("\n", "")
        return f"Transform({self.model.value}, {rows})"

    @classmethod
    def identity(cls, ndim: int, model: TransformModel | str = TransformModel.TRANSLATION) -> Transform:
        """Return the transform that moves nothing."""
        return cls(np.eye(ndim + 1), TransformModel(model))

    @classmethod
    def from_translation(cls, shift: ArrayLike) -> Transform:
        """Return a translation by ``shift``, (y, x) or (z, y, x), in pixels."""
        vector = np.asarray(shift, float)
        matrix = np.eye(len(vector) + 1)
        matrix[:-1, -1] = vector
        return cls(matrix, TransformModel.TRANSLATION)

    @classmethod
    def from_rotation(cls, angle: float, shift: ArrayLike = (0.0, 0.0), centre: ArrayLike = (0.0, 0.0)) -> Transform:
        """Return a 2-D rotation by ``angle`` (radians, y axis towards x axis) about ``centre``, then a ``shift``."""
        c, s = np.cos(angle), np.sin(angle)
        linear = np.array([[c, -s], [s, c]])
        middle = np.asarray(centre, float)
        matrix = np.eye(3)
        matrix[:2, :2] = linear
        matrix[:2, 2] = middle - linear @ middle + np.asarray(shift, float)
        return cls(matrix, TransformModel.EUCLIDEAN)

    @classmethod
    def from_points(
        cls,
        moving: ArrayLike,
        reference: ArrayLike,
        model: TransformModel | str = TransformModel.EUCLIDEAN,
        *,
        weights: ArrayLike | None = None,
    ) -> Transform:
        """Return the least-squares transform that carries ``moving`` onto ``reference``.

        Parameters
        ----------
        moving, reference : array_like (N, d)
            Corresponding points, pixels. Pairs with a NaN are left out.
        model : TransformModel or str
            Family to fit. Rotations after Umeyama (IEEE PAMI 13, 1991, eq. 40 to 43); projective by normalised DLT
            (Hartley & Zisserman, alg. 4.2), then Gauss-Newton on the distance in the reference.
        weights : array_like (N,), optional
            Non-negative weight of each pair, for instance the inverse variance.

        Raises
        ------
        ValueError
            If there are too few usable points for the model, or all lie on a line (plane in 3-D).
        """
        chosen = TransformModel(model)
        return cls(fit_matrix(moving, reference, chosen.value, weights), chosen)

    @property
    def ndim(self) -> int:
        """Spatial dimensions, 2 or 3."""
        return len(self.matrix) - 1

    @property
    def linear(self) -> NDArray[np.float64]:
        """The (d, d) linear part."""
        return self.matrix[:-1, :-1]

    @property
    def translation(self) -> NDArray[np.float64]:
        """The (d,) translation column, pixels: what happens to the point at the origin."""
        return self.matrix[:-1, -1]

    @property
    def inverse(self) -> Transform:
        """The transform that maps reference -> moving."""
        if self.model is TransformModel.TRANSLATION:
            return Transform.from_translation(-self.translation)
        return Transform(np.asarray(np.linalg.inv(self.matrix), np.float64), self.model)

    def __call__(self, points: ArrayLike) -> NDArray[np.float64]:
        """Map points (..., d) of the moving image into the reference."""
        p = np.asarray(points, float)
        if p.shape[-1:] != (self.ndim,):
            raise ValueError(f"points must be (..., {self.ndim}), got shape {p.shape}")
        mapped = p @ self.linear.T + self.translation
        if self.model is TransformModel.PROJECTIVE:
            mapped = mapped / (p @ self.matrix[-1, :-1] + 1.0)[..., None]
        return np.asarray(mapped)

    def __matmul__(self, other: Transform) -> Transform:
        """Compose: ``(A @ B)(p) == A(B(p))``."""
        return Transform(self.matrix @ other.matrix, self.model | other.model)

    def about(self, origin: Sequence[float] | NDArray[np.float64]) -> Transform:
        """Return the same motion for coordinates whose zero lies at ``-origin``.

        A transform estimated on a crop that starts at ``origin`` becomes one of the whole frame.
        """
        there = Transform.from_translation(origin)
        return Transform((there @ self @ there.inverse).matrix, self.model)
