"""Every network trains: steps, time and corner error on held-out synthetic pairs beside doing nothing.

    python scripts/fetch_training_images.py ../training-images
    python -m tests.benchmarks.bench_deep [NETWORK ...] --keep FOLDER [--seconds 380]
    python -m tests.benchmarks.bench_deep --refused 130 --keep FOLDER [--seconds 380] [--trained FILE]

The papers train a network for one modality and its counterpart, not for all; so the template is a negative with a
little noise here. Small pairs, so that a CPU is enough, and networks of a fraction of their published widths. Networks
that regress see 48 px images, 32 px templates and corners within 8 px; Lucas-Kanade, whose coarsest maps have an eighth
of the resolution, and ours 96 px, 64 px and 16 px. Doing nothing is measured beside them (the floor of 24.5 px belongs
to 192 px images, corners within 32 px). `--strength` renders both images at random instead, as in the training of ours.

`--refused` makes so many pairs of held-out pictures, rendered at random at many strengths, every tenth of two scenes,
asks the network where the search without training is refused, and prints how often answers of each probability are
right.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

NARROW = {"size": 48, "template": 32, "reach": 8}
WIDE = {"size": 96, "template": 64, "reach": 16}
_EMBEDDING = {"width": 8, "features": 2, "widths": (24, 32, 48), "hidden": 128, "first_stage": 300, "halvings": 1}
SMALL = {  # options, learning rate, pairs in a step, steps, task
    "features": ({"widths": (12, 24, 32, 48), "coarse": 24, "fine": 12}, 2e-3, 4, 600, WIDE | {"wander": 16}),
    "description": ({"widths": (8, 16, 24, 32), "added": 3}, 2e-3, 2, 300, WIDE),
    "mhn": ({"widths": (16, 24, 32), "hidden": 128, "levels": 2}, 4e-3, 128, 1800, NARROW),
    "dhn": ({"widths": (24, 32, 48), "hidden": 128, "halvings": 1}, 4e-3, 128, 1200, NARROW),
    "embedding-corners": (_EMBEDDING, 3e-3, 128, 1800, NARROW),
    "embedding-matrix": (_EMBEDDING, 3e-3, 128, 1800, NARROW),
    "clkn": ({"width": 8, "channels": 4, "iterations": 4}, 3e-3, 16, 700, WIDE),
    "dlkfm": ({"width": 8, "iterations": 10}, 2e-3, 8, 600, WIDE),
}
# scenes that are made, by the size of their images; each is seen turned, mirrored and under new homographies
DISTINCT = {48: 8000, 96: 2000}
TESTED = 64
OFTEN = 25  # steps between states that are put away


def recipe_of(strength, seed, **task):
    """Return how pairs are made."""
    from stackalign.core.deep.pairs import SyntheticPairs

    kind = {"inverted": True} if strength is None else {"strength": strength}
    return SyntheticPairs(**task, **kind, zoom=(1.0, 2.5), structure=0.65, seed=seed)


def scenes(keep, images, recipe):
    """Return scenes to train with, (N, 2, y, x); what was made before is read."""
    from stackalign.io.pictures import PictureFolder

    kind = "inverted" if recipe.inverted else f"strength{recipe.strength}"
    file = Path(keep) / f"scenes-{recipe.size}-{kind}-{recipe.seed}.npy"
    if not file.exists():
        pictures = PictureFolder(Path(images) / "train").loaded()
        np.save(file, np.stack([recipe.scene(pictures, k) for k in range(DISTINCT[recipe.size])]))
    return np.load(file)


def held_out(images, recipe):
    """Return pairs of other pictures to test with."""
    from stackalign.io.pictures import PictureFolder

    pictures = PictureFolder(Path(images) / "held_out").loaded()
    return [recipe.pair(pictures, k) for k in range(TESTED)]


def trained(name, *, keep, seconds=np.inf, seed=0, images="../training-images", strength=None):
    """Train a network, or go on with it; returns a row of the table, None if ``seconds`` were not enough."""
    from stackalign.core.deep.networks.base import count_parameters
    from stackalign.core.deep.pairs import corner_error
    from stackalign.core.deep.scenes import Scenes
    from stackalign.core.deep.train import Trainer, Training
    from stackalign.core.deep.weights import arrays_of, packed, unpacked

    stop = time.monotonic() + seconds
    options, rate, batch, steps, task = SMALL[name]
    pairs = recipe_of(strength, seed, **task)
    test = held_out(images, recipe_of(strength, 991, **{**task, "wander": 0}))  # the test is the published one
    common = {"images": images, "batch_size": batch, "learning_rate": rate, "seed": seed, "steps": steps}
    if name in ("features", "description"):  # what lies beyond a scene must be seen: every pair is new
        from stackalign.io.pictures import PictureFolder

        shown = PictureFolder(Path(images) / "train").loaded()
        trainer = Trainer(Training(network=name, options=options, pairs=pairs, warm_up=20, **common), shown)
    else:
        pool = scenes(keep, images, pairs)
        again = {"distinct_pairs": len(pool), "redraw": True, "warm_up": 100}
        recipe = Training(network=name, options=options, pairs=pairs, **common, **again)
        trainer = Trainer(recipe, [np.zeros((1, 1, 3), np.uint8)])
        trainer.scenes = Scenes(pairs, trainer.images, len(pool), pool)
    state, spent = Path(keep) / f"{name}-training.safetensors", 0.0
    if state.exists():
        arrays, card = unpacked(state)
        trainer.restore(arrays, card["step"])
        spent = card["spent"]
    while trainer.step < steps:
        begun = time.process_time()
        count = min(OFTEN, steps - trainer.step)
        losses = [trainer.advance().get("corners", np.nan) for _ in range(count)]
        spent += time.process_time() - begun
        state.write_bytes(packed(trainer.arrays(), {"step": trainer.step, "spent": spent}))
        print(f"{name}: step {trainer.step} of {steps}, {spent:.0f} s, {np.mean(losses):.2f} px", file=sys.stderr)
        if time.monotonic() > stop:
            return None
    card = {"network": name, "options": options, "step": trainer.step}
    (Path(keep) / f"{name}.safetensors").write_bytes(packed(arrays_of(trainer.network), card))
    begun = time.process_time()
    errors = [corner_error(_corners(trainer.network, pair), pair.corners) for pair in test]
    tested = time.process_time() - begun
    nothing = [corner_error(pair.nothing, pair.corners) for pair in test]
    quartiles = dict(zip(("q25_px", "median_px", "q75_px"), np.percentile(errors, (25, 50, 75)), strict=True))
    return {
        "network": name, "parameters": count_parameters(trainer.network), "steps": trainer.step, "batch": batch,
        "cpu_s": round(spent), "test_s": round(tested, 1), "mean_px": f"{np.mean(errors):.2f}",
        **{key: f"{value:.2f}" for key, value in quartiles.items()}, "max_px": f"{np.max(errors):.1f}",
        "nothing_px": f"{np.mean(nothing):.2f}",
    }  # fmt: skip


def _corners(network, pair):
    from stackalign.core.deep.inference import match_images, regressed_corners
    from stackalign.core.deep.pairs import corners_of
    from stackalign.core.deep.registrar import DeepHomography

    if network.gives == "corners":
        return regressed_corners(network, pair.reference, pair.moving)
    if network.gives == "features":
        matrix = match_images(network, pair.reference, pair.moving).matrix
    else:
        matrix = DeepHomography().found(network, pair.reference, pair.moving)[0]
    ends = np.c_[corners_of(pair.moving.shape), np.ones(4)] @ matrix.T
    return ends[:, :2] / ends[:, 2:]


def asked(count, *, keep, seconds=np.inf, images="../training-images", trained=None):
    """Print how likely answers are said to be where the search without training is refused, and how often they are.

    What was answered before is read.
    """
    import stackalign as sa
    from stackalign.core.deep.pairs import SyntheticPairs
    from stackalign.core.multimodal.corners import corner_distance
    from stackalign.core.multimodal.judge import judge
    from stackalign.core.multimodal.matching import match
    from stackalign.core.multimodal.views import ImageViews
    from stackalign.io.pictures import PictureFolder
    from tests.benchmarks.bench_multimodal import reliability

    stop, file = time.monotonic() + seconds, Path(keep) / "refused.npz"
    pictures = list(PictureFolder(Path(images) / "held_out").loaded())
    rows = list(np.load(file)["rows"]) if file.exists() else []
    aligner = sa.DeepHomography(trained=trained).aligner()
    ranges = {"angles": aligner.parameters.angles(), "scales": aligner.parameters.scales()}
    for k in range(len(rows), count):
        if time.monotonic() > stop:
            break
        strength = (0.3, 0.45, 0.6, 0.75)[k % 4]
        recipe = SyntheticPairs(seed=77000 + k, strength=strength, zoom=(1.0, 2.5), structure=0.65)
        pair, alien = recipe.pair(pictures, 0), k % 10 == 9
        moving = recipe.pair(pictures[::-1], 1).moving if alien else pair.moving
        views = ImageViews(*(aligner.filtered(np.float32(image)) for image in (pair.reference, moving)))
        first, row = match(views, **ranges), [np.nan, np.nan]
        if first is None or judge(first.evidence).refused:
            found = aligner.matched(views, [] if first is None else [first.matrix], model=aligner.model)
            if found is not None:
                error = 1e4 if alien else float(corner_distance(found.matrix, pair.matrix, moving.shape))
                row = [judge(found.evidence).probability, np.nan_to_num(error, nan=1e4)]
        rows.append(row)
        np.savez(file, rows=rows)
    table = np.array([row for row in rows if np.isfinite(row).all()])
    print(f"{len(table)} of {len(rows)} pairs")
    reliability(table[:, 0], table[:, 1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", default=list(SMALL))
    parser.add_argument("--keep", required=True, help="folder for what is trained: a training that was stopped goes on")
    parser.add_argument(
        "--seconds", type=float, default=np.inf, help="stop each training after so many, to go on later"
    )
    parser.add_argument("--images", default="../training-images")
    parser.add_argument("--strength", type=float, default=None)
    parser.add_argument("--refused", type=int, metavar="PAIRS", help="ask where the search without training is refused")
    parser.add_argument("--trained", help="weights to ask; none: those that come with stackalign")
    given = parser.parse_args()
    import torch

    from stackalign.core.threads import threads

    torch.set_num_threads(threads())
    Path(given.keep).mkdir(parents=True, exist_ok=True)
    if given.refused:
        limits = {"keep": given.keep, "seconds": given.seconds, "images": given.images}
        asked(given.refused, **limits, trained=given.trained)
        return
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
