"""Mean corner error of pairs of two modalities: ours, SIFT with MAGSAC, ECC on gradients, and doing nothing.

``python -m tests.benchmarks.bench_multimodal [SET ...] [--only 10] [--csv FILE]`` prints the table of each set:
SkyData, VEDAI, roadscene, roadscene-measured, the six folders of ``multimodal``, synthetic. The truth is only compared
with. ``--every 4`` takes every fourth pair. ``--calibrate 240`` fits the coefficients of
`stackalign.core.multimodal.judge` to synthetic pairs of many strengths and prints them; ``--reliability`` prints how
often results of each probability were right, those that are refused too.
"""

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import stackalign as sa
from stackalign.core.geometry import centre, corners
from stackalign.core.multimodal.corners import corner_distance, matrices_of

DATA = Path(__file__).parents[3] / "shared" / "data"
FOLDERS = ("Nighttime", "Optical-Depth", "Optical-Infrared", "Optical-Map", "Optical-Optical", "Optical-SAR")
SWAP = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])
REGRESSORS = 9  # of `Evidence`
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


def blocks_of_roadscene(every: int, *, side: int = 96, reach: int = 8) -> None:
    """Print how far blocks lie from where roadscene puts them, and from where refinement does.

    Mutual information of ranked brightness, which knows neither edges nor self-similarity, says where a block belongs,
    to whole pixels; blocks without a clear maximum inside the window are left out.
    """
    from scipy.ndimage import gaussian_filter
    from scipy.stats import rankdata

    def ranked(image: np.ndarray) -> np.ndarray:
        return rankdata(gaussian_filter(image, 1)).reshape(image.shape)

    print("\n| pair | blocks | median distance from the set's place, px | from the refined place |\n|---|---|---|---|")
    for path in sorted((DATA / "roadscene" / "vi").glob("*.jpg"))[::every]:
        fixed, other = grey(path), grey(DATA / "roadscene" / "ir" / path.name)
        matrix, first, second, apart = refined(fixed, other), ranked(fixed), ranked(other), []
        for i in range(reach, fixed.shape[0] - side - reach + 1, 64):
            for j in range(reach, fixed.shape[1] - side - reach + 1, 64):
                block, around = second[i : i + side, j : j + side], range(-reach, reach + 1)
                told = np.array([
                    [information(block, first[y : y + side, x : x + side]) for x in (j + k for k in around)]
                    for y in (i + k for k in around)
                ])  # fmt: skip
                at = np.array(np.unravel_index(told.argmax(), told.shape)) - reach
                if np.abs(at).max() < reach and told.max() > 1.15 * np.median(told):
                    there = matrix @ (i + side / 2, j + side / 2, 1.0)
                    moved = there[:2] / there[2] - (i + side / 2, j + side / 2)
                    apart.append((np.hypot(*at), np.hypot(*(at - moved))))
        if len(apart) > 5:
            print(f"| {path.stem} | {len(apart)} | " + " | ".join(f"{v:.2f}" for v in np.median(apart, axis=0)) + " |")


def information(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mutual information of two images, nats."""
    both = np.histogram2d(first.ravel(), second.ravel(), bins=24)[0] / first.size
    alone = both.sum(1, keepdims=True) * both.sum(0, keepdims=True)
    return float((both[both > 0] * np.log(both[both > 0] / alone[both > 0])).sum())


def folder(name: str) -> Iterator[Pair]:
    for path in sorted((DATA / "multimodal" / name).glob("gt_*.txt")):
        number, matrix = path.stem[3:], np.eye(3)
        matrix[:2] = np.loadtxt(path)
        one, two = (grey(path.parent / f"pair{number}_{k}.jpg") for k in (1, 2))
        yield Pair(f"{name} {number}", two, one, SWAP @ matrix @ SWAP)


def synthetic(count: int = 100, *, seed: int = 7, **recipe: object) -> Iterator[Pair]:
    import skimage.data

    from stackalign.core.deep.pairs import SyntheticPairs

    images = [getattr(skimage.data, name)() for name in PHOTOGRAPHS]
    source = SyntheticPairs(seed=seed, **({"inverted": True} | recipe))
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
}


def ours(pair: Pair, **settings: object) -> tuple[np.ndarray, bool, float]:
    found = sa.register_pair(pair.moving, pair.fixed, sa.Multimodal(**settings))
    return (pair.nothing if found.refused else found.transform.matrix), found.refused, found.probability


def raw(pair: Pair, **settings: object) -> tuple[float, float]:
    """Return the probability and the corner error of what is found, whether it is refused or not."""
    from stackalign.core.multimodal.judge import judge
    from stackalign.core.multimodal.views import ImageViews

    aligner = sa.Multimodal(**settings).aligner()
    options = {"model": aligner.model, "least_overlap": aligner.parameters.min_overlap}
    found = aligner._searched(ImageViews(aligner.filtered(pair.fixed), aligner.filtered(pair.moving)), None, options)
    return (0.0, 1e4) if found is None else (judge(found.evidence).probability, pair.error(found.matrix))


def as_bytes(image: np.ndarray) -> np.ndarray:
    known = np.nan_to_num(image, nan=float(np.nanmedian(image)))
    low, high = np.percentile(known, (0.5, 99.5))
    return np.uint8(np.clip(255 * (known - low) / max(high - low, 1e-6), 0, 255))


def sift(pair: Pair, **_: object) -> tuple[np.ndarray, bool, float]:
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


METHODS = {"multimodal": ours, "SIFT + MAGSAC": sift, "ECC on gradients": ecc}


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


def measure(names: list[str], only: int | None, every: int, methods: list[str], table: Path | None) -> None:
    lines = []
    for name in names:
        pairs = list(SETS[name]())[:only:every]
        nothing = np.array([p.error(p.nothing) for p in pairs])
        print(f"\n{name}, {len(pairs)} pairs\n\n{HEAD}\n{row('doing nothing', nothing, nothing < 0, 0)}", flush=True)
        for method in methods:
            start, results = time.process_time(), []
            for pair, idle in zip(pairs, nothing, strict=True):
                matrix, refused, probability = METHODS[method](pair, **RANGES.get(name, {}))
                results.append((pair.error(matrix), refused))
                lines.append([name, pair.name, method, results[-1][0], refused, probability, idle])
            errors, refused = (np.array(v) for v in zip(*results, strict=True))
            print(row(method, errors, refused, (time.process_time() - start) / len(pairs)), flush=True)
            if method == "multimodal":
                harm = (errors > nothing) & ~refused
                print(f"(multimodal: {harm.sum()} accepted pairs worse than doing nothing)", file=sys.stderr)
    if table is not None:
        with table.open("w", newline="") as file:
            head = ["set", "pair", "method", "corner_error_px", "refused", "probability", "do_nothing_px"]
            csv.writer(file).writerows([head, *lines])


def contents() -> list[np.ndarray]:
    """Return photographs of many kinds, (y, x, 3) uint8."""
    import skimage.data

    images = [getattr(skimage.data, name)() for name in (*PHOTOGRAPHS, *PLANES)]
    return [image if image.ndim == 3 else np.repeat(image[..., None], 3, -1) for image in images]


def evidence(count: int, first: int, seconds: float, files: list[Path]) -> np.ndarray:
    """Return regressors, chances and corner errors of synthetic pairs, from nearly alike to hopeless, as rows.

    Each has its own strength and content; of every tenth the images show different scenes. ``count`` pairs from number
    ``first`` are gone on with for ``seconds`` and kept in the first of ``files``; what the others hold is added.
    """
    from stackalign.core.deep.pairs import SyntheticPairs
    from stackalign.core.multimodal.matching import match
    from stackalign.core.multimodal.views import ImageViews

    chosen, images, begun = sa.Multimodal(), contents(), time.monotonic()
    rows = list(np.load(files[0])["rows"]) if files and files[0].exists() else []
    for k in range(first + len(rows), first + count):
        if time.monotonic() - begun > seconds:
            break
        source = SyntheticPairs(seed=1000 + k, strength=(0.15, 0.3, 0.45, 0.6, 0.75, 0.0)[k % 6], inverted=k % 6 == 5)
        pair = source.pair(images, 0)
        moving = source.pair(images[::-1], 1).moving if k % 10 == 9 else pair.moving
        result = match(
            ImageViews(np.float32(pair.reference), np.float32(moving)), angles=chosen.angles(), scales=chosen.scales()
        )
        error = 1e4 if result is None else float(corner_distance(result.matrix, pair.matrix, moving.shape))
        told = np.full(REGRESSORS, np.nan) if result is None else result.evidence.regressors()
        chance = 1.0 if result is None else result.evidence.by_chance
        rows.append(np.r_[told, chance, 1e4 if k % 10 == 9 or not np.isfinite(error) else error])
        if files:
            np.savez(files[0], rows=rows)
    table = np.array(rows + [row for file in files[1:] for row in np.load(file)["rows"]])
    return table[np.isfinite(table).all(1)]


def calibrate(count: int, first: int, seconds: float, files: list[Path]) -> None:
    """Fit the coefficients and print them; say how they do on pairs that they were not fitted to."""
    from stackalign.core.multimodal.judge import RIGHT, fitted

    table = evidence(count, first, seconds, files)
    found, chances, errors = table[:, :-2], table[:, -2], table[:, -1]
    weights = fitted(found, errors < RIGHT)
    print(f"{len(found)} pairs\nCOEFFICIENTS = (" + ", ".join(f"{w:.3f}" for w in weights) + ")")
    held, part = np.empty(len(found)), np.arange(len(found)) % 5
    for k in range(5):
        told = fitted(found[part != k], errors[part != k] < RIGHT)
        held[part == k] = (1 - chances[part == k]) / (1 + np.exp(-found[part == k] @ told))
    reliability(held, errors)


def reliability(probability: np.ndarray, errors: np.ndarray) -> None:
    """Print how often results of each probability were right."""
    print("\n| probability | pairs | mean | under 3 px, % | under 5 px, % |\n|---|---|---|---|---|")
    for low, high in ((0, 0.1), (0.1, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.01)):
        part = (probability >= low) & (probability < high)
        if part.any():
            right = [f"{100 * np.mean(errors[part] < limit):.0f}" for limit in (3, 5)]
            print(
                f"| {low:g} to {min(high, 1):g} | {part.sum()} | {probability[part].mean():.2f} | {' | '.join(right)} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", default=[], metavar="SET", help=", ".join(SETS))
    parser.add_argument("--only", type=int, help="the first pairs of each set")
    parser.add_argument("--every", type=int, default=1, help="take every so manieth pair")
    parser.add_argument("--reliability", action="store_true")
    parser.add_argument("--blocks", action="store_true", help="where blocks of roadscene lie, by mutual information")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--calibrate", type=int, metavar="PAIRS")
    parser.add_argument("--seconds", type=float, default=np.inf, help="stop calibrating then, and go on next time")
    parser.add_argument("--first", type=int, default=0, help="number of the first pair to calibrate with")
    parser.add_argument("--keep", type=Path, nargs="*", default=[], help="npz files of what calibrating has found")
    given = parser.parse_args()
    if given.calibrate:
        calibrate(given.calibrate, given.first, given.seconds, given.keep)
    elif given.blocks:
        blocks_of_roadscene(given.every)
    elif given.reliability:
        told = [raw(p, **RANGES.get(n, {})) for n in given.sets for p in list(SETS[n]())[: given.only : given.every]]
        reliability(*np.array(told).T)
    else:
        measure(given.sets or list(SETS), given.only, given.every, given.methods, given.csv)


if __name__ == "__main__":
    main()
