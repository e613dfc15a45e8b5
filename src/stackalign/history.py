"""Undo and redo: every change of a session is an `Edit` whose application returns its inverse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class Editable(Protocol):
    """What edits act on: named values that are replaced as a whole."""

    def _exchange(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Take the values over and return those that they replaced."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Edit:
    """A change of named values.

    Attributes
    ----------
    name : str
        What the user did, for the tooltip of Undo ("change sub-pixel steps").
    values : mapping
        The new values, by name.
    merge : str
        Consecutive edits with the same tag become one step: the clicks on one spin box. Empty: never.
    """

    name: str
    values: Mapping[str, Any]
    merge: str = ""

    def apply(self, target: Editable) -> Edit:
        """Make the change; returns the edit that takes it back."""
        return Edit(self.name, target._exchange(self.values), self.merge)


class History:
    """Two piles of inverse edits.

    Parameters
    ----------
    target : Editable
        What the edits act on.
    depth : int
        Steps that are remembered.
    """

    def __init__(self, target: Editable, depth: int = 200) -> None:
        self._target, self._depth = target, depth
        self._undo: list[Edit] = []
        self._redo: list[Edit] = []

    @property
    def undo_name(self) -> str:
        """What `undo` would take back; empty if there is nothing."""
        return self._undo[-1].name if self._undo else ""

    @property
    def redo_name(self) -> str:
        """What `redo` would do again; empty if there is nothing."""
        return self._redo[-1].name if self._redo else ""

    @property
    def names(self) -> tuple[str, ...]:
        """What was done and not taken back, the oldest first."""
        return tuple(edit.name for edit in self._undo)

    @property
    def names_ahead(self) -> tuple[str, ...]:
        """What was taken back and can be done again, the next one first."""
        return tuple(edit.name for edit in reversed(self._redo))

    def do(self, edit: Edit) -> None:
        """Make a change that can be undone."""
        inverse = edit.apply(self._target)
        self._redo.clear()
        last = self._undo[-1] if self._undo else None
        if edit.merge and last is not None and last.merge == edit.merge and last.values.keys() == edit.values.keys():
            return  # the inverse on the pile already leads back to before the first of them
        self._undo.append(inverse)
        del self._undo[: -self._depth]

    def seal(self) -> None:
        """Let no later edit merge into the last one."""
        if self._undo:
            last = self._undo[-1]
            self._undo[-1] = Edit(last.name, last.values)

    def undo(self) -> bool:
        """Take the last change back; False if there is none."""
        if not self._undo:
            return False
        self._redo.append(self._undo.pop().apply(self._target))
        self.seal()
        return True

    def redo(self) -> bool:
        """Make the change that was taken back last again; False if there is none."""
        if not self._redo:
            return False
        self._undo.append(self._redo.pop().apply(self._target))
        self.seal()
        return True
