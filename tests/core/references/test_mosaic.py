"""Frames that the reference shows in part are placed by what the others show, too."""

from __future__ import annotations

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.references import rounds
from stackalign.core.references.draft import last_value
from stackalign.core.references.mosaic import _believed, refine_on_mosaic
from stackalign.core.references.reference import PairResult, Reference
from stackalign.core.run_state import RunState
from stackalign.core.stack import ImageStack

SIDE, COUNT = 96, 24


def moved(drift, photons, seed=3):
    """Return noisy frames of a large picture, (T, SIDE, SIDE), that drifts."""
    stack, _ = sa.simulate(scene="texture", shape=(320, 320), frames=1, amplitude=0.0, photons=1000, seed=seed)
    scene = np.asarray(stack[0], np.float32)
    rng = np.random.default_rng(seed)
    frames = []
    for y, x in np.asarray(drift) + 40:
        matrix = np.eye(3)
        matrix[:2, 2] = -y, -x
        view = sa.warp_frame(scene, matrix, order=3, output_shape=(SIDE, SIDE))
        frames.append(rng.poisson(np.clip(view, 0, None) * photons / scene.mean()))
    return np.array(frames, np.uint16)


def errors(frames, drift, method):
    result = sa.register(frames, method)
    assert not result.quality.flagged.any()
    middle = np.array([(SIDE - 1) / 2, (SIDE - 1) / 2, 1.0])
    ways = result.transforms.matrices[:, :2] @ middle - middle[:2] - np.asarray(drift)
    ways -= np.median(ways, axis=0)
    return np.sqrt(np.square(ways).sum(1)), result


@pytest.mark.parametrize(
    ("kind", "method"), [("jump", sa.CrossCorrelation()), ("drift", sa.LucasKanade(model="euclidean"))]
)
def test_frames_far_from_the_reference_are_known_better(monkeypatch, method, kind):
    squares = {"before": 0.0, "ours": 0.0, "stated": 0.0}
    for seed in range(6):
        drift = np.random.default_rng(seed).normal(0, 1, (COUNT, 2))
        if kind == "drift":
            drift += np.linspace(0, 1, COUNT)[:, None] * [110.0, 30.0]  # the last frames show nothing of the first
        else:
            drift[10:18] += 40.0
        frames, far = moved(drift, 20, seed), slice(10, 18) if kind == "jump" else slice(None)
        ours, result = errors(frames, drift, method)
        with monkeypatch.context() as without:
            without.setattr(rounds, "refine_on_mosaic", lambda *_: iter(()))
            before, _ = errors(frames, drift, method)
        squares["ours"] += np.square(ours[far]).sum()
        squares["before"] += np.square(before[far]).sum()
        squares["stated"] += np.square(result.quality.error[far]).sum()
    assert squares["ours"] < 0.85 * squares["before"]
    assert 0.5 < squares["ours"] / squares["stated"] < 2  # the gauge is not known exactly, either


def test_a_long_movie_is_refined_beyond_its_sample(monkeypatch):
    """Of frames that make no mosaic, too."""
    from stackalign.core.references import mosaic

    monkeypatch.setattr(mosaic, "SAMPLE", 12)
    drift = np.random.default_rng(2).normal(0, 1, (COUNT, 2))
    drift[12:] += 40.0
    frames = moved(drift, photons=20)
    ours, _ = errors(frames, drift, sa.CrossCorrelation())
    monkeypatch.setattr(rounds, "refine_on_mosaic", lambda *_: iter(()))
    before, _ = errors(frames, drift, sa.CrossCorrelation())
    changed = np.abs(ours - before) > 1e-6
    assert changed[12:].all()
    assert np.sqrt(np.mean(ours[12:] ** 2)) < np.sqrt(np.mean(before[12:] ** 2))


def placed(frames, shifts, policy="mean", mask=None):
    """Return a run whose frames are aligned."""
    stack, shape = ImageStack.of(frames), (SIDE, SIDE)
    reference = Reference.of(policy, len(frames), shape)
    run = RunState(stack, sa.CrossCorrelation().aligner(), reference, None, mask)
    for t, shift in enumerate(shifts):
        matrix = np.eye(3)
        matrix[:2, 2] = shift
        run.results[t] = PairResult(matrix, 0.9, 1.0, 1.0, np.full(2, 0.01))
    return run


@pytest.mark.parametrize("why", ["one frame alone", "all in view", "median", "mask"])
def test_others_are_left_where_they_are(why):
    drift = np.zeros((6, 2))
    drift[4:] = 40.0
    if why == "one frame alone":
        drift[4] = 0
    if why == "all in view":
        drift[4:] = 10.0
    mask = np.ones((SIDE, SIDE), bool) if why == "mask" else None
    run = placed(moved(drift, photons=200), drift, "median" if why == "median" else "mean", mask)
    before = run.matrices()
    last_value(refine_on_mosaic(run))
    np.testing.assert_array_equal(run.matrices(), before)


def test_a_frame_that_does_not_fit_there_stays_where_it_was_found():
    drift = np.zeros((6, 2))
    drift[3:] = 40.0
    frames = moved(drift, photons=200)
    frames[5] = np.random.default_rng(0).poisson(200, (SIDE, SIDE))
    run = placed(frames, drift)
    last_value(refine_on_mosaic(run))
    np.testing.assert_array_equal(run.results[5].matrix[:2, 2], drift[5])
    assert run.good().all()


@pytest.mark.parametrize(
    ("ways", "believed"),
    [
        ([(0.1, 0.0), (-0.2, 0.1), (0.0, 0.2)], {0, 1, 2}),
        ([(0.7, 0.0), (0.6, 0.0), (0.8, 0.1)], set()),  # all of a part, as far as none of them may
        ([(0.1, 0.0), (-1.1, 0.0), (0.0, 0.2)], {0, 2}),
    ],
)
def test_a_mosaic_is_believed_where_the_reference_allows_it(ways, believed):
    alone = {t: PairResult(np.eye(3), 1.0, 0.0, 1.0, np.full(2, 0.3)) for t in range(3)}
    found = {}
    for t, way in enumerate(ways):
        matrix = np.eye(3)
        matrix[:2, 2] = way
        found[t] = PairResult(matrix, 1.0, 0.0, 1.0, np.full(2, 0.1))
    assert _believed(found, alone, (64, 64)) == believed
