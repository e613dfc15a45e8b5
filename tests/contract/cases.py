"""What each method is tried on: its record with the settings that a small scene needs, and scenes with known motion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import fourier_shift, gaussian_filter

from stackalign.config import METHODS

if TYPE_CHECKING:
    import stackalign as sa


POLICIES = ("mean", "median", "first", 3, "3", -2, "previous", "rolling", "all-pairs", "image")


@dataclass(frozen=True)
class Case:
    """How a method is called in this suite.

    Attributes
    ----------
    settings : dict
        Fields of its record that differ from the defaults.
    tolerance : float
        Pixels: how near a noisy, known shift must be found.
    volumes : bool
        Whether it aligns 3-D frames.
    masks : bool
        Whether it takes a mask.
    references : tuple
        What it may be told to align to; an external image is "image".
    slow : bool
        Whether this suite takes minutes with it: it is left to ``make test-all``.
    needs : str
        An optional package that it cannot do without.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 0.05
    volumes: bool = True
    masks: bool = True
    references: tuple[Any, ...] = POLICIES
    slow: bool = False
    needs: str = ""


FRAMES = ("first", 3, "3", -2)
CASES = {
    "cross-correlation": Case(),
    "lucas-kanade": Case(settings={"model": "translation"}),
    # much slower than those above: made for two images, or a stack to one image
    "multimodal": Case(
        settings={"model": "translation"}, tolerance=0.15, volumes=False, references=(*FRAMES, "image"), slow=True
    ),
    "deep": Case(
        settings={"model": "translation"},
        tolerance=0.15,
        volumes=False,
        references=(*FRAMES, "image"),
        slow=True,
        needs="torch",
    ),
    # all frames at once: a frame may be named that stays, but there is no reference image
    "reals": Case(settings={"model": "translation"}, references=("mean", "median", *FRAMES)),
    # the brightest beads of the scene below, found by the method itself
    "particles": Case(settings={"auto": 12, "model": "translation"}, tolerance=0.15, masks=False),
}


def case(method: str) -> Case:
    """Return the case of a method; a new one is tried with its defaults."""
    return CASES.get(method, Case())


def registrar(method: str, **changes: Any) -> Any:
    """Return the record of a method with the settings of its case."""
    record = METHODS[method]
    settings = {k: v for k, v in case(method).settings.items() if k in record.model_fields}
    return record(**settings, **changes)


def scene(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return beads on a textured ground, band-limited, between 0 and 1: every method finds something to hold on to.

    It is larger than it looks: `moved` shifts it cyclically and cuts the border off, so that content enters and leaves.
    """
    rng = np.random.default_rng(seed)
    big = tuple(n + 2 * BORDER[len(shape)] for n in shape)
    ground = gaussian_filter(rng.normal(size=big), 2.5, mode="wrap")
    beads = np.zeros(big)
    count = int(np.prod(big) / (350 if len(shape) == 2 else 2500))
    beads[tuple(rng.integers(0, n, count) for n in big)] = rng.uniform(0.6, 1.0, count)
    beads = gaussian_filter(beads, 1.4, mode="wrap")
    image = 0.25 * ground / np.abs(ground).max() + beads / beads.max()
    image -= image.min()
    return image / image.max()


BORDER = {2: 16, 3: 8}


def moved(image: np.ndarray, drift: np.ndarray) -> np.ndarray:
    """Return the frames (T, ...) of a scene that drifts by ``drift`` (T, d) pixels: exact, by Fourier shift."""
    spectrum = np.fft.fftn(image)
    b = BORDER[image.ndim]
    cut = (slice(b, -b),) * image.ndim
    return np.stack([np.fft.ifftn(fourier_shift(spectrum, d)).real[cut] for d in drift])


def camera(frames: np.ndarray, dtype: Any = np.uint16, *, seed: int = 1) -> np.ndarray:
    """Return what a camera makes of frames between 0 and 1: photon and read noise, in a dtype."""
    rng = np.random.default_rng(seed)
    photons = rng.poisson(20 + 900 * np.clip(frames, 0, None)) + rng.normal(0, 2, frames.shape)
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return photons.astype(dtype)
    scale, pedestal = {"uint8": (0.2, 5), "uint16": (4, 100), "int16": (8, -3000)}[dtype.name]
    info = np.iinfo(dtype)
    return np.clip(np.rint(photons * scale + pedestal), info.min, info.max).astype(dtype)


DRIFT = np.array(
    [[0, 0], [0.4, -0.7], [1.3, -1.6], [2.75, -1.1], [3.6, -2.3], [2.9, -3.55], [4.1, -4.8], [5.35, -4.2]], float
)
DRIFT_3D = np.array([[0, 0, 0], [0.3, -0.6, 0.9], [0.8, -1.4, 2.2], [1.25, 0.5, 2.9], [0.6, 1.7, 1.8]], float)


def movie(dtype: Any = np.uint16, drift: np.ndarray = DRIFT, shape: tuple[int, ...] = (72, 88), seed: int = 0):
    """Return a noisy stack whose scene drifts, not square."""
    return camera(moved(scene(shape, seed), drift), dtype)


def volumes(drift: np.ndarray = DRIFT_3D):
    """Return noisy volumes whose scene drifts."""
    return camera(moved(scene((14, 40, 48), 3), drift))


def deviation(result: sa.Registration, drift: np.ndarray, frames: Any = slice(None)) -> float:
    """Return the rms difference to the true drift per axis, pixels, after removing the common offset."""
    gap = (result.transforms.translations + drift)[frames]
    return float(np.sqrt(((gap - gap.mean(0)) ** 2).mean()))
