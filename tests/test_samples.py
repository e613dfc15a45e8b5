"""The samples are what make.py makes, and their truth is true."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stackalign import (
    Simulation,
    load_provenance,
    load_sample,
    load_sample_truth,
    read_stack,
    sample_names,
    sample_path,
    simulate,
)
from stackalign.samples import sample_folder

MAKE = Path(__file__).parents[1] / "sample_data" / "make.py"


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    subprocess.run([sys.executable, MAKE, folder], check=True, capture_output=True)
    return folder


def test_there_are_samples_and_they_are_small() -> None:
    assert {"drifting_beads", "rotating_cells", "drifting_volume", "camera_shake"} <= set(sample_names())
    sizes = [path.stat().st_size for path in sample_folder().iterdir() if path.is_file()]
    assert max(sizes) < 1.5e6
    assert sum(sizes) < 4e6


@pytest.mark.parametrize("name", sample_names())
def test_a_sample_is_calibrated_and_shows_its_truth(name: str) -> None:
    """The noise of every pixel is what the recipe beside it says: the file is neither stale nor damaged."""
    stack, transforms = load_sample(name), load_sample_truth(name)
    assert stack.pixel_size is not None
    assert stack.interval is not None
    assert len(transforms) == len(stack)
    record = Simulation(**load_provenance(sample_path(name).with_suffix(".truth.json"))["simulation"])
    _, truth = simulate(record)
    assert np.allclose(truth.transforms.matrices, transforms.matrices, rtol=0, atol=1e-9)
    for t in (0, len(stack) // 2, len(stack) - 1):
        clean = truth.clean(t)
        photons = clean - record.offset
        z = (stack[t] - clean) / np.sqrt(photons + record.read_noise**2 + 1 / 12)
        assert abs(z.mean()) < 5 / np.sqrt(z.size)
        assert z.var() == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("name", sample_names())
def test_make_rebuilds_the_same_movies(name: str, rebuilt: Path) -> None:
    found, again = load_sample(name), read_stack(rebuilt / f"{name}.tif")
    assert again.shape == found.shape
    assert again.pixel_size == found.pixel_size
    assert again.interval == found.interval
    # another processor's last bit may turn a photon: nearly all pixels of nearly all frames are equal
    same = np.mean([np.array_equal(a, b) for a, b in zip(again, found, strict=True)])
    assert same > 0.8


def test_make_gives_the_same_bytes_twice(rebuilt: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, MAKE, tmp_path], check=True, capture_output=True)
    for path in rebuilt.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_an_unknown_sample_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="there is no sample 'elephant': choose one of camera_shake, drifting_beads"):
        sample_path("elephant")
    assert sample_path("drifting_beads.tif") == sample_path("drifting_beads")
