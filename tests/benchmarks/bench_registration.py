"""Accuracy as a multiple of the Cramer-Rao bound of each scene, and speed against the peers in the same run.

``STACKALIGN_BENCH=0.1`` scales the number of frames. Tables go to the terminal and to the file that
``STACKALIGN_BENCH_TABLE`` names. ``STACKALIGN_BENCH_PEERS="scikit,StackReg"`` leaves the others out. Peers align to the
first frame; translations are measured so too, beside the default, the mean: ratios are given for both.
"""

import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stackalign as sa

from .peers import PEERS, Absent, timed
from .scenes import SCALE, Scene, errors, frames, scene

pytestmark = pytest.mark.benchmark
SECONDS = float(os.environ.get("STACKALIGN_BENCH_SECONDS", 12 * max(SCALE, 0.25)))  # for each peer and scene

HUBBLE = {"scene": "hubble_deep_field", "shape": (512, 512), "motion": "uniform", "amplitude": 20.0, "seed": 1}
ROWS = {
    "translation 512x512, 100 photons": (
        HUBBLE | {"photons": 100.0}, lambda: frames(500, 200), sa.CrossCorrelation, {}, 1.25,
    ),
    "translation 512x512, 5 photons": (
        HUBBLE | {"photons": 5.0}, lambda: frames(500, 200), sa.CrossCorrelation, {}, 1.2,
    ),
    "translation 2048x2048": (
        {"scene": "retina", "shape": (2048, 2048), "motion": "uniform", "amplitude": 20.0, "seed": 1},
        lambda: frames(60, 16), sa.CrossCorrelation, {}, 1.5,
    ),
    "rigid +-3 deg +-15 px, 512x512": (
        HUBBLE | {"model": "euclidean", "amplitude": 15.0, "rotation": 3.0},
        lambda: frames(200, 60), sa.LucasKanade, {"model": "euclidean"}, 1.5,
    ),
    "affine, 512x512": (
        HUBBLE | {"model": "affine", "amplitude": 15.0, "rotation": 2.0, "stretch": 0.01},
        lambda: frames(200, 60), sa.LucasKanade, {"model": "affine"}, 1.5,
    ),
    "projective, 512x512": (
        HUBBLE | {"model": "projective", "amplitude": 10.0, "rotation": 2.0, "stretch": 0.01, "perspective": 3.0},
        lambda: frames(200, 60), sa.LucasKanade, {"model": "projective"}, 1.5,
    ),
    "translation 48x256x512 (3-D)": (
        {"scene": "texture", "shape": (48, 256, 512), "motion": "uniform", "amplitude": 5.0, "seed": 1},
        lambda: frames(20, 6), sa.CrossCorrelation, {}, 2.0,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def table():
    lines = [
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start, Python"
        f" {platform.python_version()}, share of frames {SCALE:g}",
        "",
        "| scene | frames | method | error, px | x CRB | worst, x CRB | within 1 s.e. | ms/frame | CPU ms/frame"
        " | ours is faster by | by CPU time |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    yield lines
    text = "\n".join(lines)
    print("\n" + text)
    if path := os.environ.get("STACKALIGN_BENCH_TABLE"):
        Path(path).write_text(text + "\n", encoding="utf-8")


@pytest.mark.parametrize("name", ROWS)
def test_row(name: str, table: list[str]) -> None:
    record, count, method, options, target = ROWS[name]
    row = scene(name, frames=count(), **record)
    movie, model = row.movie, record.get("model", "translation")
    registrar = method(**options)
    ours = [
        measured(row, registrar, reference, target, table, name)
        for reference in (("mean", "first") if model == "translation" else ("mean",))
    ]
    asked = [word for word in os.environ.get("STACKALIGN_BENCH_PEERS", "").split(",") if word]
    for peer, make in PEERS.items():
        if asked and not any(word in peer for word in asked):
            continue
        try:
            theirs, their_wall, their_cpu = timed(make(model, row.simulated.truth.simulation.shape), movie, SECONDS)
        except Absent as absent:
            table.append(f"| | | {peer} | {absent} | | | | | | | |")
            continue
        wrong = errors(row, theirs)
        level = float(np.sqrt((wrong**2).mean()))
        table.append(
            f"| | {len(theirs) - 1} | {peer} | {level / row.axes:.5f} | {level / row.bound:.3g}"
            f" | {wrong.max() / row.bound:.3g} | | {1e3 * their_wall:.3g} | {1e3 * their_cpu:.3g}"
            f" | {', '.join(f'{their_wall / wall:.3g} x' for wall, _ in ours)}"
            f" | {', '.join(f'{their_cpu / cpu:.3g} x' for _, cpu in ours)} |"
        )
        print(table[-1])


def measured(
    row: Scene, registrar: Any, reference: str, target: float, table: list[str], name: str
) -> tuple[float, float]:
    """Align a movie and write its line of the table; returns seconds a frame, on the wall and of the processor."""
    movie = row.movie
    sa.register(movie[:100], registrar, reference=reference)  # all is compiled before the clock starts
    begun, busy = time.perf_counter(), time.process_time()
    result = sa.register(movie, registrar, reference=reference)
    wall, cpu = (time.perf_counter() - begun) / len(movie), (time.process_time() - busy) / len(movie)
    good = result.transforms.valid
    found = {int(t): result.transforms.matrices[t] for t in np.flatnonzero(good)}
    off = errors(row, found)
    multiple = float(np.sqrt((off**2).mean())) / row.bound
    within = ""
    if registrar.method == "cross-correlation":
        gauge = result.transforms.translations[good] - row.simulated.truth.transforms.translations[good]
        if reference == "mean":
            gauge -= np.median(gauge, axis=0)
        else:  # the errors are those against that frame
            gauge -= gauge[0]
        told = result.quality.error[good] > 0
        within = f"{np.mean(np.abs(gauge[told]) < result.quality.error[good][told]):.0%}"
    flagged = "" if good.all() else f" ({int((~good).sum())} flagged)"
    aim = f" (target {target:g})" if reference == "mean" else ""
    table.append(
        f"| {name if reference == 'mean' else ''} | {len(movie)} | **stackalign, {reference}**{flagged}"
        f" | {multiple * row.bound / row.axes:.5f} | {multiple:.2f}{aim} | {off.max() / row.bound:.1f} | {within}"
        f" | {1e3 * wall:.3g} | {1e3 * cpu:.3g} | | |"
    )
    print("\n" + table[-1])
    assert np.isfinite(multiple)
    return wall, cpu
