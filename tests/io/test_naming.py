"""Folders whose file names count: order, gaps, and several axes at once."""

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from stackalign.core.stack import FrameError
from stackalign.io.errors import AmbiguousAxesError, ChannelChoiceError
from stackalign.io.info import describe
from stackalign.io.naming import name_grid, natural_key
from stackalign.io.read import read_channels, read_stack


@pytest.fixture
def grid_data(rng):
    """(t, z, c, y, x)."""
    return rng.integers(0, 999, (3, 2, 2, 6, 9), dtype=np.uint16)


def save(folder, data, pattern):
    for index in np.ndindex(*data.shape[:-2]):
        tifffile.imwrite(folder / pattern.format(*index), data[index])


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=2), st.randoms())
def test_numbers_sort_as_numbers(numbers, random):
    names = [f"run_{n}_x.tif" for n in sorted(numbers)]
    shuffled = names.copy()
    random.shuffle(shuffled)
    assert sorted(shuffled, key=natural_key) == names


@pytest.mark.parametrize(
    "pattern",
    [
        "t{0}_z{1}_ch{2}.tif",
        "exp 5 w{2} Time_{0:03d}.z{1:02d}.tif",
        "a-c{2}-z{1}-t{0}.tif",
        "x_slice{1}_channel{2}_t{0}.tif",
    ],
)
def test_names_that_count_time_depth_and_channels(tmp_path, grid_data, pattern):
    save(tmp_path, grid_data, pattern)
    stacks = read_channels(tmp_path)
    assert [s.axes for s in stacks] == ["tzyx", "tzyx"]
    for c, stack in enumerate(stacks):
        assert np.array_equal(stack.asarray(), grid_data[:, :, c])
        assert np.array_equal(stack.frames[1, 1, 2:4], grid_data[1, 1, c, 2:4])
    assert "the names of the files count along several axes: 3 t, 2 z, 2 c" in stacks[0].metadata["notes"]
    with pytest.raises(ChannelChoiceError, match="holds 2 channels"):
        read_stack(tmp_path)


def test_channels_are_called_as_the_names_call_them(tmp_path, grid_data):
    save(tmp_path, grid_data[:, 0], "t{0}_ch{1}.tif")
    assert [s.metadata["channel"] for s in read_channels(tmp_path)] == ["ch0", "ch1"]
    assert np.array_equal(read_stack(tmp_path, channel="ch1").asarray(), grid_data[:, 0, 1])
    assert np.array_equal(read_stack(tmp_path, axes="tyx", channel="ch1").asarray(), grid_data[:, 0, 1])
    assert describe(tmp_path).channels == ("ch0", "ch1")


def test_files_of_volumes_named_by_channel(tmp_path, grid_data):
    for t, c in np.ndindex(3, 2):
        volume = grid_data[t, :, c]
        tifffile.imwrite(tmp_path / f"t{t}_c{c}.tif", volume, imagej=True, metadata={"axes": "ZYX"})
    assert np.array_equal(read_stack(tmp_path, channel=1).asarray(), grid_data[:, :, 1])


def test_names_without_time_are_asked_for(tmp_path, grid_data):
    save(tmp_path, grid_data[0], "z{0}_c{1}.tif")
    with pytest.raises(AmbiguousAxesError) as info:
        read_stack(tmp_path)
    assert "tcyx" in info.value.choices
    assert np.array_equal(read_stack(tmp_path, axes="tcyx", channel=0).asarray(), grid_data[0, :, 0])
    assert np.array_equal(read_stack(tmp_path, axes="zcyx", channel=0)[0], grid_data[0, :, 0])


def test_a_file_that_is_not_there_is_a_missing_frame_of_its_channel(tmp_path, grid_data):
    save(tmp_path, grid_data[:, 0], "t{0}_c{1}.tif")
    (tmp_path / "t1_c1.tif").unlink()
    (tmp_path / "t2_c0.tif").write_text("x")
    first, second = read_channels(tmp_path)
    assert list(first.missing) == [2]
    assert dict(second.missing) == {1: "there is no file for t 1, c 1"}
    assert np.array_equal(first[1], grid_data[1, 0, 0])
    assert np.array_equal(second[2], grid_data[2, 0, 1])
    assert not second[1].any()
    with pytest.raises(FrameError, match="there is no file"):
        second.frames[1]


def test_the_user_may_read_them_as_one_series(tmp_path, grid_data):
    save(tmp_path, grid_data[:, :, 0], "t{0}_z{1}.tif")
    assert read_stack(tmp_path).axes == "tzyx"
    flat = read_stack(tmp_path, axes="tyx")
    assert np.array_equal(flat.asarray(), grid_data[:, :, 0].reshape(6, 6, 9))


@pytest.mark.parametrize(
    "names",
    [
        ["a1.tif", "a2.tif"],
        ["t1_z1.tif", "t2_z2.tif", "t3_z3.tif", "t4_z4.tif", "t5_z5.tif"],  # in step: one count
        ["t1_t1.tif", "t1_t2.tif", "t2_t1.tif", "t2_t2.tif"],
        ["p1_t1.tif", "p1_t2.tif", "p2_t1.tif", "p2_t2.tif"],  # positions: what they are nobody knows
        ["2024-01-02_10-11.tif", "2024-01-03_10-12.tif"],
        ["t1_c1.tif", "t2_c1.tif", "t01_c1.tif", "t1_c2.tif"],
        ["t1_c1.tif", "t1_c2.tif", "u1_c1.tif"],
    ],
)
def test_names_that_are_no_grid(names):
    assert name_grid(names) is None


def test_names_that_count_in_places_without_meaning_are_told(tmp_path, grid_data):
    save(tmp_path, grid_data[:2, :, 0], "pos{0}_shot{1}.tif")
    stack = read_stack(tmp_path)
    assert len(stack) == 4
    assert stack.metadata["notes"] == ("the names of the files count in 2 places: they are read in natural order",)
