"""Frames as PNG and JPEG pictures."""

import imagecodecs
import numpy as np
import pytest
import tifffile

from stackalign.core.stack import FrameError
from stackalign.io import picture
from stackalign.io.errors import ChannelChoiceError, StackReadError
from stackalign.io.info import describe
from stackalign.io.read import read_channels, read_stack


@pytest.fixture
def smooth():
    """Frames (4, 20, 36) that JPEG keeps well."""
    y, x = np.mgrid[:20, :36]
    return np.stack([100 + 60 * np.sin((y + t) / 5) * np.cos(x / 7) for t in range(4)]).astype(np.uint8)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_folder_of_png_frames(tmp_path, rng, dtype):
    movie = rng.integers(0, np.iinfo(dtype).max, (12, 20, 36), dtype=dtype)
    for t, frame in enumerate(movie):
        (tmp_path / f"f{t}.png").write_bytes(imagecodecs.png_encode(frame))
    stack = read_stack(tmp_path)
    assert (stack.dtype, stack.axes) == (dtype, "tyx")
    assert np.array_equal(stack.asarray(), movie)  # 2 before 10
    assert np.array_equal(read_stack(tmp_path / "f1*.png").asarray(), movie[[1, 10, 11]])
    assert np.array_equal(read_stack(tmp_path / "f5.png").asarray(), movie[5:6])
    assert describe(tmp_path).format == "folder of 12 files (PNG)"


def test_a_folder_of_jpeg_frames(tmp_path, smooth):
    for t, frame in enumerate(smooth):
        (tmp_path / f"f{t}.JPG").write_bytes(imagecodecs.jpeg_encode(frame, level=98))
    stack = read_stack(tmp_path)
    assert (stack.shape, stack.dtype) == (smooth.shape, np.uint8)
    assert np.abs(stack.asarray().astype(int) - smooth).max() <= 4


def test_only_headers_are_read_on_opening(tmp_path, smooth, monkeypatch):
    for t, frame in enumerate(smooth):
        (tmp_path / f"f{t}.png").write_bytes(imagecodecs.png_encode(frame))
    decoded, decode = [], picture._decoded
    monkeypatch.setattr(picture, "_decoded", lambda path: decoded.append(path.name) or decode(path))
    stack = read_stack(tmp_path)
    assert decoded == []
    stack[2]
    assert decoded == ["f2.png"]


def test_colour_pictures_ask_for_a_channel(tmp_path, rng):
    colour = rng.integers(0, 255, (20, 36, 3), dtype=np.uint8)
    for t in range(2):
        (tmp_path / f"{t}.png").write_bytes(imagecodecs.png_encode(colour))
    with pytest.raises(ChannelChoiceError, match="colour"):
        read_stack(tmp_path)
    assert np.array_equal(read_stack(tmp_path, channel="green")[1], colour[..., 1])
    assert len(read_channels(tmp_path)) == 3
    alpha = np.dstack([colour, np.full((20, 36), 255, np.uint8)])
    (tmp_path / "rgba.png").write_bytes(imagecodecs.png_encode(alpha))
    assert np.array_equal(read_stack(tmp_path / "rgba.png", channel=2)[0], colour[..., 2])
    assert len(read_channels(tmp_path / "rgba.png")) == 3


def test_pictures_beside_tiff_files_are_their_previews(tmp_path, smooth):
    (tmp_path / "preview.png").write_bytes(imagecodecs.png_encode(smooth[0]))
    for t, frame in enumerate(smooth):
        tifffile.imwrite(tmp_path / f"{t}.tif", frame)
    assert len(read_stack(tmp_path)) == 4


def test_a_damaged_picture_is_a_missing_frame(tmp_path, smooth):
    for t, frame in enumerate(smooth):
        (tmp_path / f"f{t}.png").write_bytes(imagecodecs.png_encode(frame))
    (tmp_path / "f1.png").write_bytes(b"")
    whole = (tmp_path / "f2.png").read_bytes()
    (tmp_path / "f2.png").write_bytes(whole[: len(whole) // 2])  # the header is whole
    stack = read_stack(tmp_path)
    assert list(stack.missing) == [1]
    assert "f1.png is no picture that can be read" in stack.missing[1]
    with pytest.raises(FrameError, match=r"f2\.png cannot be read"):
        stack[2]


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\x00\x10JFIF", b"frame,x\n", b"II*\x00"]
)
def test_another_file_named_png(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(StackReadError, match=r"a\.png is no picture that can be read"):
        read_stack(tmp_path / "a.png")


def test_pictures_of_different_sizes(tmp_path, smooth):
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(smooth[0]))
    (tmp_path / "b.png").write_bytes(imagecodecs.png_encode(smooth[0][:10].copy()))
    with pytest.raises(StackReadError, match=r"b\.png is 10 x 36 uint8, but .*a\.png is 20 x 36 uint8"):
        read_stack(tmp_path)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    "pattern, count",
    [("visir_pairs/VEDAI/*_ir.png", None), ("roadscene/vi/*.jpg", None), ("multimodal/Nighttime/*_1.jpg", None)],
)
def test_headers_of_real_pictures_are_right(shared, pattern, count):
    found = sorted(shared.glob(pattern))
    assert len(found) >= 20
    for path in found[:8]:
        source = picture.open_picture(path)
        decoded = picture._decoded(path)
        assert (source.shape, source.pixels.dtype) == (decoded.shape, decoded.dtype)
        stacks = read_channels(path)
        assert stacks[0].frame_shape == decoded.shape[:2]
        assert np.array_equal(stacks[0][0], decoded if decoded.ndim == 2 else decoded[..., 0])
