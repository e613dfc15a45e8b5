"""A target is the old file or the new one, never half."""

import errno
import os

import pytest

from stackalign.io.atomic import discard, free_bytes, readable, replacing
from stackalign.io.errors import StackWriteError


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with replacing(target) as part:
        part.write_text("new")
        assert target.read_text() == "old"
        assert part.parent == target.parent, "a rename must not cross disks"
    assert target.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_appears_when_it_is_whole(tmp_path):
    target = tmp_path / "a.zarr"
    for version in ("first", "second"):
        with replacing(target) as part:
            part.mkdir()
            (part / ".zgroup").write_text("{}")
            (part / version).write_text("x")
        assert names(target) == [".zgroup", version]
    assert names(tmp_path) == ["a.zarr"]


@pytest.mark.parametrize(
    "error", [ValueError("no"), KeyboardInterrupt(), GeneratorExit(), OSError(errno.EIO, "broken")]
)
def test_whatever_goes_wrong_the_old_file_stands(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write():
        with replacing(target) as part:
            part.write_text("half")
            raise error

    with pytest.raises(type(error)) as info:
        write()
    assert info.value is error
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_what_a_crash_left_over_is_replaced(tmp_path):
    (tmp_path / "a.txt.part").write_text("left by a power cut")
    with replacing(tmp_path / "a.txt") as part:
        part.write_text("new")
    assert names(tmp_path) == ["a.txt"]
    (tmp_path / "b.zarr.part" / "inner").mkdir(parents=True)
    with replacing(tmp_path / "b.zarr") as part:
        part.write_text("a file this time")
    assert names(tmp_path) == ["a.txt", "b.zarr"]


def test_the_rights_of_the_old_file_stay(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    target.chmod(0o640)
    with replacing(target) as part:
        part.write_text("new")
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real" / "a.txt")
    with replacing(tmp_path / "link.txt") as part:
        part.write_text("new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real" / "a.txt").read_text() == "new"
    assert names(tmp_path / "real") == ["a.txt"]


@pytest.mark.parametrize("name", ["a.txt", "a.zarr"])
def test_a_folder_of_other_things_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(StackWriteError, match="it is a folder; choose another name"), replacing(tmp_path / name):
        pytest.fail("nothing may be written")
    assert names(tmp_path / name) == ["thesis.txt"]


def test_an_error_of_the_source_is_not_taken_for_one_of_the_target(tmp_path):
    with pytest.raises(FileNotFoundError) as info, replacing(tmp_path / "a.txt") as part:
        part.write_text((tmp_path / "source.txt").read_text())
    assert not isinstance(info.value, StackWriteError)


def test_an_error_of_the_target_names_it(tmp_path):
    def write():
        with replacing(tmp_path / "a.txt") as part:
            part.mkdir()
            part.write_text("x")

    with pytest.raises(StackWriteError, match=r"cannot write .*a\.txt: Is a directory"):
        write()
    assert names(tmp_path) == []


def test_a_quota_counts_as_a_full_disk(tmp_path):
    with pytest.raises(StackWriteError, match="the disk is full"), replacing(tmp_path / "a.txt"):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


def test_sizes_in_words(tmp_path):
    sizes = {
        0: "0 bytes",
        999: "999 bytes",
        1000: "1 kB",
        15_360: "15.4 kB",
        2.5e9: "2.5 GB",
        7e12: "7 TB",
        2e15: "2e+03 TB",
    }
    assert {n: readable(n) for n in sizes} == sizes
    assert free_bytes(tmp_path) > 0
    discard(tmp_path / "nothing there")
