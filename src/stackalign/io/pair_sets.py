"""Sets of image pairs on disk as `ImagePair` by number, read when they are asked for.

Truth on disk is in x, y (u, v); here it becomes corners in (y, x), pixels, an integer being the centre of a pixel.
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.deep.pairs import ImagePair, SyntheticPairs, corners_of
from stackalign.core.transform_fit import fit_matrix
from stackalign.core.warping.resample import warp_frame
from stackalign.io.errors import StackReadError
from stackalign.io.picture import ENDINGS
from stackalign.io.pictures import PictureFolder, read_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from os import PathLike

    from numpy.typing import NDArray

_CORNERS = ("top_left", "top_right", "bottom_right", "bottom_left")
_SHORT = ("tl", "tr", "br", "bl")
WARP = 0.1  # share of an aligned pair's size by which its corners are moved


@dataclass(frozen=True, slots=True, eq=False)
class PairSet:
    """Pairs by number; each is read when it is asked for.

    Attributes
    ----------
    name : str
    kind : str
        How the set was recognised: "dlkfm", "corner table", "aligned", "affine" or "synthetic".
    entries : tuple of callable
        Each returns a pair.
    """

    name: str
    kind: str
    entries: tuple[Callable[[], ImagePair], ...]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> ImagePair:
        return self.entries[index]()

    def __iter__(self) -> Iterator[ImagePair]:
        return (entry() for entry in self.entries)

    def first(self, count: int | None) -> PairSet:
        """Return the first ``count`` pairs as a set; all of them for None."""
        return self if count is None else PairSet(self.name, self.kind, self.entries[:count])


def open_pairs(
    path: str | PathLike[str],
    *,
    split: str = "val",
    recipe: SyntheticPairs | None = None,
    count: int = 100,
    seed: int = 0,
) -> PairSet:
    """Open a folder of pairs; what it holds is recognised.

    Parameters
    ----------
    path : path
        - ``{train,val}_input``, ``_template`` and ``_label``: the layout of DLKFM's sets, labels with ``location``;
        - ``gt_corners.csv`` and folders of ``*_input192_*`` and ``*_template128_*``, or one of these folders;
        - ``vi`` and ``ir``: aligned pairs of one size; the second image is warped by corners that move at random;
        - folders of ``pairN_1``, ``pairN_2`` and ``gt_N.txt`` (2 x 3, x and y, from 1 to 2), or one of them;
        - pictures only: pairs are synthesised of them by ``recipe``.
    split : {"val", "train"}
        Of a set in DLKFM's layout.
    recipe : SyntheticPairs, optional
        How pairs are made of single pictures.
    count : int
        Synthesised pairs.
    seed : int
        Of the warps of aligned pairs.

    Raises
    ------
    StackReadError
        If the folder holds no pairs, or its truth cannot be read; the message names the file.
    """
    place = Path(path).expanduser()
    if not place.is_dir():
        raise StackReadError(f"there is no folder of pairs {place}")
    for table in (place / "gt_corners.csv", place.parent / "gt_corners.csv"):
        if table.exists():
            return _corner_table(place, table)
    if (place / f"{split}_input").is_dir():
        return _dlkfm(place, split)
    if (place / "vi").is_dir() and (place / "ir").is_dir():
        return _aligned(place, seed)
    truths = sorted(place.glob("gt_*.txt")) or sorted(place.glob("*/gt_*.txt"))
    if truths:
        return PairSet(place.name, "affine", tuple(_Affine(truth) for truth in sorted(truths, key=_natural)))
    if any(f.suffix.lower() in ENDINGS for f in place.iterdir()):
        pictures = PictureFolder(place).loaded()
        made = recipe or SyntheticPairs()
        return PairSet(place.name, "synthetic", tuple(_Synthetic(made, pictures, k) for k in range(count)))
    raise StackReadError(f"{place} holds no pairs that are known: see `stackalign evaluate --help`")


@dataclass(frozen=True, slots=True, eq=False)
class _Synthetic:
    recipe: SyntheticPairs
    pictures: Sequence[NDArray[np.uint8]]
    index: int

    def __call__(self) -> ImagePair:
        return self.recipe.pair(self.pictures, self.index)


@dataclass(frozen=True, slots=True, eq=False)
class _Cornered:
    """An image, a template, and where its corners lie."""

    reference: Path
    moving: Path
    corners: NDArray[np.float64] | Path
    name: str
    group: str

    def __call__(self) -> ImagePair:
        corners = _labelled(self.corners) if isinstance(self.corners, Path) else self.corners
        return ImagePair(read_picture(self.reference), read_picture(self.moving), corners, self.name, self.group)


@dataclass(frozen=True, slots=True, eq=False)
class _Warped:
    """Two aligned images, of which the second is warped by a homography drawn from its name and the seed."""

    reference: Path
    moving: Path
    seed: int

    def __call__(self) -> ImagePair:
        reference, moving = read_picture(self.reference), read_picture(self.moving)
        if reference.shape[:2] != moving.shape[:2]:
            raise StackReadError(f"{self.reference} and {self.moving} are aligned only if they are of one size")
        shape = moving.shape[:2]
        rng = np.random.default_rng([self.seed, *self.reference.stem.encode()])
        here = corners_of(shape)
        corners = here + rng.uniform(-WARP, WARP, (4, 2)) * shape
        to_moving = fit_matrix(corners, here, "projective")  # pixels of the aligned image -> of the warped one
        planes = moving if moving.ndim == 3 else moving[..., None]
        seen = [
            warp_frame(planes[..., k].astype(np.float32), to_moving, order=3, fill="nan", output_shape=shape)
            for k in range(planes.shape[2])
        ]
        return ImagePair(reference, np.squeeze(np.stack(seen, -1)), corners, self.reference.stem, "aligned")


@dataclass(frozen=True, slots=True, eq=False)
class _Affine:
    """Images 1 and 2 and the affine that maps 1 to 2; image 1 moves."""

    truth: Path

    def __call__(self) -> ImagePair:
        number = self.truth.stem.split("_")[-1]
        folder = self.truth.parent
        images = []
        for which in (1, 2):
            found = sorted(f for f in folder.glob(f"pair{number}_{which}.*") if f.suffix.lower() in ENDINGS)
            if not found:
                raise StackReadError(f"{folder} has {self.truth.name}, but no picture pair{number}_{which}")
            images.append(read_picture(found[0]))
        try:
            matrix = np.loadtxt(self.truth)
        except (OSError, ValueError) as error:
            raise StackReadError(f"{self.truth} holds no matrix ({error})") from None
        if matrix.shape != (2, 3):
            raise StackReadError(f"{self.truth} must hold 2 x 3 numbers, not {matrix.shape}")
        ends = corners_of(images[0].shape)[:, ::-1] @ matrix[:, :2].T + matrix[:, 2]
        return ImagePair(images[1], images[0], ends[:, ::-1].copy(), f"{folder.name}-{number}", folder.name)


def _dlkfm(place: Path, split: str) -> PairSet:
    parts = [place / f"{split}_{what}" for what in ("input", "template", "label")]
    for part in parts[1:]:
        if not part.is_dir():
            raise StackReadError(f"{place} has {parts[0].name}, but no folder {part.name}")
    entries = []
    for image in sorted((f for f in parts[0].iterdir() if f.suffix.lower() in ENDINGS), key=_natural):
        template, label = (_beside(part, image) for part in parts[1:])
        entries.append(_Cornered(image, template, label, image.stem, place.name))
    if not entries:
        raise StackReadError(f"{parts[0]} holds no PNG or JPEG file")
    return PairSet(place.name, "dlkfm", tuple(entries))


def _beside(folder: Path, image: Path) -> Path:
    """Return the file of a folder that belongs to an image: the same stem, or the same but for the last word."""
    for stem in (image.stem, image.stem.rpartition("_")[0]):
        found = sorted(folder.glob(f"{stem}*")) if stem else []
        exact = [f for f in found if f.stem == stem] or found
        if exact:
            return exact[0]
    raise StackReadError(f"{folder} holds nothing that belongs to {image.name}")


def _labelled(path: Path) -> NDArray[np.float64]:
    """Read four corners of a label: JSON whose ``location`` holds top_left_u, top_left_v, ... in one or more parts."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))["location"]
        merged: dict[str, Any] = {}
        for part in said if isinstance(said, list) else [said]:
            merged |= part
        corners = [[float(merged[f"{name}_v"]), float(merged[f"{name}_u"])] for name in _CORNERS]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StackReadError(f"{path} is no label with four corners under 'location' ({error!r})") from None
    return np.array(corners)


def _corner_table(place: Path, table: Path) -> PairSet:
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    root, entries = table.parent, []
    for row in rows:
        folder = root / row["dataset"]
        if place not in (root, folder):
            continue
        found = [sorted(folder.glob(f"{row['stem']}_{what}*")) for what in ("input", "template")]
        if not found[0] or not found[1]:
            raise StackReadError(f"{table.name} names {row['stem']}, but {folder} has no two pictures of it")
        corners = np.array([[float(row[f"{name}_v"]), float(row[f"{name}_u"])] for name in _SHORT])
        entries.append(_Cornered(found[0][0], found[1][0], corners, row["stem"], row["dataset"]))
    if not entries:
        raise StackReadError(f"{table} lists no pair of {place}")
    return PairSet(place.name, "corner table", tuple(entries))


def _aligned(place: Path, seed: int) -> PairSet:
    visible = {f.stem: f for f in (place / "vi").iterdir() if f.suffix.lower() in ENDINGS}
    infrared = {f.stem: f for f in (place / "ir").iterdir() if f.suffix.lower() in ENDINGS}
    both = sorted(visible.keys() & infrared.keys(), key=_natural)
    if not both:
        raise StackReadError(f"{place / 'vi'} and {place / 'ir'} have no picture of one name")
    return PairSet(place.name, "aligned", tuple(_Warped(visible[k], infrared[k], seed) for k in both))


def _natural(name: str | Path) -> list[Any]:
    """Sort numbers in names by value."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(name))]
