"""What each stage of a translation costs beside its bound: the memory that it must move, or one Fourier transform.

CPU time of one thread, the shortest of several runs; ``pytest -m benchmark -s tests/benchmarks/bench_translation.py``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import fft

import stackalign as sa
from stackalign.core.frames.bad_frames import find_bad_frames
from stackalign.core.frames.denoise import wiener
from stackalign.core.frames.frame_check import check_frame
from stackalign.core.frames.noise import NoiseModel
from stackalign.core.frames.reduction import binned, reduction
from stackalign.core.references.mean_image import Aligned, mean_image
from stackalign.core.search.correlation import search
from stackalign.core.threads import set_threads
from stackalign.core.transform import TransformModel
from stackalign.core.translation import shift_kernels
from stackalign.core.translation.fit import fit_translation
from stackalign.core.translation.template import ShiftEquations, TranslationTemplate

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.benchmark


def shortest(function: Callable[[], Any], turns: int = 15) -> float:
    """Return CPU milliseconds."""
    function()
    taken = []
    for _ in range(turns):
        begun = time.thread_time()
        function()
        taken.append(time.thread_time() - begun)
    return 1e3 * min(taken)


@pytest.fixture(autouse=True)
def one_thread():
    set_threads(1)
    yield
    set_threads(None)


@pytest.mark.parametrize("side", [512, 2048])
def test_stages(side: int) -> None:
    movie = sa.simulate(
        scene="hubble_deep_field", shape=(side, side), frames=10, motion="uniform", amplitude=4.0, seed=1
    )
    frames = movie.stack.asarray()
    first, frame = frames[0].astype(np.float32), frames[5]
    noise = NoiseModel(-100.0, 1.0, 1.0)
    template = TranslationTemplate.of(first, noise=noise)
    truth = movie.truth.transforms.translations
    start = truth[5] - truth[0] + 0.04
    equations = template.equations
    place, eye = Aligned(np.eye(3)), np.eye(2)

    def passes(every: int) -> None:
        shift, normal, theta = np.array([0.0, *start]), np.zeros((4, 4)), np.zeros(4)
        shift_kernels.fit_shift(
            frame[None], 0, np.array([1, side, side]), equations.phi, equations.scale,
            equations.sums, equations.thinned, *equations.edges, every, shift, 2e-3, 2.0, 1, normal, theta, eye.copy(),
        )  # fmt: skip

    factors = reduction((side, side), 128)
    small, base = binned(frame, factors), binned(first, factors)
    prepared = sa.CrossCorrelation().aligner().prepare(base, None)
    coarse, spectra = prepared.searches[0]
    least = binned(small, coarse)
    rest = np.empty_like(first)
    moved = shortest(lambda: np.copyto(rest, first)) / (2 * first.nbytes)  # ms a byte, read and written
    read = moved * frame.nbytes
    images = sum(part.nbytes for part in equations.phi)
    both = [
        ("read a frame that is in memory", shortest(lambda: frame.copy()), moved * 2 * frame.nbytes, "copy"),
        ("look for bad frames", shortest(lambda: list(find_bad_frames(movie_of(frames)))) / 10, read, "read"),
        ("blank or saturated", shortest(lambda: check_frame(frame)), 2 * read, "read twice"),
        ("bin to 128 px", shortest(lambda: binned(frame, factors)), read, "read"),
        (
            "search all shifts at 64 px", shortest(lambda: search(least, None, spectra)),
            2 * shortest(lambda: fft.rfftn(least, spectra.padded)), "two transforms",
        ),
        ("refine at 128 px", shortest(lambda: fit_translation(small, prepared.full, start / factors[0])), 0.0, ""),
        ("a pass over every fourth row", shortest(lambda: passes(4)), moved * (frame.nbytes + images) / 4, "read"),
        ("a pass over all rows, with slopes", shortest(lambda: passes(1)), moved * (frame.nbytes + images), "read"),
        ("fit, all in all", shortest(lambda: fit_translation(frame, template, start)), 0.0, ""),
        (
            "add to a mean, a frame", shortest(lambda: list(mean(frames, place)), 3) / len(frames),
            moved * (frame.nbytes + 4 * first.nbytes), "read, add",
        ),
        (
            "Wiener filter, a template", shortest(lambda: wiener(first - first.mean(), 100.0), 3),
            2 * shortest(lambda: fft.dctn(first, workers=1), 3), "two transforms",
        ),
        (
            "prepare a template", shortest(lambda: TranslationTemplate.of(first, noise=noise), 3),
            moved * 8 * first.nbytes, "8 images",
        ),
        ("its equations", shortest(lambda: ShiftEquations.of(template), 3), moved * 12 * first.nbytes, "12 images"),
    ]  # fmt: skip
    print(f"\n| {side} x {side}, stage | CPU ms | bound, ms | which | ratio |\n|---|---|---|---|---|")
    for name, took, bound, which in both:
        print(f"| {name} | {took:.3g} | {bound:.2g} | {which} | {took / bound:.1f} |" if bound else
              f"| {name} | {took:.3g} | | | |")  # fmt: skip
    assert all(took > 0 for _, took, _, _ in both)


def movie_of(frames: np.ndarray) -> sa.ImageStack:
    return sa.ImageStack.of(frames)


def mean(frames: np.ndarray, place: Aligned) -> Any:
    places = [place] * len(frames)
    return mean_image(frames.__getitem__, range(len(frames)), places, frames.shape[1:], TransformModel.TRANSLATION)
