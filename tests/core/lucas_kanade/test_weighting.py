"""How pixels are weighed by their brightness."""

from __future__ import annotations

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.frames.noise import NoiseModel


def prepared(weighting):
    image = sa.simulate(scene="camera", shape=(64, 72), frames=1, photons=50.0, seed=1).stack[0].astype(np.float32)
    aligner = sa.LucasKanade(model="translation", weighting=weighting).aligner(image.shape)
    noise = NoiseModel(-96.0, 1.0, 0.5)
    return image, noise, aligner.prepare(image, None, noise=noise)


def test_equal_weights_are_those_of_the_mean_brightness():
    image, noise, template = prepared("equal")
    assert np.ptp(template.full.images.weight) == 0
    assert 1 / template.full.images.weight[0, 0, 0] == pytest.approx(float(noise.variance(image).mean()), rel=1e-4)


def test_bright_pixels_weigh_less_by_their_noise():
    image, _, template = prepared("noise")
    weight = template.full.images.weight[0]
    assert weight[image < np.median(image)].min() > weight[image > np.quantile(image, 0.9)].max()


def test_plain_least_squares_align_as_well():
    """Of a movie of even brightness both weigh alike."""
    sim = sa.simulate(scene="coins", shape=(96, 96), frames=6, motion="uniform", amplitude=4.0, seed=2, photons=200.0)
    frames, truth = sim.stack.asarray(), sim.truth.transforms.matrices[:, :2, 2]
    for weighting in ("noise", "equal"):
        options = sa.LucasKanade(model="translation", robust="none", weighting=weighting)
        off = sa.register(frames, options).transforms.matrices[:, :2, 2] - truth
        assert np.abs(off - off.mean(axis=0)).max() < 0.05
