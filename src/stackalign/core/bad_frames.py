"""Frames that only their neighbours give away: half read, torn, out of focus, or a copy of the frame before.

Each frame is read once and reduced to a few numbers. A verdict needs a clear step against the other frames, of several
times their own scatter and of a size that no drift makes: a frame that is merely different is left to the method.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import median_filter

from stackalign.core.frame_check import read_frame
from stackalign.core.reduction import as_read, binned
from stackalign.core.threads import map_frames
from stackalign.core.work import Progress

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from stackalign.core.stack import ImageStack
    from stackalign.core.work import Work

_LEAST = 4  # frames: fewer say nothing about what is usual
_COLUMNS = 128  # columns of a frame that are compared from row to row
_ROWS_LOST = 0.2  # share of the rows; less may be the border that an earlier alignment left
_TORN = np.log(2.0)  # a tear is as much stronger than what any row differs from the next
_FAINT = 1 / 3  # share of the usual fine detail that is left of it, at most
_SAME_VIEW = 0.8  # correlation of coarse images that show the same
_SCATTER = 8.0  # standard deviations of the other frames
_WINDOW = 31  # frames whose median is what is usual: a focus that drifts slowly is not a bad frame
_THUMB = 8  # pixels along each side of a coarse image
_STRIP = 32  # rows


@dataclass(frozen=True, slots=True, eq=False)
class _Traits:
    """What is kept of a frame."""

    reason: str
    signature: tuple[float, ...] = ()  # the same for the same frame, and hardly ever for another
    still_rows: int = 0  # rows at the upper or lower end that repeat their neighbour to the last bit
    rows: int = 1
    tear: float = 0.0  # log of the strongest step between two rows over that of the rows around it
    tear_at: int = 0
    sharpness: tuple[float, ...] = ()  # energy of detail of 2 and of 4 px over that of 8 px, less that of the noise
    detail: tuple[float, ...] = ()  # energy of detail of 2 and of 4 px, less that of the noise
    thumb: NDArray[np.float32] | None = None


def find_bad_frames(
    stack: ImageStack, *, trusted: Collection[int] = (), neighbours: bool = True
) -> Work[dict[int, str]]:
    """Return why frames cannot be aligned, by frame number.

    Parameters
    ----------
    stack : ImageStack
        The frames.
    trusted : collection of int
        Frames that are refused only if they hold nothing at all: those that a user named.

    neighbours : bool
        Compare frames; without, only those that hold nothing are found.

    Yields
    ------
    Progress
        Frame by frame.

    Returns
    -------
    dict of int to str
        Missing, unreadable, blank, saturated (what `read_frame` says), half read, torn, out of focus, duplicated.
    """
    count = len(stack)
    traits: list[_Traits] = []
    for done, found in enumerate(map_frames(partial(_traits if neighbours else _reason, stack), range(count)), start=1):
        traits.append(found)
        yield Progress(done, count, "Looking for bad frames")
    bad = {t: f.reason for t, f in enumerate(traits) if f.reason}
    rest = [t for t in range(count) if t not in bad]
    if neighbours and len(rest) >= _LEAST:
        for check in (_half_read, _torn, _defocused):
            bad |= {t: why for t, why in check(traits, rest).items() if t not in trusted}
            rest = [t for t in rest if t not in bad]
        bad |= {t: why for t, why in _duplicates(stack, traits, rest).items() if t not in trusted}
    return dict(sorted(bad.items()))


def _reason(stack: ImageStack, t: int) -> _Traits:
    return _Traits(read_frame(stack, t)[1])


def _traits(stack: ImageStack, t: int) -> _Traits:
    frame, reason = read_frame(stack, t)
    if reason:
        return _Traits(reason)
    image = np.asarray(frame)
    if image.dtype.kind == "f" and not (known := np.isfinite(image)).all():
        image = np.where(known, image, image.dtype.type(image[known].mean()))
    if image.dtype.kind == "b":
        image = image.view(np.uint8)
    from stackalign.core.detail_kernels import row_steps

    lines = as_read(image).reshape(-1, image.shape[-1])
    still, tear, at, energy = row_steps(lines, max(image.shape[-1] // _COLUMNS, 1), image.ndim == 2)
    sharpness, detail, thumb = _scales(image)
    return _Traits("", (energy, *detail), still, len(lines), tear, at, sharpness, detail, thumb)


def _scales(image: NDArray[Any]) -> tuple[tuple[float, ...], tuple[float, ...], NDArray[np.float32]]:
    """Return detail of 2 and 4 px against that of 8 px, both as energies less the noise, and a coarse image."""
    if min(image.shape[-2:]) < 64:
        return (), (), np.empty(0, np.float32)
    if (count := image.shape[-2] // (2 * _STRIP)) > 3:  # every other strip of rows tells as much, in half the time
        strips = image[..., : count * 2 * _STRIP, :].reshape(*image.shape[:-2], count, 2 * _STRIP, image.shape[-1])
        image = strips[..., :_STRIP, :]
    from stackalign.core.detail_kernels import detail

    planes = np.ascontiguousarray(image, np.float32).reshape(-1, *image.shape[-2:])
    energies, noise, eight = detail(planes)
    # white noise of variance v leaves 4 v / b^2 in the squared differences along both axes of blocks of b pixels
    fine, middle, coarse = (float(e) - 4 * noise / size**2 for e, size in zip(energies, (2, 4, 8), strict=True))
    height, width = eight.shape[-2:]
    rows = height if count > 3 else max(height // _THUMB, 1)
    thumb = binned(eight, (1, rows, max(width // _THUMB, 1)))
    thumb = thumb.reshape(-1, thumb.shape[-1])
    if coarse <= 0:
        return (0.0, 0.0), (0.0, 0.0), thumb
    return (fine / coarse, middle / coarse), (fine, middle), thumb


def _half_read(traits: list[_Traits], frames: list[int]) -> dict[int, str]:
    """Rows at one end repeat to the last bit, many more than in the other frames."""
    still = np.array([traits[t].still_rows / traits[t].rows for t in frames])
    usual = float(np.median(still))
    return {
        t: f"half read: {s:.0%} of its rows repeat the row beside them"
        for t, s in zip(frames, still, strict=True)
        if s > usual + _ROWS_LOST
    }


def _torn(traits: list[_Traits], frames: list[int]) -> dict[int, str]:
    """Two neighbouring rows differ as none do in the other frames: below, rows are shifted or of another frame."""
    tears = np.array([traits[t].tear for t in frames])
    usual, scatter = _usual(tears)
    limit = usual + np.maximum(_SCATTER * scatter, _TORN)
    return {
        t: f"torn at row {traits[t].tear_at}: half read, or read while it changed"
        for t, tear, bound in zip(frames, tears, limit, strict=True)
        if tear > max(bound, _TORN)
    }


def _defocused(traits: list[_Traits], frames: list[int]) -> dict[int, str]:
    """Fine detail is gone while the coarse image stays what it is in the frames around."""
    if not all(traits[t].sharpness for t in frames):
        return {}
    sharp, detail = (np.array([getattr(traits[t], name) for t in frames]) for name in ("sharpness", "detail"))
    found: dict[int, str] = {}
    for k in range(sharp.shape[1]):
        usual, scatter = _usual(sharp[:, k])
        before, _ = _usual(detail[:, k])
        gone = (usual - sharp[:, k] > _SCATTER * scatter) & (sharp[:, k] < _FAINT * usual)
        gone &= detail[:, k] < 1.5 * _FAINT * before
        for i in np.flatnonzero(gone).tolist():
            others = [frames[j] for j in range(max(i - 6, 0), min(i + 7, len(frames))) if not gone[j]]
            alike = max((_alike(traits[frames[i]].thumb, traits[t].thumb) for t in others), default=0.0)
            if alike > _SAME_VIEW:
                share = max(float(sharp[i, k] / usual[i]), 0.0)
                found[frames[i]] = f"out of focus: {share:.0%} of the fine detail of the frames around it"
    return found


def _duplicates(stack: ImageStack, traits: list[_Traits], frames: list[int]) -> dict[int, str]:
    """The same as the frame before, to the last bit, in a movie where that is rare.

    Where it is not, frames are drawn or held on purpose: there a copy says nothing.
    """
    known = set(frames)
    same = [t for t in frames if t - 1 in known and traits[t].signature == traits[t - 1].signature]
    if not same or len(same) > max(1, len(frames) // 10):
        return {}
    return {
        t: f"duplicated: the same as frame {t - 1} to the last bit"
        for t in same
        if np.array_equal(np.asarray(stack[t]), np.asarray(stack[t - 1]))
    }


def _usual(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return the running median, and the robust scatter of all values about it."""
    size = min(_WINDOW, len(values) - (len(values) + 1) % 2)
    usual = np.asarray(median_filter(values, size, mode="mirror"), np.float64)
    return usual, 1.4826 * float(np.median(np.abs(values - usual)))


def _alike(a: NDArray[np.float32] | None, b: NDArray[np.float32] | None) -> float:
    if a is None or b is None or a.shape != b.shape or a.size < 9:
        return 0.0
    x, y = a.ravel() - a.mean(), b.ravel() - b.mean()
    below = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / below if below > 0 else 0.0
