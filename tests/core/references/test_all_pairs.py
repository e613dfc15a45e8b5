"""All pairs solved together: what contradicts the others loses its weight."""

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.references.all_pairs import solve_pairs
from stackalign.core.references.reference import PairResult
from stackalign.core.transform import TransformModel
from tests.contract.cases import DRIFT, movie, registrar

SHAPE = (60, 80)


def result(matrix, error=0.01):
    return PairResult(np.asarray(matrix, float), 1.0, 0.0, 1.0, np.full(len(matrix) - 1, error))


def pairs_of(matrices, lag=3, noise=0.0, seed=0):
    """Return the pairs of known matrices frame -> scene, with noise on the translations."""
    rng = np.random.default_rng(seed)
    found = []
    for base in range(len(matrices)):
        for moving in range(base + 1, min(base + lag + 1, len(matrices))):
            step = np.linalg.inv(matrices[base]) @ matrices[moving]
            step[:-1, -1] += rng.normal(0, noise, step.shape[0] - 1) if noise else 0
            found.append((moving, base, result(step, max(noise, 0.01))))
    return found


def rigid(count, seed=1):
    rng = np.random.default_rng(seed)
    angles, shifts = rng.normal(0, 0.03, count), rng.normal(0, 4, (count, 2))
    angles[0], shifts[0] = 0, 0
    return [sa.Transform.from_rotation(a, s, (29.5, 39.5)).matrix for a, s in zip(angles, shifts, strict=True)]


def shifts(count, d=2, seed=2):
    rng = np.random.default_rng(seed)
    steps = np.vstack([np.zeros(d), rng.normal(0, 5, (count - 1, d))])
    return [sa.Transform.from_translation(s).matrix for s in steps]


@pytest.mark.parametrize(
    ("matrices", "model", "shape"),
    [(shifts(9), TransformModel.TRANSLATION, SHAPE), (shifts(9, 3), TransformModel.TRANSLATION, (9, 40, 50)),
     (rigid(9), TransformModel.EUCLIDEAN, SHAPE)],
)  # fmt: skip
def test_pairs_that_agree_are_solved_exactly(matrices, model, shape):
    solved, closure, weights, linked = solve_pairs(pairs_of(matrices), 9, shape, model)
    assert linked.all()
    assert np.abs(solved - np.array(matrices)).max() < 1e-6
    assert closure.max() < 1e-6
    assert weights.min() > 0.99


def test_many_pairs_average_their_noise():
    matrices = shifts(40)
    truth = np.array(matrices)[:, :-1, -1]

    def scatter(lag):
        solved = solve_pairs(pairs_of(matrices, lag, 0.05), 40, SHAPE, TransformModel.TRANSLATION)[0]
        gap = solved[:, :-1, -1] - truth
        return np.sqrt(((gap - gap.mean(0)) ** 2).mean())

    assert scatter(6) < 0.6 * scatter(1)


@pytest.mark.parametrize("model", [TransformModel.TRANSLATION, TransformModel.EUCLIDEAN])
def test_pairs_that_contradict_the_others_do_not_count(model):
    matrices = shifts(12) if model is TransformModel.TRANSLATION else rigid(12)
    found = pairs_of(matrices, 4, 0.02)
    wrong = [3, 11, 20]
    for k in wrong:
        moving, base, good = found[k]
        bad = good.matrix.copy()
        bad[:-1, -1] += (18, -25)
        found[k] = (moving, base, result(bad, 0.02))
    solved, closure, weights, _ = solve_pairs(found, 12, SHAPE, model)
    assert np.abs(solved[:, :2, 2] - np.array(matrices)[:, :2, 2]).max() < 0.2
    assert weights[wrong].max() < 0.01
    assert closure[wrong].min() > 10
    assert np.delete(weights, wrong).min() > 0.1


def test_frames_that_no_pair_links_are_told():
    found = [p for p in pairs_of(shifts(7), 1) if {p[0], p[1]} != {3, 4}]
    solved, _, _, linked = solve_pairs(found, 7, SHAPE, TransformModel.TRANSLATION)
    assert linked.tolist() == [True] * 4 + [False] * 3
    assert np.array_equal(solved[5], np.eye(3))


def test_no_pairs_at_all():
    solved, closure, weights, linked = solve_pairs([], 3, SHAPE, TransformModel.TRANSLATION)
    assert np.array_equal(solved, np.tile(np.eye(3), (3, 1, 1)))
    assert len(closure) == len(weights) == 0
    assert not linked.any()


def test_a_run_tells_its_pairs():
    frames = movie()
    told = sa.register(frames, registrar("cross-correlation", lag=2), reference="all-pairs").details["pairs"]
    assert sorted(zip(told["onto"].tolist(), told["moving"].tolist(), strict=True)) == [
        (a, b) for a in range(8) for b in range(a + 1, min(a + 3, 8))
    ]
    assert told["closure"].max() < 0.2
    assert (told["weight"] > 0.01).all()
    assert len(DRIFT) == len(frames)
