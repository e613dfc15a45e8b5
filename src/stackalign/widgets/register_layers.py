"""The panel "Register two layers": one layer is laid on another, and both are compared."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QPushButton, QSizePolicy, QWidget

from stackalign.comparison import compare
from stackalign.core.transform import TransformModel
from stackalign.pairing import Pairing, pair_work
from stackalign.widgets._comparison_view import ComparisonView
from stackalign.widgets._frame_reader import LatestOnly
from stackalign.widgets._keys import CanvasKeys
from stackalign.widgets._pair_layers import (
    axes_used,
    corrected_affine,
    length_of,
    plane_on_show,
    resampled_layer,
    unit_text,
    world_scale,
)
from stackalign.widgets._pair_method_section import PairMethodSection
from stackalign.widgets._pair_section import PairSection
from stackalign.widgets._panel import Panel
from stackalign.widgets._placements import TwoColours, keep_placements
from stackalign.widgets._preview import is_previewed
from stackalign.widgets._style import note, say, small_button

if TYPE_CHECKING:
    import napari
    from napari.layers import Image
    from numpy.typing import NDArray

_SETTLE_MS = 150  # a layer that is dragged speaks on every pixel
_PADDING = 24  # pixels of a button beside its words
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
        self._pair: tuple[str, str, bool] | None = None  # the layers that `pairing` is about, and whether as volumes
        self._ends: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None  # affine before and after
        self._thread = LatestOnly(self)
        self._settle = QTimer(self, singleShot=True, interval=_SETTLE_MS)
        self.colours = TwoColours()
        self.pair = PairSection(napari_viewer)
        self.how = PairMethodSection()
        keep_placements(napari_viewer, self.session)
        self._build()

        self._settle.timeout.connect(self._compare)
        self._thread.done.connect(self._on_compared)
        self.pair.pair_changed.connect(self._on_pair)
        self.pair.moved.connect(self._on_moved)
        for section in (self.pair, self.how):
            section.changed.connect(self._on_choice)
        self.run.start.connect(self.register)
        self.shortcut("Ctrl+Return", self.register)
        self.listen("placements", self._on_placements)
        keys = CanvasKeys(napari_viewer, {"Space": self.toggle_before, "o": self.on_canvas.toggle})
        for closer in (
            self._thread.close, self._settle.stop, keys.close, self.pair.close_section, self.colours.restore,
            self.view.stop,
        ):  # fmt: skip
            self.at_end(closer)
        self.pair.refresh()
        self._on_choice()

    def _build(self) -> None:
        self.run.button.setObjectName("register")
        # its words name two layers: they must not make the panel wider than its dock
        self.run.button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.verdict, self.details = note(strong=True), note()
        self.view = ComparisonView()
        self.on_canvas = QCheckBox("Magenta and green on the canvas")
        self.on_canvas.setToolTip("Colour both layers so that what agrees is white; their own look comes back (O)")
        self.on_canvas.toggled.connect(self._on_colours)
        self.before = small_button("Before", "Show the layer where it was before (Space)", lambda: None)
        self.before.setCheckable(True)
        self.before.toggled.connect(self._show_before)
        self.add = QPushButton("Add resampled layer")
        self.add.clicked.connect(self.add_resampled)
        after = QHBoxLayout()
        after.setContentsMargins(0, 0, 0, 0)
        after.addWidget(self.before)
        after.addWidget(self.add, 1)
        self.fill(
            self.pair, self.how, self.run, self.message, self.verdict, self.details, after, self.view, self.on_canvas
        )
        self.column.addStretch(1)

    # what is chosen

    def choose(self, moving: Image, reference: Image) -> None:
        """Choose both layers."""
        self.pair.choose(moving, reference)

    def _on_pair(self) -> None:
        self.on_canvas.setChecked(False)
        self._forget()

    def _on_choice(self) -> None:
        layers = self.pair.layers or ()
        unknown = [layer.name for layer in layers if length_of(self._viewer, layer) is None]
        self.how.say_unknown(unknown[0] if len(unknown) == 1 else "")
        self.show_ready()
        self._settle.start()

    def _on_moved(self) -> None:
        self.show_ready()
        self._settle.start()

    def _obstacle(self) -> str:
        if self.runner.busy:
            return "Something is running: wait, or cancel it"
        if self.pair.obstacle:
            return self.pair.obstacle
        shown = next((layer for layer in self.pair.layers or () if is_previewed(layer)), None)
        if shown is not None:
            return f"“{shown.name}” is shown aligned: switch the preview of “Align stack” off, or add the aligned layer"
        if self.pair.volume and self.how.model.currentData() == TransformModel.PROJECTIVE:
            return "Perspective is for images, not for volumes: choose another model"
        return self.how.wrong

    def show_ready(self) -> None:
        """Say what the buttons would do now."""
        obstacle, layers = self._obstacle(), self.pair.layers
        whole = "Register two layers" if layers is None else f"Register “{layers[0].name}” to “{layers[1].name}”"
        self.run.show_ready(self._fitting(whole), obstacle, visible=not self.runner.busy)
        if not obstacle:
            self.run.button.setToolTip(f"{whole}: find out where it belongs, and put it there; it can be undone")
        known = self.pairing is not None and not self.pairing.refused and self._known() is not None
        ready = known and not self.runner.busy
        self.add.setEnabled(ready)
        tip = "A new layer with the pixels of the reference, beside its source"
        self.add.setToolTip(tip if ready else "Register the layers first")
        self.before.setEnabled(self.placed)

    def _fitting(self, text: str) -> str:
        """Return the words of the button, with names as short as it takes."""
        button, layers = self.run.button, self.pair.layers
        if layers is None:
            return text
        room = button.width() - _PADDING
        words = text
        for letters in (30, 20, 14, 10, 8, 6, 4):
            words = f"Register “{_short(layers[0].name, letters)}” to “{_short(layers[1].name, letters)}”"
            if button.fontMetrics().horizontalAdvance(words) * 1.08 <= room:  # bold is a little wider
                break
        return words

    def resizeEvent(self, event: Any) -> None:
        """Shorten the button's words to the room that there is."""
        super().resizeEvent(event)
        QTimer.singleShot(0, self._on_resized)

    def _on_resized(self) -> None:
        if not self.closed:
            self.show_ready()

    # running

    def register(self) -> None:
        """Begin, if nothing stands in the way."""
        layers = self.pair.layers
        if self._obstacle() or layers is None:
            return
        self.before.setChecked(False)
        try:
            moving, reference = self.pair.images()
            mask = self.pair.mask(reference)
        except Exception as error:
            self.fail(error, "Registering")
            return
        self._forget()
        begun = (layers[0].unique_id, layers[1].unique_id, self.pair.volume)
        affine = layers[0].affine.affine_matrix.copy()
        work = pair_work(moving, reference, self.how.record, mask=mask, refine=self.how.refine)
        self.start("Registering", work, partial(self._on_registered, begun, affine))

    def _on_registered(self, begun: tuple[str, str, bool], affine: NDArray[np.float64], pairing: Pairing) -> None:
        moving, reference = self.pair.find(begun[0]), self.pair.find(begun[1])
        if moving is None or reference is None or not np.array_equal(moving.affine.affine_matrix, affine):
            say(self.message, "A layer was moved or removed meanwhile: the result is put away. Register again.")
            return
        if (moving, reference) != self.pair.layers:
            self.choose(moving, reference)
        self.pairing, self._pair = pairing, begun
        say(self.verdict, pairing.sentence)
        if pairing.refused:
            say(self.details, "Try this:\n" + "\n".join(f"• {tip}" for tip in pairing.advice) if pairing.advice else "")
            return
        self._put(moving, reference, pairing, begun[2])
        QTimer.singleShot(0, self._show_next_step)

    def _put(self, moving: Image, reference: Image, pairing: Pairing, volume: bool) -> None:
        """Move the layer to where it belongs."""
        before = moving.affine.affine_matrix.copy()
        after = corrected_affine(self._viewer, moving, axes_used(moving, volume), pairing.affine)
        length = float(world_scale(self._viewer, reference)[-1])
        lines = [pairing.motion(unit_text(reference), length).capitalize() + "."]
        if pairing.model is TransformModel.PROJECTIVE:
            lines.append("The canvas shows the nearest affine: “Add resampled layer” is exact.")
        say(self.details, "\n".join(lines))
        self._ends = (before, after)
        self.session.place_layer(f"register {moving.name} to {reference.name}", moving.unique_id, before, after)

    def _show_next_step(self) -> None:
        if not self.closed:
            self.scroll.ensureWidgetVisible(self.view, 0, 8)
            self.scroll.ensureWidgetVisible(self.verdict, 0, 8)

    def _known(self) -> tuple[Image, Image] | None:
        """Return the layers that the result belongs to, if they are still there and chosen."""
        if self._pair is None:
            return None
        layers = self.pair.layers
        if layers is None or (layers[0].unique_id, layers[1].unique_id) != self._pair[:2]:
            return None
        return layers

    @property
    def placed(self) -> bool:
        """Whether the moving layer lies where the result on show has put it."""
        if self._ends is None or self._pair is None or self._known() is None:
            return False
        return bool(np.array_equal(self.session.placements.get(self._pair[0], ()), self._ends[1]))

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
        layers = self._known()
        if layers is None or self.pairing is None or self._pair is None:
            return
        moving, reference = layers
        self.before.setChecked(False)
        try:
            added = resampled_layer(self.pairing, moving, reference, self._pair[2])
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
        layers = self._known()
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
        if on and self.pair.layers is not None:
            self.colours.show(*self.pair.layers)
        else:
            self.colours.restore()

    # the comparison

    def _compare(self) -> None:
        layers = self.pair.layers
        if self.closed or layers is None:
            self.view.show_comparison(None)
            return
        try:
            moving, reference = self.pair.images()
            plane = plane_on_show(self._viewer, layers[1]) if self.pair.volume else None
        except Exception as error:  # a picture that cannot be made must not stop anything
            self._on_compared(1.0, error)
            return
        sizes = reference.spacing
        self._thread.ask(float(sizes[-2] / sizes[-1]), partial(compare, moving, reference, plane=plane))

    def _on_compared(self, aspect: float, comparison: Any) -> None:
        if isinstance(comparison, Exception):
            self.view.show_comparison(None)
            say(self.message, f"The layers cannot be compared: {comparison}")
            return
        self.view.show_comparison(comparison, aspect)


def _short(name: str, letters: int) -> str:
    return name if len(name) <= letters else name[: letters - 1] + "…"
