"""The record of tracks: tables there and back, errors that name what is wrong."""

import numpy as np
import pandas as pd
import pytest

from stackalign import TrackSet, read_table, write_table


def tracks() -> TrackSet:
    where = np.random.default_rng(0).uniform(0, 50, (3, 6, 2))
    where[1, 2:4] = np.nan
    return TrackSet.of(where, error=0.1, ids=[4, 7, 9])


def test_trackpy_table_there_and_back(tmp_path) -> None:
    there = tracks()
    table = there.to_frame()
    assert list(table.columns[:4]) == ["frame", "particle", "y", "x"]
    assert len(table) == 16
    assert table["frame"].is_monotonic_increasing
    write_table(tmp_path / "tracks.csv", table)
    back = TrackSet.from_frame(read_table(tmp_path / "tracks.csv"), length=6)
    np.testing.assert_array_equal(back.position, there.position)
    np.testing.assert_array_equal(back.position_error[back.found], there.position_error[there.found])
    np.testing.assert_array_equal(back.ids, there.ids)
    np.testing.assert_array_equal(back.status, there.status)
    assert len(there.to_frame(lost=True)) == 18


def test_tables_made_elsewhere() -> None:
    table = pd.DataFrame({"y": [1.0, 2.0], "x": [3.0, 4.0], "frame": [0, 2], "particle": [5, 5], "ep": [0.1, 0.2]})
    made = TrackSet.from_frame(table)
    assert made.position.shape == (1, 3, 2)
    assert made.found.tolist() == [[True, False, True]]
    np.testing.assert_allclose(made.position_error[0, 2], 0.2)
    assert len(TrackSet.from_frame(table, length=10).position[0]) == 10
    for wrong, match in (
        (table.drop(columns="y"), "'y'"),
        (table.assign(frame=[0, 0]), "twice"),
        (table.assign(frame=[0, -1]), "frame -1"),
        (table.assign(frame=[0, 0.5]), "whole numbers"),
    ):
        with pytest.raises(ValueError, match=match):
            TrackSet.from_frame(wrong)
    with pytest.raises(ValueError, match="frame 2"):
        TrackSet.from_frame(table, length=2)


def test_layer_points_there_and_back() -> None:
    there = tracks()
    points = there.to_points()
    assert points.shape == (16, 4)
    back = TrackSet.from_points(points, length=6)
    np.testing.assert_array_equal(back.position, there.position)
    with pytest.raises(ValueError, match="particle, frame"):
        TrackSet.from_points(np.zeros((3, 3)))


def test_choice_and_summary() -> None:
    there = tracks()
    assert there.selected([9, 4]).ids.tolist() == [9, 4]
    assert there.without([4]).ids.tolist() == [7, 9]
    with pytest.raises(ValueError, match="no particle 5"):
        there.selected([5])
    table = there.summary()
    assert table["frames_found"].tolist() == [6, 4, 6]
    assert there.reason(7, 2) != ""
    assert "3 particles x 6 frames" in repr(there)
    with pytest.raises(ValueError, match="same number"):
        TrackSet.empty([1, 1], 3)
    with pytest.raises(ValueError, match="2 or 3"):
        TrackSet.of(np.zeros((2, 3, 4)))
