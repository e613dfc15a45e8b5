"""Standard errors of gradient alignment: the share of true errors within one, at the centre and at the corners.

Against the mean the motion common to all frames is removed; against one noisy frame there is none to remove, and all
frames of a movie share its noise, so that movies count, not frames. `pytest -m benchmark -s` prints a row a test.
"""

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.frames.noise import NoiseModel
from stackalign.core.generators import fitted, moved_points
from stackalign.core.geometry import centre, corners
from stackalign.core.lucas_kanade import fit as fitting
from stackalign.core.lucas_kanade.template import MotionTemplate
from stackalign.core.translation.template import TranslationTemplate

pytestmark = pytest.mark.benchmark
SEEDS, FRAMES, SIZE = 12, 9, (256, 256)
MODELS = {
    "translation": {},
    "euclidean": {"rotation": 3.0},
    "similarity": {"rotation": 3.0, "stretch": 0.01},
    "affine": {"rotation": 2.0, "stretch": 0.01},
    "projective": {"rotation": 2.0, "stretch": 0.01},
}
SCENES = ["camera", "coins", "hubble_deep_field"]
NOISE = NoiseModel(-100 + 4 + 1 / 12, 1.0, 0.5)  # of the simulated camera


def movie(scene: str, photons: float, model: str, seed: int) -> sa.Simulated:
    more = {} if model == "translation" else {"model": model, **MODELS[model]}
    return sa.simulate(
        scene=scene, shape=SIZE, frames=FRAMES, motion="uniform", amplitude=8.0, seed=seed, photons=photons, **more
    )


def told(ratios: list[np.ndarray]) -> str:
    """Return the share within one standard error, over movies, with its own error."""
    shares = [float((np.abs(r) < 1).mean()) for r in ratios]
    return f"{100 * np.mean(shares):.0f} +- {100 * np.std(shares) / np.sqrt(len(shares) - 1):.0f} %"


@pytest.mark.parametrize("photons", [5, 20, 100])
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("model", MODELS)
def test_registered(model: str, scene: str, photons: float) -> None:
    """The error of the centre that `register` states, to the mean and to the first frame."""
    middle, points = centre(SIZE)[None], corners(SIZE)
    ratios: dict[str, list[np.ndarray]] = {"mean": [], "first": []}
    for seed in range(1, SEEDS + 1):
        sim = movie(scene, photons, model, seed)
        frames, truth = sim.stack.asarray(), sim.truth.transforms.matrices
        for reference, found in ratios.items():
            result = sa.register(frames, sa.LucasKanade(model=model), reference=reference)
            which = np.flatnonzero(result.transforms.valid)
            ours, true = result.transforms.matrices[which], truth[which]
            if reference == "first":
                common, ours, true, which = truth[0], ours[1:], true[1:], which[1:]
            else:
                every = np.concatenate([points, middle])
                places = [moved_points(m, every).reshape(-1, 2) for m in (ours, true)]
                common = fitted(*places, sa.TransformModel(model))
            apart = moved_points(common @ ours, middle) - moved_points(true, middle)
            found.append(apart[:, 0] / result.quality.error[which])
    print(f"\n| {model} | `{scene}` {photons:g} | {told(ratios['mean'])} | {told(ratios['first'])} |")


@pytest.mark.parametrize(("scene", "photons"), [("camera", 20), ("coins", 20), ("hubble_deep_field", 5)])
@pytest.mark.parametrize("model", MODELS)
def test_corners(model: str, scene: str, photons: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits to the first frame, begun at the truth: the errors of the centre and of the four corners."""
    points, stated = np.concatenate([centre(SIZE)[None], corners(SIZE)]), {}
    original = fitting.steps.standard_errors

    def kept(*arguments):
        stated["errors"] = arguments[-1]
        return original(*arguments)

    monkeypatch.setattr(fitting.steps, "standard_errors", kept)
    inside, outside = [], []
    for seed in range(1, SEEDS + 1):
        sim = movie(scene, photons, model, seed)
        frames, truth = sim.stack.asarray(), sim.truth.transforms.matrices
        images = TranslationTemplate.of(frames[0].astype(np.float32), noise=NOISE, frames=1.0)
        template, ratios = MotionTemplate.of(images, sa.TransformModel(model)), []
        for frame, true in zip(frames[1:], np.linalg.inv(truth[0]) @ truth[1:], strict=True):
            fit = fitting.fit_motion(frame, template, true)
            assert not isinstance(fit, str)
            ratios.append((moved_points(fit.matrix, points) - moved_points(true, points)) / stated["errors"])
        both = np.array(ratios)
        inside.append(both[:, 0])
        outside.append(both[:, 1:])
    print(f"\n| {model} | `{scene}` {photons:g} | {told(inside)} | {told(outside)} |")
