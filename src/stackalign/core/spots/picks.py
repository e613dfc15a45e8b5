"""A pick: the box around one particle in one frame, as a user draws it or `suggest_picks` proposes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from stackalign.core.geometry import Box
from stackalign.core.parameters import Parameters

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Pick(Parameters):
    """One particle to follow.

    Examples
    --------
    >>> pick = Pick.of(Box(289, 303, 248, 264), frame=0, id=1)
    >>> pick.box.shape
    (14, 16)
    """

    id: int = Field(0, title="Particle", description="Number of the particle, shown beside its box", ge=0)
    frame: int = Field(0, title="Frame", description="Frame in which the box was drawn", ge=0)
    bounds: tuple[int, ...] = Field(
        title="Box",
        description="y0, y1, x0, x1 (or z0, z1, y0, y1, x0, x1): first row, row after the last one, and so on",
        json_schema_extra={"unit": "px"},
    )

    @field_validator("bounds", mode="before")
    @classmethod
    def _box(cls, value: Any) -> tuple[int, ...]:
        box = value if isinstance(value, Box) else Box(*value)
        return box.bounds

    @classmethod
    def of(cls, box: Box, *, frame: int = 0, id: int = 0) -> Pick:
        """Return the pick of a box."""
        return cls(id=id, frame=frame, bounds=box.bounds)

    @property
    def box(self) -> Box:
        """The box in its frame."""
        return Box(*self.bounds)

    @property
    def centre(self) -> tuple[float, ...]:
        """Centre of the box, pixels."""
        return tuple((a + b - 1) / 2 for a, b in zip(self.box.start, self.box.stop, strict=True))


def numbered(picks: Iterable[Pick]) -> tuple[Pick, ...]:
    """Return the picks, numbered 1, 2, 3, ... where their own numbers are not all different."""
    items = tuple(picks)
    if len({pick.id for pick in items}) == len(items):
        return items
    return tuple(pick.model_copy(update={"id": k}) for k, pick in enumerate(items, start=1))


def check_picks(picks: Sequence[Pick], shape: Sequence[int]) -> None:
    """Raise ValueError if a pick does not fit a stack of ``shape`` (t, y, x) or (t, z, y, x)."""
    if not picks:
        raise ValueError("no particle is picked: pick at least one, or let some be suggested (auto)")
    for pick in picks:
        if pick.frame >= shape[0]:
            raise ValueError(f"particle {pick.id} is picked in frame {pick.frame}, but the stack has {shape[0]} frames")
        if len(pick.bounds) != 2 * (len(shape) - 1):
            raise ValueError(
                f"particle {pick.id} has a {len(pick.bounds) // 2}-D box, the frames are {len(shape) - 1}-D"
            )
        try:
            pick.box.clipped(shape[1:])
        except ValueError as error:
            raise ValueError(f"particle {pick.id}: {error}") from None
