"""Real cells (``../shared/data/pc12``): how far our corners lie from those of StackReg, and which correlates more.

Frames of these cells differ by far more than noise, and noise itself correlates the more, the more an interpolation
smooths it: frames shifted by half a pixel are smoother than those shifted by none. So correlations are given of frames
as they are, and of frames smoothed before they are laid on each other, where interpolation takes next to nothing away.
How far StackReg's answers differ among themselves (to the frame before or to the first; there and back) tells how well
they are determined.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import stackalign as sa
from stackalign.core.generators import moved_points
from stackalign.core.geometry import corners
from stackalign.core.lucas_kanade.fit import fit_motion
from stackalign.core.lucas_kanade.template import MotionTemplate
from stackalign.core.translation.template import TranslationTemplate
from stackalign.core.warping.resample import warp_frame

from .peers import Absent, stackreg

pytestmark = [pytest.mark.benchmark, pytest.mark.shared_data]
FILE = Path(__file__).parents[3] / "shared" / "data" / "pc12" / "pc12-unreg.tif"
MODELS = ["translation", "euclidean", "similarity", "affine"]
SMOOTHED = (0, 1, 2)  # px
needed = pytest.mark.skipif(not FILE.exists(), reason="needs ../shared/data/pc12")


def correlation(movie: np.ndarray, matrices: np.ndarray, sigma: float = 0) -> float:
    """Return the mean pairwise correlation on what all aligned frames see, smoothed before they are laid."""
    frames = [f.astype(np.float32) for f in movie]
    frames = [gaussian_filter(f, sigma) for f in frames] if sigma else frames
    laid = np.stack([warp_frame(f, m, order=3, fill="nan") for f, m in zip(frames, matrices, strict=True)])
    both = np.isfinite(laid).all(axis=0)
    return float(np.corrcoef(laid[:, both])[np.triu_indices(len(laid), 1)].mean())


def apart(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return the largest distance between corners, pixels, of two matrices (or of two series)."""
    points = corners(shape)
    gap = moved_points(np.asarray(one), points) - moved_points(np.asarray(other), points)
    return float(np.linalg.norm(gap, axis=-1).max())


@needed
@pytest.mark.parametrize("robust", ["tukey", "none"])
@pytest.mark.parametrize("model", MODELS)
def test_corners_and_correlation(model: str, robust: str) -> None:
    import tifffile

    movie = tifffile.imread(FILE)
    shape = movie.shape[1:]
    try:
        align = stackreg(model, shape)
    except Absent as absent:
        pytest.skip(str(absent))
    moving = movie.astype(float)
    theirs = [np.eye(3)]
    for before, frame in pairwise(moving):  # to the frame before, as its own files were made
        theirs.append(theirs[-1] @ align(before, frame))
    others = [np.eye(3), *(align(moving[0], frame) for frame in moving[1:])]
    result = sa.register(movie, sa.LucasKanade(model=model, robust=robust), reference="mean")
    ours = np.linalg.inv(result.transforms.matrices[0]) @ result.transforms.matrices
    both = [
        f"{correlation(movie, ours, s):.5f} / {correlation(movie, np.array(theirs), s):.5f}"
        for s in SMOOTHED
    ]  # fmt: skip
    print(
        f"\n| {model} | {robust} | {apart(ours, np.array(theirs), shape):.2f}"
        f" | {apart(np.array(others), np.array(theirs), shape):.2f} | {' | '.join(both)} |"
    )
    assert not result.quality.flagged.any()


@needed
@pytest.mark.parametrize("model", MODELS)
def test_pairs_with_equal_weights(model: str) -> None:
    """The task of StackReg, one frame to the one before by plain least squares, begun at its own answer."""
    import tifffile

    movie = tifffile.imread(FILE).astype(np.float32)
    shape = movie.shape[1:]
    try:
        align = stackreg(model, shape)
    except Absent as absent:
        pytest.skip(str(absent))
    for before, frame in pairwise(movie):
        theirs = align(before.astype(float), frame.astype(float))
        back = np.linalg.inv(align(frame.astype(float), before.astype(float)))
        images = TranslationTemplate.of(before, None, frames=np.inf)
        template = MotionTemplate.of(images, sa.TransformModel(model), tell_tails=False)
        fit = fit_motion(frame, template, theirs)
        assert not isinstance(fit, str)
        left = []
        for sigma in SMOOTHED:
            pair = np.stack([before, frame])
            values = [1 - correlation(pair, np.stack([np.eye(3), m]), sigma) for m in (fit.matrix, theirs)]
            left.append(f"{1e4 * values[0]:.1f} / {1e4 * values[1]:.1f}")
        print(
            f"\n| {model} | {apart(fit.matrix, theirs, shape):.2f} | {apart(back, theirs, shape):.2f}"
            f" | {fit.gain:.3f} | {' | '.join(left)} |"
        )
