"""``stackalign evaluate``: tables and figures of a small grid, stopped and taken up again."""

from __future__ import annotations

import pytest
import yaml

from stackalign.cli.evaluate import FIGURES, _carried_out, grid_of
from stackalign.core.simulate import Simulation
from stackalign.core.translation.registrar import CrossCorrelation
from stackalign.core.trial import perturbations
from stackalign.io.tables import read_table

GRID = ("--translations", "0,4", "--rotations", "0:5:5", "--draws", "1")
MOVIE = ("--set", "shape=[64, 80]", "--set", "frames=6", "--set", "photons=1000")


def test_a_small_grid(call, here):
    words = ("evaluate", "-o", "out", *GRID, *MOVIE, "--vary", "batch_size=3,none")
    result = call(*words)
    assert result.exit_code == 0, result.output
    trials = read_table(here / "out/trials.csv")
    assert len(trials) == 8
    assert set(trials["variant"]) == {"batch_size 3", "batch_size none"}
    moved = trials[(trials["translation_px"] == 4) & (trials["rotation_deg"] == 5)]
    assert (moved["inconsistency"] < 0.05 * moved["inconsistency_before"]).all()
    assert (moved["error_px"] < 0.1).all()
    assert (trials[trials["translation_px"] + trials["rotation_deg"] == 0]["inconsistency_before"] == 0).all()
    for name in ("heat-map.png", "heat-map-px.png", "bars.png", "bars-px.png", "time.png", "course.csv"):
        assert (here / "out" / name).stat().st_size > 300
    said = yaml.safe_load((here / "out/evaluation.yaml").read_text())
    assert said["simulation"]["frames"] == 6
    assert "batch_size 3: inconsistency" in result.stdout
    assert call(*words, "--with", "rank=2").exit_code == 1  # other settings


def test_a_stopped_run_goes_on(call, here):
    words = ("evaluate", "-o", "out", "-m", "cross-correlation", *GRID[:2], "--rotations", "0", "--draws", "2", *MOVIE)
    words = (*words, "--set", "model=translation", "-q")
    assert call(*words).exit_code == 0
    table = here / "out/trials.csv"
    whole = table.read_text().splitlines()
    table.write_text("\n".join(whole[:3]) + "\n")  # as if it had been stopped after two
    assert call(*words).exit_code == 0
    again = table.read_text().splitlines()
    assert again[:3] == whole[:3]
    assert len(again) == 5
    assert len(read_table(here / "out/course.csv").drop_duplicates(["translation_px", "draw"])) == 4
    more = [*words]
    more[more.index("--draws") + 1] = "3"
    assert call(*more).exit_code == 0  # a grid may grow
    assert table.read_text().splitlines()[:5] == again
    assert len(read_table(table)) == 6


def test_what_is_there_of_a_stopped_run_is_drawn(here):
    base = Simulation(shape=(32, 40), frames=3, motion="uniform", amplitude=2)
    work = _carried_out(here, base, {"cross-correlation": CrossCorrelation()}, [2.0], [0.0], 9, None)
    while not (here / "trials.csv").exists():
        next(work)
    work.close()
    assert len(read_table(here / "trials.csv")) == 1
    assert all((here / name).stat().st_size > 300 for name in FIGURES)


def test_a_grid_comes_whole_before_the_next_draw():
    order = [(s, a, d) for s, a, d, _ in perturbations(Simulation(), [0, 3], [0, 2], 2)]
    assert order == [(0, 0, 0), (0, 2, 0), (3, 0, 0), (3, 2, 0), (0, 0, 1), (0, 2, 1), (3, 0, 1), (3, 2, 1)]


@pytest.mark.parametrize(("noise", "key"), [(("--gaussian", "0.01"), "read_noise"), (("--peak", "33"), "shot_noise")])
def test_noise_relative_to_the_brightest_pixel(call, here, noise, key):
    words = ("evaluate", "-o", "out", "--translations", "2", "--rotations", "0", "--draws", "1", *MOVIE, *noise)
    assert call(*words, "-q").exit_code == 0
    said = yaml.safe_load((here / "out/evaluation.yaml").read_text())["simulation"]
    assert said["dtype"] == "float32"
    assert said["offset"] == 0
    assert bool(said[key])


def test_grids_as_they_are_typed(call, here):
    assert grid_of("0:27:3", "--x") == [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]
    assert grid_of("0:1:0.3", "--x") == [0, 0.3, 0.6, 0.9]
    assert grid_of("2", "--x") == [2]
    for words in (("--translations", "3:x"), ("--rotations", "-2"), ("-m", "none"), ("--vary", "rank"),
                  ("--gaussian", "0.1", "--peak", "3"), ("--set", "colour=3"), ("--with", "colour=3")):  # fmt: skip
        result = call("evaluate", "-o", "out", *words)
        assert result.exit_code == 2, words
    assert not (here / "out").exists()
