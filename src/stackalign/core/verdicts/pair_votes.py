"""Where frames lie by what their blocks vote for in pairs: a beginning for movies of which no mean can be begun.

Of two frames that show the same, most blocks agree on one shift, whatever walks through both. Frames are joined to
groups, those first on whose shift most blocks agree, all pairs between two groups together (average linkage): what
walks through may have the most votes in a few pairs, as of frames before and after a jump, but moves from pair to pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.run_state import RunState, spread
from stackalign.core.verdicts.block_votes import LEAST_SIDE, Ballot
from stackalign.core.verdicts.continuity import followed_others

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from stackalign.core.work import Work

    Array = NDArray[np.float64]

_FRAMES = 60  # that vote
_LAGS = (1, 2, 3, 5, 8, 13)  # frames of the sample between those of a pair
_LEAST = 0.5  # of the blocks that lie on each other, on average over the pairs, that must agree,
_CLEARLY = 0.1  # and more than on any other shift
_SAME = 3.0  # reduced pixels: votes for one shift
_LEAST_IN_VIEW = 0.25  # of a frame
_GROUP = 0.25  # of the frames that must be in one group


@dataclass(frozen=True, slots=True, eq=False)
class _Link:
    """What pairs of frames of two groups say: where the origin of the second lies in the first."""

    shifts: Array  # (n, 2)
    shares: Array  # (n,), of the blocks that lie on each other
    pairs: int

    def moved(self, by: Array) -> _Link:
        return _Link(self.shifts + by, self.shares, self.pairs)

    def turned(self) -> _Link:
        return _Link(-self.shifts, self.shares, self.pairs)

    def with_(self, other: _Link | None) -> _Link:
        if other is None:
            return self
        shares = np.concatenate([self.shares, other.shares])
        return _Link(np.concatenate([self.shifts, other.shifts]), shares, self.pairs + other.pairs)

    def best(self, same: float) -> tuple[float, Array]:
        """Return the share of blocks that agree on the best shift, on average; 0 if another one is nearly as good."""
        if not len(self.shares):
            return 0.0, np.zeros(2)
        apart = np.abs(self.shifts[:, None] - self.shifts[None]).max(-1)
        total = (apart <= same) @ self.shares / self.pairs
        k = int(np.argmax(total))
        second = total[apart[k] > 2 * same].max(initial=0.0)
        shift = np.asarray(np.median(self.shifts[apart[k] <= same], axis=0))
        return (float(total[k]) if total[k] - second >= _CLEARLY else 0.0), shift


def begin_by_votes(run: RunState, again: Callable[[RunState], Work[None]]) -> Work[None]:
    """Align frames again from where pairs of them vote, where most followed something else than the scene.

    Parameters
    ----------
    run : RunState
        Aligned; its results and details are replaced if more frames are found.
    again : callable
        Aligns the frames of a run from its ``starts``.
    """
    found, _, followed = followed_others(run)
    if (
        followed <= found
        or run.policy.kind not in ("mean", "median")
        or run.stack.ndim != 2
        or run.mask is not None
        or min(run.stack.frame_shape) < LEAST_SIDE
    ):
        return
    frames = spread(run.usable(), _FRAMES)
    places = yield from voted(run, frames)
    if len(places) < _GROUP * len(frames):
        return
    twin = RunState(run.stack, run.aligner, run.policy, run.anchor, None, unusable=run.unusable)
    twin.starts = places
    yield from again(twin)
    if twin.good().sum() > run.good().sum():
        run.results, run.details, run.noise, run.brightness = twin.results, twin.details, twin.noise, twin.brightness


def voted(run: RunState, frames: Sequence[int]) -> Work[dict[int, Array]]:
    """Return where the frames of the largest group lie by each other, (3, 3) each; the others are not known."""
    ballots: dict[int, Ballot] = {}
    for t in frames:
        ballots[t] = Ballot.of(np.asarray(run.load(t), np.float32))
    size = np.asarray(run.stack.frame_shape)
    links: dict[int, dict[int, _Link]] = {t: {} for t in frames}
    pairs = sorted({
        (min(a, b), max(a, b))
        for lag in _LAGS
        for k, a in enumerate(frames)
        if (b := frames[(k + lag) % len(frames)]) != a
    })  # fmt: skip
    for done, (a, b) in enumerate(pairs):
        votes = ballots[b].places(run.load(a))
        shifts = np.array([p.shift for p in votes], float).reshape(-1, 2)
        view = np.prod(np.maximum(1 - np.abs(shifts) / size, 0), axis=1)
        shares = np.array([p.supporters.mean() for p in votes]) / np.maximum(view, _LEAST_IN_VIEW)
        links[a][b] = _Link(-shifts, shares, 1)
        links[b][a] = links[a][b].turned()
        yield run.progress(done + 1, len(pairs), "Comparing blocks of frames in pairs")
    places = _grouped(links, _SAME * max(ballots[frames[0]].factors))
    out = {}
    for t, place in places.items():
        out[t] = np.eye(3)
        out[t][:2, 2] = place
    return out


def _grouped(links: dict[int, dict[int, _Link]], same: float) -> dict[int, Array]:
    """Join frames to groups, in place; returns where those of the largest lie (2,)."""
    groups = {t: {t: np.zeros(2)} for t in links}
    told = {(a, b): link.best(same) for a in links for b, link in links[a].items() if a < b}
    while told:
        (a, b), (share, shift) = max(told.items(), key=lambda item: item[1][0])
        if share < _LEAST:
            break
        groups[a] |= {t: place + shift for t, place in groups.pop(b).items()}
        for c, link in links.pop(b).items():
            del links[c][b]
            if c == a:
                continue
            links[a][c] = link.moved(shift).with_(links[a].get(c))
            links[c][a] = links[a][c].turned()
        told = {pair: best for pair, best in told.items() if a not in pair and b not in pair}
        told |= {(min(a, c), max(a, c)): links[min(a, c)][max(a, c)].best(same) for c in links[a]}
    return max(groups.values(), key=len)
