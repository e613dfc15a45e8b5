"""Move real images by a known motion: what enters is the image mirrored at its borders."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.simulate.images import window
from stackalign.core.stack import ImageStack

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from stackalign.core.simulate.field import Field
    from stackalign.core.transform_series import TransformSeries


def moved(images: ImageStack | ArrayLike, transforms: TransformSeries) -> ImageStack:
    """Move an image, or the frames of a movie, by known transforms.

    Parameters
    ----------
    images : array (y, x) or (z, y, x), or ImageStack
        One image, seen again and again, or a stack with as many frames as transforms; an array of frames is passed as
        ``ImageStack(array)``.
    transforms : TransformSeries
        Moving -> reference, pixels: pixel q of frame t shows the image at ``transforms[t](q)``, so that these
        transforms are the truth for the result.

    Returns
    -------
    ImageStack
        Lazy, with the dtype (integers rounded and clipped), pixel size and interval of ``images``. Translations are
        Fourier shifts: exact for an image without structure at the pixel limit, and white noise stays white. Other
        models go through a spline of order 5 on a grid twice as fine.

    Raises
    ------
    ValueError
        If the dimensions or the number of frames do not fit, or a pixel is not finite.
    """
    frames: _MovedImage | _MovedStack
    if isinstance(images, ImageStack):
        if images.ndim != transforms.ndim or len(images) != len(transforms):
            raise ValueError(
                f"{len(transforms)} transforms in {transforms.ndim}-D do not fit"
                f" a stack of {len(images)} frames in {images.ndim}-D"
            )
        frames = _MovedStack(images, transforms)
        return replace(images, frames=frames, metadata={**images.metadata, "moved": transforms.to_dict()})
    image = np.asarray(images)
    if image.ndim != transforms.ndim:
        raise ValueError(
            f"an image for {transforms.ndim}-D transforms is {transforms.ndim}-D, got shape {image.shape};"
            " pass a movie as ImageStack(array)"
        )
    if image.dtype.kind not in "uifb" or 0 in image.shape:
        raise ValueError(f"an image holds real numbers, got {image.dtype} of shape {image.shape}")
    frames = _MovedImage(image, transforms)
    return ImageStack(frames, name="moved image", metadata={"moved": transforms.to_dict()})


class _MovedImage:
    """One image through each transform."""

    def __init__(self, image: NDArray[Any], transforms: TransformSeries) -> None:
        self._transforms = transforms
        self._field = _field(image, transforms, "the image")
        self.shape = (len(transforms), *image.shape)
        self.dtype: np.dtype[Any] = image.dtype

    def __getitem__(self, t: int) -> NDArray[Any]:
        return _cast(self._field.render(self._transforms.matrices[t]), self.dtype)


class _MovedStack:
    """Each frame of a stack through its own transform."""

    def __init__(self, stack: ImageStack, transforms: TransformSeries) -> None:
        self._stack = stack
        self._transforms = transforms
        self.shape = stack.shape
        self.dtype = stack.dtype

    def __getitem__(self, t: int) -> NDArray[Any]:
        one = self._transforms.selected([t])
        return _cast(_field(self._stack[t], one, f"frame {t}").render(one.matrices[0]), self.dtype)


def _field(image: NDArray[Any], transforms: TransformSeries, what: str) -> Field:
    if not np.isfinite(image).all():
        raise ValueError(f"{what} holds NaN or infinity: fill those pixels before it is moved")
    return window(np.asarray(image, np.float32), np.zeros(image.ndim, int), transforms, image.shape, None)


def _cast(values: NDArray[np.floating], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "f":
        return np.asarray(values, dtype)
    if dtype.kind == "b":
        return np.asarray(values > 0.5)
    info = np.iinfo(dtype)
    return np.asarray(np.clip(np.rint(values.astype(float)), info.min, info.max), dtype)
