"""Policies run over a stack: gauge, rounds, and what a pair aligner of one's own has to offer."""

from dataclasses import dataclass

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.frames.noise import NoiseModel
from stackalign.core.references.reference import PairResult
from stackalign.core.references.rounds import align_stack
from stackalign.core.transform import TransformModel
from stackalign.core.translation.template import TranslationTemplate
from tests.contract.cases import DRIFT, deviation, movie


@dataclass
class Centroids:
    """Aligns by the centre of mass above the background: the least that a pair aligner needs."""

    model: TransformModel = TransformModel.TRANSLATION
    calls: int = 0

    def prepare(self, reference, mask, *, noise=None, frames=1.0):
        if np.nanmax(reference) > 60_000:
            raise ValueError("too bright")
        return self.centre(np.nan_to_num(reference, nan=0.0))

    def align(self, frame, template, start):
        self.calls += 1
        if frame.max() > 60_000:
            raise ArithmeticError("overflow")
        matrix = np.eye(3)
        matrix[:2, 2] = template - self.centre(frame)
        return PairResult(matrix, 0.9, 1.0, 0.9, np.full(2, 0.05))

    def residuals(self, frame, template, result, *, own=False):
        return np.zeros((0, 2))

    def filtered(self, frame):
        return frame

    @staticmethod
    def centre(image):
        weight = np.clip(image.astype(float) - 100, 0, None)
        return np.array([(weight.sum(1 - a) * np.arange(image.shape[a])).sum() for a in (0, 1)]) / weight.sum()


def bead(places, shape=(48, 56)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.stack([100 + 900 * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 12) for a, b in places]).astype(np.float32)


PLACES = np.array([(20.0, 25.0), (21.5, 24.0), (23.0, 26.5), (22.0, 30.0), (19.0, 28.0)])


@pytest.mark.parametrize("reference", ["mean", "median", "first", "previous", "rolling", "all-pairs"])
def test_any_pair_aligner_runs_under_every_policy(reference):
    result = sa.drain(align_stack(sa.ImageStack(bead(PLACES)), Centroids(), reference)).unwrap()
    assert not result.quality.flagged.any()
    assert deviation(result, PLACES - PLACES[0]) < 0.1
    assert np.abs(result.transforms.matrices[0] - np.eye(3)).max() < 1e-12


@pytest.mark.parametrize("reference", ["mean", "first", "previous", "all-pairs"])
def test_an_aligner_that_breaks_costs_its_frame_only(reference):
    frames = bead(PLACES)
    frames[3] *= 100
    result = sa.drain(align_stack(sa.ImageStack(frames), Centroids(), reference)).unwrap()
    assert np.flatnonzero(result.quality.flagged).tolist() == [3]
    assert deviation(result, PLACES - PLACES[0], [0, 1, 2, 4]) < 0.15


def test_a_reference_that_cannot_serve_ends_the_run_with_its_reason():
    frames = movie()
    frames[2] = 0
    with pytest.raises(ValueError, match="frame 2 cannot be the reference: blank"):
        sa.register(frames, sa.CrossCorrelation(), reference=2)
    with pytest.raises(ValueError, match="no contrast"):
        sa.register(frames, sa.CrossCorrelation(), reference=np.ones(frames.shape[1:]))


def test_the_mean_settles_and_says_how():
    result = sa.register(movie(), sa.CrossCorrelation())
    assert 1 <= result.details["rounds"] <= 12
    assert result.details["change"] < 0.05
    assert result.details["reference"].shape == (72, 88)
    assert result.details["noise"].slope > 0


def test_a_long_movie_takes_its_mean_from_a_sample():
    drift = np.column_stack([np.sin(np.arange(130) / 9) * 3, np.cos(np.arange(130) / 7) * 2])
    drift -= drift[0]
    result = sa.register(movie(drift=drift, shape=(48, 56)), sa.CrossCorrelation())
    assert not result.quality.flagged.any()
    assert deviation(result, drift) < 0.05


def test_the_chain_bridges_a_gap_and_adds_up_its_errors():
    frames = movie()
    frames[4] = 0
    result = sa.register(frames, sa.CrossCorrelation(), reference="previous")
    assert np.flatnonzero(result.quality.flagged).tolist() == [4]
    error = result.quality.error[[0, 1, 2, 3, 5, 6, 7], 0]
    assert (np.diff(error) > 0).all()
    assert error[0] == 0


def test_a_rolling_reference_follows_a_scene_that_changes():
    """One scene fades into another while both drift: no frame at the end looks like the first."""
    drift = np.column_stack([np.linspace(0, 4, 30), np.linspace(0, -3, 30)])
    share = np.clip((np.arange(30) - 5) / 18, 0, 1)[:, None, None]
    first, second = (movie(np.float32, drift, seed=s) for s in (0, 31))
    frames = (1 - share) * first + share * second
    rolling = sa.register(frames, sa.CrossCorrelation(rolling=0.4), reference="rolling")
    assert not rolling.quality.flagged.any()
    assert deviation(rolling, drift) < 0.15


def test_unknown_words_are_refused_before_anything_is_read():
    class Untouched:
        shape, dtype = (4, 20, 20), np.dtype(np.uint8)

        def __getitem__(self, t):
            raise AssertionError("a frame was read")

    for wrong in ({"reference": "best"}, {"anchor": 9}, {"anchor": "end"}, {"mask": np.ones((2, 2), bool)}):
        with pytest.raises(ValueError, match=r"best|no frame 9|end|alike"):
            sa.register(sa.ImageStack(Untouched()), sa.CrossCorrelation(), **wrong)


def test_settings_reach_the_method():
    frames, drift = movie(), DRIFT
    whole = sa.register(frames, sa.CrossCorrelation(subpixel=False), reference="first")
    assert np.array_equal(whole.transforms.translations, np.round(whole.transforms.translations))
    assert np.abs(whole.transforms.translations + drift).max() <= 0.6
    for limit in (2.5, 4.0, 9.0):  # a small limit leaves as clear a peak as a large one
        near = sa.register(frames[:3], sa.CrossCorrelation(max_shift=limit), reference="first")
        assert not near.quality.flagged.any()
        assert deviation(near, drift[:3]) < 0.05
    jump = sa.register(frames[[0, 1, 7, 2]], sa.CrossCorrelation(max_shift=2.5), reference="first")
    assert np.flatnonzero(jump.quality.flagged).tolist() == [2]
    for options in ({"normalisation": "phase"}, {"window": "hann"}, {"window": "tukey"}, {"high_sigma": 8.0}):
        result = sa.register(frames, sa.CrossCorrelation(**options))
        assert deviation(result, drift) < 0.08, options


@pytest.mark.parametrize("frames", [6, 100])
def test_frames_are_not_held_by_their_own_noise(frames):
    """Frames that make the mean lie as well as others, and where the others say."""
    stack, truth = sa.simulate(
        scene="cells", shape=(128, 132), frames=frames, motion="uniform", amplitude=3, photons=5, seed=4
    )
    result = sa.register(stack, sa.CrossCorrelation())
    gap = (result.transforms.translations + truth.drift) / np.sqrt((truth.cramer_rao**2).mean())
    gap -= gap.mean(axis=0)
    assert np.sqrt((gap**2).mean()) < (1.8 if frames < 10 else 1.3)
    if frames > 80:
        sample = np.isin(np.arange(frames), np.linspace(0, frames - 1, 80).round().astype(int))
        assert np.abs(gap[sample].mean(axis=0) - gap[~sample].mean(axis=0)).max() < 1.0


def test_large_frames_settle_on_a_part_before_the_first_round():
    movie = sa.simulate(
        scene="hubble_deep_field", shape=(512, 512), frames=9, motion="uniform", amplitude=4.0, photons=100.0, seed=2
    )
    run = sa.register(movie.stack, sa.CrossCorrelation())
    assert run.details["rounds"] == 1
    off = run.transforms.translations - movie.truth.transforms.translations
    assert np.abs(off - np.median(off, axis=0)).max() < 0.008


def test_noise_alone_pulls_frames_back():
    rng = np.random.default_rng(0)
    scene = sa.simulate(scene="camera", shape=(128, 128), frames=2, seed=1).stack.asarray()[0].astype(np.float32)
    scene -= scene.mean()
    pulls = []
    for noise in (0.0, 0.05, 0.4):
        image = scene + rng.normal(0, noise * scene.std() + 1e-3, scene.shape).astype(np.float32)
        model = NoiseModel((noise * scene.std() * 3) ** 2 + 1e-6)
        pulls.append(TranslationTemplate.of(image, noise=model, frames=9.0).pull())
    assert pulls[0] < 0.02
    assert pulls[0] < pulls[1] < pulls[2]
