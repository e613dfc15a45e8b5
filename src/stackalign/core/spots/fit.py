"""Fit Gaussian spots to patches, many at once; patch pixels (y, x), (0, 0) is the centre of the first pixel.

Least squares, or maximum likelihood for Poisson counts on which a camera adds Gaussian read noise: that sum is taken
as Poisson counts shifted by the read noise's variance (Huang et al., Nature Methods 10, 653, 2013).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.spots import kernels, kernels_3d, moments
from stackalign.core.spots.gaussian import FitStatus, SpotFit, SpotFits
from stackalign.core.threads import map_threads, threads

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from stackalign.core.geometry import Box
    from stackalign.core.spots.options import Estimator, Polarity, SpotModel

MODELS = {"circular": moments.CIRCULAR, "elliptic": moments.ELLIPTIC, "rotated": moments.ROTATED}
POLARITIES = {"auto": 0, "bright": 1, "dark": -1}

MIN_R_SQUARED = 0.2
MIN_CONTRAST = 5.0  # amplitude over its standard error: the best of the bumps of pure noise reaches about 4.5
NEIGHBOUR = 0.42  # mean of 3 x 3 pixels on a second spot, in amplitudes: a spot of two thirds of the height
PAIR = 0.6  # what two spots that are fitted as a long one leave along it
SATURATED_PIXELS = 3
LEAST_WIDTH = 0.35  # pixels: narrower than that, all light falls into one pixel
CHUNK = 512  # spots: a chunk is some milliseconds of work


def fit_spots(
    patches: ArrayLike,
    model: SpotModel = "rotated",
    estimator: Estimator = "mle",
    gain: float = 1.0,
    offset: float = 0.0,
    read_noise: float = 0.0,
    *,
    polarity: Polarity = "auto",
    saturation: float | None = None,
    min_r_squared: float = MIN_R_SQUARED,
    max_sigma: float | None = None,
    rounds: int = 50,
) -> SpotFits:
    """Fit one Gaussian spot to each patch. A bad spot is a result with a status, never an exception.

    Parameters
    ----------
    patches : array_like (N, h, w) or (N, d, h, w)
        Intensities of any real dtype. Pixels that are NaN do not count.
    model : "circular", "elliptic" or "rotated"
        One width; one along each axis; or, in 2-D, two widths and an angle. In 3-D "rotated" is "elliptic".
    estimator : "mle" or "lsq"
        Poisson maximum likelihood, or least squares (which needs no camera parameters).
    gain : float
        Counts per photo-electron: the number of electrons is (value - ``offset``) / ``gain``.
    offset : float
        Counts in the dark.
    read_noise : float
        Standard deviation of the read noise, electrons.
    polarity : "auto", "bright" or "dark"
        Which way the spot stands out.
    saturation : float, optional
        Values from which on a pixel is saturated and does not count; the greatest value of an unsigned dtype if None.
    min_r_squared : float
        Fits that explain less of the patch are rejected; compared with R² adjusted for the number of parameters.
    max_sigma : float, optional
        Greatest width, pixels; the patch's longer side if None.
    rounds : int
        Most iterations.

    Returns
    -------
    SpotFits
        Positions in patch pixels; amplitude and background in the units of ``patches``. Standard errors come from the
        Fisher information (mle), or from a sandwich estimate that needs no noise model (lsq).

    Raises
    ------
    ValueError
        If the patches have another number of dimensions or an option has no such value.

    Notes
    -----
    Poisson likelihood as in Mortensen et al., Nature Methods 7, 377 (2010), by Fisher scoring with Marquardt's damping.

    Examples
    --------
    >>> spot = GaussianSpot(100.0, np.array([7.2, 6.9]), np.array([2.0, 2.0]), background=10.0)
    >>> fits = fit_spots(spot.image((15, 15))[None])
    >>> np.round(fits.y, 3), fits.ok
    (array([7.2]), array([ True]))
    """
    data = np.asarray(patches)
    if data.ndim not in (3, 4):
        raise ValueError(f"patches must be (N, h, w) or (N, d, h, w), got shape {data.shape}")
    if data.dtype.kind not in "uifb":
        raise ValueError(f"patches must hold integers or real numbers, not {data.dtype}")
    for name, value, allowed in (
        ("model", model, MODELS),
        ("estimator", estimator, {"mle": 1, "lsq": 0}),
        ("polarity", polarity, POLARITIES),
    ):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}")
    if not gain > 0 or read_noise < 0:
        raise ValueError(f"gain must be positive and read_noise not negative, got {gain} and {read_noise}")
    if saturation is None:
        saturation = float(np.iinfo(data.dtype).max) if data.dtype.kind == "u" else np.inf
    spatial = data.shape[1:]
    most = float(max(spatial)) if max_sigma is None else float(max_sigma)
    mle = estimator == "mle"
    columns = kernels.COLUMNS if data.ndim == 3 else kernels_3d.COLUMNS
    out = np.full((len(data), columns), np.nan)
    ended = np.full(len(data), kernels.TOO_FEW, np.int8)

    def run(bounds: tuple[int, int]) -> None:
        part = slice(*bounds)
        raw = data[part]
        # what is subtracted keeps the digits of a small contrast on a large offset when it becomes float32
        base = np.full(len(raw), float(offset))
        if not mle and raw.dtype.itemsize > 2:
            base = _levels(raw)
        electrons = _electrons(raw, base, 1.0 if not mle else gain)
        top = np.float32((saturation - offset) / gain) if mle else np.float32(np.inf)
        if not mle and np.isfinite(saturation):
            electrons = np.where(raw >= saturation, np.float32(np.inf), electrons)
        if data.ndim == 3:
            kernels.fit_spots(electrons, top, float(read_noise) ** 2, mle, MODELS[model], POLARITIES[polarity],
                              rounds, LEAST_WIDTH, most, out[part], ended[part])  # fmt: skip
        else:
            kernels_3d.fit_spots(electrons, top, float(read_noise) ** 2, mle, model == "circular",
                                 POLARITIES[polarity], rounds, LEAST_WIDTH, most, out[part], ended[part])  # fmt: skip
        _to_counts(out[part], base, 1.0 if not mle else gain, data.ndim - 1)

    map_threads(run, _chunks(len(data)))
    # of R² what counts is the part that noise alone would not give: adjusted for the parameters spent
    terms = 5 + MODELS[model] if data.ndim == 3 else (6 if model == "circular" else 8)
    free = max(int(np.prod(spatial)) - terms, 1)
    return _judged(out, ended, spatial, 1.0 - (1.0 - min_r_squared) * free / max(int(np.prod(spatial)) - 1, 1))


def fit_spot(image: ArrayLike, box: Box | None = None, **options: Any) -> SpotFit:
    """Fit one Gaussian spot inside a box of an image.

    Parameters
    ----------
    image : array_like (y, x) or (z, y, x)
        Intensities.
    box : Box, optional
        Pixels to fit, cut at the image's border; the whole image if None.
    **options
        As for `fit_spots`.

    Returns
    -------
    SpotFit
        In image pixels; false, with a ``reason``, when it is rejected.

    Raises
    ------
    ValueError
        If the box lies outside the image.
    """
    from stackalign.core.geometry import Box

    whole = np.asarray(image)
    inside = Box.of_shape(whole.shape) if box is None else box.clipped(whole.shape)
    return fit_spots(whole[inside.slices][None], **options)[0].moved(inside.start, inside)


def _chunks(count: int) -> list[tuple[int, int]]:
    size = max(min(CHUNK, -(-count // threads())), 1)
    return [(k, min(k + size, count)) for k in range(0, count, size)]


def _levels(raw: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean of each patch, or 0 where it is not finite."""
    flat = raw.reshape(len(raw), -1)
    with np.errstate(invalid="ignore"):
        level = flat.mean(1, dtype=np.float64)
        lost = ~np.isfinite(level)
        if lost.any():
            finite = np.isfinite(flat[lost])
            total = np.where(finite, flat[lost], 0).sum(1, dtype=np.float64)
            level[lost] = total / np.maximum(finite.sum(1), 1)
    return np.asarray(level)


def _electrons(raw: NDArray[Any], base: NDArray[np.float64], gain: float) -> NDArray[np.float32]:
    if gain == 1.0 and not base.any():
        return np.ascontiguousarray(raw, np.float32)
    if raw.dtype.itemsize <= 2:  # exact in float32, and the base is the offset
        return np.ascontiguousarray((raw.astype(np.float32) - np.float32(base[0])) / np.float32(gain))
    shape = (len(raw),) + (1,) * (raw.ndim - 1)
    return np.ascontiguousarray((raw - base.reshape(shape)) / gain, np.float32)


def _to_counts(out: NDArray[np.float64], base: NDArray[np.float64], gain: float, ndim: int) -> None:
    if gain == 1.0 and not base.any():
        return
    k = kernels if ndim == 2 else kernels_3d
    for column in (k.A, k.OFFSET, k.ERRORS + k.A, k.ERRORS + k.OFFSET):
        out[:, column] *= gain
    out[:, k.OFFSET] += base


def _judged(
    out: NDArray[np.float64], ended: NDArray[np.int8], shape: tuple[int, ...], min_r_squared: float
) -> SpotFits:
    """Return the fits with a status each: the first reason that holds, the gravest first."""
    ndim = len(shape)
    k = kernels if ndim == 2 else kernels_3d
    position, sigma = [k.Y, k.X], [k.SY, k.SX]
    if ndim == 3:
        position, sigma = [kernels_3d.Z, *position], [kernels_3d.SZ, *sigma]
    centre = out[:, position]
    with np.errstate(invalid="ignore"):
        # a centre within half a pixel of the patch's outermost pixel centres has one flank only; in 3-D a spot may
        # rest on the first or last plane
        margin = np.array([0.5, 0.5] if ndim == 2 else [-0.5, 0.5, 0.5])
        outside = ((centre < margin) | (centre > np.array(shape) - 1 - margin)).any(1)
        rules = (
            (FitStatus.TOO_SMALL, (ended == kernels.TOO_FEW) & ~(out[:, k.EXTREME] >= SATURATED_PIXELS)),
            (FitStatus.SATURATED, out[:, k.EXTREME] >= SATURATED_PIXELS),
            (FitStatus.NO_CONTRAST, ended == kernels.FLAT),
            (FitStatus.NO_CONTRAST, ~(np.abs(out[:, k.A]) >= MIN_CONTRAST * out[:, k.ERRORS + k.A])),
            (FitStatus.OFF_EDGE, outside),
            (FitStatus.AT_BOUND, ended == kernels.AT_BOUND),
            (FitStatus.NOT_CONVERGED, ended == kernels.ROUNDS_SPENT),
            (FitStatus.NOT_CONVERGED, ~np.isfinite(out[:, k.ERRORS + k.Y])),
            (FitStatus.AMBIGUOUS, out[:, k.NEIGHBOUR] > NEIGHBOUR),
            (FitStatus.AMBIGUOUS, out[:, kernels.PAIR] > PAIR if ndim == 2 else np.zeros(len(out), bool)),
            (FitStatus.LOW_R_SQUARED, ~(out[:, k.R2] >= min_r_squared)),
        )
    status = np.zeros(len(out), np.int8)
    for code, where in reversed(rules):
        status[where] = code
    errors = k.ERRORS
    return SpotFits(
        amplitude=out[:, k.A],
        position=centre,
        sigma=out[:, sigma],
        angle=out[:, k.ANGLE],
        background=out[:, k.OFFSET],
        amplitude_error=out[:, errors + k.A],
        position_error=out[:, [errors + c for c in position]],
        sigma_error=out[:, [errors + c for c in sigma]],
        angle_error=out[:, errors + k.ANGLE],
        background_error=out[:, errors + k.OFFSET],
        r_squared=out[:, k.R2],
        snr=out[:, k.SNR],
        chi_squared=out[:, k.CHI2],
        rounds=np.nan_to_num(out[:, k.ROUNDS]).astype(np.int64),
        status=status,
    )
