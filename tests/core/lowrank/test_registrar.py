"""REALS as a method: models, pixel types, frames that hold nothing, ranks, mini-batches, cancelling."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import maximum_filter

import stackalign as sa
from stackalign.core.evaluation import corner_bound
from stackalign.core.generators import moved_points
from stackalign.core.geometry import corners
from stackalign.core.lowrank.kernels import largest_nearby
from stackalign.core.lowrank.rescue import quiet
from stackalign.core.work import Cancelled, drain
from tests.core.lowrank.scenes import movie


def worst(result, truth):
    """Return the largest error of the corners of frames that count, pixels."""
    return float(truth.error(result.transforms)[result.transforms.valid].max())


def test_turned_frames_are_found_near_the_cramer_rao_bound():
    stack, truth = movie()
    result = sa.register(stack, sa.Reals())
    assert not result.quality.flagged.any()
    error = truth.error(result.transforms)
    assert np.sqrt((error**2).mean()) < 1.3 * corner_bound(truth, [1, 7]).mean()
    assert result.transforms.model == "euclidean"
    # a rotation in pixels, not a shear, on frames that are not square
    linear = result.transforms.matrices[:, :2, :2]
    assert np.allclose(linear @ linear.swapaxes(1, 2), np.eye(2), atol=1e-9)
    assert np.array_equal(result.transforms.matrices[0], np.eye(3))


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("translation", {}),
        ("similarity", {"stretch": 0.03}),
        ("affine", {"stretch": 0.03}),
        ("projective", {"stretch": 0.02, "perspective": 1.5}),
    ],
)
def test_every_model(model, fields):
    stack, truth = movie(model=model, **fields)
    result = sa.register(stack, sa.Reals(model=model))
    assert not result.quality.flagged.any()
    assert worst(result, truth) < 0.06
    if model == "affine":  # nothing shrinks
        assert np.abs(np.linalg.det(result.transforms.matrices[:, :2, :2]).mean() - 1) < 0.05


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_every_pixel_type(dtype):
    fields = {"photons": 60.0, "offset": 10.0} if dtype == "uint8" else {}
    stack, truth = movie(dtype=dtype, **fields)
    result = sa.register(stack, sa.Reals())
    assert worst(result, truth) < 0.1
    assert sa.warp(stack, result.transforms).frames.dtype == stack.frames.dtype


def test_a_blank_frame_is_flagged_and_spoils_no_other():
    stack, truth = movie()
    frames = stack.asarray().copy()
    frames[5] = 100
    result = sa.register(frames, sa.Reals())
    assert np.flatnonzero(result.quality.flagged).tolist() == [5]
    assert "blank" in result.quality.reasons[5]
    assert worst(result, truth) < 0.05


def test_equal_frames_do_not_move():
    frame = movie()[0].asarray()[0]
    result = sa.register(np.stack([frame] * 5), sa.Reals())
    assert not result.quality.flagged.any()
    assert np.abs(result.transforms.matrices - np.eye(3)).max() < 1e-4
    sparse = result.details["decomposition"].sparse
    assert np.nanmax(np.abs(np.asarray(sparse[2]))) < 0.02 * float(np.ptp(frame))


def test_frames_beyond_the_field_are_flagged_and_the_others_aligned():
    stack, truth = movie()
    frames = stack.asarray().copy()
    other = sa.simulate(scene="grass", shape=(121, 151), frames=1, photons=400, seed=8).stack.asarray()[0]
    frames[4] = other  # has nothing in common with the rest
    result = sa.register(frames, sa.Reals())
    assert np.flatnonzero(result.quality.flagged).tolist() == [4]
    assert worst(result, truth) < 0.05


def test_two_frames_of_different_places_are_not_called_aligned():
    stack, _ = movie(frames=2, amplitude=300.0)
    quality = sa.register(stack, sa.Reals()).quality
    assert quality.flagged.any()
    assert "could not be placed" in quality.reasons[int(np.flatnonzero(quality.flagged)[0])]


@pytest.mark.parametrize(("frames", "seed"), [(10, 3), (12, 4)])
def test_of_frames_beyond_the_field_only_those_that_agree_are_kept(frames, seed):
    """Some lay 100 px off without a word: a place that few frames show fits whatever is put there."""
    stack, truth = movie(frames=frames, seed=seed, amplitude=200.0)
    result = sa.register(stack, sa.Reals())
    kept = ~result.quality.flagged
    assert 0 < kept.sum() < frames / 2
    first = int(np.flatnonzero(kept)[0])
    apart = np.linalg.inv(result.transforms.matrices[first]) @ result.transforms.matrices[kept]
    true = np.linalg.inv(truth.transforms.matrices[first]) @ truth.transforms.matrices[kept]
    points = corners((121, 151))
    assert np.abs(moved_points(apart, points) - moved_points(true, points)).max() < 0.5


def test_frames_that_only_their_own_noise_holds_are_flagged():
    """A low-rank image of so little light is mostly noise: each frame fits its own, wherever it lies."""
    stack, truth = movie(scene="retina", frames=10, photons=4.0, seed=1)
    result = sa.register(stack, sa.Reals())
    kept = ~result.quality.flagged
    assert kept.sum() < 3
    assert not kept.any() or worst(result, truth) < 1.0


def test_frames_far_apart_that_agree_are_all_kept():
    stack, truth = movie(shape=(128, 128), frames=16, amplitude=40.0, rotation=12.0)
    result = sa.register(stack, sa.Reals())
    assert not result.quality.flagged.any()
    assert worst(result, truth) < 0.06


@pytest.mark.parametrize(("bits", "most"), [(1, 0.25), (3, 0.06)])
def test_images_of_few_grey_levels(bits, most):
    """Most of their pixels are alike: half of the residuals are zero, and edges were left out as outliers."""
    stack, truth = movie()
    frames = stack.asarray().astype(float)
    low, high = np.percentile(frames, (1, 99))
    levels = np.clip((frames - low) / (high - low) * 2**bits, 0, 2**bits - 1)
    coarse = frames > np.median(frames) if bits == 1 else levels.astype(np.uint8)
    result = sa.register(coarse, sa.Reals())
    assert not result.quality.flagged.any()
    assert worst(result, truth) < most


@pytest.mark.parametrize(("size", "words"), [(1e30, "divide the movie"), (1e-30, "multiply the movie")])
def test_values_without_squares_in_single_precision_are_named(size, words):
    stack, truth = movie()
    frames = stack.asarray() / 1000.0
    frames[4] *= size
    result = sa.register(frames, sa.Reals())
    assert np.flatnonzero(result.quality.flagged).tolist() == [4]
    assert words in result.quality.reasons[4]
    assert worst(result, truth) < 0.05


def test_frames_that_no_search_places_are_aligned_from_rest_or_flagged(monkeypatch):
    def nothing(run):
        yield from ()
        return {}

    monkeypatch.setattr("stackalign.core.lowrank.registrar.searched", nothing)
    stack, truth = movie(frames=8, amplitude=2.0, rotation=2.0)
    result = sa.register(stack, sa.Reals())
    assert not result.quality.flagged.any()
    assert worst(result, truth) < 0.05
    for count in (2, 8):  # two frames of noise have half of it in common with their mean
        noise = np.random.default_rng(count).normal(100, 10, (count, 60, 70)).astype(np.float32)
        flagged = sa.register(noise, sa.Reals()).quality
        assert flagged.flagged.all()
        assert "could not be placed" in flagged.reasons[0]


def test_frames_too_small_to_tell_anything_are_flagged():
    stack, _ = movie(shape=(9, 11), amplitude=1.0)
    assert sa.register(stack, sa.Reals()).quality.flagged.all()


def test_a_frame_that_shows_nothing_of_the_scene_has_no_brightness_of_its_own():
    nothing, scene = np.full((9, 11), np.nan, np.float32), np.ones((9, 11), np.float32)
    assert np.isnan(quiet(nothing, scene)).all()
    assert quiet(scene, nothing) is scene


def test_all_frames_blank():
    result = sa.register(np.zeros((4, 40, 50), np.uint8), sa.Reals())
    assert result.quality.flagged.all()
    assert np.array_equal(result.transforms.matrices, np.tile(np.eye(3), (4, 1, 1)))


def test_nan_pixels_do_not_count():
    stack, truth = movie(dtype="float32")
    frames = stack.asarray().copy()
    frames[:, :30, 20:60] = np.nan
    result = sa.register(frames, sa.Reals())
    assert not result.quality.flagged.any()
    assert worst(result, truth) < 0.08


@pytest.mark.parametrize("rank", [3, 40])
def test_a_rank_above_what_is_there_does_no_harm(rank):
    stack, truth = movie(frames=9)
    result = sa.register(stack, sa.Reals(rank=rank))
    assert worst(result, truth) < 0.05
    assert result.details["rank"] == min(rank, 8)


def test_a_region_keeps_out_what_moves_on_its_own():
    stack, truth = movie()
    frames = stack.asarray().copy()
    frames[:, 10:50, 20:60] = frames[0, 10:50, 20:60]  # stands still
    mask = np.ones(stack.frame_shape, bool)
    mask[:60, :70] = False
    result = sa.register(frames, sa.Reals(), mask=mask)
    assert worst(result, truth) < 0.1


def test_a_window_keeps_out_what_moves_at_the_border():
    stack, truth = movie()
    frames = stack.asarray().copy()
    frames[:, :12] = frames[0, :12]  # stands still
    plain, windowed = (sa.register(frames, sa.Reals(window=w)) for w in ("none", "hann"))
    assert worst(windowed, truth) < 0.05
    assert not np.array_equal(plain.transforms.matrices, windowed.transforms.matrices)


@pytest.mark.parametrize("rank", [1, 3])
def test_mini_batches_end_where_all_frames_end(rank):
    """Of several images, the equations that were kept stood for others than those added: frames lay pixels off."""
    stack, truth = movie(frames=9) if rank > 1 else movie()
    whole = sa.register(stack, sa.Reals(rank=rank))
    parts = sa.register(stack, sa.Reals(rank=rank, batch_size=4))
    assert worst(parts, truth) < 1.3 * worst(whole, truth) + 0.005


@pytest.mark.parametrize("loss", ["huber", "l1"])
def test_the_losses_without_an_end(loss):
    stack, truth = movie()
    assert worst(sa.register(stack, sa.Reals(loss=loss)), truth) < 0.05


def test_same_result_every_time():
    stack, _ = movie()
    first, second = (sa.register(stack, sa.Reals(batch_size=5, seed=2)) for _ in range(2))
    assert np.array_equal(first.transforms.matrices, second.transforms.matrices)


def test_a_cancel_keeps_the_best_so_far():
    stack, truth = movie()
    seen = []

    def stop():
        return len(seen) >= 3

    def note(progress):
        if progress.partial is not None and progress.partial.details.get("loss"):
            seen.append(progress.partial)

    outcome = drain(sa.Reals().fit(stack), note, stop)
    assert isinstance(outcome, Cancelled)
    assert worst(outcome.partial, truth) < 1.0
    assert len(outcome.partial.details["loss"]) == outcome.partial.details["rounds"]


def test_the_error_is_told_truly():
    stack, truth = movie(frames=24, model="translation", photons=100.0)
    result = sa.register(stack, sa.Reals(model="translation"), anchor="mean")
    gap = result.transforms.translations - truth.transforms.translations
    pulls = (gap - gap.mean(0)) / result.quality.error
    assert 0.7 < np.sqrt((pulls**2).mean()) < 1.4


@pytest.mark.parametrize("shape", [(1, 9, 14), (5, 7, 8)])
@pytest.mark.parametrize("reach", [1, 2])
def test_what_lies_around_something_sparse(shape, reach):
    rng = np.random.default_rng(1)
    r, known = rng.standard_normal(shape).astype(np.float32), rng.random(shape, np.float32)
    out, room = np.empty_like(r), np.empty_like(r)
    largest_nearby(r, known, reach, out, room)
    wanted = maximum_filter(np.abs(r) * np.sqrt(known), size=2 * reach + 1, mode="constant", cval=0.0)
    assert np.allclose(out, wanted, rtol=1e-6)


def test_a_reference_image_is_refused():
    stack, _ = movie()
    with pytest.raises(ValueError, match="leave the reference out"):
        sa.register(stack, sa.Reals(), reference=np.asarray(stack[0], float))
