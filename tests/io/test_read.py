"""Reading: axes, order, calibration, laziness, threads."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr

from stackalign.io.axes import resolved
from stackalign.io.errors import AmbiguousAxesError, ChannelChoiceError, StackReadError
from stackalign.io.info import describe
from stackalign.io.naming import missing_numbers, natural_key
from stackalign.io.read import read_channels, read_stack
from stackalign.io.tables import read_table
from stackalign.io.tiff import TiffPixels
from tests.io.sparse import sparse_bigtiff


def test_a_plain_tiff_is_read_as_time_and_says_so(tmp_path, movie):
    tifffile.imwrite(tmp_path / "a.tif", movie, metadata=None)
    stack = read_stack(tmp_path / "a.tif")
    assert stack.axes == "tyx"
    assert stack.dtype == np.uint16
    assert np.array_equal(stack.asarray(), movie)
    assert "read as time" in stack.metadata["notes"][0]
    assert stack.name == "a"


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits", "zstd"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_compressed_pages(tmp_path, movie, compression, byteorder):
    tifffile.imwrite(tmp_path / "a.tif", movie, compression=compression, byteorder=byteorder, metadata={"axes": "TYX"})
    stack = read_stack(tmp_path / "a.tif")
    assert np.array_equal(stack.asarray(), movie)
    assert stack.dtype.isnative


def test_frames_are_native_writable_copies(tmp_path, movie):
    tifffile.imwrite(tmp_path / "a.tif", movie, byteorder=">", imagej=True, metadata={"axes": "TYX"})
    frame = read_stack(tmp_path / "a.tif")[2]
    assert frame.dtype.isnative
    assert frame.flags.c_contiguous
    frame += 1  # must not touch the file
    assert np.array_equal(read_stack(tmp_path / "a.tif")[2], movie[2])


@pytest.mark.parametrize("tiled", [False, True])
def test_imagej_hyperstack_of_all_axes(tmp_path, rng, tiled):
    data = rng.integers(0, 255, (3, 4, 2, 16, 32), dtype=np.uint8)
    extra = {"tile": (16, 16)} if tiled else {}
    tifffile.imwrite(
        tmp_path / "h.tif",
        data,
        imagej=True,
        resolution=(1 / 0.1, 1 / 0.2),
        metadata={"axes": "TZCYX", "unit": "micron", "spacing": 0.5, "finterval": 0.04},
        **extra,
    )
    stacks = read_channels(tmp_path / "h.tif")
    assert [np.array_equal(s.asarray(), data[:, :, c]) for c, s in enumerate(stacks)] == [True, True]
    assert stacks[0].axes == "tzyx"
    assert stacks[0].pixel_size == pytest.approx((0.5, 0.2, 0.1))
    assert (stacks[0].unit, stacks[0].interval, stacks[0].interval_unit) == ("µm", 0.04, "s")
    assert stacks[1].metadata["channel_names"] == ("channel 0", "channel 1")
    assert np.array_equal(read_stack(tmp_path / "h.tif", channel=1)[2], data[2, :, 1])
    with pytest.raises(
        ChannelChoiceError, match=r"holds 2 channels: choose one with channel=.*0 \(channel 0\)"
    ) as info:
        read_stack(tmp_path / "h.tif")
    assert info.value.choices == (0, 1)


def test_imagej_fps_and_escaped_unit(tmp_path, movie):
    tifffile.imwrite(
        tmp_path / "a.tif",
        movie,
        imagej=True,
        resolution=(2, 2),
        metadata={"axes": "TYX", "unit": "\\u00B5m", "fps": 8.0},
    )
    stack = read_stack(tmp_path / "a.tif")
    assert (stack.unit, stack.pixel_size, stack.interval) == ("µm", (0.5, 0.5), 0.125)


def test_ome_tiff(tmp_path, rng):
    data = rng.random((3, 2, 4, 16, 20), dtype=np.float32)
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        data,
        metadata={
            "axes": "TCZYX",
            "PhysicalSizeX": 100.0,
            "PhysicalSizeXUnit": "nm",
            "PhysicalSizeY": 0.2,
            "PhysicalSizeYUnit": "µm",
            "PhysicalSizeZ": 1.5,
            "PhysicalSizeZUnit": "µm",
            "TimeIncrement": 50.0,
            "TimeIncrementUnit": "ms",
            "Channel": {"Name": ["DAPI", "GFP"]},
        },
    )
    stack = read_stack(tmp_path / "a.ome.tif", channel="GFP")
    assert np.array_equal(stack.asarray(), data[:, 1])
    assert stack.unit == "nm"
    assert stack.pixel_size == pytest.approx((1500, 200, 100))
    assert (stack.interval, stack.interval_unit) == (50, "ms")
    assert stack.metadata["channel"] == "GFP"
    assert stack.name == "a GFP"


def test_ome_interval_from_time_stamps(tmp_path, movie):
    plane = {"DeltaT": [0.5 * t for t in range(6)], "DeltaTUnit": ["s"] * 6}
    tifffile.imwrite(tmp_path / "a.ome.tif", movie, metadata={"axes": "TYX", "Plane": plane})
    stack = read_stack(tmp_path / "a.ome.tif")
    assert stack.interval == pytest.approx(0.5)
    assert any("time stamps" in note for note in stack.metadata["notes"])


def test_bigtiff(tmp_path, movie):
    tifffile.imwrite(tmp_path / "a.tif", movie, bigtiff=True, metadata={"axes": "TYX"})
    assert np.array_equal(read_stack(tmp_path / "a.tif").asarray(), movie)
    assert describe(tmp_path / "a.tif").format == "TIFF, BigTIFF"


@pytest.fixture
def counted(monkeypatch):
    """Count the pages whose pixels are asked for, and the bytes that go through file handles."""
    counts = {"pages": 0, "bytes": 0}
    page, read = TiffPixels._page, tifffile.FileHandle.read

    def counting_page(self, place):
        counts["pages"] += 1
        return page(self, place)

    def counting_read(self, size=-1, /):
        found = read(self, size)
        counts["bytes"] += len(found)
        return found

    monkeypatch.setattr(TiffPixels, "_page", counting_page)
    monkeypatch.setattr(tifffile.FileHandle, "read", counting_read)
    return counts


@pytest.mark.parametrize("kind", ["imagej", "a directory a page", "one directory"])
def test_20_gb_open_without_reading_a_pixel(tmp_path, counted, kind):
    path = tmp_path / "big.tif"
    shape = (40000, 512, 512) if kind == "imagej" else (2500, 2048, 2048)
    if kind == "imagej":  # as ImageJ writes files over 4 GB: a classic TIFF, one directory, all pixels behind it
        with pytest.warns(UserWarning, match="truncating ImageJ file"):
            tifffile.imwrite(path, shape=shape, dtype=np.uint16, imagej=True, metadata={"axes": "TYX"})
    elif kind == "one directory":
        with tifffile.TiffWriter(path, bigtiff=True) as tif:
            tif.write(shape=shape, dtype=np.uint16, metadata={"axes": "TYX"}, truncate=True)
    else:
        sparse_bigtiff(path, shape)
    assert path.stat().st_size > 20e9
    counted["bytes"] = 0
    stack = read_stack(path)
    assert (stack.shape, stack.dtype, stack.axes) == (shape, np.uint16, "tyx")
    assert describe(path).frames == shape[0]
    assert counted["pages"] == 0
    assert counted["bytes"] < 2e6, "only tags may be read"
    assert not stack[shape[0] - 1].any()
    assert counted["pages"] == 1


def test_z_without_time_is_asked_for(tmp_path, movie):
    tifffile.imwrite(tmp_path / "z.tif", movie, imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(
        AmbiguousAxesError, match=r'axes= \(--axes on the command line\): "tyx" \(z read as time\)'
    ) as info:
        read_stack(tmp_path / "z.tif")
    assert info.value.choices == ("tyx", "zyx")
    assert read_stack(tmp_path / "z.tif", axes="tyx").shape == (6, 24, 40)
    volume = read_stack(tmp_path / "z.tif", axes="zyx")
    assert (volume.axes, volume.shape) == ("tzyx", (1, 6, 24, 40))
    assert np.array_equal(volume[0], movie)
    info = describe(tmp_path / "z.tif")
    assert (info.choices, info.frames) == (("tyx", "zyx"), None)
    assert "frames:      not known: which axis is time?\n" in str(info)
    assert str(info).endswith("axes may be: tyx, zyx")


def test_channels_without_time_are_asked_for(tmp_path, movie):
    tifffile.imwrite(tmp_path / "c.tif", movie, imagej=True, metadata={"axes": "CYX"})
    with pytest.raises(AmbiguousAxesError, match="channel read as time") as info:
        read_stack(tmp_path / "c.tif")
    assert info.value.choices == ("tyx", "cyx")
    assert read_stack(tmp_path / "c.tif", axes="tyx").shape == (6, 24, 40)
    assert np.array_equal(read_stack(tmp_path / "c.tif", axes="cyx", channel=3)[0], movie[3])


def test_four_unnamed_axes_are_asked_for(tmp_path, rng):
    data = rng.integers(0, 9, (3, 2, 8, 9), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "q.tif", data)
    with pytest.raises(AmbiguousAxesError) as info:
        read_stack(tmp_path / "q.tif")
    assert info.value.choices[:2] == ("tzyx", "tcyx")
    assert np.array_equal(read_stack(tmp_path / "q.tif", axes="tzyx").asarray(), data)
    assert np.array_equal(read_stack(tmp_path / "q.tif", axes="ztyx").asarray(), data.swapaxes(0, 1))
    for choice in info.value.choices:
        read_channels(tmp_path / "q.tif", axes=choice)


def test_axes_that_do_not_fit_are_refused(tmp_path, movie):
    tifffile.imwrite(tmp_path / "a.tif", movie)
    for wrong in ("tzcyx", "tyy", "tqx", "ty", ""):
        with pytest.raises(AmbiguousAxesError, match="axes=") as info:
            read_stack(tmp_path / "a.tif", axes=wrong)
        assert info.value.choices


def test_axes_may_leave_out_channels_that_the_file_names():
    assert resolved("f", "zcyx", (5, 2, 9, 9), "tyx")[0] == "tcyx"
    assert resolved("f", "?yxs", (5, 9, 9, 3), "tyx")[0] == "tyxs"
    assert resolved("f", "yx", (9, 9), "tyx")[0] == "yx"


def test_x_before_y_is_transposed(movie):
    assert np.array_equal(read_stack(movie, axes="txy").asarray(), movie.transpose(0, 2, 1))


def test_folder_in_natural_order(tmp_path, movie):
    for k, number in enumerate((1, 2, 3, 9, 10, 11)):
        tifffile.imwrite(tmp_path / f"frame{number}.tif", movie[k])
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "._frame1.tif").write_text("left by a Mac")
    stack = read_stack(tmp_path)
    assert np.array_equal(stack.asarray(), movie)
    assert stack.metadata["notes"] == (
        "the numbering of the files leaves out 4, 5, 6, 7, 8: the frames around it follow each other",
    )
    assert np.array_equal(read_stack(tmp_path / "frame1*.tif").asarray(), movie[[0, 4, 5]])
    assert np.array_equal(read_stack(str(tmp_path / "frame9.tif")).asarray(), movie[3:4])


def test_missing_numbers():
    assert missing_numbers(["a1.tif", "a2.tif", "a4.tif"]) == [3]
    assert missing_numbers(["a10.tif", "a20.tif", "a40.tif"]) == [30]
    assert missing_numbers(["a1.tif", "b2.tif"]) == []
    assert missing_numbers(["t1_z1.tif", "t2_z2.tif"]) == []
    assert missing_numbers(["s1_1699999999.tif", "s1_1700000123.tif", "s1_1700000999.tif"]) == []
    assert sorted(["f10", "f9", "F1", "f01"], key=natural_key) == ["F1", "f01", "f9", "f10"]


def test_folder_of_volumes(tmp_path, rng):
    data = rng.integers(0, 99, (4, 3, 8, 9), dtype=np.uint8)
    for t, volume in enumerate(data):
        tifffile.imwrite(tmp_path / f"{t}.tif", volume, photometric="minisblack", metadata=None)
    with pytest.raises(AmbiguousAxesError, match="what is the axis that it does not name") as info:
        read_stack(tmp_path)
    assert info.value.choices == ("tzyx", "tcyx", "tyx")
    assert np.array_equal(read_stack(tmp_path, axes="tzyx").asarray(), data)
    assert np.array_equal(read_stack(tmp_path, axes="tyx").asarray(), data.reshape(12, 8, 9))
    assert np.array_equal(read_stack(tmp_path, axes="tcyx", channel=2).asarray(), data[:, 2])
    assert describe(tmp_path).choices == info.value.choices
    with pytest.raises(AmbiguousAxesError, match="does not fit"):
        read_stack(tmp_path, axes="zyx")


def test_folder_of_movies_is_joined(tmp_path, movie):
    for k, part in enumerate((movie[:3], movie[3:5], movie[5:])):
        tifffile.imwrite(tmp_path / f"part{k}.tif", part, imagej=True, metadata={"axes": "TYX"})
    (tmp_path / "part2.tif").unlink()
    tifffile.imwrite(tmp_path / "part2.tif", movie[5:6], imagej=True, metadata={"axes": "TYX"})
    stack = read_stack(tmp_path)
    assert np.array_equal(stack.asarray(), movie)
    assert any("follow each other in time" in note for note in stack.metadata["notes"])


def test_folder_as_one_volume(tmp_path, movie):
    for z, plane in enumerate(movie):
        tifffile.imwrite(tmp_path / f"{z}.tif", plane)
    stack = read_stack(tmp_path, axes="zyx")
    assert stack.shape == (1, *movie.shape)
    assert np.array_equal(stack[0], movie)


def test_one_frame_only(tmp_path, movie):
    tifffile.imwrite(tmp_path / "one.tif", movie[0])
    stack = read_stack(tmp_path / "one.tif")
    assert stack.shape == (1, 24, 40)
    assert np.array_equal(stack[0], movie[0])
    folder = tmp_path / "folder"
    folder.mkdir()
    tifffile.imwrite(folder / "one.tif", movie[0])
    assert read_stack(folder).shape == (1, 24, 40)


@pytest.mark.parametrize("version", [2, 3])
def test_ome_zarr_of_others(tmp_path, rng, version):
    data = rng.integers(0, 999, (3, 2, 1, 16, 20), dtype=np.uint16)
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=version)
    group.create_array("s0", data=data, chunks=(1, 1, 1, 8, 8))
    image = {
        "axes": [
            {"name": "t", "type": "time", "unit": "millisecond"},
            {"name": "c", "type": "channel"},
            *({"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"),
        ],
        "datasets": [
            {"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": [20.0, 1.0, 2.0, 0.5, 0.25]}]}
        ],
    }
    omero = {"channels": [{"label": "a"}, {"label": "b"}]}
    described = {"multiscales": [image], "omero": omero}
    group.attrs.update({"ome": {**described, "version": "0.5"}} if version == 3 else described)
    stacks = read_channels(tmp_path / "a.zarr")
    assert [s.metadata["channel"] for s in stacks] == ["a", "b"]
    assert np.array_equal(stacks[1].asarray(), data[:, 1, 0])
    assert (stacks[0].pixel_size, stacks[0].unit) == ((0.5, 0.25), "µm")
    assert (stacks[0].interval, stacks[0].interval_unit) == (20.0, "ms")
    assert describe(tmp_path / "a.zarr").format == ("OME-Zarr 0.5" if version == 3 else "OME-Zarr 0.4")


def test_npy_is_mapped(tmp_path, movie):
    np.save(tmp_path / "a.npy", movie)
    stack = read_stack(tmp_path / "a.npy")
    assert np.array_equal(stack.asarray(), movie)
    assert isinstance(stack.frames._pixels, np.memmap)


def test_arrays(movie, rng):
    volume = rng.random((2, 3, 8, 9))
    assert np.array_equal(read_stack(movie).asarray(), movie)
    assert read_stack(volume).axes == "tzyx"
    assert np.array_equal(read_stack(da.from_array(movie, chunks=(1, 8, 8))).asarray(), movie)
    assert np.array_equal(read_stack(zarr.array(movie)).asarray(), movie)
    assert np.array_equal(read_stack(volume, axes="tcyx", channel=1).asarray(), volume[:, 1])
    stack = read_stack(movie)
    assert read_stack(stack) is stack


def test_frames_serve_as_an_array(tmp_path, movie):
    tifffile.imwrite(tmp_path / "a.tif", movie)
    frames = read_stack(tmp_path / "a.tif").frames
    assert np.array_equal(frames[1:3], movie[1:3])
    assert np.array_equal(frames[-1], movie[-1])
    assert np.array_equal(frames[2, 3:5, ::2], movie[2, 3:5, ::2])
    assert np.array_equal(frames[:, 4], movie[:, 4])
    assert np.array_equal(frames[..., 4], movie[..., 4])
    assert np.array_equal(np.asarray(frames), movie)
    assert frames[6:].shape == (0, 24, 40)
    assert np.array_equal(da.from_array(frames, chunks=(1, 24, 40)).compute(), movie)
    with pytest.raises(IndexError):
        frames[6]


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_many_threads_read_one_stack(tmp_path, rng, compression):
    movie = rng.integers(0, 60000, (60, 32, 33), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", movie, compression=compression, metadata=None)
    stack = read_stack(tmp_path / "a.tif")
    order = rng.permutation(np.tile(np.arange(60), 5))
    with ThreadPoolExecutor(8) as pool:
        frames = list(pool.map(stack.__getitem__, order))
    assert all(np.array_equal(frame, movie[t]) for frame, t in zip(frames, order, strict=True))


def test_a_lazy_stack_can_be_sent_to_a_process(tmp_path, movie):
    for compression in (None, "zlib"):
        tifffile.imwrite(tmp_path / "a.tif", movie, compression=compression)
        frames = read_stack(tmp_path / "a.tif").frames
        frames[0]
        assert np.array_equal(pickle.loads(pickle.dumps(frames))[3], movie[3])


def test_printer_resolution_is_no_pixel_size(tmp_path, movie):
    tifffile.imwrite(tmp_path / "dpi.tif", movie, resolution=(300, 300), resolutionunit="INCH", metadata=None)
    assert read_stack(tmp_path / "dpi.tif").pixel_size is None
    tifffile.imwrite(tmp_path / "cm.tif", movie, resolution=(1e5, 5e4), resolutionunit="CENTIMETER", metadata=None)
    assert read_stack(tmp_path / "cm.tif").pixel_size == pytest.approx((0.2, 0.1))


def test_describe_reads_well(tmp_path, movie):
    tifffile.imwrite(
        tmp_path / "a.tif",
        movie,
        imagej=True,
        resolution=(4, 4),
        metadata={"axes": "TYX", "unit": "um", "finterval": 2},
    )
    info = describe(tmp_path / "a.tif")
    assert str(info).splitlines()[1:] == [
        "format:      ImageJ TIFF",
        "shape:       6 t x 24 y x 40 x, uint16, 11.5 kB",
        "frames:      6",
        "pixel size:  0.25 x 0.25 µm",
        "interval:    2 s",
    ]
    assert info.to_dict()["axes"] == "tyx"


@pytest.mark.shared_data
@pytest.mark.parametrize(
    "place, axes, shape, dtype",
    [
        ("reflection_particles", None, (5, 500, 500), "uint16"),
        ("pc12/pc12-unreg.tif", None, (5, 201, 199), "uint16"),
        ("pc12/pc12-reg-bilinear.tif", "tyx", (5, 201, 199), "float32"),
        ("pc12/pc12-reg-affine.tif", "tyx", (5, 201, 199), "uint16"),
        ("stuck_beads", "tyx", (5, 512, 512), "uint16"),
        ("mouse", None, (500, 64, 64), "int16"),
        ("fish", "tzyx", (20, 2, 76, 87), "uint8"),
        ("bead_stack/*.tif", "zyx", (1, 41, 150, 150), "uint8"),
    ],
)
def test_real_sets(shared, place, axes, shape, dtype):
    stack = read_stack(shared / place, axes=axes)
    assert (stack.shape, stack.dtype.name, dict(stack.missing)) == (shape, dtype, {})
    first = sorted((shared / place).glob("*.tif"))[0] if (shared / place).is_dir() else next(shared.glob(place))
    expected = tifffile.imread(first)
    whole = stack.asarray()
    assert np.array_equal(whole[0] if expected.shape == shape[1:] else whole.reshape(expected.shape), expected)
    if axes is not None:
        with pytest.raises(AmbiguousAxesError) as info:
            read_stack(shared / place)
        assert axes in info.value.choices


@pytest.mark.shared_data
def test_real_frames_come_in_order(shared):
    stack = read_stack(shared / "reflection_particles")
    assert stack.metadata["lazy_files"] == tuple(str(shared / "reflection_particles" / f"{k}.tif") for k in range(1, 6))
    assert stack[4].mean() / stack[0].mean() == pytest.approx(0.93, abs=0.01)  # its brightness falls by 7 %


@pytest.mark.shared_data
def test_real_localisations(shared):
    table = read_table(shared / "bead_traces" / "bead_locs_3.csv")
    assert {"frame", "x", "y"} <= set(table.columns)
    assert np.isfinite(table[["frame", "x", "y"]].to_numpy()).all()


@pytest.mark.shared_data
def test_real_pixel_size(shared):
    stack = read_stack(shared / "bead_stack" / "Bead_Image1_crop.tif", axes="zyx")
    assert stack.pixel_size == pytest.approx((0.125, 1e6 / 44460534, 1e6 / 44460534))
    assert stack.unit == "µm"


def test_errors_are_of_the_kinds_that_callers_catch():
    assert issubclass(StackReadError, OSError)
    assert issubclass(AmbiguousAxesError, ValueError)
