"""The verdict is seen first; pictures and plots lead to their frames."""

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

from stackalign.core.registration import FrameQuality, Registration
from stackalign.core.transform_series import TransformSeries
from stackalign.runs import RunOutput
from stackalign.widgets._layers import movie_of
from stackalign.widgets.validate_alignment import ValidateAlignment
from tests.gui.test_pick_particles import STEP, spots

COUNT = 8


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    return make_napari_viewer()


@pytest.fixture
def panel(viewer: Any, qtbot: Any) -> Generator[ValidateAlignment, None, None]:
    layer = viewer.add_image(spots(COUNT), name="spots", axis_labels=("t", "y", "x"))
    widget = ValidateAlignment(viewer)
    viewer.window.add_dock_widget(widget, name="Validate alignment")
    widget.session.open_movie(movie_of(layer, "tyx"))
    yield widget
    widget.shut()


def take(panel: Any, sign: float = -1.0) -> None:
    shifts = sign * np.outer(np.arange(COUNT), STEP)
    registration = Registration(TransformSeries.from_translations(shifts), FrameQuality.empty(COUNT, 2))
    token, work = panel.session.begin()
    work.close()
    panel.session.accept(token, RunOutput(registration, None, 0.1))


def test_nothing_to_validate_is_said(panel: Any) -> None:
    assert not panel.run.button.isEnabled()
    assert panel.run.button.toolTip() == "There is no alignment yet: align first"


def test_the_verdict_is_first_and_frames_a_click_away(panel: Any, viewer: Any, qtbot: Any, tmp_path: Any) -> None:
    take(panel)
    assert panel.run.button.text() == "Validate run 1"
    panel.run.button.click()
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=60_000)
    assert panel.verdict.text().startswith("✓ It holds: ")
    assert panel.table.rowCount() == 6
    assert panel.table.item(0, 3).text() == "✓ better"
    assert panel.plots.isVisibleTo(panel)
    assert panel.means_box.isVisibleTo(panel)
    panel.worst.clicked.emit(1)
    assert viewer.dims.current_step[0] == panel.validation.worst[1].frame
    panel.after.frame_clicked.emit(3)
    assert viewer.dims.current_step[0] == 3
    panel.save_tables(str(tmp_path / "proof.csv"))
    assert (tmp_path / "proof_summary.csv").exists()
    take(panel, 1.0)  # another run: the old verdict must not stand beside it
    assert panel.verdict.text() == ""
    panel.run.button.click()
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=60_000)
    assert panel.verdict.text().startswith("✗ Worse than doing nothing")
    panel.session.show_run(1)
    assert panel.validation is None


def test_cancel(panel: Any, qtbot: Any) -> None:
    take(panel)
    panel.run.button.click()
    panel.run.stop.click()
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=5000)
    assert panel.validation is None
    assert "cancelled" in panel.message.text()
    assert panel.run.button.isEnabled()
