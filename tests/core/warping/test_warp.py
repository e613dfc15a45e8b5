"""Resampling against scipy.ndimage, which maps the other way (output -> input) and in the same axis order."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage

import stackalign as sa
from stackalign.core.warping.region import common_box, expanded_box
from stackalign.core.warping.resample import warp_sources
from stackalign.core.warping.warp import output_box

ORDERS = (0, 1, 3, 5)
TOLERANCE = 1e-4  # of the range of the image


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture
def restored_threads():
    yield
    sa.set_threads(None)


def smooth(rng, shape, dtype=np.float32):
    """Return an image with structure and range 1, plus noise down to the pixel."""
    image = ndimage.gaussian_filter(rng.normal(size=shape), 1.5) * 4 + 0.3 * rng.normal(size=shape)
    image -= image.min()
    return (image / image.max()).astype(dtype)


def rotation(shape, angle, shift, scale=1.0):
    """Return a similarity about the centre, as a homogeneous matrix moving -> reference."""
    centre = (np.array(shape) - 1) / 2
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(len(shape) + 1)
    linear = np.eye(len(shape))
    linear[-2:, -2:] = scale * np.array([[c, -s], [s, c]])
    if len(shape) == 3:  # and a little about y, so that planes mix
        c, s = np.cos(angle / 2), np.sin(angle / 2)
        linear = linear @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    matrix[:-1, :-1] = linear
    matrix[:-1, -1] = centre - linear @ centre + shift
    return matrix


def coordinates(matrix, shape, origin=None):
    """Return where each output pixel comes from, (d, ...), by the definition in DESIGN: inverse, then divide."""
    grid = np.indices(shape, float).reshape(len(shape), -1)
    if origin is not None:
        grid += np.asarray(origin, float)[:, None]
    there = np.linalg.inv(matrix) @ np.vstack([grid, np.ones(grid.shape[1])])
    return (there[:-1] / there[-1]).reshape(-1, *shape)


def oracle(image, matrix, order, shape=None, origin=None):
    """Return scipy's answer in float64 with mirrored borders, and where it is covered by the frame."""
    source = coordinates(matrix, image.shape if shape is None else shape, origin)
    size = np.array(image.shape).reshape(-1, *[1] * image.ndim)
    covered = ((source >= 0) & (source <= size - 1)).all(0)
    return ndimage.map_coordinates(image.astype(np.float64), source, order=order, mode="mirror"), covered


def translation(*shift):
    return sa.Transform.from_translation(shift).matrix


PROJECTIVE = np.array([[1.02, 0.03, -1.7], [-0.02, 0.97, 2.9], [2e-4, -3e-4, 1.0]])
PROJECTIVE_3D = np.array(
    [[1.01, 0.02, 0.01, -0.8], [-0.02, 0.98, 0.03, 1.3], [0.01, -0.01, 1.02, -2.1], [1e-4, -2e-4, 3e-4, 1.0]]
)
MOTIONS_2D = {
    "half a pixel": translation(0.5, -0.5),
    "asymmetric shift": translation(3.37, -7.81),
    "rotation": rotation((41, 57), np.deg2rad(11.0), (1.3, -2.4)),
    "similarity": rotation((41, 57), np.deg2rad(-4.0), (0.3, 1.7), 1.08),
    "projective": PROJECTIVE,
}
MOTIONS_3D = {
    "shift": translation(0.63, -1.37, 2.21),
    "rotation": rotation((9, 31, 26), np.deg2rad(7.0), (0.4, -1.3, 0.9)),
    "projective": PROJECTIVE_3D,
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("motion", MOTIONS_2D)
def test_scipy_agrees_in_2d(rng, motion, order):
    image, matrix = smooth(rng, (41, 57)), MOTIONS_2D[motion]
    check_against_scipy(image, matrix, order)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("motion", MOTIONS_3D)
def test_scipy_agrees_in_3d(rng, motion, order):
    image, matrix = smooth(rng, (9, 31, 26)), MOTIONS_3D[motion]
    check_against_scipy(image, matrix, order)


def check_against_scipy(image, matrix, order):
    ours = sa.warp_frame(image, matrix, order=order, fill="nan")
    wanted, covered = oracle(image, matrix, order)
    assert np.array_equal(np.isfinite(ours), covered)
    assert covered.sum() > image.size / 2
    if order:
        assert np.abs(ours - wanted)[covered].max() < TOLERANCE
    else:  # a source half-way between two pixels may fall either way
        source = coordinates(matrix, image.shape)
        clear = covered & (np.abs(source - np.floor(source) - 0.5) > 1e-9).all(0)
        assert np.array_equal(ours[clear], wanted[clear].astype(np.float32))


@pytest.mark.parametrize("order", ORDERS[1:])
def test_double_precision_frames_are_resampled_in_double_precision(rng, order):
    image, matrix = smooth(rng, (41, 57), np.float64), MOTIONS_2D["rotation"]
    wanted, covered = oracle(image, matrix, order)
    ours = sa.warp_frame(image, matrix, order=order, fill="nan")
    assert ours.dtype == np.float64
    assert np.abs(ours - wanted)[covered].max() < 1e-10


@pytest.mark.parametrize("order", ORDERS[1:])
def test_coordinates_are_exact_not_in_steps_of_a_32nd_of_a_pixel(order):
    # a ramp is reproduced by every spline away from the border, so what comes out tells the coordinate itself
    ramp = np.tile(np.arange(64, dtype=np.float64), (32, 1)) * 100
    for shift in (1 / 64, 0.013, 0.7071, 1e-4):
        moved = sa.warp_frame(ramp, translation(0.0, shift), order=order)
        inner = moved[12:20, 24:40] - ramp[12:20, 24:40]
        assert np.abs(inner / -100 - shift).max() < 1e-7
    turned = sa.warp_frame(ramp, rotation(ramp.shape, 0.01, (0.2, 0.003)), order=order)
    source = coordinates(rotation(ramp.shape, 0.01, (0.2, 0.003)), ramp.shape)[1]
    assert np.abs(turned[12:20, 24:40] / 100 - source[12:20, 24:40]).max() < 1e-7


# fill and validity


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("motion", MOTIONS_2D)
def test_edge_repeats_the_border(rng, motion, order):
    image, matrix = smooth(rng, (41, 57)), MOTIONS_2D[motion]
    ours = sa.warp_frame(image, matrix, order=order, fill="edge")
    _, covered = oracle(image, matrix, order)
    source = coordinates(matrix, image.shape)
    limit = np.array(image.shape).reshape(2, 1, 1) - 1.0
    wanted = ndimage.map_coordinates(image.astype(float), np.clip(source, 0, limit), order=order, mode="mirror")
    # for order 0 a source half-way between two pixels may fall either way
    clear = (np.abs(source - np.floor(source) - 0.5) > 1e-9).all(0) | (order > 0)
    assert (~covered).any()
    assert np.abs(ours - wanted)[clear].max(initial=0) < TOLERANCE


def test_edge_repeats_the_border_for_whole_pixels_too():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for order in ORDERS:
        ours = sa.warp_frame(image, translation(1, -2), order=order, fill="edge")
        assert ours.tolist() == [[2, 3, 3, 3], [2, 3, 3, 3], [6, 7, 7, 7]]
        far = sa.warp_frame(image, translation(100, 0), order=order, fill="edge")
        assert far.tolist() == [[0, 1, 2, 3]] * 3
        part = sa.warp_frame(image, np.eye(3), order=order, fill="edge", output_shape=(2, 3), origin=(2, 3))
        assert part.tolist() == [[11, 11, 11]] * 2


@pytest.mark.parametrize("fill", [0.0, 7.0, -3.5])
@pytest.mark.parametrize("order", ORDERS)
def test_a_constant_fills_what_is_not_covered_and_nothing_else(rng, order, fill):
    image, matrix = smooth(rng, (41, 57)), MOTIONS_2D["rotation"]
    ours = sa.warp_frame(image, matrix, order=order, fill=fill)
    mask = sa.valid_mask(image.shape, matrix)
    blank = sa.warp_frame(image, matrix, order=order, fill="nan")
    assert (ours[~mask] == np.float32(fill)).all()
    assert np.array_equal(ours[mask], blank[mask])
    assert np.isfinite(blank[mask]).all()


@pytest.mark.parametrize(("value", "stored"), [(-5.0, 0), (300.0, 255), (3.6, 4)])
def test_a_fill_that_integers_cannot_hold_is_rounded_and_clipped(value, stored):
    image = np.full((6, 7), 100, np.uint8)
    for matrix in (translation(2, 0), translation(2.5, 0.25), rotation((6, 7), 0.5, (3, 0))):
        for order in ORDERS:
            ours = sa.warp_frame(image, matrix, order=order, fill=value)
            mask = sa.valid_mask(image.shape, matrix)
            assert (ours[~mask] == stored).all()
            assert (ours[mask] == 100).all()


@pytest.mark.parametrize("motion", MOTIONS_2D)
def test_valid_mask_is_where_the_source_lies_in_the_frame(motion):
    matrix = MOTIONS_2D[motion]
    _, covered = oracle(np.zeros((41, 57)), matrix, 1)
    assert np.array_equal(sa.valid_mask((41, 57), matrix), covered)
    assert np.array_equal(sa.valid_mask((41, 57), sa.Transform(matrix, "projective")), covered)


@pytest.mark.parametrize("motion", MOTIONS_3D)
def test_valid_mask_in_3d(motion):
    matrix = MOTIONS_3D[motion]
    _, covered = oracle(np.zeros((9, 31, 26)), matrix, 1)
    assert np.array_equal(sa.valid_mask((9, 31, 26), matrix), covered)


def test_valid_mask_of_a_part_of_the_output():
    matrix = MOTIONS_2D["rotation"]
    whole = sa.valid_mask((41, 57), matrix, output_shape=(60, 80), origin=(-10, -12))
    part = sa.valid_mask((41, 57), matrix, output_shape=(20, 30), origin=(-4, 1))
    assert np.array_equal(whole[6:26, 13:43], part)


def test_what_lies_behind_a_projective_camera_is_not_covered():
    matrix = np.linalg.inv(np.array([[1.0, 0, 0], [0, 1, 0], [0, -0.05, 1.0]]))  # divides by zero in column 20
    mask = sa.valid_mask((30, 40), matrix)
    image = np.ones((30, 40), np.float32)
    assert not mask[:, 20:].any()
    assert np.array_equal(np.isfinite(sa.warp_frame(image, matrix, order=1, fill="nan")), mask)


# whole pixels, labels, dtypes


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64]
)
@pytest.mark.parametrize("order", ORDERS)
def test_whole_pixel_shifts_copy_every_value(rng, dtype, order):
    image = rng.integers(0, 250, (23, 31)).astype(dtype)
    if np.dtype(dtype).kind in "iu":
        image.flat[:2] = np.iinfo(dtype).min, np.iinfo(dtype).max
    ours = sa.warp_frame(image, translation(4, -6), order=order, fill=9)
    assert ours.dtype == dtype
    assert np.array_equal(ours[4:, :-6], image[:-4, 6:])
    assert (ours[:4] == 9).all()
    assert (ours[:, -6:] == 9).all()


def test_whole_pixel_shifts_of_volumes_copy(rng):
    image = rng.integers(0, 65535, (5, 11, 13), dtype=np.uint16)
    ours = sa.warp_frame(image, translation(-1, 2, 3))
    assert np.array_equal(ours[:-1, 2:, 3:], image[1:, :-2, :-3])
    assert not ours[-1].any()


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint64])
def test_labels_stay_labels(dtype):
    # values that no float32 holds, and (for 64 bits) no float64 either
    low = 2**24 + 1 if np.dtype(dtype).itemsize == 4 else 2**60 + 1
    labels = np.zeros((40, 52), dtype)
    labels[8:20, 10:30], labels[24:36, 20:44] = low, low + 2
    for matrix in (rotation(labels.shape, 0.3, (2.4, -1.1)), translation(1.3, -2.6)):
        ours = sa.warp_frame(labels, matrix, order=0)
        assert ours.dtype == dtype
        assert set(np.unique(ours).tolist()) == {0, low, low + 2}


def test_masks_are_warped_by_nearest_whatever_the_order(rng):
    mask = ndimage.binary_opening(rng.random((40, 52)) > 0.3)
    matrix = rotation(mask.shape, 0.2, (1.2, 0.7))
    ours = sa.warp_frame(mask, matrix, order=3)
    assert ours.dtype == bool
    assert np.array_equal(ours, sa.warp_frame(mask, matrix, order=0))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.int32])
@pytest.mark.parametrize("order", ORDERS[1:])
def test_integers_are_rounded_and_clipped_where_the_spline_overshoots(dtype, order):
    info = np.iinfo(dtype)
    image = np.full((30, 36), info.min, dtype)
    image[:, 18:] = info.max  # a cubic spline rings here, beyond what the dtype holds
    image[::3] = info.max // 2
    matrix = translation(0.37, 0.61)
    wanted, covered = oracle(image, matrix, order)
    ours = sa.warp_frame(image, matrix, order=order)
    rounded = np.clip(np.rint(wanted), info.min, info.max)
    span = float(info.max) - info.min
    assert ours.dtype == dtype
    assert np.abs(ours.astype(float) - rounded)[covered].max() <= max(1, TOLERANCE * span)
    if order > 1:
        assert (wanted[covered] > info.max + 0.01 * span).any()
        assert (ours[covered & (wanted > info.max + 1)] == info.max).all()


def test_a_rounding_below_a_pixel_counts_as_a_whole_pixel(rng):
    image = rng.integers(0, 65535, (20, 24), dtype=np.uint16)
    ours = sa.warp_frame(image, translation(3 - 1e-12, -2 + 1e-12))
    assert np.array_equal(ours[3:, :-2], image[:-3, 2:])


@pytest.mark.parametrize("shape", [(1, 20), (20, 1), (2, 3), (1, 1)])
@pytest.mark.parametrize("order", ORDERS)
def test_thin_frames(shape, order):
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 1
    assert np.allclose(sa.warp_frame(image, np.eye(3), order=order), image)
    ours = sa.warp_frame(image, translation(0.25, 0.25), order=order, fill="edge")
    assert np.isfinite(ours).all()


def test_views_and_other_byte_orders_give_the_same_as_plain_arrays(rng):
    image, matrix = smooth(rng, (30, 44)), MOTIONS_2D["rotation"]
    for order in ORDERS:
        wanted = sa.warp_frame(image, matrix, order=order)
        for other in (np.asfortranarray(image), image[::-1][::-1], np.repeat(image, 2, axis=1)[:, ::2]):
            assert np.array_equal(sa.warp_frame(other, matrix, order=order), wanted)
        swapped = sa.warp_frame(image.astype(">f4"), matrix, order=order)
        assert swapped.dtype == np.dtype(">f4")
        assert np.array_equal(swapped, wanted)


def test_out_is_written_in_place_and_its_shape_is_checked(rng):
    image = smooth(rng, (12, 15))
    matrix = translation(0.5, 0.25)
    for target in (np.empty((12, 15), np.float32), np.empty((12, 30), np.float32)[:, ::2]):
        assert sa.warp_frame(image, matrix, out=target) is target
        assert np.array_equal(target, sa.warp_frame(image, matrix))
    with pytest.raises(ValueError, match=r"out must be \(12, 15\) float32, got \(15, 12\) float32"):
        sa.warp_frame(image, matrix, out=np.empty((15, 12), np.float32))


def test_the_frame_that_comes_in_is_left_alone(rng):
    image = smooth(rng, (20, 24))
    image[3, 4] = np.nan
    kept = image.copy()
    for order in ORDERS:
        sa.warp_frame(image, MOTIONS_2D["rotation"], order=order)
    assert np.array_equal(image, kept, equal_nan=True)


# holes


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", [(40, 52), (7, 20, 24)])
def test_holes_stay_holes_and_spoil_nothing_beyond_their_reach(rng, shape, order):
    image = smooth(rng, shape)
    hole = tuple(n // 2 for n in shape)
    holed = image.copy()
    holed[hole] = np.nan
    shift = (0.3,) * len(shape)
    ours = sa.warp_frame(holed, translation(*shift), order=order, fill=0.0)
    whole = sa.warp_frame(image, translation(*shift), order=order, fill=0.0)
    lost = np.argwhere(~np.isfinite(ours))
    assert len(lost)
    assert np.isnan(ours[hole])
    assert np.abs(lost - hole).max() <= {0: 0, 1: 1, 3: 6, 5: 9}[order]
    kept = np.isfinite(ours)
    # beyond the reach the spline hardly feels what stood in the hole
    assert np.abs(ours - whole)[kept].max() < 2e-3


@pytest.mark.parametrize("order", ORDERS)
def test_a_frame_of_nothing_stays_nothing(order):
    empty = np.full((12, 14), np.nan, np.float32)
    assert np.isnan(sa.warp_frame(empty, rotation((12, 14), 0.2, (0.4, 0)), order=order, fill="nan")).all()


def test_infinite_pixels_are_holes_too(rng):
    image = smooth(rng, (30, 30))
    image[10, 12] = np.inf
    ours = sa.warp_frame(image, translation(0.4, 0.4), order=3)
    assert np.isnan(ours[10, 12])
    assert np.isfinite(ours[20:, 20:]).all()


def test_whole_pixel_shifts_carry_holes_along(rng):
    image = smooth(rng, (12, 14))
    image[5, 6] = np.nan
    ours = sa.warp_frame(image, translation(2, -1))
    assert np.argwhere(np.isnan(ours)).tolist() == [[7, 5]]


# stacks


def movie(rng, dtype=np.uint16):
    frames = np.stack([smooth(rng, (30, 44)) for _ in range(5)]) * 60000
    shifts = np.array([[0.0, 0.0], [2.4, -1.3], [-3.2, 0.6], [1.0, 4.0], [0.2, -2.7]])
    return frames.astype(dtype), sa.TransformSeries.from_translations(shifts)


def test_a_stack_is_warped_lazily_frame_by_frame(rng):
    frames, series = movie(rng)
    reads = []

    class Counting:
        shape, dtype = frames.shape, frames.dtype

        def __getitem__(self, t):
            reads.append(t)
            return frames[t]

    source = sa.ImageStack(Counting(), pixel_size=(0.1, 0.2), interval=0.5, name="cells", unit="nm")
    fixed = sa.warp(source, series)
    assert reads == []
    assert isinstance(fixed.frames, da.Array)
    assert fixed.frames.chunks == ((1,) * 5, (30,), (44,))
    assert (fixed.dtype, fixed.shape) == (np.uint16, frames.shape)
    assert (fixed.pixel_size, fixed.interval, fixed.unit, fixed.name) == ((0.1, 0.2), 0.5, "nm", "cells")
    one = fixed[3]
    assert reads == [3]
    assert np.array_equal(one, sa.warp_frame(frames[3], series[3]))
    assert np.array_equal(np.asarray(fixed.frames[3]), one)


def test_dask_numpy_and_memmap_give_the_same_whatever_the_chunks(rng, tmp_path):
    frames, series = movie(rng)
    wanted = sa.warp(frames, series).asarray()
    mapped = np.memmap(tmp_path / "frames", np.uint16, "w+", shape=frames.shape)
    mapped[:] = frames
    for other in (mapped, da.from_array(frames, (2, 7, 44)), da.from_array(frames, (5, 30, 11))):
        assert np.array_equal(sa.warp(other, series).asarray(), wanted)
    lazy = sa.warp(frames, series).frames
    assert np.array_equal(np.asarray(lazy), wanted)
    assert np.array_equal(np.asarray(lazy[1:4, 3:9, ::2]), wanted[1:4, 3:9, ::2])
    assert np.array_equal(np.asarray(lazy.rechunk((5, 8, 9))), wanted)


def test_threads_do_not_change_a_bit(rng, restored_threads):
    image, volume = smooth(rng, (300, 410)), smooth(rng, (12, 70, 90))
    results = []
    for count in (1, 2, 3):
        sa.set_threads(count)
        results.append(
            [sa.warp_frame(image, rotation(image.shape, 0.1, (1.3, 2)), order=o).tobytes() for o in ORDERS]
            + [sa.warp_frame(image, translation(1.3, 2.2), order=o).tobytes() for o in ORDERS]
            + [sa.warp_frame(volume, rotation(volume.shape, 0.1, (1, 1.3, 2)), order=o).tobytes() for o in ORDERS]
        )
    assert results[0] == results[1] == results[2]


def test_crop_none_keeps_the_field_of_the_frames(rng):
    frames, series = movie(rng)
    fixed = sa.warp(frames, series, crop="none")
    assert fixed.shape == frames.shape
    assert fixed.metadata["origin"] == (0.0, 0.0)


def test_crop_valid_is_covered_by_all_frames_and_cannot_be_wider(rng):
    frames, series = movie(rng, np.float32)
    box = common_box((30, 44), series)
    fixed = sa.warp(frames, series, fill="nan", crop="valid")
    assert fixed.metadata["origin"] == tuple(box.start)
    assert np.isfinite(fixed.asarray()).all()
    covered = np.all([sa.valid_mask((30, 44), t) for t in series], axis=0)
    rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
    assert box.bounds == (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)
    whole = sa.warp(frames, series, fill="nan").asarray()
    assert np.array_equal(fixed.asarray(), whole[(slice(None), *box.slices)])


def test_crop_valid_of_turned_frames_is_the_largest_box(rng):
    transforms = [
        sa.Transform.from_rotation(np.deg2rad(a), shift, (14.5, 21.5))
        for a, shift in [(0, (0, 0)), (8, (1.5, -2)), (-5, (0.3, 3))]
    ]
    series = sa.TransformSeries.from_transforms(transforms)
    box = common_box((30, 44), series)
    covered = np.all([sa.valid_mask((30, 44), t) for t in series], axis=0)
    assert covered[box.slices].all()
    assert np.prod(box.shape) == largest_rectangle(covered)
    assert np.isfinite(sa.warp(np.ones((3, 30, 44), np.float32), series, fill="nan", crop="valid").asarray()).all()


def largest_rectangle(mask):
    """Return the area of the largest rectangle of True, by trying all."""
    total = np.pad(mask.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    h, w = mask.shape
    best = 0
    for y0 in range(h):
        for y1 in range(y0 + 1, h + 1):
            for x0 in range(w):
                widths = np.arange(x0 + 1, w + 1)
                count = total[y1, widths] - total[y0, widths] - total[y1, x0] + total[y0, x0]
                full = widths[count == (y1 - y0) * (widths - x0)]
                if len(full):
                    best = max(best, (y1 - y0) * (int(full[-1]) - x0))
    return best


def test_crop_expand_holds_every_frame_whole(rng):
    frames, series = movie(rng, np.float32)
    fixed = sa.warp(frames, series, fill="nan", crop="expand")
    box = expanded_box((30, 44), series)
    assert fixed.metadata["origin"] == tuple(box.start)
    assert box.bounds == (-4, 33, -3, 48)
    for t, frame in enumerate(fixed.asarray()):
        valid = np.isfinite(frame)
        whole = series.translations[t] == np.round(series.translations[t])
        assert valid.sum() == np.prod(np.array([30, 44]) - ~whole)  # a fraction of a pixel costs one row and column


def test_frames_that_are_not_valid_do_not_shrink_the_crop():
    shifts = np.array([[0, 0], [500, 0], [2, -3]])
    series = sa.TransformSeries.from_translations(shifts, [True, False, True])
    assert common_box((30, 44), series).bounds == (2, 30, 0, 41)
    assert expanded_box((30, 44), series).bounds == (0, 32, -3, 44)


def test_crop_in_3d():
    series = sa.TransformSeries.from_translations([[0, 0, 0], [1, -2.5, 3]])
    origin, shape = output_box((6, 20, 24), series, "valid")
    assert (origin.tolist(), shape) == ([1, 0, 3], (5, 17, 21))
    origin, shape = output_box((6, 20, 24), series, "expand")
    assert (origin.tolist(), shape) == ([0, -3, 0], (7, 23, 27))


def test_frames_that_share_nothing_are_named():
    series = sa.TransformSeries.from_translations([[0, 0], [1, 1], [0, 60], [1, 2]])
    with pytest.raises(ValueError, match=r"no pixel is covered by all frames; frame 2 lies farthest"):
        sa.warp(np.zeros((4, 30, 44)), series, crop="valid")


def test_one_frame_is_resampled_at_sources_like_by_its_matrix(rng):
    image = smooth(rng, (41, 57))
    for name, matrix in MOTIONS_2D.items():
        sources = coordinates(matrix, image.shape)
        for fill in ("edge", "nan"):
            ours = warp_sources(image, sources, order=3, fill=fill)
            wanted = sa.warp_frame(image, matrix, order=3, fill=fill)
            assert np.array_equal(np.isnan(ours), np.isnan(wanted)), name
            assert np.nanmax(np.abs(ours - wanted)) < 1e-5


# misuse


def test_misuse_is_named():
    frames = np.zeros((3, 8, 9), np.uint16)
    series = sa.TransformSeries.identity(3, 2)
    with pytest.raises(ValueError, match=r"order must be one of \(0, 1, 3, 5\), not 2"):
        sa.warp(frames, series, order=2)
    with pytest.raises(ValueError, match="fill must be a number, 'nan' or 'edge', not 'mirror'"):
        sa.warp(frames, series, fill="mirror")
    with pytest.raises(ValueError, match="uint16 pixels cannot hold NaN"):
        sa.warp(frames, series, fill="nan")
    with pytest.raises(ValueError, match="uint16 pixels cannot hold NaN"):
        sa.warp_frame(frames[0], np.eye(3), fill=np.nan)
    with pytest.raises(ValueError, match="crop must be 'none', 'valid' or 'expand', not 'both'"):
        sa.warp(frames, series, crop="both")
    with pytest.raises(ValueError, match="2 transforms for 3 frames"):
        sa.warp(frames, sa.TransformSeries.identity(2, 2))
    with pytest.raises(ValueError, match="3-D transforms for 2-D frames"):
        sa.warp(frames, sa.TransformSeries.identity(3, 3))
    with pytest.raises(ValueError, match=r"a frame of shape \(8, 9\) needs a \(3, 3\) matrix, got \(4, 4\)"):
        sa.warp_frame(frames[0], np.eye(4))
