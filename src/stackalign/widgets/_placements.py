"""Where layers were put, kept by the session: undo moves them back; and two layers in two colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image
    from numpy.typing import NDArray

    from stackalign.session import AlignmentSession

    Array = NDArray[np.float64]


class TwoColours:
    """Shows two layers in magenta and green, and gives them their own look back."""

    def __init__(self) -> None:
        self._before: list[tuple[Image, str, dict[str, Any]]] = []

    def show(self, moving: Image, reference: Image) -> None:
        """Colour both; colours of an RGB layer stay as they are."""
        self.restore()
        for layer, colour in ((moving, "magenta"), (reference, "green")):
            own = {"blending": layer.blending, "visible": layer.visible, "opacity": layer.opacity}
            if not layer.rgb:
                own["colormap"] = layer.colormap
                layer.colormap = colour
            layer.blending, layer.visible, layer.opacity = "additive", True, 1.0
            self._before.append((layer, colour, own))

    def restore(self) -> None:
        """Put back what was there; what the user has changed since stays."""
        for layer, colour, own in self._before:
            if "colormap" in own and layer.colormap.name != colour:
                del own["colormap"]
            if layer.blending != "additive":
                del own["blending"]
            for name, value in own.items():
                setattr(layer, name, value)
        self._before = []


class PlacementKeeper:
    """Moves layers where the session says, as long as the viewer lives: undo works with every panel closed."""

    def __init__(self, viewer: ViewerModel, session: AlignmentSession) -> None:
        self._viewer, self._shown = viewer, dict(session.placements)
        session.events.placements.connect(self._show)

    def _show(self, placements: dict[str, Array]) -> None:
        before, self._shown = self._shown, dict(placements)
        for layer in self._viewer.layers:
            affine = placements.get(layer.unique_id)
            if affine is None or affine is before.get(layer.unique_id):
                continue
            if not np.array_equal(affine, layer.affine.affine_matrix):
                layer.affine = affine


_KEEPERS: WeakKeyDictionary[Any, PlacementKeeper] = WeakKeyDictionary()


def keep_placements(viewer: ViewerModel, session: AlignmentSession) -> None:
    """Let the session move layers of a viewer; once."""
    model = getattr(viewer, "__wrapped__", viewer)
    if session not in _KEEPERS:
        _KEEPERS[session] = PlacementKeeper(model, session)
