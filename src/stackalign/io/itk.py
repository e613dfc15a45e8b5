"""ITK's text files of transforms (``.tfm``, ``.txt``): x, y, z order, reference -> moving, physical units.

ITK resamples: its transforms take a point of the fixed image, our reference, to the moving image. Ours go the other way
and in (z, y, x), so every matrix is inverted and its axes are turned round at this border.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from stackalign.core.transform import TransformModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stackalign.core.transform_series import TransformSeries

    Array = NDArray[np.float64]

HEADER = "#Insight Transform File V1.0"


def to_itk(series: TransformSeries) -> str:
    """Return the text of an ITK file with an affine transform a frame; the series is in the units that ITK shall see.

    Raises
    ------
    ValueError
        If the model is projective, which no transform of ITK is.
    """
    if series.model is TransformModel.PROJECTIVE:
        raise ValueError("ITK has no projective transform: save .json, .csv or .npy")
    lines = [HEADER]
    for t, matrix in enumerate(series.inverse.matrices):
        linear, shift = matrix[:-1, :-1][::-1, ::-1], matrix[:-1, -1][::-1]
        numbers = " ".join(repr(float(v)) for v in (*linear.ravel(), *shift))
        centre = " ".join("0" * series.ndim)
        lines.append(f"#Transform {t}\nTransform: AffineTransform_double_{series.ndim}_{series.ndim}")
        lines.append(f"Parameters: {numbers}\nFixedParameters: {centre}")
    return "\n".join(lines) + "\n"


def from_itk(text: str) -> Array:
    """Return the matrices (T, d+1, d+1), moving -> reference, (z, y, x), of an ITK file, one a transform.

    Raises
    ------
    ValueError
        If it is no such file, or holds a transform that no matrix can express.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or lines[0] != HEADER:
        raise ValueError(f"this is no transform file of ITK: its first line must be {HEADER!r}")
    found: list[Array] = []
    composite = False
    name, parameters = "", ""
    for line in lines[1:]:
        key, _, value = line.partition(":")
        if key == "Transform":
            name = value.strip()
            if name.startswith("CompositeTransform"):
                if found or composite:
                    raise ValueError("a composite among other transforms cannot be read")
                composite = True
        elif key == "Parameters":
            parameters = value
        elif key == "FixedParameters":
            found.append(_matrix(name, _numbers(parameters), _numbers(value)))
    if not found:
        raise ValueError("the file holds no transform")
    if len({len(m) for m in found}) > 1:
        raise ValueError("the file mixes transforms in 2-D and 3-D")
    if composite:  # the last one acts first
        found = [np.linalg.multi_dot(found) if len(found) > 1 else found[0]]
    inverse = np.linalg.inv(np.stack(found))
    turned = inverse.copy()
    turned[:, :-1, :-1] = inverse[:, :-1, :-1][:, ::-1, ::-1]
    turned[:, :-1, -1] = inverse[:, :-1, -1][:, ::-1]
    return turned


def _numbers(text: str) -> Array:
    return np.array([float(word) for word in text.split()])


def _matrix(name: str, values: Array, fixed: Array) -> Array:
    """Return the homogeneous matrix in (x, y, z) of one transform."""
    kind, _, tail = name.partition("_")
    ndim = 3 if "3D" in kind or tail.endswith("3") else 2
    if kind == "IdentityTransform":
        return np.eye(ndim + 1)
    if len(values) != _count(kind, ndim):
        raise ValueError(f"{name} with {len(values)} parameters makes no sense")
    if kind == "TranslationTransform":
        linear, shift = np.eye(ndim), values
    elif kind in _AFFINE:
        linear, shift = values[: ndim * ndim].reshape(ndim, ndim), values[ndim * ndim :]
    else:
        before, _, make = _LINEAR[kind]
        linear, shift = make(values, fixed), values[before : before + ndim]
    centre = fixed[:ndim] if len(fixed) >= ndim else np.zeros(ndim)
    out = np.eye(ndim + 1)
    out[:ndim, :ndim] = linear
    out[:ndim, ndim] = shift + centre - linear @ centre
    return out


def _count(kind: str, ndim: int) -> int:
    """Return how many parameters a transform has; ValueError if it is no matrix."""
    if kind == "TranslationTransform":
        return ndim
    if kind in _AFFINE:
        return ndim * (ndim + 1)
    if kind in _LINEAR:
        return _LINEAR[kind][1]
    raise ValueError(f"transforms of the kind {kind!r} are no matrices that can be read here")


def _plane(angle: float) -> Array:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _versor(v: Array) -> Array:
    return np.asarray(Rotation.from_quat([*v, max(0.0, 1.0 - float(v @ v)) ** 0.5]).as_matrix())


def _euler(values: Array, fixed: Array) -> Array:
    x, y, z = values[:3]
    zyx = len(fixed) > 3 and bool(fixed[3])
    return np.asarray(Rotation.from_euler("ZYX" if zyx else "ZXY", (z, y, x) if zyx else (z, x, y)).as_matrix())


_AFFINE = ("AffineTransform", "MatrixOffsetTransformBase")
# parameters before the translation, all parameters, and the linear part that they and the fixed ones give
_LINEAR: dict[str, tuple[int, int, Callable[[Array, Array], Array]]] = {
    "Euler2DTransform": (1, 3, lambda v, _: _plane(v[0])),
    "Rigid2DTransform": (1, 3, lambda v, _: _plane(v[0])),
    "Similarity2DTransform": (2, 4, lambda v, _: v[0] * _plane(v[1])),
    "Euler3DTransform": (3, 6, _euler),
    "VersorRigid3DTransform": (3, 6, lambda v, _: _versor(v[:3])),
    "Similarity3DTransform": (3, 7, lambda v, _: v[6] * _versor(v[:3])),
}
