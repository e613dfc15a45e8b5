from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import stackalign as sa

DATA = Path(__file__).parents[2].parent / "shared" / "data"
FILES = {
    "aligned.tif",
    "transforms.json",
    "transforms.csv",
    "quality.csv",
    "recipe.yaml",
    "report.html",
    "run.log",
}


def test_align_writes_every_file_and_finds_the_motion(call, here, movie):
    result = call("align", movie, "-m", "cross-correlation", "-o", "out")
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in (here / "out").iterdir()} == FILES
    assert "out" in result.stdout
    found = sa.load_transforms("out/transforms.json")
    truth = sa.load_transforms(movie.with_name("movie.truth.json"))
    assert np.abs(found.translations - truth.translations).max() < 0.1
    aligned = sa.read_stack("out/aligned.tif")
    assert aligned.dtype == np.uint16
    assert len(sa.read_table("out/quality.csv")) == 8
    assert (here / "out" / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_align_is_register(call, here, movie):
    assert call("align", movie, "-o", "out", "-q").exit_code == 0
    registration = sa.register(sa.read_stack(movie), sa.CrossCorrelation())
    assert (sa.load_transforms("out/transforms.json").matrices == registration.transforms.matrices).all()


def test_run_repeats_a_recipe_to_the_last_bit(call, here, movie):
    assert call("align", movie, "-o", "out", "--reference", "first", "--set", "warp.order=1", "-q").exit_code == 0
    result = call("run", "out/recipe.yaml", "-o", "again")
    assert result.exit_code == 0, result.stderr
    for name in ("transforms.csv", "quality.csv", "aligned.tif"):
        assert (here / "out" / name).read_bytes() == (here / "again" / name).read_bytes(), name
    once = json.loads((here / "out" / "transforms.json").read_text())
    again = json.loads((here / "again" / "transforms.json").read_text())
    once["provenance"].pop("times")
    again["provenance"].pop("times")
    assert once == again


def test_a_result_is_kept_unless_told_otherwise(call, here, movie):
    assert call("align", movie, "-o", "out", "-q").exit_code == 0
    before = (here / "out" / "transforms.json").read_bytes()
    result = call("align", movie, "-o", "out", "--reference", "previous")
    assert result.exit_code == 1
    assert "--overwrite" in result.stderr
    assert result.stderr.count("\n") == 1
    assert (here / "out" / "transforms.json").read_bytes() == before
    assert call("run", "out/recipe.yaml", "--overwrite", "-q").exit_code == 0


def test_options_reach_the_recipe(call, here, movie):
    words = ["--frames", "1:7", "--reference", "3", "--anchor", "mean", "--region", "4:60,8:72", "--seed", "5"]
    words += ["--order", "1", "--fill", "edge", "--set", "output.compression=deflate", "--crop", "valid"]
    result = call("align", movie, "-o", "out", "-q", *words)
    assert result.exit_code == 0, result.stderr
    config = sa.load_recipe("out/recipe.yaml")
    assert config.input.frames == (1, 7)
    assert (config.reference, config.anchor, config.seed) == (3, "mean", 5)
    assert config.preprocess.region == (4, 60, 8, 72)
    assert config.warp.model_dump() == {"order": 1, "fill": "edge", "crop": "valid"}
    assert config.output.compression == "deflate"
    assert len(sa.load_transforms("out/transforms.json")) == 6


def test_integers_have_no_nan_to_fill_with(call, here, movie):
    result = call("align", movie, "-o", "out", "--fill", "nan")
    assert result.exit_code == 1
    assert result.stderr.startswith("stackalign: uint16 pixels cannot hold NaN")
    assert result.stderr.count("\n") == 1
    assert not (here / "out").exists()


def test_open_ended_range_of_frames(call, here, movie):
    assert call("align", movie, "-o", "out", "-q", "--frames", "5:").exit_code == 0
    assert len(sa.load_transforms("out/transforms.json")) == 3


def test_reference_may_be_a_file(call, here, movie):
    stack = sa.read_stack(movie)
    sa.write_stack("still.tif", stack[0][None])
    result = call("align", movie, "-o", "out", "--reference", "still.tif")
    assert result.exit_code == 0, result.stderr
    truth = sa.load_transforms(movie.with_name("movie.truth.json"))
    assert np.abs(sa.load_transforms("out/transforms.json").translations - truth.translations).max() < 0.1


def test_default_folder_is_named_after_the_movie(call, here, movie):
    assert call("align", movie, "-q").exit_code == 0
    assert (here / "movie_aligned" / "report.html").is_file()


@pytest.mark.parametrize(
    "words, text",
    [
        (("-m", "magic"), "choose cross-correlation"),
        (("--set", "upsmaple=3"), "there is no parameter 'upsmaple'"),
        (("--set", "warp.ordre=3"), "did you mean 'order'?"),
        (("--set", "wrap.order=3"), "there is no group 'wrap': choose registrar, preprocess, warp, output"),
        (("--set", "order=4"), "0|1|3|5"),
        (("--set", "method=other"), "chosen with -m"),
        (("--order", "4"), "0|1|3|5"),
        (("--crop", "all"), "none|valid|expand"),
        (("--model", "affine"), "cross-correlation"),
        (("--frames", "4:2"), "holds no frame"),
        (("--region", "1:2"), "y0:y1,x0:x1"),
        (("--reference", "median-ish"), "reference"),
        (("--anchor", "best"), "anchor"),
        (("--seed", "-1"), "seed"),
        (("--colour",), "No such option"),
    ],
)
def test_bad_usage_names_what_is_allowed(call, here, movie, words, text):
    result = call("align", movie, "-o", "out", *words)
    assert result.exit_code == 2, result.output
    assert text in result.stderr
    assert not list(here.iterdir())


def test_a_glob_that_the_shell_wrote_out_is_told(call, here):
    result = call("align", "run/t1.tif", "run/t10.tif", "run/t2.tif")
    assert result.exit_code == 2
    assert "name their folder (run) or quote the glob ('run/*.tif')" in result.stderr


def test_methods_lists_every_parameter(call):
    result = call("methods")
    assert result.exit_code == 0
    for field in sa.CrossCorrelation.model_fields:
        if field != "method":
            assert f"  {field} = " in result.stdout
    assert call("methods", "cross-correlation").stdout in result.stdout
    assert call("methods", "magic").exit_code == 2


def test_help_of_align_lists_every_parameter(call):
    text = call("align", "--help").stdout
    assert call("methods").stdout.strip() in text
    assert "preprocess.region = none" in text
    assert "output.compression" in text
    assert "0|1|3|5" in text


@pytest.fixture(scope="module")
def long_movie(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "long.tif"
    frame = np.random.default_rng(0).integers(0, 99, (128, 128), np.uint8)
    return sa.write_stack(path, np.broadcast_to(frame, (8000, 128, 128)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_cleanly(start, here, long_movie, number):
    process = start("align", long_movie, "-o", "out")
    deadline = time.monotonic() + 60
    while not (here / "out" / "run.log").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)  # well into the work
    begun = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert (out, err) == ("", "stackalign: cancelled\n")
    assert time.monotonic() - begun < 10  # compiling a kernel on a busy machine included
    assert not list(here.iterdir())


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo terminal")
def test_progress_is_drawn_in_a_terminal_alone(here, movie):
    try:
        ours, theirs = os.openpty()
    except OSError as error:  # a bare container may have no /dev/pts
        pytest.skip(f"no pseudo terminal here: {error}")
    words = [sys.executable, "-m", "stackalign", "align", str(movie), "-o", "out"]
    process = subprocess.Popen(words, cwd=here, stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    out, _ = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 0, shown
    assert b"\r" in shown
    assert b"%" in shown
    assert shown.endswith(b" \r")  # the line is cleared in the end
    assert "%" not in out


def test_a_failure_is_one_line_and_a_traceback_only_with_debug(start):
    process = start("align", "nowhere.tif", "-o", "out")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err == "stackalign: there is no file or folder nowhere.tif\n"
    process = start("align", "nowhere.tif", "-o", "out", "--debug")
    assert "Traceback" in process.communicate(timeout=60)[1]
    assert process.returncode == 1


def test_start_is_quick_and_light(start):
    begun = time.monotonic()
    process = start("--help")
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert time.monotonic() - begun < 3  # a tenth of that on an idle machine


@pytest.mark.shared_data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")
def test_real_particles_move_as_an_independent_program_says(call, here):
    result = call(
        "align", DATA / "reflection_particles", "-m", "cross-correlation", "--reference", "first", "-o", "out"
    )
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in (here / "out").iterdir()} == FILES
    assert sa.read_stack("out/aligned.tif").dtype == np.uint16
    drift = -sa.load_transforms("out/transforms.json").translations
    expected = {2: (3.92, 1.17), 3: (6.12, 3.01), 4: (7.47, 3.67)}  # frame 1 is less certain
    for t, (y, x) in expected.items():
        assert np.abs(drift[t] - (y, x)).max() < 0.25, t
