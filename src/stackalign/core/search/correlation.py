"""Find a translation over the whole range: normalised cross-correlation of what overlaps, by FFT, without aliasing.

Masked normalised cross-correlation after Padfield, IEEE Trans. Image Processing 21, 2012, eq. 4 to 7: frames are
zero-padded to the sum of their sizes, so that a shift beyond half the frame is seen as such, and each shift is judged
on its own overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import fft

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.translation.registrar import Normalisation

    Real = NDArray[np.float32]
    Spectrum = NDArray[np.complex64]

#: share of a reference that is known: what is missing at borders may be made up, and is searched twice as fast
FILLABLE = 0.9
_CLEAR = 8.0  # standard deviations of a peak that needs no second look
_LEAST = 5.5  # below, random images correlate as well
_BACKGROUND = 2048  # shifts from which it is told what correlates by chance, at least, if there are as many


@dataclass(frozen=True, slots=True, eq=False)
class Peak:
    """The best shift.

    Attributes
    ----------
    shift : ndarray (d,)
        Moving -> reference, pixels, to a fraction of a pixel.
    correlation : float
        Pearson correlation on the overlap at the whole-pixel peak (of the filtered frames).
    significance : float
        Height of the peak over all other shifts, in standard deviations of those (robust).
    runner_up : float
        The same of the highest peak elsewhere.
    """

    shift: NDArray[np.float64]
    correlation: float
    significance: float
    runner_up: float

    @property
    def clear(self) -> bool:
        """Whether nothing else comes near."""
        return self.significance > _CLEAR and self.significance > 1.4 * self.runner_up

    @property
    def margin(self) -> float:
        """By how much it stands out more than what random images reach; not at all where negative."""
        return self.significance - max(_LEAST, 0.5 * self.runner_up)


@dataclass(frozen=True, slots=True, eq=False)
class SearchTemplate:
    """The spectra of a reference, worked out once."""

    shape: tuple[int, ...]
    padded: tuple[int, ...]
    values: Spectrum
    squares: Spectrum
    mask: Spectrum
    masked: bool
    normalisation: Normalisation
    max_shift: tuple[float, ...] | None
    min_overlap: float


def prepare_search(
    reference: Real,
    mask: NDArray[np.bool_] | None,
    *,
    normalisation: Normalisation = "overlap",
    max_shift: Sequence[float] | None = None,
    min_overlap: float = 0.25,
) -> SearchTemplate:
    """Return the spectra of ``reference`` where ``mask`` is True (everywhere if None)."""
    padded = tuple(fft.next_fast_len(2 * n - 1, real=True) for n in reference.shape)
    known = np.ones(reference.shape, np.float32) if mask is None else mask.astype(np.float32)
    values = _centred(reference, mask)
    return SearchTemplate(
        reference.shape,
        padded,
        fft.rfftn(values, padded),
        fft.rfftn(values * values, padded),
        fft.rfftn(known, padded),
        mask is not None,
        normalisation,
        None if max_shift is None else tuple(max_shift),
        min_overlap,
    )


def search(frame: Real, mask: NDArray[np.bool_] | None, template: SearchTemplate) -> Peak:
    """Return the shift of one frame (moving -> reference) with the most significant correlation.

    Parameters
    ----------
    frame : ndarray, the template's shape
        Float32.
    mask : ndarray of bool or None
        True where a pixel of the frame counts.
    template : SearchTemplate
        The reference.
    """
    if mask is None:
        return search_frames(frame[None], template)[0]
    values = _centred(frame, mask)
    spectrum = fft.rfftn(values, template.padded)
    overlap = _overlap_of(template, mask)
    if template.normalisation != "overlap":
        return _plain_peak(spectrum, float((values**2).sum()), overlap, template)
    return _masked_peak(values, spectrum, _correlate(template.values, spectrum, template), overlap, template)


def search_frames(frames: Real, template: SearchTemplate) -> list[Peak]:
    """Return the shift of each of some frames (n, ...) without holes; see `search`."""
    axes = tuple(range(1, frames.ndim))
    mean = frames.mean(axes, np.float64, keepdims=True)
    spread = frames.std(axes, np.float64, keepdims=True)
    scale = np.where(spread > 0, 1 / np.where(spread > 0, spread, 1), 1)
    values = (frames - mean.astype(np.float32)) * scale.astype(np.float32)
    spectra = fft.rfftn(values, template.padded, axes)
    overlap = _overlap_of(template, None)
    if template.normalisation != "overlap":
        squares = (values**2).sum(axes)
        return [_plain_peak(s, float(q), overlap, template) for s, q in zip(spectra, squares, strict=True)]
    both = fft.irfftn(template.values * np.conj(spectra, out=spectra), template.padded, axes)
    if template.masked:
        pairs = zip(values, np.conj(spectra), both, strict=True)
        return [_masked_peak(value, spectrum, b, overlap, template) for value, spectrum, b in pairs]
    from stackalign.core.search.kernels import overlap_peaks

    lead = (len(frames), *(1,) * (4 - frames.ndim))
    told = np.empty((len(frames), 6))
    overlap_peaks(
        both.reshape(lead + template.padded), values.reshape(lead + template.shape),
        overlap.reach, overlap.places,
        *map(_volume, (overlap.share, overlap.mean, overlap.variance, overlap.root)),
        overlap.most, _limits(template), told,
    )  # fmt: skip
    return [_found(row, frames.ndim - 1) for row in told]


def _plain_peak(spectrum: Spectrum, squares: float, overlap: _Overlap, template: SearchTemplate) -> Peak:
    """Judge shifts by the phase correlation, or by the plain one."""
    cross = template.values * np.conj(spectrum)
    if template.normalisation == "phase":
        cross /= np.maximum(np.abs(cross), 1e-6 * np.abs(cross).max() + 1e-30)
    both = fft.irfftn(cross, template.padded)
    return _peak(both, both / max(float(np.sqrt(squares * overlap.squares)), 1e-30), overlap, template)


def _masked_peak(values: Real, spectrum: Spectrum, both: Real, overlap: _Overlap, template: SearchTemplate) -> Peak:
    """Judge shifts by the correlation of what overlaps, where frame or template have holes."""
    squares = fft.rfftn(values * values, template.padded)
    sum_f = _correlate(template.mask, spectrum, template)
    below = _correlate(template.mask, squares, template)
    below -= sum_f * sum_f * overlap.share
    sum_f *= overlap.mean
    both -= sum_f
    # a part of the frame without contrast correlates with anything: rounding must not make it a peak
    least = 1e-6 * max(float(below.max()), 0.0) * max(overlap.most, 0.0)
    below *= overlap.variance
    np.maximum(below, max(least, 1e-30), out=below)
    both /= np.sqrt(below, out=below)
    correlation = np.clip(both, -0.9999, 0.9999, out=both)
    # Fisher's z over its standard deviation: a small overlap correlates well by chance
    score = np.arctanh(correlation)
    score *= overlap.root
    return _peak(score, correlation, overlap, template)


def _volume(image: NDArray[Any]) -> NDArray[Any]:
    return image if image.ndim == 3 else image[None]


@dataclass(frozen=True, eq=False)
class _Overlap:
    """What a search needs of the pixels that frame and reference share at each shift."""

    allowed: NDArray[np.bool_]
    share: NDArray[np.floating]  # 1 / n
    mean: NDArray[np.floating]  # sum of the reference / n
    variance: NDArray[np.floating]  # n times the variance of the reference
    most: float  # the largest of these
    root: NDArray[np.floating]  # sqrt(n - 3)
    squares: float  # largest sum of squares of the reference

    @cached_property
    def reach(self) -> NDArray[np.int64]:
        """How many shifts along x are allowed to the right of none and to the left of it, (Z, Y, 2)."""
        allowed = _volume(self.allowed)
        middle = (allowed.shape[-1] + 1) // 2
        sides = (allowed[..., :middle], allowed[..., : middle - 1 : -1])
        return np.stack([np.where(s.all(-1), s.shape[-1], s.argmin(-1)) for s in sides], axis=-1)

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """Shifts, counted through all, from which the height and the spread of chance correlation are told."""
        places = np.flatnonzero(self.allowed)
        return places[:: max(len(places) // _BACKGROUND, 1)].copy()


def _overlap_of(template: SearchTemplate, mask: NDArray[np.bool_] | None) -> _Overlap:
    """Work it out; for frames without holes once for all frames."""
    if mask is None:
        found = _WHOLE.get(id(template))
        if found is not None and found[0] is template:
            return found[1]
    known = (
        _ones(template.shape, template.padded) if mask is None else fft.rfftn(mask.astype(np.float32), template.padded)
    )
    pixels = _correlate(template.mask, known, template)
    total = _correlate(template.values, known, template)
    squares = _correlate(template.squares, known, template)
    n = np.maximum(pixels, np.float32(1))
    variance = squares - total * total / n
    result = _Overlap(
        _allowed(template, pixels),
        1 / n,
        total / n,
        variance,
        float(variance.max()),
        np.sqrt(np.maximum(pixels - 3, 0)),
        float(squares.max()),
    )
    if mask is None:
        if len(_WHOLE) > 16:
            _WHOLE.clear()
        _WHOLE[id(template)] = (template, result)
    return result


_WHOLE: dict[int, tuple[SearchTemplate, _Overlap]] = {}


def _centred(image: Real, mask: NDArray[np.bool_] | None) -> Real:
    """Return the image less its mean and in units of its contrast: float32 FFTs of squares need it."""
    inside = image if mask is None else image[mask]
    mean = float(inside.mean(dtype=np.float64)) if inside.size else 0.0
    spread = float(inside.std(dtype=np.float64)) if inside.size else 1.0
    out = (image - np.float32(mean)) * np.float32(1.0 / spread if spread > 0 else 1.0)
    return out if mask is None else np.where(mask, out, np.float32(0))


def _correlate(template: Spectrum, frame: Spectrum, like: SearchTemplate) -> Real:
    return np.asarray(fft.irfftn(template * np.conj(frame), like.padded))


@lru_cache(maxsize=8)
def _ones(shape: tuple[int, ...], padded: tuple[int, ...]) -> Spectrum:
    return np.asarray(fft.rfftn(np.ones(shape, np.float32), padded))


def _allowed(template: SearchTemplate, overlap: Real) -> NDArray[np.bool_]:
    """Return where enough overlaps, whatever the largest shift."""
    enough = np.asarray(overlap >= max(template.min_overlap * float(overlap.max()), 9.0))
    return enough & _closer(template, template.shape)


def _closer(template: SearchTemplate, limits: Sequence[float]) -> NDArray[np.bool_]:
    """Return where shifts are below ``limits`` along every axis."""
    out = np.ones((1,) * len(template.shape), bool)
    for axis, (n, size, limit) in enumerate(zip(template.shape, template.padded, limits, strict=True)):
        shift = np.arange(size)
        shift = np.where(shift < n, shift, shift - size)
        out = out & (np.abs(shift) < limit).reshape([-1 if a == axis else 1 for a in range(len(template.shape))])
    return out


def _peak(
    score: NDArray[np.floating], correlation: NDArray[np.floating], overlap: _Overlap, template: SearchTemplate
) -> Peak:
    from stackalign.core.search.kernels import NOWHERE, peak

    d, told = len(template.shape), np.empty(6)
    shape = np.array((1,) * (3 - d) + template.shape)
    score = np.where(overlap.allowed, score, NOWHERE)
    peak(_volume(score), _volume(correlation), overlap.places, shape, _limits(template), told)
    return _found(told, d)


def _limits(template: SearchTemplate) -> NDArray[np.float64]:
    """Return below which shift along each of three axes a peak is looked for."""
    limits = np.full(3, np.inf)
    if template.max_shift is not None:
        limits[3 - len(template.shape) :] = [max(m, 0) + 0.5 for m in template.max_shift]
    return limits


def _found(told: NDArray[np.float64], d: int) -> Peak:
    significance, runner_up, correlation = told[:3].tolist()
    return Peak(told[6 - d :].copy(), correlation, significance, runner_up)
