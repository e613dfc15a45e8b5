"""Movies whose motion is known: scenes drawn at their true sub-pixel positions, in front of a noisy camera."""

from stackalign.core.simulate.moved import moved
from stackalign.core.simulate.movie import Simulated, simulate
from stackalign.core.simulate.parameters import Simulation
from stackalign.core.simulate.truth import Truth

__all__ = ["Simulated", "Simulation", "Truth", "moved", "simulate"]
