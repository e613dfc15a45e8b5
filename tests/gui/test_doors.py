"""One alignment through every door: the panel, the command line, a script and a recipe give the same bytes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QApplication

import stackalign as sa
from stackalign.samples import sample_path
from stackalign.widgets._contributions import read
from stackalign.widgets.align_stack import AlignStack

MOVIE = str(sample_path("drifting_beads"))


def without_times(path: Path) -> bytes:
    document: dict[str, Any] = json.loads(path.read_text())
    document["provenance"].pop("times")
    return json.dumps(document).encode()


def by_panel(viewer: Any, qtbot: Any, folder: Path) -> None:
    ((data, keywords, _),) = read(MOVIE)
    viewer.add_image(data, **keywords)
    panel = AlignStack(viewer)
    viewer.window.add_dock_widget(panel, name="Align stack")
    panel.run.button.click()
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=60_000)
    panel.save.save_folder(str(folder))
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=60_000)
    panel.shut()
    QApplication.processEvents()


def by_command_line(folder: Path) -> None:
    command = [sys.executable, "-m", "stackalign", "align", MOVIE, "-m", "cross-correlation", "-o", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def by_script(folder: Path) -> None:
    folder.mkdir()
    result = sa.register(sa.read_stack(MOVIE), sa.CrossCorrelation())
    sa.save_transforms(folder / "transforms.json", result.transforms, {**result.provenance, "seed": 0})


def test_all_doors_give_the_same_transforms(make_napari_viewer: Any, qtbot: Any, tmp_path: Path) -> None:
    by_panel(make_napari_viewer(), qtbot, tmp_path / "panel")
    by_command_line(tmp_path / "cli")
    by_script(tmp_path / "script")
    sa.run(sa.load_recipe(tmp_path / "cli" / "recipe.yaml"), folder=tmp_path / "recipe")
    doors = {name: without_times(tmp_path / name / "transforms.json") for name in ("panel", "cli", "script", "recipe")}
    assert len(set(doors.values())) == 1, {name: text[:200] for name, text in doors.items()}
    for name in ("aligned.tif", "transforms.csv", "quality.csv"):
        assert (tmp_path / "panel" / name).read_bytes() == (tmp_path / "cli" / name).read_bytes()
