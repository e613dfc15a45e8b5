"""Tables of parameters, generated from their records: name, default, allowed values, unit, what it does."""

import textwrap
import types
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

    from stackalign.core.parameters import Parameters

_BOUNDS = (("ge", ">= "), ("gt", "> "), ("le", "<= "), ("lt", "< "))


def methods(
    method: Annotated[str | None, typer.Argument(help="One method; all of them if left out.")] = None,
) -> None:
    """List the methods of alignment with every parameter, its unit, default and bounds."""
    from stackalign.cli.options import bad
    from stackalign.config import METHODS

    if method is not None and method not in METHODS:
        raise bad("METHOD", f"{method!r} is no method: choose {words(METHODS)}")
    typer.echo("\n\n".join(method_table(name) for name in METHODS if method in (None, name)))


def method_table(name: str) -> str:
    """Return the parameters of a method under its name and first line of documentation."""
    from stackalign.config import METHODS

    record = METHODS[name]
    about = (record.__doc__ or "").strip().split("\n")[0]
    return f"{name}: {about}\n" + parameter_table(record)


def parameter_table(record: "type[Parameters]", prefix: str = "", width: int = 100) -> str:
    """Return one entry a field: ``key = default  (allowed) [unit]`` and its description below."""
    lines = []
    for key, field in record.model_fields.items():
        if key == "method":
            continue
        head = f"  {prefix}{key} = {shown(field.get_default(call_default_factory=True))}"
        facts = "; ".join(filter(None, (allowed(field), unit(field))))
        lines.append(head + (f"  ({facts})" if facts else ""))
        text = field.description or field.title or ""
        lines += textwrap.wrap(text, width, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def described(record: "type[Parameters]", key: str) -> str:
    """Return a field's description, allowed values, unit and default, as the help of an option."""
    field = record.model_fields[key]
    facts = "; ".join(
        filter(None, (allowed(field), unit(field), f"default {shown(field.get_default(call_default_factory=True))}"))
    )
    return f"{(field.description or field.title or key).rstrip('.')} ({facts})."


def allowed(field: "FieldInfo") -> str:
    """Return the values that a field takes, in words."""
    choices = list(_choices(field.annotation))
    bounds = [sign + f"{value:g}" for rule in field.metadata for name, sign in _BOUNDS for value in _bound(rule, name)]
    return ", ".join(filter(None, ("|".join(choices), " and ".join(bounds))))


def unit(field: "FieldInfo") -> str:
    """Return a field's unit; empty if it has none."""
    extra = field.json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


def shown(value: Any) -> str:
    """Return a value as it is typed behind ``--set key=``."""
    if value is None:
        return "none"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(shown, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def words(names: Any) -> str:
    """Return "a, b or c"."""
    *first, last = map(str, names)
    return f"{', '.join(first)} or {last}" if first else last


def _choices(annotation: Any) -> "Iterator[str]":
    origin = get_origin(annotation)
    if origin is Literal:
        yield from (shown(value) for value in get_args(annotation))
    elif origin is Annotated:
        yield from _choices(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _choices(part)
    elif annotation is type(None):
        yield "none"
    elif annotation is bool:
        yield from ("true", "false")
    elif annotation in (int, float, str):
        yield {int: "integer", float: "number", str: "text"}[annotation]
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        yield from (str(member.value) for member in annotation)
    elif origin in (tuple, list):
        yield "[" + ", ".join("..." if part is ... else "|".join(_choices(part)) for part in get_args(annotation)) + "]"


def _bound(rule: Any, name: str) -> "Iterator[float]":
    value = getattr(rule, name, None)
    if isinstance(value, int | float):
        yield value
