"""Speed of spot fits and of tracking beside what users would pick instead; printed, never asserted on time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from scipy.optimize import curve_fit

from stackalign import (
    GaussianSpot,
    ImageStack,
    ParticleTracking,
    fit_spots,
    motion_from_tracks,
    read_stack,
    set_threads,
    threads,
    track_spots,
)
from tests.accuracy.test_spots import bound, scatter, spots
from tests.core.spots.scenes import boxes, spread

if TYPE_CHECKING:
    from collections.abc import Callable

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


def gauss(grid: np.ndarray, a: float, y0: float, x0: float, s1: float, s2: float, angle: float, b: float) -> np.ndarray:
    y, x = grid
    c, s = np.cos(angle), np.sin(angle)
    u, v = c * (y - y0) + s * (x - x0), c * (x - x0) - s * (y - y0)
    return a * np.exp(-0.5 * ((u / s1) ** 2 + (v / s2) ** 2)) + b


@pytest.mark.timeout(900)
def test_fits_a_second(tmp_path: Path) -> None:
    mean, _, centre = spots(10_000, 1500, 5000)
    patches = np.random.default_rng(1).poisson(mean).astype(np.float32)
    crb = bound(mean, centre)
    grid = np.mgrid[: patches.shape[1], : patches.shape[2]].reshape(2, -1).astype(float)
    few = patches[:150]

    def scipy_fits() -> list[np.ndarray]:
        firsts = [(patch.max() - patch.min(), 7.0, 7.0, 2.1, 1.9, 0.1, patch.min()) for patch in few]
        return [curve_fit(gauss, grid, p.ravel(), p0=first)[0] for p, first in zip(few, firsts, strict=True)]

    core, wall = time.process_time, time.perf_counter
    speed: dict[tuple[str, str, str], float] = {}
    for model in ("circular", "elliptic", "rotated"):
        for estimator in ("mle", "lsq"):
            fits = fit_spots(patches, model, estimator)
            print(
                f"fit_spots {model} {estimator}: {scatter(fits, centre) / crb:.4f} x CRB,"
                f" {(~fits.ok).sum()} of {len(fits)} rejected, {fits.rounds.mean():.2f} iterations"
            )
    times: dict[tuple[str, str, str], list[float]] = {}
    usual = {"core": 0.0, "wall": 0.0}
    for _ in range(5):  # in turn, so that what else runs on the machine slows all of them
        for name, clock in (("core", core), ("wall", wall)):
            theirs = rate(scipy_fits, len(few), 1, clock)
            usual[name] = max(usual[name], theirs)
            set_threads(1 if name == "core" else None)
            for model in ("circular", "elliptic", "rotated"):
                for estimator in ("mle", "lsq"):
                    key = model, estimator, name
                    now = rate(lambda m=model, e=estimator: fit_spots(patches, m, e), len(patches), 3, clock)
                    speed[key] = max(speed.get(key, 0.0), now)
                    times.setdefault(key, []).append(now / theirs)
    set_threads(None)
    print(
        f"scipy curve_fit, 7 parameters: {usual['core']:,.0f} a second and core, {usual['wall']:,.0f} by the wall clock"
    )
    for model in ("circular", "elliptic", "rotated"):
        for estimator in ("mle", "lsq"):
            core_key, wall_key = (model, estimator, "core"), (model, estimator, "wall")
            print(
                f"fit_spots {model} {estimator}: {speed[core_key]:,.0f} a second and core,"
                f" {np.median(times[core_key]):,.0f} x scipy (median); {speed[wall_key]:,.0f} by the wall clock with"
                f" {threads()} threads, {np.median(times[wall_key]):,.0f} x"
            )
    against_picasso(tmp_path, patches, centre, crb, speed)


def against_picasso(
    folder: Path, patches: np.ndarray, centre: np.ndarray, crb: float, speed: dict[tuple[str, str, str], float]
) -> None:
    """Print picasso's rates beside ours; it lives in an environment of its own, that of STACKALIGN_PICASSO."""
    python = os.environ.get("STACKALIGN_PICASSO", ".venv-picasso/bin/python")
    if shutil.which(python) is None:
        print(f"picasso: absent. python -m venv .venv-picasso && .venv-picasso/bin/pip install picassosr, or"
              f" STACKALIGN_PICASSO=/its/python (now {python})")  # fmt: skip
        return
    np.save(folder / "patches.npy", patches)
    script = Path(__file__).with_name("picasso_fits.py")
    done = subprocess.run(
        [python, str(script), str(folder / "patches.npy")], capture_output=True, text=True, timeout=280, check=False
    )
    if done.returncode:
        print(f"picasso: failed: {done.stderr.strip().splitlines()[-1]}")
        return
    peers = json.loads(done.stdout.splitlines()[-1])
    for peer in peers:
        off = np.sqrt(np.nanmean((np.array(peer["centre"]) - centre) ** 2)) / crb
        one, every = speed[peer["model"], "mle", "core"], speed[peer["model"], "mle", "wall"]
        print(
            f"picasso {peer['name']} {peer['model']} MLE: {off:.3f} x CRB, {peer['core']:,.0f} a second and core:"
            f" ours {one / peer['core']:.1f} x; {peer['wall']:,.0f} by the wall clock: ours"
            f" {every / peer['wall']:.1f} x"
        )


@pytest.mark.timeout(1200)
def test_tracking_against_reading(tmp_path: Path) -> None:
    """The movie lies on the disk, 2.6 GB of it; it is read cold (out of the system's cache) and warm."""
    length, shape = int(os.environ.get("STACKALIGN_BENCH_FRAMES", "5000")), (512, 512)
    rng = np.random.default_rng(0)
    drift = np.cumsum(rng.normal(0, 0.3, (length, 2)), 0)
    drift *= 30 / np.abs(drift).max()
    where = spread(rng, 20, 60, shape, apart=40)[:, None] + (drift - drift[0])[None]
    background = rng.poisson(20, (8, *shape)).astype(np.uint16)
    path = tmp_path / "movie.tif"
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for t in range(length):
            frame = background[t % 8].copy()
            for place in where[:, t]:
                y, x = np.round(place).astype(int)
                spot = GaussianSpot(300.0, place, np.array([1.6, 1.6])).image((17, 17), (y - 8, x - 8))
                frame[y - 8 : y + 9, x - 8 : x + 9] += rng.poisson(spot).astype(np.uint16)
            file.write(frame, contiguous=True)
    picks = boxes(where[:, 0], shape)
    megabytes = frame.nbytes * length / 1e6

    def opened(cold: bool) -> ImageStack:
        if cold:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return read_stack(path, axes="tyx")

    def read(stack: ImageStack) -> None:
        for t in range(length):
            stack[t]

    try:
        track_spots(opened(False).selected(slice(0, 20)), picks)
        for cold in (True, False):
            taken: dict[str, tuple[float, float]] = {}
            for name, work in (("read", read), ("track", lambda stack: track_spots(stack, picks))):
                stack = opened(cold)
                begun, busy = time.perf_counter(), time.process_time()
                work(stack)
                taken[name] = time.perf_counter() - begun, time.process_time() - busy
                del stack  # its memory map would keep the pages
            (wall, core), (track_wall, track_core) = taken["read"], taken["track"]
            print(
                f"{length} frames of 512 x 512 ({megabytes:,.0f} MB), {'from the disk' if cold else 'from the cache'}:"
                f" reading alone {wall:.2f} s ({megabytes / wall:,.0f} MB/s, {core:.2f} s of a core),"
                f" tracking 20 particles {track_wall:.2f} s ({length / track_wall:,.0f} frames/s, {track_core:.2f} s of"
                f" cores): reading is {wall / track_wall:.0%} of the time, {core / track_core:.0%} of the cores' work"
            )
    finally:
        path.unlink()


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
