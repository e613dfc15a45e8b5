"""Align one image to another, of any sizes: `register_pair`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from stackalign.core.frames.frame_check import check_frame
from stackalign.core.frames.noise import NoiseModel
from stackalign.core.lucas_kanade.registrar import LucasKanade
from stackalign.core.references.reference import PairResult
from stackalign.core.run_state import safely
from stackalign.core.transform import Transform
from stackalign.core.verdicts.agreement import LEAST_AGREEMENT, agreement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from stackalign.core.references.reference import PairAligner


@dataclass(frozen=True, slots=True, eq=False)
class PairRegistration:
    """How one image lies on another.

    Attributes
    ----------
    transform : Transform
        Moving -> reference, pixels; the identity where the pair is refused.
    probability : float
        In [0, 1]: share of the structure that both have in common once they are aligned, see `agreement`; 0 where the
        pair is refused.
    refused : bool
        Whether no trustworthy motion was found.
    reason : str
        Why it was refused, in words; empty otherwise.
    correlation : float
        Pearson correlation on the common region; NaN if nothing was compared.
    error : ndarray (d,)
        Estimated standard error of where the moving image's centre lies, pixels; NaN if not measured.
    """

    transform: Transform
    probability: float
    refused: bool
    reason: str
    correlation: float
    error: NDArray[np.float64]


@runtime_checkable
class PairMethod(Protocol):
    """A method that aligns pairs in its own way, without a `PairAligner`."""

    def fit_pair(
        self,
        moving: NDArray[Any],
        reference: NDArray[Any],
        *,
        mask: NDArray[np.bool_] | None = None,
        initial: Transform | None = None,
    ) -> PairRegistration:
        """Align one image, channels last, to another; see `register_pair`."""
        ...


def register_pair(
    moving: ArrayLike,
    reference: ArrayLike,
    method: Any = None,
    *,
    mask: ArrayLike | None = None,
    initial: Transform | ArrayLike | None = None,
    pixel_size: Sequence[float] | None = None,
) -> PairRegistration:
    """Align one image to another.

    Parameters
    ----------
    moving, reference : array_like (y, x) or (y, x, channel)
        Of any sizes and dtypes; NaN do not count. A last axis of up to 4 is channels, which are averaged, each in units
        of its own contrast. With ``pixel_size`` of three numbers: volumes (z, y, x).
    method : LucasKanade, CrossCorrelation or another with ``aligner``
        ``LucasKanade()`` (euclidean) if left out.
    mask : array_like of bool, shape of the reference without channels, optional
        True where a pixel of the reference counts.
    initial : Transform or array_like (d+1, d+1), optional
        Where the moving image lies roughly, moving -> reference; the whole range is searched if left out, and where it
        does not lead anywhere.
    pixel_size : sequence of float (d,), optional
        Of the reference, along each axis; rotations are rigid in these units. Pixels are cubes if left out.

    Returns
    -------
    PairRegistration
        A pair that cannot be aligned is refused with a reason, and gets the identity.

    Raises
    ------
    ValueError
        If an image has another shape than these, the mask does not fit the reference, or ``initial`` is no transform.

    Examples
    --------
    >>> import numpy as np, stackalign as sa
    >>> y, x = np.mgrid[:64, :80]
    >>> image = np.exp(-((y - 30) ** 2 + (x - 44) ** 2) / 60) + np.exp(-((y - 15) ** 2 + (x - 20) ** 2) / 30)
    >>> pair = sa.register_pair(image[2:, 5:], image, sa.LucasKanade(model="translation"))
    >>> pair.refused, pair.transform.translation.round(2).tolist()
    (False, [2.0, 5.0])
    """
    chosen = LucasKanade() if method is None else method
    d = 2 if pixel_size is None else len(pixel_size)
    still, moved = as_plane(reference, "the reference", d), as_plane(moving, "the moving image", d)
    counts = None
    if mask is not None:
        counts = np.asarray(mask, bool)
        if counts.shape != still.shape:
            raise ValueError(f"the mask is {counts.shape}, the reference is {still.shape}: they must be alike")
    start = None
    if initial is not None:
        start = (initial if isinstance(initial, Transform) else Transform(np.asarray(initial, float))).matrix
        if start.shape != (d + 1, d + 1):
            raise ValueError(f"the initial transform is {start.shape}, the images need {(d + 1, d + 1)}")
    if isinstance(chosen, PairMethod):
        return chosen.fit_pair(
            np.asarray(moving), np.asarray(reference), mask=counts, initial=None if start is None else Transform(start)
        )
    if not hasattr(chosen, "aligner"):
        name = getattr(chosen, "method", type(chosen).__name__)
        raise ValueError(f"the method {name!r} aligns no pairs: choose LucasKanade or CrossCorrelation")
    for name, image in (("the reference", still), ("the moving image", moved)):
        problem = check_frame(image)
        if problem:
            return _refused(d, f"{name}: {problem}")
    # frames of a stack are alike: the smaller image is put into a frame as large as both, where nothing else counts
    shape = tuple(max(a, b) for a, b in zip(still.shape, moved.shape, strict=True))
    aligner = _aligner(chosen, shape, pixel_size)
    counts = None if counts is None else _framed(counts, shape, False)
    still, moved = (aligner.filtered(_framed(image, shape, np.nan)) for image in (still, moved))
    found = _aligned(aligner, moved, np.asarray(still, np.float32), counts, start)
    if found.reason:
        return _refused(d, found.reason, found.correlation)
    probability = agreement(moved, still if counts is None else np.where(counts, still, np.nan), found.matrix)
    if probability < LEAST_AGREEMENT:
        reason = f"where it fits best, it shows little of the reference (agreement {probability:.2f} of 1)"
        return _refused(d, reason, found.correlation)
    return PairRegistration(
        Transform(found.matrix, aligner.model), probability, False, "", found.correlation, found.error
    )


def _aligned(
    aligner: PairAligner[Any],
    moving: NDArray[Any],
    reference: NDArray[np.float32],
    mask: NDArray[np.bool_] | None,
    start: NDArray[np.float64] | None,
) -> PairResult:
    """Align twice: once to learn how noisy the images are, once with weights that follow from it."""
    try:
        template = aligner.prepare(reference, mask)
        first = safely(aligner, moving, template, start)
        if first.reason:
            return first
        pairs = aligner.residuals(moving, template, first)
        noise = NoiseModel.fitted(pairs[:, 0], pairs[:, 1])
        second = safely(aligner, moving, aligner.prepare(reference, mask, noise=noise), first.matrix)
    except ValueError as error:
        return PairResult.failed(moving.ndim, str(error))
    return first if second.reason else second


def _aligner(method: Any, shape: tuple[int, ...], pixel_size: Sequence[float] | None) -> PairAligner[Any]:
    if isinstance(method, LucasKanade):
        return method.aligner(shape, pixel_size)
    aligner: PairAligner[Any] = method.aligner()
    return aligner


def _refused(d: int, reason: str, correlation: float = np.nan) -> PairRegistration:
    return PairRegistration(Transform.identity(d), 0.0, True, reason, correlation, np.full(d, np.nan))


def as_plane(image: ArrayLike, name: str, d: int) -> NDArray[np.float32]:
    """Return one float32 image of an array whose last axis may be channels."""
    array = np.asarray(image)
    if array.dtype.kind not in "uifb":
        raise ValueError(f"{name} must hold real numbers, not {array.dtype}")
    if array.ndim == d:
        out = array.astype(np.float32)
    elif array.ndim == d + 1 and array.shape[-1] <= 4:
        channels = [array[..., k].astype(np.float32) for k in range(array.shape[-1])]
        scales = [float(np.nanstd(c)) if np.isfinite(c).any() else 0.0 for c in channels]
        used = [c / s for c, s in zip(channels, scales, strict=True) if s > 0] or channels
        out = np.mean(used, axis=0, dtype=np.float32)
    else:
        axes = "(y, x) or (y, x, channel)" if d == 2 else "(z, y, x) or (z, y, x, channel)"
        raise ValueError(f"{name} must be {axes} with at most 4 channels, got shape {array.shape}")
    if min(out.shape[-2:]) < 8:
        raise ValueError(f"{name} is only {out.shape}: it must be at least 8 pixels in y and x")
    return out


def _framed(image: NDArray[Any], shape: tuple[int, ...], fill: float) -> NDArray[Any]:
    if image.shape == shape:
        return image
    out = np.full(shape, fill, image.dtype)
    out[tuple(slice(0, n) for n in image.shape)] = image
    return out
