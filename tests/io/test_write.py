"""Writing: what is kept, how it streams, and what stands on the disk when it goes wrong."""

import errno
import os
import subprocess
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile

from stackalign.core.stack import FrameError, ImageStack
from stackalign.core.work import Cancelled, Done, WorkCancelled, drain
from stackalign.io import tiff_write, write
from stackalign.io.errors import StackWriteError
from stackalign.io.info import describe
from stackalign.io.read import read_channels, read_stack
from stackalign.io.write import write_stack, write_stack_work

ENDINGS = (".tif", ".ome.tif", ".zarr", ".npy")


class Frames:
    """Lazy frames that count how often they are read, and can fail."""

    def __init__(self, data, fail_at=None, error=None):
        self.data, self.fail_at, self.error = data, fail_at, error
        self.shape, self.dtype = data.shape, data.dtype
        self.reads = []

    def __getitem__(self, t):
        if t == self.fail_at:
            raise self.error
        self.reads.append(t)
        return self.data[t]


def leftovers(folder):
    return sorted(p.name for p in folder.iterdir() if p.name.endswith((".part", ".old")))


def as_dtype(movie, dtype):
    if np.dtype(dtype).kind == "f":
        return (movie / 7).astype(dtype)
    return (movie.astype(np.int64) - (20000 if dtype == "int16" else 0)).astype(dtype)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "uint32", "float64"])
def test_pixels_and_dtype_come_back(tmp_path, movie, ending, dtype):
    data = as_dtype(movie, dtype)
    path = tmp_path / f"a{ending}"
    assert write_stack(path, data) == path
    back = read_stack(path)
    assert (back.dtype, back.axes) == (data.dtype, "tyx")
    assert np.array_equal(back.asarray(), data)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("ending", ENDINGS[:3])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "uint64"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_calibration_comes_back(tmp_path, rng, ending, dtype, ndim):
    data = rng.integers(0, 99, (3, 4, 12, 20)[:1] + (4, 12, 20)[-ndim:]).astype(dtype)
    stack = ImageStack(data, pixel_size=(0.5, 0.2, 0.1)[-ndim:], interval=0.04, unit="µm", interval_unit="s")
    back = read_stack(write_stack(tmp_path / f"a{ending}", stack))
    assert back.pixel_size == pytest.approx(stack.pixel_size, rel=1e-6)
    assert back.interval == pytest.approx(0.04, rel=1e-6)
    assert (back.unit, back.interval_unit, back.axes) == ("µm", "s", stack.axes)
    assert np.array_equal(back.asarray(), data)


@pytest.mark.parametrize("ending", ENDINGS[:3])
@pytest.mark.parametrize("unit, interval_unit", [("nm", "ms"), ("mm", "min"), ("Å", "µs"), ("µm", "h")])
def test_units_come_back(tmp_path, movie, ending, unit, interval_unit):
    stack = ImageStack(movie, pixel_size=(65.0, 130.0), interval=20.0, unit=unit, interval_unit=interval_unit)
    back = read_stack(write_stack(tmp_path / f"a{ending}", stack))
    assert back.pixel_size == pytest.approx((65.0, 130.0), rel=1e-6)
    assert (back.unit, back.interval, back.interval_unit) == (unit, pytest.approx(20), interval_unit)


@pytest.mark.parametrize("ending", ENDINGS[:3])
def test_what_is_not_known_stays_unknown(tmp_path, movie, ending):
    back = read_stack(write_stack(tmp_path / f"a{ending}", movie))
    assert (back.pixel_size, back.interval) == (None, None)


@pytest.mark.parametrize("ending", ENDINGS[:3])
@pytest.mark.parametrize("ndim", [2, 3])
def test_one_moment_is_read_as_one_moment(tmp_path, rng, ending, ndim):
    data = rng.integers(0, 999, (1, 3, 12, 20)[:1] + (3, 12, 20)[-ndim:], dtype=np.uint16)
    back = read_stack(write_stack(tmp_path / f"a{ending}", data))
    assert back.shape == data.shape
    assert np.array_equal(back.asarray(), data)


@pytest.mark.parametrize("ending", ENDINGS[:3])
@pytest.mark.parametrize("ndim", [2, 3])
def test_channels_come_back_with_their_names(tmp_path, rng, ending, ndim):
    data = rng.integers(0, 999, (2, 3, 4, 12, 20)[:2] + (4, 12, 20)[-ndim:], dtype=np.uint16)
    stacks = [ImageStack(d, metadata={"channel": n}, interval=2.0) for d, n in zip(data, ("GFP", "DAPI"), strict=True)]
    back = read_channels(write_stack(tmp_path / f"a{ending}", stacks))
    assert [s.metadata["channel"] for s in back] == ["GFP", "DAPI"]
    for stack, expected in zip(back, data, strict=True):
        assert np.array_equal(stack.asarray(), expected)
        assert stack.interval == 2.0
    assert np.array_equal(read_stack(tmp_path / f"a{ending}", channel="DAPI").asarray(), data[1])


def test_channels_must_be_alike(tmp_path, movie):
    with pytest.raises(ValueError, match=r"channel 1 is \(5, 24, 40\) uint16, channel 0 is \(6, 24, 40\) uint16"):
        write_stack(tmp_path / "a.tif", [ImageStack(movie), ImageStack(movie[:5])])


@pytest.mark.parametrize("ending", ENDINGS[:3])
@pytest.mark.parametrize("compression", ["deflate", "zstd"])
def test_compression_loses_nothing_and_takes_less_room(tmp_path, ending, compression):
    data = np.tile(np.arange(128, dtype=np.uint16), (5, 96, 1))
    for kind in ("none", compression):
        write_stack(tmp_path / f"{kind}{ending}", data, compression=kind)
        assert np.array_equal(read_stack(tmp_path / f"{kind}{ending}").asarray(), data)

    def size(path):
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size

    assert size(tmp_path / f"{compression}{ending}") < size(tmp_path / f"none{ending}") / 2


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("compression", ["none", "deflate", "zstd"])
def test_every_pixel_type_goes_with_every_compression(tmp_path, movie, ending, compression):
    for dtype in ("bool", "int8", "uint8", "int16", "int32", "int64", "uint64", "float16", "float32", "float64"):
        data = (movie // 600).astype(dtype)
        path = write_stack(tmp_path / f"{dtype}{ending}", data, compression=compression)
        back = read_stack(path)
        assert back.dtype == dtype
        assert np.array_equal(back.asarray(), data)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_versions_of_ome_zarr(tmp_path, movie, version):
    write_stack(tmp_path / "a.zarr", movie, ngff=version)
    assert describe(tmp_path / "a.zarr").format == f"OME-Zarr {version}"
    assert np.array_equal(read_stack(tmp_path / "a.zarr").asarray(), movie)


def test_the_flavour_of_a_tiff_follows_from_what_it_holds(tmp_path, movie):
    formats = {
        "a.tif": (movie, {}, "ImageJ TIFF"),
        "b.tif": (movie.astype(np.int16), {}, "OME-TIFF"),
        "c.tif": (movie.astype(np.int64), {}, "TIFF"),
        "d.ome.tif": (movie, {}, "OME-TIFF"),
        "e.tif": (movie, {"bigtiff": True}, "OME-TIFF, BigTIFF"),
        "f.ome.tif": (movie, {"bigtiff": True}, "OME-TIFF, BigTIFF"),
    }
    for name, (data, options, expected) in formats.items():
        write_stack(tmp_path / name, data, **options)
        assert describe(tmp_path / name).format == expected
        assert np.array_equal(read_stack(tmp_path / name).asarray(), data)


def test_imagej_and_tifffile_read_the_same_hyperstack(tmp_path, rng):
    data = rng.integers(0, 255, (3, 2, 12, 20), dtype=np.uint8)
    stack = ImageStack(data, pixel_size=(2.0, 0.5, 0.25), interval=0.1)
    write_stack(tmp_path / "a.tif", stack)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        meta = tif.imagej_metadata
        assert (meta["frames"], meta["slices"]) == (3, 2)
        assert (meta["unit"], meta["spacing"], meta["finterval"]) == ("\\u00B5m", 2.0, 0.1)
        assert tif.series[0].axes == "TZYX"
        assert np.array_equal(tif.asarray(), data)


def test_bigtiff_where_the_pixels_need_it(tmp_path, movie, monkeypatch):
    monkeypatch.setattr(tiff_write, "BIGTIFF_FROM", movie.nbytes - 1)
    write_stack(tmp_path / "big.tif", movie)
    assert "BigTIFF" in describe(tmp_path / "big.tif").format
    assert np.array_equal(read_stack(tmp_path / "big.tif").asarray(), movie)
    monkeypatch.setattr(tiff_write, "BIGTIFF_FROM", movie.nbytes)
    write_stack(tmp_path / "small.tif", movie)
    assert describe(tmp_path / "small.tif").format == "ImageJ TIFF"
    assert tiff_write.BIGTIFF_FROM < 2**32


@pytest.mark.parametrize("ending", ENDINGS)
def test_frames_are_read_once_each_and_not_ahead_of_the_file(tmp_path, rng, ending):
    frames = Frames(rng.integers(0, 9, (40, 8, 9), dtype=np.uint8))
    work = write_stack_work(tmp_path / f"a{ending}", ImageStack(frames))
    for done in range(1, 11):
        progress = next(work)
        assert (progress.done, progress.total) == (done, 40)
        assert len(frames.reads) <= done + 1
    assert isinstance(drain(work), Done)
    assert frames.reads == list(range(40))
    assert np.array_equal(read_stack(tmp_path / f"a{ending}").asarray(), frames.data)


def test_dask_frames_are_computed_one_at_a_time(tmp_path, movie):
    lazy = da.from_array(movie, chunks=(1, 24, 40)) + 1
    assert np.array_equal(read_stack(write_stack(tmp_path / "a.tif", lazy)).asarray(), movie + 1)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("error", [RuntimeError("the warp broke"), MemoryError(), KeyboardInterrupt()])
def test_a_failure_half_way_leaves_the_old_file(tmp_path, movie, ending, error):
    path = tmp_path / f"a{ending}"
    write_stack(path, movie)
    broken = ImageStack(Frames(movie + 1, fail_at=3, error=error))
    with pytest.raises(WorkCancelled if isinstance(error, KeyboardInterrupt) else type(error)):
        write_stack(path, broken)
    assert np.array_equal(read_stack(path).asarray(), movie)
    assert leftovers(tmp_path) == []
    with pytest.raises(WorkCancelled if isinstance(error, KeyboardInterrupt) else type(error)):
        write_stack(tmp_path / f"new{ending}", broken)
    assert not (tmp_path / f"new{ending}").exists()
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_cancelling_leaves_the_old_file(tmp_path, movie, ending):
    path = tmp_path / f"a{ending}"
    write_stack(path, movie)
    seen = []
    work = write_stack_work(path, movie + 1)
    outcome = drain(work, seen.append, lambda: len(seen) == 3)
    assert isinstance(outcome, Cancelled)
    assert np.array_equal(read_stack(path).asarray(), movie)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_writing_again_replaces_the_file(tmp_path, movie, ending):
    path = tmp_path / f"a{ending}"
    write_stack(path, movie)
    write_stack(path, movie[:4] // 2)
    assert np.array_equal(read_stack(path).asarray(), movie[:4] // 2)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_stack_is_not_written_over_the_file_that_it_is_read_from(tmp_path, movie, ending):
    path = tmp_path / f"a{ending}"
    write_stack(path, movie)
    stack = read_stack(path)
    for lazy in (stack, stack.selected(slice(0, 2))):
        with pytest.raises(StackWriteError, match="being read from this very file; choose another name"):
            write_stack(path, lazy)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(StackWriteError, match="this very file"):
        write_stack(tmp_path / "link" / path.name, stack)
    assert np.array_equal(read_stack(path).asarray(), movie)
    write_stack(path, stack.asarray() + 1)  # in memory it is nobody's
    assert np.array_equal(read_stack(path).asarray(), movie + 1)


def test_a_stack_is_not_written_over_one_file_of_its_folder(tmp_path, movie):
    for t, frame in enumerate(movie):
        tifffile.imwrite(tmp_path / f"{t}.tif", frame)
    with pytest.raises(StackWriteError, match=r"3\.tif: the stack is being read from this very file"):
        write_stack(tmp_path / "3.tif", read_stack(tmp_path))


def test_a_folder_of_frames_is_not_replaced_by_a_zarr_of_itself(tmp_path, movie):
    folder = tmp_path / "frames.zarr"
    folder.mkdir()
    for t, frame in enumerate(movie):
        tifffile.imwrite(folder / f"{t}.tif", frame)
    with pytest.raises(StackWriteError):
        write_stack(folder, read_stack(folder))
    assert len(list(folder.iterdir())) == len(movie)


def test_a_folder_that_is_no_zarr_is_not_deleted(tmp_path, movie):
    for name in ("thesis.tif", "thesis.zarr"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "chapter1.txt").write_text("irreplaceable")
        with pytest.raises(StackWriteError, match="is a folder"):
            write_stack(folder, movie)
        assert (folder / "chapter1.txt").read_text() == "irreplaceable"
        assert leftovers(tmp_path) == []


def test_missing_frames_are_written_empty(tmp_path, movie, caplog):
    stack = ImageStack(Frames(movie, fail_at=2, error=FrameError("b.tif: page 2 cannot be read")))
    write_stack(tmp_path / "a.tif", stack)
    back = read_stack(tmp_path / "a.tif").asarray()
    assert not back[2].any()
    assert np.array_equal(np.delete(back, 2, 0), np.delete(movie, 2, 0))
    assert "frame 2 is written empty: b.tif: page 2 cannot be read" in caplog.text
    real = ImageStack(movie.astype(np.float32), missing={4: "cut off"})
    assert np.isnan(read_stack(write_stack(tmp_path / "b.tif", real))[4]).all()


@pytest.mark.parametrize(
    "name, message",
    [
        ("a.png", r"the ending '.png' is not known; choose .tif, .ome.tif, .zarr or .npy"),
        ("a", r"the ending '' is not known"),
        ("no/such/folder/a.tif", r"there is no folder .*no/such/folder"),
        ("file/a.tif", r"there is no folder .*file"),
    ],
)
def test_targets_that_cannot_be(tmp_path, movie, name, message):
    (tmp_path / "file").write_text("a file where a folder should be")
    with pytest.raises(StackWriteError, match=message):
        write_stack(tmp_path / name, movie)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_options_that_cannot_be(tmp_path, movie):
    with pytest.raises(ValueError, match="compression must be 'none', 'deflate' or 'zstd', not 'jpeg'"):
        write_stack(tmp_path / "a.tif", movie, compression="jpeg")
    with pytest.raises(ValueError, match=r"ngff must be '0.4' or '0.5', not '0.6'"):
        write_stack(tmp_path / "a.zarr", movie, ngff="0.6")
    with pytest.raises(StackWriteError, match=r"one channel fits in a \.npy file"):
        write_stack(tmp_path / "a.npy", [ImageStack(movie), ImageStack(movie)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write(tmp_path, movie):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StackWriteError, match="is not writable; choose another folder"):
            write_stack(tmp_path / "a.tif", movie)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("ending", ENDINGS[:3])
def test_a_refusal_of_the_system_is_told(tmp_path, movie, monkeypatch, ending, code):
    def refuse(*args, **kwargs):
        raise OSError(code, os.strerror(code), str(tmp_path))

    monkeypatch.setattr("tifffile.TiffWriter.__init__", refuse)
    monkeypatch.setattr("zarr.open_group", refuse)
    said = "is not writable" if code == errno.EACCES else "the disk is read-only"
    with pytest.raises(StackWriteError, match=f"{said}; choose another folder") as info:
        write_stack(tmp_path / f"a{ending}", movie)
    assert info.value.errno == code


def test_room_is_asked_for_before_a_byte_is_written(tmp_path, movie, monkeypatch):
    monkeypatch.setattr("stackalign.io.atomic.free_bytes", lambda folder: 5000)
    frames = Frames(movie)
    with pytest.raises(StackWriteError, match=r"the disk is full \(needs 11.5 kB, 5 kB free\); make room") as info:
        write_stack(tmp_path / "a.tif", ImageStack(frames))
    assert info.value.errno == errno.ENOSPC
    assert str(info.value).startswith("cannot write"), "a sentence, not [Errno 28]"
    assert frames.reads == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".tif", ".ome.tif", ".npy"])
def test_a_disk_that_fills_up_half_way(tmp_path, movie, monkeypatch, ending):
    path = tmp_path / f"a{ending}"
    write_stack(path, movie)
    left = [3 * movie[0].nbytes]

    def room(data):
        left[0] -= memoryview(data).nbytes
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Disk:
        """A file on a disk with little room."""

        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *args):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            room(data)
            return self.file.write(data)

    written = tifffile.FileHandle.write
    monkeypatch.setattr(tifffile.FileHandle, "write", lambda self, data, /: (room(data), written(self, data))[1])
    array = tifffile.FileHandle.write_array
    monkeypatch.setattr(
        tifffile.FileHandle, "write_array", lambda self, a, *r, **k: (room(a), array(self, a, *r, **k))[1]
    )
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode="r", *a, **k: Disk(opened(self, mode, *a, **k)))
    with pytest.raises(StackWriteError, match=r"cannot write .*a\..*: the disk is full .*choose another disk") as info:
        write_stack(path, movie + 1)
    assert info.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert np.array_equal(read_stack(path).asarray(), movie)
    assert leftovers(tmp_path) == []


@pytest.fixture
def little_disk(tmp_path):
    """A disk of 1 MB, mounted; skipped where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
            capture_output=True,
            check=False,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"no disk can be mounted here ({error})")
    if done.returncode:
        pytest.skip(f"no disk can be mounted here ({done.stderr.decode().strip()})")
    yield folder
    subprocess.run(["umount", str(folder)], check=False)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("known", [True, False])
def test_a_disk_that_is_really_full(little_disk, rng, monkeypatch, ending, known):
    data = rng.integers(0, 2**16, (40, 128, 128), dtype=np.uint16)  # 1.3 MB of noise
    if not known:  # what a compressed file will need is not known beforehand
        monkeypatch.setattr(write, "replacing", lambda target, needed: _replacing(target))
    from stackalign.io.atomic import replacing as _replacing

    path = little_disk / f"a{ending}"
    write_stack(path, data[:2])
    with pytest.raises(StackWriteError, match="the disk is full") as info:
        write_stack(path, data)
    assert info.value.errno == errno.ENOSPC
    assert np.array_equal(read_stack(path).asarray(), data[:2])
    assert leftovers(little_disk) == []
