"""Read image stacks lazily: one call for a TIFF, a folder, a glob, an OME-Zarr, a .npy or an array."""

from __future__ import annotations

import glob
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.stack import ImageStack
from stackalign.io.axes import UNKNOWN
from stackalign.io.errors import StackReadError
from stackalign.io.source import Source

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import ArrayLike

logger = logging.getLogger(__name__)
_ARRAY_AXES = {2: "yx", 3: "tyx", 4: "tzyx"}


def read_stack(
    path: str | PathLike[str] | ArrayLike | ImageStack, *, axes: str | None = None, channel: int | str | None = None
) -> ImageStack:
    """Open a stack; a frame is read when it is asked for.

    Parameters
    ----------
    path : path or array
        A TIFF file of many pages (plain, ImageJ, OME, BigTIFF), a folder or a glob of TIFF, PNG or JPEG files
        ("run/t*.tif", in natural order), an OME-Zarr folder (NGFF 0.4 or 0.5), a ``.npy`` or MATLAB (5 to 7)
        file, or a numpy, dask or zarr array (t, y, x) or (t, z, y, x).
    axes : str, optional
        What each axis is, where the file leaves it open: "tyx", "tzyx", "zyx" (one volume), "tcyx", ...; overrides
        what the file says.
    channel : int or str, optional
        Which channel, by number or name; of colour (RGB) frames 0, 1, 2 or "luminance" (ITU-R BT.709).

    Returns
    -------
    ImageStack
        Lazy, in the file's dtype, with its pixel size, unit and interval. Frames that cannot be read are in
        ``missing``; ``metadata["notes"]`` says what was taken for granted.

    Raises
    ------
    StackReadError
        If there is no such file, it is no image, or its frames differ in shape or dtype.
    AmbiguousAxesError
        If the file does not say which axis is time; ``choices`` lists what ``axes`` may be.
    ChannelChoiceError
        If the file holds several channels, or colours, and ``channel`` names none of them.
    """
    if isinstance(path, ImageStack):
        return path
    source = open_source(path, axes)
    stack = source.stack(axes, channel)
    _report(source, stack)
    return stack


def read_channels(path: str | PathLike[str] | ArrayLike, *, axes: str | None = None) -> tuple[ImageStack, ...]:
    """Open every channel of a file as a stack of its own; parameters and errors as for `read_stack`.

    Returns
    -------
    tuple of ImageStack
        One a channel, in the file's order; one only if the file has no channels; red, green and blue of RGB frames.
    """
    source = open_source(path, axes)
    stacks = source.channels(axes)
    _report(source, stacks[0])
    return stacks


def open_source(path: Any, axes: str | None = None) -> Source:
    """Open a file, folder, glob or array; StackReadError says what is wrong with it."""
    if not isinstance(path, str | Path) and not hasattr(path, "__fspath__"):
        return _open_array(path)
    text = str(path)
    place = Path(text).expanduser()
    if place.is_dir():
        return _open_folder(place, axes)
    if place.is_file():
        return _open_file(place)
    if any(c in text for c in "*?["):
        found = [Path(p) for p in glob.glob(str(place), recursive=True)]
        if not found:
            raise StackReadError(f"no file matches {text}")
        return _open_files(found, place.parent, axes)
    if place.parent != place and not place.parent.exists():
        raise StackReadError(f"there is no file {place}: its folder {place.parent} does not exist")
    raise StackReadError(f"there is no file or folder {place}")


def _open_file(path: Path) -> Source:
    from stackalign.io.picture import ENDINGS, open_picture
    from stackalign.io.tiff import open_tiff

    if path.suffix.lower() == ".npy":
        return _open_npy(path)
    if path.suffix.lower() == ".mat":
        from stackalign.io.matlab import read_mat

        array = read_mat(path)
        return _squeezed(array, "tyx" if array.ndim == 3 else "tzyx", name=path.stem, kind="MATLAB", path=path)
    if path.suffix.lower() in ENDINGS:
        return open_picture(path)
    if path.name in ("zarr.json", ".zattrs", ".zgroup", ".zarray"):
        return _open_folder(path.parent, None)
    return open_tiff(path, keep_open=True)


def _open_folder(path: Path, axes: str | None) -> Source:
    from stackalign.io.folder import stack_files
    from stackalign.io.zarr import is_zarr, open_zarr

    if is_zarr(path):
        return open_zarr(path)
    return _open_files(stack_files(path), path, axes)


def _open_files(files: list[Path], folder: Path, axes: str | None) -> Source:
    from stackalign.io.folder import open_files

    if len(files) == 1:
        return _open_folder(files[0], axes) if files[0].is_dir() else _open_file(files[0])
    return open_files(files, folder, axes)


def _open_npy(path: Path) -> Source:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header raises errors of many kinds
        raise StackReadError(f"{path} is no NumPy array that can be read ({error})") from error
    labels = UNKNOWN * (array.ndim - 2) + "yx"
    return _squeezed(array, labels, name=path.stem, kind="NumPy", path=path, lazy_files=(path,))


def _open_array(array: Any) -> Source:
    pixels = array if hasattr(array, "shape") and hasattr(array, "dtype") else np.asarray(array)
    ndim = len(pixels.shape)
    labels = _ARRAY_AXES.get(ndim, UNKNOWN * (ndim - 2) + "yx")
    return _squeezed(pixels, labels, name="array", kind="array")


def _squeezed(pixels: Any, labels: str, **kwargs: Any) -> Source:
    """Return an array as a source; arrays keep axes of length 1, for which the user may want to write letters."""
    if len(pixels.shape) < 2 or 0 in pixels.shape or np.dtype(pixels.dtype).kind not in "uifb":
        where = kwargs.get("path") or "this array"
        raise StackReadError(
            f"{where}: a stack needs at least two axes, pixels, and integers or real numbers; this is"
            f" {tuple(pixels.shape)} {pixels.dtype}"
        )
    return Source(pixels, labels, **kwargs)


def _report(source: Source, stack: ImageStack) -> None:
    for note in source.notes:
        logger.warning("%s: %s", source.label, note)
    for frame, reason in stack.missing.items():
        logger.warning("%s: frame %d is missing: %s", stack.name, frame, reason)
