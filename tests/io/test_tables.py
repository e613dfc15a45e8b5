"""Tables and the folder of a run."""

import numpy as np
import pandas as pd
import pytest

from stackalign.core.registration import FrameQuality, Registration
from stackalign.core.transform_series import TransformSeries
from stackalign.io.errors import StackWriteError, TableReadError
from stackalign.io.run_folder import RunFolder
from stackalign.io.tables import read_table, write_table
from stackalign.io.transforms import load_provenance, load_transforms


@pytest.fixture
def table(rng):
    values = rng.normal(0, 1e3, 5) * 10.0 ** rng.integers(-12, 12, 5)
    return pd.DataFrame(
        {
            "frame": range(5),
            "y": values,
            "x": [0.1, np.nan, 1e-300, 1 / 3, -0.0],
            "name": ["a", "b,c", 'd"e', "f\ng", "µ"],
        }
    )


def test_every_bit_of_a_number_comes_back(tmp_path, table):
    back = read_table(write_table(tmp_path / "t.csv", table))
    assert np.array_equal(back["y"], table["y"])
    assert np.array_equal(back["x"], table["x"], equal_nan=True)
    assert list(back["name"]) == list(table["name"])
    assert back["frame"].dtype.kind == "i"


def test_units_stand_in_the_header(tmp_path, table):
    write_table(tmp_path / "t.csv", table, units={"y": "µm", "x": "nm", "z": "px"})
    assert (tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()[0] == "frame,y [µm],x [nm],name"
    back = read_table(tmp_path / "t.csv")
    assert list(back.columns) == ["frame", "y", "x", "name"]
    assert back.attrs["units"] == {"y": "µm", "x": "nm"}
    write_table(tmp_path / "u.csv", back)  # and go on standing there
    assert (tmp_path / "u.csv").read_bytes() == (tmp_path / "t.csv").read_bytes()


def test_nan_is_an_empty_cell(tmp_path):
    write_table(tmp_path / "t.csv", pd.DataFrame({"a": [1.5, np.nan], "b": [1, 2]}))
    assert (tmp_path / "t.csv").read_bytes() == b"a,b\n1.5,1\n,2\n"


def test_a_table_of_a_spreadsheet(tmp_path):
    (tmp_path / "t.csv").write_bytes("\ufefframe,y [px]\r\n0,1\r\n".replace("\ufefframe", "\ufeffframe").encode())
    back = read_table(tmp_path / "t.csv")
    assert list(back.columns) == ["frame", "y"]


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2,3\n4,5,6,7,8\n", b"\xff\xfe\x00\x01\x80\n"])
def test_what_is_no_table(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(TableReadError, match=r"t\.csv is no table that can be read"):
        read_table(tmp_path / "t.csv")
    with pytest.raises(TableReadError, match=r"there is no file .*none\.csv"):
        read_table(tmp_path / "none.csv")


def test_an_old_table_stands_if_the_new_one_fails(tmp_path, table, monkeypatch):
    write_table(tmp_path / "t.csv", table)
    before = (tmp_path / "t.csv").read_bytes()

    def fail(self, path, **kwargs):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(StackWriteError, match="the disk is full"):
        write_table(tmp_path / "t.csv", table * 2)
    assert (tmp_path / "t.csv").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


@pytest.fixture
def registration():
    series = TransformSeries.from_translations([[0, 0], [1.25, -2], [3, 4]], [True, False, True])
    quality = FrameQuality.empty(3, 2).with_reasons({1: "constant frame"})
    return Registration(series, quality, provenance={"method": "cross-correlation", "created": "2026-01-01"})


def test_a_run_folder(tmp_path, registration):
    folder = RunFolder.create(tmp_path / "runs" / "first")
    folder.write_registration(registration, pd.DataFrame({"frame": range(3), "rms_before": [1.0, 2.0, 3.0]}))
    assert sorted(p.name for p in folder.path.iterdir()) == ["quality.csv", "transforms.csv", "transforms.json"]
    for path in (folder.transforms_json, folder.transforms_csv):
        back = load_transforms(path)
        assert np.array_equal(back.matrices, registration.transforms.matrices)
        assert back.valid.tolist() == [True, False, True]
    quality = read_table(folder.quality_csv)
    assert list(quality.columns) == [
        *(
            "frame",
            "correlation",
            "residual",
            "confidence",
            "error_y_px",
            "error_x_px",
            "rms_before",
            "flagged",
            "reason",
        )
    ]
    assert quality["reason"][1] == "constant frame"
    assert quality["flagged"].tolist() == [False, True, False]
    assert quality["correlation"].isna().all(), "not measured is empty, not 0"
    assert load_provenance(folder.transforms_json)["method"] == "cross-correlation"
    assert RunFolder.create(folder.path) == folder


def test_the_files_of_a_run_have_fixed_names(tmp_path):
    folder = RunFolder(tmp_path)
    assert [p.name for p in folder.files] == [
        "aligned.tif",
        "transforms.json",
        "transforms.csv",
        "quality.csv",
        "recipe.yaml",
        "report.html",
        "run.log",
    ]
    assert {p.parent for p in folder.files} == {tmp_path}


def test_the_same_result_gives_the_same_bytes(tmp_path, registration):
    folders = [RunFolder.create(tmp_path / name) for name in ("a", "b")]
    for folder in folders:
        folder.write_registration(registration)
    for one, other in zip(folders[0].files, folders[1].files, strict=True):
        assert one.exists() == other.exists()
        assert not one.exists() or one.read_bytes() == other.read_bytes()


def test_a_run_folder_that_cannot_be(tmp_path, registration):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StackWriteError, match=r"cannot make the folder .*file: there is a file of this name"):
        RunFolder.create(tmp_path / "file")
    with pytest.raises(StackWriteError, match=r"cannot make the folder .*inner: Not a directory"):
        RunFolder.create(tmp_path / "file" / "inner")
    with pytest.raises(ValueError, match="2 rows of measures for 3 frames"):
        RunFolder.create(tmp_path / "a").write_registration(registration, pd.DataFrame({"a": [1, 2]}))
