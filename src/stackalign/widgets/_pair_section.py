"""Which two layers, what of them is looked at, and which part of the reference counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from stackalign.widgets._pair_layers import (
    channels_in,
    has_depth,
    is_pairable,
    mask_in,
    may_be_volume,
    pair_image,
    summary_of,
)
from stackalign.widgets._style import narrow_combo, note, row, say, small_button

if TYPE_CHECKING:
    import numpy as np
    from napari.components import ViewerModel
    from napari.layers import Image, Layer
    from numpy.typing import NDArray

    from stackalign.core.warping.common_grid import PairImage

_PLACED = ("affine", "scale", "translate", "rotate", "shear", "units", "data")  # events of a layer that looks otherwise


class PairSection(QWidget):
    """Chooses moving and reference layer.

    Signals
    -------
    pair_changed()
        Other layers are chosen.
    changed()
        Anything is chosen otherwise, other layers included.
    moved()
        A layer lies elsewhere, looks different, or another frame is on show.
    """

    pair_changed = Signal()
    changed = Signal()
    moved = Signal()

    def __init__(self, viewer: ViewerModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._filling = False
        self._watched: WeakSet[Layer] = WeakSet()
        self.moving, self.reference = narrow_combo(), narrow_combo()
        self.moving.setToolTip("The layer that is moved")
        self.reference.setToolTip("The layer that stays where it is")
        self.swap = small_button("⇅", "Exchange the two layers", self.swap_layers)
        self.swap.setAccessibleName("Exchange the two layers")
        self.about_moving, self.about_reference = note(), note()
        self.channel, self.reference_channel = narrow_combo(), narrow_combo()
        self._channel_rows = (
            row("Channel", self.channel, tip="What is looked at of the moving layer; all of it is moved"),
            row("Channel", self.reference_channel, tip="What is looked at of the reference"),
        )
        self.volumes = QCheckBox("Whole volumes, not the plane on show")
        self.volumes.setToolTip("Register in three dimensions: z, y and x")
        self.inside = narrow_combo()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        for part in (
            row("Moving", self.moving, self.swap), self.about_moving, self._channel_rows[0],
            row("Reference", self.reference), self.about_reference, self._channel_rows[1], self.volumes,
            row("Inside", self.inside, tip="The part of the reference that counts: a shape or the labels of a layer"),
        ):  # fmt: skip
            column.addWidget(part)
        for box in (self.moving, self.reference):
            box.currentIndexChanged.connect(self._on_pair)
        for box in (self.channel, self.reference_channel, self.inside):
            box.currentIndexChanged.connect(self._on_choice)
        self.volumes.toggled.connect(self._on_choice)
        self._later = QTimer(self, singleShot=True, interval=0)  # several layers may come and go in one go
        self._later.timeout.connect(self.refresh)
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.connect(self._on_layers)
        viewer.dims.events.point.connect(self._on_moved)

    # what is chosen

    def find(self, key: str | None) -> Any:
        """Return the layer of an id, if it is still there."""
        return next((layer for layer in self._viewer.layers if layer.unique_id == key), None)

    @property
    def layers(self) -> tuple[Image, Image] | None:
        """Moving layer and reference; None as long as there are not two different ones."""
        moving, reference = self.find(self.moving.currentData()), self.find(self.reference.currentData())
        return None if moving is None or reference is None or moving is reference else (moving, reference)

    @property
    def volume(self) -> bool:
        """Whether volumes are registered rather than the planes on show."""
        return self.volumes.isVisibleTo(self) and self.volumes.isChecked()

    @property
    def obstacle(self) -> str:
        """What is missing, in words; empty if nothing is."""
        if self.layers is not None:
            return ""
        if self.find(self.moving.currentData()) is None or self.find(self.reference.currentData()) is None:
            return "Two image layers are needed: open or add another one"
        return "Moving and reference are the same layer: choose two"

    def images(self) -> tuple[PairImage, PairImage]:
        """Return what is on show of both; ValueError without two layers."""
        if self.layers is None:
            raise ValueError(self.obstacle)
        moving, reference = self.layers
        return (
            pair_image(self._viewer, moving, self.volume, self.channel.currentData()),
            pair_image(self._viewer, reference, self.volume, self.reference_channel.currentData()),
        )

    def mask(self, reference: PairImage) -> NDArray[np.bool_] | None:
        """Return which pixels of the reference count; None if all do. ValueError if none does."""
        chosen = self.find(self.inside.currentData())
        if chosen is None or self.layers is None:
            return None
        return mask_in(self._viewer, chosen, self.layers[1], reference, self.volume)

    def swap_layers(self) -> None:
        """Exchange moving and reference."""
        self._set(self.reference.currentData(), self.moving.currentData())

    def choose(self, moving: Layer, reference: Layer) -> None:
        """Choose both layers."""
        self.refresh()
        self._set(moving.unique_id, reference.unique_id)

    def _set(self, moving: str | None, reference: str | None) -> None:
        self._filling = True
        for box, key in ((self.moving, moving), (self.reference, reference)):
            box.setCurrentIndex(max(box.findData(key), 0))
        self._filling = False
        self._on_pair()

    # layers come and go

    def refresh(self) -> None:
        """List the layers again; keep the choices that are still there."""
        from napari.layers import Labels, Shapes

        for layer in self._viewer.layers:
            if layer not in self._watched:
                self._watched.add(layer)
                layer.events.name.connect(self._on_layers)
                for event in self._placed(layer):
                    event.connect(self._on_moved)
        images = [layer for layer in self._viewer.layers if is_pairable(layer)]
        known = [layer.unique_id for layer in images]
        chosen = (self.moving.currentData(), self.reference.currentData())
        active = self._viewer.layers.selection.active
        moving = next(
            (k for k in (chosen[0], getattr(active, "unique_id", None), *reversed(known)) if k in known), None
        )
        reference = chosen[1] if chosen[1] in known else None
        if reference is None or reference == moving != chosen[0]:
            reference = next((key for key in known if key != moving), None)
        inside = self.inside.currentData()
        self._filling = True
        for box, key in ((self.moving, moving), (self.reference, reference)):
            box.clear()
            for layer in images:
                box.addItem(layer.name, layer.unique_id)
            if key is None:
                box.insertItem(0, "another image is needed" if images else "no image layer yet", None)
            box.setCurrentIndex(max(box.findData(key), 0))
        self.inside.clear()
        self.inside.addItem("the whole image", None)
        for layer in self._viewer.layers:
            if isinstance(layer, Shapes | Labels) and not getattr(layer, "multiscale", False):
                self.inside.addItem(layer.name, layer.unique_id)
        self.inside.setCurrentIndex(max(self.inside.findData(inside), 0))
        self._filling = False
        if chosen != (moving, reference):
            self._on_pair()
        else:
            self._on_choice()

    def _on_layers(self, event: Any = None) -> None:
        self._later.start()

    def _on_moved(self, event: Any = None) -> None:
        self.moved.emit()

    def _on_pair(self) -> None:
        if self._filling:
            return
        pair = [self.find(box.currentData()) for box in (self.moving, self.reference)]
        self._filling = True
        for layer, box, line in zip(pair, (self.channel, self.reference_channel), self._channel_rows, strict=True):
            box.clear()
            for words, value in ({} if layer is None else channels_in(layer)).items():
                box.addItem(words, value)
            line.setVisible(box.count() > 0)
        self.volumes.setVisible(self.layers is not None and all(may_be_volume(layer) for layer in pair))
        self.volumes.setChecked(self.layers is not None and all(has_depth(layer) for layer in pair))
        self._filling = False
        self.pair_changed.emit()
        self._on_choice()

    def _on_choice(self, _value: Any = None) -> None:
        if self._filling:
            return
        for box, label in ((self.moving, self.about_moving), (self.reference, self.about_reference)):
            layer = self.find(box.currentData())
            say(label, "" if layer is None else summary_of(layer))
        self.changed.emit()

    @staticmethod
    def _placed(layer: Layer) -> list[Any]:
        return [getattr(layer.events, name) for name in _PLACED if hasattr(layer.events, name)]

    def close_section(self) -> None:
        """Let go of the viewer."""
        self._later.stop()
        events = self._viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.disconnect(self._on_layers)
        self._viewer.dims.events.point.disconnect(self._on_moved)
        for layer in self._watched:
            layer.events.name.disconnect(self._on_layers)
            for event in self._placed(layer):
                event.disconnect(self._on_moved)
