"""What a user's files can have wrong: each ends in one line that names the file and what to do."""

from __future__ import annotations

import os
import subprocess

import numpy as np
import pytest
import tifffile

import stackalign as sa

RNG = np.random.default_rng(0)


def plane(shape=(32, 40), dtype=np.uint16):
    return (RNG.random(shape) * 200).astype(dtype)


def fails(call, *words):
    result = call("align", *words, "-o", "out")
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1
    assert lines[0].startswith("stackalign: ")
    assert "unexpected" not in lines[0]
    return lines[0]


def test_empty_folder(call, here):
    (here / "empty").mkdir()
    assert "empty" in fails(call, "empty")
    assert not (here / "out").exists()


def test_no_such_file(call, here):
    assert "there is no file or folder nowhere.tif" in fails(call, "nowhere.tif")


def test_text_named_tif(call, here):
    (here / "text.tif").write_text("not an image")
    assert "text.tif" in fails(call, "text.tif")


def test_truncated_tiff(call, here):
    tifffile.imwrite("cut.tif", np.stack([plane() for _ in range(6)]), photometric="minisblack")
    whole = (here / "cut.tif").read_bytes()
    (here / "cut.tif").write_bytes(whole[: len(whole) // 8])
    assert "cut.tif" in fails(call, "cut.tif", "--axes", "tyx")


@pytest.mark.parametrize("odd", [plane((32, 44)), plane(dtype=np.uint8)], ids=["shape", "dtype"])
def test_frames_that_differ(call, here, odd):
    (here / "frames").mkdir()
    for k, frame in enumerate([plane(), plane(), odd]):
        tifffile.imwrite(here / "frames" / f"f{k}.tif", frame)
    assert "f2.tif" in fails(call, "frames")


def test_colour_frames_are_asked_for(call, here):
    (here / "rgb").mkdir()
    for k in range(4):
        tifffile.imwrite(here / "rgb" / f"f{k}.tif", plane((32, 40, 3), np.uint8), photometric="rgb")
    text = fails(call, "rgb")
    assert "--channel luminance" in text
    assert call("align", "rgb", "--channel", "luminance", "-o", "out", "-q").exit_code in (0, 1)


def test_ambiguous_axes_are_asked_for(call, here):
    np.save("open.npy", np.stack([plane()] * 4)[:, None].repeat(2, 1))
    assert "--axes tzyx" in fails(call, "open.npy")


def test_one_frame_is_no_movie_but_no_failure_of_the_program_either(call, here):
    tifffile.imwrite("one.tif", plane())
    result = call("align", "one.tif", "-o", "out")
    assert result.exit_code in (0, 1)
    assert "unexpected" not in result.stderr
    if result.exit_code == 0:
        assert (sa.load_transforms("out/transforms.json").matrices == np.eye(3)).all()


@pytest.mark.parametrize("value", [0, np.nan])
def test_frames_without_content_are_flagged(call, here, value, movie):
    frames = sa.read_stack(movie).asarray().astype(np.float32)
    frames[4] = value
    sa.write_stack("blank.tif", frames)
    result = call("align", "blank.tif", "-o", "out")
    assert result.exit_code == 0, result.stderr
    table = sa.read_table("out/quality.csv")
    assert table["flagged"].tolist() == [k == 4 for k in range(8)]
    assert isinstance(table["reason"][4], str)
    assert "4" in (here / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("value", [0, np.nan])
def test_a_movie_without_content_says_so(call, here, value):
    sa.write_stack("blank.tif", np.full((5, 32, 40), value, np.float32))
    result = call("align", "blank.tif", "-o", "out")
    assert result.exit_code in (0, 1)
    assert "unexpected" not in result.stderr
    if result.exit_code == 0:
        assert sa.read_table("out/quality.csv")["flagged"].all()


def test_output_that_cannot_be_written(call, here, movie):
    (here / "taken").write_text("a file")
    result = call("align", movie, "-o", "taken/out")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "taken" in result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_is_read_only(call, here, movie):
    (here / "locked").mkdir(mode=0o500)
    result = call("align", movie, "-o", "locked/out")
    assert result.exit_code == 1
    assert "locked" in result.stderr


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("mounting a small file system needs privileges")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_full_disk(call, here, small_disk, movie):
    big = np.tile(sa.read_stack(movie).asarray(), (1, 4, 4))
    sa.write_stack("big.tif", big)
    result = call("align", "big.tif", "-o", small_disk / "out")
    assert result.exit_code == 1
    assert "the disk is full" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not [path for path in small_disk.rglob("*") if path.suffix in (".part", ".old", ".tif")]


@pytest.mark.parametrize(
    "text, words",
    [
        ("input: {path: m.tif}\nregistrar: {method: cross-correlation, upsmaple: 3}\n", ["upsmaple"]),
        ("input: {path: m.tif}\nregistrar: {method: magic}\n", ["method", "cross-correlation"]),
        ("input: {path: m.tif}\nwarp: {order: cubic}\n", ["order", "0", "1", "3", "5"]),
        ("input: {path: m.tif}\nworp: {order: 1}\n", ["worp", "warp"]),
        ("input: [unclosed\n", ["recipe.yaml"]),
        ("just words\n", ["recipe.yaml"]),
    ],
)
def test_recipes_that_are_wrong_name_the_key(call, here, text, words):
    (here / "recipe.yaml").write_text(text)
    result = call("run", "recipe.yaml", "-o", "out")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr
    assert not (here / "out").exists()


def test_no_such_recipe(call, here):
    result = call("run", "nowhere.yaml")
    assert result.exit_code == 1
    assert "nowhere.yaml" in result.stderr
