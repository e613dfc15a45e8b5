"""The recipe: everything that a run depends on, one YAML document."""

from __future__ import annotations

import types
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from stackalign.core.deep.registrar import DeepHomography
from stackalign.core.frames.preprocess import Preprocess
from stackalign.core.lowrank.registrar import Reals
from stackalign.core.lucas_kanade.registrar import LucasKanade
from stackalign.core.multimodal.registrar import Multimodal
from stackalign.core.parameters import Parameters
from stackalign.core.references.reference import POLICIES
from stackalign.core.spots.registrar import ParticleTracking
from stackalign.core.translation.registrar import CrossCorrelation
from stackalign.core.warping.warp import WarpOptions
from stackalign.io.atomic import replacing

if TYPE_CHECKING:
    from os import PathLike

    from stackalign.core.registration import RegistrarParameters

METHODS: dict[str, type[RegistrarParameters]] = {
    "cross-correlation": CrossCorrelation,
    "lucas-kanade": LucasKanade,
    "multimodal": Multimodal,
    "deep": DeepHomography,
    "particles": ParticleTracking,
    "reals": Reals,
}
AnyRegistrar: TypeAlias = Annotated[
    CrossCorrelation | LucasKanade | Multimodal | DeepHomography | ParticleTracking | Reals,
    Field(discriminator="method"),
]
REFERENCES = POLICIES
VERSION = 1


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the file, the key, and what is allowed."""


class InputSpec(Parameters):
    """Which stack."""

    path: str = Field(title="Path", description="File, folder or glob of the stack", min_length=1)
    axes: str | None = Field(
        None, title="Axes", description="What each axis is, where the file leaves it open: tyx, tzyx, tcyx, ..."
    )
    channel: int | str | None = Field(
        None, title="Channel", description="The channel that the motion is measured on, by number or name"
    )
    frames: tuple[int, int] | None = Field(
        None, title="Frames", description="First frame, and the one after the last; none: all"
    )

    @model_validator(mode="after")
    def _consistent(self) -> InputSpec:
        if self.frames is not None and not 0 <= self.frames[0] < self.frames[1]:
            raise ValueError(f"frames are first and end with 0 <= first < end, not {list(self.frames)}")
        return self


class OutputSpec(Parameters):
    """What is written, and where."""

    folder: str | None = Field(None, title="Folder", description="Where the result goes; none: nothing is written")
    format: Literal["tif", "ome.tif", "zarr"] = Field("tif", title="Format", description="Of the aligned stack")
    compression: Literal["none", "deflate", "zstd"] = Field(
        "none", title="Compression", description="Of the aligned stack; lossless"
    )
    report: bool = Field(True, title="Report", description="Write report.html")
    script_output: bool = Field(
        False,
        title="Folder script_output",
        description="Write script_output/ too, with the tables and images that the particle scripts leave (particles)",
        json_schema_extra={"advanced": True},
    )
    decomposition: bool = Field(
        False,
        title="Decomposition",
        description="Write low_rank.tif and sparse.tif too, float32, where the method has them (reals)",
        json_schema_extra={"advanced": True},
    )


class AlignmentConfig(Parameters):
    """Everything that a run depends on."""

    input: InputSpec = Field(title="Input", description="Which stack")
    reference: int | str | None = Field(
        None,
        title="Reference",
        description=f"What frames are aligned to: {', '.join(POLICIES)}, a frame number, or the path of an image;"
        " none: the method's default",
    )
    anchor: int | Literal["mean"] | None = Field(
        None, title="Anchor", description="Frame that stays where it is, or mean; none: the first valid frame"
    )
    preprocess: Preprocess = Field(
        default_factory=Preprocess, title="Preparation", description="Region that the motion is measured in"
    )
    registrar: AnyRegistrar = Field(
        default_factory=CrossCorrelation, title="Method", description="The method and its parameters"
    )
    warp: WarpOptions = Field(
        default_factory=WarpOptions, title="Resampling", description="How the aligned stack is made"
    )
    output: OutputSpec = Field(default_factory=OutputSpec, title="Output", description="What is written, and where")
    seed: int = Field(0, title="Seed", description="Of everything that is drawn at random", ge=0, le=2**63 - 1)


def load_recipe(path: str | PathLike[str]) -> AlignmentConfig:
    """Read a recipe.

    Parameters
    ----------
    path : path
        A YAML file. Paths in it are taken as they stand, relative to where the program runs.

    Raises
    ------
    RecipeError
        If the file cannot be read, is no YAML, or holds a key or a value that is not allowed.
    """
    place = Path(path).expanduser()
    try:
        text = place.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"there is no recipe {place}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"the recipe {place} cannot be read ({error})") from error
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where is not None else ""
        raise RecipeError(f"the recipe {place} is no valid YAML{line}: {getattr(error, 'problem', error)}") from error
    if not isinstance(data, dict):
        raise RecipeError(f"the recipe {place} holds no keys: it must have at least 'input' with a 'path'")
    version = data.pop("version", VERSION)
    if version != VERSION:
        raise RecipeError(f"the recipe {place} has version {version!r}; this program reads version {VERSION}")
    data.pop("stackalign", None)  # the program that wrote it
    return parse_recipe(data, str(place))


def parse_recipe(data: dict[str, Any], name: str = "recipe") -> AlignmentConfig:
    """Return plain values as a recipe; RecipeError names the key, the value and what is allowed."""
    try:
        return AlignmentConfig.model_validate(data)
    except ValidationError as error:
        problems = [_explained(problem, data) for problem in error.errors()]
        raise RecipeError(f"{name}: " + "; ".join(dict.fromkeys(problems))) from None


def save_recipe(path: str | PathLike[str], config: AlignmentConfig) -> Path:
    """Write a recipe, whole or not at all.

    Raises
    ------
    StackWriteError
        If the file cannot be written.
    """
    from stackalign import __version__

    target = Path(path).expanduser()
    data = {"version": VERSION, "stackalign": __version__, **config.model_dump(mode="json")}
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
    with replacing(target) as part:
        part.write_text(text, encoding="utf-8")
    return target


def _explained(problem: Any, data: dict[str, Any]) -> str:
    """Return one sentence about a value that pydantic refused."""
    place = [str(p) for p in problem["loc"]]
    record, field, names = _field(place, data)
    key = ".".join(names) or "recipe"
    given, kind = problem.get("input"), problem["type"]
    if kind == "extra_forbidden":
        known = list(record.model_fields) if record is not None else []
        close = get_close_matches(names[-1], known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"there is no key {key!r}: {hint}allowed are {', '.join(known)}"
    if kind == "missing":
        return f"the key {key!r} is missing"
    reason = str(problem["msg"]).removeprefix("Value error, ")
    if field is None:
        return f"{key} = {given!r} is not allowed: {reason}"
    choices = allowed_values(field.annotation)
    return f"{key} = {given!r} is not allowed: {reason}" + (f" (allowed: {choices})" if choices else "")


def _field(place: list[str], data: dict[str, Any]) -> tuple[type[BaseModel] | None, Any, list[str]]:
    """Follow the location of a problem through the records; tags of unions are no keys."""
    record: type[BaseModel] | None = AlignmentConfig
    field, names = None, []
    for part in place:
        if record is None:
            break
        if part in record.model_fields:
            field = record.model_fields[part]
            names.append(part)
            record_of = field.annotation
            if part == "registrar":
                given = data.get("registrar")
                tag = given.get("method") if isinstance(given, dict) else None
                next_record: type[BaseModel] | None = METHODS.get(str(tag), CrossCorrelation)
            else:
                next_record = record_of if isinstance(record_of, type) and issubclass(record_of, BaseModel) else None
            if next_record is None:
                break
            record, field = next_record, field
        elif part in METHODS:
            continue
        else:
            names.append(part)
            return record, None, names
    return record, field, names


def allowed_values(annotation: Any) -> str:
    """Return what a type allows, in words."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return allowed_values(get_args(annotation)[0])
    if origin is Literal:
        return ", ".join(map(str, get_args(annotation)))
    if origin in (Union, types.UnionType):
        return ", ".join(dict.fromkeys(filter(None, (allowed_values(a) for a in get_args(annotation)))))
    if annotation is type(None):
        return "none"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(str(m.value) for m in annotation)
    plain = {bool: "true, false", int: "a whole number", float: "a number", str: "text"}
    if annotation in plain:
        return plain[annotation]
    return "a list of numbers" if origin is tuple else ""
