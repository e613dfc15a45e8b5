"""Every frame that is wrong must be flagged, and no other: 1000 frames that jump, darken, are blank or covered.

Also pairs turned by 180 degrees. ``STACKALIGN_BENCH=0.2`` takes every fifth scene, ``STACKALIGN_BENCH_SEED=21`` other
movies.
"""

import os

import numpy as np
import pytest

import stackalign as sa

from .robustness import KINDS, SCENES, movie, outcome
from .scenes import SCALE

pytestmark = pytest.mark.benchmark
SEED = int(os.environ.get("STACKALIGN_BENCH_SEED", "0"))
METHODS = {
    "cross-correlation": (sa.CrossCorrelation, 0.0),
    "lucas-kanade": (sa.LucasKanade, 3.0),  # degrees
}


@pytest.mark.parametrize("method", METHODS)
def test_sweep(method: str) -> None:
    make, rotation = METHODS[method]
    scenes = SCENES[: max(round(SCALE * len(SCENES)), 1)]
    columns = "frames | blank | wrong, not flagged | found, yet flagged | not found, flagged | worst, px | rms, x bound"
    print(f"\n| {method} | {columns} |\n|---|---|---|---|---|---|---|---|")
    for kind in KINDS:
        found = []
        for scene in scenes:
            shown = movie(kind, scene, SEED, rotation=rotation)
            found.append(outcome(shown, sa.register(shown.frames, make())))
        frames, lost = (sum(f[name] for f in found) for name in ("frames", "lost"))
        unseen, needless, refused = (
            ", ".join(f"{s} {len(f[name])}" for s, f in zip(scenes, found, strict=True) if f[name]) or "0"
            for name in ("unseen", "needless", "refused")
        )
        worst = max(f["worst"] for f in found)
        off = " ".join(f"{np.sqrt(np.mean(f['ratios'] ** 2)):.2f}" for f in found if len(f["ratios"]))
        print(f"| {kind} | {frames} | {lost} | {unseen} | {needless} | {refused} | {worst:.2f} | {off} |")
        assert frames


def test_half_turns() -> None:
    wrong = refused = 0
    turns = range(max(round(20 * SCALE), 4))
    for seed in turns:
        scene = SCENES[seed % (len(SCENES) - 1)]  # not the smooth one
        still = movie("brightness", scene, seed, count=12, rotation=0.0).frames[0].astype(np.float32)
        moving = still[::-1, ::-1] + np.random.default_rng(seed).normal(0, 10, still.shape).astype(np.float32)
        found = sa.register_pair(moving[6:, 9:], still, sa.LucasKanade(max_rotation=180))
        truth = np.array([[-1.0, 0, still.shape[0] - 1 - 6], [0, -1, still.shape[1] - 1 - 9], [0, 0, 1]])
        off = np.abs(found.transform.matrix - truth)[:2, 2].max()
        refused += found.refused
        wrong += not found.refused and off > 1.0
    print(f"\nhalf turns: {len(turns)} pairs, {wrong} wrong, {refused} refused")
    assert wrong == 0
