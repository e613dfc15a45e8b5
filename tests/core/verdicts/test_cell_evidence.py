"""What the cells of one frame say of the scene that it is laid on."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from stackalign.core.references.reference import PairResult
from stackalign.core.verdicts.cell_evidence import ReducedScene, unlike

SIZE = 120


@pytest.fixture(scope="module")
def stars():
    """Bright spots of all sizes on a dark sky, and something else of the kind."""
    rng = np.random.default_rng(3)
    points = (rng.random((2, SIZE, SIZE)) < 0.02) * rng.lognormal(0, 1, (2, SIZE, SIZE))
    return np.asarray([2000 * gaussian_filter(p, 2.5) + 20 for p in points], np.float32)


def judged(scene, frame):
    noisy = np.random.default_rng(5).normal(frame, 5).astype(np.float32)
    result = PairResult(np.eye(3), 1.0, 0.0, 1.0, np.zeros(2))
    run = SimpleNamespace(results=[result], details={"reference": scene}, load=lambda t: noisy)
    return unlike(run, 0, ReducedScene.of(run, (2, 2)), (2, 2))


def test_a_frame_is_like_its_scene(stars):
    assert not judged(stars[0], stars[0])


def test_so_is_one_with_something_before_a_part_of_it(stars):
    """Hidden cells cover what has contrast of it; the rest of it must not speak against the frame."""
    frame = stars[0].copy()
    frame[30:80, 30:80] = stars[1, 30:80, 30:80]
    assert not judged(stars[0], frame)


def test_but_not_one_of_another_place(stars):
    assert judged(stars[0], stars[1])
    assert judged(stars[0], np.roll(stars[0], (25, -30), axis=(0, 1)))


def test_nor_one_that_shows_nothing_in_view(stars):
    assert judged(stars[0], np.full_like(stars[0], np.nan))
