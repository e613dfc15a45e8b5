"""Every network trains: steps, time and corner error on held-out synthetic pairs beside doing nothing.

    python -m tests.benchmarks.bench_deep [NETWORK ...] [--seconds 120] [--steps 100000]

Small pairs, so that a CPU is enough: 64 px images, 40 px templates of the inverted contrast, corners within 12 px,
which doing nothing misses by 9.2 px in the mean (the floor of 24.5 px belongs to 192 px images, corners within 32 px),
and networks of a fraction of their published widths. Pictures are those that scikit-image's wheel carries; the last
three are held out.
"""

import argparse
import time

import numpy as np

SMALL = {
    "features": ({"widths": (12, 24, 32, 48), "coarse": 24, "fine": 12}, 2e-3, 4),
    "dhn": ({"widths": (16, 32, 48, 64), "hidden": 256}, 1e-3, 16),
    "mhn": ({"widths": (16, 24, 32, 48), "hidden": 128}, 1e-3, 16),
    "clkn": ({"width": 8, "channels": 4, "iterations": 4}, 2e-3, 8),
    "dlkfm": ({"width": 8, "iterations": 10}, 2e-3, 8),
    "embedding-corners": (
        {"width": 8, "features": 4, "widths": (16, 32, 48, 64), "hidden": 256, "first_stage": 150},
        1e-3,
        16,
    ),
    "embedding-matrix": (
        {"width": 8, "features": 4, "widths": (16, 32, 48, 64), "hidden": 256, "first_stage": 150},
        1e-3,
        16,
    ),
}


def pictures():
    """Return pictures to train on, and others to test with."""
    from skimage import data

    names = ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry", "camera", "brick", "coins", "page")
    every = [getattr(data, name)() for name in (*names, "grass", "moon", "retina", "hubble_deep_field", "cell")]
    colour = [
        np.ascontiguousarray(np.broadcast_to(i if i.ndim == 3 else i[..., None], (*i.shape[:2], 3))) for i in every
    ]
    return colour[:-3], colour[-3:]


def trained(name, *, seconds=120.0, steps=100_000, count=24, seed=0):
    """Train a network for some time; returns a row of the table."""
    from stackalign.core.deep.inference import match_images, regressed_corners
    from stackalign.core.deep.networks.base import count_parameters
    from stackalign.core.deep.pairs import FixedPairs, SyntheticPairs, corner_error, corners_of
    from stackalign.core.deep.train import Trainer, Training

    options, rate, batch = SMALL[name]
    train, test = pictures()
    pairs = SyntheticPairs(size=64, template=40, reach=12, inverted=True, zoom=(1.0, 3.0), seed=seed)
    shown = pairs.model_copy(update={"wander": 16.0}) if name == "features" else pairs  # else it learns the middle
    recipe = Training(
        network=name, options=options, images="-", pairs=shown, steps=steps, batch_size=batch, learning_rate=rate,
        warm_up=20, seed=seed, distinct_pairs=1500,
    )  # fmt: skip
    trainer = Trainer(recipe, train)
    begun, wall = time.process_time(), time.monotonic()
    while trainer.step < steps and time.process_time() - begun < seconds:
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
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--steps", type=int, default=100_000)
    given = parser.parse_args()
    import torch

    from stackalign.core.threads import threads

    torch.set_num_threads(threads())
    first = True
    for name in given.networks:
        row = trained(name, seconds=given.seconds, steps=given.steps)
        if first:
            print("| " + " | ".join(row) + " |\n|" + "---|" * len(row), flush=True)
        first = False
        print("| " + " | ".join(map(str, row.values())) + " |", flush=True)


if __name__ == "__main__":
    main()
