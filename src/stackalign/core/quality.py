"""Before and after an alignment, measured on the same pixels: those that every aligned frame covers.

"Before" is the do-nothing baseline. Both are measured on one box of pixels, so that borders that move out flatter
neither; frames without a valid transform count in neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.frame_check import read_frame
from stackalign.core.geometry import Box
from stackalign.core.piecewise.series import PiecewiseSeries
from stackalign.core.stack import ImageStack
from stackalign.core.threads import map_ahead
from stackalign.core.warping.region import common_box
from stackalign.core.warping.resample import warp_frame, warp_sources
from stackalign.core.work import Progress, drain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from stackalign.core.transform_series import TransformSeries
    from stackalign.core.work import Work

_SAMPLE_BYTES = 1 << 28
_FEWEST = 4096  # pixels
_LEAST = 16  # pixels along an axis (half of a short one) that the common region must keep; else the worst frames go


@dataclass(frozen=True, slots=True, eq=False)
class Quality:
    """How still a stack is, before and after.

    Attributes
    ----------
    correlation_before, correlation_after : float
        Mean over frames of the Pearson correlation with the mean image.
    crispness_before, crispness_after : float
        Root mean square gradient of the mean image, relative to that before: above 1 is sharper.
    residual_before, residual_after : float
        Root mean square difference of the frames to the mean image, intensity units.
    frame_correlation_before, frame_correlation_after, frame_residual_before, frame_residual_after : ndarray (T,)
        The same frame by frame; NaN where a frame was not measured.
    mean_before, mean_after : ndarray, float32
        Mean images of the region.
    region : Box
        The pixels that were compared, in the reference.
    left_out : tuple of int
        Frames that were not measured.
    """

    correlation_before: float
    correlation_after: float
    crispness_before: float
    crispness_after: float
    residual_before: float
    residual_after: float
    frame_correlation_before: NDArray[np.float64]
    frame_correlation_after: NDArray[np.float64]
    frame_residual_before: NDArray[np.float64]
    frame_residual_after: NDArray[np.float64]
    mean_before: NDArray[np.float32]
    mean_after: NDArray[np.float32]
    region: Box
    left_out: tuple[int, ...] = ()

    @property
    def summary(self) -> dict[str, tuple[float, float]]:
        """Name -> (before, after)."""
        return {
            "correlation with the mean": (self.correlation_before, self.correlation_after),
            "crispness of the mean": (self.crispness_before, self.crispness_after),
            "residual to the mean": (self.residual_before, self.residual_after),
        }

    @property
    def sentence(self) -> str:
        """What came out, for a user."""
        count = len(self.frame_correlation_after) - len(self.left_out)
        sizes = " x ".join(map(str, self.region.shape))
        return (
            f"Correlation with the mean {self.correlation_before:.3f} -> {self.correlation_after:.3f}, crispness"
            f" {self.crispness_before:.2f} -> {self.crispness_after:.2f} ({count} frames, on the same {sizes} pixels)."
        )

    def to_frame(self) -> pd.DataFrame:
        """Return a table with a row a frame."""
        import pandas as pd

        return pd.DataFrame(
            {
                "frame": np.arange(len(self.frame_correlation_after)),
                "correlation_before": self.frame_correlation_before,
                "correlation_after": self.frame_correlation_after,
                "residual_before": self.frame_residual_before,
                "residual_after": self.frame_residual_after,
            }
        )


def measure(
    stack: ImageStack | ArrayLike,
    transforms: TransformSeries,
    *,
    on_progress: Callable[[Progress], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Quality:
    """Measure a stack before and after its alignment; see `measure_work`."""
    return drain(measure_work(stack, transforms), on_progress, should_stop).unwrap()


def measure_work(stack: ImageStack | ArrayLike, transforms: TransformSeries) -> Work[Quality]:
    """Measure how still a stack is, before and after.

    Parameters
    ----------
    stack : ImageStack or array (t, y, x) / (t, z, y, x)
        The frames that move.
    transforms : TransformSeries
        One per frame, moving -> reference.

    Returns
    -------
    Quality
        On the largest box that all valid frames cover. Where less than 16 pixels would be left along an axis (less
        than half of one shorter than 32), the frames that lie farthest away are left out and named.

    Raises
    ------
    ValueError
        If the numbers of frames differ, or no frame is valid.
    """
    source = ImageStack.of(stack)
    if len(transforms) != len(source):
        raise ValueError(f"{len(transforms)} transforms for {len(source)} frames")
    used, box = _region(source.frame_shape, transforms)
    inside = tuple(slice(max(a, 0), b) for a, b in zip(box.start, box.stop, strict=True))
    step = _stride(int(np.prod(box.shape)), len(used))
    total = [np.zeros(box.shape), np.zeros(box.shape)]
    kept: list[int] = []
    samples: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    for done, (t, pair) in enumerate(zip(used, _pairs(source, transforms, used, box, inside), strict=True), start=1):
        if pair is not None:
            kept.append(t)
            for k, image in enumerate(pair):
                total[k] += image
            samples.append((pair[0].ravel()[::step].copy(), pair[1].ravel()[::step].copy()))
        yield Progress(done, len(used), "Measuring before and after")
    if not kept:
        raise ValueError("there is nothing to measure: no frame is valid and readable")
    means = [(part / len(kept)).astype(np.float32) for part in total]
    n = len(source)
    columns = np.full((4, n), np.nan)
    for t, pair in zip(kept, samples, strict=True):
        for k, (frame, mean) in enumerate(zip(pair, means, strict=True)):
            seen = mean.ravel()[::step]
            columns[k, t] = _correlation(frame, seen)
            columns[2 + k, t] = np.sqrt(np.mean((frame - seen) ** 2, dtype=np.float64))
    crisp = [_crispness(mean) for mean in means]
    averages = np.nanmean(columns[:, kept], axis=1) if np.isfinite(columns[:, kept]).any() else np.full(4, np.nan)
    return Quality(
        float(averages[0]), float(averages[1]), 1.0, crisp[1] / crisp[0] if crisp[0] > 0 else 1.0,
        float(averages[2]), float(averages[3]), columns[0], columns[1], columns[2], columns[3], means[0], means[1], box,
        tuple(t for t in range(n) if t not in set(kept)),
    )  # fmt: skip


def _stride(pixels: int, frames: int) -> int:
    """Return the step between pixels that single frames are compared with the mean at.

    All of them where they fit; of a long movie of large frames a regular sample, so that each frame is read once.
    """
    room = max(_SAMPLE_BYTES // (8 * frames), _FEWEST)
    step = max(-(-pixels // room), 1)
    return step + 1 if step > 1 and step % 2 == 0 else step  # an odd step meets all columns of an even frame


def _region(shape: tuple[int, ...], transforms: TransformSeries) -> tuple[list[int], Box]:
    """Return the frames that are measured and the box, inside the frame's own field, that all of them cover."""
    used = [int(t) for t in np.flatnonzero(transforms.valid)] or list(range(len(transforms)))
    places = transforms.translations
    whole = Box.of_shape(shape)
    while True:
        try:
            box = common_box(shape, transforms.selected(used))
            start = np.maximum(box.start, whole.start)
            stop = np.minimum(box.stop, whole.stop)
            least = np.minimum(_LEAST, (np.asarray(shape) + 1) // 2)
            if (stop - start >= least).all() or len(used) == 1:
                return used, Box(*np.column_stack([start, stop]).ravel())
        except ValueError:
            if len(used) == 1:
                return used, whole
        away = np.linalg.norm(places[used] - np.median(places[used], axis=0), axis=1)
        drop = max(len(used) // 20, 1)
        far = set(np.argsort(away)[-drop:].tolist())
        used = [t for k, t in enumerate(used) if k not in far]


def _pairs(
    stack: ImageStack, transforms: TransformSeries, frames: list[int], box: Box, inside: tuple[slice, ...]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]] | None]:
    """Yield the region of each frame as it is and as it lies after the alignment; None for one that holds nothing."""

    def one(t: int) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        frame, reason = read_frame(stack, t)
        if reason:
            return None
        image = np.asarray(frame, np.float32)
        if not np.isfinite(image).all():
            image = np.where(np.isfinite(image), image, np.float32(np.nanmean(image)))
        return image[inside], _aligned(image, transforms, t, box)

    return map_ahead(one, frames)


def _aligned(image: NDArray[np.float32], transforms: TransformSeries, t: int, box: Box) -> NDArray[np.float32]:
    if isinstance(transforms, PiecewiseSeries):
        return warp_sources(image, transforms.sources(t, box.shape, box.start), fill="edge")  # type: ignore[arg-type]
    out: NDArray[Any] = warp_frame(image, transforms.matrices[t], output_shape=box.shape, origin=box.start)
    return out


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    x, y = a - a.mean(dtype=np.float64), b - b.mean(dtype=np.float64)
    below = float(np.sqrt((x * x).sum(dtype=np.float64) * (y * y).sum(dtype=np.float64)))
    return float((x * y).sum(dtype=np.float64) / below) if below > 0 else float("nan")


def _crispness(mean: NDArray[np.float32]) -> float:
    """Return the root mean square gradient, from central differences."""
    parts = [np.mean(np.gradient(mean, axis=a) ** 2, dtype=np.float64) for a in range(mean.ndim) if mean.shape[a] > 1]
    return float(np.sqrt(sum(parts)))
