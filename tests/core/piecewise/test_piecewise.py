"""Piecewise-rigid motion: the series, and the estimate of all blocks of one frame at once."""

import json

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from stackalign import Transform, TransformSeries
from stackalign.core.piecewise.block_template import BlockTemplate
from stackalign.core.piecewise.series import BlockGrid, PiecewiseSeries


def series(length: int = 4, shape: tuple[int, int] = (40, 60)) -> PiecewiseSeries:
    rng = np.random.default_rng(0)
    rigid = TransformSeries.from_translations(rng.normal(0, 3, (length, 2)), [True, True, False, True][:length])
    grid = BlockGrid.with_spacing(shape, 16)
    return PiecewiseSeries(rigid.matrices, rigid.model, rigid.valid, grid, rng.normal(0, 1, (length, *grid.shape, 2)))


def test_grid_spans_the_frame_and_interpolates_its_own_nodes() -> None:
    grid = BlockGrid.with_spacing((41, 61), 20)
    assert grid.shape == (3, 4)
    shifts = np.random.default_rng(1).normal(size=(*grid.shape, 2))
    field = grid.field(shifts, (41, 61))
    np.testing.assert_allclose(field[:, ::20, ::20], np.moveaxis(shifts, -1, 0), atol=1e-12)
    np.testing.assert_allclose(field[:, 10, 30], shifts[:2, 1:3].mean((0, 1)), atol=1e-12)


def test_field_of_a_moved_grid_moves_along() -> None:
    s = series()
    moved = s.grid.moved((5.0, -2.0))
    np.testing.assert_allclose(
        moved.field(s.shifts[0], (10, 10), (15.0, 8.0)), s.grid.field(s.shifts[0], (10, 10), (10.0, 10.0)), atol=1e-12
    )


def test_rebasing_names_the_same_pixels_of_the_moving_frame() -> None:
    s = series()
    moved = s.rebased(3)
    assert isinstance(moved, PiecewiseSeries)
    np.testing.assert_allclose(moved.translations[3], 0, atol=1e-12)
    start = moved.translations[0] - s.translations[0]  # the old reference's origin in the new one
    np.testing.assert_allclose(moved.sources(1, (9, 9), start + 10), s.sources(1, (9, 9), (10.0, 10.0)), atol=1e-9)


def test_round_trip_through_json() -> None:
    s = series()
    back = PiecewiseSeries.from_dict(json.loads(json.dumps(s.to_dict())))
    assert isinstance(back, PiecewiseSeries)
    np.testing.assert_array_equal(back.shifts, s.shifts)
    np.testing.assert_array_equal(back.matrices, s.matrices)
    assert back.grid == s.grid


def test_invalid_frames_lie_between_their_neighbours() -> None:
    filled = series().interpolated()
    assert isinstance(filled, PiecewiseSeries)
    np.testing.assert_allclose(filled.shifts[2], (filled.shifts[1] + filled.shifts[3]) / 2)
    np.testing.assert_allclose(filled.translations[2], (filled.translations[1] + filled.translations[3]) / 2)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: BlockGrid((10, 10), (1, 4)), "between 2"),
        (lambda: BlockGrid((10, 10, 10), (2, 2)), "rigid model for volumes"),  # type: ignore[arg-type]
        (lambda: series().inverse, "no inverse"),
        (lambda: series().replaced(0, Transform.from_rotation(0.1)), "translation"),
        (lambda: PiecewiseSeries.from_dict(TransformSeries.identity(2, 2).to_dict()), "blocks"),
    ],
)
def test_misuse_is_named(make, says) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def textured(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (gaussian_filter(rng.normal(size=shape), 3) * 600 + 100).astype(np.float32)


@pytest.mark.parametrize("obstacle", [False, True])
def test_blocks_are_found_to_their_stated_error(obstacle: bool) -> None:
    reference = textured((160, 220))
    grid = BlockGrid((160, 220), (4, 5))
    rng = np.random.default_rng(2)
    truth = rng.normal(0, 1.5, (*grid.shape, 2))
    field = grid.field(truth, reference.shape)
    moving_at = np.indices(reference.shape).astype(float)
    source = moving_at.copy()
    for _ in range(40):  # invert p + u(p)
        source = moving_at - np.stack([map_coordinates(field[c], source, order=1, mode="nearest") for c in (0, 1)])
    noise = 3.0
    moving = map_coordinates(reference, source, order=5, mode="nearest") + rng.normal(0, noise, reference.shape)
    if obstacle:  # something bright over 4 % of the field
        moving[60:92, 80:120] += 300
    shifts = np.zeros_like(truth)
    for scale in (4.0, 0.0):
        template = BlockTemplate.prepare(reference, np.ones_like(reference), grid, noise, difference=2.0, scale=scale)
        smooth = gaussian_filter(moving, scale) if scale else moving
        for _ in range(8):
            at = np.indices(reference.shape) + grid.field(shifts, reference.shape)
            sampled = map_coordinates(smooth, at, order=3, mode="constant", cval=np.nan)
            shifts = shifts + template.step((template.image - sampled).astype(np.float32), shifts)
    error = grid.field(shifts - truth, reference.shape)
    inside = error[:, 15:-15, 15:-15]
    assert np.sqrt((inside**2).mean()) < (0.15 if obstacle else 0.04)
    if not obstacle:
        within = np.abs(shifts - truth) < np.sqrt(template.covariance)
        assert 0.5 < within.mean() < 0.85  # of 40; 65 +- 2 % of ten such pairs
