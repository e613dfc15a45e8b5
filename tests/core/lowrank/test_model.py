"""What frames tell of their own rounding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackalign.core.lowrank.model import rounding


@given(st.integers(0, 100), st.sampled_from([1.0, 0.1, 16.0, 1e-4]), st.sampled_from([np.float32, np.float64]))
def test_the_step_between_values_is_found(seed, step, dtype):
    frame = np.random.default_rng(seed).poisson(20, (60, 70)) * step
    assert rounding(frame.astype(dtype)) == pytest.approx(step / np.sqrt(12), rel=1e-2)


def test_one_bit_and_what_is_not_rounded():
    rng = np.random.default_rng(0)
    assert rounding(rng.random((50, 60)) > 0.5) == pytest.approx(1 / np.sqrt(12))
    assert rounding(rng.random((50, 60)).astype(np.float32)) == 0
    assert rounding(np.full((50, 60), 7, np.uint8)) == 0
    assert rounding(np.full((50, 60), np.nan)) == 0
    assert rounding(np.where(rng.random((50, 60)) > 0.5, 0.0, np.where(rng.random((50, 60)) > 0.5, 1.0, 1.37))) == 0
