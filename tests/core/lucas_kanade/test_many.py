"""Frames that are aligned in one go lie where each does that is aligned alone."""

from __future__ import annotations

import numpy as np

import stackalign as sa
from stackalign.core.lucas_kanade.fit import fit_motion, fit_motions
from stackalign.core.lucas_kanade.registrar import LucasKanade
from stackalign.core.references.reference import ManyAligner


def test_frames_in_one_go_lie_where_each_lies_alone() -> None:
    made = sa.simulate(scene="cells", shape=(96, 112), frames=8, motion="uniform", amplitude=4.0, rotation=2.0, seed=3)
    frames = [np.asarray(frame, np.float32) for frame in made.stack.asarray()]
    frames[2][30:34, 40:50] = np.nan  # holes
    frames[5][:] = np.nan
    frames[6][10, 10] = 1e5  # an outlier: robust weights
    aligner = LucasKanade(model="euclidean").aligner((96, 112))
    assert isinstance(aligner, ManyAligner)
    template = aligner.prepare(frames[0], None)
    starts = [None, np.eye(3)] * 4
    together = aligner.align_many(frames, template, starts)
    for k, (frame, start) in enumerate(zip(frames, starts, strict=True)):
        alone = aligner.align(frame, template, start)
        assert together[k].reason == alone.reason
        np.testing.assert_allclose(together[k].matrix, alone.matrix, atol=1e-7)
        np.testing.assert_allclose(together[k].error, alone.error, rtol=1e-5)
    assert bool(together[5].reason)
    assert sum(not r.reason for r in together) >= 6
    fits = fit_motions(frames, template.full, [r.matrix for r in together], robust="tukey")
    assert fits[5] == "all its pixels are NaN"
    assert fits[5] == fit_motion(frames[5], template.full, np.eye(3))
