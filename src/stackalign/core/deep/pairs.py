"""Pairs of images under known homographies: an image of one modality and a smaller template of another.

The arrangement of the published benchmark: the template's four corners lie in the image, each drawn in its own square,
so doing nothing (the template in the middle of the image) is wrong by a known amount.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from pydantic import Field

from stackalign.core.deep.renderings import random_rendering
from stackalign.core.parameters import Parameters
from stackalign.core.transform_fit import fit_matrix
from stackalign.core.warping.resample import warp_frame

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

_TRIES = 15  # views that are drawn anew
_CONTRAST = 6.0  # of 255: less spread than this is no structure


@dataclass(frozen=True, slots=True, eq=False)
class ImagePair:
    """Two images and where the second lies in the first.

    Attributes
    ----------
    reference : ndarray (y, x) or (y, x, channel)
        The image that stays.
    moving : ndarray (y, x) or (y, x, channel)
        The other one, the template.
    corners : ndarray (4, 2)
        Where the centres of the moving image's corner pixels lie in the reference, pixels (y, x), clockwise from the
        first; NaN where the truth is not known.
    name : str
    group : str
        What it is summed up under: a folder or modality.
    """

    reference: NDArray[Any]
    moving: NDArray[Any]
    corners: NDArray[np.float64]
    name: str = ""
    group: str = ""

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The homography moving -> reference, (3, 3), pixels (y, x)."""
        return fit_matrix(corners_of(self.moving.shape), self.corners, "projective")

    @property
    def nothing(self) -> NDArray[np.float64]:
        """Where the corners lie if nothing is done: the moving image in the middle of the reference, (4, 2)."""
        apart = (np.array(self.reference.shape[:2]) - self.moving.shape[:2]) / 2
        return corners_of(self.moving.shape) + apart


class PairSource(Protocol):
    """Pairs by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> ImagePair: ...


def corners_of(shape: Sequence[int]) -> NDArray[np.float64]:
    """Return the centres of an image's corner pixels, (y, x), clockwise from the first one: (4, 2)."""
    h, w = shape[0] - 1.0, shape[1] - 1.0
    return np.array([[0.0, 0.0], [0.0, w], [h, w], [h, 0.0]])


def corner_error(found: ArrayLike, true: ArrayLike) -> float:
    """Return the mean distance of four corners from where they belong, pixels."""
    return float(np.linalg.norm(np.asarray(found, float) - np.asarray(true, float), axis=-1).mean())


def turned(pair: ImagePair, number: int) -> ImagePair:
    """Return a pair of squares turned by ``number % 4`` right angles, and first transposed from 4 on.

    Eight pairs of one: both images are seen so, and the corners go with them.
    """
    corners, side = pair.corners, pair.reference.shape[0] - 1.0
    images = [pair.reference, pair.moving]
    if number >= 4:
        images = [np.swapaxes(image, 0, 1) for image in images]
        corners = corners[[0, 3, 2, 1], ::-1]
    for _ in range(number % 4):
        images = [np.rot90(image) for image in images]
        corners = np.stack([side - corners[:, 1], corners[:, 0]], -1)[[1, 2, 3, 0]]
    return replace(pair, reference=images[0], moving=images[1], corners=np.ascontiguousarray(corners))


class SyntheticPairs(Parameters):
    """How pairs are made of single images."""

    size: int = Field(
        192, ge=32, le=2048, title="Image", description="Side of the image", json_schema_extra={"unit": "px"}
    )
    template: int = Field(
        128, ge=16, le=2048, title="Template", description="Side of the template", json_schema_extra={"unit": "px"}
    )
    reach: float = Field(
        32.0,
        ge=0,
        title="Reach",
        description="Each corner is drawn within this distance of its place, along each axis",
        json_schema_extra={"unit": "px"},
    )
    wander: float = Field(
        0.0,
        ge=0,
        title="Wander",
        description="The middle of the template is moved by up to this as well, even out of the image: for training, "
        "where a network must not learn that templates lie in the middle",
        json_schema_extra={"unit": "px"},
    )
    strength: float = Field(
        1.0, ge=0, le=1, title="Strength", description="How differently the two are rendered: 0 alike, 1 fully"
    )
    least_strength: float | None = Field(
        None,
        ge=0,
        le=1,
        title="Least strength",
        description="Each pair draws its own strength between this and the strength; none: all have the same",
    )
    inverted: bool = Field(
        False, title="Inverted", description="Only invert the template and add a little noise: the test of a contrast"
    )
    noise: float = Field(
        0.02,
        ge=0,
        le=1,
        title="Noise",
        description="Standard deviation of the noise of an inverted template, as a share of full brightness",
    )
    zoom: tuple[float, float] = Field(
        (0.6, 2.5), title="Zoom", description="Smallest and largest number of source pixels in a pixel of the pair"
    )
    structure: float = Field(
        0.0,
        ge=0,
        le=0.9,
        title="Structure",
        description="Views are drawn anew, up to 16 times, until this share of their places shows something: "
        "nobody can match sky and blurred backgrounds",
    )
    seed: int = Field(0, ge=0, title="Seed", description="Pairs of one seed are the same everywhere")

    def pair(self, images: Sequence[NDArray[np.uint8]], index: int) -> ImagePair:
        """Return pair number ``index``, the same on every call.

        Parameters
        ----------
        images : sequence of ndarray (y, x, 3), uint8
            One is drawn.
        index : int

        Raises
        ------
        ValueError
            If there is no image, or the template leaves the image.
        """
        margin = self._checked_margin(images)
        rng = np.random.default_rng([self.seed, index])
        source = images[int(rng.integers(len(images)))]
        corners = corners_of((self.template, self.template)) + margin + rng.uniform(-self.reach, self.reach, (4, 2))
        if self.wander:
            corners = corners + rng.uniform(-self.wander, self.wander, 2)
        into_reference = fit_matrix(corners_of((self.template, self.template)), corners, "projective")
        source, view = self._framed(images, source, rng)
        colours = _seen(source, view, self.size)
        moved = _seen(source, view @ into_reference, self.template)
        if self.inverted:
            noise = rng.standard_normal(moved.shape[:2], np.float32)
            pair = colours.mean(-1), 1 - moved.mean(-1) + np.float32(self.noise) * noise
        else:
            strength = self._strength(rng)
            pair = random_rendering(colours, rng, strength), random_rendering(moved, rng, strength)
        return ImagePair(pair[0], pair[1], corners, f"{self.seed}-{index}", "synthetic")

    def scene(self, images: Sequence[NDArray[np.uint8]], index: int) -> NDArray[np.float32]:
        """Return what the image shows and, pixel on pixel, what a template may be cut from, (2, y, x); see `pair`."""
        self._checked_margin(images)
        rng = np.random.default_rng([self.seed, index])
        source = images[int(rng.integers(len(images)))]
        source, view = self._framed(images, source, rng)
        colours = _seen(source, view, self.size)
        if self.inverted:
            grey = colours.mean(-1)
            return np.stack([grey, 1 - grey])
        strength = self._strength(rng)
        return np.stack([random_rendering(colours, rng, strength) for _ in range(2)])

    def pairs(self, images: Sequence[NDArray[np.uint8]], start: int = 0) -> Iterator[ImagePair]:
        """Yield pair after pair without an end, from number ``start``."""
        while True:
            yield self.pair(images, start)
            start += 1

    def _checked_margin(self, images: Sequence[NDArray[np.uint8]]) -> float:
        """Return the pixels around a template; ValueError if there is no image, or it leaves the image."""
        if not len(images):
            raise ValueError("there are no images to make pairs of: run scripts/fetch_training_images.py")
        margin = (self.size - self.template) / 2
        if self.reach > margin:
            raise ValueError(f"reach {self.reach:g} px moves the template out of the image: at most {margin:g} px fit")
        return margin

    def _strength(self, rng: np.random.Generator) -> float:
        return self.strength if self.least_strength is None else rng.uniform(self.least_strength, self.strength)

    def _framed(
        self, images: Sequence[NDArray[np.uint8]], source: NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Return a source, this one if it shows enough, and the view of it that a pair has."""
        view = self._view(source.shape, rng)
        return self._with_structure(images, source, view, rng) if self.structure else (source, view)

    def _with_structure(
        self,
        images: Sequence[NDArray[np.uint8]],
        source: NDArray[np.uint8],
        view: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Return this source and view, or the first ones drawn that show enough, or those that show most."""
        best, shown = (source, view), _structure(source, view, self.size)
        for _ in range(_TRIES):
            if shown >= self.structure:
                break
            source = images[int(rng.integers(len(images)))]
            view = self._view(source.shape, rng)
            share = _structure(source, view, self.size)
            if share > shown:
                best, shown = (source, view), share
        return best

    def _view(self, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
        """Return a random similarity, perhaps with a flip, that maps pixels of the pair to pixels of the source."""
        longest = min(shape[:2]) / (self.size * 1.02)
        low, high = min(self.zoom[0], longest), min(self.zoom[1], longest)
        zoom = np.exp(rng.uniform(np.log(low), np.log(high)))
        angle = rng.uniform(0, 2 * np.pi)
        linear = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        linear[:, 0] *= rng.choice((-1.0, 1.0))
        half = zoom * self.size / 2
        middle = [rng.uniform(min(half, n / 2), max(n - half, n / 2)) for n in shape[:2]]
        out = np.eye(3)
        out[:2, :2] = linear
        out[:2, 2] = middle - linear @ np.full(2, (self.size - 1) / 2)
        return out


@dataclass(frozen=True, slots=True, eq=False)
class FixedPairs:
    """The first ``count`` pairs of a recipe: for tests, where every run must see the same."""

    recipe: SyntheticPairs
    images: Sequence[NDArray[np.uint8]]
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> ImagePair:
        if not 0 <= index < self.count:
            raise IndexError(f"there are {self.count} pairs, number {index} is none of them")
        return self.recipe.pair(self.images, index)


def _structure(source: NDArray[np.uint8], view: NDArray[np.float64], size: int) -> float:
    """Return the share of blocks of 12 pixels whose brightness, at every third pixel, is not all the same."""
    side = max(size // 12, 1)
    y, x = np.mgrid[: 12 * side : 3, : 12 * side : 3]
    places = np.stack([y, x], -1) @ view[:2, :2].T + view[:2, 2]
    row, column = (np.clip(np.rint(places[..., k]).astype(int), 0, n - 1) for k, n in enumerate(source.shape[:2]))
    shown = source[row, column].mean(-1).reshape(side, 4, side, 4)
    return float((shown.std((1, 3)) > _CONTRAST).mean())


def _seen(source: NDArray[np.uint8], view: NDArray[np.float64], size: int) -> NDArray[np.float32]:
    """Return what a square frame of ``size`` pixels sees: ``view`` maps its pixels to those of the source."""
    ends = np.c_[corners_of((size, size)), np.ones(4)] @ view.T
    places = ends[:, :2] / ends[:, 2:]
    low = np.maximum(np.floor(places.min(0)).astype(int) - 4, 0)
    high = np.minimum(np.ceil(places.max(0)).astype(int) + 5, source.shape[:2])
    low = np.minimum(low, high - 1)
    part = source[low[0] : high[0], low[1] : high[1]].astype(np.float32) / np.float32(255)
    area = abs(np.linalg.det((places[[1, 3]] - places[0]).T)) / (size - 1) ** 2
    step = max(int(np.sqrt(max(area, 1e-6)) + 0.25), 1)
    step = max(min(step, min(part.shape[:2]) // 2), 1)
    if step > 1:  # means of blocks: what a coarser detector sees, without aliases
        h, w = (n // step * step for n in part.shape[:2])
        part = part[:h, :w].reshape(h // step, step, w // step, step, 3).mean((1, 3))
    to_part = np.array([[1 / step, 0, (1 / step - 1) / 2], [0, 1 / step, (1 / step - 1) / 2], [0, 0, 1]])
    shift = np.array([[1.0, 0, -low[0]], [0, 1, -low[1]], [0, 0, 1]])
    forward = np.linalg.inv(to_part @ shift @ view)
    planes = [
        warp_frame(np.ascontiguousarray(part[..., k]), forward, order=1, fill="edge", output_shape=(size, size))
        for k in range(3)
    ]
    return np.stack(planes, -1)
