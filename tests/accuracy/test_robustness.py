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


def test_a_faint_scene_that_jumps_is_found_again():
    """No peak of its correlation stands out, as smooth images correlate everywhere; where it fits best it agrees."""
    shown = movie("jumps", "retina", 22)
    result = sa.register(shown.frames, sa.CrossCorrelation())
    assert not result.quality.flagged.any()
    assert outcome(shown, result)["unseen"] == []


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "scene"), [("all", "retina"), ("object", "camera")])
def test_what_walks_through_is_told_from_the_scene_by_its_outline(kind, scene):
    """Cells could not tell which of two motions has the larger part of the field, or said the wrong one."""
    shown = movie(kind, scene, 42)
    found = outcome(shown, sa.register(shown.frames, sa.CrossCorrelation()))
    assert found["unseen"] == []
    assert len(found["refused"]) <= 5
