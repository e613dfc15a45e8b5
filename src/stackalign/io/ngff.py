"""Transforms as the coordinate transformations of OME-NGFF (RFC 5): affine matrices between named systems, in JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.transform import TransformModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stackalign.core.transform_series import TransformSeries

    Array = NDArray[np.float64]

KEY = "coordinateTransformations"
_UNITS = {"µm": "micrometer", "nm": "nanometer", "mm": "millimeter", "m": "meter", "Å": "angstrom", "pm": "picometer"}


def to_ngff(series: TransformSeries, unit: str | None = None) -> dict[str, Any]:
    """Return a coordinate system a frame and the affine that takes each to the system "reference".

    Parameters
    ----------
    series : TransformSeries
        Moving -> reference, as NGFF's input -> output, axes (z, y, x) likewise.
    unit : str, optional
        Unit of the coordinates; None: pixels.

    Raises
    ------
    ValueError
        If the model is projective, which NGFF does not know.
    """
    if series.model is TransformModel.PROJECTIVE:
        raise ValueError("NGFF has no projective transformation: save .json, .csv or .npy")
    axes = [_axis(a, unit) for a in "zyx"[-series.ndim :]]
    names = [f"frame {t}" for t in range(len(series))]
    return {
        "ome": {
            "version": "0.6",
            "coordinateSystems": [{"name": name, "axes": axes} for name in ("reference", *names)],
            KEY: [
                {"type": "affine", "name": name, "input": name, "output": "reference", "affine": m[:-1].tolist()}
                for name, m in zip(names, series.matrices, strict=True)
            ],
        }
    }


def is_ngff(data: Any) -> bool:
    """Tell whether a JSON document holds coordinate transformations."""
    return isinstance(data, dict) and (KEY in data or (isinstance(data.get("ome"), dict) and KEY in data["ome"]))


def from_ngff(data: Mapping[str, Any]) -> Array:
    """Return the matrices (T, d+1, d+1), input -> output, in the order in which they stand.

    Raises
    ------
    ValueError
        If there is none, they differ in dimension, or one is of a kind that no matrix can express.
    """
    steps = data.get("ome", data)[KEY]
    if not isinstance(steps, list) or not steps:
        raise ValueError(f"{KEY} lists no transformation")
    matrices = [_matrix(step) for step in steps]
    ndim = {len(m) for m in matrices if m is not None}
    if len(ndim) != 1:
        raise ValueError(f"{KEY}: the transformations differ in dimension, or none states it")
    size = ndim.pop()
    return np.stack([np.eye(size) if m is None else m for m in matrices])


def _matrix(step: Mapping[str, Any]) -> Array | None:
    """Return a step as a homogeneous matrix; None: the identity of any dimension."""
    kind = step.get("type") if isinstance(step, dict) else None
    match kind:
        case "identity":
            return None
        case "translation" | "scale":
            values = np.asarray(step[kind], float)
            out = np.eye(len(values) + 1)
            if kind == "scale":
                out[:-1, :-1] = np.diag(values)
            else:
                out[:-1, -1] = values
            return out
        case "rotation" | "affine":
            values = np.asarray(step[kind], float)
            ndim = len(values)
            if values.shape != (ndim, ndim + (kind == "affine")):
                raise ValueError(f"a transformation of the type {kind!r} is a matrix of {values.shape}")
            out = np.eye(ndim + 1)
            out[:ndim, : values.shape[1]] = values
            return out
        case "sequence":
            total: Array | None = None
            for part in step.get("transformations", ()):  # the first one acts first
                matrix = _matrix(part)
                if matrix is not None:
                    total = matrix if total is None else matrix @ total
            return total
    raise ValueError(f"transformations of the type {kind!r} are no matrices that can be read here")


def _axis(letter: str, unit: str | None) -> dict[str, str]:
    axis = {"name": letter, "type": "space"}
    return axis if unit is None else {**axis, "unit": _UNITS.get(unit, unit)}
