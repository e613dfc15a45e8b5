"""What may be done to the moving layer, how that is found, and from where."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from stackalign.core.transform import TransformModel
from stackalign.pairing import models_of, pair_methods, pair_record
from stackalign.widgets._form import ParameterForm
from stackalign.widgets._method_section import _title
from stackalign.widgets._style import Fold, narrow_combo, note, row, say

_MODELS = {
    TransformModel.TRANSLATION: "shift",
    TransformModel.EUCLIDEAN: "shift and rotation",
    TransformModel.SIMILARITY: "shift, rotation and scale",
    TransformModel.AFFINE: "shift, rotation, scale and shear",
    TransformModel.PROJECTIVE: "perspective",
}
# the model has a row of its own; the rest is for stacks
_NOT_HERE = ("method", "model", "rolling", "lag", "blocks", "block_spacing", "block_difference", "subpixel")


class PairMethodSection(QWidget):
    """Chooses model, method, parameters and start.

    Signals
    -------
    changed()
        After a change; ``wrong`` says if a parameter cannot be used.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._filling = False
        self._records: dict[str, Any] = {}
        self.wrong = ""
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
        self.form: ParameterForm | None = None
        self.options = Fold("Options", options)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        for part in (
            row("Model", self.model, tip="What may be done to the moving layer"),
            row("Method", self.method, tip="How the motion is found"),
            row("Start", self.beginning, tip="Look for the layer everywhere, or refine where it was put by hand"),
            self.hint,
            self.options,
        ):
            column.addWidget(part)
        self.model.currentIndexChanged.connect(self._on_model)
        self.method.currentIndexChanged.connect(self._on_method)
        self.beginning.currentIndexChanged.connect(self.changed)
        self._on_model()

    @property
    def record(self) -> Any:
        """The method with its parameters."""
        return self._records[self.method.currentData()]

    @property
    def refine(self) -> bool:
        """Whether it starts from where the layers lie."""
        return bool(self.beginning.currentData())

    def choose_model(self, model: TransformModel | str) -> None:
        """Choose what may be done to the moving layer."""
        self.model.setCurrentIndex(self.model.findData(TransformModel(model)))

    def say_unknown(self, name: str) -> None:
        """Say that the pixel size of a layer is not known, and what follows; empty: both are alike."""
        text = f"The pixel size of “{name}” is not known: it is taken to be that of the other layer." if name else ""
        if self.refine:
            text = ""
        elif text and TransformModel(self.model.currentData()).rank < TransformModel.SIMILARITY.rank:
            text += " If it is not, choose a model with scale."
        say(self.hint, text)

    def _on_model(self) -> None:
        model, before = self.model.currentData(), self.method.currentData()
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
        if self.form is not None:
            self._place.removeWidget(self.form)
            self.form.deleteLater()
        self.wrong = str(getattr(record, "missing", ""))  # what has to be installed first
        self.form = ParameterForm(record, skip=_NOT_HERE)
        self.form.changed.connect(self._on_record)
        self.form.invalid.connect(self._on_invalid)
        self._place.addWidget(self.form)
        self.changed.emit()

    def _on_record(self, record: Any) -> None:
        self._records[self.method.currentData()] = record
        self.wrong = str(getattr(record, "missing", ""))
        self.changed.emit()

    def _on_invalid(self, text: str) -> None:
        self.wrong = text
        self.changed.emit()
