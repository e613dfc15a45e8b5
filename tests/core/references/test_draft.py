"""The first mean, of reduced frames, of which some were laid on the wrong place."""

from __future__ import annotations

import numpy as np

import stackalign as sa
from stackalign.core.references.draft import _draft_mean, _draft_sample, last_value
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


class Said:
    """An aligner that says how well frames fit onto others, by the first pixel of each."""

    def __init__(self, confidence):
        self.confidence, self.asked = confidence, []

    def prepare(self, image, mask, **_):
        self.asked.append(int(image[0, 0]))
        return self.asked[-1]

    def align(self, frame, template, start):
        confidence = self.confidence[template][int(frame[0, 0])]
        return PairResult(np.eye(3), 0.5, 1.0, confidence, np.full(2, 0.1), "" if confidence else "elsewhere")


def test_many_poor_fits_make_no_base():
    """Onto a frame of something else many are laid where it is faint; another base is like fewer, but like them."""
    sample = list(range(8))
    small = {t: np.full((8, 8), t, np.float32) for t in sample}
    poor, good = [0.2] * 7 + [0.0], [0.9] * 5 + [0.0] * 3
    said = Said({4: poor, 2: good, 6: poor})
    results = last_value(_draft_sample(said, small, sample))
    assert said.asked == [4, 2]  # and no other is tried
    assert [r.confidence for r in results.values()] == good
