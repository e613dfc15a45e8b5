"""A frame that keeps its spline."""

import numpy as np

import stackalign as sa
from stackalign.core.references.reference import Reference
from stackalign.core.run_state import RunState
from stackalign.core.warping.resample import spline_coefficients
from stackalign.core.warping.splined import SplinedFrame, cubic


def test_the_filter_runs_once_and_parts_have_their_own():
    image = np.random.default_rng(0).integers(0, 900, (40, 50)).astype(np.uint16)
    frame = image.view(SplinedFrame)
    kept = frame.coefficients()
    assert frame.coefficients() is kept
    np.testing.assert_array_equal(kept, spline_coefficients(image.astype(np.float32), 3))
    part = frame[4:, 3:]
    np.testing.assert_array_equal(part.coefficients(), spline_coefficients(image[4:, 3:].astype(np.float32), 3))
    for level in (0.0, 17.5):
        np.testing.assert_array_equal(cubic(frame, level), cubic(image, level))
    assert cubic(image, 17.5)[0, 20, 20] == kept[0, 20, 20] - np.float32(17.5)


def test_frames_are_held_while_they_are_wanted(monkeypatch):
    movie = sa.simulate(scene="beads", shape=(48, 48), frames=6, seed=0).stack
    aligner = sa.LucasKanade().aligner(movie.frame_shape)
    run = RunState(movie, aligner, Reference("mean"), None, None)
    run.keep([1, 3])
    assert run.load(1) is run.load(1)
    assert isinstance(run.load(3), SplinedFrame)
    assert not isinstance(run.load(2), SplinedFrame)
    run.keep([])
    assert not isinstance(run.load(1), SplinedFrame)
    monkeypatch.setattr("stackalign.core.run_state._KEPT_BYTES", 48 * 48 * (4 + movie.dtype.itemsize))
    run.keep([1, 3])
    assert isinstance(run.load(1), SplinedFrame)
    assert not isinstance(run.load(3), SplinedFrame)
