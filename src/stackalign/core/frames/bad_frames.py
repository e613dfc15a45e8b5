"""Frames that only their neighbours give away: half read, torn, out of focus, or a copy of the frame before.

Each frame is read once and reduced to a few numbers. A verdict needs a clear step against the other frames, of several
times their own scatter and of a size that no drift makes: a frame that is merely different is left to the method.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.frame_check import check_frame, content, read_frame
from stackalign.core.frames.reduction import as_read, stacked
from stackalign.core.threads import batches, map_frames
from stackalign.core.work import Progress

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

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
_LEAST_SIDE = 64  # pixels: in smaller frames detail of 8 px tells nothing


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
    some = batches(range(count), stack.frame_bytes)
    for batch, found in zip(some, map_frames(partial(_traits if neighbours else _reasons, stack), some), strict=True):
        traits += found
        yield Progress(batch[-1] + 1, count, "Looking for bad frames")
    bad = {t: f.reason for t, f in enumerate(traits) if f.reason}
    rest = [t for t in range(count) if t not in bad]
    if neighbours and len(rest) >= _LEAST:
        for check in (_half_read, _torn, _defocused):
            bad |= {t: why for t, why in check(traits, rest).items() if t not in trusted}
            rest = [t for t in rest if t not in bad]
        bad |= {t: why for t, why in _duplicates(stack, traits, rest).items() if t not in trusted}
    return dict(sorted(bad.items()))


def _reasons(stack: ImageStack, frames: Sequence[int]) -> list[_Traits]:
    return [_Traits(read_frame(stack, t)[1]) for t in frames]


def _traits(stack: ImageStack, frames: Sequence[int]) -> list[_Traits]:
    """Read some frames and reduce each to what is kept of it."""
    found: dict[int, _Traits] = {}
    images: dict[int, NDArray[Any]] = {}
    for t in frames:
        frame, reason = read_frame(stack, t, checked=True)
        image = np.asarray(frame)
        if not reason and image.dtype.kind == "f" and not (known := np.isfinite(image)).all():
            reason = check_frame(image)
            if not reason:
                image = np.where(known, image, image.dtype.type(image[known].mean()))
        elif not reason and image.dtype.itemsize > 2:
            reason = check_frame(image)  # float32, as the kernels read it, might not tell its values apart
        if reason:
            found[t] = _Traits(reason)
        else:
            images[t] = as_read(image.view(np.uint8) if image.dtype.kind == "b" else image)
    if images:
        found |= zip(images, _measured(stacked(list(images.values())), stack.dtype), strict=True)
    return [found[t] for t in frames]


def _measured(frames: NDArray[Any], dtype: np.dtype[Any]) -> list[_Traits]:
    """Return what is kept of frames (n, ...) that came in this dtype; blank and saturated ones are said to be so."""
    from stackalign.core.frames import detail_kernels as kernels

    n, plane = len(frames), frames.ndim == 3
    frames = frames.reshape(n, -1, *frames.shape[-2:])
    depth, height, width = frames.shape[1:]
    strip = apart = rows = 0
    columns = width // 8 // max(width // 8 // _THUMB, 1)
    if min(height, width) >= _LEAST_SIDE:
        if height // (2 * _STRIP) > 3:  # every other strip of rows tells as much, in half the time
            strip, apart, rows = _STRIP, 2 * _STRIP, depth * (height // (2 * _STRIP))
        else:
            strip, apart, rows = height, height, depth * (height // 8 // max(height // 8 // _THUMB, 1))
    told, thumbs = np.zeros((n, 11)), np.empty((n, rows, columns), np.float32)
    top = float(np.iinfo(dtype).max) if dtype.kind in "ui" else np.inf
    kernels.frame_traits(frames, top, max(width // _COLUMNS, 1), plane, strip, apart, told, thumbs)
    traits = []
    for row, thumb in zip(told.tolist(), thumbs, strict=True):
        low, high, at_high, still, tear, at, energy, *energies, noise = row
        reason = content(low, high, at_high / (depth * height * width), dtype)
        sharpness, detail = _scales(energies, noise) if rows else ((), ())
        traits.append(
            _Traits(reason)
            if reason
            else _Traits(
                "", (energy, *detail), int(still), depth * height, tear, int(at), sharpness, detail, thumb.copy()
            )
        )
    return traits


def _scales(energies: Sequence[float], noise: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return detail of 2 and 4 px against that of 8 px, and as it is, both as energies less the noise."""
    # white noise of variance v leaves 4 v / b^2 in the squared differences along both axes of blocks of b pixels
    fine, middle, coarse = (e - 4 * noise / size**2 for e, size in zip(energies, (2, 4, 8), strict=True))
    if coarse <= 0:
        return (0.0, 0.0), (0.0, 0.0)
    return (fine / coarse, middle / coarse), (fine, middle)


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
        left = np.maximum(sharp[:, k], 0)  # detail fainter than its noise may come out below nothing
        gone = (usual - left > _SCATTER * scatter) & (left < _FAINT * usual)
        gone &= detail[:, k] < 1.5 * _FAINT * before
        for i in np.flatnonzero(gone).tolist():
            others = [frames[j] for j in range(max(i - 6, 0), min(i + 7, len(frames))) if not gone[j]]
            alike = max((_alike(traits[frames[i]].thumb, traits[t].thumb) for t in others), default=0.0)
            if alike > _SAME_VIEW:
                share = float(left[i] / usual[i])
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
    from scipy.ndimage import median_filter

    usual = np.asarray(median_filter(values, size, mode="mirror"), np.float64)
    return usual, 1.4826 * float(np.median(np.abs(values - usual)))


def _alike(a: NDArray[np.float32] | None, b: NDArray[np.float32] | None) -> float:
    if a is None or b is None or a.shape != b.shape or a.size < 9:
        return 0.0
    x, y = a.ravel() - a.mean(), b.ravel() - b.mean()
    below = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / below if below > 0 else 0.0
