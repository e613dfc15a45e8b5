"""Mean corner error of pairs of two modalities: ours, SIFT with MAGSAC, ECC on gradients, and doing nothing.

``python -m tests.benchmarks.bench_multimodal [SET ...] [--csv FILE]`` prints the table of each set: SkyData, VEDAI,
roadscene, roadscene-measured, the six folders of ``multimodal``, synthetic, rendered .6 and .8. The truth is only
compared with.
``--part 0/4`` takes every fourth pair, ``--seconds 400`` stops then; what FILE holds already is not run again.
``--reliability`` prints how often results of each probability were right, those that are refused too, of all sets in
FILE, and draws ``--figure``. ``--calibrate 240`` fits the coefficients of `stackalign.core.multimodal.judge` to
synthetic pairs of many strengths and prints them; with ``--way brightness`` those of `...multimodal.brightness`.
``--blocks`` asks mutual information where blocks of roadscene, or of named pairs, belong; ``--placed`` compares us and
the files of whole folders with the similarity that such blocks tell.
"""

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import stackalign as sa
from stackalign.core.generators import moved_points
from stackalign.core.geometry import centre, corners
from stackalign.core.multimodal.corners import corner_distance, matrices_of
from tests.benchmarks.pair_bounds import corner_bound

DATA = Path(__file__).parents[3] / "shared" / "data"
PICTURES = Path(__file__).parents[3] / "training-images" / "held_out"  # scripts/fetch_training_images.py
FOLDERS = ("Nighttime", "Optical-Depth", "Optical-Infrared", "Optical-Map", "Optical-Optical", "Optical-SAR")
SWAP = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])
MIDDLE = (128.0, 128.0)  # of images of 256 pixels, as the folders turn them
RELIEF = 3  # of so many pairs to calibrate with one shows relief
REGRESSORS = 10  # of `Evidence`
BINS = 24  # of brightness, where mutual information is asked
CLEAR = 4.0  # px that blocks leave, on the median, of a similarity that they tell
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry", "retina", "hubble_deep_field")
PLANES = ("camera", "coins", "moon", "page", "brick", "grass", "gravel", "clock", "text")
# what a user knows of a set: these lie turned by up to a right angle, at other scales
RANGES = {
    name: {"model": "similarity", "max_rotation": 90.0, "max_scale": 1.7 if name == "Optical-Optical" else 1.1}
    for name in FOLDERS
}


@dataclass
class Pair:
    """Two images and the truth, moving -> fixed."""

    name: str
    fixed: np.ndarray
    moving: np.ndarray
    truth: np.ndarray
    bound: float = np.nan  # the least error that its noise allows, px; see `pair_bounds`

    def error(self, matrix: np.ndarray) -> float:
        return float(np.nan_to_num(corner_distance(matrix, self.truth, self.moving.shape), nan=1e4, posinf=1e4))

    @property
    def nothing(self) -> np.ndarray:
        out = np.eye(3)
        if self.fixed.shape != self.moving.shape:
            out[:2, 2] = np.round(centre(self.fixed.shape) + 0.5 - (centre(self.moving.shape) + 0.5))
        return out


def grey(path: Path) -> np.ndarray:
    from skimage.io import imread

    image = imread(path).astype(np.float32)
    return image[..., :3].mean(-1) if image.ndim == 3 else image


def visir(name: str) -> Iterator[Pair]:
    with (DATA / "visir_pairs" / "gt_corners.csv").open() as lines:
        rows = [row for row in csv.DictReader(lines) if row["dataset"] == name]
    for row in rows:
        stem = DATA / "visir_pairs" / name / row["stem"]
        fixed, moving = grey(Path(f"{stem}_input192_rgb.png")), grey(Path(f"{stem}_template128_ir.png"))
        found = np.array([[float(row[k + "_v"]), float(row[k + "_u"])] for k in ("tl", "tr", "bl", "br")])
        yield Pair(row["stem"], fixed, moving, matrices_of(found - corners(moving.shape), moving.shape))


def roadscene(*, measured: bool = False) -> Iterator[Pair]:
    """Yield visible images and infrared ones whose corners are moved by up to a tenth of their size.

    The set is aligned to some pixels only. ``measured``: the truth is the warp after what refinement, begun where the
    set puts them, makes of the pair as it is delivered: that tells whether the warp is found, not whether features of
    both kinds lie at one place.
    """
    for k, path in enumerate(sorted((DATA / "roadscene" / "vi").glob("*.jpg"))):
        fixed, other = grey(path), grey(DATA / "roadscene" / "ir" / path.name)
        truth = matrices_of(np.random.default_rng(k).uniform(-0.1, 0.1, (4, 2)) * np.array(fixed.shape), fixed.shape)
        moving = sa.warp_frame(other, np.linalg.inv(truth), fill=np.nan)
        yield Pair(path.stem, fixed, moving, (refined(fixed, other) if measured else np.eye(3)) @ truth)


def refined(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Return the homography that refinement without any search ends at, from the identity."""
    from stackalign.core.multimodal.places import improved
    from stackalign.core.multimodal.views import ImageViews, levels_of

    views, matrix = ImageViews(fixed, moving), np.eye(3)
    top, bottom = levels_of(views)
    for level in range(top, bottom - 1, -1):
        place = improved(views, matrix, level, least_overlap=0.4)
        matrix = matrix if place is None else place.matrix
    return matrix


def blocks_of_roadscene(every: int) -> None:
    """Print how far blocks lie from where roadscene puts them, and from where refinement does."""
    print("\n| pair | blocks | median distance from the set's place, px | from the refined place |\n|---|---|---|---|")
    for path in sorted((DATA / "roadscene" / "vi").glob("*.jpg"))[::every]:
        fixed, other = grey(path), grey(DATA / "roadscene" / "ir" / path.name)
        apart = distances_of_blocks(fixed, other, np.eye(3), [np.eye(3), refined(fixed, other)], side=96, reach=8)
        if len(apart) > 5:
            print(f"| {path.stem} | {len(apart)} | " + " | ".join(f"{v:.2f}" for v in np.median(apart, axis=0)) + " |")


def blocks_of_folders(names: list[str]) -> None:
    """Print how far blocks of pairs ("Nighttime 151") lie from where the set puts them, and from where we do."""
    print("\n| pair | blocks | median distance from the set's place, px | from the place found |\n|---|---|---|---|")
    for name in names:
        pair = next(p for p in folder(name.split()[0]) if p.name == name)
        found = ours(pair, **RANGES[name.split()[0]])[0]
        between = 0.5 * (pair.truth / pair.truth[2, 2] + found / found[2, 2])
        places = [pair.truth, found]
        apart = distances_of_blocks(pair.fixed, pair.moving, between, places, side=64, reach=14, stride=32)
        shown = " | ".join(f"{v:.2f}" for v in np.median(apart, axis=0)) if len(apart) else "- | -"
        print(f"| {name} | {len(apart)} | {shown} |", flush=True)


def placed_blocks(
    fixed: np.ndarray, moving: np.ndarray, laid: np.ndarray, *, side: int, reach: int, stride: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Return the middles of blocks in the moving image and where they belong in the fixed one, (N, 2) each.

    Mutual information of ranked brightness, which knows neither edges nor self-similarity, says where a block belongs,
    to whole pixels, within ``reach`` of where ``laid`` puts it; blocks that are not shown whole, or without a clear
    maximum inside the window, are left out.
    """
    from scipy.ndimage import gaussian_filter
    from scipy.stats import rankdata

    from stackalign.core.multimodal.borders import without_borders

    def ranked(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        known = np.isfinite(image)
        out, soft = np.zeros(image.shape, int), gaussian_filter(np.where(known, image, np.nanmean(image)), 1)
        out[known] = np.minimum(rankdata(soft[known]) * BINS / known.sum(), BINS - 1)
        return out, known

    still = without_borders(fixed)
    laid_there = sa.warp_frame(without_borders(moving), laid, output_shape=still.shape, fill=np.nan)
    (first, shown), (second, seen) = ranked(still), ranked(laid_there)
    begun, ended, around = [], [], range(-reach, reach + 1)
    for i in range(reach, still.shape[0] - side - reach + 1, stride):
        for j in range(reach, still.shape[1] - side - reach + 1, stride):
            near = shown[i - reach : i + side + reach, j - reach : j + side + reach]
            if min(seen[i : i + side, j : j + side].mean(), near.mean()) < 0.97:
                continue
            block = second[i : i + side, j : j + side]
            told = np.array([
                [information(block, first[y : y + side, x : x + side]) for x in (j + k for k in around)]
                for y in (i + k for k in around)
            ])  # fmt: skip
            at = np.array(np.unravel_index(told.argmax(), told.shape)) - reach
            if np.abs(at).max() < reach and told.max() > 1.15 * np.median(told):
                here = np.array([i, j]) + (side - 1) / 2
                own = np.linalg.inv(laid) @ np.append(here, 1.0)
                begun.append(own[:2] / own[2])
                ended.append(here + at)
    return np.array(begun).reshape(-1, 2), np.array(ended).reshape(-1, 2)


def distances_of_blocks(
    fixed: np.ndarray, moving: np.ndarray, laid: np.ndarray, matrices: list[np.ndarray], **options: int
) -> np.ndarray:
    """Return how far blocks of the moving image lie from where each motion puts them, (blocks, motions), px."""
    begun, ended = placed_blocks(fixed, moving, laid, **options)
    ways = [moved_points(m, begun) - ended for m in matrices]
    return np.linalg.norm(ways, axis=-1).T


def information(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mutual information of two images of numbers under `BINS`, nats."""
    both = np.bincount((first * BINS + second).ravel(), minlength=BINS**2).reshape(BINS, BINS) / first.size
    alone = both.sum(1, keepdims=True) * both.sum(0, keepdims=True)
    return float((both[both > 0] * np.log(both[both > 0] / alone[both > 0])).sum())


def similarity_of_blocks(begun: np.ndarray, ended: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the similarity that most blocks agree with, and the median of what they leave, px."""
    weight = np.ones(len(begun))
    for _ in range(30):
        kept = weight > 0.25
        matrix = sa.Transform.from_points(begun[kept], ended[kept], "similarity").matrix
        rest = np.linalg.norm(moved_points(matrix, begun) - ended, axis=1)
        spread = max(float(np.median(rest)), 1.0)
        weight = (1 + np.square(rest / (2 * spread))) ** -2.0
    return matrix, float(np.median(rest))


def folders_by_blocks(names: list[str]) -> None:
    """Print how far we, and the files, lie from the similarity that blocks of mutual information tell, pair by pair."""
    print("\n| pair | refused | blocks | left, px | ours - file | ours - blocks | file - blocks |\n|" + "---|" * 7)
    rows = []
    for name in names:
        for pair in folder(name):
            found, refused, _ = ours(pair, **RANGES[name])
            stride = 64 if max(pair.fixed.shape) > 400 else 32
            begun, ended = placed_blocks(pair.fixed, pair.moving, pair.truth, side=64, reach=14, stride=stride)
            told, rest = similarity_of_blocks(begun, ended) if len(begun) >= 8 else (None, np.nan)
            shape = pair.moving.shape
            apart = [np.nan] * 2 if told is None else [corner_distance(m, told, shape) for m in (found, pair.truth)]
            rows.append((refused, len(begun), rest, pair.error(found), *map(float, apart)))
            shown = " | ".join(f"{v:.2f}" for v in rows[-1][2:])
            print(f"| {pair.name} | {refused} | {len(begun)} | {shown} |", flush=True)
    table = np.array(rows, float)
    kept = (table[:, 0] == 0) & (table[:, 2] < CLEAR)
    for what, column in (("of the files", 3), ("of the blocks", 4)):
        under = int((table[kept, column] < 5).sum())
        print(f"accepted, blocks leave under {CLEAR:g} px: {under} of {kept.sum()} within 5 px of the place {what}")


def folder(name: str) -> Iterator[Pair]:
    """Yield the pairs of a folder of ``multimodal``.

    Of Optical-SAR the files of the truth belong to other images: `turn_of` differs from them by up to 45 degrees, while
    in the other folders it agrees to .3. There the truth is that turn, about the same point as in the others, after
    the optical image, whose side differs, is brought to the size of the other one.
    """
    for path in sorted((DATA / "multimodal" / name).glob("gt_*.txt")):
        number, matrix = path.stem[3:], np.eye(3)
        matrix[:2] = np.loadtxt(path)
        one, two = (grey(path.parent / f"pair{number}_{k}.jpg") for k in (1, 2))
        truth = SWAP @ matrix @ SWAP
        if name == "Optical-SAR":
            turn = turn_of(two)
            if turn is None:
                continue
            one, truth = resized(one, two.shape), sa.Transform.from_rotation(np.radians(turn), centre=MIDDLE).matrix
        yield Pair(f"{name} {number}", two, one, truth)


def resized(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    from skimage.transform import resize

    return np.float32(resize(image, shape, anti_aliasing=True, preserve_range=True))


def turn_of(image: np.ndarray) -> int | None:
    """Return by how many degrees, 0 to 90, a picture was turned about its middle: from the black corners that it left.

    The folders hold whole degrees. None if there are too few black pixels to tell.
    """
    h, w = image.shape
    y, x = np.mgrid[:h, :w] - np.array([h / 2, w / 2])[:, None, None]
    dark, edge = image <= 12, 0.5

    def cost(degrees: float) -> int:
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        up, left = c * y + s * x + h / 2, c * x - s * y + w / 2
        seen = (up >= -edge) & (up <= h - 1 + edge) & (left >= -edge) & (left <= w - 1 + edge)
        return int(np.count_nonzero(dark == seen))

    coarse = min(np.arange(0.0, 90.0, 1.0), key=cost)
    turn = min(np.arange(coarse - 1, coarse + 1, 0.05), key=cost)
    return round(turn) if 2 < turn < 88 else None


def synthetic(count: int = 100, *, seed: int = 7, **recipe: object) -> Iterator[Pair]:
    import skimage.data

    from stackalign.core.deep.pairs import SyntheticPairs

    images = [getattr(skimage.data, name)() for name in PHOTOGRAPHS]
    source = SyntheticPairs(seed=seed, **({"inverted": True} | recipe))
    silent = source.model_copy(update={"noise": 0.0})
    for k in range(count):
        pair = source.pair(images, k)
        least = corner_bound(silent.pair(images, k).moving, source.noise) if source.inverted else np.nan
        yield Pair(pair.name, np.float32(pair.reference), np.float32(pair.moving), pair.matrix, least)


def rendered(strength: float, count: int = 30) -> Iterator[Pair]:
    """Yield pairs of pictures that were held out of the training of ours, both rendered at random."""
    from stackalign.core.deep.pairs import SyntheticPairs

    images = pictures()
    source = SyntheticPairs(seed=13, strength=strength, least_strength=strength, zoom=(1.0, 2.5), structure=0.65)
    for k in range(count):
        pair = source.pair(images, k)
        yield Pair(pair.name, np.float32(pair.reference), np.float32(pair.moving), pair.matrix)


SETS: dict[str, Callable[[], Iterator[Pair]]] = {
    "SkyData": lambda: visir("SkyData"),
    "VEDAI": lambda: visir("VEDAI"),
    "roadscene": roadscene,
    "roadscene-measured": lambda: roadscene(measured=True),
    **{name: lambda name=name: folder(name) for name in FOLDERS},
    "synthetic": synthetic,
    **{f"rendered .{k}": lambda k=k: rendered(k / 10) for k in (6, 8)},
}


def ours(pair: Pair, learned: bool = False, **settings: object) -> tuple[np.ndarray, bool, float]:
    """Return what `register_pair` finds, before it refuses, whether it does, and the probability."""
    from stackalign.core.multimodal.views import ImageViews

    aligner = (sa.DeepHomography if learned else sa.Multimodal)(**settings).aligner()
    options = {"model": aligner.model, "least_overlap": aligner.parameters.min_overlap}
    fixed, moving = (aligner.filtered(image) for image in (pair.fixed, pair.moving))
    told = aligner.searched(ImageViews(fixed, moving), [], options)
    if told is None:
        return pair.nothing, True, 0.0
    found, verdict = told
    return found.matrix, verdict.refused, verdict.probability


def as_bytes(image: np.ndarray) -> np.ndarray:
    known = np.nan_to_num(image, nan=float(np.nanmedian(image)))
    low, high = np.percentile(known, (0.5, 99.5))
    return np.uint8(np.clip(255 * (known - low) / max(high - low, 1e-6), 0, 255))


def sift(pair: Pair, *, model: str = "projective", **_: object) -> tuple[np.ndarray, bool, float]:
    """Match SIFT features; MAGSAC for homographies, RANSAC where the motion is known to be a similarity."""
    import cv2

    detector = cv2.SIFT_create()
    found = [detector.detectAndCompute(as_bytes(image), None) for image in (pair.moving, pair.fixed)]
    spots, descriptions = [f[0] for f in found], [f[1] for f in found]
    if any(d is None or len(d) < 4 for d in descriptions):
        return pair.nothing, True, 0.0
    matches = cv2.BFMatcher().knnMatch(*descriptions, k=2)
    good = [m[0] for m in matches if len(m) == 2 and m[0].distance < 0.8 * m[1].distance]
    if len(good) < 4:
        return pair.nothing, True, 0.0
    a = np.float32([spots[0][m.queryIdx].pt for m in good])
    b = np.float32([spots[1][m.trainIdx].pt for m in good])
    if model == "similarity":
        linear, inside = cv2.estimateAffinePartial2D(a, b, method=cv2.RANSAC, ransacReprojThreshold=3.0)
        matrix = None if linear is None else np.vstack([linear, [0, 0, 1]])
    else:
        matrix, inside = cv2.findHomography(a, b, cv2.USAC_MAGSAC, 3.0)
    return (pair.nothing, True, 0.0) if matrix is None else (SWAP @ matrix @ SWAP, False, float(inside.mean()))


def ecc(pair: Pair, **_: object) -> tuple[np.ndarray, bool, float]:
    """Correlation of gradient magnitudes, maximised through a pyramid (Evangelidis & Psarakis, 2008)."""
    import cv2

    def slopes(image: np.ndarray, sigma: float) -> np.ndarray:
        soft = cv2.GaussianBlur(np.float32(as_bytes(image)), (0, 0), sigma)
        return np.hypot(*np.gradient(soft)).astype(np.float32)

    forward = np.float32(SWAP @ pair.nothing @ SWAP)  # moving -> fixed in x, y: what is read where
    for sigma in (8.0, 4.0, 2.0, 1.0):
        try:
            stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 1e-5)
            _, forward = cv2.findTransformECC(
                slopes(pair.moving, sigma), slopes(pair.fixed, sigma), forward, cv2.MOTION_HOMOGRAPHY, stop
            )
        except cv2.error:
            return pair.nothing, True, 0.0
    return SWAP @ forward.astype(float) @ SWAP, False, 1.0


def deep(pair: Pair, **settings: object) -> tuple[np.ndarray, bool, float]:
    """Do as `ours`, and begin from the places of the network that ships where that is refused."""
    return ours(pair, learned=True, **settings)


METHODS = {"multimodal": ours, "deep": deep, "SIFT + MAGSAC": sift, "ECC on gradients": ecc}


def row(name: str, errors: np.ndarray, refused: np.ndarray, seconds: float) -> str:
    """Return a line of the table: over the accepted, and shares of all pairs (a refused one is not right)."""
    right = [f"{100 * np.mean((errors < limit) & ~refused):.0f}" for limit in (1, 3, 5, 10)]
    kept = errors[~refused]
    shown = ["-"] * 7
    if len(kept):
        values = [kept.mean(), kept.std(), *np.percentile(kept, (0, 25, 50, 75, 100))]
        shown = [f"{v:.2f}" if v < 100 else f"{v:.0f}" for v in values]
    sure = f"{100 * np.mean(kept < 5):.0f}" if len(kept) else "-"
    return (
        f"| {name} | {' | '.join(shown)} | {' | '.join(right)} | {100 * refused.mean():.0f} | {sure} | {seconds:.2f} |"
    )


HEAD = (
    "| accepted: | mean | std | min | 25 % | median | 75 % | max | of all: < 1 px, % | < 3 px | < 5 px | < 10 px |"
    " refused, % | accepted < 5 px, % | CPU s |\n|" + "---|" * 15
)


Line = tuple[str, str, str, float, bool, float, float, float, float]
COLUMNS = ("set", "pair", "method", "corner_error_px", "refused", "probability", "do_nothing_px", "cpu_s", "bound_px")


def known(table: Path | None) -> dict[tuple[str, str, str], Line]:
    """Return what a file holds already, by set, pair and method."""
    if table is None or not table.exists():
        return {}
    with table.open(newline="") as file:
        rows = [(r[0], r[1], r[2], float(r[3]), r[4] == "True", *map(float, r[5:])) for r in list(csv.reader(file))[1:]]
    return {row[:3]: row for row in rows}


def measure(
    names: list[str],
    methods: list[str],
    table: Path | None,
    part: str = "0/1",
    seconds: float = np.inf,
    only: Sequence[str] = (),
) -> None:
    """Print a table for each set; see the top of this file."""
    begun, (first, every) = time.monotonic(), map(int, part.split("/"))
    done = known(table)
    for name in names:
        lines = []
        for k, pair in enumerate(SETS[name]()):
            if k % every != first or (only and pair.name not in only):
                continue
            for method in methods:
                if (name, pair.name, method) not in done and time.monotonic() - begun < seconds:
                    start = time.process_time()
                    matrix, refused, probability = METHODS[method](pair, **RANGES.get(name, {}))
                    spent = time.process_time() - start
                    line = (pair.error(matrix), refused, probability, pair.error(pair.nothing), spent, pair.bound)
                    done[name, pair.name, method] = (name, pair.name, method, *line)
                    if table is not None:
                        with table.open("a", newline="") as file:
                            rows = ([] if file.tell() else [COLUMNS]) + [done[name, pair.name, method]]
                            csv.writer(file).writerows(rows)
                if (name, pair.name, method) in done:
                    lines.append(done[name, pair.name, method])
        show(name, lines)


def show(name: str, lines: list[Line]) -> None:
    """Print the table of a set."""
    nothing = {line[1]: line[6] for line in lines}
    idle = np.array(list(nothing.values()))
    print(f"\n{name}, {len(idle)} pairs\n\n{HEAD}")
    if len(idle):
        print(row("doing nothing", idle, idle < 0, 0))
    for method in METHODS:
        mine = [line for line in lines if line[2] == method]
        if mine:
            errors, refused, seconds, still = (np.array([line[k] for line in mine]) for k in (3, 4, 7, 6))
            print(row(method, errors, refused, float(seconds.mean())), flush=True)
            if method == "multimodal":
                if name == "synthetic":
                    against_bounds(mine)
                harm = (errors > still) & ~refused
                print(f"(multimodal: {harm.sum()} accepted pairs worse than doing nothing)", file=sys.stderr)


def against_bounds(lines: list[Line]) -> None:
    """Print how results of synthetic pairs compare with the least error that the noise of each allows."""
    bounds, errors, refused = (np.array([line[k] for line in lines]) for k in (8, 3, 4))
    print("\n| least error possible, px | pairs | refused | median of accepted | largest | median over the bound |")
    print("|---|---|---|---|---|---|")
    for low, high in ((0, 0.02), (0.02, 0.05), (0.05, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, np.inf)):
        part = (bounds >= low) & (bounds < high)
        kept = part & ~refused
        if part.any():
            said = [np.median(errors[kept]), errors[kept].max(), np.median(errors[kept] / bounds[kept])]
            shown = " | ".join(f"{v:.2f}" for v in said) if kept.any() else "- | - | -"
            print(f"| {low:g} to {high:g} | {part.sum()} | {refused[part].sum()} | {shown} |")


def pictures() -> list[np.ndarray]:
    """Return pictures, (y, x, 3) uint8, that the network that ships was not trained on."""
    from stackalign.io.pictures import PictureFolder

    return list(PictureFolder(PICTURES).loaded())


def contents() -> list[np.ndarray]:
    """Return photographs of many kinds, (y, x, 3) uint8."""
    import skimage.data

    images = [getattr(skimage.data, name)() for name in (*PHOTOGRAPHS, *PLANES)]
    return [image if image.ndim == 3 else np.repeat(image[..., None], 3, -1) for image in images]


def evidence(count: int, first: int, seconds: float, files: list[Path], way: str) -> np.ndarray:
    """Return regressors, chances and corner errors of synthetic pairs, from nearly alike to hopeless, as rows.

    Each has its own strength and content; of every tenth the images show different scenes, every third shows relief.
    ``count`` pairs from number ``first`` are gone on with for ``seconds`` and kept in the first of ``files``; what the
    others hold is added. Of the pairs for brightness half are inverted, none shows relief, and of every eighth the
    images show different scenes.
    """
    from stackalign.core.multimodal.brightness import match_brightness
    from stackalign.core.multimodal.matching import match
    from stackalign.core.multimodal.views import ImageViews

    chosen, images, begun = sa.Multimodal(), contents(), time.monotonic()
    find = match_brightness if way == "brightness" else match
    rows = list(np.load(files[0])["rows"]) if files and files[0].exists() else []
    for k in range(first + len(rows), first + count):
        if time.monotonic() - begun > seconds:
            break
        fixed, moving, truth = trial(k, images, way)
        result = find(ImageViews(fixed, moving), angles=chosen.angles(), scales=chosen.scales())
        error = 1e4 if result is None or truth is None else float(corner_distance(result.matrix, truth, moving.shape))
        told = np.full(REGRESSORS, np.nan) if result is None else result.evidence.regressors()
        chance = 1.0 if result is None else result.evidence.by_chance
        rows.append(np.r_[told, chance, error if np.isfinite(error) else 1e4])
        if files:
            np.savez(files[0], rows=rows)
    table = np.array(rows + [row for file in files[1:] for row in np.load(file)["rows"]])
    return table[np.isfinite(table).all(1)]


def trial(k: int, images: list[np.ndarray], way: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return pair number ``k`` to calibrate with, and the truth; None where the images show different scenes."""
    from stackalign.core.deep.pairs import SyntheticPairs

    if way == "brightness":
        k = RELIEF * (k // 2) + 2 * (k % 2)  # the numbers without relief
        inverted, every, seed, strength = k % 6 >= 3, 8, 9000, (0.15, 0.3, 0.5, 0.0, 0.0, 0.0)[k % 6]
    else:
        inverted, every, seed, strength = k % 6 == 5, 10, 1000, (0.15, 0.3, 0.45, 0.6, 0.75, 0.0)[k % 6]
    source = SyntheticPairs(seed=seed + k, strength=strength, inverted=inverted)
    pair, alien = source.pair(images, 0), k % every == every - 1
    moving = source.pair(images[::-1], 1).moving if alien else pair.moving
    if k % RELIEF == 1:
        moving = with_relief(np.float32(moving), np.random.default_rng(seed + k))
    return np.float32(pair.reference), np.float32(moving), None if alien else pair.matrix


def with_relief(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an image as from another point of view: what stands out of the ground is shifted by up to eight pixels."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    size = rng.uniform(0.05, 0.2) * min(image.shape)
    rough = gaussian_filter(rng.normal(size=image.shape), size)
    above = np.clip((rough - np.quantile(rough, 1 - rng.uniform(0.1, 0.5))) / rough.std(), 0, None)
    height = gaussian_filter(np.minimum(above / rng.uniform(0.1, 1.0), 1.0), 1.0) * rng.uniform(1, 8)
    way = rng.uniform(0, 2 * np.pi)
    places = np.mgrid[: image.shape[0], : image.shape[1]] + height * np.array([np.sin(way), np.cos(way)])[:, None, None]
    return np.float32(map_coordinates(image, places, order=3, mode="nearest"))


def calibrate(count: int, first: int, seconds: float, files: list[Path], way: str) -> None:
    """Fit the coefficients and print them; say how they do on pairs that they were not fitted to."""
    from stackalign.core.multimodal.judge import RIGHT, fitted

    table = evidence(count, first, seconds, files, way)
    found, chances, errors = table[:, :-2], table[:, -2], table[:, -1]
    if way == "brightness":
        found = found[:, :-1]  # which tells of relief
    weights = np.zeros(REGRESSORS)
    weights[: found.shape[1]] = fitted(found, errors < RIGHT)
    print(f"{len(found)} pairs\nCOEFFICIENTS = (" + ", ".join(f"{w:.3f}" for w in weights) + ")")
    held, part = np.empty(len(found)), np.arange(len(found)) % 5
    for k in range(5):
        told = fitted(found[part != k], errors[part != k] < RIGHT)
        held[part == k] = (1 - chances[part == k]) / (1 + np.exp(-found[part == k] @ told))
    reliability(held, errors)


def reliability(probability: np.ndarray, errors: np.ndarray, figure: Path | None = None) -> None:
    """Print how often results of each probability were right, and draw it."""
    bins = []
    print("\n| probability | pairs | mean | under 3 px, % | under 5 px, % |\n|---|---|---|---|---|")
    for low, high in ((0, 0.1), (0.1, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 0.97), (0.97, 1.01)):
        part = (probability >= low) & (probability < high)
        if part.any():
            right = [float(np.mean(errors[part] < limit)) for limit in (3, 5)]
            bins.append((float(probability[part].mean()), *right, int(part.sum())))
            shown = " | ".join(f"{100 * share:.0f}" for share in right)
            print(f"| {low:g} to {min(high, 1):g} | {part.sum()} | {bins[-1][0]:.2f} | {shown} |")
    if figure is not None:
        drawn(np.array(bins), figure)


def drawn(bins: np.ndarray, file: Path) -> None:
    """Draw the share that is right over the stated probability, with one standard error."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    mean, three, five, count = bins.T
    smoothed = (three * count + 1) / (count + 2)  # no share of few pairs is certain
    axes.errorbar(mean, three, np.sqrt(smoothed * (1 - smoothed) / count), fmt="o-", label="under 3 px", capsize=3)
    axes.plot(mean, five, "s:", label="under 5 px", markersize=4)
    for x, y, n in zip(mean, three, count, strict=True):
        axes.annotate(f"{n:.0f}", (x, y), xytext=(6, -12), textcoords="offset points", fontsize=8)
    axes.axvspan(0, 0.7, color="0.93", zorder=0)
    axes.text(0.35, 0.02, "refused", ha="center", color="0.4")
    axes.set(xlabel="stated probability", ylabel="share that was right", xlim=(-0.03, 1.1), ylim=(-0.03, 1.05))
    axes.legend(loc="upper left", frameon=False)
    figure.savefig(file, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=[], metavar="SET", help=", ".join(SETS))
    parser.add_argument("--part", default="0/1", metavar="K/N", help="take pairs K, K + N, K + 2 N ...")
    parser.add_argument("--only", nargs="*", default=[], metavar="PAIR", help="names of pairs; all others are left out")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--csv", type=Path, help="file of all pairs; what it holds is not run again")
    parser.add_argument("--seconds", type=float, default=np.inf, help="stop then, and go on next time")
    parser.add_argument("--reliability", action="store_true", help="of what the file holds")
    parser.add_argument("--figure", type=Path, help="draw the reliability there")
    parser.add_argument("--placed", action="store_true", help="where blocks of whole folders lie")
    parser.add_argument("--blocks", action="store_true", help="where blocks of roadscene, or of named pairs, lie")
    parser.add_argument("--calibrate", type=int, metavar="PAIRS")
    parser.add_argument("--way", choices=("features", "brightness"), default="features", help="what to calibrate")
    parser.add_argument("--first", type=int, default=0, help="number of the first pair to calibrate with")
    parser.add_argument("--keep", type=Path, nargs="*", default=[], help="npz files of what calibrating has found")
    given = parser.parse_args()
    if given.calibrate:
        calibrate(given.calibrate, given.first, given.seconds, given.keep, given.way)
    elif given.placed:
        folders_by_blocks(given.sets or list(FOLDERS))
    elif given.blocks:
        if given.sets:
            blocks_of_folders(given.sets)
        else:
            blocks_of_roadscene(int(given.part.split("/")[1]))
    elif given.reliability:
        lines = [v for v in known(given.csv).values() if v[2] == "multimodal" and v[0] in (given.sets or SETS)]
        reliability(np.array([v[5] for v in lines]), np.array([v[3] for v in lines]), given.figure)
    else:
        measure(given.sets or list(SETS), given.methods, given.csv, given.part, given.seconds, given.only)


if __name__ == "__main__":
    main()
