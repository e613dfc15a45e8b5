from __future__ import annotations

import json

import numpy as np
import pytest

import stackalign as sa
from stackalign.cli.files import TRANSFORMS
from stackalign.io.matlab import read_tau
from stackalign.io.transforms import ENDINGS


def test_version_and_help(call):
    assert call("--version").stdout == f"stackalign {sa.__version__}\n"
    assert "align" in call("--help").stdout


def test_simulate_writes_the_movie_and_its_truth(movie):
    stack = sa.read_stack(movie)
    assert stack.shape == (8, 64, 80)
    assert stack.dtype == np.uint16
    truth = sa.load_transforms(movie.with_name("movie.truth.json"))
    assert len(truth) == 8
    assert sa.load_provenance(movie.with_name("movie.truth.json"))["simulation"]["seed"] == 1


def test_simulate_repeats_itself_and_keeps_what_is_there(call, here, movie):
    words = ["simulate", "--set", "frames=8", "--set", "shape=[64, 80]", "--set", "seed=1", "-o", "m.tif"]
    assert call(*words).exit_code == 0
    assert (sa.read_stack("m.tif").asarray() == sa.read_stack(movie).asarray()).all()
    again = call(*words)
    assert again.exit_code == 1
    assert again.stderr == "stackalign: m.tif is there already: say --overwrite to replace it\n"
    assert call(*words, "--overwrite").exit_code == 0


@pytest.mark.parametrize("noise", [("--gaussian", "0.01"), ("--peak", "100")])
def test_simulate_for_matlab_with_one_kind_of_noise(call, here, noise):
    small = ("--set", "frames=4", "--set", "shape=[40, 48]", "--set", "motion=uniform")
    assert call("simulate", *small, *noise, "-o", "movie.mat").exit_code == 0
    stack, truth = sa.read_stack("movie.mat"), sa.load_transforms("movie.truth.json")
    assert stack.shape == (4, 40, 48)
    assert stack.dtype == np.float32
    assert np.allclose(read_tau("movie.mat", (40, 48)).matrices, truth.matrices)
    if noise[0] == "--peak":
        assert np.array_equal(stack.asarray(), np.round(stack.asarray()))  # photons
    assert call("simulate", "--gaussian", "0.1", "--peak", "9", "-o", "other.mat").exit_code == 2


@pytest.mark.parametrize("setting", ["fraems=3", "frames=none", "scene=moons", "frames"])
def test_simulate_with_a_bad_setting_is_bad_usage(call, here, setting):
    result = call("simulate", "--set", setting, "-o", "m.tif")
    assert result.exit_code == 2
    assert "--set" in result.stderr
    assert not list(here.iterdir())


def test_simulate_into_an_unknown_format_is_bad_usage(call, here):
    assert call("simulate", "-o", "movie.avi").exit_code == 2


def test_info_tells_what_a_movie_holds(call, movie):
    result = call("info", movie)
    assert "8 t x 64 y x 80 x, uint16" in result.stdout
    assert json.loads(call("info", movie, "--json").stdout)["frames"] == 8


def test_info_tells_what_transforms_hold(call, movie):
    result = call("info", movie.with_name("movie.truth.json"))
    assert result.exit_code == 0
    assert "moving -> reference" in result.stdout
    assert "frames:      8" in result.stdout


def test_info_names_the_choices_of_ambiguous_axes(call, here):
    np.save("open.npy", np.zeros((3, 4, 16, 16), np.uint16))
    assert "axes may be" in call("info", "open.npy").stdout
    result = call("convert", "open.npy", "out.tif")
    assert result.exit_code == 1
    assert "Say --axes tzyx" in result.stderr
    assert result.stderr.count("\n") == 1
    assert call("convert", "open.npy", "out.tif", "--axes", "tzyx").exit_code == 0
    assert sa.read_stack("out.tif").axes == "tzyx"


@pytest.mark.parametrize("command", [("info", "nowhere.tif"), ("convert", "nowhere.tif", "out.tif")])
def test_missing_file_is_one_clear_line(call, here, command):
    result = call(*command)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "stackalign: there is no file or folder nowhere.tif\n"


def test_debug_shows_the_traceback(call, here):
    result = call("info", "nowhere.tif", "--debug")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("stackalign: there is no file or folder nowhere.tif\n")


def test_convert_stacks_and_ranges(call, here, movie):
    for name in ("a.ome.tif", "a.zarr", "a.npy"):
        assert call("convert", movie, name, "--frames", "2:5").exit_code == 0, name
        axes = "tyx" if name.endswith("npy") else None
        assert (sa.read_stack(name, axes=axes).asarray() == sa.read_stack(movie).asarray()[2:5]).all()
    assert call("convert", movie, "b.tif", "--frames", "5:99").exit_code == 2
    assert call("convert", movie, "b.avi").exit_code == 1


def test_convert_keeps_all_channels(call, here):
    channels = [sa.ImageStack(np.full((3, 16, 20), k, np.uint16)) for k in (1, 2)]
    sa.write_stack("two.tif", channels)
    assert call("convert", "two.tif", "two.ome.tif").exit_code == 0
    assert [int(c[0].max()) for c in sa.read_channels("two.ome.tif")] == [1, 2]
    assert call("convert", "two.tif", "one.tif", "--channel", "1").exit_code == 0
    assert int(sa.read_stack("one.tif")[0].max()) == 2


def test_convert_transforms(call, here, movie):
    truth = movie.with_name("movie.truth.json")
    assert {e for e in ENDINGS if e not in (".npy", ".ngff.json")} == set(TRANSFORMS)
    for ending in ENDINGS:
        result = call("convert", truth, f"t{ending}")
        assert result.exit_code == 0, result.stderr
        found = sa.load_transforms(f"t{ending}")
        assert np.abs(found.matrices - sa.load_transforms(truth).matrices).max() < 1e-12
        if ending != ".npy":
            assert "frames:      8" in call("info", f"t{ending}").stdout


def test_nothing_is_replaced_without_overwrite(call, here, movie):
    (here / "out.tif").write_text("precious")
    result = call("convert", movie, "out.tif")
    assert result.exit_code == 1
    assert (here / "out.tif").read_text() == "precious"
    assert call("convert", movie, "out.tif", "--overwrite").exit_code == 0
    assert len(sa.read_stack("out.tif")) == 8
