"""What users hand over by mistake, each with the sentence that they get, and what is damaged but still readable."""

import pickle
import shutil

import numpy as np
import pytest
import tifffile

from stackalign.core.stack import FrameError
from stackalign.io.errors import AmbiguousAxesError, ChannelChoiceError, StackReadError
from stackalign.io.info import describe
from stackalign.io.read import read_channels, read_stack


def save_frames(folder, movie, name="f{}.tif", **kwargs):
    folder.mkdir(exist_ok=True)
    for t, frame in enumerate(movie):
        tifffile.imwrite(folder / name.format(t), frame, photometric="minisblack", **kwargs)
    return folder


def cut(path, keep):
    """Keep a part of a file, as a copy does that was broken off."""
    data = path.read_bytes()
    path.write_bytes(data[: keep if keep > 1 else int(len(data) * keep)])


def test_no_such_file(tmp_path):
    with pytest.raises(StackReadError, match=r"there is no file or folder .*nothing\.tif"):
        read_stack(tmp_path / "nothing.tif")
    with pytest.raises(StackReadError, match=r"there is no file .*a\.tif: its folder .*missing does not exist"):
        read_stack(tmp_path / "missing" / "a.tif")
    with pytest.raises(StackReadError, match=r"no file matches .*t\*\.tif"):
        read_stack(tmp_path / "t*.tif")


def test_an_empty_folder(tmp_path):
    with pytest.raises(StackReadError, match=r"the folder .* is empty"):
        read_stack(tmp_path)


def test_a_folder_of_other_files(tmp_path):
    for name in ("a.avi", "b.avi", "c.txt"):
        (tmp_path / name).write_text("x")
    with pytest.raises(StackReadError, match=r"holds no TIFF, PNG or JPEG file, only 2 \.avi, 1 \.txt"):
        read_stack(tmp_path)
    shutil.rmtree(tmp_path)
    (tmp_path / "inner").mkdir(parents=True)
    with pytest.raises(StackReadError, match=r"holds no TIFF, PNG or JPEG file, only 1 folder$"):
        read_stack(tmp_path)


@pytest.mark.parametrize(
    "content", [b"frame,x,y\n1,2,3\n", b"", b"II*\x00", b"II*\x00\xff\xff\xff\x7f", b"\x89PNG\r\n\x1a\n"]
)
@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a.TIFF"])
def test_another_file_named_tif(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StackReadError, match=rf"{name}.* (is not a TIFF file|holds no image|make no sense|cut off)"):
        read_stack(tmp_path / name)


def test_a_file_that_may_not_be_opened(tmp_path, movie, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(tmp_path / "a.tif"))

    tifffile.imwrite(tmp_path / "a.tif", movie)
    monkeypatch.setattr(tifffile, "TiffFile", refuse)
    with pytest.raises(StackReadError, match=r"^/.*a\.tif cannot be opened: Permission denied$"):
        read_stack(tmp_path / "a.tif")


@pytest.mark.parametrize("content", [b"no array", b"", b"\x93NUMPY\x01\x00v\x00{'descr': '<u2'"])
def test_another_file_named_npy(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(StackReadError, match=r"a\.npy is no NumPy array that can be read"):
        read_stack(tmp_path / "a.npy")


def test_a_pickle_is_never_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(StackReadError, match=r"a\.npy is no NumPy array"):
        read_stack(tmp_path / "a.npy")


@pytest.mark.parametrize("array", [np.zeros(5), np.zeros((0, 4, 4)), np.zeros((2, 3, 4), complex), np.array([["a"]])])
def test_arrays_that_are_no_stack(tmp_path, array):
    with pytest.raises(StackReadError, match="this array: a stack needs at least two axes, pixels"):
        read_stack(array)
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(StackReadError, match=r"a\.npy: a stack needs"):
        read_stack(tmp_path / "a.npy")


def test_a_folder_that_is_no_ome_zarr(tmp_path):
    (tmp_path / ".zgroup").write_text('{"zarr_format": 2}')
    with pytest.raises(StackReadError, match="holds no OME-Zarr image: its attributes list no multiscales"):
        read_stack(tmp_path)
    (tmp_path / ".zattrs").write_text('{"multiscales": [{"datasets": [{"path": "0"}], "axes": ["y"]}]}')
    with pytest.raises(StackReadError, match="OME-Zarr metadata make no sense"):
        read_stack(tmp_path)
    (tmp_path / ".zgroup").write_text("{")
    with pytest.raises(StackReadError, match="is no zarr folder that can be read"):
        read_stack(tmp_path)


@pytest.mark.parametrize(
    "kind, compression",
    [("plain", "zlib"), ("imagej", None), ("imagej", "zlib"), ("shaped", None), ("shaped", "zlib"), ("ome", "zlib")],
)
def test_a_file_that_was_cut_off_keeps_the_frames_that_are_there(tmp_path, movie, kind, compression):
    path = tmp_path / "a.tif"
    options = {
        "plain": {"metadata": None},
        "imagej": {"imagej": True, "metadata": {"axes": "TYX"}},
        "shaped": {"metadata": {"axes": "TYX"}},
        "ome": {"ome": True, "metadata": {"axes": "TYX"}},
    }[kind]
    tifffile.imwrite(path, movie, compression=compression, photometric="minisblack", contiguous=False, **options)
    cut(path, 0.6)
    stack = read_stack(path)
    good = [t for t in range(len(stack)) if t not in stack.missing]
    assert 1 <= len(good) < 6
    assert all(np.array_equal(stack[t], movie[t]) for t in good)
    assert stack.missing or any("cut off" in note for note in stack.metadata["notes"]), "the loss must be told"
    for t, reason in stack.missing.items():
        assert "cut off" in reason
        assert not stack[t].any()
    assert describe(path).missing == dict(stack.missing)


@pytest.mark.parametrize("kind", ["plain", "ome"])
def test_a_file_whose_list_of_pages_was_cut_off_is_refused(tmp_path, movie, kind):
    # uncompressed pages lie in one piece before their list: what followed the first one can no longer be known
    tifffile.imwrite(
        tmp_path / "a.tif", movie, metadata=None if kind == "plain" else {"axes": "TYX"}, ome=kind == "ome"
    )
    cut(tmp_path / "a.tif", 0.6)
    with pytest.raises(StackReadError, match="was cut off and the list of its pages is lost; copy it from its source"):
        read_stack(tmp_path / "a.tif")


def test_a_file_cut_off_in_its_first_frame(tmp_path, movie):
    tifffile.imwrite(tmp_path / "a.tif", movie, imagej=True, metadata={"axes": "TYX"})
    cut(tmp_path / "a.tif", 1200)
    with pytest.raises(StackReadError, match=r"a\.tif"):
        read_stack(tmp_path / "a.tif")


def test_a_damaged_page_is_an_error_of_that_frame_alone(tmp_path, movie):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, movie, compression="zlib", metadata={"axes": "TYX"})
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[2].dataoffsets[0], tif.pages[2].databytecounts[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = b"\xff" * count
    path.write_bytes(data)
    stack = read_stack(path)
    with pytest.raises(FrameError, match=r"a\.tif: page 2 cannot be read"):
        stack[2]
    assert np.array_equal(stack[3], movie[3])


def test_a_file_that_cannot_be_read_is_named_and_its_frame_missing(tmp_path, movie, caplog):
    folder = save_frames(tmp_path / "run", movie)
    (folder / "f2.tif").write_text("lost in a crash")
    cut(folder / "f4.tif", 0.5)
    stack = read_stack(folder)
    assert sorted(stack.missing) == [2, 4]
    assert "f2.tif is not a TIFF file" in stack.missing[2]
    assert "f4.tif" in stack.missing[4]
    assert "frame 2 is missing" in caplog.text
    assert len(stack) == 6
    assert not stack[2].any()
    assert np.array_equal(stack[5], movie[5])
    info = describe(folder)
    assert sorted(info.missing) == [2, 4]
    assert "missing:     frame 2" in str(info)


def test_missing_frames_of_real_numbers_are_nan(tmp_path, movie):
    folder = save_frames(tmp_path / "run", movie.astype(np.float32))
    (folder / "f0.tif").write_bytes(b"")
    stack = read_stack(folder)
    assert np.isnan(stack[0]).all()
    assert stack.dtype == np.float32


def test_no_file_of_a_folder_can_be_read(tmp_path):
    for t in range(3):
        (tmp_path / f"{t}.tif").write_text("x")
    with pytest.raises(StackReadError, match=r"none of the 3 files in .* can be read: .*0\.tif is not a TIFF file"):
        read_stack(tmp_path)


def test_a_file_that_vanishes_after_opening(tmp_path, movie):
    folder = save_frames(tmp_path / "run", movie)
    stack = read_stack(folder)
    (folder / "f3.tif").unlink()
    with pytest.raises(FrameError, match=r"f3\.tif"):
        stack[3]
    tifffile.imwrite(folder / "f3.tif", movie[3, :5])
    with pytest.raises(FrameError, match=r"f3\.tif.*its shape became \(5, 40\) since the folder was opened"):
        stack[3]
    assert np.array_equal(stack[4], movie[4])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_movie_that_shrinks_or_vanishes_after_opening(tmp_path, rng, compression):
    path = tmp_path / "a.tif"
    movie = rng.integers(0, 60000, (6, 200, 300), dtype=np.uint16)  # more than any buffer holds
    tifffile.imwrite(path, movie, compression=compression, metadata={"axes": "TYX"})
    stack = read_stack(path)
    cut(path, 0.6)
    with pytest.raises(FrameError, match=r"a\.tif: page 5 cannot be read"):
        stack[5]
    path.unlink()
    if compression is None:
        with pytest.raises(FrameError, match=r"a\.tif: page 0 cannot be read"):
            read_stack_again(stack)


def read_stack_again(stack):
    """Read the first frame as another process would, that has nothing open."""
    return pickle.loads(pickle.dumps(stack.frames))[0]


def test_frames_of_different_shapes(tmp_path, movie):
    folder = save_frames(tmp_path / "run", movie)
    tifffile.imwrite(folder / "f3.tif", movie[3, :20])
    with pytest.raises(
        StackReadError, match=r"f3\.tif is 20 x 40 uint16, but .*f0\.tif is 24 x 40 uint16: the frames .* must be alike"
    ):
        read_stack(folder)


def test_frames_of_different_dtypes(tmp_path, movie):
    folder = save_frames(tmp_path / "run", movie)
    tifffile.imwrite(folder / "f5.tif", movie[5].astype(np.uint8))
    with pytest.raises(StackReadError, match=r"f5\.tif is 24 x 40 uint8, but .*f0\.tif is 24 x 40 uint16"):
        read_stack(folder)


def test_pages_of_different_shapes_in_one_file(tmp_path, movie):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for frame in (movie[0], movie[1], movie[2, :, :30]):
            tif.write(frame, metadata=None, contiguous=False)
    with pytest.raises(StackReadError, match=r"a\.tif: page 3 is 24 x 30 uint16, but page 1 is 24 x 40 uint16"):
        read_stack(tmp_path / "a.tif")


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colour_is_never_taken_for_time_or_depth(tmp_path, rng, planar):
    shape = (4, 16, 20, 3) if planar == "contig" else (4, 3, 16, 20)
    data = rng.integers(0, 255, shape, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "c.tif", data, photometric="rgb", planarconfig=planar)
    with pytest.raises(ChannelChoiceError, match=r"holds colour \(RGB\) frames: choose one .*0 \(red\)") as info:
        read_stack(tmp_path / "c.tif")
    assert info.value.choices == (0, 1, 2, "luminance")
    colour = np.moveaxis(data, 1, -1) if planar == "separate" else data
    assert np.array_equal(read_stack(tmp_path / "c.tif", channel="green").asarray(), colour[..., 1])
    grey = read_stack(tmp_path / "c.tif", channel="luminance")
    expected = np.rint(colour @ [0.2125, 0.7154, 0.0721])
    assert grey.dtype == np.uint8
    assert np.array_equal(grey.asarray(), expected)
    assert [s.metadata["channel"] for s in read_channels(tmp_path / "c.tif")] == ["red", "green", "blue"]
    with pytest.raises(ChannelChoiceError, match="has no channel 'purple'"):
        read_stack(tmp_path / "c.tif", channel="purple")


def test_one_colour_image_alone_asks_for_its_channel(tmp_path, rng):
    tifffile.imwrite(tmp_path / "c.tif", rng.integers(0, 255, (16, 20, 3), dtype=np.uint8), photometric="rgb")
    with pytest.raises(ChannelChoiceError, match="colour"):
        read_stack(tmp_path / "c.tif")
    assert read_stack(tmp_path / "c.tif", channel=2).shape == (1, 16, 20)


def test_a_channel_of_a_file_without_channels(tmp_path, movie):
    tifffile.imwrite(tmp_path / "a.tif", movie)
    assert read_stack(tmp_path / "a.tif", channel=0).shape == movie.shape
    with pytest.raises(ChannelChoiceError, match=r"a\.tif has one channel: leave channel=3 out"):
        read_stack(tmp_path / "a.tif", channel=3)


@pytest.mark.parametrize("value", [0, 7])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_frames_without_any_contrast_can_be_read(tmp_path, value, dtype):
    flat = np.full((3, 8, 9), value, dtype)
    tifffile.imwrite(tmp_path / "a.tif", flat, photometric="minisblack", metadata={"axes": "TYX"})
    stack = read_stack(tmp_path / "a.tif")
    assert stack.dtype == dtype
    assert np.array_equal(stack.asarray(), flat)
    assert dict(stack.missing) == {}


def test_nan_and_infinity_can_be_read(tmp_path):
    data = np.ones((4, 8, 9), np.float32)
    data[1], data[2, 3] = np.nan, np.inf
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=True, metadata={"axes": "TYX"})
    assert np.array_equal(read_stack(tmp_path / "a.tif").asarray(), data, equal_nan=True)


def test_too_many_axes_are_asked_for(tmp_path, rng):
    data = rng.integers(0, 9, (2, 2, 2, 2, 8, 9), dtype=np.uint8)
    np.save(tmp_path / "a.npy", data)
    with pytest.raises(AmbiguousAxesError):
        read_stack(tmp_path / "a.npy", axes="tzcyx")


def test_a_broken_ome_header_is_told(tmp_path, movie):
    tifffile.imwrite(tmp_path / "a.ome.tif", movie, description="<?xml version='1.0'?><OME><Image", metadata=None)
    stack = read_stack(tmp_path / "a.ome.tif")  # the pages are whole: they count, the header does not
    assert np.array_equal(stack.asarray(), movie)
