"""MATLAB files: movies in, movies and transforms out, in the conventions of MATLAB and of the published REALS scripts.

A movie is an array (y, x, t) or (y, x, z, t) there. ``tau`` is (2, 3, t) (or (3, 4, t)): the affine matrices over
(x, y, 1), x and y from -1 to 1 between the outer borders of the frame, that carry a pixel of the *reference* to where
it is in the frame, which is what ``torch.nn.functional.affine_grid`` takes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.evaluation import normalised
from stackalign.core.transform import TransformModel
from stackalign.core.transform_series import TransformSeries
from stackalign.io.atomic import replacing
from stackalign.io.errors import StackReadError, StackWriteError, TransformsReadError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from numpy.typing import NDArray

    from stackalign.core.registration import Registration
    from stackalign.core.stack import ImageStack

_INPUT = "Y"  # the movie itself, in the published scripts
_LIMIT = 2**31 - 2**16  # bytes of one variable: MATLAB 5 files count them in 31 bits


def read_mat(path: str | PathLike[str], name: str | None = None) -> NDArray[Any]:
    """Read a movie.

    Parameters
    ----------
    path : path
        A MATLAB file of version 5 to 7; it is read into memory.
    name : str, optional
        The variable; may be left out if it is ``Y``, or if only one of them has three or four axes.

    Returns
    -------
    ndarray (t, y, x) or (t, z, y, x)
        Its pixels, with time first.

    Raises
    ------
    StackReadError
        If there is no such file or variable, it is no movie, or the file is of version 7.3 (HDF5).
    """
    place = Path(path).expanduser()
    found = {k: np.asarray(v) for k, v in _loaded(place).items()}
    movies = {k: v for k, v in found.items() if v.ndim in (3, 4) and v.dtype.kind in "uifb"}
    if name is None and _INPUT in movies:
        name = _INPUT
    if name is None and len(movies) != 1:
        have = ", ".join(f"{k} {v.shape}" for k, v in found.items()) or "nothing"
        said = "holds several movies" if movies else "holds no movie (y, x, t)"
        raise StackReadError(f"{place} {said}: there is {have}; name one, as in read_mat(path, name)")
    chosen = next(iter(movies)) if name is None else name
    if chosen not in movies:
        raise StackReadError(f"{place} has no movie {chosen!r}: there is {', '.join(movies) or 'none'}")
    frames = np.moveaxis(movies[chosen], -1, 0)
    if frames.ndim == 4:  # (t, y, x, z)
        frames = np.moveaxis(frames, -1, 1)
    return np.ascontiguousarray(frames)


def write_mat(path: str | PathLike[str], registration: Registration | TransformSeries, stack: ImageStack) -> Path:
    """Write an alignment as the published scripts have it.

    Parameters
    ----------
    path : path
        A file ending in ``.mat``; written beside it and renamed when whole.
    registration : Registration or TransformSeries
        The result of any method, or transforms. That of REALS also gives its decomposition.
    stack : ImageStack
        The input.

    Returns
    -------
    Path
        The file, with ``Y`` (the input), ``tau``, ``transforms`` (3, 3, t) over (y, x, 1) pixels, moving -> reference,
        and after REALS ``L`` (aligned), ``L_stat`` (low-rank) and ``S`` (sparse), float32, NaN where unknown.

    Raises
    ------
    StackWriteError
        If a variable is larger than 2 GB, the most that these files hold, or the file cannot be written.
    ValueError
        If the transforms are projective: tau has no place for that.
    """
    from scipy.io import savemat

    place = Path(path).expanduser()
    bytes_needed = int(np.prod(stack.shape, dtype=np.int64)) * max(stack.dtype.itemsize, 4)
    if isinstance(registration, TransformSeries):
        transforms, parts = registration, None
    else:
        transforms, parts = registration.transforms, registration.details.get("decomposition")
    if bytes_needed > _LIMIT:
        raise StackWriteError(
            f"cannot write {place}: a MATLAB 5 file holds at most 2 GB a variable, {bytes_needed / 1e9:.1f} GB are"
            " needed; write .tif or .zarr, which MATLAB reads too, or a range of frames"
        )
    variables = {
        _INPUT: _last(stack.asarray()),
        "tau": to_tau(transforms, stack.frame_shape),
        "transforms": np.moveaxis(transforms.matrices, 0, -1),
    }
    if parts is not None:
        variables |= {
            "L": _last(parts.aligned.asarray()),
            "L_stat": _last(parts.low_rank.asarray()),
            "S": _last(parts.sparse.asarray()),
        }
    with replacing(place) as part, part.open("wb") as file:
        savemat(file, variables)
    return place


def to_tau(transforms: TransformSeries, frame_shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return transforms as tau, (d, d+1, t): see the module."""
    if transforms.model is TransformModel.PROJECTIVE:
        raise ValueError("projective transforms do not fit in 2 x 3 matrices: align with the affine model")
    normal = normalised(frame_shape)
    back = normal @ np.linalg.inv(transforms.matrices) @ np.linalg.inv(normal)
    return np.moveaxis(back[:, :-1], 0, -1)


def from_tau(
    tau: NDArray[np.floating], frame_shape: tuple[int, ...], model: TransformModel | str = "affine"
) -> TransformSeries:
    """Return tau, (d, d+1, t), as transforms in pixels.

    Raises
    ------
    TransformsReadError
        If the shape is another one, or a matrix has no inverse.
    """
    d = len(frame_shape)
    values = np.asarray(tau, float)
    if values.ndim != 3 or values.shape[:2] != (d, d + 1):
        raise TransformsReadError(f"tau of {d}-D frames is ({d}, {d + 1}, t), not {values.shape}")
    whole = np.tile(np.eye(d + 1), (values.shape[2], 1, 1))
    whole[:, :-1] = np.moveaxis(values, -1, 0)
    normal = normalised(frame_shape)
    try:
        matrices = np.asarray(np.linalg.inv(np.linalg.inv(normal) @ whole @ normal), np.float64)
    except np.linalg.LinAlgError as error:
        raise TransformsReadError("tau holds a matrix that has no inverse") from error
    return TransformSeries(matrices, TransformModel(model))


def read_tau(path: str | PathLike[str], frame_shape: tuple[int, ...], name: str = "tau") -> TransformSeries:
    """Read the transforms of a MATLAB file; TransformsReadError if it holds none of this name."""
    found = _loaded(Path(path).expanduser())
    if name not in found:
        raise TransformsReadError(f"{path} has no variable {name!r}: there is {', '.join(found) or 'nothing'}")
    return from_tau(np.asarray(found[name]), frame_shape)


def _loaded(place: Path) -> Mapping[str, Any]:
    from scipy.io import loadmat

    if not place.is_file():
        raise StackReadError(f"there is no file {place}")
    try:
        return {k: v for k, v in loadmat(place, appendmat=False).items() if not k.startswith("__")}
    except NotImplementedError as error:
        raise StackReadError(
            f"{place} is a MATLAB 7.3 file (HDF5): save it with save(..., '-v7'), or the movie as TIFF"
        ) from error
    except Exception as error:  # damaged headers raise errors of many kinds
        raise StackReadError(f"{place} is no MATLAB file that can be read ({error})") from error


def _last(frames: NDArray[Any]) -> NDArray[Any]:
    """Return (t, y, x) as (y, x, t), or (t, z, y, x) as (y, x, z, t)."""
    moved = frames if frames.ndim == 3 else np.moveaxis(frames, 1, -1)
    return np.moveaxis(moved, 0, -1)
