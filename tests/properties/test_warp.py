"""Laws of resampling."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import binary_erosion, gaussian_filter

import stackalign as sa
from stackalign.core.warping.region import common_box, expanded_box
from tests.properties.strategies import series, small, transforms

orders = st.sampled_from((0, 1, 3, 5))
DTYPES = (np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64)


def smooth(shape, seed, sigma=3.0):
    """Return an image without structure near the pixel limit, so that two resamplings lose next to nothing."""
    image = gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return ((image - image.min()) / np.ptp(image)).astype(np.float32)


@st.composite
def motions(draw, shape):
    """A rigid motion, or a projective one, small against the frame."""
    shift = draw(arrays(float, 2, elements=small)) * 6
    matrix = sa.Transform.from_rotation(0.3 * draw(small), shift, (np.array(shape) - 1) / 2).matrix.copy()
    matrix[2, :2] = 3e-4 * draw(arrays(float, 2, elements=small))
    return sa.Transform(matrix, "projective")


@given(st.data(), st.integers(0, 99))
def test_there_and_back_again(data, seed):
    image = smooth((70, 82), seed)
    motion = data.draw(motions(image.shape))
    covered = binary_erosion(sa.valid_mask(image.shape, motion), iterations=10, border_value=0)
    known = sa.warp_frame(covered, motion.inverse, order=0)  # away from borders, whose continuation is anybody's guess
    for order in (3, 5):
        there = sa.warp_frame(image, motion, order=order, fill="edge")
        back = sa.warp_frame(there, motion.inverse, order=order, fill="edge")
        assert known.any()
        assert np.abs(back - image)[known].max() < 1e-3


@given(arrays(np.int64, 2, elements=st.integers(-40, 40)), orders, st.sampled_from(DTYPES), st.integers(0, 99))
def test_whole_shifts_roll_the_pixels(shift, order, dtype, seed):
    image = np.random.default_rng(seed).integers(0, 250, (24, 33)).astype(dtype)
    moved = sa.warp_frame(image, sa.Transform.from_translation(shift), order=order, fill=99)
    rolled = np.roll(image, shift, (0, 1))
    inside = sa.valid_mask(image.shape, sa.Transform.from_translation(shift))
    assert np.array_equal(moved[inside], rolled[inside])
    assert (moved[~inside] == 99).all()
    kept = np.maximum(np.array(image.shape) - np.abs(shift), 0)
    assert inside.sum() == np.prod(kept)


@given(transforms(2), orders, st.floats(-1e3, 1e3))
def test_a_constant_stays_a_constant_where_it_is_covered(motion, order, value):
    image = np.full((20, 26), value)
    moved = sa.warp_frame(image, motion, order=order, fill="nan")
    inside = sa.valid_mask(image.shape, motion)
    assert np.array_equal(np.isfinite(moved), inside)
    assert np.abs(moved[inside] - value).max(initial=0) <= 1e-9 * abs(value)
    edge = sa.warp_frame(image, motion, order=order, fill="edge")
    behind = np.einsum("i,ijk->jk", motion.inverse.matrix[-1], np.stack([*np.indices(edge.shape), np.ones(edge.shape)]))
    assert np.abs(edge - value)[behind > 0].max(initial=0) <= 1e-9 * abs(value)


@given(st.data(), st.integers(0, 99), st.floats(-3, 3), st.floats(-50, 50))
@settings(max_examples=30)
def test_resampling_is_linear_in_the_pixels(data, seed, gain, offset):
    a, b = smooth((40, 46), seed, 1.0).astype(float), smooth((40, 46), seed + 1, 1.0).astype(float)
    motion = data.draw(motions(a.shape))
    for order in (0, 1, 3, 5):
        both = sa.warp_frame(gain * a + b + offset, motion, order=order, fill="edge")
        parts = [sa.warp_frame(x, motion, order=order, fill="edge") for x in (a, b)]
        assert np.allclose(both, gain * parts[0] + parts[1] + offset, atol=1e-9)


@given(st.data(), orders, st.integers(0, 99))
@settings(max_examples=30)
def test_any_part_of_the_output_is_that_part_of_the_whole(data, order, seed):
    image = smooth((40, 46), seed, 1.0)
    motion = data.draw(motions(image.shape))
    start = data.draw(arrays(np.int64, 2, elements=st.integers(-10, 25)))
    size = data.draw(arrays(np.int64, 2, elements=st.integers(1, 30)))
    whole = sa.warp_frame(image, motion, order=order, output_shape=(80, 80), origin=(-15, -15))
    part = sa.warp_frame(image, motion, order=order, output_shape=tuple(size), origin=start)
    at = start + 15
    cut = whole[at[0] : at[0] + size[0], at[1] : at[1] + size[1]]
    # a source that lies exactly on a border, or half-way between pixels, may fall either way
    assert np.mean(np.abs(part - cut) > 1e-5) <= (0.02 if order == 0 else 0.005)


@given(series(ndim=2, model="translation"))
def test_the_common_box_is_covered_by_all_and_the_expanded_box_holds_all(motion):
    shape = (90, 120)
    expanded = expanded_box(shape, motion)
    try:
        common = common_box(shape, motion)
    except ValueError:
        common = None
    used = np.flatnonzero(motion.valid) if motion.valid.any() else range(len(motion))
    everywhere = np.ones(expanded.shape, bool)
    for t in used:
        mask = sa.valid_mask(shape, motion[int(t)], output_shape=expanded.shape, origin=expanded.start)
        everywhere &= mask
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert len(rows) >= shape[0] - 1
        assert len(columns) >= shape[1] - 1
    assert everywhere.any() == (common is not None)
    if common is not None:
        offset = np.subtract(common.start, expanded.start)
        inside = tuple(slice(o, o + n) for o, n in zip(offset, common.shape, strict=True))
        assert everywhere[inside].all()
        assert everywhere.sum() == np.prod(common.shape)
