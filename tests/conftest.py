"""Hypothesis and parallel runs: the same examples every time, a file in one process, all windows in one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings

# no deadline: a first example pays for imports and compilation
settings.register_profile("stackalign", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("stackalign")

#: files that are begun with, in this order. Each compiles much that the others do not, and much that all later files
#: call: two processes that come to the same method at once compile the same functions, each for itself. So while the
#: first compiles cross-correlation, the other has work that needs none of it; windows wait only so long for a method
FIRST = (
    "tests/accuracy/test_cross_correlation.py",
    "tests/accuracy/test_particles.py",
    "tests/core/multimodal/test_borders.py",
    "tests/test_package.py",
    "tests/accuracy/test_reals.py",
    "tests/accuracy/test_lucas_kanade.py",
)


def _unit(nodeid: str) -> str:
    """Return what runs in one process: a file, for its fixtures, or all windows, which share a screen and its focus."""
    path = nodeid.split("::")[0]
    return "tests/gui" if path.startswith("tests/gui/") else path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what compiles most, and then with the windows, the longest unit."""
    ranks = {path: rank for rank, path in enumerate((*FIRST, "tests/gui"))}
    items.sort(key=lambda item: ranks.get(_unit(item.nodeid), len(ranks)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out units whole and in order (marks of ``xdist_group`` have no effect in pytest 9.2 with xdist 3.8)."""
    from xdist.scheduler import LoadScopeScheduling

    class ByUnit(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _unit(nodeid)

    config.option.loadscopereorder = False
    return ByUnit(config, log)
