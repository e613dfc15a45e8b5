"""Standard errors: the share of true errors within one, at the centre and at the corners, of images and volumes.

Against the mean the motion common to all frames is removed; against one noisy frame there is none to remove, and all
frames of a movie share its noise, so that movies count, not frames. `pytest -m benchmark -s` prints a row a test, of 12
movies, or of as many as `STACKALIGN_BENCH_SEEDS=101-181` says.
"""

import os
from itertools import product

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.frames.noise import NoiseModel
from stackalign.core.generators import fitted, moved_points
from stackalign.core.geometry import centre, corners
from stackalign.core.lucas_kanade.fit import fit_motions
from stackalign.core.lucas_kanade.template import MotionTemplate
from stackalign.core.simulate.camera import photograph
from stackalign.core.translation.fit import fit_translations
from stackalign.core.translation.template import TranslationTemplate

pytestmark = pytest.mark.benchmark
SEEDS = range(*map(int, os.environ.get("STACKALIGN_BENCH_SEEDS", "1-13").split("-")))
FRAMES, SIZE, VOLUME = 9, (256, 256), (32, 72, 80)
REFERENCES, PAIRS = 60, 5  # references that are photographed anew, and frames fitted to each
MODELS = {
    "translation": {},
    "euclidean": {"rotation": 3.0},
    "similarity": {"rotation": 3.0, "stretch": 0.01},
    "affine": {"rotation": 2.0, "stretch": 0.01},
    "projective": {"rotation": 2.0, "stretch": 0.01},
}
SCENES = ["camera", "coins", "hubble_deep_field"]
VOLUMES = ["texture", "cells"]
METHODS = {"translation": ["cross-correlation", "lucas-kanade"]}
IMAGES = [(scene, SIZE, photons, model) for scene, photons, model in product(SCENES, (5, 20, 100), MODELS)]
SOLIDS = [
    (scene, VOLUME, photons, model)
    for scene, photons, model in product(VOLUMES, (20, 100), ("translation", "euclidean", "affine"))
]
RETINA = [("retina", (512, 512), photons, "translation") for photons in (20, 100)]
EVERY = [
    (method, *row) for row in (*IMAGES, *RETINA, *SOLIDS) for method in METHODS.get(row[-1], ["lucas-kanade"])
]  # fmt: skip


def movie(scene: str, shape: tuple[int, ...], photons: float, model: str, seed: int, frames: int) -> sa.Simulated:
    more = {} if model == "translation" else {"model": model, **MODELS[model]}
    return sa.simulate(
        scene=scene,
        shape=shape,
        frames=frames,
        motion="uniform",
        amplitude=8.0 if len(shape) == 2 else 3.0,
        seed=seed,
        photons=photons,
        **more,
    )


def told(ratios: list[np.ndarray]) -> str:
    """Return the share within one standard error, over movies or references, with its own error."""
    shares = [float((np.abs(r) < 1).mean()) for r in ratios]
    return f"{100 * np.mean(shares):.0f} +- {100 * np.std(shares) / np.sqrt(len(shares) - 1):.0f} %"


@pytest.mark.parametrize(("method", "scene", "shape", "photons", "model"), EVERY)
def test_registered(method: str, scene: str, shape: tuple[int, ...], photons: float, model: str) -> None:
    """The error of the centre that `register` states, to the mean and to the first frame."""
    middle, points = centre(shape)[None], corners(shape)
    registrar = sa.CrossCorrelation() if method == "cross-correlation" else sa.LucasKanade(model=model)
    ratios: dict[str, list[np.ndarray]] = {"mean": [], "first": []}
    for seed in SEEDS:
        sim = movie(scene, shape, photons, model, seed, FRAMES)
        frames, truth = sim.stack.asarray(), sim.truth.transforms.matrices
        for reference, found in ratios.items():
            result = sa.register(frames, registrar, reference=reference)
            which = np.flatnonzero(result.transforms.valid)
            ours, true = result.transforms.matrices[which], truth[which]
            if reference == "first":
                common, ours, true, which = truth[0], ours[1:], true[1:], which[1:]
            else:
                every = np.concatenate([points, middle])
                places = [moved_points(m, every).reshape(-1, len(shape)) for m in (ours, true)]
                common = fitted(*places, sa.TransformModel(model))
            apart = moved_points(common @ ours, middle) - moved_points(true, middle)
            found.append(apart[:, 0] / result.quality.error[which])
    print(
        f"\n| {method} | {model} | `{scene}` {len(shape)}-D {photons:g} | {told(ratios['mean'])}"
        f" | {told(ratios['first'])} |"
    )


@pytest.mark.parametrize(("method", "scene", "shape", "photons", "model"), EVERY)
def test_pairs(method: str, scene: str, shape: tuple[int, ...], photons: float, model: str) -> None:
    """Fits begun at the truth, the noise known, of some frames to each of many photographs of the first one."""
    points = np.concatenate([centre(shape)[None], corners(shape)])
    truth = movie(scene, shape, photons, model, 1, PAIRS + 1).truth
    places, record = np.linalg.inv(truth.transforms.matrices[0]) @ truth.transforms.matrices, truth.simulation
    noise = NoiseModel((record.read_noise * record.gain) ** 2 - record.gain * record.offset + 1 / 12, record.gain, 0.5)
    light, rng, ratios = [truth.photons(t) for t in range(PAIRS + 1)], np.random.default_rng(7), []
    for _ in range(REFERENCES):
        first, *frames = (photograph(one, record, rng) for one in light)
        images = TranslationTemplate.of(first.astype(np.float32), noise=noise, frames=1.0)
        if method == "cross-correlation":
            fits = fit_translations(np.array(frames), images, places[1:, :-1, -1].copy())
        else:
            fits = fit_motions(frames, MotionTemplate.of(images, sa.TransformModel(model)), list(places[1:]))
        assert not any(isinstance(fit, str) for fit in fits)
        off = [moved_points(f.matrix, points) - moved_points(m, points) for f, m in zip(fits, places[1:], strict=True)]
        stated = [
            np.tile(f.error, (len(points), 1))
            if method == "cross-correlation"
            else np.concatenate([f.error[None], f.corner_errors])
            for f in fits
        ]
        ratios.append(np.array(off) / np.array(stated))
    both = np.array(ratios)
    print(
        f"\n| {method} | {model} | `{scene}` {len(shape)}-D {photons:g} | {told(list(both[:, :, 0]))}"
        f" | {told(list(both[:, :, 1:]))} | {np.sqrt((both[:, :, 0] ** 2).mean()):.2f}"
        f" | {np.sqrt((both[:, :, 1:] ** 2).mean()):.2f} |"
    )
