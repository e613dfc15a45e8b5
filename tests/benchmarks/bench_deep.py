"""Every network trains: steps, time and corner error on held-out synthetic pairs beside doing nothing.

    python scripts/fetch_training_images.py ../training-images
    python -m tests.benchmarks.bench_deep [NETWORK ...] --keep FOLDER [--seconds 380]

The papers train a network for one modality and its counterpart, not for all; so the template is a negative with a
little noise here. Small pairs, so that a CPU is enough, and networks of a fraction of their published widths. Networks
that regress see 48 px images, 32 px templates and corners within 8 px; Lucas-Kanade, whose coarsest maps have an eighth
of the resolution, and ours 96 px, 64 px and 16 px. Doing nothing is measured beside them (the floor of 24.5 px belongs
to 192 px images, corners within 32 px). `--strength` renders both images at random instead, as in the training of ours.
"""

import argparse
import time
from pathlib import Path

import numpy as np

NARROW = {"size": 48, "template": 32, "reach": 8}
WIDE = {"size": 96, "template": 64, "reach": 16}
_EMBEDDING = {"width": 8, "features": 2, "widths": (24, 32), "hidden": 128, "first_stage": 240}
SMALL = {  # options, learning rate, pairs in a step, pairs that are made, steps, task
    "features": ({"widths": (12, 24, 32, 48), "coarse": 24, "fine": 12}, 2e-3, 4, 1000, 1000, WIDE),
    "clkn": ({"width": 8, "channels": 4, "iterations": 4}, 2e-3, 8, 1000, 800, WIDE),
    "dlkfm": ({"width": 8, "iterations": 10}, 2e-3, 8, 1000, 800, WIDE),
    "dhn": ({"widths": (24, 32), "hidden": 128}, 2e-3, 64, 3000, 2000, NARROW),
    "mhn": ({"widths": (16, 24, 32), "hidden": 128, "levels": 2}, 3e-3, 64, 3000, 2000, NARROW),
    "embedding-corners": (_EMBEDDING, 2e-3, 64, 3000, 1600, NARROW),
    "embedding-matrix": (_EMBEDDING, 2e-3, 64, 3000, 1600, NARROW),
}


def trained(name, *, keep, seconds=np.inf, count=64, seed=0, images="../training-images", strength=None):
    """Train a network, or go on with it; returns a row of the table, None if ``seconds`` were not enough."""
    from stackalign.core.deep.networks.base import count_parameters
    from stackalign.core.deep.pairs import FixedPairs, SyntheticPairs, corner_error
    from stackalign.core.deep.train import Trainer, Training
    from stackalign.core.deep.weights import arrays_of, packed, unpacked
    from stackalign.io.pictures import PictureFolder

    stop = time.monotonic() + seconds
    options, rate, batch, distinct, steps, task = SMALL[name]
    train, test = (PictureFolder(Path(images) / part).loaded() for part in ("train", "held_out"))
    kind = {"inverted": True} if strength is None else {"strength": strength}
    pairs = SyntheticPairs(**task, **kind, zoom=(1.0, 2.5), structure=0.65, seed=seed)
    shown = pairs.model_copy(update={"wander": task["reach"]}) if name == "features" else pairs  # not the middle only
    trainer = Trainer(
        Training(
            network=name, options=options, images=images, pairs=shown, batch_size=batch, learning_rate=rate,
            warm_up=20, seed=seed, distinct_pairs=distinct, steps=steps,
        ),
        train,
    )  # fmt: skip
    state, spent = Path(keep) / f"{name}-training.safetensors", 0.0
    if state.exists():
        arrays, card = unpacked(state)
        trainer.restore(arrays, card["step"])
        spent = card["spent"]
    while trainer.step < steps:
        begun = time.process_time()
        for _ in range(min(steps // 20, steps - trainer.step)):
            trainer.advance()
        spent += time.process_time() - begun
        state.write_bytes(packed(trainer.arrays(), {"step": trainer.step, "spent": spent}))
        if time.monotonic() > stop:
            print(f"{name}: step {trainer.step} of {steps} after {spent:.0f} s", flush=True)
            return None
    card = {"network": name, "options": options, "step": trainer.step}
    (Path(keep) / f"{name}.safetensors").write_bytes(packed(arrays_of(trainer.network), card))
    held_out = FixedPairs(pairs.model_copy(update={"seed": 991}), test, count)
    begun, errors, nothing = time.process_time(), [], []
    for pair in (held_out[k] for k in range(count)):
        errors.append(corner_error(_corners(name, trainer.network, pair), pair.corners))
        nothing.append(corner_error(pair.nothing, pair.corners))
    tested = time.process_time() - begun
    return {
        "network": name, "parameters": count_parameters(trainer.network), "steps": trainer.step, "batch": batch,
        "cpu_s": round(spent), "test_s": round(tested, 1),
        **{f"{q}_px": round(float(np.percentile(errors, p)), 2) for q, p in (("q25", 25), ("median", 50), ("q75", 75))},
        "mean_px": round(float(np.mean(errors)), 2), "max_px": round(float(np.max(errors)), 1),
        "nothing_px": round(float(np.mean(nothing)), 2),
    }  # fmt: skip


def _corners(name, network, pair):
    from stackalign.core.deep.inference import match_images, regressed_corners
    from stackalign.core.deep.pairs import corners_of

    if name != "features":
        return regressed_corners(network, pair.reference, pair.moving)
    matrix = match_images(network, pair.reference, pair.moving).matrix
    ends = np.c_[corners_of(pair.moving.shape), np.ones(4)] @ matrix.T
    return ends[:, :2] / ends[:, 2:]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", default=list(SMALL))
    parser.add_argument("--keep", required=True, help="folder for what is trained: a training that was stopped goes on")
    parser.add_argument(
        "--seconds", type=float, default=np.inf, help="stop each training after so many, to go on later"
    )
    parser.add_argument("--images", default="../training-images")
    parser.add_argument("--strength", type=float, default=None)
    given = parser.parse_args()
    import torch

    from stackalign.core.threads import threads

    torch.set_num_threads(threads())
    Path(given.keep).mkdir(parents=True, exist_ok=True)
    first = True
    for name in given.networks:
        row = trained(name, keep=given.keep, seconds=given.seconds, images=given.images, strength=given.strength)
        if row is None:
            continue
        if first:
            print("| " + " | ".join(row) + " |\n|" + "---|" * len(row), flush=True)
        first = False
        print("| " + " | ".join(map(str, row.values())) + " |", flush=True)


if __name__ == "__main__":
    main()
