"""A folder of pictures as colour arrays, read when they are asked for: what pairs for training are made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.io.errors import StackReadError
from stackalign.io.picture import ENDINGS

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray


class PictureFolder:
    """The PNG and JPEG files of a folder, in the order of their names.

    Parameters
    ----------
    folder : path

    Raises
    ------
    StackReadError
        If there is no such folder, or no picture in it.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        place = Path(folder).expanduser()
        if not place.is_dir():
            raise StackReadError(
                f"there is no folder of pictures {place}: run scripts/fetch_training_images.py {place}"
            )
        self.files = tuple(sorted(f for f in place.iterdir() if f.suffix.lower() in ENDINGS))
        if not self.files:
            raise StackReadError(f"{place} holds no PNG or JPEG file")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Return a picture, (y, x, 3), uint8."""
        return colours(read_picture(self.files[index]))

    def loaded(self) -> list[NDArray[np.uint8]]:
        """Return all pictures."""
        return [self[k] for k in range(len(self))]


def read_picture(path: Path) -> NDArray[Any]:
    """Return a picture as it is, (y, x) or (y, x, channel); StackReadError if it cannot be read."""
    from stackalign.io.picture import open_picture

    try:
        return np.asarray(open_picture(path).pixels[()])
    except OSError as error:
        raise StackReadError(f"{path} cannot be read as a picture ({error})") from error


def colours(picture: NDArray[Any]) -> NDArray[np.uint8]:
    """Return any picture as (y, x, 3), uint8: grey ones three times, 16 bits cut to 8, without opacity."""
    array: NDArray[Any] = picture if picture.ndim == 3 else picture[..., None]
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(f"pictures hold 8 or 16 bits a channel, not {array.dtype}")
    if array.shape[-1] in (2, 4):
        array = array[..., :-1]
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))
