"""Picked particles on disk: our own file, both versions of the scripts' file, and every wrong one in a sentence."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackalign import GaussianSpot, ImageSetChoiceError, Pick, PicksReadError, fit_spot, read_picks, write_picks
from stackalign.io.picks import write_selections

PICKS = (Pick(id=3, frame=0, bounds=(248, 264, 289, 303)), Pick(id=5, frame=0, bounds=(10, 25, 40, 52)))
V1 = Path("../shared/data/reflection_particles/particle_selections_v1.json")


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 900), st.integers(1, 40)), min_size=1, unique_by=lambda v: v[1]
    )
)
def test_own_file_there_and_back(tmp_path_factory: pytest.TempPathFactory, values: list[tuple[int, int, int]]) -> None:
    path = tmp_path_factory.mktemp("picks") / "picks.json"
    picks = tuple(Pick(id=k, frame=f, bounds=(f, f + n, k, k + n, 2, 9)) for f, k, n in values)
    write_picks(path, picks)
    assert read_picks(path) == picks


@pytest.mark.parametrize("version", [1, 2])
def test_selection_file_there_and_back(tmp_path: Path, version: int) -> None:
    image = GaussianSpot(50.0, np.array([256.0, 296.0]), np.array([1.5, 1.5]), 0.0, 5.0).image((400, 400))
    fits = {3: fit_spot(image, PICKS[0].box)}
    path = tmp_path / "particle_selections.json"
    options = {"folder": "/data/exported", "first_image": "1.tif", "total_images": 5, "image_shape": (500, 500)}
    write_selections(path, PICKS, version=version, fits=fits, **options)
    assert read_picks(path) == PICKS
    data = json.loads(path.read_text())
    one = data["image_sets"][0] if version == 1 else data["image_set"]
    assert one["selected_particles"][0]["bbox"] == [289, 248, 303, 264]
    assert one["selected_particles"][0]["test_center_x"] == pytest.approx(296, abs=0.01)
    assert "test_fit_r_squared" not in one["selected_particles"][1]
    assert one["image_shape"] == [500, 500]
    with pytest.raises(ValueError, match="frame 0"):
        write_selections(path, [Pick(id=1, frame=2, bounds=(0, 5, 0, 5))], **options)


def test_several_image_sets(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    sets = [
        {"folder_path": f"/d/run{k}", "selected_particles": [{"bbox": [k, 1, 9, 8], "particle_id": 1}]}
        for k in range(2)
    ]
    path.write_text(json.dumps({"image_sets": sets, "total_sets": 2}))
    with pytest.raises(ImageSetChoiceError, match="0: run0, 1: run1") as caught:
        read_picks(path)
    assert caught.value.choices == ("run0", "run1")
    for wanted in (1, "run1", "1"):
        assert read_picks(path, image_set=wanted)[0].bounds == (1, 8, 1, 9)
    for wrong in (7, "run7"):
        with pytest.raises(ImageSetChoiceError, match=r"none of them .*7.*: choose"):
            read_picks(path, image_set=wrong)
    for k, one in enumerate(sets):  # folders of one name in several experiments; paths of another system
        one["folder_path"] = f"C:\\data\\day{k}\\exported"
    path.write_text(json.dumps({"image_sets": sets, "total_sets": 2}))
    assert read_picks(path, image_set="day1/exported")[0].bounds == (1, 8, 1, 9)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"image_set": {"selected_', "no JSON"),
        ("[1, 2]", "JSON list"),
        ("{}", "neither"),
        ('{"type": "FeatureCollection"}', "neither"),
        ('{"image_set": {"selected_particles": []}}', "no particle is picked"),
        ('{"image_set": {}}', "'selected_particles' is missing"),
        ('{"image_set": {"selected_particles": [{"bbox": [1, 2, 3]}]}}', "3 numbers"),
        ('{"image_set": {"selected_particles": [{"bbox": [9, 2, 3, 8]}]}}', "start < stop"),
        ('{"image_set": {"selected_particles": [{"bbox": ["a", 2, 3, 8]}]}}', "could not convert"),
        ('{"format": "stackalign-picks", "version": 9, "picks": []}', "version 9"),
        (
            '{"format": "stackalign-picks", "version": 1, "picks": [{"id": 1, "frame": -1, "bounds": [0,1,0,1]}]}',
            "frame",
        ),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(text)
    with pytest.raises(PicksReadError, match=what) as caught:
        read_picks(path)
    assert "wrong.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(PicksReadError, match="there is no file"):
        read_picks(tmp_path / "none.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(PicksReadError, match=r"binary\.json"):
        read_picks(tmp_path / "binary.json")


@pytest.mark.shared_data
@pytest.mark.skipif(not V1.exists(), reason="the real data sets are not there")
def test_real_selection_file() -> None:
    (pick,) = read_picks(V1)
    assert pick == Pick(id=1, frame=0, bounds=(248, 264, 289, 303))
