"""Speed of spot fits and of tracking beside what users would pick instead; printed, never asserted on time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.optimize import curve_fit

from stackalign import GaussianSpot, fit_spots, motion_from_tracks, read_stack, set_threads, track_spots, write_stack
from tests.accuracy.test_spots import bound, scatter, spots
from tests.core.spots.scenes import boxes, spread

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.benchmark


def rate(work: Callable[[], object], count: int, repeats: int = 3) -> float:
    """Return items a second of the fastest of some runs."""
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return count / best


def test_fits_a_second() -> None:
    mean, _, centre = spots(20_000, 1500, 5000)
    patches = np.random.default_rng(1).poisson(mean).astype(np.float32)
    crb = bound(mean[:2000], centre[:2000])
    speeds = {}
    for model in ("circular", "elliptic", "rotated"):
        for estimator in ("mle", "lsq"):
            fits = fit_spots(patches, model, estimator)
            speeds[model, estimator] = rate(lambda m=model, e=estimator: fit_spots(patches, m, e), len(patches))
            print(
                f"fit_spots {model} {estimator}: {speeds[model, estimator]:,.0f} fits/s,"
                f" {scatter(fits, centre) / crb:.3f} x CRB, {100 * (~fits.ok).mean():.2f} % rejected"
            )

    y, x = np.mgrid[: patches.shape[1], : patches.shape[2]].reshape(2, -1)

    def gauss(_: object, a: float, y0: float, x0: float, s1: float, s2: float, angle: float, b: float) -> np.ndarray:
        c, s = np.cos(angle), np.sin(angle)
        u, v = c * (y - y0) + s * (x - x0), c * (x - x0) - s * (y - y0)
        return a * np.exp(-0.5 * ((u / s1) ** 2 + (v / s2) ** 2)) + b

    few = patches[:100]

    def scipy_fits() -> None:
        for patch in few:
            first = (patch.max() - patch.min(), 7.0, 7.0, 2.1, 1.9, 0.1, patch.min())
            curve_fit(gauss, None, patch.ravel(), p0=first)

    set_threads(1)
    alone = {m: rate(lambda m=m: fit_spots(patches, m), len(patches)) for m in ("circular", "rotated")}
    set_threads(None)
    usual = rate(scipy_fits, len(few), 1)
    print(
        f"scipy curve_fit, 7 parameters: {usual:,.0f} fits/s; fit_spots is {speeds['rotated', 'mle'] / usual:,.0f} x,"
        f" {alone['rotated'] / usual:,.0f} x with one thread"
    )
    picasso = pytest.importorskip("picasso.gaussmle", reason="picasso is not installed: pip install picassosr")
    picasso.gaussmle(patches[:10], 1e-3, 100, "sigma")
    peer = rate(lambda: picasso.gaussmle(patches, 1e-3, 100, "sigma"), len(patches), 1)
    print(
        f"picasso MLE, one thread: {peer:,.0f} fits/s; fit_spots is {alone['circular'] / peer:,.1f} x with one thread"
    )


def test_tracking_against_reading(tmp_path: Path) -> None:
    length, shape = 1000, (512, 512)
    rng = np.random.default_rng(0)
    drift = np.cumsum(rng.normal(0, 0.3, (length, 2)), 0)
    drift *= 30 / np.abs(drift).max()
    where = spread(rng, 20, 60, shape, apart=40)[:, None] + (drift - drift[0])[None]
    background = rng.poisson(20, (8, *shape)).astype(np.uint16)
    frames = np.empty((length, *shape), np.uint16)
    for t in range(length):
        frames[t] = background[t % 8]
        for place in where[:, t]:
            y, x = np.round(place).astype(int)
            spot = GaussianSpot(300.0, place, np.array([1.6, 1.6])).image((17, 17), (y - 8, x - 8))
            frames[t, y - 8 : y + 9, x - 8 : x + 9] += rng.poisson(spot).astype(np.uint16)
    write_stack(tmp_path / "movie.tif", frames)
    del frames
    stack = read_stack(tmp_path / "movie.tif", axes="tyx")
    picks = boxes(where[:, 0], shape)
    track_spots(stack.selected(slice(0, 20)), picks)
    read = rate(lambda: [stack[t] for t in range(length)], length, 2)
    track = rate(lambda: track_spots(stack, picks), length, 2)
    print(f"read {read:,.0f} frames/s (from the page cache), track 20 particles {track:,.0f} frames/s")


def test_motion_of_many_tracks() -> None:
    from tests.core.spots.test_motion import moved

    tracks, _ = moved(count=50, length=5000, walkers=5, gaps=0.02)
    motion_from_tracks(tracks)
    speed = rate(lambda: motion_from_tracks(tracks, shape=(300, 420)), 1)
    print(f"motion of 50 particles x 5000 frames: {1000 / speed:.0f} ms")
