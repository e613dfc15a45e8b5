"""Tables as CSV: a header with units, NaN as an empty cell, every number to its last bit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackalign.io.atomic import replacing
from stackalign.io.errors import TableReadError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    import pandas as pd

_HEADER = re.compile(r"^(?P<name>.*\S)\s*\[(?P<unit>[^\[\]]*)\]$")


def write_table(path: str | PathLike[str], table: pd.DataFrame, *, units: Mapping[str, str] | None = None) -> Path:
    """Write a table as CSV (UTF-8, comma, point, one header line).

    Parameters
    ----------
    path : path
        The file; written beside it and renamed when whole.
    table : DataFrame
        Columns whose names end in their unit (``translation_y_px``) stand as they are.
    units : mapping of str to str, optional
        Units of further columns, written behind the name: ``y [µm]``.

    Raises
    ------
    StackWriteError
        If the file cannot be written; the old one stands.
    """
    target = Path(path).expanduser()
    known = {**dict(table.attrs.get("units", {})), **(units or {})}
    named = table.rename(columns={c: f"{c} [{known[c]}]" for c in table.columns if c in known})
    with replacing(target) as part:
        named.to_csv(part, index=False, lineterminator="\n", encoding="utf-8")
    return target


def read_table(path: str | PathLike[str]) -> pd.DataFrame:
    """Read a CSV table; units in brackets go from the header to ``table.attrs["units"]``.

    Raises
    ------
    TableReadError
        If there is no such file or it is no table.
    """
    import pandas as pd

    source = Path(path).expanduser()
    if not source.is_file():
        raise TableReadError(f"there is no file {source}")
    try:
        table: pd.DataFrame = pd.read_csv(source, encoding="utf-8-sig", **_exact(pd.__version__))
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise TableReadError(f"{source} is no table that can be read ({error})") from error
    units: dict[str, str] = {}
    names = {}
    for column in table.columns:
        if match := _HEADER.match(str(column)):
            names[column] = match["name"]
            units[match["name"]] = match["unit"]
    table = table.rename(columns=names)
    if units:
        table.attrs["units"] = units
    return table


def _exact(version: str) -> dict[str, Any]:
    """Return how numbers are read to their last bit: pandas does so by itself since 3.1, where asking is deprecated."""
    new = tuple(int(part) for part in version.split(".")[:2]) >= (3, 1)
    return {} if new else {"float_precision": "round_trip"}
