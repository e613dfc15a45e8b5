"""The first mean, of reduced frames, of which some were laid on the wrong place."""

from __future__ import annotations

import numpy as np

import stackalign as sa
from stackalign.core.references.draft import _draft_mean
from stackalign.core.references.reference import PairResult


def test_a_frame_that_fits_nowhere_is_not_amplified_in_the_mean():
    """A least-squares gain is small where little agrees; divided by it, one such frame would outweigh all others."""
    stack, _ = sa.simulate(scene="texture", shape=(64, 64), frames=6, amplitude=0.0, photons=200, seed=4)
    small = {t: np.asarray(frame, np.float32) for t, frame in enumerate(stack)}
    scene = np.mean(list(small.values()), axis=0)
    level, nan = float(scene.mean()), np.full(2, np.nan)
    results = {t: PairResult(np.eye(3), 0.9, 1.0, 0.9, nan) for t in small}
    elsewhere = np.array([[1.0, 0, 9], [0, 1, -14], [0, 0, 1]])
    results[3] = PairResult(elsewhere, 0.2, 1.0, 0.3, nan, gain=0.03, offset=0.97 * level)
    template = _draft_mean(sa.LucasKanade().aligner((64, 64)), small, results, list(small))
    assert np.nanmax(np.abs(template.image - scene)) < 0.5 * scene.std()
    assert template.noise.variance(np.float32(level)) < 3 * level


def test_frames_that_darken_to_a_tenth_still_make_a_mean():
    """Where all fits are faint none is left out."""
    stack, _ = sa.simulate(scene="texture", shape=(64, 64), frames=6, amplitude=0.0, photons=200, seed=4)
    small = {t: np.asarray(frame, np.float32) for t, frame in enumerate(stack)}
    nan = np.full(2, np.nan)
    results = {t: PairResult(np.eye(3), 0.9, 1.0, 0.9, nan, gain=0.1) for t in small}
    template = _draft_mean(sa.LucasKanade().aligner((64, 64)), small, results, list(small))
    np.testing.assert_allclose(template.image, 10 * np.mean(list(small.values()), axis=0), rtol=0.02)
