"""The sizes at which frames are aligned: halved as long as there is enough to see, thin axes left alone."""

from __future__ import annotations

import pytest

from stackalign.core.lowrank.solver import _levels


@pytest.mark.parametrize(
    ("shape", "wanted", "ladder"),
    [
        ((95, 400), None, [(1, 1)]),
        ((96, 400), None, [(2, 2), (1, 1)]),
        ((512, 512), None, [(8, 8), (4, 4), (2, 2), (1, 1)]),
        ((512, 512), 2, [(2, 2), (1, 1)]),
        ((60, 60), 5, [(1, 1)]),  # more than there are
        # volumes: z is halved as long as sixteen planes remain
        ((1, 256, 512), None, [(1, 4, 4), (1, 2, 2), (1, 1, 1)]),
        ((31, 256, 512), None, [(1, 4, 4), (1, 2, 2), (1, 1, 1)]),
        ((32, 256, 512), None, [(2, 4, 4), (2, 2, 2), (1, 1, 1)]),
        ((48, 256, 512), None, [(2, 4, 4), (2, 2, 2), (1, 1, 1)]),
        ((64, 256, 512), None, [(4, 4, 4), (2, 2, 2), (1, 1, 1)]),
    ],
)
def test_sizes(shape, wanted, ladder):
    assert _levels(shape, wanted) == ladder
