"""Movies for the tests of joint alignment, rendered once."""

from __future__ import annotations

from functools import cache
from typing import Any

import stackalign as sa


@cache
def movie(**fields: Any) -> tuple[sa.ImageStack, Any]:
    """Return a shaken photograph, in memory, and its truth; ``fields`` of `Simulation` change it."""
    base: dict[str, Any] = {
        "scene": "camera", "shape": (121, 151), "frames": 14, "motion": "uniform", "model": "euclidean",
        "amplitude": 5.0, "rotation": 5.0, "photons": 400.0, "seed": 3,
    }  # fmt: skip
    stack, truth = sa.simulate(**{**base, **fields})
    return sa.ImageStack(stack.asarray(), name="movie"), truth
