"""Hypothesis and parallel runs: the same examples every time, one window at a time."""

import pytest
from hypothesis import settings

# no deadline: a first example pays for imports and compilation
settings.register_profile("stackalign", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("stackalign")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep each file in one worker, for its fixtures, and all windows in one: they share a screen and its focus."""
    for item in items:
        parts = item.path.parts
        group = "windows" if "gui" in parts else "/".join(parts[-2:])
        item.add_marker(pytest.mark.xdist_group(group))
