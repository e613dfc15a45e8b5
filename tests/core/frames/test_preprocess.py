"""Region, band-pass and window."""

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.frames.preprocess import FilteredRegistrar


def test_a_box_counts_its_pixels_and_no_others():
    mask = sa.Preprocess(region=(2, 5, 3, 7)).mask((10, 12))
    assert mask.dtype == bool
    assert np.argwhere(mask).min(0).tolist() == [2, 3]
    assert np.argwhere(mask).max(0).tolist() == [4, 6]
    assert mask.sum() == 12
    assert sa.Preprocess(region=sa.Box(2, 5, 3, 7)) == sa.Preprocess(region=[2, 5, 3, 7])


def test_a_box_that_reaches_out_is_cut():
    assert sa.Preprocess(region=(-3, 100, 8, 200)).mask((10, 12)).sum() == 40


def test_a_polygon_counts_what_lies_inside():
    mask = sa.Preprocess(region=((1.0, 1.0), (1.0, 9.0), (9.0, 1.0))).mask((11, 12))
    assert mask[2, 2]
    assert not mask[8, 8]
    assert 25 < mask.sum() < 50


def test_in_volumes_all_planes_count():
    mask = sa.Preprocess(region=(0, 2, 0, 3)).mask((4, 5, 6))
    assert mask.shape == (4, 5, 6)
    assert mask.sum() == 4 * 6


def test_no_region_is_no_mask():
    assert sa.Preprocess().mask((5, 6)) is None


def test_regions_survive_json():
    for region in ((1, 2, 3, 4), ((0.5, 1.0), (2.0, 3.0), (4.0, 0.0))):
        record = sa.Preprocess(region=region)
        assert sa.Preprocess.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize(
    ("region", "message"),
    [((5, 2, 0, 3), "y0 < y1"), (((0.0, 0.0), (1.0, 1.0)), "at least three corners"), ((1, 2, 3), "."), ("all", ".")],
)
def test_a_region_that_is_none_is_refused(region, message):
    with pytest.raises(ValueError, match=message):
        sa.Preprocess(region=region)


def test_a_region_beside_the_frame_is_refused():
    with pytest.raises(ValueError, match="holds no pixel of a frame of 10 x 12"):
        sa.Preprocess(region=(20, 30, 0, 5)).mask((10, 12))


def test_the_band_pass_takes_fine_detail_and_coarse_shades_away():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:80, :90].astype(np.float32)
    shade = 50 * np.sin(y / 60)
    detail = rng.normal(0, 5, y.shape).astype(np.float32)
    blobs = 20 * np.cos(x / 3)
    record = FilteredRegistrar(low_sigma=1.0, high_sigma=8.0)
    kept = record.filtered(shade + detail + blobs)
    assert kept.dtype == np.float32
    inner = (slice(20, -20), slice(20, -20))
    assert np.corrcoef(kept[inner].ravel(), blobs[inner].ravel())[0, 1] > 0.95
    assert abs(kept[inner].mean()) < 2


def test_nothing_to_filter_returns_the_very_frame():
    frame = np.arange(12, dtype=np.uint16).reshape(3, 4)
    assert FilteredRegistrar().filtered(frame) is frame


def test_holes_stay_holes_in_the_band_pass():
    frame = np.random.default_rng(1).random((30, 32)).astype(np.float32)
    frame[5, 6] = np.nan
    kept = FilteredRegistrar(low_sigma=1).filtered(frame)
    assert np.argwhere(~np.isfinite(kept)).tolist() == [[5, 6]]


def test_bands_that_hold_nothing_are_refused():
    with pytest.raises(ValueError, match="must be larger"):
        FilteredRegistrar(low_sigma=5, high_sigma=3)
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        FilteredRegistrar(low_sigma=-1)


@pytest.mark.parametrize("window", ["hann", "tukey"])
@pytest.mark.parametrize("shape", [(40, 52), (3, 20, 24), (1, 40)])
def test_windows_fall_towards_the_borders_and_never_to_zero(window, shape):
    weight = FilteredRegistrar(window=window).weights(shape)
    assert weight.shape == shape
    assert weight.min() > 0
    assert weight.max() <= 1
    middle = tuple(n // 2 for n in shape)
    assert weight[middle] > 0.9
    assert weight[..., 0].max() < 0.25
    assert np.allclose(weight, weight[..., ::-1])
    assert FilteredRegistrar().weights(shape) is None
