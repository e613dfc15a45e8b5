"""The base of every parameter record: frozen, strict about names, the source of forms, options and schema."""

from pydantic import BaseModel, ConfigDict


class Parameters(BaseModel):
    """A frozen record of parameters.

    Every field of a subclass carries ``title``, ``description``, bounds and, in ``json_schema_extra={"unit": ...}``,
    its unit: the form in the viewer, the command line and the JSON schema are generated from them. A field that only
    experts change is marked ``json_schema_extra={"advanced": True}`` and folded away in the form.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_enum_values=False)
