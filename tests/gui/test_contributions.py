"""The manifest and what it contributes: reader, writers, samples, the panel, the command, the Preferences page."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from npe2 import DynamicPlugin, PluginManifest
from npe2.manifest.utils import import_python_name

import stackalign as sa
from stackalign.samples import sample_names
from stackalign.widgets import _contributions as contributions
from stackalign.widgets._layers import KEY, axes_choices, movie_of
from tests.gui.conftest import movie

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def plugin(npe2pm: Any) -> Any:
    """Return the test's plugin manager with our manifest registered."""
    manifest = PluginManifest.from_file(ROOT / "src" / "stackalign" / "napari.yaml")
    with npe2pm.tmp_plugin(manifest=manifest) as plugin:
        yield plugin


@pytest.fixture
def tiff(tmp_path: Path) -> Path:
    stack = sa.ImageStack(movie(), pixel_size=(0.1, 0.1), interval=0.5, name="cells")
    return sa.write_stack(tmp_path / "cells.tif", stack)


def test_every_command_can_be_imported() -> None:
    manifest = PluginManifest.from_file(ROOT / "src" / "stackalign" / "napari.yaml")
    for command in manifest.contributions.commands or []:
        assert callable(import_python_name(command.python_name)), command.id


def test_every_sample_is_offered_and_opens(viewer: Any, plugin: DynamicPlugin) -> None:
    offered = [sample.key for sample in plugin.manifest.contributions.sample_data]
    assert sorted(offered) == sorted(sample_names())
    for name in offered:
        (layer,) = viewer.open_sample("stackalign", name)
        assert layer.data.ndim in (3, 4)
        assert axes_choices(layer)[1], "time must be settled"
        assert movie_of(layer, axes_choices(layer)[0][0]).path is not None


def test_the_panel_opens_by_its_name(viewer: Any, plugin: DynamicPlugin) -> None:
    viewer.open_sample("stackalign", "drifting_beads")
    _, panel = viewer.window.add_plugin_dock_widget("stackalign", "Align stack")
    assert panel.run.button.isEnabled()
    assert panel.run.button.text().startswith("Align ")
    panel.shut()


def test_the_command_in_the_menu_opens_the_panel(viewer: Any, plugin: DynamicPlugin) -> None:
    menus = plugin.manifest.contributions.menus
    commands = [item.command for item in menus["napari/layers/register"]]
    assert commands == ["stackalign.open_align_stack", "stackalign.open_register_layers"]
    contributions.open_align_stack(viewer)
    assert any("Align stack" in name for name in viewer.window.dock_widgets)
    contributions.open_register_layers(viewer)
    assert any("Register two layers" in name for name in viewer.window.dock_widgets)


def test_preferences_have_a_page(plugin_settings: Any, plugin: DynamicPlugin) -> None:
    from napari.settings import get_plugin_settings

    from stackalign.core.threads import set_threads, threads
    from stackalign.widgets import _preferences as preferences

    settings = get_plugin_settings("stackalign").alignment
    assert settings.threads == 0
    assert preferences.preferred_threads() is None
    settings.threads = 3
    preferences.apply_threads()
    try:
        assert threads() == 3
    finally:
        set_threads(None)
    assert preferences.preferred_method() == "cross-correlation"


def test_methods_in_preferences_are_those_there_are() -> None:
    from stackalign.session import methods

    manifest = PluginManifest.from_file(ROOT / "src" / "stackalign" / "napari.yaml")
    offered = manifest.contributions.configurations["alignment"].properties["method"]
    assert set(offered.enum) == set(methods())
    assert offered.default in methods()


def test_a_tiff_opens_lazily_with_its_calibration(viewer: Any, plugin: DynamicPlugin, tiff: Path) -> None:
    (layer,) = viewer.open(tiff, plugin="stackalign")
    assert layer.name == "cells"
    np.testing.assert_allclose(layer.scale, (0.5, 0.1, 0.1))
    assert [str(u) for u in layer.units] == ["second", "micrometer", "micrometer"]
    assert layer.axis_labels == ("t", "y", "x")
    assert type(layer.data).__module__.startswith("dask")
    np.testing.assert_array_equal(np.asarray(layer.data), movie())
    opened = movie_of(layer, "tyx")
    assert opened.path == str(tiff)
    assert opened.stack.pixel_size == pytest.approx((0.1, 0.1))
    assert "dask" not in type(opened.stack.frames).__module__, "frames are read from the file itself"


def test_a_layer_changed_after_opening_is_no_file_any_more(viewer: Any, plugin: DynamicPlugin, tiff: Path) -> None:
    (layer,) = viewer.open(tiff, plugin="stackalign")
    layer.data = np.asarray(layer.data)[::-1].copy()
    opened = movie_of(layer, "tyx")
    assert opened.path is None
    np.testing.assert_array_equal(opened.stack[0], movie()[-1])


def test_a_folder_opens(viewer: Any, plugin: DynamicPlugin, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for t, frame in enumerate(movie(4)):
        tifffile.imwrite(tmp_path / "run" / f"t{t}.tif", frame)
    (layer,) = viewer.open(tmp_path / "run", plugin="stackalign")
    assert layer.data.shape == (4, 48, 64)


def test_channels_become_layers_that_move_alike(viewer: Any, plugin: DynamicPlugin, tmp_path: Path) -> None:
    two = [sa.ImageStack(movie()), sa.ImageStack(movie()[:, ::-1].copy())]
    path = sa.write_stack(tmp_path / "two.tif", two)
    first, second = viewer.open(path, plugin="stackalign")
    np.testing.assert_array_equal(np.asarray(second.data), movie()[:, ::-1])
    assert movie_of(second, "tyx").file_channel == 1
    assert movie_of(first, "tyx").file_channel == 0


def test_colours_become_one_layer(tmp_path: Path) -> None:
    rgb = np.stack([movie().astype(np.uint8)] * 3, axis=-1)
    tifffile.imwrite(tmp_path / "rgb.tif", rgb, photometric="rgb")
    ((data, keywords, kind),) = contributions.read(str(tmp_path / "rgb.tif"))
    assert kind == "image"
    assert keywords["rgb"]
    np.testing.assert_array_equal(np.asarray(data), rgb)


def test_axes_left_open_stay_without_names(viewer: Any, plugin: DynamicPlugin, tmp_path: Path) -> None:
    np.save(tmp_path / "open.npy", np.zeros((3, 5, 16, 16), np.uint16))
    (layer,) = viewer.open(tmp_path / "open.npy", plugin="stackalign")
    choices, settled = axes_choices(layer)
    assert not settled
    assert "tzyx" in choices
    opened = movie_of(layer, "ztyx")
    assert opened.stack.shape == (5, 3, 16, 16)
    assert opened.path is not None
    assert opened.file_axes == "ztyx"


def test_a_broken_file_is_a_dialog_not_a_crash(viewer: Any, plugin: DynamicPlugin, tmp_path: Path, qtbot: Any) -> None:
    from qtpy.QtWidgets import QApplication

    from stackalign.widgets._errors import ErrorDialog

    (tmp_path / "text.tif").write_text("this is no image")
    _, panel = viewer.window.add_plugin_dock_widget("stackalign", "Align stack")
    panel.movie.open_path(str(tmp_path / "text.tif"))
    (dialog,) = [w for w in QApplication.topLevelWidgets() if isinstance(w, ErrorDialog) and w.isVisible()]
    assert "text.tif" in dialog.message.text()
    dialog.close()
    panel.shut()


@pytest.mark.parametrize("name", ["out.tif", "out.ome.tif", "out.zarr", "out.npy"])
def test_writers_keep_pixels_and_calibration(tmp_path: Path, tiff: Path, name: str) -> None:
    ((data, keywords, _),) = contributions.read(str(tiff))
    keywords = {**keywords, "units": [_unit(u) for u in keywords["units"]]}
    (written,) = contributions.write_image(str(tmp_path / name), data, keywords)
    again = sa.read_stack(written)
    np.testing.assert_array_equal(again.asarray(), movie())
    assert again.dtype == np.uint16
    if not name.endswith(".npy"):
        assert again.pixel_size == pytest.approx((0.1, 0.1))
        assert again.interval == pytest.approx(0.5)


def _unit(word: str) -> Any:
    import pint

    return pint.get_application_registry().Unit(word)


def test_layers_are_saved_as_channels(viewer: Any, plugin: DynamicPlugin, tmp_path: Path) -> None:
    viewer.add_image(movie(), name="a")
    viewer.add_image(movie()[::-1], name="b")
    (written,) = viewer.layers.save(str(tmp_path / "both.tif"), plugin="stackalign")
    first, second = sa.read_channels(written)
    np.testing.assert_array_equal(first.asarray(), movie())
    np.testing.assert_array_equal(second.asarray(), movie()[::-1])


def test_missing_frames_are_told(tmp_path: Path) -> None:
    stack = sa.ImageStack(movie(), missing={2: "cannot be read"})
    _, keywords, _ = contributions.layer_data(stack)
    assert keywords["metadata"][KEY]["missing"] == {2: "cannot be read"}
