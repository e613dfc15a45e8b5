"""Resampling against scipy.ndimage, and what a frame costs at least: reading, copying, one Fourier transform."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage as ndi

import stackalign as sa
from stackalign.core.threads import threads

pytestmark = pytest.mark.benchmark


def seconds(function, least: float = 0.4) -> float:
    """Return the shortest of several runs: the machine may be busy with other work."""
    function()
    times: list[float] = []
    while sum(times) < least or len(times) < 3:
        begun = time.perf_counter()
        function()
        times.append(time.perf_counter() - begun)
    return min(times)


@pytest.fixture(scope="module")
def table():
    lines: list[str] = []
    yield lines
    text = "\n".join(lines)
    print("\n" + text)
    if path := os.environ.get("STACKALIGN_BENCH_TABLE"):
        target = Path(path)
        target.with_stem(target.stem + "_warp").write_text(text + "\n", encoding="utf-8")


def image(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(100, 4000, shape).astype(np.uint16)


@pytest.mark.parametrize("shape", [(512, 512), (2048, 2048), (48, 256, 512)])
def test_resampling(shape, table) -> None:
    frame = image(shape)
    if not table:
        table += ["| frame | motion | order | ms | scipy.ndimage, ms | faster by |", "|---|---|---|---|---|---|"]
    d = len(shape)
    shift = sa.Transform.from_translation([1.3, -2.6, 0.4][:d]).matrix
    turn = shift.copy()
    angle = np.deg2rad(2.0)
    turn[-3:-1, -3:-1] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    for name, matrix in (("translation", shift), ("rotation", turn)):
        pull = np.linalg.inv(matrix)
        for order in (1, 3):
            ours = seconds(lambda m=matrix, o=order: sa.warp_frame(frame, m, order=o))
            if name == "translation":
                theirs = seconds(lambda p=pull, o=order: ndi.shift(frame, -p[:-1, -1], order=o), 0.1)
            else:
                theirs = seconds(lambda p=pull, o=order: ndi.affine_transform(frame, p, order=o), 0.1)
            size = " x ".join(map(str, shape))
            table.append(
                f"| {size} uint16 | {name} | {order} | {1e3 * ours:.2f} | {1e3 * theirs:.1f} | {theirs / ours:.1f} x |"
            )


def test_least_cost_of_a_frame(table, tmp_path) -> None:
    """How far a stage is from what the machine allows."""
    stack, _ = sa.simulate(scene="hubble_deep_field", shape=(512, 512), frames=40, motion="uniform", amplitude=20.0)
    movie = stack.asarray()
    path = tmp_path / "movie.tif"
    sa.write_stack(path, movie)
    on_disk = sa.read_stack(path)
    small = movie[0].astype(np.float32)
    result = sa.register(movie, sa.CrossCorrelation())
    series = result.transforms
    count = len(movie)
    rows = {
        "copy (memory traffic)": seconds(lambda: small.copy()),
        "read from TIFF": seconds(lambda: [on_disk[t] for t in range(count)]) / count,
        "write to TIFF": seconds(lambda: sa.write_stack(tmp_path / "out.tif", movie)) / count,
        "one rfft2, float32, one thread": seconds(lambda: scipy.fft.rfft2(small)),
        f"registration, all of it, {threads()} threads": seconds(lambda: sa.register(movie, sa.CrossCorrelation()))
        / count,
        "of that the search for bad frames": seconds(
            lambda: sa.register(movie, sa.CrossCorrelation(), preprocess=sa.Preprocess())
        )
        / count
        - seconds(lambda: sa.register(movie, sa.CrossCorrelation(), preprocess=sa.Preprocess(bad_frames=False)))
        / count,
        "resampling, order 3": seconds(lambda: sa.warp(movie, series).asarray()) / count,
        "measuring before and after": seconds(lambda: sa.measure(movie, series)) / count,
    }
    table += ["", "| stage, a frame of 512 x 512 uint16 | ms |", "|---|---|"]
    table += [f"| {name} | {1e3 * value:.2f} |" for name, value in rows.items()]
