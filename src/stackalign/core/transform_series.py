"""One transform per frame, moving -> reference: gauge, interpolation of bad frames, smoothing, tables."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stackalign.core.transform import Transform, TransformModel, as_matrix

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

FORMAT = "stackalign-transforms"


@dataclass(frozen=True, slots=True, eq=False)
class TransformSeries:
    """The transforms of a stack's frames, each mapping its frame -> the reference.

    Parameters
    ----------
    matrices : array_like (T, d+1, d+1)
        Homogeneous float64, pixels.
    model : TransformModel or str
        The family of all of them.
    valid : array_like (T,) of bool, optional
        False where the frame could not be aligned: its matrix is a placeholder until `interpolated` fills it.

    Raises
    ------
    ValueError
        If a matrix has another shape, is not finite or cannot be inverted; the frame is named.
    """

    matrices: NDArray[np.float64]
    model: TransformModel = TransformModel.AFFINE
    valid: NDArray[np.bool_] = field(default=None)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        stacked = np.array(self.matrices, np.float64)
        if stacked.ndim != 3 or stacked.shape[1:] not in ((3, 3), (4, 4)):
            raise ValueError(f"a series is (T, 3, 3) or (T, 4, 4), not {stacked.shape}")
        corner = stacked[:, -1, -1]
        with np.errstate(all="ignore"):  # thousands of frames at once; one by one only to name the wrong one
            sound = bool(np.isfinite(stacked).all() and (np.abs(corner) >= 1e-12).all())
            sound = sound and bool((np.abs(np.linalg.det(stacked)) >= 1e-12).all())
        if sound:
            stacked /= corner[:, None, None].copy()
        else:
            for t, matrix in enumerate(stacked):
                try:
                    stacked[t] = as_matrix(matrix)
                except ValueError as error:
                    raise ValueError(f"frame {t}: {error}") from None
        valid = np.ones(len(stacked), bool) if self.valid is None else np.array(self.valid, bool)
        if valid.shape != (len(stacked),):
            raise ValueError(f"valid must be ({len(stacked)},), one per frame, got {valid.shape}")
        stacked.setflags(write=False)
        valid.setflags(write=False)
        object.__setattr__(self, "matrices", stacked)
        object.__setattr__(self, "valid", valid)
        object.__setattr__(self, "model", TransformModel(self.model))

    @classmethod
    def identity(cls, length: int, ndim: int, model: TransformModel | str = "translation") -> TransformSeries:
        """Return ``length`` transforms that move nothing."""
        return cls(np.broadcast_to(np.eye(ndim + 1), (length, ndim + 1, ndim + 1)), TransformModel(model))

    @classmethod
    def from_translations(cls, shifts: ArrayLike, valid: ArrayLike | None = None) -> TransformSeries:
        """Return translations by ``shifts`` (T, d), pixels, moving -> reference: minus the drift."""
        vectors = np.asarray(shifts, float)
        matrices = np.tile(np.eye(vectors.shape[1] + 1), (len(vectors), 1, 1))
        matrices[:, :-1, -1] = vectors
        return cls(matrices, TransformModel.TRANSLATION, valid)  # type: ignore[arg-type]

    @classmethod
    def from_transforms(cls, transforms: Iterable[Transform], valid: ArrayLike | None = None) -> TransformSeries:
        """Return a series of single transforms; its model is the most flexible among them."""
        items = list(transforms)
        model = TransformModel.TRANSLATION
        for item in items:
            model = model | item.model
        return cls(np.stack([item.matrix for item in items]), model, valid)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.matrices)

    def __getitem__(self, t: int) -> Transform:
        return Transform(self.matrices[t], self.model)

    def __iter__(self) -> Iterator[Transform]:
        return (self[t] for t in range(len(self)))

    def __repr__(self) -> str:
        return f"TransformSeries({len(self)} x {self.model.value}, {self.ndim}-D, {int((~self.valid).sum())} not valid)"

    @property
    def ndim(self) -> int:
        """Spatial dimensions, 2 or 3."""
        return int(self.matrices.shape[1]) - 1

    @property
    def translations(self) -> NDArray[np.float64]:
        """(T, d) translation columns, pixels, moving -> reference: minus the drift for pure translations."""
        return self.matrices[:, :-1, -1]

    @property
    def angles(self) -> NDArray[np.float64]:
        """Rotation of each frame, radians: (T,) in 2-D, y axis towards x axis; (T, 3) vectors (z, y, x) in 3-D."""
        rotations, _ = _polar(self.matrices[:, :-1, :-1])
        if self.ndim == 2:
            return np.arctan2(rotations[:, 1, 0], rotations[:, 0, 0])
        from scipy.spatial.transform import Rotation

        return np.asarray(Rotation.from_matrix(rotations).as_rotvec())

    @property
    def inverse(self) -> TransformSeries:
        """The series that maps reference -> moving."""
        if self.model is TransformModel.TRANSLATION:
            return self.from_translations(-self.translations, self.valid)
        return replace(self, matrices=np.asarray(np.linalg.inv(self.matrices), np.float64))

    def then(self, other: TransformSeries) -> TransformSeries:
        """Return this series followed by ``other``, frame by frame: one resampling instead of two."""
        if len(other) != len(self):
            raise ValueError(f"cannot chain {len(self)} transforms with {len(other)}: the stacks differ in length")
        return TransformSeries(other.matrices @ self.matrices, self.model | other.model, self.valid & other.valid)

    def rebased(self, frame: int | Literal["mean"] = 0, *, centre: ArrayLike | None = None) -> TransformSeries:
        """Return the same motion with ``frame`` as the identity, or the mean motion of the valid frames.

        Parameters
        ----------
        frame : int or "mean"
            Frame that stays where it is.
        centre : array_like (d,), optional
            Point about which rotations are averaged for "mean" (the image centre); the origin if left out.
        """
        if frame == "mean":
            if not self.valid.any():
                return self
            mean = self._parameters(centre)[self.valid].mean(0, keepdims=True)
            base = self._from_parameters(mean, centre)[0]
        else:
            base = self.matrices[frame]
        if self.model is TransformModel.TRANSLATION:
            return self.from_translations(self.translations - base[:-1, -1], self.valid)
        matrices = np.linalg.inv(base) @ self.matrices
        if frame != "mean":
            matrices[frame] = np.eye(self.ndim + 1)  # exactly, not to rounding
        return replace(self, matrices=matrices)

    def interpolated(self, *, centre: ArrayLike | None = None) -> TransformSeries:
        """Return a series whose frames that are not valid lie between their valid neighbours.

        Rotations are interpolated as angles about ``centre`` (the image centre; the origin if left out), shifts and
        stretches linearly; before the first and after the last valid frame the nearest one is repeated. ``valid`` is
        kept, so that it still tells what was measured. All frames invalid: the identity.
        """
        if self.valid.all():
            return self
        if not self.valid.any():
            return replace(self, matrices=self.identity(len(self), self.ndim).matrices)
        parameters = self._parameters(centre)
        times, known = np.arange(len(self)), np.flatnonzero(self.valid)
        filled = np.column_stack([np.interp(times, known, column[known]) for column in parameters.T])
        matrices = np.where(self.valid[:, None, None], self.matrices, self._from_parameters(filled, centre))
        return replace(self, matrices=matrices)

    def smoothed(self, sigma: float, *, centre: ArrayLike | None = None) -> TransformSeries:
        """Return the motion smoothed in time by a Gaussian of ``sigma`` frames; invalid frames carry no weight."""
        if not 0 <= sigma < np.inf:
            raise ValueError(f"sigma must be at least 0 frames, got {sigma}")
        if sigma < 0.125 or not self.valid.any():  # below, the neighbours weigh less than 1e-13
            return self.interpolated(centre=centre)
        parameters = self.interpolated(centre=centre)._parameters(centre)
        weight = self.valid.astype(float)
        from scipy.ndimage import gaussian_filter1d

        summed = gaussian_filter1d(parameters * weight[:, None], sigma, axis=0, mode="nearest")
        total = gaussian_filter1d(weight, sigma, mode="nearest")[:, None]
        smooth = np.where(total > 1e-6, summed / np.maximum(total, 1e-300), parameters)
        return replace(self, matrices=self._from_parameters(smooth, centre))

    def replaced(self, t: int, transform: Transform, *, valid: bool = True) -> TransformSeries:
        """Return a series with frame ``t`` set by hand."""
        matrices, flags = self.matrices.copy(), self.valid.copy()
        matrices[t], flags[t] = transform.matrix, valid
        return TransformSeries(matrices, self.model | transform.model, flags)

    def with_valid(self, valid: ArrayLike) -> TransformSeries:
        """Return the same matrices with other flags."""
        return replace(self, valid=np.asarray(valid, bool))

    def selected(self, frames: slice | ArrayLike) -> TransformSeries:
        """Return the transforms of some frames."""
        index = frames if isinstance(frames, slice) else np.asarray(frames)
        return TransformSeries(self.matrices[index], self.model, self.valid[index])

    def about(self, origin: ArrayLike) -> TransformSeries:
        """Return the same motion in a frame of which the present one is a crop that starts at ``origin``."""
        there = Transform.from_translation(origin)
        return replace(self, matrices=there.matrix @ self.matrices @ there.inverse.matrix)

    def to_frame(self) -> pd.DataFrame:
        """Return a table: frame, valid, translations (px), angles (deg), then every matrix entry ``m_row_column``."""
        import pandas as pd

        axes = "zyx"[-self.ndim :]
        columns: dict[str, Any] = {"frame": np.arange(len(self)), "valid": self.valid}
        columns |= {f"translation_{a}_px": self.translations[:, i] for i, a in enumerate(axes)}
        degrees = np.rad2deg(self.angles).reshape(len(self), -1)
        names = ["angle_deg"] if self.ndim == 2 else [f"rotation_{a}_deg" for a in axes]
        columns |= {name: degrees[:, i] for i, name in enumerate(names)}
        size = self.ndim + 1
        columns |= {f"m_{r}_{c}": self.matrices[:, r, c] for r in range(size) for c in range(size)}
        return pd.DataFrame(columns)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and strings, ready for JSON."""
        return {
            "format": FORMAT,
            "version": 1,
            "maps": "moving -> reference",
            "axes": "zyx"[-self.ndim :],
            "unit": "pixel",
            "model": self.model.value,
            "valid": self.valid.tolist(),
            "matrices": self.matrices.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TransformSeries:
        """Return the series that `to_dict` wrote; ValueError says what is missing or foreign."""
        if not hasattr(data, "get") or data.get("format") != FORMAT:
            raise ValueError(f"this is no series of transforms: 'format' must be {FORMAT!r}")
        if data.get("version") != 1:
            raise ValueError(
                f"transforms of version {data.get('version')!r} are not known; this program reads version 1"
            )
        missing = [key for key in ("model", "matrices") if key not in data]
        if missing:
            raise ValueError(f"these transforms lack {' and '.join(missing)}")
        try:
            matrices = np.asarray(data["matrices"], float)
        except (TypeError, ValueError):
            raise ValueError("'matrices' must be a list of (d+1) x (d+1) matrices of numbers") from None
        return cls(matrices, TransformModel(data["model"]), data.get("valid"))  # type: ignore[arg-type]

    def _parameters(self, centre: ArrayLike | None) -> NDArray[np.float64]:
        """(T, n): shift of the centre, rotation angles (unwrapped in time), stretch less identity, projective row."""
        middle = np.zeros(self.ndim) if centre is None else np.asarray(centre, float)
        shift = (self.matrices[:, :-1, :-1] - np.eye(self.ndim)) @ middle + self.translations
        angles = self.angles.reshape(len(self), -1)
        known = np.flatnonzero(self.valid)
        angles = angles.copy()
        angles[known] = np.unwrap(angles[known], axis=0) if self.ndim == 2 else _unwrapped(angles[known])
        _, stretch = _polar(self.matrices[:, :-1, :-1])
        return np.hstack(
            [shift, angles, (stretch - np.eye(self.ndim)).reshape(len(self), -1), self.matrices[:, -1, :-1]]
        )

    def _from_parameters(self, parameters: NDArray[np.float64], centre: ArrayLike | None) -> NDArray[np.float64]:
        d, n = self.ndim, len(parameters)
        middle = np.zeros(d) if centre is None else np.asarray(centre, float)
        turns = 1 if d == 2 else 3
        shift, angles, stretch, projective = np.split(parameters, np.cumsum([d, turns, d * d]), axis=1)
        if d == 2:
            c, s = np.cos(angles[:, 0]), np.sin(angles[:, 0])
            rotation = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], 1)
        else:
            from scipy.spatial.transform import Rotation

            rotation = Rotation.from_rotvec(angles).as_matrix()
        matrices = np.tile(np.eye(d + 1), (n, 1, 1))
        matrices[:, :-1, :-1] = rotation @ (stretch.reshape(n, d, d) + np.eye(d))
        matrices[:, :-1, -1] = shift - (matrices[:, :-1, :-1] - np.eye(d)) @ middle
        matrices[:, -1, :-1] = projective
        return matrices


def _unwrapped(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rotation vectors (T, 3) of the same rotations, each by full turns as near as can be to the one before."""
    out = vectors.copy()
    for t in range(1, len(out)):
        angle = float(np.linalg.norm(out[t]))
        if angle > 0:
            axis = out[t] / angle
            turns = np.rint((out[t - 1] @ axis - angle) / (2 * np.pi))
            out[t] += 2 * np.pi * turns * axis
    return out


def _polar(linear: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Split (T, d, d) matrices into rotation @ symmetric stretch."""
    u, s, vt = np.linalg.svd(linear)
    flip = np.sign(np.linalg.det(u @ vt))
    u = u.copy()
    u[..., :, -1] *= flip[:, None]
    s = s.copy()
    s[..., -1] *= flip
    rotation = u @ vt
    return rotation, np.swapaxes(vt, -1, -2) @ (s[..., None] * vt)
