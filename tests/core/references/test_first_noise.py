"""The noise that a movie of few frames tells."""

from __future__ import annotations

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.translation.template import TranslationTemplate


@pytest.mark.parametrize("method", [sa.CrossCorrelation(), sa.LucasKanade(model="translation")], ids=lambda m: m.method)
@pytest.mark.parametrize("frames", [4, 9])
def test_noise_is_not_missed_that_frames_share_with_their_mean(method, frames):
    found = []
    for seed in range(3):
        stack, truth = sa.simulate(
            scene="camera", shape=(160, 160), frames=frames, motion="uniform", amplitude=4.0, photons=20, seed=seed
        )
        noise, camera = sa.register(stack, method).details["noise"], truth.simulation
        level = float(np.asarray(stack).mean())
        true = camera.gain * (level - camera.offset) + (camera.read_noise * camera.gain) ** 2
        found.append(noise.variance(np.array([level], np.float32))[0] / true)
    assert 0.95 < np.mean(found) < 1.05


def test_what_noise_leaves_between_a_mean_and_its_frames():
    """White noise, which no filter takes for structure, is left as 1 + 1 / n, of own frames as 1 - 1 / n."""
    rng, n = np.random.default_rng(0), 5
    frames = rng.normal(100, 3, (n, 64, 64)).astype(np.float32)
    mean = frames.mean(0)
    template = TranslationTemplate.of(mean.copy(), frames=n)
    other = rng.normal(100, 3, (64, 64))
    assert np.var(other - mean) / 9 == pytest.approx(1 + 1 / n, rel=0.05)
    assert template.left_over() == pytest.approx(1 + 1 / n, rel=0.05)
    assert np.var(frames[0] - mean) / 9 == pytest.approx(1 - 1 / n, rel=0.05)
    assert template.left_over(own=True) == pytest.approx(1 - 1 / n, rel=0.05)
