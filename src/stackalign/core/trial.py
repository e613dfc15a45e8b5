"""One experiment: a simulated movie, aligned by a method, and how far from the truth it ends; grids of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.evaluation import alignment_inconsistency
from stackalign.core.simulate.movie import simulate
from stackalign.core.stack import ImageStack
from stackalign.core.transform_series import TransformSeries
from stackalign.core.work import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stackalign.core.registration import RegistrarParameters
    from stackalign.core.simulate.parameters import Simulation
    from stackalign.core.work import Work


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """What came out of one experiment.

    Attributes
    ----------
    inconsistency, inconsistency_before : float
        See `alignment_inconsistency`; before: of doing nothing.
    error_px, error_max_px, error_before_px : float
        rms and largest error of a frame's corners over the frames that are not flagged; before: rms of all frames when
        nothing is done.
    flagged : int
        Frames that the method gave up.
    seconds, cpu_seconds : float
        Of the alignment alone; cpu_seconds of all threads.
    course : tuple of (float, float)
        Seconds since the start, and the inconsistency at that time.
    """

    inconsistency: float
    inconsistency_before: float
    error_px: float
    error_max_px: float
    error_before_px: float
    flagged: int
    seconds: float
    cpu_seconds: float
    course: tuple[tuple[float, float], ...]

    @property
    def numbers(self) -> dict[str, float]:
        """Everything but the course, by name."""
        names = (name for name in self.__slots__ if name != "course")
        return {name: getattr(self, name) for name in names}


def run_trial(simulation: Simulation, registrar: RegistrarParameters, *, follow: bool = True) -> Work[Trial]:
    """Simulate a movie, align it, compare with the truth.

    Parameters
    ----------
    simulation : Simulation
        The movie; it is rendered into memory first, so that the time is that of the alignment.
    registrar : RegistrarParameters
        The method.
    follow : bool
        Note the inconsistency of what the method has so far whenever it tells.
    """
    lazy, truth = simulate(simulation)
    frames = np.empty(lazy.shape, lazy.dtype)
    for t in range(len(lazy)):
        frames[t] = lazy[t]
        yield Progress(t + 1, len(lazy), "Simulating")
    shape, true = lazy.frame_shape, truth.transforms
    still = TransformSeries(np.tile(np.eye(true.ndim + 1), (len(true), 1, 1)), true.model)
    before = alignment_inconsistency(still, true, shape)
    course = [(0.0, before)]
    begun, worked, aside = time.perf_counter(), time.process_time(), 0.0
    work = registrar.fit(ImageStack(frames, name=lazy.name))  # type: ignore[attr-defined]
    while True:
        try:
            progress = next(work)
        except StopIteration as stop:
            result = stop.value
            break
        paused = time.perf_counter()
        partial = progress.partial
        if follow and partial is not None:
            course.append((paused - begun - aside, alignment_inconsistency(partial.transforms, true, shape)))
            aside += time.perf_counter() - paused
        yield Progress(progress.done, progress.total, progress.message)
    seconds, cpu = time.perf_counter() - begun - aside, time.process_time() - worked - aside
    inconsistency = alignment_inconsistency(result.transforms, true, shape)
    course.append((seconds, inconsistency))
    error = truth.error(result.transforms)
    good = result.transforms.valid & ~result.quality.flagged
    kept = error[good] if good.any() else error
    return Trial(
        inconsistency,
        before,
        float(np.sqrt((kept**2).mean())),
        float(kept.max()),
        float(np.sqrt((truth.error(still) ** 2).mean())),
        int((~good).sum()),
        seconds,
        cpu,
        tuple(course),
    )


def perturbations(
    base: Simulation, translations: Sequence[float], rotations: Sequence[float], draws: int
) -> Iterator[tuple[float, float, int, Simulation]]:
    """Yield a grid: each frame is moved by up to a translation along each axis and up to a rotation, uniformly.

    The whole grid comes once, then again with the next draw: what is there of a run that was stopped covers it evenly.

    Yields
    ------
    translation, rotation, draw, simulation
        Pixels, degrees; the seed is that of ``base`` plus the draw.
    """
    for draw in range(draws):
        for shift in translations:
            for angle in rotations:
                change = {"amplitude": shift, "rotation": angle, "seed": base.seed + draw, "motion": "uniform"}
                yield shift, angle, draw, type(base)(**{**base.model_dump(), **change})


def with_noise(base: Simulation, *, gaussian: float | None = None, peak: float | None = None) -> Simulation:
    """Return a simulation with one kind of noise, relative to the brightest pixel of its first frame without noise.

    Parameters
    ----------
    base : Simulation
        The scene. Its camera becomes one without offset that writes float32.
    gaussian : float, optional
        Standard deviation of Gaussian noise, as a fraction of the brightest pixel; no shot noise.
    peak : float, optional
        Photons of the brightest pixel, Poisson noise only.
    """
    still = {"offset": 0.0, "gain": 1.0, "dtype": "float32", "bit_depth": None, "flicker": 0.0}
    top = float(simulate(type(base)(**{**base.model_dump(), **still})).truth.clean(0).max())
    change: dict[str, object] = {**still, "flicker": base.flicker}
    if peak is not None:
        change |= {"photons": base.photons * peak / top, "shot_noise": True, "read_noise": 0.0}
    elif gaussian is not None:
        change |= {"shot_noise": False, "read_noise": gaussian * top}
    return type(base)(**{**base.model_dump(), **change})
