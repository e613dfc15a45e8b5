"""Save and load series of transforms (moving -> reference, pixels): JSON, CSV, NPY, and as ITK and NGFF know them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.piecewise.series import PiecewiseSeries
from stackalign.core.transform import TransformModel
from stackalign.core.transform_series import TransformSeries
from stackalign.io.atomic import replacing
from stackalign.io.errors import TransformsReadError
from stackalign.io.itk import from_itk, to_itk
from stackalign.io.ngff import from_ngff, is_ngff, to_ngff
from stackalign.io.tables import read_table, write_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    import pandas as pd
    from numpy.typing import NDArray

TIMES = ("created", "started", "finished", "seconds")
ENDINGS = (".json", ".csv", ".npy", ".tfm", ".txt", ".ngff.json")


def save_transforms(
    path: str | PathLike[str],
    series: TransformSeries,
    provenance: Mapping[str, Any] | None = None,
    *,
    pixel_size: Sequence[float] | None = None,
    unit: str = "µm",
) -> Path:
    """Write a series of transforms.

    Parameters
    ----------
    path : path
        ``.json`` keeps everything, every number to its last bit, and the same bytes for the same transforms;
        ``.csv`` a table with a row a frame; ``.npy`` the bare matrices (T, d+1, d+1), without model, flags or
        provenance; ``.tfm`` or ``.txt`` a text file of ITK (reference -> moving, x before y), one affine a frame;
        ``.ngff.json`` the coordinate transformations of OME-NGFF (RFC 5).
    series : TransformSeries
        Moving -> reference, pixels.
    provenance : mapping, optional
        Plain values that say where the transforms come from; kept in JSON under its own key, times apart from the rest.
    pixel_size : sequence of float, optional
        Size of a pixel along (y, x) or (z, y, x): ITK and NGFF files are then in ``unit``, not in pixels.
    unit : str
        Unit of ``pixel_size``.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If the ending is not known, the format has no such model, or ``pixel_size`` is given to a format in pixels.
    StackWriteError
        If the file cannot be written; the old one stands.
    """
    target = Path(path).expanduser()
    ending = _ending(target)
    if pixel_size is not None and ending not in _PHYSICAL:
        raise ValueError(f"{ending} files of transforms are in pixels: leave pixel_size out")
    match ending:
        case ".json":
            _write_text(target, _document(series, provenance))
        case ".csv":
            table = series.to_frame()
            table.insert(2, "model", series.model.value)
            write_table(target, table)
        case ".npy":
            with replacing(target) as part, part.open("wb") as file:
                np.save(file, series.matrices, allow_pickle=False)
        case ".tfm" | ".txt":
            _write_text(target, to_itk(_scaled(series, pixel_size)))
        case ".ngff.json":
            scaled = to_ngff(_scaled(series, pixel_size), None if pixel_size is None else unit)
            _write_text(target, json.dumps(scaled, indent=1, ensure_ascii=False) + "\n")
        case _:
            raise ValueError(f"cannot save transforms as {ending!r}: choose {_LISTED}")
    return target


def load_transforms(path: str | PathLike[str], *, pixel_size: Sequence[float] | None = None) -> TransformSeries:
    """Read a series of transforms that `save_transforms`, or another program, wrote.

    Parameters
    ----------
    path : path
        One of the files that `save_transforms` writes. In a table the matrices are ``m_row_column``, or there are
        only ``translation_y_px`` and ``translation_x_px`` (and z). Where no model is stated, the simplest one that
        fits the matrices is taken. ITK's rigid, similarity, affine and composite transforms are known, of NGFF's
        identity, translation, scale, rotation, affine and sequence.
    pixel_size : sequence of float, optional
        Size of a pixel along (y, x) or (z, y, x), where an ITK or NGFF file is in physical units.

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
                data = _json(source)
                if is_ngff(data):
                    return _unscaled(from_ngff(data), pixel_size)
                kind = PiecewiseSeries if isinstance(data, dict) and "blocks" in data else TransformSeries
                found = kind.from_dict(data)
            case ".csv":
                found = _from_table(read_table(source))
            case ".npy":
                matrices = _array(source)
                found = TransformSeries(matrices, _simplest(matrices))
            case ".tfm" | ".txt":
                return _unscaled(from_itk(source.read_text(encoding="utf-8")), pixel_size)
            case ending:
                raise ValueError(f"the ending {ending!r} is not known: {_LISTED} are")
    except TransformsReadError:
        raise
    except (ValueError, KeyError, TypeError, EOFError, OSError) as error:
        said = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise TransformsReadError(f"{source}: {said}") from error
    if pixel_size is not None:
        raise ValueError(f"{source} is in pixels: leave pixel_size out")
    return found


def load_provenance(path: str | PathLike[str]) -> dict[str, Any]:
    """Return what a JSON file of transforms says about where they come from; empty if nothing."""
    found = _json(Path(path)).get("provenance")
    return dict(found) if isinstance(found, dict) else {}


_PHYSICAL = (".tfm", ".txt", ".ngff.json")
_LISTED = ", ".join(ENDINGS[:-1]) + f" and {ENDINGS[-1]}"


def _ending(path: Path) -> str:
    name = path.name.lower()
    return ".ngff.json" if name.endswith(".ngff.json") else path.suffix.lower()


def _write_text(target: Path, text: str) -> None:
    with replacing(target) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def _scaled(series: TransformSeries, pixel_size: Sequence[float] | None) -> TransformSeries:
    """Return the series in physical units."""
    if pixel_size is None:
        return series
    there = _scaling(pixel_size, series.ndim)
    return TransformSeries(there @ series.matrices @ np.linalg.inv(there), _wider(series.model), series.valid)


def _unscaled(matrices: NDArray[np.float64], pixel_size: Sequence[float] | None) -> TransformSeries:
    """Return matrices in physical units as a series in pixels."""
    if pixel_size is not None:
        there = _scaling(pixel_size, matrices.shape[1] - 1)
        matrices = np.linalg.inv(there) @ matrices @ there
    return TransformSeries(matrices, _simplest(matrices))


def _scaling(pixel_size: Sequence[float], ndim: int) -> NDArray[np.float64]:
    sizes = np.asarray(pixel_size, float)
    if sizes.shape != (ndim,) or not (sizes > 0).all() or not np.isfinite(sizes).all():
        raise ValueError(f"pixel_size needs {ndim} positive numbers, got {pixel_size}")
    return np.diag([*sizes, 1.0])


def _wider(model: TransformModel) -> TransformModel:
    """Return the family after a change of units, which makes an affine of a rotation where pixels are not square."""
    return model if model is TransformModel.TRANSLATION else model | TransformModel.AFFINE


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
    table = _in_order(table)
    entries = [c for c in table.columns if str(c).startswith("m_")]
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
    valid = _flags(table["valid"]) if "valid" in table else None
    model = TransformModel(str(table["model"].iloc[0])) if "model" in table and len(table) else _simplest(matrices)
    return TransformSeries(matrices, model, valid)  # type: ignore[arg-type]


def _array(path: Path) -> NDArray[np.float64]:
    try:
        return np.asarray(np.load(path, allow_pickle=False), float)
    except Exception as error:  # a damaged header raises errors of many kinds
        raise ValueError(f"it is no array of numbers ({error})") from error


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows by frame; ValueError if one is missing or twice there, which would shift all that follow."""
    if table.empty:
        raise ValueError("the table has no rows")
    if "frame" not in table:
        return table
    table = table.sort_values("frame", kind="stable")
    frames = table["frame"].to_numpy()
    if lacking := sorted(set(range(len(table))) - set(frames.tolist())):
        raise ValueError(
            f"the table has {len(table)} rows but none for frame {lacking[0]}: frames count from 0, one a row"
        )
    return table


def _flags(column: pd.Series[Any]) -> NDArray[np.bool_]:
    if column.dtype.kind not in "bui":
        raise ValueError("the column valid must hold True or False, 1 or 0")
    return np.asarray(column.to_numpy(), bool)


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
    if np.abs(linear).max(initial=0) > 1e100:
        return TransformModel.AFFINE  # likewise
    gram = linear @ np.swapaxes(linear, -1, -2)
    scale = np.trace(gram, axis1=-2, axis2=-1) / linear.shape[-1]
    if np.abs(gram - scale[:, None, None] * identity).max(initial=0) > 1e-9 or (np.linalg.det(linear) < 0).any():
        return TransformModel.AFFINE
    return TransformModel.EUCLIDEAN if np.abs(scale - 1).max(initial=0) < 1e-9 else TransformModel.SIMILARITY
