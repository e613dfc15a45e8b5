"""Movies that jump, darken, lose frames or are crossed by an object: no frame is wrong in silence."""

from __future__ import annotations

import pytest
from tests.benchmarks.robustness import movie, outcome

import stackalign as sa


@pytest.mark.parametrize(
    ("kind", "scene"),
    [("jumps", "camera"), ("blank", "gravel"), ("brightness", "coins"), ("object", "gravel"), ("object", "camera")],
)
def test_no_frame_is_wrong_in_silence(kind, scene):
    shown = movie(kind, scene, 1, count=20, size=144, rotation=3.0)
    found = outcome(shown, sa.register(shown.frames, sa.LucasKanade()))
    assert found["unseen"] == []
    assert len(found["needless"]) == 0, found["reasons"]
    assert found["worst"] < 1.0
