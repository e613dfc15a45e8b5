"""Which method, aligned to what, with which parameters: forms generated from the records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QLabel, QSpinBox, QVBoxLayout, QWidget

from stackalign.session import REFERENCES, methods
from stackalign.widgets._form import ParameterForm
from stackalign.widgets._style import Fold, keep_wheel_away, narrow, narrow_combo, note, row, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackalign.session import AlignmentSession, Choices

_DEFAULT, _NUMBER, _FILE = "default", "number", "file"
_IMAGES = "Images (*.tif *.tiff *.png *.jpg *.jpeg *.zarr);;All files (*)"


class MethodSection(QWidget):
    """Chooses the session's method, reference, parameters, filters and resampling.

    Signals
    -------
    obstacle(str)
        A value that no run can begin with; empty when it is mended.
    """

    obstacle = Signal(str)

    def __init__(
        self, session: AlignmentSession, current_frame: Callable[[], int], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._session, self._current_frame = session, current_frame
        self._wrong: dict[str, str] = {}
        self.method = narrow_combo()

        for name, record in methods().items():
            self.method.addItem(_title(name), name)
            self.method.setItemData(self.method.count() - 1, (record.__doc__ or "").strip().partition("\n")[0], 3)
        self.hint = note()
        self.reference = narrow_combo()
        self.reference.addItem("method's default", _DEFAULT)
        for value, words in REFERENCES.items():
            self.reference.addItem(words, value)
        self.reference.addItem("frame number…", _NUMBER)
        self.reference.addItem("image file…", _FILE)
        self.number = QSpinBox()
        narrow(self.number)
        self.number.setKeyboardTracking(False)
        keep_wheel_away(self.number)
        self.number.setToolTip("Frame of the movie that the others are aligned to, counted from 0")

        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(row("Method", self.method))
        column.addWidget(self.hint)
        column.addWidget(row("Reference", self.reference, self.number, tip="The image that every frame is aligned to"))
        self._forms: dict[str, ParameterForm] = {}
        self._places: dict[str, QVBoxLayout] = {}
        options = QWidget()
        inside = QVBoxLayout(options)
        inside.setSpacing(4)
        self._titles: dict[str, QLabel] = {}
        for key, title in (("registrar", ""), ("preprocess", "Before measuring"), ("warp", "When applied")):
            self._titles[key] = QLabel(title)
            self._titles[key].setStyleSheet("font-weight: 600;")
            self._places[key] = QVBoxLayout()
            inside.addWidget(self._titles[key])
            inside.addLayout(self._places[key])
        self.options = Fold("Options", options)
        column.addWidget(self.options)
        self.method.currentIndexChanged.connect(self._on_method)
        self.reference.activated.connect(self._on_reference)
        self.number.valueChanged.connect(self._on_reference)
        session.events.choices.connect(self._show)
        session.events.movie.connect(self._on_movie)
        self._show(session.choices)

    def close_section(self) -> None:
        """Let go of the session."""
        self._session.events.choices.disconnect(self._show, missing_ok=True)
        self._session.events.movie.disconnect(self._on_movie, missing_ok=True)

    def suggest(self, text: str) -> None:
        """Say which method fits the movie, and why."""
        say(self.hint, text)

    def form(self, key: str) -> ParameterForm | None:
        """Return the form of "registrar", "preprocess" or "warp"."""
        return self._forms.get(key)

    def _on_movie(self, _movie: object) -> None:
        self._show(self._session.choices)

    def _show(self, choices: Choices) -> None:
        self.method.blockSignals(True)
        self.method.setCurrentIndex(self.method.findData(choices.registrar.method))
        self.method.blockSignals(False)
        self._show_reference(choices)
        for key in self._places:
            record = getattr(choices, key)
            form = self._forms.get(key)
            if form is None or type(form.record) is not type(record):
                self._replace_form(key, record)
            elif form.record != record:
                form.load(record)

    def _show_reference(self, choices: Choices) -> None:
        movie, value = self._session.movie, choices.reference
        numbered = isinstance(value, int)
        if isinstance(value, str) and self.reference.findData(value) < 0:  # a recipe may name an image
            self.reference.addItem(f"image {Path(value).name}", value)
        own = getattr(choices.registrar, "default_reference", "mean")
        self.reference.setItemText(0, f"default ({own})")
        self.reference.setCurrentIndex(
            self.reference.findData(_DEFAULT if value is None else _NUMBER if numbered else value)
        )
        self.number.blockSignals(True)
        first, stop = choices.frames or (0, len(movie.stack) if movie is not None else 1)
        self.number.setRange(first, max(stop - 1, first))
        if isinstance(value, int):
            self.number.setValue(value + first)
        self.number.blockSignals(False)
        self.number.setVisible(numbered)

    def _replace_form(self, key: str, record: Any) -> None:
        old = self._forms.pop(key, None)
        if old is not None:
            self._places[key].removeWidget(old)
            old.deleteLater()
        # the reference has its own row, and filters that every method can be given stand below "Before measuring"
        shared = tuple(type(self._session.choices.preprocess).model_fields) if key == "registrar" else ("region",)
        form = self._forms[key] = ParameterForm(record, skip=("method", "reference", *shared))
        form.changed.connect(lambda new, key=key, form=form: self._on_record(key, new, form))
        form.invalid.connect(lambda text, key=key: self._on_invalid(key, text))
        self._places[key].addWidget(form)
        self._titles[key].setVisible(bool(form.rows and self._titles[key].text()))
        if self._wrong.pop(key, ""):
            self._on_invalid(key, "")

    def _on_record(self, key: str, record: Any, form: ParameterForm) -> None:
        self._session.change(merge=f"{key}.{form.last_edited}", **{key: record})

    def _on_invalid(self, key: str, text: str) -> None:
        self._wrong[key] = text
        self.obstacle.emit(next((words for words in self._wrong.values() if words), ""))

    def _on_method(self) -> None:
        self._session.change(registrar=self._session.default_registrar(self.method.currentData()))

    def _on_reference(self, _value: int = 0) -> None:
        chosen = self.reference.currentData()
        if chosen == _FILE:
            path, _ = QFileDialog.getOpenFileName(self, "Align to an image", "", _IMAGES)
            if not path:
                self._show_reference(self._session.choices)
                return
            chosen = path
        first = (self._session.choices.frames or (0, 0))[0]
        if chosen == _NUMBER:
            if not self.number.isVisibleTo(self):
                self.number.blockSignals(True)
                self.number.setValue(self._current_frame())
                self.number.blockSignals(False)
            chosen = self.number.value() - first
        self._session.change(reference=None if chosen == _DEFAULT else chosen, merge="reference")


def _title(method: str) -> str:
    return {"reals": "REALS", "lucas-kanade": "Lucas-Kanade", "deep": "Deep (learnt features)"}.get(
        method, method.capitalize()
    )
