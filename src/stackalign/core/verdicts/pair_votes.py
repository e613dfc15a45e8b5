"""Where frames lie by what their blocks vote for in pairs: a beginning for movies whose mean is of something else.

Of two frames that show the same, most blocks agree on one shift, whatever walks through both. Where most pairs vote for
other shifts than were found, frames are joined to groups, those first on whose shift most blocks agree, all pairs
between two groups together (average linkage): what walks through may have the most votes in a few pairs, as of frames
before and after a jump, but moves from pair to pair. Only votes for a large overlap count: of a small one, few blocks
vote, and scenes have parts that look alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.frames.reduction import binned, reduction
from stackalign.core.generators import moved_points
from stackalign.core.geometry import centre
from stackalign.core.run_state import spread
from stackalign.core.threads import map_ahead
from stackalign.core.transform import Transform
from stackalign.core.verdicts.block_votes import COMPARED, Ballot, can_vote
from stackalign.core.verdicts.cell_evidence import View, areas
from stackalign.core.verdicts.clearing import walked_through
from stackalign.core.verdicts.continuity import followed_others

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from stackalign.core.run_state import RunState
    from stackalign.core.work import Work

    Array = NDArray[np.float64]
    Links = dict[int, dict[int, "_Link"]]

_FRAMES = 60  # that vote
_ASKED, _MORE = (3, 5), (1, 2, 8, 13)  # frames of the sample between those of a pair that is asked first; after that
_LEAST = 0.5  # of the blocks that lie on each other, on average over the pairs, that must agree,
_CLEARLY = 0.1  # and more than on any other shift
_SAME = 3.0  # reduced pixels: votes for one shift
_IN_VIEW = 0.65  # of a frame, that must lie on the other
_GROUP = 0.25  # of the frames that must be in one group
_PAIRS = 5  # at least, that vote otherwise
_COMPARE = 8  # frames in which the areas are compared that either motion follows


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
        Aligned; its results and details are replaced if more frames are found then, or a larger area looks like them.
    again : callable
        Aligns the frames of a run from its ``starts``.
    """
    if not can_vote(run):
        return
    found, _, followed = followed_others(run)
    if followed <= found and not walked_through(run):
        return
    factors = reduction(run.stack.frame_shape, COMPARED)
    small = {t: binned(np.asarray(run.load(t), np.float32), factors) for t in spread(run.usable(), _FRAMES)}
    links = yield from _links(run, small, _ASKED)
    if followed <= found and not _otherwise(run, links, factors):
        return
    for t, more in (yield from _links(run, small, _MORE)).items():
        links[t] |= more
    places = _grouped(links, _SAME)
    if len(places) < _GROUP * len(small):
        return
    twin = run.anew()
    twin.starts = {t: Transform.from_translation(place * factors).matrix for t, place in places.items()}
    yield from again(twin)
    if twin.good().sum() > found if followed > found else _larger(run, twin):
        run.become(twin)


def _links(run: RunState, small: Mapping[int, NDArray[np.float32]], lags: Sequence[int]) -> Work[Links]:
    """Return what pairs of reduced frames vote for, reduced pixels, both ways round."""
    frames = list(small)
    size = np.asarray(small[frames[0]].shape)
    ballots = {t: Ballot.of(image) for t, image in small.items()}
    links: Links = {t: {} for t in frames}
    pairs = [(a, b) for lag in lags for a, b in zip(frames, frames[lag:], strict=False)]

    def link(pair: tuple[int, int]) -> _Link:
        votes = ballots[pair[0]].places(small[pair[1]])
        shifts = np.array([place.shift for place in votes], float).reshape(-1, 2)
        view = np.prod(np.maximum(1 - np.abs(shifts) / size, 0), axis=1)
        near = view >= _IN_VIEW
        shares = np.array([place.supporters.mean() for place in votes])
        return _Link(shifts[near], shares[near] / view[near], 1)

    for done, ((a, b), found) in enumerate(zip(pairs, map_ahead(link, pairs), strict=True)):
        links[a][b], links[b][a] = found, found.turned()
        yield run.progress(done + 1, len(pairs), "Comparing blocks of frames in pairs")
    return links


def _otherwise(run: RunState, links: Links, factors: tuple[int, ...]) -> bool:
    """Return whether most pairs of frames vote for other motions than the run has."""
    places, middle = run.places(), centre(run.stack.frame_shape)
    agree = differ = 0
    for a, others in links.items():
        for b, link in others.items():
            share, shift = link.best(_SAME)
            if a < b and share >= _LEAST and a in places and b in places:
                way = moved_points(np.linalg.inv(places[a]) @ places[b], middle[None])[0] - middle
                other = np.abs(way / factors - shift).max() > _SAME
                agree, differ = agree + (not other), differ + other
    return differ > agree and differ >= _PAIRS


def _larger(run: RunState, twin: RunState) -> bool:
    """Return whether a larger area of frames that both runs have looks like what the twin follows."""
    both = np.flatnonzero(run.good() & twin.good()).tolist()
    if not both:
        return False
    area, other = areas(run, twin, View.of(run, spread(both, _COMPARE)))
    return other > area


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
