"""Save and load series of transforms (moving -> reference, pixels): JSON with everything, CSV for tables, NPY."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.transform import TransformModel
from stackalign.core.transform_series import TransformSeries
from stackalign.io.atomic import replacing
from stackalign.io.errors import TableReadError, TransformsReadError
from stackalign.io.tables import read_table, write_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    import pandas as pd
    from numpy.typing import NDArray

TIMES = ("created", "started", "finished", "seconds")


def save_transforms(
    path: str | PathLike[str], series: TransformSeries, provenance: Mapping[str, Any] | None = None
) -> Path:
    """Write a series of transforms.

    Parameters
    ----------
    path : path
        ``.json`` keeps everything, every number to its last bit, and the same bytes for the same transforms;
        ``.csv`` a table with a row a frame; ``.npy`` the bare matrices (T, d+1, d+1), without model, flags or
        provenance.
    series : TransformSeries
        Moving -> reference, pixels.
    provenance : mapping, optional
        Plain values that say where the transforms come from; kept in JSON under its own key, times apart from the rest.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If the ending is not known.
    StackWriteError
        If the file cannot be written; the old one stands.
    """
    target = Path(path).expanduser()
    match target.suffix.lower():
        case ".json":
            with replacing(target) as part:
                part.write_text(_document(series, provenance), encoding="utf-8", newline="\n")
        case ".csv":
            table = series.to_frame()
            table.insert(2, "model", series.model.value)
            write_table(target, table)
        case ".npy":
            with replacing(target) as part, part.open("wb") as file:
                np.save(file, series.matrices, allow_pickle=False)
        case ending:
            raise ValueError(f"cannot save transforms as {ending!r}: choose .json, .csv or .npy")
    return target


def load_transforms(path: str | PathLike[str]) -> TransformSeries:
    """Read a series of transforms that `save_transforms`, or another program in the same convention, wrote.

    Parameters
    ----------
    path : path
        ``.json``, ``.csv`` or ``.npy``. In a table the matrices are ``m_row_column``, or there are only
        ``translation_y_px`` and ``translation_x_px`` (and z). Where no model is stated, the simplest one that fits
        the matrices is taken.

    Raises
    ------
    TransformsReadError
        If there is no such file or it holds no transforms; the message says what is missing.
    """
    source = Path(path).expanduser()
    if not source.is_file():
        raise TransformsReadError(f"there is no file {source}")
    try:
        match source.suffix.lower():
            case ".json":
                return TransformSeries.from_dict(_json(source))
            case ".csv":
                return _from_table(read_table(source))
            case ".npy":
                matrices = np.load(source, allow_pickle=False)
                return TransformSeries(matrices, _simplest(matrices))
            case ending:
                raise ValueError(f"the ending {ending!r} is not known: .json, .csv and .npy are")
    except (ValueError, KeyError, EOFError, OSError, TableReadError) as error:
        raise TransformsReadError(f"{source}: {error}") from error


def load_provenance(path: str | PathLike[str]) -> dict[str, Any]:
    """Return what a JSON file of transforms says about where they come from; empty if nothing."""
    found = _json(Path(path)).get("provenance")
    return dict(found) if isinstance(found, dict) else {}


def _document(series: TransformSeries, provenance: Mapping[str, Any] | None) -> str:
    """Return JSON with a matrix a line: small differences show as such, equal series give equal bytes."""
    body = series.to_dict()
    matrices, valid = body.pop("matrices"), body.pop("valid")
    lines = [f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in body.items()]
    lines.append(f'  "valid": {json.dumps(valid)}')
    rows = ",\n".join(f"    {json.dumps(m)}" for m in matrices)
    lines.append(f'  "matrices": [\n{rows}\n  ]')
    if provenance:
        rest = {k: v for k, v in provenance.items() if k not in TIMES}
        times = {k: v for k, v in provenance.items() if k in TIMES}
        if times:
            rest["times"] = times
        text = json.dumps(rest, indent=2, ensure_ascii=False, sort_keys=True, default=_plain)
        lines.append('  "provenance": ' + text.replace("\n", "\n  "))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"provenance holds {type(value).__name__}, which JSON cannot: use plain values")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise TransformsReadError(f"{path} is no JSON ({error})") from error


def _from_table(table: pd.DataFrame) -> TransformSeries:
    entries = [c for c in table.columns if c.startswith("m_")]
    if entries:
        size = round(len(entries) ** 0.5)
        wanted = [f"m_{r}_{c}" for r in range(size) for c in range(size)]
        if lacking := [name for name in wanted if name not in table]:
            raise ValueError(f"the table lacks the columns {', '.join(lacking)}")
        matrices = table[wanted].to_numpy(float).reshape(-1, size, size)
    else:
        names = [f"translation_{a}_px" for a in "zyx" if f"translation_{a}_px" in table]
        if names[-2:] != ["translation_y_px", "translation_x_px"]:
            raise ValueError("a table of transforms needs the columns m_0_0, m_0_1, ... or translation_y_px and _x_px")
        matrices = TransformSeries.from_translations(table[names].to_numpy(float)).matrices
    valid = table["valid"].to_numpy(bool) if "valid" in table else None
    model = TransformModel(str(table["model"].iloc[0])) if "model" in table and len(table) else _simplest(matrices)
    return TransformSeries(matrices, model, valid)  # type: ignore[arg-type]


def _simplest(matrices: NDArray[np.float64]) -> TransformModel:
    """Return the least flexible family that holds all matrices, to rounding."""
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2]:
        return TransformModel.AFFINE  # TransformSeries says what is wrong
    linear = np.asarray(matrices[:, :-1, :-1], float)
    identity = np.eye(linear.shape[-1])
    if np.abs(matrices[:, -1, :-1]).max(initial=0) > 1e-12:
        return TransformModel.PROJECTIVE
    if np.abs(linear - identity).max(initial=0) < 1e-12:
        return TransformModel.TRANSLATION
    gram = linear @ np.swapaxes(linear, -1, -2)
    scale = np.trace(gram, axis1=-2, axis2=-1) / linear.shape[-1]
    if np.abs(gram - scale[:, None, None] * identity).max(initial=0) > 1e-9 or (np.linalg.det(linear) < 0).any():
        return TransformModel.AFFINE
    return TransformModel.EUCLIDEAN if np.abs(scale - 1).max(initial=0) < 1e-9 else TransformModel.SIMILARITY
