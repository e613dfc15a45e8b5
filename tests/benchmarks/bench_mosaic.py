"""Frames far from the reference: errors with the mosaic of what other frames show, and without.

`pytest -m benchmark -s tests/benchmarks/bench_mosaic.py` prints a row a test.
"""

import time

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.references import rounds

from .robustness import JUMP, corner_errors, field_of, photographed, series_of

pytestmark = pytest.mark.benchmark
PHOTONS = 100.0
MOVIES = [
    ("jump", "hubble_deep_field", 100, 256),
    ("jump", "retina", 100, 160),
    ("drift", "hubble_deep_field", 120, 200),
    ("drift", "retina", 200, 160),
]
METHODS = {"cross-correlation": (sa.CrossCorrelation, 0.0), "lucas-kanade": (sa.LucasKanade, 2.0)}
REACH = {"hubble_deep_field": 1.6, "retina": 1.0}  # of the frame, that it drifts by


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("kind", "scene", "count", "size"), MOVIES)
def test_far_frames(monkeypatch: pytest.MonkeyPatch, kind: str, scene: str, count: int, size: int, method: str) -> None:
    """Rms error of the corners of all frames in the gauge of most, the same of those in the last fifth, CPU time."""
    make, turn = METHODS[method]
    rng = np.random.default_rng(5)
    if kind == "jump":
        drift, away = rng.normal(0, 1, (count, 2)), np.zeros(count, bool)
        for start in rng.choice(count - 20, 4):
            away[start : start + count // 16] = True
        drift[away] += JUMP * size * np.array([0.8, 0.6])
    else:
        drift = np.linspace(0, REACH[scene], count)[:, None] * np.array([0.9, 0.5]) * size
        drift = drift + rng.normal(0, 0.5, (count, 2))
        away = np.arange(count) >= 0.8 * count
    drift -= drift[0]
    series = series_of(drift, np.deg2rad(turn) * rng.uniform(-1, 1, count), (size, size))
    still = field_of(scene, series, (size, size))
    views = np.stack([still.render(matrix) for matrix in series.matrices])
    views *= PHOTONS / views[0].mean()
    frames = photographed(views, rng)
    sa.register(frames[:4], make())
    shown = []
    for without in (True, False):
        with monkeypatch.context() as patch:
            if without:
                patch.setattr(rounds, "refine_on_mosaic", lambda run: iter(()))
            begun = time.process_time()
            result = sa.register(frames, make())
            spent = time.process_time() - begun
        good = ~result.quality.flagged
        error = corner_errors(series.matrices, result.transforms.matrices, good, (size, size))
        parts = (good, good & away)
        shown += [f"{np.sqrt(np.mean(error[part] ** 2)):.4f}" if part.any() else "-" for part in parts]
        shown.append(f"{spent:.1f}")
    print(f"\n| {kind}, `{scene}` {count} x {size} x {size} | {method} | {(~good).sum()} | " + " | ".join(shown) + " |")
