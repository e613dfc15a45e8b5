"""What walks through a scene leaves no ghost in its reference, and pulls no frame."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

import stackalign as sa
from stackalign.core.references.reference import Reference
from stackalign.core.run_state import RunState, resting
from stackalign.core.stack import ImageStack
from stackalign.core.verdicts import clearing
from stackalign.core.verdicts.median_scene import MedianScene, strange

SIDE = 128


@pytest.fixture(scope="module")
def scene():
    """A textured scene larger than a frame."""
    stack, _ = sa.simulate(scene="texture", shape=(220, 220), frames=1, amplitude=0.0, photons=200, seed=4)
    return np.asarray(stack[0], np.float32)


def drifting(scene, count=12, side=0):
    """Return frames that drift, with a square of ``side`` pixels of another part that walks through, and the drift."""
    rng = np.random.default_rng(3)
    drift = np.rint(np.cumsum(rng.normal(0, 1.5, (count, 2)), axis=0)).astype(int)
    frames = np.stack([scene[40 + y : 40 + y + SIDE, 40 + x : 40 + x + SIDE] for y, x in drift])
    for t, frame in enumerate(frames):
        frame[30 : 30 + side, 5 * t : 5 * t + side] = scene[:side, :side]
    return rng.poisson(np.maximum(frames, 0)).astype(np.uint16), drift


def off(result, drift):
    """Return how far frames lie off, around the common offset."""
    way = result.transforms.translations - drift
    return way - np.median(way, axis=0)


@pytest.mark.parametrize("method", [sa.CrossCorrelation(), sa.LucasKanade(model="euclidean")])
def test_frames_are_not_pulled_by_the_ghost_of_what_walks_through(scene, method, monkeypatch):
    frames, drift = drifting(scene, side=60)
    result = sa.register(frames, method)
    assert not result.quality.flagged.any()
    mended = off(result, drift)
    assert np.abs(mended).max() < 0.05
    monkeypatch.setattr(clearing, "_OFTEN", 2.0)  # nothing ever walks through
    assert mended.std() < 0.7 * off(sa.register(frames, method), drift).std()


def test_frames_of_nothing_but_the_scene_are_aligned_once(scene, monkeypatch):
    def never(*_):
        raise AssertionError("nothing walks through")

    monkeypatch.setattr(clearing, "median_scene", never)
    frames, _ = drifting(scene)
    result = sa.register(frames, sa.CrossCorrelation())
    assert not result.quality.flagged.any()


def test_a_run_without_a_reference_is_left_as_it_is(scene):
    """One frame is found in a mean, and the others are chained to it: there is no mean that could hold a ghost."""
    frames, _ = drifting(scene, count=6)
    aligner = sa.LucasKanade().aligner(frames.shape[1:])
    run = RunState(ImageStack.of(frames), aligner, Reference("mean"), None, None)
    run.results = [resting(2) for _ in frames]
    assert list(clearing.clear(run, lambda _: iter(()))) == []
    assert run.good().all()


def test_a_frame_that_shows_little_of_the_scene_is_flagged(scene, monkeypatch):
    whole = clearing.strange_cells

    def without(run, found, median):
        cells = yield from whole(run, found, median)
        return {t: other for t, other in cells.items() if t != 5}

    monkeypatch.setattr(clearing, "strange_cells", without)
    frames, drift = drifting(scene, side=60)
    result = sa.register(frames, sa.CrossCorrelation())
    assert not result.quality.flagged.any()  # a second look finds it
    assert np.abs(off(result, drift)).max() < 0.1
    monkeypatch.setattr(clearing, "look_again", lambda *_: iter(()))
    result = sa.register(frames, sa.CrossCorrelation())
    assert np.flatnonzero(result.quality.flagged).tolist() == [5]
    assert result.quality.reasons[5] == clearing.ELSEWHERE
    # where it was found before it was doubted is told, in the gauge of the others
    known = result.details["found"]
    np.testing.assert_allclose(known[4], result.transforms.matrices[4])
    assert np.abs((known[5] - known[4])[:2, 2]).max() < 8


def median_scene(image, noise=0.0):
    return MedianScene(image, np.stack(np.gradient(image.astype(float))), noise, float(image.std()), (1, 1))


def test_cells_that_show_something_else_are_told(scene):
    rng = np.random.default_rng(0)
    image = scene[40 : 40 + 96, 40 : 40 + 96]
    shown = image + rng.normal(0, 10, image.shape).astype(np.float32)
    shown[16:48, 24:64] = scene[120:152, 130:170]
    cells = strange(1.3 * shown + 20, 100.0 * 1.3**2, median_scene(image))
    assert cells is not None
    there = np.zeros((12, 12), bool)
    there[2:6, 3:8] = True
    assert (cells == there).mean() > 0.97


def test_noise_and_a_small_shift_are_not_strange(scene):
    rng = np.random.default_rng(0)
    image = scene[40 : 40 + 96, 40 : 40 + 96]
    assert not strange(rng.poisson(image).astype(np.float32), float(image.mean()), median_scene(image)).any()
    beside = scene[40 : 40 + 96, 40 : 40 + 96].copy()
    beside[1:] = 0.5 * (beside[1:] + beside[:-1])  # half a pixel
    assert strange(beside, 150.0, median_scene(image, 300.0)).mean() < 0.05  # the scene itself was photographed


def test_noise_as_large_as_the_contrast_does_not_flatten_the_brightness(scene):
    rng = np.random.default_rng(0)
    image = scene[40 : 40 + 96, 40 : 40 + 96]
    image = ndimage.gaussian_filter(image, 12)  # bright and dark cells
    spread = 2 * float(image.std())
    shown = 1.5 * (image + rng.normal(0, spread, image.shape).astype(np.float32)) - 30
    assert not strange(shown, (1.5 * spread) ** 2, median_scene(image)).any()


def test_a_frame_of_another_scene_is_not_laid_on_what_is_left(scene):
    image = scene[40 : 40 + 96, 40 : 40 + 96]
    assert strange(scene[110 : 110 + 96, 5 : 5 + 96], 25.0, median_scene(image)) is None
