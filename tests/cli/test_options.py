from __future__ import annotations

import pytest
import typer

from stackalign.cli.methods import allowed, described, parameter_table, shown
from stackalign.cli.options import channel_of, frames_of, region_of, settings_of
from stackalign.cli.records import checked
from stackalign.core.simulate import Simulation
from stackalign.core.warping.warp import WarpOptions


@pytest.mark.parametrize("text, span", [(None, None), ("2:5", (2, 5)), (":3", (0, 3)), (" 4 : 9 ", (4, 9))])
def test_frames(text, span):
    assert frames_of(text) == span


def test_frames_to_the_end():
    assert frames_of("4:", 10) == (4, 10)


@pytest.mark.parametrize("text", ["5", "a:b", "5:5", "7:2", "3:", "-2:5"])
def test_frames_that_make_no_sense_are_bad_usage(text):
    with pytest.raises(typer.BadParameter):
        frames_of(text)


@pytest.mark.parametrize("text, bounds", [(None, None), ("1:5, 2:9", (1, 5, 2, 9))])
def test_region(text, bounds):
    assert region_of(text) == bounds


@pytest.mark.parametrize("text", ["1:5", "5:1,0:3", "a:b,c:d", "0:2,1:5,2:9"])
def test_region_that_makes_no_sense_is_bad_usage(text):
    with pytest.raises(typer.BadParameter):
        region_of(text)


def test_channel_is_a_number_or_a_name():
    assert channel_of("2") == 2
    assert channel_of("GFP") == "GFP"
    assert channel_of(None) is None


def test_settings_are_yaml_values():
    found = settings_of(["a=3", "b=0.5", "c=none", "d=[1, 2]", "e=true", "f=word", "low-sigma=1", "g=a=b"])
    assert found == {"a": 3, "b": 0.5, "c": None, "d": [1, 2], "e": True, "f": "word", "low_sigma": 1, "g": "a=b"}


@pytest.mark.parametrize("pairs", [["a"], ["=3"], ["a=1", "a=2"]])
def test_settings_that_are_no_pairs_are_bad_usage(pairs):
    with pytest.raises(typer.BadParameter):
        settings_of(pairs)


def test_unknown_key_names_the_nearest_and_all():
    with pytest.raises(typer.BadParameter, match=r"no parameter 'fraems': did you mean 'frames'\? There are scene, "):
        checked(Simulation, {"fraems": 3})


@pytest.mark.parametrize(
    "values, text",
    [
        ({"frames": "many"}, "frames = many is not allowed: it must be integer, >= 1 and <= 1e+06"),
        ({"frames": 0}, "frames = 0 is not allowed: it must be integer, >= 1"),
        ({"scene": "moons"}, "scene = moons is not allowed: it must be beads|texture|cells"),
        ({"shape": [3, 3]}, "shape must be at least 8 pixels"),
    ],
)
def test_wrong_value_names_the_key_and_what_is_allowed(values, text):
    with pytest.raises(typer.BadParameter) as error:
        checked(Simulation, values)
    assert text in str(error.value)


def test_tables_hold_every_field_with_unit_default_and_bounds():
    table = parameter_table(Simulation)
    for name in Simulation.model_fields:
        assert f"  {name} = " in table
    assert "frames = 50  (integer, >= 1 and <= 1e+06)" in table
    assert "photons = 100  (number, > 0 and <= 1e+09; photons/px)" in table


def test_option_help_comes_from_the_record():
    text = described(WarpOptions, "crop")
    assert "none|valid|expand" in text
    assert "default none" in text
    assert allowed(WarpOptions.model_fields["fill"]) == "number|nan|edge"


@pytest.mark.parametrize(
    "value, text", [(None, "none"), (True, "true"), ((1, 2.5), "[1, 2.5]"), (1e-7, "1e-07"), ("word", "word")]
)
def test_values_are_shown_as_they_are_typed(value, text):
    assert shown(value) == text
    if value is not None:
        back = settings_of([f"key={text}"])["key"]
        assert (tuple(back) if isinstance(back, list) else back) in (value, text)
