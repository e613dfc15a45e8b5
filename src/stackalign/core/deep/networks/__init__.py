"""Networks that register pairs, one family a module; none is imported before it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stackalign.core.deep.requirement import require_torch

if TYPE_CHECKING:
    from stackalign.core.deep.networks.base import PairNetwork

NETWORKS = {
    "features": ("features", "InvariantFeatures"),
    "dhn": ("dhn", "DeepHomographyNetwork"),
    "mhn": ("mhn", "MultiscaleHomographyNetwork"),
    "clkn": ("clkn", "CascadedLucasKanade"),
    "dlkfm": ("dlkfm", "LucasKanadeFeatureMaps"),
    "embedding-corners": ("embedding", "EmbeddedCorners"),
    "embedding-matrix": ("embedding", "EmbeddedMatrix"),
    "description": ("description", "LearntDescription"),
}


def network_class(name: str) -> type[PairNetwork]:
    """Return the class of a network.

    Raises
    ------
    ValueError
        If there is no such network.
    ImportError
        If PyTorch is missing.
    """
    if name not in NETWORKS:
        raise ValueError(f"there is no network {name!r}: choose {', '.join(NETWORKS)}")
    require_torch(f"the network {name!r}")
    module, symbol = NETWORKS[name]
    found: type[PairNetwork] = getattr(import_module(f"stackalign.core.deep.networks.{module}"), symbol)
    return found


def build(name: str, options: dict[str, Any] | None = None) -> PairNetwork:
    """Return a new network; ValueError names options that it does not have."""
    cls = network_class(name)
    try:
        return cls(**(options or {}))
    except TypeError as error:
        raise ValueError(f"the network {name!r} does not take {options}: {error}") from None
