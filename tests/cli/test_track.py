from __future__ import annotations

import json

import numpy as np
import pytest

import stackalign as sa
from stackalign.io.picks import read_picks


def test_suggested_particles_are_followed_and_kept(call, here, movie):
    result = call("track", movie, "--auto", "6", "-o", "spots.csv")
    assert result.exit_code == 0, result.stderr
    table = sa.read_table("spots.csv")
    assert {"frame", "particle", "y", "x"} <= set(table.columns)
    picks = read_picks("spots.picks.json")
    assert 1 <= len(picks) <= 6
    truth = sa.load_transforms(movie.with_name("movie.truth.json")).translations
    drift = table.pivot(index="frame", columns="particle", values=["y", "x"])
    moved = drift - drift.iloc[0]
    for i, axis in enumerate("yx"):
        assert np.abs(moved[axis].median(axis=1).to_numpy() + truth[:, i]).max() < 0.3
    again = call("track", movie, "--picks", "spots.picks.json", "-o", "again.csv")
    assert again.exit_code == 0, again.stderr
    assert (here / "again.csv").read_bytes() == (here / "spots.csv").read_bytes()


def test_align_with_picks_is_the_library_to_the_bit(call, here, movie):
    assert call("track", movie, "--auto", "6", "-o", "spots.csv").exit_code == 0
    result = call("align", movie, "-m", "particles", "--picks", "spots.picks.json", "-o", "out", "-q")
    assert result.exit_code == 0, result.stderr
    own = sa.register(sa.read_stack(movie), sa.ParticleTracking(picks=tuple(read_picks("spots.picks.json"))))
    assert (sa.load_transforms("out/transforms.json").matrices == own.transforms.matrices).all()


@pytest.mark.parametrize("words", [(), ("--auto", "3", "--picks", "a.json"), ("--auto", "0"), ("--set", "serach=3")])
def test_bad_usage(call, here, movie, words):
    assert call("track", movie, *words).exit_code == 2
    assert not list(here.iterdir())


def test_picks_that_are_none(call, here, movie):
    (here / "picks.json").write_text("[]")
    result = call("track", movie, "--picks", "picks.json")
    assert result.exit_code == 1
    assert result.stderr.startswith("stackalign: picks.json ")
    assert result.stderr.count("\n") == 1


def test_nothing_to_follow(call, here):
    sa.write_stack("flat.tif", np.full((4, 64, 64), 7, np.uint16))
    result = call("track", "flat.tif", "--auto", "3")
    assert result.exit_code == 1
    assert "stackalign: " in result.stderr
    assert [path.name for path in here.iterdir()] == ["flat.tif"]


def test_help_lists_every_parameter(call):
    text = call("track", "--help").stdout
    assert "search = 25  (number, >= 1 and <= 1000; px)" in text


def test_picks_are_for_methods_that_follow_particles(call, here, movie):
    result = call("align", movie, "--auto", "3", "-o", "out")
    assert result.exit_code == 2
    assert "cross-correlation follows no particles" in result.stderr


def test_the_folder_of_the_particle_scripts(call, here):
    stack, _ = sa.simulate(scene="beads", shape=(90, 110), frames=4, motion="smooth", amplitude=2.0, seed=3)
    sa.write_stack("movie.tif", stack)
    words = ("align", "movie.tif", "-m", "particles", "--auto", "4", "-o", "out", "--set", "script_output=true")
    result = call(*words)
    assert result.exit_code == 0, result.stderr
    folder = here / "out" / "script_output"
    inside = ["aligned", "drift_analysis", "log.txt", "particle_selections.json", "particles_tracking", "validation"]
    assert sorted(path.name for path in folder.iterdir()) == inside
    assert len(list((folder / "aligned").glob("*.tif"))) == 4
    again = call("run", here / "out" / "recipe.yaml", "-o", "again")  # the recipe keeps the wish
    assert again.exit_code == 0, again.stderr
    table = next((folder / "particles_tracking").glob("*.csv"))
    assert (here / "again" / table.relative_to(here / "out")).read_bytes() == table.read_bytes()
    other = call("align", "movie.tif", "-o", "other", "--set", "script_output=true")
    assert other.exit_code == 1
    assert "choose the method 'particles'" in other.stderr


def test_an_image_set_is_chosen_by_its_name(call, here):
    from stackalign.io.picks import write_selections

    stack, _ = sa.simulate(scene="beads", shape=(90, 110), frames=3, motion="smooth", amplitude=1.0, seed=3)
    sa.write_stack("movie.tif", stack)
    picks = sa.suggest_picks(stack, 2)
    about = {"first_image": "1.tif", "total_images": 3, "image_shape": (90, 110)}
    sets = []
    for folder, some in (("/data/a", picks[:1]), ("/data/b", picks)):
        write_selections("one.json", some, folder=folder, version=1, **about)
        sets += json.loads((here / "one.json").read_text())["image_sets"]
    (here / "sets.json").write_text(json.dumps({"image_sets": sets}))
    words = ("track", "movie.tif", "--picks", "sets.json")
    asked = call(*words)
    assert asked.exit_code == 1
    assert "sets.json holds 2 image sets: choose one with --image-set NAME (0: a, 1: b)" in asked.stderr
    result = call(*words, "--image-set", "b", "-o", "spots.csv")
    assert result.exit_code == 0, result.stderr
    assert set(sa.read_table("spots.csv")["particle"]) == {1, 2}
    align = ("align", "movie.tif", "-m", "particles", "--picks", "sets.json", "-o", "out")
    assert call(*align).exit_code == 1
    assert call(*align, "--image-set", "1").exit_code == 0
    assert call("align", "movie.tif", "--image-set", "b", "-o", "other").exit_code == 2
