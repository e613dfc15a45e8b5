"""However a file is damaged, opening it gives frames or one of our own errors, and a frame that is read is right."""

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from stackalign.core.stack import FrameError
from stackalign.io.errors import AmbiguousAxesError, ChannelChoiceError, StackReadError, TransformsReadError
from stackalign.io.read import read_stack
from stackalign.io.transforms import load_transforms, save_transforms
from tests.properties.strategies import series

MOVIE = np.random.default_rng(5).integers(0, 60000, (5, 12, 17), dtype=np.uint16)
KINDS = {
    "plain": {"metadata": None},
    "imagej": {"imagej": True, "metadata": {"axes": "TYX"}},
    "shaped": {"metadata": {"axes": "TYX"}},
    "ome": {"ome": True, "metadata": {"axes": "TYX"}},
    "bigtiff": {"bigtiff": True, "metadata": {"axes": "TYX"}},
}


class Files(dict):
    """Bytes by kind of file; without the bytes where hypothesis prints it."""

    def __repr__(self):
        return f"{len(self)} files"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    files = Files()
    for kind, options in KINDS.items():
        for compression in (None, "zlib"):
            for contiguous in (True, False):
                path = folder / "a.tif"
                tifffile.imwrite(path, MOVIE, compression=compression, contiguous=contiguous, **options)
                files[kind, compression, contiguous] = path.read_bytes()
    return files


# where, as a part of the file, and what byte: the cube makes headers as likely as pixels
edits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4)
choices = st.tuples(st.sampled_from(list(KINDS)), st.sampled_from((None, "zlib")), st.booleans())


@given(choices, st.floats(0, 1))
def test_a_file_cut_off_anywhere(whole, tmp_path_factory, choice, part):
    path = tmp_path_factory.mktemp("cut") / "a.tif"
    data = whole[choice]
    path.write_bytes(data[: int(part * len(data))])
    try:
        stack = read_stack(path)
    except StackReadError:
        return
    assert stack.frame_shape == MOVIE.shape[1:]
    for t in range(len(stack)):
        try:
            frame = stack[t]
        except FrameError:
            continue
        assert np.array_equal(frame, np.zeros_like(frame) if t in stack.missing else MOVIE[t])


@given(choices, edits)
def test_a_file_with_wrong_bytes_anywhere(whole, tmp_path_factory, choice, changes):
    path = tmp_path_factory.mktemp("bytes") / "a.tif"
    content = bytearray(whole[choice])
    for part, byte in changes:
        content[int(part**3 * (len(content) - 1))] = byte
    path.write_bytes(content)
    try:
        stack = read_stack(path)
        for t in range(min(len(stack), 20)):
            try:
                stack[t]
            except FrameError:
                continue
    except (StackReadError, AmbiguousAxesError, ChannelChoiceError):
        return


@given(series(), st.sampled_from(("t.json", "t.csv", "t.npy", "t.tfm", "t.ngff.json")), edits, st.booleans())
def test_transforms_with_wrong_bytes_anywhere(tmp_path_factory, s, name, changes, cut):
    if s.model == "projective":
        name = "t.json"
    path = save_transforms(tmp_path_factory.mktemp("bytes") / name, s)
    content = bytearray(path.read_bytes())
    for part, byte in changes:
        content[int(part * (len(content) - 1))] = byte
    if cut:
        content = content[: int(changes[0][0] * len(content))]
    path.write_bytes(content)
    try:
        assert np.isfinite(load_transforms(path).matrices).all()
    except TransformsReadError:
        return
