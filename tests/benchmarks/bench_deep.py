"""Every network trains: steps, time and corner error on held-out synthetic pairs beside doing nothing.

    python -m tests.benchmarks.bench_deep [NETWORK ...] [--seconds 70]

Small pairs, so that a CPU is enough: mild renderings (strength .2) of smooth views, networks of a fraction of their
published widths. Regressors see 48 px images, 32 px templates and corners within 8 px; Lucas-Kanade, whose coarsest
maps have an eighth of the resolution, and ours 96 px, 64 px and 16 px. Doing nothing is measured beside them (the floor
of 24.5 px belongs to 192 px images, corners within 32 px). Pictures are those that scikit-image's wheel carries; the
last three are held out.
"""

import argparse
import time

import numpy as np

NARROW = {"size": 48, "template": 32, "reach": 8}
WIDE = {"size": 96, "template": 64, "reach": 16}
_EMBEDDING = {"width": 8, "features": 4, "widths": (16, 24, 32), "hidden": 128}
SMALL = {  # options, learning rate, pairs in a step, task
    "features": ({"widths": (12, 24, 32, 48), "coarse": 24, "fine": 12}, 2e-3, 4, WIDE),
    "clkn": ({"width": 8, "channels": 4, "iterations": 4}, 2e-3, 8, WIDE),
    "dlkfm": ({"width": 8, "iterations": 10}, 2e-3, 8, WIDE),
    "dhn": ({"widths": (16, 24, 32), "hidden": 128}, 1e-3, 32, NARROW),
    "mhn": ({"widths": (16, 24, 32), "hidden": 128, "levels": 2}, 1e-3, 32, NARROW),
    "embedding-corners": (_EMBEDDING, 1e-3, 32, NARROW),
    "embedding-matrix": (_EMBEDDING, 1e-3, 32, NARROW),
}
FIRST_STAGE = 0.25  # share of the steps that embeddings are trained in


def pictures():
    """Return pictures to train on, and others to test with."""
    from skimage import data

    names = ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry", "camera", "brick", "coins", "page")
    every = [getattr(data, name)() for name in (*names, "grass", "moon", "retina", "hubble_deep_field", "cell")]
    colour = [
        np.ascontiguousarray(np.broadcast_to(i if i.ndim == 3 else i[..., None], (*i.shape[:2], 3))) for i in every
    ]
    return colour[:-3], colour[-3:]


def trained(name, *, seconds=70.0, count=48, seed=0):
    """Train a network for about so many seconds of CPU; returns a row of the table."""
    from stackalign.core.deep.inference import match_images, regressed_corners
    from stackalign.core.deep.networks.base import count_parameters
    from stackalign.core.deep.pairs import FixedPairs, SyntheticPairs, corner_error, corners_of
    from stackalign.core.deep.train import Trainer, Training

    options, rate, batch, task = SMALL[name]
    train, test = pictures()
    pairs = SyntheticPairs(**task, strength=0.2, zoom=(0.5, 1.0), structure=0.4, seed=seed)
    shown = pairs.model_copy(update={"wander": task["reach"]}) if name == "features" else pairs  # not the middle only
    recipe = Training(
        network=name, options=options, images="-", pairs=shown, batch_size=batch, learning_rate=rate,
        warm_up=20, seed=seed, distinct_pairs=3000,
    )  # fmt: skip
    trial = Trainer(recipe, train)
    trial.advance()
    begun = time.process_time()
    for _ in range(4):
        trial.advance()
    steps = max(int(4 * seconds / (time.process_time() - begun)), 50)
    if "first_stage" in type(trial.network).__init__.__code__.co_varnames:
        options = {**options, "first_stage": int(FIRST_STAGE * steps)}
    trainer = Trainer(recipe.model_copy(update={"steps": steps, "options": options}), train)
    begun, wall = time.process_time(), time.monotonic()
    while trainer.step < steps and time.process_time() - begun < 1.5 * seconds:
        trainer.advance()
    spent = time.process_time() - begun
    errors, nothing = [], []
    held_out = FixedPairs(pairs.model_copy(update={"seed": 991}), test, count)
    for pair in (held_out[k] for k in range(count)):
        if name == "features":
            matrix = match_images(trainer.network, pair.reference, pair.moving).matrix
            ends = np.c_[corners_of(pair.moving.shape), np.ones(4)] @ matrix.T
            found = ends[:, :2] / ends[:, 2:]
        else:
            found = regressed_corners(trainer.network, pair.reference, pair.moving)
        errors.append(corner_error(found, pair.corners))
        nothing.append(corner_error(pair.nothing, pair.corners))
    errors = np.array(errors)
    return {
        "network": name, "parameters": count_parameters(trainer.network), "steps": trainer.step, "batch": batch,
        "cpu_s": round(spent, 1), "wall_s": round(time.monotonic() - wall, 1),
        "median_px": round(float(np.median(errors)), 2),
        "mean_px": round(float(errors.mean()), 2), "max_px": round(float(errors.max()), 1),
        "nothing_px": round(float(np.mean(nothing)), 2),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", default=list(SMALL))
    parser.add_argument("--seconds", type=float, default=70)
    given = parser.parse_args()
    import torch

    from stackalign.core.threads import threads

    torch.set_num_threads(threads())
    first = True
    for name in given.networks:
        row = trained(name, seconds=given.seconds)
        if first:
            print("| " + " | ".join(row) + " |\n|" + "---|" * len(row), flush=True)
        first = False
        print("| " + " | ".join(map(str, row.values())) + " |", flush=True)


if __name__ == "__main__":
    main()
