"""What matching looks at: features of two images at each resolution, described as the images lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from stackalign.core.frames.reduction import binned
from stackalign.core.multimodal.features import describe
from stackalign.core.warping.resample import warp_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stackalign.core.multimodal.refine import FeatureImage

    Array = NDArray[np.float64]
    Image = NDArray[np.float32]

_SEARCHED = 52  # px: least side of the images that are searched
_FINEST = 300_000  # px: larger images are refined on reduced ones only


class Views(Protocol):
    """Gives features of two images at each resolution; level k is reduced by 2**k."""

    def shapes(self, level: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the shapes of the fixed and of the moving image."""
        ...

    def fixed(self, level: int) -> FeatureImage:
        """Return the features of the fixed image."""
        ...

    def moved(self, level: int, matrix: Array, shape: tuple[int, int]) -> FeatureImage:
        """Return the features of the moving image as ``matrix`` (moving -> there) lays it on ``shape`` pixels."""
        ...

    def images(self) -> tuple[Image, Image]:
        """Return the fixed and the moving image."""
        ...

    def swapped(self) -> Views:
        """Return the same with both roles exchanged."""
        ...

    def described(self, features: Callable[[Image], FeatureImage], sign: float) -> Views:
        """Return views of other features, of the moving image times ``sign``."""
        ...


@dataclass(slots=True, eq=False)
class ImageViews:
    """Views of two images whose features are worked out anew wherever an image is turned or distorted.

    Features that know about orientation are never turned themselves: the image is, and is described then.

    Parameters
    ----------
    first, second : ndarray (y, x)
        The fixed and the moving image; NaN: not known.
    features : callable
        Image (y, x) -> FeatureImage.
    """

    first: Image
    second: Image
    features: Callable[[Image], FeatureImage] = describe
    _described: dict[int, FeatureImage] = field(default_factory=dict)
    _binned: dict[tuple[int, int], Image] = field(default_factory=dict)
    _other: ImageViews | None = None

    def shapes(self, level: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the shapes of the fixed and of the moving image."""
        first, second = (tuple(self._image(which, level).shape) for which in (0, 1))
        return first, second

    def fixed(self, level: int) -> FeatureImage:
        """Return the features of the fixed image."""
        if level not in self._described:
            self._described[level] = self.features(self._image(0, level))
        return self._described[level]

    def moved(self, level: int, matrix: Array, shape: tuple[int, int]) -> FeatureImage:
        """Return the features of the moving image as ``matrix`` lays it on ``shape`` pixels."""
        return self.features(warp_frame(self._image(1, level), matrix, order=1, fill=np.nan, output_shape=shape))

    def swapped(self) -> ImageViews:
        """Return the same with both roles exchanged."""
        if self._other is None:
            self._other = ImageViews(self.second, self.first, self.features)
            self._other._binned = {(1 - which, level): image for (which, level), image in self._binned.items()}
            self._other._other = self
        return self._other

    def described(self, features: Callable[[Image], FeatureImage], sign: float) -> ImageViews:
        """Return views of other features, of the moving image times ``sign``."""
        other = ImageViews(self.first, np.float32(sign) * self.second, features)
        signs = (1.0, sign)
        other._binned = {key: np.float32(signs[key[0]]) * image for key, image in self._binned.items()}
        return other

    def images(self) -> tuple[Image, Image]:
        """Return the fixed and the moving image."""
        return self.first, self.second

    def _image(self, which: int, level: int) -> Image:
        if (which, level) not in self._binned:
            self._binned[which, level] = binned((self.first, self.second)[which], (2**level, 2**level))
        return self._binned[which, level]


def levels_of(views: Views) -> tuple[int, int]:
    """Return the coarsest level, which is searched, and the finest one that is refined."""
    top, shapes = 0, views.shapes(0)
    while min(min(s) for s in shapes) / 2 ** (top + 1) >= _SEARCHED:
        top += 1
    bottom = 0
    while max(float(np.prod(s)) for s in shapes) / 4**bottom > _FINEST:
        bottom += 1
    return max(top, bottom), bottom
