"""The reference may be an image file: a stack is aligned to an image of another kind."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtWidgets import QFileDialog
from tifffile import imwrite

from stackalign.core.multimodal.registrar import Multimodal
from stackalign.core.transform import TransformModel
from tests.gui.conftest import movie


def choose(panel: Any, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """Choose "image file…" and answer the dialog."""
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (answer, ""))
    box = panel.method.reference
    box.setCurrentIndex(box.findData("file"))
    box.activated.emit(box.currentIndex())


def test_a_stack_is_aligned_to_a_negative_in_a_file(
    panel: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    negative = 3000 - np.roll(movie()[0], (3, -2), (0, 1)).astype(float)
    imwrite(tmp_path / "negative.tif", negative.astype(np.uint16))
    panel.session.change(registrar=Multimodal(model=TransformModel.TRANSLATION), frames=(0, 2))
    choose(panel, monkeypatch, str(tmp_path / "negative.tif"))
    assert panel.session.choices.reference == str(tmp_path / "negative.tif")
    assert panel.method.reference.currentText() == "image negative.tif"
    panel.run.button.click()
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=60_000)
    found = panel.session.current.registration.transforms.translations
    np.testing.assert_allclose(found, [[3, -2], [2, 0]], atol=0.3)


def test_a_dialog_that_is_closed_changes_nothing(panel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    panel.session.change(reference="first")
    choose(panel, monkeypatch, "")
    assert panel.session.choices.reference == "first"
    assert panel.method.reference.currentData() == "first"
