"""Open PNG and JPEG pictures, one frame a file; only the header is read until the pixels are asked for."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from stackalign.core.stack import FrameError
from stackalign.io.errors import StackReadError
from stackalign.io.source import Source

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ENDINGS = (".png", ".jpg", ".jpeg")
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_SAMPLES = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type: grey, RGB, grey and alpha, RGB and alpha
# JPEG markers that start a frame; those left out (DHT, JPG, DAC) lie between them
_START_OF_FRAME = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}


class PicturePixels:
    """The pixels of one picture, decoded when they are indexed."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: Any) -> None:
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype)

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        try:
            picture = _decoded(self.path)
            if picture.shape != self.shape:
                raise ValueError(f"it is {picture.shape}, not {self.shape}")
        except Exception as error:  # decoders raise errors of many kinds
            raise FrameError(f"{self.path} cannot be read ({error})") from error
        return np.asarray(picture[index])


def open_picture(path: Path) -> Source:
    """Open a PNG or JPEG file as one frame.

    Raises
    ------
    StackReadError
        If it is no such file.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if start == _PNG:
                kind, found = "PNG", _png(file)
            elif start[:3] == b"\xff\xd8\xff":
                kind, found = "JPEG", _jpeg(file)
            else:
                raise ValueError("neither a PNG nor a JPEG file")
        if found is None:  # a palette: what it becomes is known when it is decoded
            picture = _decoded(path)
            found = picture.shape, picture.dtype
    except Exception as error:
        raise StackReadError(f"{path} is no picture that can be read ({error})") from error
    shape, dtype = found
    return Source(
        PicturePixels(path, shape, dtype),
        "yxs"[: len(shape)],
        name=path.stem,
        kind=kind,
        path=path,
        lazy_files=(path,),
        compression="jpeg" if kind == "JPEG" else "deflate",
    )


def _png(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
    """Return the shape and dtype that the header states; None where colours come from a palette."""
    _, name, width, height, depth, colour = struct.unpack(">I4sIIBB", file.read(18))
    if name != b"IHDR":
        raise ValueError("its header is damaged")
    if colour not in _PNG_SAMPLES or depth < 8:
        return None
    samples = _PNG_SAMPLES[colour]
    return (height, width, samples)[: 2 + (samples > 1)], np.dtype(np.uint16 if depth == 16 else np.uint8)


def _jpeg(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Walk the segments to the one that states the size."""
    file.seek(2)
    while True:
        mark, kind, size = struct.unpack(">BBH", file.read(4))
        if mark != 0xFF:
            raise ValueError("its segments are damaged")
        if kind in _START_OF_FRAME:
            depth, height, width, samples = struct.unpack(">BHHB", file.read(6))
            dtype = np.dtype(np.uint8 if depth == 8 else np.uint16)
            return (height, width, samples)[: 2 + (samples > 1)], dtype
        file.seek(size - 2, 1)


def _decoded(path: Path) -> NDArray[Any]:
    import imagecodecs

    data = path.read_bytes()
    decode = imagecodecs.png_decode if data.startswith(_PNG) else imagecodecs.jpeg_decode
    return np.asarray(decode(data))
