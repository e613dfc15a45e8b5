"""Speed of spot fits and of tracking beside what users would pick instead; printed, never asserted on time."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.optimize import curve_fit

from stackalign import (
    GaussianSpot,
    ParticleTracking,
    fit_spots,
    motion_from_tracks,
    read_stack,
    set_threads,
    threads,
    track_spots,
    write_stack,
)
from tests.accuracy.test_spots import bound, scatter, spots
from tests.core.spots.scenes import boxes, spread

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.benchmark


def rate(
    work: Callable[[], object], count: int, repeats: int = 3, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return items a second of the fastest of some runs; with ``time.process_time`` a second of one core."""
    best = np.inf
    for _ in range(repeats):
        start = clock()
        work()
        best = min(best, clock() - start)
    return count / best


def test_fits_a_second() -> None:
    mean, _, centre = spots(20_000, 1500, 5000)
    patches = np.random.default_rng(1).poisson(mean).astype(np.float32)
    crb = bound(mean[:2000], centre[:2000])
    speeds = {}
    for model in ("circular", "elliptic", "rotated"):
        for estimator in ("mle", "lsq"):
            fits = fit_spots(patches, model, estimator)
            speeds[model, estimator] = rate(lambda m=model, e=estimator: fit_spots(patches, m, e), len(patches), 7)
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

    core = time.process_time
    set_threads(1)
    alone = {m: rate(lambda m=m: fit_spots(patches, m), len(patches), 15, core) for m in ("circular", "rotated")}
    set_threads(None)
    usual, usual_core = rate(scipy_fits, len(few), 5), rate(scipy_fits, len(few), 5, core)
    print(
        f"scipy curve_fit, 7 parameters: {usual:,.0f} fits/s; fit_spots as it is, {threads()} threads:"
        f" {speeds['rotated', 'mle'] / usual:,.0f} x; a core's time: {usual_core:,.0f} and {alone['rotated']:,.0f},"
        f" {alone['rotated'] / usual_core:,.0f} x"
    )
    picasso = pytest.importorskip("picasso.gaussmle", reason="picasso is not installed: pip install picassosr")
    picasso.gaussmle(patches[:10], 1e-3, 100, "sigma")
    peer = rate(lambda: picasso.gaussmle(patches, 1e-3, 100, "sigma"), len(patches), 3, core)
    found = picasso.gaussmle(patches, 1e-3, 100, "sigma")[0]
    off = np.sqrt(np.nanmean((found[:, :2] - centre[:, ::-1]) ** 2)) / crb
    print(
        f"picasso MLE, circular: {peer:,.0f} fits a second and core, {off:.3f} x CRB;"
        f" fit_spots {alone['circular']:,.0f}, {alone['circular'] / peer:,.1f} x"
    )


def test_tracking_against_reading(tmp_path: Path) -> None:
    length, shape = int(os.environ.get("STACKALIGN_BENCH_FRAMES", "1000")), (512, 512)
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
    for name, clock in (("wall", time.perf_counter), ("a core's time", time.process_time)):
        read = rate(lambda: [stack[t] for t in range(length)], length, 3, clock)
        track = rate(lambda: track_spots(stack, picks), length, 3, clock)
        print(
            f"{length} frames of 512 x 512, {name}: read {read:,.0f} frames/s (from memory: {read * 0.524:,.0f} MB/s),"
            f" track 20 particles {track:,.0f} frames/s: reading is {track / read:.0%} of it;"
            f" a disk slower than {track * 0.524:,.0f} MB/s is the limit"
        )


def test_motion_of_many_tracks() -> None:
    from stackalign.trajectories import Trajectories
    from tests.core.spots.test_motion import moved

    tracks, _ = moved(count=50, length=5000, walkers=5, gaps=0.02)
    motion_from_tracks(tracks)
    whole = Trajectories.of(tracks, "euclidean", (300, 420))
    whole.draft((3,))
    for name, clock in (("wall", time.perf_counter), ("a core's time", time.process_time)):
        speed = rate(lambda: motion_from_tracks(tracks, shape=(300, 420)), 1, 5, clock)
        draft = rate(lambda: whole.draft((3, 9)), 1, 9, clock)
        print(f"motion of 50 particles x 5000 frames, {name}: {1000 / speed:.0f} ms; its draft {1000 / draft:.0f} ms")


def test_a_fit_under_the_mouse() -> None:
    from stackalign.picking import fit_box, patches_of, propose_box

    rng = np.random.default_rng(0)
    image = rng.poisson(
        GaussianSpot(300.0, np.array([250.2, 260.7]), np.array([2.0, 2.0]), background=20.0).image((512, 512))
    )
    method = ParticleTracking()
    box, _ = propose_box(image, (251.0, 260.0), method)
    one = rate(lambda: patches_of(image, fit_box(image, box, method)), 1, 20)
    click = rate(lambda: propose_box(image, (252.0, 259.0), method), 1, 20)
    print(f"fit and pictures of a box: {1000 / one:.1f} ms; a box proposed at a click: {1000 / click:.1f} ms")
