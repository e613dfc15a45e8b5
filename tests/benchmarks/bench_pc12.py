"""Real cells (``../shared/data/pc12``): how far our corners lie from those of StackReg, and which correlates more."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.generators import moved_points
from stackalign.core.geometry import corners
from stackalign.core.resample import warp_frame

from .peers import Absent, stackreg

pytestmark = [pytest.mark.benchmark, pytest.mark.shared_data]
FILE = Path(__file__).parents[3] / "shared" / "data" / "pc12" / "pc12-unreg.tif"


def correlation(movie: np.ndarray, matrices: np.ndarray) -> float:
    """Return the mean pairwise correlation on what all aligned frames see."""
    laid = np.stack(
        [warp_frame(f.astype(np.float32), m, order=3, fill="nan") for f, m in zip(movie, matrices, strict=True)]
    )
    both = np.isfinite(laid).all(axis=0)
    return float(np.corrcoef(laid[:, both])[np.triu_indices(len(laid), 1)].mean())


@pytest.mark.skipif(not FILE.exists(), reason="needs ../shared/data/pc12")
@pytest.mark.parametrize("robust", ["tukey", "none"])
@pytest.mark.parametrize("model", ["translation", "euclidean", "similarity", "affine"])
def test_corners_and_correlation(model: str, robust: str) -> None:
    import tifffile

    movie = tifffile.imread(FILE)
    shape = movie.shape[1:]
    try:
        align = stackreg(model, shape)
    except Absent as absent:
        pytest.skip(str(absent))
    theirs = [np.eye(3)]
    for before, frame in pairwise(movie):  # to the frame before, as its own files were made
        theirs.append(theirs[-1] @ align(before.astype(float), frame.astype(float)))
    result = sa.register(movie, sa.LucasKanade(model=model, robust=robust), reference="mean")
    ours = np.linalg.inv(result.transforms.matrices[0]) @ result.transforms.matrices
    points = corners(shape)
    apart = [
        np.linalg.norm(moved_points(a, points) - moved_points(b, points), axis=1)
        for a, b in zip(ours, theirs, strict=True)
    ]
    still = correlation(movie, np.tile(np.eye(3), (len(movie), 1, 1)))
    print(
        f"\n| {model} | {robust} | {np.max(apart):.2f} | {np.sqrt(np.mean(np.square(apart))):.2f}"
        f" | {correlation(movie, ours):.5f} | {correlation(movie, np.array(theirs)):.5f} | {still:.5f} |"
    )
    assert not result.quality.flagged.any()
