"""The search of a translation over the whole range."""

import numpy as np
import pytest

from stackalign.core.search.correlation import prepare_search, search
from tests.contract.cases import camera, moved, scene


def pair(drift, shape=(60, 76), seed=0):
    """Return a reference and a frame whose scene lies ``drift`` further on."""
    both = camera(moved(scene(shape, seed), np.array([np.zeros(len(shape)), drift])), np.float32)
    return both[0], both[1]


def wide(drift, shape=(60, 76), seed=0):
    """Return two cuts of one large scene, for drifts that a border of the scene would not hold."""
    big = scene(tuple(4 * n for n in shape), seed).astype(np.float32)
    start = np.array(shape) * 3 // 2
    places = (start, start - np.array(drift))
    first, second = (big[tuple(slice(a, a + n) for a, n in zip(at, shape, strict=True))].copy() for at in places)
    return first, second


@pytest.mark.parametrize("normalisation", ["overlap", "phase", "none"])
@pytest.mark.parametrize("drift", [(0, 0), (3, -5), (-7, 2)])
def test_whole_shifts_are_found(normalisation, drift):
    reference, frame = pair(drift)
    peak = search(frame, None, prepare_search(reference, None, normalisation=normalisation))
    assert np.abs(peak.shift + drift).max() < 0.6
    assert peak.significance > 8
    assert peak.significance > peak.runner_up


@pytest.mark.parametrize("drift", [(33, 0), (-40, 12), (5, -50), (36, 45)])
def test_shifts_beyond_half_the_frame_are_not_aliased(drift):
    reference, frame = wide(drift)
    peak = search(frame, None, prepare_search(reference, None, min_overlap=0.1))
    assert np.abs(peak.shift + drift).max() < 0.6


@pytest.mark.parametrize("drift", [(2, -3, 4), (-5, 0, 11)])
def test_volumes(drift):
    reference, frame = wide(drift, (12, 30, 34), 2)
    peak = search(frame, None, prepare_search(reference, None))
    assert np.abs(peak.shift + drift).max() < 0.6


def test_the_correlation_is_that_of_the_overlap():
    reference, frame = wide((20, -15))
    peak = search(frame, None, prepare_search(reference, None))
    wanted = np.corrcoef(reference[:-20, 15:].ravel(), frame[20:, :-15].ravel())[0, 1]
    assert wanted > 0.999
    assert peak.correlation == pytest.approx(wanted, abs=2e-3)


def test_brightness_does_not_matter():
    reference, frame = pair((4, -6))
    plain = search(frame, None, prepare_search(reference, None))
    bright = search(0.01 * frame + 5000, None, prepare_search(reference, None))
    assert np.abs(plain.shift - bright.shift).max() < 0.05


def test_masked_pixels_do_not_count_whatever_stands_there():
    reference, frame = wide((6, 9))
    known_reference, known_frame = np.ones(reference.shape, bool), np.ones(frame.shape, bool)
    known_reference[:20], known_frame[:, 50:] = False, False
    # the same bright pattern at the same place in both would hold the frame where it is
    lure = 20 * np.random.default_rng(0).random(reference.shape).astype(np.float32)
    reference[~known_reference], frame[~known_frame] = lure[~known_reference], lure[~known_frame]
    masked = search(
        np.where(known_frame, frame, 0), known_frame,
        prepare_search(np.where(known_reference, reference, 0), known_reference, min_overlap=0.1),
    )  # fmt: skip
    assert np.abs(masked.shift + np.array((6, 9))).max() < 0.6


def test_the_largest_shift_is_respected_along_each_axis():
    reference, frame = wide((20, 3))
    free = search(frame, None, prepare_search(reference, None))
    bound = search(frame, None, prepare_search(reference, None, max_shift=(8, 8)))
    assert np.abs(free.shift + np.array((20, 3))).max() < 0.6
    assert np.abs(bound.shift).max() <= 8.5
    assert bound.significance < free.significance


def test_too_little_overlap_is_not_looked_at():
    reference, frame = wide((48, 0))
    peak = search(frame, None, prepare_search(reference, None, min_overlap=0.5))
    assert np.abs(peak.shift[0]) <= 31


def test_two_scenes_have_no_peak_that_stands_out():
    heights = []
    for seed in range(6):
        reference, _ = pair((0, 0), seed=seed)
        _, other = pair((0, 0), seed=seed + 50)
        heights.append(search(other, None, prepare_search(reference, None)).significance)
    assert max(heights) < 8


def test_a_frame_without_contrast_does_not_break_it():
    reference, _ = pair((0, 0))
    peak = search(np.full_like(reference, 7), None, prepare_search(reference, None))
    assert np.isfinite(peak.shift).all()


def test_a_frame_without_holes_is_searched_as_one_with_a_mask_of_nothing():
    """Running sums and Fourier transforms tell the same overlap."""
    for drift, shape in (((20, -15), (60, 76)), ((2, -3, 4), (12, 30, 34))):
        reference, frame = wide(drift, shape)
        template = prepare_search(reference, None)
        fast, slow = search(frame, None, template), search(frame, np.ones(shape, bool), template)
        assert np.abs(fast.shift - slow.shift).max() < 0.01
        assert fast.correlation == pytest.approx(slow.correlation, abs=1e-4)
        assert fast.significance == pytest.approx(slow.significance, rel=0.02)
        assert fast.runner_up == pytest.approx(slow.runner_up, rel=0.02, abs=0.1)
