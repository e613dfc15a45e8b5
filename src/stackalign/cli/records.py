"""Check values typed on the command line against a parameter record: an error names the key and what is allowed."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from stackalign.cli.methods import allowed, shown, unit
from stackalign.cli.options import bad

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stackalign.core.parameters import Parameters

P = TypeVar("P", bound="Parameters")
# pydantic's errors that the list of what is allowed says better
_PLAIN = ("_parsing", "_type", "literal_error", "_than", "_equal", "enum", "_from_float", "_number")


def checked(record: type[P], values: Mapping[str, Any], option: str = "--set") -> P:
    """Return the record made of ``values``.

    Raises
    ------
    typer.BadParameter
        Names the key, what it was set to and what is allowed.
    """
    for key in values:
        if key not in record.model_fields:
            raise bad(option, unknown(key, record.model_fields))
    try:
        return record.model_validate(dict(values))
    except ValidationError as error:
        raise bad(option, said(record, error)) from None


def unknown(key: str, known: Any) -> str:
    """Return a sentence about a key that does not exist, with the likeliest first."""
    names = [str(name) for name in known if name != "method"]
    close = get_close_matches(key, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"there is no parameter {key!r}: {hint}There are {', '.join(names)}"


def said(record: type[Parameters], error: ValidationError) -> str:
    """Return the first thing that pydantic found wrong as one line."""
    first = error.errors()[0]
    key = str(first["loc"][0]) if first["loc"] else ""
    reason = str(first["msg"]).removeprefix("Value error, ")
    field = record.model_fields.get(key)
    if field is None:
        return reason
    facts = "; ".join(filter(None, (allowed(field), unit(field))))
    if facts and first["type"].endswith(_PLAIN):
        return f"{key} = {shown(first['input'])} is not allowed: it must be {facts}"
    return f"{key} = {shown(first['input'])} is not allowed: {reason}" + (f" ({facts})" if facts else "")
