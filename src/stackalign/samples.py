"""The sample movies that come with the package, small simulated ones, each with its truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stackalign.io.read import read_stack
from stackalign.io.transforms import load_transforms

if TYPE_CHECKING:
    from stackalign.core.stack import ImageStack
    from stackalign.core.transform_series import TransformSeries


def sample_folder() -> Path:
    """Return the folder of the samples: package data, or the repository's folder in an editable install.

    Raises
    ------
    FileNotFoundError
        If the installation lacks it.
    """
    packaged = Path(__file__).parent / "sample_data"
    beside = Path(__file__).parents[2] / "sample_data"
    for folder in (packaged, beside):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"the samples are missing: neither {packaged} nor {beside} exists; reinstall stackalign")


def sample_names() -> tuple[str, ...]:
    """Return the names of the samples, in alphabetical order."""
    return tuple(sorted(path.stem for path in sample_folder().glob("*.tif")))


def sample_path(name: str) -> Path:
    """Return the movie's file, for instance of ``"drifting_beads"`` (or ``"drifting_beads.tif"``).

    Raises
    ------
    ValueError
        If there is no such sample; the message names those there are.
    """
    stem = name.removesuffix(".tif")
    if stem not in sample_names():
        raise ValueError(f"there is no sample {name!r}: choose one of {', '.join(sample_names())}")
    return sample_folder() / f"{stem}.tif"


def load_sample(name: str) -> ImageStack:
    """Return a sample movie, lazily; ValueError names the samples there are."""
    return read_stack(sample_path(name))


def load_sample_truth(name: str) -> TransformSeries:
    """Return the transforms (moving -> reference, pixels) that align a sample exactly."""
    return load_transforms(sample_path(name).with_suffix(".truth.json"))
