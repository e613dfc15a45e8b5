"""What leaves the panel: files, report, recipe, script; with the real method, and equal to the other doors."""

import json
import runpy
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QApplication

import stackalign as sa
from stackalign.core.geometry import corners
from stackalign.core.translation.registrar import CrossCorrelation
from stackalign.samples import load_sample_truth, sample_path
from stackalign.widgets._contributions import read
from stackalign.widgets._errors import ErrorDialog
from stackalign.widgets.align_stack import AlignStack

if TYPE_CHECKING:
    from qtpy.QtCore import QUrl

SAMPLE = "drifting_beads"


@pytest.fixture
def panel(viewer: Any, qtbot: Any) -> Generator[AlignStack, None, None]:
    """Return the panel after a run on a sample with the default method."""
    ((data, keywords, _),) = read(str(sample_path(SAMPLE)))
    viewer.add_image(data, **keywords)
    widget = AlignStack(viewer)
    viewer.window.add_dock_widget(widget, name="Align stack")
    run(widget, qtbot)
    yield widget
    widget.shut()


def run(panel: AlignStack, qtbot: Any) -> None:
    panel.run.button.click()
    finish(panel, qtbot)
    assert panel.session.current is not None


def finish(panel: AlignStack, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=60_000)
    assert not [w for w in QApplication.topLevelWidgets() if isinstance(w, ErrorDialog) and w.isVisible()]


def copied_script(panel: AlignStack, qtbot: Any) -> str:
    """Click "Copy as script" and return what the clipboard holds; another window may take it away in between."""
    clipboard = QApplication.clipboard()
    clipboard.clear()

    held = [""]

    def there() -> bool:
        panel.save.script.click()
        held[0] = clipboard.text()
        return held[0].startswith("import stackalign")

    qtbot.waitUntil(there, timeout=10_000)
    return held[0]


def without_times(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    document["provenance"].pop("times")
    return document


def test_panel_recipe_and_script_give_the_same_bytes(panel: Any, qtbot: Any, tmp_path: Path, monkeypatch: Any) -> None:
    panel.save.save_folder(str(tmp_path / "panel"))
    finish(panel, qtbot)
    files = {path.name for path in (tmp_path / "panel").iterdir()}
    assert files >= {
        "aligned.tif", "transforms.json", "transforms.csv", "quality.csv", "recipe.yaml", "report.html", "run.log",
    }  # fmt: skip
    sa.run(sa.load_recipe(tmp_path / "panel" / "recipe.yaml"), folder=tmp_path / "recipe")
    assert without_times(tmp_path / "panel" / "transforms.json") == without_times(
        tmp_path / "recipe" / "transforms.json"
    )
    for name in ("transforms.csv", "quality.csv", "aligned.tif"):
        assert (tmp_path / "panel" / name).read_bytes() == (tmp_path / "recipe" / name).read_bytes(), name
    script = tmp_path / "script.py"
    script.write_text(copied_script(panel, qtbot))
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script))
    same = sa.load_transforms("transforms.json")
    np.testing.assert_array_equal(same.matrices, panel.session.current.registration.transforms.matrices)
    assert (tmp_path / "aligned.tif").read_bytes() == (tmp_path / "panel" / "aligned.tif").read_bytes()


def test_script_with_every_choice_changed(panel: Any, qtbot: Any, tmp_path: Path, monkeypatch: Any) -> None:
    session = panel.session
    session.change(
        registrar=CrossCorrelation(max_shift=30.0),
        reference="first",
        frames=(3, 20),
        warp=session.choices.warp.model_copy(update={"order": 1, "crop": "valid"}),
    )
    session.set_region(((10.0, 12.0), (10.0, 110.0), (115.0, 110.0), (115.0, 12.0)))
    run(panel, qtbot)
    panel.save.save_movie(str(tmp_path / "panel.tif"))
    finish(panel, qtbot)
    (tmp_path / "script.py").write_text(copied_script(panel, qtbot))
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(tmp_path / "script.py"))
    assert (tmp_path / "aligned.tif").read_bytes() == (tmp_path / "panel.tif").read_bytes()
    fixed = sa.read_stack("aligned.tif")
    assert len(fixed) == 17
    assert fixed.frame_shape < (128, 128)


def test_the_cropped_layer_lies_on_the_movie(viewer: Any, panel: Any, qtbot: Any) -> None:
    panel.session.change(warp=panel.session.choices.warp.model_copy(update={"crop": "valid"}))
    run(panel, qtbot)
    panel.add.click()
    source, fixed = viewer.layers[SAMPLE], viewer.layers[f"{SAMPLE} [aligned]"]
    corner = np.asarray(source.world_to_data(fixed.data_to_world((0, 0, 0))))
    assert (corner[1:] == np.round(corner[1:])).all()
    y, x = (int(c) for c in corner[1:])
    first, cut = np.asarray(source.data[0]), np.asarray(fixed.data[0])
    np.testing.assert_array_equal(cut, first[y : y + cut.shape[0], x : x + cut.shape[1]])  # frame 0 does not move
    assert fixed.metadata["stackalign"]["recipe"]["warp"]["crop"] == "valid"


def test_recipe_goes_out_and_in(panel: Any, tmp_path: Path) -> None:
    panel.session.change(registrar=CrossCorrelation(max_shift=12.0), reference="previous")
    saved = panel.session.choices
    panel.save.save_recipe(str(tmp_path / "r.yaml"))
    panel.session.change(registrar=CrossCorrelation(), reference=None)
    panel.save.open_recipe(str(tmp_path / "r.yaml"))
    assert panel.session.choices == saved
    assert panel.method.reference.currentData() == "previous"
    assert panel.method.form("registrar").record.max_shift == 12.0
    panel.undo.click()
    assert panel.session.choices.reference is None


def test_a_wrong_recipe_is_explained(panel: Any, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("input: {path: a.tif}\nregistrar: {method: cross-correlation, max_shft: 3}\n")
    panel.save.open_recipe(str(tmp_path / "r.yaml"))
    (dialog,) = [w for w in QApplication.topLevelWidgets() if isinstance(w, ErrorDialog) and w.isVisible()]
    assert "max_shft" in dialog.message.text()
    assert "max_shift" in dialog.message.text()
    dialog.close()


def test_the_report_opens_in_the_browser(panel: Any, qtbot: Any, monkeypatch: Any) -> None:
    opened: list[QUrl] = []
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda url: opened.append(url) or True)
    panel.save.report.click()
    finish(panel, qtbot)
    page = Path(opened[0].toLocalFile())
    assert page.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")


def test_channels_are_saved_into_one_file(viewer: Any, panel: Any, qtbot: Any, tmp_path: Path) -> None:
    layer = viewer.layers[SAMPLE]
    viewer.add_image(np.asarray(layer.data)[:, ::-1].copy(), name="second", scale=layer.scale, units=layer.units)
    panel.companions._fill()
    (box,) = panel.companions.boxes.values()
    box.setChecked(True)
    panel.save.save_movie(str(tmp_path / "two.tif"))
    finish(panel, qtbot)
    assert len(sa.read_channels(tmp_path / "two.tif")) == 2


def test_saving_where_nothing_can_be_written_is_a_dialog(panel: Any, qtbot: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    panel.save.save_movie(str(tmp_path / "file" / "aligned.tif"))
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=10_000)
    (dialog,) = [w for w in QApplication.topLevelWidgets() if isinstance(w, ErrorDialog) and w.isVisible()]
    assert "file" in dialog.message.text()
    dialog.close()
    assert panel.run.button.isEnabled()


@pytest.mark.parametrize(
    ("sample", "method", "axes"),
    [("rotating_cells", "lucas-kanade", "yx"), ("drifting_volume", "cross-correlation", "zyx")],
)
def test_other_methods_and_volumes(viewer: Any, qtbot: Any, sample: str, method: str, axes: str) -> None:
    ((data, keywords, _),) = read(str(sample_path(sample)))
    viewer.add_image(data, **keywords)
    panel = AlignStack(viewer)
    panel.method.method.setCurrentIndex(panel.method.method.findData(method))
    panel.session.change(frames=(0, 4))
    run(panel, qtbot)
    result = panel.session.current
    truth = load_sample_truth(sample).selected(slice(0, 4)).rebased(0)
    places = corners(result.movie.stack.frame_shape)
    for t in range(4):
        apart = result.registration.transforms[t](places) - truth[t](places)
        assert np.sqrt((apart**2).mean()) < 0.2
    assert panel.result.plot.motion.axes == axes
    panel.add.click()
    assert viewer.layers[f"{sample} [aligned]"].data.shape[0] == 4
    panel.shut()


def test_transforms_are_saved_alone(panel: Any, tmp_path: Path) -> None:
    panel.save.save_transforms(str(tmp_path / "t.csv"))
    again = sa.load_transforms(tmp_path / "t.csv")
    np.testing.assert_allclose(again.matrices, panel.session.current.registration.transforms.matrices)


def test_choices_offered_are_those_there_are(panel: Any) -> None:
    from stackalign.config import REFERENCES as ALLOWED
    from stackalign.session import REFERENCES

    assert set(REFERENCES) == set(ALLOWED)
