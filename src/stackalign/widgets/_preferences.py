"""The plugin's page in napari's Preferences: threads and the method that a new session starts with."""

from __future__ import annotations

import logging
from typing import Any

from stackalign.core.threads import set_threads
from stackalign.session import methods

logger = logging.getLogger(__name__)
DEFAULT_METHOD = "cross-correlation"


def preferred_threads() -> int | None:
    """Return how many threads the user wants; None: all cores, or what STACKALIGN_THREADS says."""
    return int(_value("threads", 0)) or None


def preferred_method() -> str:
    """Return the method that a new session starts with."""
    method = str(_value("method", DEFAULT_METHOD))
    return method if method in methods() else DEFAULT_METHOD


def apply_threads() -> None:
    """Let the numerics use as many threads as the user wants."""
    set_threads(preferred_threads())


def _value(name: str, default: Any) -> Any:
    try:
        from napari.settings import get_plugin_settings

        return getattr(get_plugin_settings("stackalign").alignment, name)
    except (ImportError, KeyError, AttributeError) as error:  # napari before 0.9, or not installed as a plugin
        logger.debug("no preferences: %s", error)
        return default
