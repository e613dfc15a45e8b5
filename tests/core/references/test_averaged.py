"""Frames that show different parts of a scene pull each other over many rounds; begun together they need few."""

from __future__ import annotations

import numpy as np

import stackalign as sa
from stackalign.core.references.averaged import align_to_average
from stackalign.core.references.reference import Reference
from stackalign.core.run_state import RunState
from stackalign.core.stack import ImageStack
from stackalign.core.verdicts.joining import begin_together

SIDE, SEEN, GAP = 128, 72, 0.3


def halves():
    """Return a run of frames at rest, of which every other one shows the left or the right, begun ``GAP`` px apart."""
    stack, _ = sa.simulate(scene="texture", shape=(SIDE, SIDE), frames=1, amplitude=0.0, photons=200, seed=4)
    clean = np.asarray(stack[0], float)
    frames = np.random.default_rng(0).poisson(np.tile(clean, (12, 1, 1))).astype(np.uint16)
    run = RunState(ImageStack.of(frames), sa.CrossCorrelation().aligner(), Reference("mean"), None, None)

    def hidden(t, frame):
        frame = np.array(frame, np.float32)
        frame[:, slice(SEEN, None) if t % 2 else slice(SIDE - SEEN)] = np.nan
        return frame

    run.hidden = hidden
    for t in range(len(frames)):
        run.starts[t] = np.eye(3)
        run.starts[t][0, 2] = GAP / 2 * (-1) ** t
    return run


def gap(matrices):
    """Return how far the halves lie apart, px."""
    y = np.array(matrices)[:, 0, 2]
    return float(abs(y[::2].mean() - y[1::2].mean()))


def test_all_frames_together_begin_where_the_rounds_end():
    run = halves()
    list(align_to_average(run))
    for t, r in enumerate(run.results):  # as if the rounds had stopped early
        r.matrix[0, 2] += GAP / 2 * (-1) ** t
    list(begin_together(run))
    assert run.results == [None] * 12
    assert gap([run.starts[t] for t in range(12)]) < 0.02
    list(align_to_average(run))
    assert gap(run.matrices()) < min(float(r.error[0]) for r in run.results)
    assert run.details["rounds"] <= 3
