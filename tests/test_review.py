"""Corrections by hand: each changes what it names and nothing else."""

from typing import Any

import numpy as np
import pytest

from stackalign import review
from stackalign.core.registration import FrameQuality, Registration
from stackalign.core.stack import ImageStack
from stackalign.core.transform_series import TransformSeries
from stackalign.core.work import drain
from stackalign.runs import Movie, Run
from stackalign.session import default_choices

COUNT = 10
SHIFTS = np.outer(np.arange(COUNT), [-1.0, 0.5])


def scene(shape: tuple[int, int] = (64, 80)) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.kron(rng.random((shape[0] // 4, shape[1] // 4)), np.ones((4, 4))) * 1000


def run_of(shifts: np.ndarray = SHIFTS, frames: Any = None) -> Run:
    image = scene()
    moved = [np.roll(image, tuple(-np.round(s).astype(int)), (0, 1)) for s in np.round(SHIFTS)]
    registration = Registration(
        TransformSeries.from_translations(shifts), FrameQuality.empty(len(shifts), 2), provenance={"method": "told"}
    )
    return Run(1, Movie(ImageStack(np.stack(moved).astype(np.float32))), default_choices(), registration, None, 0.1)


def test_rejected_frames_follow_their_neighbours_and_are_flagged() -> None:
    wrong = SHIFTS.copy()
    wrong[4] = [30.0, 30.0]
    run = review.rejected(run_of(wrong), [4])
    np.testing.assert_allclose(run.registration.transforms.translations, SHIFTS, atol=1e-9)
    assert run.flagged == (4,)
    assert run.registration.quality.reasons[4] == "rejected by hand"
    assert not run.registration.transforms.valid[4]
    assert run.quality is None
    assert review.edits_of(run) == ("reject frame 4",)
    again = review.rejected(run, [4])
    assert again.registration.quality.reasons[4] == "rejected by hand"


def test_not_all_frames_can_be_rejected() -> None:
    with pytest.raises(ValueError, match="leave one at least"):
        review.rejected(run_of(), range(COUNT))


def test_accepted_frames_lose_their_flags() -> None:
    run = review.accepted(review.rejected(run_of(), [2, 3, 7]), [2, 3])
    assert run.flagged == (7,)
    assert run.registration.transforms.valid[[2, 3]].all()


def test_interpolated_frames_stay_valid() -> None:
    wrong = SHIFTS.copy()
    wrong[4:6] = 9.0
    run = review.interpolated(run_of(wrong), [4, 5])
    np.testing.assert_allclose(run.registration.transforms.translations, SHIFTS, atol=1e-9)
    assert run.registration.transforms.valid.all()
    assert run.flagged == ()


def test_smoothing_touches_only_what_is_selected() -> None:
    rough = SHIFTS + np.random.default_rng(0).normal(0, 0.3, SHIFTS.shape)
    run = review.smoothed(run_of(rough), range(3, 7), 2.0)
    after = run.registration.transforms.translations
    np.testing.assert_array_equal(after[:3], rough[:3])
    np.testing.assert_array_equal(after[7:], rough[7:])
    assert np.std(np.diff(after[3:7], axis=0)) < np.std(np.diff(rough[3:7], axis=0))


def test_a_nudge_moves_the_aligned_frame() -> None:
    run = review.nudged(run_of(), [3], (0.5, -1.0))
    after = run.registration.transforms.translations - SHIFTS
    np.testing.assert_allclose(after[3], [0.5, -1.0], atol=1e-12)
    np.testing.assert_array_equal(np.delete(after, 3, 0), 0)


def test_a_turn_leaves_the_middle_where_it_is() -> None:
    run = review.nudged(run_of(np.zeros_like(SHIFTS)), [3], (0.0, 0.0), 2.0)
    series = run.registration.transforms
    middle = (np.array([64, 80]) - 1) / 2
    np.testing.assert_allclose(series[3](middle), middle, atol=1e-9)
    assert np.rad2deg(series.angles[3]) == pytest.approx(2.0)
    assert series.model.value == "euclidean"


def test_many_nudges_are_one_edit() -> None:
    run = run_of()
    for _ in range(5):
        run = review.nudged(run, [3], (0.1, 0.0))
    assert review.edits_of(run) == ("nudge frame 3",)


def test_frames_are_aligned_again_onto_the_others() -> None:
    wrong = np.round(SHIFTS)
    right = wrong.copy()
    wrong[4:6] += 6.0
    run = drain(review.align_again_work(run_of(wrong), [4, 5])).unwrap()
    np.testing.assert_allclose(run.registration.transforms.translations, right, atol=0.1)
    assert review.edits_of(run) == ("align frames 4 to 5 again",)


def test_measuring_again_gives_a_quality() -> None:
    run = drain(review.measure_again_work(run_of(np.round(SHIFTS)))).unwrap()
    assert run.quality is not None
    assert run.quality.correlation_after > 0.99


@pytest.mark.parametrize(("frames", "words"), [([], "no frame is selected"), ([99], "do not lie within")])
def test_frames_that_are_not_there(frames: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        review.rejected(run_of(), frames)
