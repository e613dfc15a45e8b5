"""Real cells (``../shared/data/pc12``): how far our corners lie from those of StackReg, and which correlates more.

Frames of these cells differ by far more than noise, and noise itself correlates the more, the more an interpolation
smooths it: frames shifted by half a pixel are smoother than those shifted by none. So correlations are given of frames
as they are, and of frames smoothed before they are laid on each other, where interpolation takes next to nothing away.
How far StackReg's answers differ among themselves (to the frame before or to the first; there and back) tells how well
they are determined.
"""

from collections.abc import Callable
from itertools import combinations, pairwise
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


Align = Callable[[np.ndarray, np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def movie() -> np.ndarray:
    import tifffile

    return tifffile.imread(FILE)


@pytest.fixture
def align(model: str, movie: np.ndarray) -> Align:
    """Return StackReg's fit of a frame to another one."""
    try:
        return stackreg(model, movie.shape[1:])
    except Absent as absent:
        pytest.skip(str(absent))


def to_the_frame_before(movie: np.ndarray, align: Align) -> np.ndarray:
    """Return StackReg's answer, each frame aligned to the one before."""
    found = [np.eye(3)]
    for before, frame in pairwise(movie.astype(float)):
        found.append(found[-1] @ align(before, frame))
    return np.array(found)


def from_the_first(result: sa.Registration) -> np.ndarray:
    """Return our matrices with the first frame at rest, as StackReg has it."""
    return np.linalg.inv(result.transforms.matrices[0]) @ result.transforms.matrices


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
@pytest.mark.parametrize(("robust", "weighting"), [("tukey", "noise"), ("none", "noise"), ("none", "equal")])
@pytest.mark.parametrize("model", MODELS)
def test_corners_and_correlation(model: str, robust: str, weighting: str, movie: np.ndarray, align: Align) -> None:
    shape = movie.shape[1:]
    moving = movie.astype(float)
    theirs = to_the_frame_before(movie, align)  # as its own files were made
    others = [np.eye(3), *(align(moving[0], frame) for frame in moving[1:])]
    mean = to_their_mean(movie, align)
    result = sa.register(movie, sa.LucasKanade(model=model, robust=robust, weighting=weighting), reference="mean")
    ours = from_the_first(result)
    both = [[correlation(movie, matrices, s) for s in SMOOTHED] for matrices in (ours, theirs)]
    print(
        f"\n| {model} | {robust}, {weighting} | {apart(ours, theirs, shape):.2f}"
        f" | {apart(np.array(others), theirs, shape):.2f}, {apart(mean, theirs, shape):.2f}"
        f" | {' | '.join(f'{a:.5f} / {b:.5f}' for a, b in zip(*both, strict=True))} |"
    )
    assert not result.quality.flagged.any()
    if weighting == "equal":  # the task of StackReg
        assert all(a >= b for a, b in zip(*both, strict=True))


def climbed(movie: np.ndarray, matrices: np.ndarray, model: str, sigma: float) -> np.ndarray:
    """Return matrices that correlate most, found by climbing the correlation itself, frame by frame, three rounds."""
    from scipy.linalg import expm
    from scipy.ndimage import binary_erosion
    from scipy.optimize import minimize

    from stackalign.core.generators import generators
    from stackalign.core.geometry import centre

    middle = centre(movie.shape[1:])
    group = generators(sa.TransformModel(model), middle, float(np.linalg.norm(middle)))
    frames = [gaussian_filter(f.astype(np.float32), sigma) if sigma else f.astype(np.float32) for f in movie]
    found = matrices.copy()
    laid = [warp_frame(f, m, order=3, fill="nan") for f, m in zip(frames, found, strict=True)]
    seen = binary_erosion(np.isfinite(laid).all(axis=0), iterations=6, border_value=0)

    def standardised(frame: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        values = warp_frame(frame, matrix, order=3, fill="nan")[seen]
        values = values - values.mean()
        return values / np.linalg.norm(values)

    alike = np.array([standardised(f, m) for f, m in zip(frames, found, strict=True)])
    for _ in range(3):
        for t in range(1, len(movie)):
            others = alike.sum(axis=0) - alike[t]

            def missing(step: np.ndarray, t: int = t, others: np.ndarray = others) -> float:
                value = float(standardised(frames[t], expm(np.tensordot(step, group, 1)) @ found[t]) @ others)
                return 1.0 - value / (len(movie) - 1) if np.isfinite(value) else 1.0

            best = minimize(missing, np.zeros(len(group)), options={"gtol": 1e-6, "maxiter": 40, "eps": 1e-3})
            if best.fun < missing(np.zeros(len(group))):
                found[t] = expm(np.tensordot(best.x, group, 1)) @ found[t]
                alike[t] = standardised(frames[t], found[t])
    return found


@needed
@pytest.mark.parametrize("model", MODELS)
def test_what_correlates_most(model: str, movie: np.ndarray) -> None:
    """Whether our plain answer is the best one, and what climbing on raw frames finds: half pixels, that is blur."""
    options = sa.LucasKanade(model=model, robust="none", weighting="equal")
    ours = from_the_first(sa.register(movie, options, reference="mean"))
    series = {"ours": ours, "climbed": climbed(movie, ours, model, 0), "climbed, 1 px": climbed(movie, ours, model, 1)}
    for name, matrices in series.items():
        told = " | ".join(f"{correlation(movie, matrices, s):.5f}" for s in SMOOTHED)
        away = np.abs((matrices[1:, :2, 2] + 0.5) % 1 - 0.5).mean()
        print(f"\n| {model} | {name} | {apart(matrices, ours, movie.shape[1:]):.2f} | {away:.2f} | {told} |")


@needed
@pytest.mark.parametrize("model", MODELS)
def test_pairs_with_equal_weights(model: str, movie: np.ndarray, align: Align) -> None:
    """The task of StackReg, one frame to the one before by plain least squares, begun at its own answer.

    And how far StackReg goes itself: there and back, and run again, twice, on the frame as it laid it.
    """
    movie, shape = movie.astype(np.float32), movie.shape[1:]
    for before, frame in pairwise(movie):
        theirs = align(before.astype(float), frame.astype(float))
        back = np.linalg.inv(align(frame.astype(float), before.astype(float)))
        images = TranslationTemplate.of(before, None, frames=np.inf)
        template = MotionTemplate.of(images, sa.TransformModel(model), tell_tails=False)
        fit = fit_motion(frame, template, theirs)
        assert not isinstance(fit, str)
        again, moved = theirs, []
        for _ in range(2):
            laid = warp_frame(frame, again, order=3, fill="nan")
            step = align(before.astype(float), np.where(np.isfinite(laid), laid, before).astype(float))
            moved.append(apart(step, np.eye(3), shape))
            again = step @ again
        left = []
        for sigma in SMOOTHED:
            pair = np.stack([before, frame])
            values = [1 - correlation(pair, np.stack([np.eye(3), m]), sigma) for m in (fit.matrix, theirs)]
            left.append(f"{1e4 * values[0]:.1f} / {1e4 * values[1]:.1f}")
        print(
            f"\n| {model} | {apart(fit.matrix, theirs, shape):.2f} | {apart(back, theirs, shape):.2f}"
            f" | {moved[0]:.2f}, {moved[1]:.2f} | {fit.gain:.3f} | {' | '.join(left)} |"
        )


def to_their_mean(movie: np.ndarray, align: Align) -> np.ndarray:
    """Return StackReg's answer to the mean of the frames that it aligned, three rounds."""
    current = to_the_frame_before(movie, align)
    for _ in range(3):
        laid = [warp_frame(f.astype(np.float32), m, order=3, fill="nan") for f, m in zip(movie, current, strict=True)]
        both = np.isfinite(laid).any(axis=0)
        mean = np.where(both, np.nanmean(np.where(both, laid, 0), axis=0), np.nanmean(laid))
        found = np.array([align(mean, frame.astype(float)) for frame in movie])
        current = np.linalg.inv(found[0]) @ found
    return current


def tile_shifts(movie: np.ndarray, matrices: np.ndarray, side: int) -> dict[tuple[int, int], np.ndarray]:
    """Return (dy, dx, y, x) of every tile for each pair of aligned frames, told by phase correlation (scikit-image)."""
    from skimage.registration import phase_cross_correlation

    smooth = [gaussian_filter(frame.astype(np.float32), 1.0) for frame in movie]
    laid = np.stack([warp_frame(f, m, order=3, fill="nan") for f, m in zip(smooth, matrices, strict=True)])
    window = np.hanning(side)[:, None] * np.hanning(side)
    found: dict[tuple[int, int], list[tuple[float, ...]]] = {pair: [] for pair in combinations(range(len(movie)), 2)}
    ends = [n - side + 1 for n in movie.shape[1:]]
    for y, x in np.ndindex(*(len(range(0, end, side // 2)) for end in ends)):
        y, x = y * (side // 2), x * (side // 2)
        tile = laid[:, y : y + side, x : x + side]
        if not np.isfinite(tile).all():
            continue
        shades = np.log(np.maximum(tile, 1))
        shades = (shades - shades.mean(axis=(1, 2), keepdims=True)) * window
        for a, b in found:
            shift = phase_cross_correlation(shades[a], shades[b], upsample_factor=50, normalization=None)[0]
            found[a, b].append((*shift, y + (side - 1) / 2, x + (side - 1) / 2))
    return {pair: np.array(rows) for pair, rows in found.items()}


def motion_left(model: str, tiles: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return how far a motion of the model, fitted to the shifts of tiles by least distances, moves the corners."""
    from stackalign.core.generators import generators, velocities

    middle = (np.array(shape) - 1) / 2
    group = generators(sa.TransformModel(model), middle, float(np.linalg.norm(middle)))
    swing, weight = velocities(group, tiles[:, 2:]), np.ones(len(tiles))
    for _ in range(60):
        normal = np.einsum("nak,naj,n->kj", swing, swing, weight)
        found = np.linalg.solve(normal, np.einsum("nak,na,n->k", swing, tiles[:, :2], weight))
        weight = 1 / np.maximum(np.linalg.norm(tiles[:, :2] - swing @ found, axis=1), 0.05)
    return float(np.sqrt(np.mean(np.sum((velocities(group, corners(shape)) @ found) ** 2, axis=-1))))


@needed
@pytest.mark.parametrize("model", MODELS)
def test_motion_left_in_tiles(model: str, movie: np.ndarray, align: Align) -> None:
    """A third way tells what motion either left: tiles of aligned frames, shifted on each other one by one."""
    shape = movie.shape[1:]
    series = {"StackReg, its mean": to_their_mean(movie, align)}
    for robust, weighting in (("none", "equal"), ("none", "noise"), ("tukey", "noise")):
        options = sa.LucasKanade(model=model, robust=robust, weighting=weighting)
        series[f"ours, {robust}, {weighting}"] = from_the_first(sa.register(movie, options, reference="mean"))
    for name, matrices in series.items():
        left = []
        for side in (32, 48):
            pairs = tile_shifts(movie, matrices, side).values()
            left.append(np.sqrt(np.mean([motion_left(model, tiles, shape) ** 2 for tiles in pairs])))
        print(
            f"\n| {model} | {name} | {apart(matrices, series['StackReg, its mean'], shape):.2f} "
            f"| {left[0]:.3f} | {left[1]:.3f} |"
        )


@needed
@pytest.mark.parametrize("model", MODELS)
def test_on_the_half_that_was_not_seen(model: str, movie: np.ndarray, align: Align) -> None:
    """Ours fitted to the tiles of one colour of a chessboard, correlated on the other; StackReg has seen both."""
    shape = movie.shape[1:]
    board = np.add.reduce(np.indices(shape) // 25) % 2 > 0
    theirs, options = to_their_mean(movie, align), sa.LucasKanade(model=model, robust="none")
    ours = [from_the_first(sa.register(movie, options, reference="mean", mask=mask)) for mask in (board, ~board)]
    told = []
    for sigma in SMOOTHED:
        frames = [gaussian_filter(f.astype(np.float32), sigma) if sigma else f.astype(np.float32) for f in movie]
        laid = [
            np.stack([warp_frame(f, m, order=3, fill="nan") for f, m in zip(frames, series, strict=True)])
            for series in (*ours, theirs)
        ]
        common = np.isfinite(laid).all(axis=(0, 1))
        pairs = np.triu_indices(len(movie), 1)
        both = [
            np.mean([
                np.corrcoef(one[:, common & part])[pairs].mean()
                for one, part in zip(which, (~board, board), strict=True)
            ])
            for which in (laid[:2], (laid[2], laid[2]))
        ]  # fmt: skip
        told.append(f"{both[0]:.5f} / {both[1]:.5f}")
    print(f"\n| {model} | {apart(*ours, shape):.2f} | {' | '.join(told)} |")
