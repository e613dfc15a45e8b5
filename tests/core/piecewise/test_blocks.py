"""Blocks after translations: accuracy on smooth non-rigid motion against truth, and the way through the program."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage import data

import stackalign as sa
from stackalign.core.piecewise.series import BlockGrid, PiecewiseSeries

SHAPE = (160, 192)


def movie(frames: int = 9, amplitude: float = 1.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames of a photograph that drifts and bends, where in the scene pixels look (T, 2, y, x), that scene."""
    rng = np.random.default_rng(seed)
    scene = gaussian_filter(data.brick().astype(float), 1.3)
    shift = gaussian_filter(rng.normal(0, 1, (frames, 2)), (2, 0))
    shift *= 4 / shift.std()
    coarse = gaussian_filter(rng.normal(0, 1, (frames, 5, 5, 2)), (2, 0.8, 0.8, 0))
    coarse *= amplitude / coarse.std()
    grid, pixels = BlockGrid(SHAPE, (5, 5)), np.indices(SHAPE).astype(float)
    corner = np.array([100.0, 120.0])[:, None, None]
    looks = np.array(
        [
            pixels + gaussian_filter(grid.field(c, SHAPE), (0, 8, 8)) + s[:, None, None]
            for c, s in zip(coarse, shift, strict=True)
        ]
    )
    light = np.array([map_coordinates(scene, at + corner, order=5) for at in looks])
    level = 1000 / light.mean()
    noisy = rng.poisson(light * level) + rng.normal(0, 2, light.shape) + 100
    image = map_coordinates(scene, pixels + corner, order=5) * level + 100
    return np.clip(np.round(noisy), 0, 65535).astype(np.uint16), looks, image.astype(np.float32)


def off(series: sa.TransformSeries, looks: np.ndarray) -> np.ndarray:
    """How far the alignment puts things from where the scene has them, on pixels that all frames show, (T, 2, y, x)."""
    out = np.full((len(looks), 2, *SHAPE), np.nan)
    for t, look in enumerate(looks):
        if isinstance(series, PiecewiseSeries):
            at = series.sources(t, SHAPE)
        else:
            at = np.indices(SHAPE) - series.translations[t][:, None, None]
        inside = ((at >= 4) & (at <= np.array(SHAPE)[:, None, None] - 5)).all(axis=0)
        found = np.array([map_coordinates(c, at, order=1, mode="nearest") for c in look]) - np.indices(SHAPE)
        out[t] = np.where(inside, found, np.nan)
    return np.where(np.isfinite(out).all(axis=(0, 1)), out, np.nan)


def rms(error: np.ndarray) -> float:
    return float(np.sqrt(np.nanmean(error**2)))


@pytest.fixture(scope="module")
def bent():
    return movie()


def test_blocks_against_a_known_image_are_many_times_closer_to_the_truth_than_translations(bent) -> None:
    frames, looks, image = bent
    rigid = sa.register(frames, sa.CrossCorrelation(), reference=image)
    found = sa.register(frames, sa.CrossCorrelation(blocks=True, block_spacing=32), reference=image)
    assert not found.quality.flagged.any()
    before, after = (rms(off(r.transforms, looks)) for r in (rigid, found))
    assert before > 0.8
    assert after < 0.13  # lines between nodes cannot follow every bend: 0.1 px is left without noise too
    assert (found.quality.correlation > rigid.quality.correlation).all()


def test_blocks_against_the_mean_show_the_same_point_of_the_scene_in_all_frames(bent) -> None:
    frames, looks, _ = bent
    found = sa.register(frames, sa.CrossCorrelation(blocks=True, block_spacing=32))
    points = off(found.transforms, looks)
    assert rms(points - points.mean(axis=0)) < 0.16  # the mean has a deformation of its own, the same for all
    before, after = (sa.measure(frames, s) for s in (found.transforms.rigid, found.transforms))
    assert after.correlation_after > before.correlation_after + 0.02
    assert after.crispness_after > 1.03 * before.crispness_after


def test_the_frame_named_as_the_reference_is_at_rest(bent) -> None:
    frames, looks, _ = bent
    found = sa.register(frames, sa.CrossCorrelation(blocks=True, block_spacing=32), reference=3)
    np.testing.assert_allclose(found.transforms.translations[3], 0, atol=1e-9)
    np.testing.assert_allclose(found.transforms.shifts[3], 0, atol=1e-9)
    points = off(found.transforms, looks)
    assert rms(points - points[3]) < 0.22


def test_blocks_go_through_warp_files_and_crops(bent, tmp_path) -> None:
    frames, _, _ = bent
    series = sa.register(frames, sa.CrossCorrelation(blocks=True)).transforms
    back = sa.load_transforms(sa.save_transforms(tmp_path / "t.json", series))
    assert isinstance(back, PiecewiseSeries)
    for name in ("matrices", "shifts", "valid"):
        np.testing.assert_array_equal(getattr(back, name), getattr(series, name))
    assert back.grid == series.grid
    aligned = sa.warp(frames, back, crop="valid")
    assert aligned.dtype == frames.dtype
    assert (aligned.asarray() > 0).all()
    assert {"blocks_rms_px", "translation_y_px"} <= set(series.to_frame().columns)


def test_a_bad_frame_keeps_its_neighbours_blocks(bent) -> None:
    frames = bent[0].copy()
    frames[6] = 0
    found = sa.register(frames, sa.CrossCorrelation(blocks=True))
    assert found.quality.flagged.tolist() == [t == 6 for t in range(len(frames))]
    np.testing.assert_allclose(found.transforms.shifts[6], found.transforms.shifts[[5, 7]].mean(axis=0))


def test_still_frames_get_no_blocks_worth_naming() -> None:
    stack, _ = sa.simulate(scene="texture", shape=(128, 128), frames=8, motion="random-walk", seed=2)
    found = sa.register(stack, sa.CrossCorrelation(blocks=True))
    error = found.details["block_error"]
    assert np.sqrt((found.transforms.shifts**2).mean()) < 1.5 * np.sqrt(np.nanmean(error**2))


def test_rigid_is_the_default_and_volumes_are_refused() -> None:
    assert not sa.CrossCorrelation().blocks
    with pytest.raises(ValueError, match="switch them off"):
        sa.register(np.zeros((3, 4, 16, 16)), sa.CrossCorrelation(blocks=True))
