"""How well transforms undo a known motion: alignment inconsistency, errors at the corners, and what noise allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stackalign.core.generators import exponential, generators, velocities
from stackalign.core.geometry import centre, corners
from stackalign.core.simulate.camera import variance

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from stackalign.core.simulate.truth import Truth
    from stackalign.core.transform_series import TransformSeries

    Array = NDArray[np.float64]

STEP = 0.05  # pixels, of difference quotients


def alignment_inconsistency(found: TransformSeries, true: TransformSeries, frame_shape: Sequence[int]) -> float:
    """Return how much the frames still disagree after alignment (Cho et al., WACV 2023).

    The found motion composed with the true one is the same for all frames if they are aligned, whatever the gauge: the
    mean over frames of the L1 norm of what its entries differ from their mean. The entries are those of the 2 x 3
    (3 x 4) matrix in coordinates x, y (x, y, z) that run from -1 to 1 between the outer borders of the frame.

    Parameters
    ----------
    found, true : TransformSeries
        Moving -> reference, pixels, of the same frames.
    frame_shape : sequence of int
        (y, x) or (z, y, x).

    Raises
    ------
    ValueError
        If the number of frames or dimensions differs.
    """
    if len(found) != len(true) or found.ndim != true.ndim:
        raise ValueError(
            f"{len(found)} found transforms in {found.ndim}-D cannot be compared with"
            f" {len(true)} true ones in {true.ndim}-D"
        )
    composite = true.matrices @ np.linalg.inv(found.matrices)
    composite = composite / composite[:, -1:, -1:]
    normal = normalised(frame_shape)
    entries = (normal @ composite @ np.linalg.inv(normal))[:, :-1]
    return float(np.abs(entries - entries.mean(axis=0)).sum(axis=(1, 2)).mean())


def normalised(frame_shape: Sequence[int]) -> Array:
    """Return the matrix from pixels (y, x) to coordinates (x, y) from -1 to 1."""
    d = len(frame_shape)
    out = np.zeros((d + 1, d + 1))
    for axis, n in enumerate(frame_shape):
        out[d - 1 - axis, axis] = 2 / n
        out[d - 1 - axis, -1] = 1 / n - 1
    out[-1, -1] = 1
    return out


def corner_bound(truth: Truth, frames: Iterable[int] | None = None) -> Array:
    """Return the least rms error of a frame's corners, pixels, for a motion of the simulated model.

    The Cramer-Rao bound against the known, noise-free scene: as `Truth.cramer_rao`, for all parameters of the model at
    once (rotation, stretch, ...) and carried to the corners. `Truth.error` of an unbiased estimate has it as its rms.

    Parameters
    ----------
    truth : Truth
        Of a simulated movie.
    frames : iterable of int, optional
        Which; all of them if left out.
    """
    record = truth.simulation
    radius = float(np.linalg.norm(np.asarray(record.shape[-2:]) - 1)) / 4 + 1
    group = generators(record.model, centre(record.shape), radius)
    flow = velocities(group, corners(np.maximum(record.shape, 2).tolist()))
    out = []
    for t in range(record.frames) if frames is None else frames:
        matrix = truth.transforms.matrices[t]
        slopes = []
        for k in range(len(group)):
            step = np.zeros(len(group))
            step[k] = STEP
            ahead, behind = (truth.photons_at(exponential(group, s) @ matrix, t) for s in (step, -step))
            slopes.append((np.asarray(ahead, float) - behind).ravel() * (record.gain / (2 * STEP)))
        jacobian, noise = np.stack(slopes), variance(truth.photons(t), record).ravel()
        told = noise > 0
        information = (jacobian[:, told] / noise[told]) @ jacobian[:, told].T
        if not told.any() or np.linalg.cond(information) > 1e12:
            out.append(0.0 if not noise.any() else np.inf)
            continue
        covariance = np.linalg.inv(information)
        out.append(float(np.sqrt(np.einsum("pdk,kl,pdl->p", flow, covariance, flow).mean())))
    return np.array(out)
