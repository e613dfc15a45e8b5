"""A form generated from a parameter record: titles, descriptions as tooltips, bounds, units, advanced ones folded."""

from __future__ import annotations

import types
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as at
from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, LineEdit
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from stackalign.widgets._style import Fold, keep_wheel_away, narrow

_UNBOUNDED = 1e9
_AUTOMATIC = "auto"


class ParameterForm(QWidget):
    """Edits one frozen parameter record.

    Signals
    -------
    changed(record)
        A new valid record, after the user changed a value.
    invalid(str)
        What is wrong, in one sentence; empty when it is mended.
    """

    changed = Signal(object)
    invalid = Signal(str)

    def __init__(self, record: BaseModel, skip: tuple[str, ...] = ("method",), parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._record = record
        self._loading = False
        self.last_edited = ""
        self.rows: dict[str, _Row] = {}
        shown, folded = _form_layout(), _form_layout()
        for name, info in type(record).model_fields.items():
            if name in skip or _kind(info)[0] is None or _extra(info).get("hidden"):
                continue
            row = self.rows[name] = _Row(name, info, getattr(record, name))
            row.edited.connect(self._edited)
            target = folded if _extra(info).get("advanced") else shown
            target.addRow(row.label, row)
        self.error = QLabel()
        self.error.setWordWrap(True)
        self.error.setObjectName("form-error")
        self.error.hide()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(shown)
        self.advanced: Fold | None = None
        if folded.rowCount():
            content = QWidget()
            content.setLayout(folded)
            self.advanced = Fold("Advanced", content)
            column.addWidget(self.advanced)
        column.addWidget(self.error)

    @property
    def record(self) -> BaseModel:
        """The last valid record."""
        return self._record

    def load(self, record: BaseModel) -> None:
        """Show another record of the same class; emits nothing."""
        self._loading = True
        try:
            for name, row in self.rows.items():
                row.load(getattr(record, name))
        finally:
            self._loading = False
        self._record = record
        self._complain("")

    def _edited(self, name: str) -> None:
        if self._loading:
            return
        self.last_edited = name
        values = {key: getattr(self._record, key) for key in type(self._record).model_fields}
        values |= {key: row.value for key, row in self.rows.items()}
        try:
            record = type(self._record).model_validate(values)
        except ValidationError as error:
            self._complain(_explain(error, type(self._record)))
            return
        self._complain("")
        if record != self._record:
            self._record = record
            self.changed.emit(record)

    def _complain(self, text: str) -> None:
        if text != self.error.text():
            self.error.setText(text)
            self.error.setVisible(bool(text))
            self.invalid.emit(text)


class _Row(QWidget):
    """One field: a label and the widget that fits its type."""

    edited = Signal(str)

    def __init__(self, name: str, info: FieldInfo, value: Any) -> None:
        super().__init__()
        self.name = name
        self.kind, self.optional, self.bounds = _kind(info)
        extra = _extra(info)
        title = info.title or name.replace("_", " ")
        self.label = QLabel(title)
        self.label.setWordWrap(True)
        self.label.setToolTip(info.description or "")
        box = QHBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        self.use: CheckBox | None = None
        self._last: Any = None  # value of an optional number before it was left to the method
        if self.optional:
            self.use = CheckBox(text="")
            self.use.native.setToolTip(f"{info.description or title}\nNot ticked: chosen automatically")
            self.use.changed.connect(self._on_use)
            box.addWidget(self.use.native)
        self.editor = self._make_editor(info, extra, value)
        native = self.editor.native
        native.setToolTip(info.description or "")
        native.setAccessibleName(title)
        narrow(native)
        keep_wheel_away(native)
        unit = extra.get("unit")
        if unit and hasattr(native, "setSuffix"):
            native.setSuffix("°" if unit == "deg" else f" {unit}")
        elif unit:
            self.label.setText(f"{title} ({unit})")
        box.addWidget(native, 1)
        self.load(value)
        self.editor.changed.connect(lambda _: self.edited.emit(self.name))

    def _make_editor(self, info: FieldInfo, extra: dict[str, Any], value: Any) -> Any:
        kind, (low, high) = self.kind, self.bounds
        if kind is bool:
            return CheckBox(text="")
        if kind is int:
            # magicgui's box for whole numbers shows neither a unit nor "auto"
            box = FloatSpinBox(min=low, max=min(high, 2**31 - 1), step=1, value=max(low, 0))
            box.native.setDecimals(0)
            return box
        if kind is float:
            known = [
                abs(v) for v in (value, info.default) if isinstance(v, float | int) and not isinstance(v, bool) and v
            ]
            step = extra.get("step") or _step(min(known, default=1.0))
            # the first value of an optional number must be one that is allowed
            start = min(low + step if low >= 0 else 0.0, high)
            box = FloatSpinBox(min=low, max=high, step=step, value=start)
            box.native.setDecimals(max(2, len(f"{step:.9f}".rstrip("0").partition(".")[2])))
            return box
        if isinstance(kind, tuple):
            words = extra.get("words") or [_word(choice) for choice in kind]
            return ComboBox(choices=list(zip(words, kind, strict=True)))
        return LineEdit()

    @property
    def value(self) -> Any:
        """What the field says; None for an optional field that is not set."""
        if self.use is not None and not self.use.value:
            return None
        value = self.editor.value
        if self.kind is int:
            return round(value)
        return _parsed(value) if self.kind is str else value

    def load(self, value: Any) -> None:
        """Show ``value``."""
        with self.editor.changed.blocked():
            if self.use is not None:
                with self.use.changed.blocked():
                    self.use.value = value is not None
                self._show_use(value is not None)
            if value is None:
                return
            self.editor.value = _written(value) if self.kind is str else value

    def _on_use(self, used: bool) -> None:
        with self.editor.changed.blocked():
            self._show_use(used)
        self.edited.emit(self.name)

    def _show_use(self, used: bool) -> None:
        """Say "auto" while an optional number is not set; give back its last value when it is."""
        native = self.editor.native
        if hasattr(native, "setSpecialValueText") and used != self.editor.enabled:
            if used:
                native.setSpecialValueText("")
                self.editor.value = self._last
            else:
                self._last = self.editor.value
                native.setSpecialValueText(_AUTOMATIC)  # is shown at the least value
                self.editor.value = self.editor.min
        self.editor.enabled = used


def _form_layout() -> QFormLayout:
    layout = QFormLayout()
    layout.setRowWrapPolicy(QFormLayout.RowWrapPolicy.DontWrapRows)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    layout.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setVerticalSpacing(4)
    return layout


def _extra(info: FieldInfo) -> dict[str, Any]:
    return info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}


def _kind(info: FieldInfo) -> tuple[Any, bool, tuple[float, float]]:
    """Return bool, int, float, str or a tuple of choices (None: no widget for it), optional or not, and the bounds."""
    low, high = -_UNBOUNDED, _UNBOUNDED
    for mark in _constraints(info.annotation, list(info.metadata)):
        if isinstance(mark, at.Ge):
            low = float(mark.ge)  # type: ignore[arg-type]
        elif isinstance(mark, at.Gt):
            low = float(mark.gt)  # type: ignore[arg-type]
        elif isinstance(mark, at.Le):
            high = float(mark.le)  # type: ignore[arg-type]
        elif isinstance(mark, at.Lt):
            high = float(mark.lt)  # type: ignore[arg-type]
    kind, optional = _plain(info.annotation)
    return kind, optional, (low, high)


def _constraints(annotation: Any, found: list[Any]) -> list[Any]:
    if get_origin(annotation) is Annotated:
        found += annotation.__metadata__
    for part in get_args(annotation):
        if get_origin(part) is Annotated:
            _constraints(part, found)
    return [m for mark in found for m in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]


def _plain(annotation: Any) -> tuple[Any, bool]:
    """Return the kind of editor for a type, and whether None is allowed."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _plain(get_args(annotation)[0])
    if origin is Literal:
        return get_args(annotation), False
    if origin in (Union, types.UnionType):
        members = [part for part in get_args(annotation) if part is not type(None)]
        optional = len(members) < len(get_args(annotation))
        if len(members) == 1:
            return _plain(members[0])[0], optional
        return str, optional  # several types: text, which the record itself judges
    if isinstance(annotation, type):
        if annotation in (bool, int, float, str):
            return annotation, False
        if issubclass(annotation, Enum):
            return tuple(annotation), False
    if origin in (tuple, list):
        return str, False
    return None, False


def _step(size: float) -> float:
    """Return a tenth of the leading digit's unit: 0.5 -> 0.05 is too fine, so .1; 20 -> 1; 0.02 -> .01."""
    step = 1.0
    while step > size / 2 and step > 1e-6:
        step /= 10
    return round(step, 9)


def _word(choice: Any) -> str:
    return str(choice.value if isinstance(choice, Enum) else choice)


def _parsed(text: str) -> Any:
    """Return what a text field means: a number, numbers separated by commas, or the words themselves."""
    parts: list[Any] = []
    for part in text.replace("(", "").replace(")", "").replace("[", "").replace("]", "").split(","):
        for reading in (int, float, str.strip):
            try:
                parts.append(reading(part))
                break
            except ValueError:
                continue
    if "," in text:
        return tuple(parts)
    return parts[0] if parts else text


def _written(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else _word(value)


def _explain(error: ValidationError, record: type[BaseModel]) -> str:
    """Return a sentence a problem, with the titles that the form shows."""
    lines = []
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else ""
        info = record.model_fields.get(name)
        title = (info.title if info else None) or name
        text = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{title}: {text}" if title else text)
    return "\n".join(dict.fromkeys(lines))
