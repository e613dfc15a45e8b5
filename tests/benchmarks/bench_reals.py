"""Joint alignment: errors, times and comparators on movies of known motion; printed, never asserted.

    python -m tests.benchmarks.bench_reals motion [flicker noise solvers activity ...] [camera ...] [18 24 ...]

``motion``: 60x512x512, four scenes, four amounts of motion. ``flicker``: the same with activity over a tenth of the
pixels. ``noise``: eight levels beside the Cramer-Rao bound. ``faint``: small movies of 3 to 30 photons. ``solvers``:
adam, RASL, StackReg and Lucas-Kanade on a small movie, without and with activity. ``activity``: F1 of the sparse
part. ``devices``: compiled functions beside torch on the processor and on a card, if there is one. ``step``: what a
step of adam costs. ``whole``: all 2000 steps of it on a full movie, beside ours. Names of scenes and translations
leave out the others: what takes long can be run in parts.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.evaluation import alignment_inconsistency, corner_bound
from stackalign.core.generators import moved_points
from stackalign.core.geometry import corners
from stackalign.core.simulate import Simulation
from stackalign.core.threads import threads
from stackalign.core.transform_series import TransformSeries
from stackalign.core.trial import run_trial, with_noise
from stackalign.core.work import drain

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(7200)]

SCENES: dict[str, dict[str, Any]] = {
    "camera": {"scene": "camera"},
    "retina": {"scene": "retina"},
    "cell": {"scene": "cell"},
    # neurons side by side, some 10 px long, as light-sheet movies of a fish's brain show them
    "zebrafish-like": {"scene": "cells", "spots": 2000, "contrast": 1.5},
}
MOTIONS = ((6.0, 4.0), (12.0, 8.0), (18.0, 12.0), (24.0, 16.0))
ACTIVITY = {"flicker": 0.1, "flicker_brightness": 3.0}


def movie(scene: str, size: int, frames: int, shift: float, angle: float, **more: Any) -> Simulation:
    base: dict[str, Any] = {
        "shape": (size, size), "frames": frames, "motion": "uniform", "model": "euclidean", "amplitude": shift,
        "rotation": angle, "photons": 1000.0, "seed": 4,
    }  # fmt: skip
    return Simulation(**{**base, **SCENES.get(scene, {"scene": scene}), **more})


def chosen(scenes: Iterable[str]) -> list[str]:
    """Return the scenes that the command line names; all if it names none."""
    return [scene for scene in scenes if scene in sys.argv] or list(scenes)


def chosen_motions() -> list[tuple[float, float]]:
    return [motion for motion in MOTIONS if f"{motion[0]:g}" in sys.argv] or list(MOTIONS)


def told(name: str, record: Simulation, registrar: Any) -> Any:
    trial = drain(run_trial(record, registrar, follow=False)).unwrap()
    print(
        f"| {name} | {record.frames}x{record.shape[0]}x{record.shape[1]} | {record.amplitude:g} px {record.rotation:g}°"
        f" | {trial.inconsistency_before:.4f} -> {trial.inconsistency:.6f} | {trial.error_px:.4f} /"
        f" {trial.error_max_px:.4f} | {trial.flagged} | {trial.cpu_seconds:.1f} | {trial.seconds:.1f} |",
        flush=True,
    )
    return trial


def compiled() -> None:
    drain(run_trial(movie("camera", 64, 4, 2, 2), sa.Reals())).unwrap()


def test_motion() -> None:
    compiled()
    for scene in chosen(SCENES):
        for shift, angle in chosen_motions():
            told(scene, movie(scene, 512, 60, shift, angle), sa.Reals())


def test_flicker() -> None:
    compiled()
    for scene in chosen(SCENES):
        for shift, angle in chosen_motions():
            told(f"{scene}, flicker", movie(scene, 512, 60, shift, angle, **ACTIVITY), sa.Reals())


def test_noise() -> None:
    """Print rms error over the bound for the known scene, and the adam solver's place is in `test_solvers`."""
    for scene in chosen(SCENES):
        for noise in [{"gaussian": f} for f in (0.001, 0.003, 0.01, 0.03)] + [
            {"peak": n} for n in (1000, 333, 100, 33)
        ]:
            record = with_noise(movie(scene, 256, 20, 6, 4), **noise)
            stack, truth = sa.simulate(record)
            error = truth.error(sa.register(sa.ImageStack(stack.asarray()), sa.Reals()).transforms)
            rms, bound = np.sqrt((error**2).mean()), float(corner_bound(truth, [1, 10]).mean())
            ((kind, level),) = noise.items()
            print(f"| {scene} | {kind} {level:g} | {rms:.4f} | {bound:.4f} | {rms / bound:.2f} |", flush=True)


def test_faint() -> None:
    """Print errors of frames that are kept, and how many are, in small movies of little light."""
    for scene in chosen(("retina", "cell", "camera")):
        for photons in (3.0, 5.0, 10.0, 30.0):
            errors, kept, bounds = [], [], []
            for frames in (12, 24):
                for seed in (0, 1):
                    record = movie(scene, 0, frames, 5, 5, shape=(121, 151), photons=photons, seed=seed)
                    stack, truth = sa.simulate(record)
                    result = sa.register(sa.ImageStack(stack.asarray()), sa.Reals())
                    errors.append(truth.error(result.transforms))
                    kept.append(~result.quality.flagged)
                    bounds.append(float(corner_bound(truth, [1]).mean()))
            error, good = np.concatenate(errors), np.concatenate(kept)
            print(
                f"| {scene} | {photons:g} | {np.mean(bounds):.2f} | {good.sum()} of {len(good)} |"
                f" {np.sqrt((error[good] ** 2).mean()):.2f} / {error[good].max():.2f} |",
                flush=True,
            )


def test_solvers() -> None:
    pytest.importorskip("torch")
    compiled()
    movies: dict[str, dict[str, Any]] = {"camera": {}, "camera, flicker": ACTIVITY}
    for name, more in movies.items():
        record = movie("camera", 128, 24, 6, 4, **more)
        told(f"{name}: gauss-newton", record, sa.Reals())
        told(f"{name}: gauss-newton, mini-batches of 6", record, sa.Reals(batch_size=6))
        told(f"{name}: Lucas-Kanade", record, sa.LucasKanade(model="euclidean"))
        for peer, align in (("StackReg", stackreg_movie), ("RASL", rasl_movie)):
            compared(f"{name}: {peer}", record, align)
        told(f"{name}: adam, 2000 steps", record, sa.Reals(solver="adam"))


def compared(name: str, record: Simulation, align: Any) -> None:
    stack, truth = sa.simulate(record)
    frames = stack.asarray().astype(np.float64)
    begun, busy = time.perf_counter(), time.process_time()
    found = TransformSeries(align(frames), "affine")
    wall, cpu = time.perf_counter() - begun, time.process_time() - busy
    error = truth.error(found)
    print(
        f"| {name} | {len(frames)}x{frames.shape[1]}x{frames.shape[2]} | {record.amplitude:g} px {record.rotation:g}° |"
        f" {alignment_inconsistency(found, truth.transforms, stack.frame_shape):.6f} |"
        f" {np.sqrt((error**2).mean()):.4f} / {error.max():.4f} | 0 | {cpu:.1f} | {wall:.1f} |",
        flush=True,
    )


def stackreg_movie(frames: np.ndarray) -> np.ndarray:
    from tests.benchmarks.peers import stackreg

    align = stackreg("euclidean", frames.shape[1:])
    return np.array([np.eye(3), *(align(frames[0], frame) for frame in frames[1:])])


def rasl_movie(frames: np.ndarray) -> np.ndarray:
    from tests.benchmarks.rasl import rasl

    return rasl(frames)


def test_activity() -> None:
    """Print F1 of the pixels that the sparse part calls lit: half-way between dark and lit."""
    for scene in chosen(("texture", "camera", "retina", "cell", "zebrafish-like", "coins", "brick")):
        record = movie(scene, 192, 24, 5, 5, photons=1500.0, **ACTIVITY)
        stack, truth = sa.simulate(record)
        result = sa.register(sa.ImageStack(stack.asarray()), sa.Reals())
        parts = result.details["decomposition"]
        shown = np.isfinite(parts.aligned.asarray())
        lit = np.array([truth.active(t) for t in range(len(stack))])
        seldom = (lit & shown).sum(axis=0) < 0.5 * shown.sum(axis=0)
        low, sparse = parts.low_rank.asarray() - record.offset, parts.sparse.asarray()
        found = sparse > low
        scores = []
        for where in (np.isfinite(sparse) & seldom, np.isfinite(sparse)):
            hits, wrong = (found & lit & where).sum(), ((found ^ lit) & where).sum()
            scores.append(2 * hits / (2 * hits + wrong))
        print(
            f"| {scene} | {scores[0]:.3f} | {scores[1]:.3f} | {1 - seldom.mean():.3f} |"
            f" {int(result.quality.flagged.sum())} |",
            flush=True,
        )


def test_devices() -> None:
    """Print compiled functions beside torch on the processor and on a card, and how far from theirs corners end."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(threads())
    compiled()
    cards = [None, "cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    records = [movie("camera", 128, 24, 6, 4), movie("camera", 512, 60, 18, 12, **ACTIVITY)]
    for record in [r for r in records if f"{r.amplitude:g}" in sys.argv] or records:
        stack, truth = sa.simulate(record)
        frames, points, ends = stack.asarray(), corners(record.shape), []
        for card in cards:
            with mock.patch("stackalign.core.lowrank.registrar.chosen_card", return_value=card):
                begun, busy = time.perf_counter(), time.process_time()
                found = sa.register(frames, sa.Reals()).transforms
                wall, cpu = time.perf_counter() - begun, time.process_time() - busy
            ends.append(moved_points(found.matrices, points))
            print(
                f"| {f'torch, {card}' if card else 'compiled'} | {'x'.join(map(str, frames.shape))} |"
                f" {truth.error(found).max():.4f} | {np.abs(ends[-1] - ends[0]).max():.6f} | {cpu:.1f} | {wall:.1f} |",
                flush=True,
            )


def test_step() -> None:
    """Print what 2000 steps of adam would take on a full movie, extrapolated from a few, beside our whole run."""
    pytest.importorskip("torch")
    compiled()
    record = movie("camera", 512, 60, 18, 12)
    ours = told("gauss-newton", record, sa.Reals())
    costs = []
    for steps in (2, 8):
        trial = drain(run_trial(record, sa.Reals(solver="adam", iterations=steps), follow=False)).unwrap()
        costs.append((trial.cpu_seconds, trial.seconds))
    cpu, wall = ((b - a) / 6 for a, b in zip(*costs, strict=True))
    print(
        f"a step of adam: {cpu:.3f} s CPU, {wall:.3f} s; 2000 by extrapolation {2000 * cpu:.0f} s CPU,"
        f" {2000 * cpu / ours.cpu_seconds:.0f} times ours, {2000 * wall:.0f} s, {2000 * wall / ours.seconds:.0f} times"
    )


def test_whole() -> None:
    """Print how far adam gets in all of its steps on a full movie with activity, and how long that takes."""
    pytest.importorskip("torch")
    compiled()
    record = movie("retina", 512, 60, 18, 12, **ACTIVITY)
    told("retina, flicker: gauss-newton", record, sa.Reals())
    trial = drain(run_trial(record, sa.Reals(solver="adam"))).unwrap()
    for seconds, inconsistency in trial.course[:: max(len(trial.course) // 20, 1)]:
        print(f"adam after {seconds:.0f} s: {inconsistency:.6f}")
    print(
        f"adam, all steps: {trial.seconds:.0f} s, CPU {trial.cpu_seconds:.0f} s, {trial.inconsistency:.6f}", flush=True
    )


if __name__ == "__main__":
    tables = [word for word in sys.argv[1:] if f"test_{word}" in globals()]
    for table in tables or ("motion", "flicker"):
        print(f"\n{table}")
        globals()[f"test_{table}"]()
