"""How far a method looks for a motion: the fields that most of their parameter records have."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

MaxRotation = Annotated[
    float,
    Field(
        title="Largest rotation",
        description="Rotations up to this are looked for; 180: all",
        ge=0,
        le=180,
        json_schema_extra={"unit": "deg"},
    ),
]

MaxScale = Annotated[
    float,
    Field(
        title="Largest scale",
        description="Changes of size up to this factor, and down to its inverse, are looked for; a few per cent are"
        " always found",
        ge=1,
        le=8,
        json_schema_extra={"advanced": True},
    ),
]

MaxShift = Annotated[
    float | None,
    Field(
        title="Largest shift",
        description="Shifts of the centre beyond are not looked for; none: whatever leaves the least overlap",
        gt=0,
        json_schema_extra={"unit": "px"},
    ),
]

MinOverlap = Annotated[
    float,
    Field(
        title="Least overlap",
        description="Share of the reference (of the frame, if that is smaller) that must still be in view",
        gt=0,
        le=1,
        json_schema_extra={"advanced": True},
    ),
]
