"""The panel "Register two layers": one layer is laid on another, and both are compared."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from stackalign.comparison import compare
from stackalign.core.transform import TransformModel
from stackalign.pairing import Pairing, models_of, pair_methods, pair_record, pair_work
from stackalign.widgets._comparison_view import ComparisonView
from stackalign.widgets._form import ParameterForm
from stackalign.widgets._frame_reader import LatestOnly
from stackalign.widgets._keys import CanvasKeys
from stackalign.widgets._method_section import _title
from stackalign.widgets._pair_layers import (
    TwoColours,
    axes_used,
    channels_in,
    corrected_affine,
    has_depth,
    is_pairable,
    keep_placements,
    length_of,
    mask_in,
    may_be_volume,
    pair_image,
    plane_on_show,
    resampled_layer,
    summary_of,
    unit_text,
)
from stackalign.widgets._panel import Panel
from stackalign.widgets._style import Fold, narrow_combo, note, row, say, small_button

if TYPE_CHECKING:
    import napari
    from napari.layers import Image, Layer
    from numpy.typing import NDArray

    from stackalign.core.work import Work

_MODELS = {
    TransformModel.TRANSLATION: "shift",
    TransformModel.EUCLIDEAN: "shift and rotation",
    TransformModel.SIMILARITY: "shift, rotation and scale",
    TransformModel.AFFINE: "shift, rotation, scale and shear",
    TransformModel.PROJECTIVE: "perspective",
}
_NOT_HERE = ("method", "model", "rolling", "lag", "blocks", "block_spacing", "block_difference", "subpixel")
_SETTLE_MS = 150  # a layer that is dragged speaks on every pixel
_KEYS = {
    "On the canvas": {"Space": "before / after", "O": "magenta and green on the canvas"},
    "In the panel": {"Ctrl+Return": "register", "Ctrl+Z, Ctrl+Shift+Z": "undo, redo", "F1": "this list"},
}


class RegisterLayers(Panel):
    """Registers one layer to another, whatever their pixel sizes and places.

    Parameters
    ----------
    napari_viewer : Viewer
        Injected by napari.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, "stackalign-register-layers", _KEYS, parent)
        self.pairing: Pairing | None = None
        self._filling = False
        self._wrong = ""
        self._records: dict[str, Any] = {}
        self._pair: tuple[str, str, bool] | None = None  # the layers that `pairing` is about, and whether as volumes
        self._ends: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None  # affine before and after
        self._watched: WeakSet[Layer] = WeakSet()
        self._thread = LatestOnly(self)
        self._later = QTimer(self, singleShot=True, interval=0)
        self._settle = QTimer(self, singleShot=True, interval=_SETTLE_MS)
        self.colours = TwoColours()
        keep_placements(napari_viewer, self.session)
        self._build()

        self._later.timeout.connect(self.refresh)
        self._settle.timeout.connect(self._compare)
        self._thread.done.connect(self._on_compared)
        for box in (self.moving, self.reference):
            box.currentIndexChanged.connect(self._on_layers_chosen)
        self.swap.clicked.connect(self.swap_layers)
        for box in (self.channel, self.reference_channel, self.inside, self.beginning):
            box.currentIndexChanged.connect(self._on_choice)
        self.volumes.toggled.connect(self._on_choice)
        self.model.currentIndexChanged.connect(self._on_model)
        self.method.currentIndexChanged.connect(self._on_method)
        self.run.start.connect(self.register)
        self.shortcut("Ctrl+Return", self.register)
        events = napari_viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.connect(self._on_layers)
        napari_viewer.dims.events.point.connect(self._on_moved)
        self.listen("placements", self._on_placements)
        keys = CanvasKeys(napari_viewer, {"Space": self.toggle_before, "o": self.on_canvas.toggle})
        for closer in (self._thread.close, keys.close, self._disconnect, self.colours.restore):
            self.at_end(closer)
        self._on_model()
        self.refresh()

    def _build(self) -> None:
        self.moving, self.reference = narrow_combo(), narrow_combo()
        self.moving.setToolTip("The layer that is moved")
        self.reference.setToolTip("The layer that stays where it is")
        self.swap = small_button("⇅", "Exchange the two layers", lambda: None)
        self.swap.setAccessibleName("Exchange the two layers")
        self.about_moving, self.about_reference = note(), note()
        self.channel, self.reference_channel = narrow_combo(), narrow_combo()
        self.channel_row = row("Channel", self.channel, tip="What is looked at of the moving layer; all of it is moved")
        self.reference_channel_row = row("Channel", self.reference_channel, tip="What is looked at of the reference")
        self.volumes = QCheckBox("Whole volumes, not the plane on show")
        self.volumes.setToolTip("Register in three dimensions: z, y and x")
        self.inside = narrow_combo()
        self.model, self.method, self.beginning = narrow_combo(), narrow_combo(), narrow_combo()
        for model, words in _MODELS.items():
            self.model.addItem(words, model)
        self.model.setCurrentIndex(self.model.findData(TransformModel.EUCLIDEAN))
        self.beginning.addItem("look everywhere", False)
        self.beginning.addItem("from where they lie", True)
        self.hint = note()
        options = QWidget()
        self._place = QVBoxLayout(options)
        self._place.setSpacing(4)
        self._form: ParameterForm | None = None
        self.options = Fold("Options", options)
        self.run.button.setObjectName("register")
        self.verdict, self.details = note(strong=True), note()
        self.view = ComparisonView()
        self.on_canvas = QCheckBox("Magenta and green on the canvas")
        self.on_canvas.setToolTip("Colour both layers so that what agrees is white; their own look comes back (O)")
        self.on_canvas.toggled.connect(self._on_colours)
        self.before = small_button("Before", "Show the layer where it was before (Space)", lambda: None)
        self.before.setCheckable(True)
        self.before.toggled.connect(self._show_before)
        self.add = QPushButton("Add resampled layer")
        self.add.setToolTip("A new layer with the pixels of the reference, beside its source")
        self.add.clicked.connect(self.add_resampled)
        after = QHBoxLayout()
        after.setContentsMargins(0, 0, 0, 0)
        after.addWidget(self.before)
        after.addWidget(self.add, 1)
        self.fill(
            row("Moving", self.moving, self.swap), self.about_moving, self.channel_row,
            row("Reference", self.reference), self.about_reference, self.reference_channel_row, self.volumes,
            row("Inside", self.inside, tip="The part of the reference that counts: a shape or the labels of a layer"),
            row("Model", self.model, tip="What may be done to the moving layer"),
            row("Method", self.method, tip="How the motion is found"),
            row("Start", self.beginning, tip="Look for the layer everywhere, or refine where it was put by hand"),
            self.hint, self.options, self.run, self.message, self.verdict, self.details, after,
            self.view, self.on_canvas,
        )  # fmt: skip
        self.column.addStretch(1)

    # what is chosen

    @property
    def moving_layer(self) -> Image | None:
        """The layer that is moved."""
        return self._find(self.moving.currentData())

    @property
    def reference_layer(self) -> Image | None:
        """The layer that stays."""
        return self._find(self.reference.currentData())

    @property
    def volume(self) -> bool:
        """Whether volumes are registered rather than the planes on show."""
        return self.volumes.isVisibleTo(self) and self.volumes.isChecked()

    @property
    def record(self) -> Any:
        """The method with its parameters."""
        return self._records[self.method.currentData()]

    def _find(self, key: str | None) -> Any:
        return next((layer for layer in self._viewer.layers if layer.unique_id == key), None)

    @property
    def placed(self) -> bool:
        """Whether the moving layer lies where the result on show has put it."""
        if self._ends is None or self._pair_layers() is None or self._pair is None:
            return False
        return bool(np.array_equal(self.session.placements.get(self._pair[0], ()), self._ends[1]))

    def swap_layers(self) -> None:
        """Exchange moving and reference."""
        moving, reference = self.moving.currentData(), self.reference.currentData()
        self._filling = True
        self.moving.setCurrentIndex(self.moving.findData(reference))
        self.reference.setCurrentIndex(self.reference.findData(moving))
        self._filling = False
        self._on_layers_chosen()

    def choose(self, moving: Layer, reference: Layer) -> None:
        """Choose both layers."""
        self.refresh()
        self._filling = True
        self.moving.setCurrentIndex(self.moving.findData(moving.unique_id))
        self.reference.setCurrentIndex(self.reference.findData(reference.unique_id))
        self._filling = False
        self._on_layers_chosen()

    # layers come and go

    def _on_layers(self, event: Any = None) -> None:
        self._later.start()

    def refresh(self) -> None:
        """List the layers again; keep the choices that are still there."""
        from napari.layers import Labels, Shapes

        for layer in self._viewer.layers:
            if layer not in self._watched:
                self._watched.add(layer)
                for event in _EVENTS:
                    if hasattr(layer.events, event):
                        getattr(layer.events, event).connect(self._on_moved if event != "name" else self._on_layers)
        images = [layer for layer in self._viewer.layers if is_pairable(layer)]
        known = [layer.unique_id for layer in images]
        active = self._viewer.layers.selection.active
        wanted = (self.moving.currentData(), getattr(active, "unique_id", None), *reversed(known))
        moving = next((key for key in wanted if key in known), None)
        reference = self.reference.currentData()
        if reference not in known or reference == moving:
            reference = next((key for key in known if key != moving), None)
        chosen = (self.moving.currentData(), self.reference.currentData())
        self._filling = True
        for box, key in ((self.moving, moving), (self.reference, reference)):
            box.clear()
            for layer in images:
                box.addItem(layer.name, layer.unique_id)
            if key is None:
                box.addItem("no layer yet" if not images else "another image layer is needed", None)
            box.setCurrentIndex(max(box.findData(key), 0))
        inside = self.inside.currentData()
        self.inside.clear()
        self.inside.addItem("the whole image", None)
        for layer in self._viewer.layers:
            if isinstance(layer, Shapes | Labels) and not getattr(layer, "multiscale", False):
                self.inside.addItem(layer.name, layer.unique_id)
        self.inside.setCurrentIndex(max(self.inside.findData(inside), 0))
        self._filling = False
        if chosen != (moving, reference):
            self._on_layers_chosen()
        else:
            self._on_choice()

    def _on_layers_chosen(self) -> None:
        if self._filling:
            return
        self.on_canvas.setChecked(False)
        layers = (self.moving_layer, self.reference_layer)
        self._filling = True
        for layer, box, line in zip(
            layers, (self.channel, self.reference_channel), (self.channel_row, self.reference_channel_row), strict=True
        ):
            box.clear()
            for words, value in ({} if layer is None else channels_in(layer)).items():
                box.addItem(words, value)
            line.setVisible(box.count() > 0)
        pair = [layer for layer in layers if layer is not None]
        self.volumes.setVisible(len(pair) == 2 and all(may_be_volume(layer) for layer in pair))
        self.volumes.setChecked(len(pair) == 2 and all(has_depth(layer) for layer in pair))
        self._filling = False
        self._forget()
        self._on_choice()

    def _on_choice(self, _value: Any = None) -> None:
        if self._filling:
            return
        for layer, label in ((self.moving_layer, self.about_moving), (self.reference_layer, self.about_reference)):
            say(label, "" if layer is None else summary_of(layer))
        self._show_hint()
        self.show_ready()
        self._settle.start()

    def _show_hint(self) -> None:
        moving, reference = self.moving_layer, self.reference_layer
        text = ""
        if moving is not None and reference is not None and not self.beginning.currentData():
            known = [length_of(self._viewer, layer) is not None for layer in (moving, reference)]
            if known[0] != known[1]:
                other = moving if known[1] else reference
                text = f"The pixel size of “{other.name}” is not known: it is taken to be that of the other layer."
                if TransformModel(self.model.currentData()).rank < TransformModel.SIMILARITY.rank:
                    text += " If it is not, choose a model with scale."
        say(self.hint, text)

    # the method

    def _on_model(self) -> None:
        model = self.model.currentData()
        before = self.method.currentData()
        self._filling = True
        self.method.clear()
        for name, record in pair_methods().items():
            if model in models_of(record):
                self.method.addItem(_title(name), name)
        self.method.setCurrentIndex(max(self.method.findData(before), 0))
        self._filling = False
        self._on_method()

    def _on_method(self) -> None:
        if self._filling:
            return
        name, model = self.method.currentData(), self.model.currentData()
        record = self._records.get(name) or pair_record(name, model)
        if "model" in type(record).model_fields:
            record = record.model_copy(update={"model": model})
        self._records[name] = record
        if self._form is not None:
            self._place.removeWidget(self._form)
            self._form.deleteLater()
        self._wrong = ""
        self._form = ParameterForm(record, skip=_NOT_HERE)
        self._form.changed.connect(self._on_record)
        self._form.invalid.connect(self._on_invalid)
        self._place.addWidget(self._form)
        self._show_hint()
        self.show_ready()

    def _on_record(self, record: Any) -> None:
        self._records[self.method.currentData()] = record
        self.show_ready()

    def _on_invalid(self, text: str) -> None:
        self._wrong = text
        self.show_ready()

    # running

    def obstacle(self) -> str:
        """Return why nothing can be registered, in words; empty if it can."""
        if self.runner.busy:
            return "Something is running: wait, or cancel it"
        moving, reference = self.moving_layer, self.reference_layer
        if moving is None or reference is None:
            return "Two image layers are needed: open or add another one"
        if moving is reference:
            return "Moving and reference are the same layer: choose two"
        if self.volume and self.model.currentData() == TransformModel.PROJECTIVE:
            return "Perspective is for images, not for volumes: choose another model"
        return self._wrong

    def show_ready(self) -> None:
        """Say what the buttons would do now."""
        moving, reference = self.moving_layer, self.reference_layer
        obstacle = self.obstacle()
        text = "Register two layers"
        if moving is not None and reference is not None and moving is not reference:
            text = f"Register “{_short(moving.name)}” to “{_short(reference.name)}”"
        self.run.show_ready(text, obstacle, visible=not self.runner.busy)
        if not obstacle:
            self.run.button.setToolTip("Find out where the moving layer belongs, and put it there; it can be undone")
        known = self.pairing is not None and not self.pairing.refused and self._pair_layers() is not None
        self.add.setEnabled(known and not self.runner.busy)
        self.before.setEnabled(self.placed)

    def register(self) -> None:
        """Begin, if nothing stands in the way."""
        moving, reference = self.moving_layer, self.reference_layer
        if self.obstacle() or moving is None or reference is None:
            return
        self.before.setChecked(False)
        try:
            work = self._work(moving, reference)
        except Exception as error:
            self.fail(error, "Registering")
            return
        self._forget()
        begun = (moving.unique_id, reference.unique_id, self.volume)
        affine = moving.affine.affine_matrix.copy()
        self.start("Registering", work, partial(self._on_registered, begun, affine))

    def _work(self, moving: Image, reference: Image) -> Work[Pairing]:
        volume = self.volume
        free = pair_image(self._viewer, moving, volume, self.channel.currentData())
        fixed = pair_image(self._viewer, reference, volume, self.reference_channel.currentData())
        chosen = self._find(self.inside.currentData())
        mask = None if chosen is None else mask_in(self._viewer, chosen, reference, fixed, volume)
        return pair_work(free, fixed, self.record, mask=mask, refine=bool(self.beginning.currentData()))

    def _on_registered(self, begun: tuple[str, str, bool], affine: NDArray[np.float64], pairing: Pairing) -> None:
        moving, reference = self._find(begun[0]), self._find(begun[1])
        if moving is None or reference is None or not np.array_equal(moving.affine.affine_matrix, affine):
            say(self.message, "A layer was moved or removed meanwhile: the result is put away. Register again.")
            return
        if (moving, reference) != (self.moving_layer, self.reference_layer):
            self.choose(moving, reference)
        self.pairing, self._pair = pairing, begun
        say(self.verdict, pairing.sentence)
        if pairing.refused:
            say(self.details, "Try this:\n" + "\n".join(f"• {tip}" for tip in pairing.advice) if pairing.advice else "")
            return
        self._put(moving, reference, pairing)
        QTimer.singleShot(0, self._show_next_step)

    def _put(self, moving: Image, reference: Image, pairing: Pairing) -> None:
        """Move the layer to where it belongs."""
        before = moving.affine.affine_matrix.copy()
        after = corrected_affine(self._viewer, moving, axes_used(moving, self.volume), pairing.affine)
        lines = [pairing.motion(unit_text(self._viewer, moving)).capitalize() + "."]
        if pairing.model is TransformModel.PROJECTIVE:
            lines.append("The canvas shows the nearest affine: “Add resampled layer” is exact.")
        say(self.details, "\n".join(lines))
        self._ends = (before, after)
        self.session.place_layer(f"register {moving.name} to {reference.name}", moving.unique_id, before, after)

    def _show_next_step(self) -> None:
        if not self.closed:
            self.scroll.ensureWidgetVisible(self.view, 0, 8)
            self.scroll.ensureWidgetVisible(self.verdict, 0, 8)

    def _pair_layers(self) -> tuple[Image, Image] | None:
        """Return the layers that the result belongs to, if they are still there and chosen."""
        if self._pair is None:
            return None
        moving, reference = self._find(self._pair[0]), self._find(self._pair[1])
        if moving is None or reference is None or (moving, reference) != (self.moving_layer, self.reference_layer):
            return None
        return moving, reference

    def _forget(self) -> None:
        """Put the last result away."""
        self.before.setChecked(False)
        self.pairing = self._pair = self._ends = None
        for label in (self.verdict, self.details, self.message):
            say(label, "")
        self.show_ready()

    # after it

    def add_resampled(self) -> None:
        """Add the moving layer with the pixels of the reference, as a new layer."""
        layers = self._pair_layers()
        if layers is None or self.pairing is None:
            return
        moving, reference = layers
        self.before.setChecked(False)
        try:
            added = resampled_layer(self.pairing, moving, reference, self._pair is not None and self._pair[2])
        except Exception as error:
            self.fail(error, "Adding the resampled layer")
            return
        self.on_canvas.setChecked(False)
        self._viewer.layers.insert(self._viewer.layers.index(moving) + 1, added)
        moving.visible = False
        say(self.message, f"Added “{added.name}”; “{moving.name}” is hidden.")

    def toggle_before(self) -> None:
        """Show the layer where it was, or where it is."""
        if self.before.isEnabled():
            self.before.toggle()

    def _show_before(self, on: bool) -> None:
        layers = self._pair_layers()
        if self._ends is None or layers is None:
            return
        self.before.setText("After" if on else "Before")
        layers[0].affine = self._ends[0 if on else 1]

    def _on_placements(self, _placements: Any) -> None:
        """Follow undo and redo: a result that was taken back has no before and after."""
        self.before.blockSignals(True)
        self.before.setChecked(False)
        self.before.setText("Before")
        self.before.blockSignals(False)
        self.show_ready()

    def _on_colours(self, on: bool) -> None:
        moving, reference = self.moving_layer, self.reference_layer
        if on and moving is not None and reference is not None and moving is not reference:
            self.colours.show(moving, reference)
        else:
            self.colours.restore()

    # the comparison

    def _on_moved(self, event: Any = None) -> None:
        self._settle.start()

    def _compare(self) -> None:
        moving, reference = self.moving_layer, self.reference_layer
        if self.closed or moving is None or reference is None or moving is reference:
            self.view.show_comparison(None)
            return
        volume = self.volume
        try:
            free = pair_image(self._viewer, moving, volume, self.channel.currentData())
            fixed = pair_image(self._viewer, reference, volume, self.reference_channel.currentData())
            plane = plane_on_show(self._viewer, reference) if volume else None
        except Exception as error:  # a picture that cannot be made must not stop anything
            say(self.view.about, f"No picture: {error}")
            return
        sizes = fixed.spacing
        self._thread.ask(float(sizes[-2] / sizes[-1]), partial(compare, free, fixed, plane=plane))

    def _on_compared(self, aspect: float, comparison: Any) -> None:
        if isinstance(comparison, Exception):
            self.view.show_comparison(None)
            say(self.message, f"The layers cannot be compared: {comparison}")
            return
        self.view.show_comparison(comparison, aspect)

    def _disconnect(self) -> None:
        self._later.stop()
        self._settle.stop()
        events = self._viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.disconnect(self._on_layers)
        self._viewer.dims.events.point.disconnect(self._on_moved)
        for layer in self._watched:
            for name in _EVENTS:
                if hasattr(layer.events, name):
                    getattr(layer.events, name).disconnect(self._on_moved if name != "name" else self._on_layers)


_EVENTS = ("name", "affine", "scale", "translate", "rotate", "shear", "units", "data")


def _short(name: str, letters: int = 14) -> str:
    return name if len(name) <= letters else name[: letters - 1] + "…"
