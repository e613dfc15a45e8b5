"""Keys on the canvas while the panel is open; a binding that the viewer had is put back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KEYS = {
    "On the canvas": {
        "Space": "before / after",
        "B": "blink",
        "[ and ]": "previous, next flagged frame",
        "← and →": "step through time",
    },
    "In the panel": {
        "Ctrl+Return": "align",
        "Ctrl+Z": "undo",
        "Ctrl+Shift+Z": "redo",
        "Delete": "take the marked run off the list",
        "F1": "this list",
    },
    "In the plot": {"Click": "go to that frame", "Wheel": "zoom in time", "Double click": "show all"},
}


class CanvasKeys:
    """Binds keys of a viewer until it is closed.

    Parameters
    ----------
    viewer : Viewer
        Whose canvas has the focus.
    actions : mapping of str to callable
        By key, as napari writes it.
    """

    def __init__(self, viewer: Any, actions: Mapping[str, Callable[[], object]]) -> None:
        self._keymap: dict[Any, Any] = viewer.keymap
        self._before: dict[Any, Any] = {}
        self._ours: dict[Any, Any] = {}
        for key, action in actions.items():
            before = dict(self._keymap)
            viewer.bind_key(key, _handler(action), overwrite=True)
            bound = next(k for k, v in self._keymap.items() if before.get(k) is not v)
            self._before[bound], self._ours[bound] = before.get(bound), self._keymap[bound]

    def close(self) -> None:
        """Put back what was there."""
        for key, ours in self._ours.items():
            if self._keymap.get(key) is not ours:  # rebound by somebody else since
                continue
            if self._before[key] is None:
                del self._keymap[key]
            else:
                self._keymap[key] = self._before[key]
        self._ours = {}


def _handler(action: Callable[[], object]) -> Callable[[Any], None]:
    def on_key(_viewer: Any) -> None:
        action()

    return on_key
