"""Speed and accuracy of joint alignment beside the published optimisation; printed, never asserted on time."""

from __future__ import annotations

import pytest

import stackalign as sa
from stackalign.core.simulate import Simulation
from stackalign.core.trial import run_trial
from stackalign.core.work import drain

pytestmark = pytest.mark.benchmark


def movie(shape: tuple[int, int], frames: int, shift: float, angle: float) -> Simulation:
    return Simulation(
        scene="camera", shape=shape, frames=frames, motion="uniform", model="euclidean", amplitude=shift,
        rotation=angle, photons=1000.0,
    )  # fmt: skip


def told(name: str, record: Simulation, registrar: sa.Reals) -> float:
    """Print a trial; returns its seconds of processor time."""
    trial = drain(run_trial(record, registrar)).unwrap()
    print(
        f"{name}: {record.frames} x {record.shape}, {trial.cpu_seconds:.2f} s CPU, {trial.seconds:.2f} s,"
        f" inconsistency {trial.inconsistency_before:.3g} -> {trial.inconsistency:.3g},"
        f" corners {trial.error_px:.4f} px rms, {trial.error_max_px:.4f} at most, {trial.flagged} flagged"
    )
    return trial.cpu_seconds


def test_sixty_frames_of_512() -> None:
    record = movie((512, 512), 60, 18, 12)
    told("gauss-newton, first", movie((64, 64), 4, 2, 2), sa.Reals())  # compiles
    told("gauss-newton", record, sa.Reals())
    told("gauss-newton, mini-batches of 15", record, sa.Reals(batch_size=15))


@pytest.mark.timeout(3600)
def test_beside_the_published_solver() -> None:
    pytest.importorskip("torch")
    record = movie((192, 192), 24, 6, 4)
    told("gauss-newton, first", movie((64, 64), 4, 2, 2), sa.Reals())
    ours = told("gauss-newton", record, sa.Reals())
    theirs = told("adam, 2000 steps", record, sa.Reals(solver="adam"))
    print(f"ratio of processor times: {theirs / ours:.0f}")
    for method in (sa.LucasKanade(model="euclidean"),):
        trial = drain(run_trial(record, method)).unwrap()
        print(f"{method.method}: {trial.cpu_seconds:.2f} s CPU, corners {trial.error_px:.4f} px rms")
