"""A verdict in words and numbers: good, bad, pointless and particle-free alignments."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stackalign.core.registration import FrameQuality, Registration
from stackalign.core.spots.gaussian import GaussianSpot
from stackalign.core.spots.registrar import ParticleTracking
from stackalign.core.stack import ImageStack
from stackalign.core.transform_series import TransformSeries
from stackalign.core.translation.registrar import CrossCorrelation
from stackalign.core.work import drain
from stackalign.runs import Movie, Run
from stackalign.session import default_choices
from stackalign.validation import Validation, validate_work

PLACES = np.array([[30.3, 40.6], [70.7, 25.2], [60.1, 90.4], [25.8, 100.1], [75.0, 70.0]])
COUNT = 8
DRIFT = np.outer(np.arange(COUNT), [0.7, -0.5])


def spots(drift: np.ndarray = DRIFT) -> ImageStack:
    rng = np.random.default_rng(5)
    frames = []
    for shift in drift:
        image = np.full((100, 130), 100.0)
        for place in PLACES + shift:
            image += GaussianSpot(800.0, place, np.array([2.0, 2.0])).image((100, 130))
        frames.append(rng.poisson(image))
    return ImageStack(np.stack(frames).astype(np.uint16))


def run_of(stack: ImageStack, shifts: np.ndarray, **details: Any) -> Run:
    registration = Registration(
        TransformSeries.from_translations(shifts), FrameQuality.empty(len(stack), 2), details=details
    )
    return Run(1, Movie(stack), default_choices(), registration, None, 0.1)


def validated(run: Run) -> Validation:
    return drain(validate_work(run)).unwrap()


def test_a_good_alignment_holds() -> None:
    validation = validated(run_of(spots(), -DRIFT))
    assert validation.passed is True
    assert validation.verdict.startswith("It holds: ")
    assert validation.held_out is not None
    assert validation.held_out.after_rms < 0.05
    assert validation.held_out.reduction_percent > 95
    assert "took no part" in validation.how
    assert all(row.better for row in validation.rows)
    assert validation.refitted is not None
    assert np.nanmax(np.abs(validation.refitted)) < 0.2
    assert len(validation.worst) == 6


def test_a_wrong_alignment_is_worse_than_doing_nothing() -> None:
    validation = validated(run_of(spots(), DRIFT))
    assert validation.passed is False
    assert validation.verdict.startswith("Worse than doing nothing: held-out particles move")
    assert not any(row.better for row in validation.rows)


def test_doing_nothing_is_neither() -> None:
    validation = validated(run_of(spots(), np.zeros_like(DRIFT)))
    assert validation.passed is None
    assert validation.verdict.startswith("No better than doing nothing")


def test_a_still_movie_had_nothing_to_correct() -> None:
    validation = validated(run_of(spots(np.zeros_like(DRIFT)), np.zeros_like(DRIFT)))
    assert validation.passed is None
    assert validation.verdict.startswith("There was no motion to correct")


def test_particles_that_made_the_motion_are_left_out_one_at_a_time() -> None:
    stack = spots()
    registrar = ParticleTracking(auto=5, model="translation")
    registration = drain(registrar.fit(stack)).unwrap()
    run = Run(3, Movie(stack), replace(default_choices(), registrar=registrar), registration, None, 0.1)
    validation = validated(run)
    assert validation.passed is True
    assert "left out one at a time" in validation.how
    assert list(validation.particles()["particle"]) == [1, 2, 3, 4, 5]
    assert (validation.particles()["after_rms_px"] < 0.1).all()


def test_without_particles_the_images_speak() -> None:
    rng = np.random.default_rng(1)
    scene = np.kron(rng.random((16, 16)), np.ones((8, 8)))
    frames = np.stack([np.roll(scene, (t, 0), (0, 1)) for t in range(6)]) * 1000
    stack = ImageStack(frames.astype(np.float32))
    registration = drain(CrossCorrelation().fit(stack)).unwrap()
    run = Run(1, Movie(stack), default_choices(), registration, None, 0.1)
    validation = validated(run)
    if validation.held_out is None:
        assert "Images alone say so" in validation.verdict
    assert validation.passed is True


def test_tables(tmp_path: Any) -> None:
    import pandas as pd

    validation = validated(run_of(spots(), -DRIFT))
    written = validation.save_tables(tmp_path / "proof.csv")
    assert [p.name for p in written] == ["proof_summary.csv", "proof_particles.csv", "proof_frames.csv"]
    summary = pd.read_csv(written[0])
    assert list(summary.columns) == ["measure", "unit", "do_nothing", "aligned"]
    assert len(pd.read_csv(written[2])) == COUNT


@pytest.mark.parametrize("frames", [(2, 7)])
def test_a_time_range_counts_frames_of_the_movie(frames: tuple[int, int]) -> None:
    stack = spots()
    part = slice(*frames)
    registration = Registration(
        TransformSeries.from_translations(-DRIFT[part]), FrameQuality.empty(frames[1] - frames[0], 2)
    )
    run = Run(1, Movie(stack), replace(default_choices(), frames=frames), registration, None, 0.1)
    validation = validated(run)
    assert validation.passed is True
    assert {w.frame for w in validation.worst} == set(range(*frames))
