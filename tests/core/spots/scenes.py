"""Movies of Gaussian particles with known motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stackalign import Box, GaussianSpot, Pick, Transform, TransformSeries


@dataclass
class Movie:
    frames: np.ndarray  # (T, y, x)
    where: np.ndarray  # (P, T, 2) true centres
    truth: TransformSeries  # moving -> reference, frame 0 the identity
    picks: tuple[Pick, ...]


def render(
    where: np.ndarray,
    shape: tuple[int, int],
    *,
    amplitude: np.ndarray | float = 200.0,
    sigma: float = 1.6,
    background: float = 20.0,
    seed: int | None = 0,
) -> np.ndarray:
    """Frames of spots at (P, T, 2), with Poisson noise unless ``seed`` is None; amplitude (P,), (P, T) or a number."""
    count, length = where.shape[:2]
    height = np.broadcast_to(
        np.asarray(amplitude, float).reshape((-1, 1) if np.ndim(amplitude) == 1 else np.shape(amplitude)),
        (count, length),
    )
    frames = np.full((length, *shape), background)
    half = int(np.ceil(5 * sigma))
    for t in range(length):
        for p in range(count):
            if not np.isfinite(where[p, t]).all():
                continue
            y, x = np.round(where[p, t]).astype(int)
            y0, y1, x0, x1 = (
                max(y - half, 0),
                min(y + half + 1, shape[0]),
                max(x - half, 0),
                min(x + half + 1, shape[1]),
            )
            if y0 < y1 and x0 < x1:
                spot = GaussianSpot(height[p, t], where[p, t], np.array([sigma, sigma]))
                frames[t, y0:y1, x0:x1] += spot.image((y1 - y0, x1 - x0), (y0, x0))
    if seed is None:
        return frames
    return np.random.default_rng(seed).poisson(np.maximum(frames, 0)).astype(np.uint16)


def boxes(where: np.ndarray, shape: tuple[int, int], half: int = 6, frame: int = 0) -> tuple[Pick, ...]:
    """One pick a particle around its place (P, 2)."""
    picks = []
    for k, (y, x) in enumerate(np.round(where).astype(int), start=1):
        box = Box(y - half, y + half + 1, x - half, x + half + 1).clipped(shape)
        picks.append(Pick.of(box, frame=frame, id=k))
    return tuple(picks)


def rigid_movie(
    count: int = 12,
    length: int = 40,
    *,
    shape: tuple[int, int] = (220, 260),
    shift: float = 15.0,
    angle: float = 2.0,
    seed: int = 0,
    own: np.ndarray | None = None,
    smooth: bool = True,
    noise: bool = True,
    **light: object,
) -> Movie:
    """Particles that turn and shift together; ``own`` (P, T, 2) is added to each one's path."""
    rng = np.random.default_rng(seed)
    middle = (np.array(shape) - 1) / 2
    margin = 12 + shift + np.deg2rad(angle) * np.hypot(*middle)
    scene = spread(rng, count, margin, shape)
    t = np.linspace(0, 1, length)
    if smooth:
        shifts = shift * np.stack([np.sin(3 * t), np.cos(5 * t) - 1], 1) / np.array([1.0, 2.0])
        angles = np.deg2rad(angle) * np.sin(4 * t)
    else:
        shifts = rng.uniform(-shift, shift, (length, 2))
        angles = np.deg2rad(rng.uniform(-angle, angle, length))
        shifts[0], angles[0] = 0, 0
    motion = [Transform.from_rotation(a, s, middle) for a, s in zip(angles, shifts, strict=True)]
    where = np.stack([m(scene) for m in motion], 1)
    if own is not None:
        where = where + own
    truth = TransformSeries.from_transforms([m.inverse for m in motion]).rebased(0)
    frames = render(where, shape, seed=seed if noise else None, **light)
    return Movie(frames, where, truth, boxes(where[:, 0], shape))


def spread(
    rng: np.random.Generator, count: int, margin: float, shape: tuple[int, int], apart: float = 18.0
) -> np.ndarray:
    """Places at least ``apart`` pixels from each other."""
    chosen: list[np.ndarray] = []
    while len(chosen) < count:
        place = rng.uniform(margin, np.array(shape) - margin)
        if all(np.hypot(*(place - other)) >= apart for other in chosen):
            chosen.append(place)
    return np.array(chosen)
