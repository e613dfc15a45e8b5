from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def movie(rng):
    """(t, y, x) uint16, not square."""
    return rng.integers(0, 60000, (6, 24, 40), dtype=np.uint16)


@pytest.fixture
def shared():
    folder = Path(__file__).parents[2] / ".." / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets are not in ../shared/data")
    return folder
