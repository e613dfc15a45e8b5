"""The motion that tracks agree on: one transform a frame, moving -> reference, by robust weighted least squares.

Each particle has a place in the scene and each frame a transform into it; both are estimated in turn until they settle,
so that a particle need not be there in the first frame, or in any one frame. A particle that moves on its own agrees
with no such place: its weight falls to nothing. Positions in pixels, (y, x) or (z, y, x).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from stackalign.core.geometry import corners
from stackalign.core.spots import motion_kernels as kernels
from stackalign.core.transform import TransformModel
from stackalign.core.transform_fit import needed_points
from stackalign.core.transform_series import TransformSeries

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from stackalign.core.spots.tracks import TrackSet

    Array = NDArray[np.float64]

TUKEY = 4.685  # 95 % efficient for Gaussian residuals (Huber & Ronchetti, Robust Statistics, 2nd ed.)
FLOOR = 0.005  # px: no fit is better than that, whatever its standard error says
ABSOLUTE, ROUNDS = 6, 25  # rounds of least absolute distances, then of reweighted least squares
SIGNIFICANCE = 1e-3  # p-value, over all particles, under which one is said to move on its own
LEAST_LOG = 0.15  # spread of log(rms / expected) that particles have at least
LEAST_OWN = 0.05  # px of own motion that is worth naming
SETTLED = 5e-4  # px: no frame moves more in a round
MOST_AT_ONCE = 300  # particles whose places are solved for together
LARGE_ERROR = 1.0  # px at the corners from which on a frame is flagged


@dataclass(frozen=True, slots=True, eq=False)
class TrackMotion:
    """The motion of a set of tracks.

    Attributes
    ----------
    transforms : TransformSeries
        Moving -> reference; interpolated where not valid.
    scene : ndarray (P, d)
        Place of each particle in the reference, pixels; NaN where it cannot be known.
    residual : ndarray (P, T, d)
        Where each particle lies off its place, in the reference, pixels; NaN where it was not found.
    weight : ndarray (P, T)
        Weight of each particle in the robust fit relative to its inverse variance, 0 to 1.
    corner_error : ndarray (T, 2**d)
        Standard error of the motion at the corners of the field, pixels; NaN where not measured.
    centre_error : ndarray (T, d)
        Standard error of the motion of the field's centre, pixels.
    used : ndarray (T,) of int
        Particles that carry the fit of each frame.
    reasons : tuple of str
        Empty for a good frame, else what is wrong with it, in words.
    particles : DataFrame
        One row a particle: see `motion_from_tracks`.
    """

    transforms: TransformSeries
    scene: Array
    residual: Array
    weight: Array
    corner_error: Array
    centre_error: Array
    used: NDArray[np.int64]
    reasons: tuple[str, ...]
    ids: NDArray[np.int64]
    particles: pd.DataFrame = field(repr=False)

    @property
    def outliers(self) -> dict[int, str]:
        """Particles that do not follow the motion, with the reason in words."""
        table = self.particles
        return {int(p): str(why) for p, why in zip(table["particle"], table["suggestion"], strict=True) if why}


def motion_from_tracks(
    tracks: TrackSet,
    model: TransformModel | str = TransformModel.EUCLIDEAN,
    *,
    shape: Sequence[int] | None = None,
    anchor: int | str | None = None,
    include: Sequence[int] | None = None,
) -> TrackMotion:
    """Return the motion that most particles share, one transform a frame.

    Parameters
    ----------
    tracks : TrackSet
        NaN where a particle was not found: it is simply missing there.
    model : TransformModel or str
        "translation", "euclidean", "similarity" or "affine". A frame with too few particles for it gets the richest
        model that they allow and says so; 3-D takes what `Transform.from_points` takes.
    shape : sequence of int, optional
        Shape of the frames, for the error at their corners and the centre of rotations; the extent of the tracks if
        None.
    anchor : int or "mean", optional
        Frame that becomes the identity; the first valid one if None.
    include : sequence of int, optional
        Numbers of the particles to use; all if None.

    Returns
    -------
    TrackMotion
        ``particles`` holds, for each particle: frames found, rms of its residual (px), the rms that its fit errors
        explain, mean weight, p-value of the hypothesis that it follows the motion, and a suggestion in words (empty:
        keep it).

    Raises
    ------
    ValueError
        If the model is not one of these or a particle is not known.

    Notes
    -----
    Weights are inverse variances times Tukey's biweight of the residual over its expected spread. The start is the
    consensus: medians, which half of the particles may break.
    """
    kind = TransformModel(model)
    if kind is TransformModel.PROJECTIVE:
        raise ValueError("motion from particles is translation, euclidean, similarity or affine, not projective")
    chosen = tracks if include is None else tracks.selected(include)
    length, ndim = chosen.length, chosen.ndim
    extent = _extent(chosen) if shape is None else np.asarray(shape, float)
    middle = (extent - 1) / 2
    found = chosen.position[chosen.found]
    origin = found.mean(0) if len(found) else middle  # numbers near 0; moving the tracks changes nothing but that
    state = _solve(chosen, origin, kind)
    matrices = np.tile(np.eye(ndim + 1), (length, 1, 1))
    matrices[:, :-1, :-1] = state.linear
    matrices[:, :-1, -1] = state.shift - state.linear @ origin + origin
    valid = state.used > 0
    series = TransformSeries(matrices, kind, valid)
    poor = valid & (state.used < needed_points(kind.value, ndim))
    if poor.any():
        series = _with_neighbours_rotation(series, poor, chosen, state, origin)
    series = series.interpolated(centre=middle)
    scene = state.scene + origin
    if valid.any():
        frame: Any = int(np.flatnonzero(valid)[0]) if anchor is None else anchor
        before = series.matrices[0]
        series = series.rebased(frame, centre=middle)
        gauge = series.matrices[0] @ np.linalg.inv(before)
        scene = scene @ gauge[:-1, :-1].T + gauge[:-1, -1]
    mapped = np.einsum("tij,ptj->pti", series.matrices[:, :-1, :-1], chosen.position) + series.translations
    residual = mapped - scene[:, None]
    points = np.vstack([corners(tuple(np.maximum(extent, 1).astype(int))), middle[None]]) - origin
    error = _errors(state, points, kind)
    weight = np.where(chosen.found, state.robust.T, np.nan)
    return TrackMotion(
        transforms=series,
        scene=scene,
        residual=residual,
        weight=weight,
        corner_error=error[:, :-1],
        centre_error=np.repeat(error[:, -1:], ndim, axis=1),
        used=state.used,
        reasons=_reasons(state, error[:, :-1], kind, ndim),
        ids=chosen.ids,
        particles=_particle_table(chosen, residual, state),
    )


@dataclass(slots=True, eq=False)
class _State:
    """What the fit ends with; arrays in the order (T, P, d), positions about the particles' mean place."""

    points: Array  # (T, P, d), 0 where not found
    here: NDArray[np.bool_]  # (T, P)
    variance: Array  # (T, P) of a position along one axis, fit errors alone
    linear: Array  # (T, d, d)
    shift: Array  # (T, d)
    scene: Array  # (P, d), NaN for a particle never found
    robust: Array  # (T, P) in [0, 1]
    weight: Array  # (T, P) what the fit used, 1 / px^2
    common: float  # px: scatter that all particles share beyond their fit errors
    used: NDArray[np.int64]  # (T,)


def _extent(tracks: TrackSet) -> Array:
    if not tracks.found.any():
        return np.ones(tracks.ndim)
    return np.asarray(np.floor(np.nanmax(tracks.position.reshape(-1, tracks.ndim), axis=0)) + 1.0)


def _solve(tracks: TrackSet, origin: Array, kind: TransformModel) -> _State:
    ndim = tracks.ndim
    here = np.ascontiguousarray(tracks.found.T)
    points = np.where(here[..., None], np.swapaxes(tracks.position, 0, 1) - origin, 0.0)
    points = np.ascontiguousarray(points)
    known = np.mean(np.swapaxes(tracks.position_error, 0, 1) ** 2, axis=2)
    finite = np.isfinite(known) & here
    usual = float(np.median(known[finite])) if finite.any() else 1.0
    variance = np.where(np.isfinite(known), known, usual) + FLOOR**2
    length, count = here.shape
    linear, shift = np.tile(np.eye(ndim), (length, 1, 1)), np.zeros((length, ndim))
    scene, drift = np.zeros((count, ndim)), np.zeros((length, ndim))
    used = np.zeros(length, np.int64)
    needed = needed_points(kind.value, ndim)
    code = {"translation": 0, "euclidean": 1, "similarity": 2, "affine": 3}[kind.value]
    # consensus first: what half of the particles cannot break
    kernels.median_drift(points, here, drift)
    kernels.median_scene(points, here, drift, scene)
    shift[:] = -drift
    off = np.empty((length, count))
    expected = np.sqrt(ndim * variance)
    typical = np.empty(count)
    robust = here.astype(float)
    weight = robust / variance
    common = 0.0
    # placing the scene and fitting the frames in turn settles fast, unless few particles link parts of the movie
    gappy = ndim == 2 and count <= MOST_AT_ONCE and bool(here.mean(0).min(initial=1.0) < 0.9)
    for turn in range(ABSOLUTE + ROUNDS):
        kernels.distances(points, here, scene, linear, shift, off)
        if turn < ABSOLUTE:  # least absolute distances: outliers pull with a bounded force
            weight = np.where(here, 1.0 / np.maximum(off, expected), 0.0)
        else:
            weight, robust, common = _weights(off, here, variance, typical, ndim)
        before = shift.copy()
        kernels.fit_frames(points, scene, weight, code, needed, linear, shift, used)
        if gappy:
            _step_scene(points, scene, weight, code, needed, linear, shift, used)
        else:
            kernels.place_scene(points, weight, linear, shift, scene)
        _fix_gauge(linear, shift, scene, used > 0, kind)
        if turn > ABSOLUTE and np.abs(shift - before).max() <= SETTLED:
            break
    kernels.fit_frames(points, scene, weight, code, needed, linear, shift, used)
    scene[~here.any(0)] = np.nan
    return _State(points, here, variance, linear, shift, scene, robust, weight, common, used)


def _step_scene(
    points: Array,
    scene: Array,
    weight: Array,
    code: int,
    needed: int,
    linear: Array,
    shift: Array,
    used: NDArray[np.int64],
) -> None:
    """Move the whole scene at once to where it and all frames agree best, for the present weights (Gauss-Newton)."""
    count = len(scene)
    matrix, right = np.zeros((2 * count, 2 * count)), np.zeros(2 * count)
    kernels.scene_equations(points, scene, weight, code, needed, linear, shift, used, matrix, right)
    size = np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    scaled = matrix / size[:, None] / size[None]
    step = np.linalg.lstsq(scaled, right / size, rcond=1e-9)[0] / size
    scene += step.reshape(count, 2)
    kernels.fit_frames(points, scene, weight, code, needed, linear, shift, used)


def _weights(
    off: Array, here: NDArray[np.bool_], variance: Array, typical: Array, ndim: int
) -> tuple[Array, Array, float]:
    """Return weights, robust factors and the scatter that all particles share.

    The variance of a particle is that of its fit plus its own scatter, which is at least the scatter common to all: no
    particle is trusted beyond that, so none can draw the whole motion to itself.
    """
    kernels.median_particle(off, typical)
    # the median distance of a Gaussian in d dimensions, per axis
    sigma2 = (typical / np.sqrt(special.chdtri(ndim, 0.5))) ** 2
    seen = here.sum(0)
    fitted = np.where(seen > 0, np.where(here, variance, 0.0).sum(0) / np.maximum(seen, 1), np.nan)
    excess = np.maximum(sigma2 - fitted, 0.0)
    present = np.isfinite(excess)
    shared = float(np.median(excess[present])) if present.any() else 0.0
    own = np.where(present, excess, 0.0)
    walker = own > 4.0 * (shared + np.nan_to_num(fitted))
    total = variance + np.where(walker, np.maximum(own, shared), shared)
    u = np.where(here, off, 0.0) / (TUKEY * np.sqrt(total))
    robust = np.where(here & (u < 1), (1.0 - u * u) ** 2, 0.0)
    # a frame in which everything jumped keeps its particles: there is nothing better
    lost = here.any(1) & (robust.sum(1) <= 0)
    robust[lost] = np.where(here[lost], 1.0, 0.0)
    return robust / total, robust, float(np.sqrt(shared))


def _fix_gauge(linear: Array, shift: Array, scene: Array, valid: NDArray[np.bool_], kind: TransformModel) -> None:
    """Make the mean linear part the identity: fitting in the scene would otherwise shrink the scene itself."""
    if kind is TransformModel.TRANSLATION or not valid.any():
        return
    mean = linear[valid].mean(0)
    if kind is TransformModel.EUCLIDEAN:
        u, _, vt = np.linalg.svd(mean)
        mean = u @ vt
        if np.linalg.det(mean) < 0:
            return
    back = np.linalg.inv(mean)
    linear[:] = back @ linear
    shift[:] = shift @ back.T
    scene[:] = scene @ back.T


def _with_neighbours_rotation(
    series: TransformSeries, poor: NDArray[np.bool_], tracks: TrackSet, state: _State, origin: Array
) -> TransformSeries:
    """Give frames with too few particles the linear part between their neighbours', and the measured translation."""
    full = series.valid & ~poor
    if not full.any():
        return series
    filled = series.with_valid(full).interpolated(centre=origin)
    matrices = series.matrices.copy()
    for t in np.flatnonzero(poor):
        linear = filled.matrices[t, :-1, :-1]
        w = state.weight[t]
        p = w > 0
        seen = np.average(tracks.position[p, t], axis=0, weights=w[p])
        place = np.average(state.scene[p] + origin, axis=0, weights=w[p])
        matrices[t, :-1, :-1] = linear
        matrices[t, :-1, -1] = place - linear @ seen
    return TransformSeries(matrices, series.model, series.valid)


def _errors(state: _State, at: Array, kind: TransformModel) -> Array:
    """(T, N) standard error along one axis (rms over the axes) of the motion of N points about the particles' mean."""
    w = state.weight
    total = w.sum(1)
    ndim = state.points.shape[2]
    length = len(w)
    with np.errstate(invalid="ignore", divide="ignore"):
        centroid = (state.points * w[..., None]).sum(1) / total[:, None]
        variance = np.repeat(1.0 / total[:, None], len(at), axis=1)
        apart = at[None] - centroid[:, None]  # (T, N, d)
        if kind in (TransformModel.EUCLIDEAN, TransformModel.SIMILARITY):
            spread = (w * ((state.points - centroid[:, None]) ** 2).sum(2)).sum(1)
            turns = {2: 1.0, 3: 2.0}[ndim] + (kind is TransformModel.SIMILARITY)
            variance = variance + turns / ndim * (apart**2).sum(2) / spread[:, None] * {2: 1.0, 3: 1.5}[ndim]
        elif kind is TransformModel.AFFINE:
            centred = state.points - centroid[:, None]
            moment = np.einsum("tp,tpi,tpj->tij", w, centred, centred)
            good = np.linalg.det(moment) > 1e-12 * np.maximum(np.trace(moment, axis1=1, axis2=2), 1e-300) ** ndim
            inverse = np.full((length, ndim, ndim), np.nan)
            inverse[good] = np.linalg.inv(moment[good])
            variance = variance + np.einsum("tni,tij,tnj->tn", apart, inverse, apart)
        variance[~(state.used >= needed_points(kind.value, ndim))] = np.nan
    return np.asarray(np.sqrt(variance))


def _reasons(state: _State, error: Array, kind: TransformModel, ndim: int) -> tuple[str, ...]:
    needed = needed_points(kind.value, ndim)
    out: list[str] = []
    for n, spread in zip(state.used.tolist(), error.max(1).tolist(), strict=True):
        if n == 0:
            out.append("no particle was found: interpolated between its neighbours")
        elif n < needed:
            few = "one particle is" if n == 1 else f"{n} particles are"
            out.append(f"only {few} left: translation only, the rest as in the neighbouring frames")
        elif n == needed and needed > 1:
            out.append(f"only {n} particles left: nothing checks the motion that they give")
        elif spread > LARGE_ERROR:
            out.append(f"the particles fix the motion at the corners of the field to {spread:.1f} px only")
        else:
            out.append("")
    return tuple(out)


def _particle_table(tracks: TrackSet, residual: Array, state: _State) -> pd.DataFrame:
    import pandas as pd

    off = np.sqrt((residual**2).mean(2))  # per axis
    rms, explained, weight = (np.full(len(tracks), np.nan) for _ in range(3))
    for k, here in enumerate(tracks.found):
        if here.any():
            rms[k] = float(np.sqrt(np.mean(off[k, here] ** 2)))
            explained[k] = float(np.sqrt(np.mean(state.variance[here, k]) + state.common**2))
            weight[k] = float(state.robust[here, k].mean())
    ratio = np.log(np.maximum(rms, 1e-6) / explained)
    known = np.isfinite(ratio)
    p_value = np.full(len(tracks), np.nan)
    suggestion = [""] * len(tracks)
    if known.sum() >= 3:
        # against the others: the spread of the particles' own log ratios, as most of them have it
        level = float(np.median(ratio[known]))
        spread = max(1.4826 * float(np.median(np.abs(ratio[known] - level))), LEAST_LOG)
        p_value[known] = special.ndtr(-(ratio[known] - level) / spread)
        for k in np.flatnonzero(known).tolist():
            own = float(np.sqrt(max(rms[k] ** 2 - explained[k] ** 2, 0.0)))
            if p_value[k] * known.sum() < SIGNIFICANCE and own > LEAST_OWN:
                suggestion[k] = f"moves on its own, {own:.2g} px"
    found = tracks.found.mean(1)
    for k in range(len(tracks)):
        if not found[k]:
            first = tracks.reason(int(tracks.ids[k]), int(tracks.start[k]))
            suggestion[k] = f"never found: {first}" if first else "never found"
    return pd.DataFrame(
        {
            "particle": tracks.ids,
            "frames_found": tracks.found.sum(1),
            "residual_rms_px": rms,
            "expected_rms_px": explained,
            "weight_mean": weight,
            "own_motion_p": p_value,
            "suggestion": suggestion,
        }
    )
