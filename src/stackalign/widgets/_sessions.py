"""One session a viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from stackalign.session import AlignmentSession
from stackalign.widgets._preferences import preferred_method

if TYPE_CHECKING:
    from napari.components import ViewerModel

_SESSIONS: WeakKeyDictionary[Any, AlignmentSession] = WeakKeyDictionary()


def session_for(viewer: ViewerModel) -> AlignmentSession:
    """Return the session that all panels of ``viewer`` share."""
    # napari hands panels a proxy; the model behind it is what lives as long as the viewer
    model = getattr(viewer, "__wrapped__", viewer)
    if model not in _SESSIONS:
        _SESSIONS[model] = AlignmentSession(preferred_method())
    return _SESSIONS[model]
