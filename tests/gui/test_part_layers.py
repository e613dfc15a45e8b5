"""Layers of a joint alignment: the low-rank and the sparse part, where and how they are shown."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stackalign.core.lowrank.registrar import Reals
from stackalign.widgets._part_layers import part_layers, parts_of


def test_a_joint_alignment_offers_its_parts(viewer: Any, panel: Any, align: Any, qtbot: Any) -> None:
    align()
    assert not panel.parts.isVisibleTo(panel)  # another method has none
    assert not panel.result.loss.isVisibleTo(panel)
    with pytest.raises(ValueError, match="align with REALS first"):
        part_layers(panel.session.current, viewer.layers["movie"])
    panel.session.change(registrar=Reals(model="translation"))
    live = []
    panel.runner.progressed.connect(lambda _: live.append(len(panel.result.loss.loss)))
    panel.run.button.click()
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=60_000)
    assert max(live) > 0  # while it ran
    loss = panel.session.current.registration.details["loss"]
    assert panel.result.loss.isVisibleTo(panel)
    assert panel.result.loss.loss == loss
    cancelled = replace(panel.session.current, complete=False)
    assert cancelled.sentence == f"Cancelled after round {len(loss)}: 8 frames aligned, but they had not come to rest."
    assert panel.parts.isVisibleTo(panel)
    panel.parts.click()
    names = [layer.name for layer in viewer.layers]
    assert names == ["movie", "movie [low-rank]", "movie [sparse]"]
    source, low, sparse = viewer.layers
    assert not source.visible
    for layer in (low, sparse):
        assert layer.data.dtype == np.float32
        assert np.allclose(layer.scale, source.scale)
        assert np.allclose(layer.translate, source.translate)
        assert tuple(layer.axis_labels) == ("t", "y", "x")
    assert sparse.contrast_limits[0] == -sparse.contrast_limits[1]
    parts = parts_of(panel.session.current)
    assert np.allclose(np.asarray(low.data[2]), parts.low_rank[2], equal_nan=True)
    # the scene of the test stays the same: there is little that is sparse
    assert sparse.contrast_limits[1] < 0.3 * (low.contrast_limits[1] - low.contrast_limits[0])
    panel.session.edit_transforms("smooth", panel.session.current.registration.transforms.smoothed(2.0))
    assert not panel.parts.isVisibleTo(panel)  # the parts belong to the transforms that were found
