from __future__ import annotations

import json

import numpy as np
import pytest

import stackalign as sa


@pytest.fixture
def truth(movie):
    return movie.with_name("movie.truth.json")


def test_apply_is_warp(call, here, movie, truth):
    result = call("apply", truth, movie, "-o", "fixed.tif", "--order", "1", "--fill", "7", "--crop", "valid")
    assert result.exit_code == 0, result.stderr
    stack = sa.read_stack(movie)
    expected = sa.warp(stack, sa.load_transforms(truth), order=1, fill=7.0, crop="valid")
    fixed = sa.read_stack("fixed.tif")
    assert fixed.dtype == np.uint16
    assert (fixed.asarray() == expected.asarray()).all()


def test_apply_aligns_all_channels(call, here, truth, movie):
    first = sa.read_stack(movie)
    second = sa.ImageStack(first.asarray()[:, ::-1].copy())
    sa.write_stack("two.tif", [first, second])
    assert call("apply", truth, "two.tif", "-q").exit_code == 0
    fixed = sa.read_channels("two_aligned.tif")
    assert len(fixed) == 2
    for channel, stack in zip(fixed, (first, second), strict=True):
        assert (channel.asarray() == sa.warp(stack, sa.load_transforms(truth)).asarray()).all()


def test_quiet_says_nothing(call, here, truth, movie):
    result = call("apply", truth, movie, "-q")
    assert (result.stdout, result.stderr) == ("", "")
    assert (here / "movie_aligned.tif").is_file()


@pytest.mark.parametrize(
    "words, code, text",
    [
        (("--order", "2"), 2, "0|1|3|5"),
        (("--crop", "some"), 2, "none|valid|expand"),
        (("--fill", "black"), 2, "number|nan|edge"),
        (("--frames", "0:3"), 1, "holds 8 transforms"),
        (("--frames", "nine"), 2, "A:B"),
        (("--threads", "0"), 2, "--threads"),
        (("-o", "nowhere/fixed.tif"), 1, "there is no folder nowhere"),
    ],
)
def test_bad_input_names_what_is_wrong(call, here, truth, movie, words, code, text):
    result = call("apply", truth, movie, *words)
    assert result.exit_code == code, result.stderr
    assert text in result.stderr
    assert not list(here.iterdir())


def test_transforms_that_are_none(call, here, movie):
    (here / "bad.json").write_text("[1, 2]")
    result = call("apply", "bad.json", movie)
    assert result.exit_code == 1
    assert result.stderr.startswith("stackalign: bad.json: ")
    assert result.stderr.count("\n") == 1


def test_help_takes_choices_from_the_record(call):
    text = " ".join(call("apply", "--help").stdout.split())
    assert "(0|1|3|5; default 3)" in text
    assert "(none|valid|expand; default none)" in text


def test_measure_prints_before_and_after(call, here, truth, movie):
    result = call("measure", truth, movie, "-o", "q.csv")
    assert result.exit_code == 0, result.stderr
    assert "doing nothing" in result.stdout
    assert len(sa.read_table("q.csv")) == 8
    said = json.loads(call("measure", truth, movie, "--json").stdout)
    assert said["sentence"] in result.stdout
    for measures in said["summary"].values():
        assert set(measures) == {"before", "after"}
