"""`simulate`: a movie rendered frame by frame when it is read, and the truth about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stackalign.core.simulate.beads import draw_beads
from stackalign.core.simulate.camera import photograph
from stackalign.core.simulate.cells import draw_cells
from stackalign.core.simulate.flicker import draw_flicker
from stackalign.core.simulate.images import cut_photograph, draw_texture
from stackalign.core.simulate.motion import draw_motion
from stackalign.core.simulate.parameters import Simulation
from stackalign.core.simulate.truth import Truth
from stackalign.core.stack import ImageStack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.simulate.scene import Scene
    from stackalign.core.transform_series import TransformSeries


class Simulated(NamedTuple):
    """A simulated movie and what is true about it."""

    stack: ImageStack
    truth: Truth


def simulate(simulation: Simulation | None = None, **overrides: Any) -> Simulated:
    """Make a movie of a scene that moves in a known way.

    Parameters
    ----------
    simulation : Simulation, optional
        Scene, shape, motion, light and camera; the defaults if left out.
    **overrides
        Fields of `Simulation` that replace those of ``simulation``.

    Returns
    -------
    Simulated
        ``stack``: a lazy ImageStack; a frame is rendered when it is read and depends only on the record and its number,
        so that any frame can be read at any time and always has the same bytes. ``truth``: a `Truth`.

    Raises
    ------
    ValueError
        If a field is unknown, out of bounds or does not fit the others; the message names it.

    Examples
    --------
    >>> stack, truth = simulate(scene="beads", shape=(64, 80), frames=5, amplitude=2.0, seed=1)
    >>> stack.shape, str(stack.dtype)
    ((5, 64, 80), 'uint16')
    >>> truth.transforms[0].translation.tolist()
    [0.0, 0.0]
    """
    record = simulation or Simulation()
    if overrides:
        record = Simulation(**{**record.model_dump(), **overrides})
    # frame t uses [seed, t]; a third number that is not zero keeps these streams apart from all of them
    transforms = draw_motion(record, np.random.default_rng([record.seed, 0, 1]))
    scene = _draw(record, transforms, np.random.default_rng([record.seed, 0, 2]))
    if record.flicker:
        scene = draw_flicker(record, scene, transforms, np.random.default_rng([record.seed, 0, 3]))
    truth = Truth(record, transforms, scene)
    stack = ImageStack(
        _SimulatedFrames(truth),
        name=f"simulated {record.scene}",
        metadata={"simulation": record.model_dump(mode="json")},
    )
    return Simulated(stack, truth)


def _draw(record: Simulation, transforms: TransformSeries, rng: np.random.Generator) -> Scene:
    match record.scene:
        case "beads":
            return draw_beads(record, transforms, rng)
        case "cells":
            return draw_cells(record, transforms, rng)
        case "texture":
            return draw_texture(record, transforms, rng)
        case _:
            return cut_photograph(record, transforms)


class _SimulatedFrames:
    """Frames rendered when they are read."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    @property
    def shape(self) -> tuple[int, ...]:
        return (self._truth.simulation.frames, *self._truth.simulation.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self._truth.simulation.dtype)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[Any]:
        first, *rest = index if isinstance(index, tuple) else (index,)
        chosen = np.arange(len(self))[first]
        if chosen.ndim == 0:
            return np.asarray(self._frame(int(chosen))[tuple(rest)])
        out = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        for k, t in enumerate(chosen):
            out[k] = self._frame(int(t))
        return out[(slice(None), *rest)]

    def _frame(self, t: int) -> NDArray[Any]:
        record = self._truth.simulation
        return photograph(self._truth.photons(t), record, np.random.default_rng([record.seed, t]))
