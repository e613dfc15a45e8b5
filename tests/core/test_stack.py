"""The stack: what it accepts, reads lazily, and says of frames that are missing."""

import dask.array as da
import numpy as np
import pytest
import zarr

from stackalign.core.geometry import Box
from stackalign.core.stack import FrameError, Frames, ImageStack


class Lazy:
    """Frames that count what is read of them."""

    def __init__(self, data):
        self.data, self.shape, self.dtype, self.reads = data, data.shape, data.dtype, []

    def __getitem__(self, t):
        self.reads.append(t)
        return self.data[t]


@pytest.fixture
def data():
    return np.random.default_rng(3).integers(0, 60000, (6, 5, 9), dtype=np.uint16)


@pytest.mark.parametrize(
    "make", [np.asarray, Lazy, lambda a: da.from_array(a, chunks=(2, 5, 3)), zarr.array, np.ndarray.tolist]
)
def test_anything_that_holds_frames(data, make):
    stack = ImageStack(make(data))
    assert (len(stack), stack.shape, stack.frame_shape, stack.ndim, stack.axes) == (6, (6, 5, 9), (5, 9), 2, "tyx")
    assert np.array_equal(stack[4], data[4])
    assert isinstance(stack[4], np.ndarray)
    assert np.array_equal(stack[-1], data[-1])
    assert np.array_equal(stack.asarray(), data)
    assert np.array_equal(np.stack(list(stack)), data)
    assert isinstance(stack.frames, Frames)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "int16", "float32", "float64"])
def test_the_dtype_stays(data, dtype):
    stack = ImageStack(data.astype(dtype))
    assert stack.dtype == stack[0].dtype == stack.asarray().dtype == dtype


def test_volumes():
    stack = ImageStack(np.zeros((2, 3, 4, 5)), pixel_size=(2.0, 0.5, 0.5))
    assert (stack.axes, stack.ndim, stack.frame_shape) == ("tzyx", 3, (3, 4, 5))
    assert repr(stack) == "ImageStack(2 x 3 x 4 x 5 float64, tzyx, 2 x 0.5 x 0.5 µm)"
    assert repr(ImageStack(np.zeros((1, 4, 5), np.uint8), name="a")) == "ImageStack('a', 1 x 4 x 5 uint8, tyx)"


@pytest.mark.parametrize(
    "frames, options, message",
    [
        (np.zeros((4, 5)), {}, r"a stack is \(t, y, x\) or \(t, z, y, x\): got shape \(4, 5\) with axes 'not stated'"),
        (np.zeros((2, 2, 2, 4, 5)), {}, "got shape"),
        (np.zeros((2, 4, 5)), {"axes": "tzyx"}, "with axes 'tzyx'"),
        (np.zeros((2, 4, 5)), {"axes": "zyx"}, "with axes 'zyx'"),
        (np.zeros((0, 4, 5)), {}, r"the stack is empty: its shape is \(0, 4, 5\)"),
        (np.zeros((2, 4, 0)), {}, "the stack is empty"),
        (np.zeros((2, 4, 5), complex), {}, "integers or real numbers, not complex128"),
        (np.zeros((2, 4, 5)), {"pixel_size": (1.0,)}, r"pixel_size needs 2 numbers for axes 'tyx', got \(1.0,\)"),
    ],
)
def test_what_is_no_stack(frames, options, message):
    with pytest.raises(ValueError, match=message):
        ImageStack(frames, **options)


def test_a_frame_is_read_when_it_is_asked_for(data):
    lazy = Lazy(data)
    stack = ImageStack(lazy, missing={2: "cut off"})
    cut = stack.selected(slice(1, 5)).cropped(Box(1, 4, 2, 8))
    assert (cut.shape, lazy.reads) == ((4, 3, 6), [])
    assert np.array_equal(cut[2], data[3, 1:4, 2:8])
    assert lazy.reads == [3]
    assert not cut[1].any()
    assert lazy.reads == [3], "a missing frame is not looked for"


@pytest.mark.parametrize("t", [6, -7, 100])
def test_frames_that_are_not_there(data, t):
    with pytest.raises(IndexError, match=f"frame {t} of a stack of 6 frames"):
        ImageStack(data)[t]


def test_missing_frames_are_nan_or_zero(data):
    integers = ImageStack(data, missing={1: "x", 5: "y"})
    assert not integers[1].any()
    assert not integers[-1].any()
    assert np.array_equal(integers[2], data[2])
    reals = ImageStack(data.astype(np.float32), missing={1: "x"})
    assert np.isnan(reals[1]).all()
    assert np.isnan(reals.asarray()[1]).all()
    with pytest.raises(TypeError):
        integers.missing[0] = "no"


def test_an_unreadable_frame_names_itself(data):
    class Broken(Lazy):
        def __getitem__(self, t):
            raise FrameError(f"a.tif: page {t} cannot be read")

    with pytest.raises(OSError, match="page 3"):
        ImageStack(Broken(data))[3]


def test_a_range_of_frames_keeps_missing_ones_and_the_interval(data):
    stack = ImageStack(data, interval=0.5, missing={4: "lost"}, name="a", pixel_size=(1.0, 2.0))
    odd = stack.selected(slice(0, 6, 2))
    assert (len(odd), odd.interval, dict(odd.missing), odd.pixel_size) == (3, 1.0, {2: "lost"}, (1.0, 2.0))
    assert np.array_equal(odd[1], data[2])
    assert dict(stack.selected(slice(0, 4)).missing) == {}
    with pytest.raises(ValueError, match="no frame is left"):
        stack.selected(slice(9, 20))


def test_frames_backwards_still_take_time_forwards(data):
    back = ImageStack(data, interval=0.5).selected(slice(None, None, -1))
    assert np.array_equal(back[0], data[5])
    assert back.interval == 0.5


def test_a_crop_outside_the_frame_is_refused(data):
    with pytest.raises(ValueError, match="outside the frame of shape"):
        ImageStack(data).cropped(Box(10, 12, 0, 3))
    assert ImageStack(data).cropped(Box(-5, 3, 7, 99)).shape == (6, 3, 2)


def test_a_stack_stays_itself(data):
    stack = ImageStack(data)
    assert ImageStack.of(stack) is stack
    assert np.array_equal(ImageStack.of(data).asarray(), data)
