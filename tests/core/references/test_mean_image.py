"""The mean and the median of frames where they lie."""

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.references.mean_image import Aligned, mean_image, median_image
from stackalign.core.transform import TransformModel
from tests.contract.cases import DRIFT, DRIFT_3D, moved, scene


def last(work):
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return stop.value


def places(drift):
    return [Aligned(sa.Transform.from_translation(-d).matrix) for d in drift]


def average(frames, drift, model=TransformModel.TRANSLATION, **changes):
    where = changes.get("places", places(drift))
    return last(mean_image(frames.__getitem__, range(len(frames)), where, frames.shape[1:], model))


def still(shape=(72, 88), seed=0):
    return moved(scene(shape, seed), np.zeros((1, len(shape))))[0]


@pytest.mark.parametrize("model", [TransformModel.TRANSLATION, TransformModel.AFFINE])
@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_the_mean_of_aligned_frames_is_the_scene(model, dtype):
    frames = (moved(scene((72, 88)), DRIFT) * 50000).clip(0).astype(dtype)
    mean = average(frames, DRIFT, model)
    assert mean.dtype == np.float32
    inner = (slice(8, -8), slice(8, -8))
    assert np.abs(mean / 50000 - still())[inner].max() < 0.01


def test_both_ways_to_add_agree_where_all_frames_count():
    frames = moved(scene((72, 88)), DRIFT).astype(np.float32)
    a, b = (average(frames, DRIFT, m) for m in (TransformModel.TRANSLATION, TransformModel.EUCLIDEAN))
    assert np.nanmax(np.abs(a - b)[10:-10, 10:-10]) < 2e-3


def test_volumes_of_many_and_of_few_planes():
    for planes in (14, 4):
        drift = DRIFT_3D * [planes > 8, 1, 1]
        frames = moved(scene((planes, 40, 48), 3), drift).astype(np.float32)
        mean = average(frames, drift)
        wanted = still((planes, 40, 48), 3)
        inner = (slice(4, -4) if planes > 8 else slice(None), slice(6, -6), slice(6, -6))
        assert np.isfinite(mean[inner]).all()
        assert np.abs(mean - wanted)[inner].max() < 0.02


def test_brightness_is_divided_out():
    frames = moved(scene((72, 88)), DRIFT).astype(np.float32)
    gains, offsets = np.linspace(1, 0.3, 8), np.linspace(0, 500, 8)
    dimmed = frames * gains[:, None, None].astype(np.float32) + offsets[:, None, None].astype(np.float32)
    where = [Aligned(p.matrix, g, o) for p, g, o in zip(places(DRIFT), gains, offsets, strict=True)]
    mean = average(dimmed, DRIFT, places=where)
    assert np.abs(mean - still())[8:-8, 8:-8].max() < 0.02


def test_pixels_that_too_few_frames_cover_are_not_known():
    frames = np.ones((6, 40, 44), np.float32) * np.arange(44, dtype=np.float32)
    drift = np.zeros((6, 2))
    drift[:2, 0] = 20  # two of six frames lie 20 px higher: the rows that they alone cover stay unknown
    mean = average(frames[:, :], drift)
    assert np.isfinite(mean[5:35, 5:-5]).all()
    drift[:5, 0] = 12  # now one frame alone covers the last rows
    mean = average(frames, drift)
    assert np.isfinite(mean[5:26, 5:-5]).all()
    assert np.isnan(mean[28:]).all()


def test_holes_are_left_out():
    frames = moved(scene((72, 88)), DRIFT).astype(np.float32)
    frames[2, 20:30, 20:40] = np.nan
    for model in (TransformModel.TRANSLATION, TransformModel.AFFINE):
        mean = average(frames, DRIFT, model)
        assert np.isfinite(mean[10:-10, 10:-10]).all()
        assert np.abs(mean - still())[8:-8, 8:-8].max() < 0.02


def test_the_median_forgets_what_passes_by():
    frames = moved(scene((72, 88)), DRIFT).astype(np.float32)
    passing = frames.copy()
    for t in range(8):
        passing[t, 20 + 4 * t : 24 + 4 * t, 40:44] += 30
    middle = last(median_image(passing.__getitem__, range(8), places(DRIFT), (72, 88)))
    assert np.abs(middle - still())[8:-8, 8:-8].max() < 0.05
    assert np.abs(average(passing, DRIFT) - still())[8:-8, 8:-8].max() > 1


def test_it_counts_the_frames_that_are_done():
    frames = np.ones((20, 16, 16), np.float32)
    where = [Aligned(np.eye(3))] * 20
    assert list(mean_image(frames.__getitem__, range(20), where, (16, 16), TransformModel.TRANSLATION))[-1] == 20
    assert list(median_image(frames.__getitem__, range(20), where, (16, 16))) == list(range(1, 21))
