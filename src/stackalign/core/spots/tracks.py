"""Tracks: where each particle was in each frame, NaN where it was not found; pixels, (y, x) or (z, y, x)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.spots.gaussian import FitStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class TrackSet:
    """The tracks of P particles through T frames.

    Attributes
    ----------
    ids : ndarray (P,) of int
        Numbers of the particles.
    position, position_error : ndarray (P, T, d)
        Centres and their standard errors, pixels; NaN where a particle was not found (or the error is not known).
    amplitude, background, r_squared, angle : ndarray (P, T)
        As in `GaussianSpot`; NaN where not known.
    sigma : ndarray (P, T, d)
        Widths, pixels.
    status : ndarray (P, T) of int8
        `FitStatus`: OK, or why the particle was not found in that frame.
    box_shape : ndarray (P, d) of int
        Size of the box that was fitted; 0 for tracks made elsewhere.
    start : ndarray (P,) of int
        Frame in which each particle was picked.
    missing : mapping of int to str
        Frames that hold nothing to find, with the reason.
    """

    ids: NDArray[np.int64]
    position: Array
    position_error: Array
    amplitude: Array
    background: Array
    r_squared: Array
    angle: Array
    sigma: Array
    status: NDArray[np.int8]
    box_shape: NDArray[np.int64]
    start: NDArray[np.int64]
    missing: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        p, t, d = self.position.shape
        expected = {"ids": (p,), "sigma": (p, t, d), "position_error": (p, t, d), "box_shape": (p, d), "start": (p,)}
        for name in _ARRAYS:
            shape = expected.get(name, (p, t))
            if name != "position" and getattr(self, name).shape != shape:
                raise ValueError(f"{name} must be {shape}, got {getattr(self, name).shape}")
        if len(set(self.ids.tolist())) != p:
            raise ValueError(f"two particles have the same number: {self.ids.tolist()}")

    @classmethod
    def empty(cls, ids: ArrayLike, length: int, ndim: int = 2) -> TrackSet:
        """Return tracks in which nothing is found yet."""
        names = np.asarray(ids, np.int64)
        p = len(names)

        def nan(*shape: int) -> Array:
            return np.full(shape, np.nan)

        return cls(
            ids=names,
            position=nan(p, length, ndim),
            position_error=nan(p, length, ndim),
            amplitude=nan(p, length),
            background=nan(p, length),
            r_squared=nan(p, length),
            angle=nan(p, length),
            sigma=nan(p, length, ndim),
            status=np.full((p, length), FitStatus.NOT_FOUND, np.int8),
            box_shape=np.zeros((p, ndim), np.int64),
            start=np.zeros(p, np.int64),
        )

    @classmethod
    def of(cls, position: ArrayLike, *, error: ArrayLike | None = None, ids: ArrayLike | None = None) -> TrackSet:
        """Return tracks of bare positions (P, T, d), NaN where a particle was not found."""
        where = np.asarray(position, float)
        if where.ndim != 3 or where.shape[2] not in (2, 3):
            raise ValueError(f"positions must be (particles, frames, 2 or 3), got {where.shape}")
        out = cls.empty(np.arange(1, len(where) + 1) if ids is None else ids, where.shape[1], where.shape[2])
        found = np.isfinite(where).all(2)
        out.position[found] = where[found]
        out.status[found] = FitStatus.OK
        if error is not None:
            out.position_error[:] = np.broadcast_to(np.asarray(error, float), where.shape)
        return out

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        share = 100 * self.found.mean() if self.found.size else 0.0
        return f"TrackSet({len(self)} particles x {self.length} frames, {self.ndim}-D, {share:.1f} % found)"

    @property
    def length(self) -> int:
        """Number of frames."""
        return int(self.position.shape[1])

    @property
    def ndim(self) -> int:
        """Spatial dimensions, 2 or 3."""
        return int(self.position.shape[2])

    @property
    def found(self) -> NDArray[np.bool_]:
        """(P, T) True where a particle was found."""
        return np.asarray(np.isfinite(self.position).all(2))

    def selected(self, ids: Iterable[int]) -> TrackSet:
        """Return some particles, in the order of ``ids``.

        Raises
        ------
        ValueError
            If there is no particle of such a number.
        """
        place = {int(name): k for k, name in enumerate(self.ids)}
        wanted = [int(name) for name in ids]
        unknown = [name for name in wanted if name not in place]
        if unknown:
            raise ValueError(f"there is no particle {unknown[0]}: there are {sorted(place)}")
        rows = [place[name] for name in wanted]
        return replace(self, **{name: getattr(self, name)[rows] for name in _ARRAYS})

    def without(self, ids: Iterable[int]) -> TrackSet:
        """Return all particles but some."""
        gone = {int(name) for name in ids}
        return self.selected(int(name) for name in self.ids if int(name) not in gone)

    def reason(self, particle: int, frame: int) -> str:
        """Return in words why a particle was not found in a frame; empty if it was."""
        row = int(np.flatnonzero(self.ids == particle)[0])
        status = FitStatus(int(self.status[row, frame]))
        return "" if status is FitStatus.OK else status.sentence

    def summary(self) -> pd.DataFrame:
        """Return a table, one row a particle: frames found, mean R², drift of the width, the commonest reason lost."""
        import pandas as pd

        rows: list[Mapping[str, Any]] = []
        for k, name in enumerate(self.ids):
            here = self.found[k]
            lost = self.status[k][~here]
            width = self.sigma[k][here].mean(1) if here.any() else np.empty(0)
            times = np.flatnonzero(here)
            known = np.isfinite(width)
            slope = np.polyfit(times[known], width[known], 1)[0] if known.sum() > 2 else np.nan
            worst = FitStatus(int(np.bincount(lost).argmax())).sentence if len(lost) else ""
            quality = self.r_squared[k][np.isfinite(self.r_squared[k])]
            rows.append(
                {
                    "particle": int(name),
                    "frames_found": int(here.sum()),
                    "found_percent": 100.0 * float(here.mean()),
                    "r_squared_mean": float(quality.mean()) if len(quality) else np.nan,
                    "sigma_drift_px_per_frame": float(slope),
                    "lost_because": worst,
                }
            )
        return pd.DataFrame(rows)

    def to_frame(self, *, lost: bool = False) -> pd.DataFrame:
        """Return trackpy's table, one row a particle and frame: frame, particle, y, x, then what else is known.

        Parameters
        ----------
        lost : bool
            Also give the frames in which a particle was not found, with NaN and the reason.
        """
        import pandas as pd

        axes = "zyx"[-self.ndim :]
        rows, times = np.nonzero(np.ones_like(self.found) if lost else self.found)
        order = np.lexsort((rows, times))  # by frame, as trackpy has it
        rows, times = rows[order], times[order]
        columns: dict[str, Any] = {"frame": times, "particle": self.ids[rows]}
        columns |= {a: self.position[rows, times, i] for i, a in enumerate(axes)}
        columns |= {f"{a}_error": self.position_error[rows, times, i] for i, a in enumerate(axes)}
        columns["amplitude"] = self.amplitude[rows, times]
        columns |= {f"sigma_{a}": self.sigma[rows, times, i] for i, a in enumerate(axes)}
        columns["angle"] = np.rad2deg(self.angle[rows, times])
        columns["background"] = self.background[rows, times]
        columns["r_squared"] = self.r_squared[rows, times]
        columns["status"] = [FitStatus(int(s)).name.lower() for s in self.status[rows, times]]
        table = pd.DataFrame(columns)
        table.attrs["units"] = {
            **dict.fromkeys(axes, "px"),
            **{f"{a}_error": "px" for a in axes},
            **{f"sigma_{a}": "px" for a in axes},
            "angle": "deg",
        }
        return table

    @classmethod
    def from_frame(cls, table: pd.DataFrame, *, length: int | None = None) -> TrackSet:
        """Return the tracks of a table with columns frame, particle, y, x (and z): trackpy's, or one of `to_frame`.

        Parameters
        ----------
        table : DataFrame
            Further columns of `to_frame` are read where they are there; trackpy's ``ep`` is the position's error.
        length : int, optional
            Number of frames; one more than the last frame of the table if None.

        Raises
        ------
        ValueError
            If a column is missing, a frame is out of range or a particle stands twice in one frame.
        """
        missing = [name for name in ("frame", "particle", "y", "x") if name not in table.columns]
        if missing:
            raise ValueError(
                f"these tracks lack the column {' and '.join(map(repr, missing))}; there are: "
                f"{', '.join(map(str, table.columns))}"
            )
        axes = "zyx" if "z" in table.columns else "yx"
        frames = table["frame"].to_numpy()
        particles = table["particle"].to_numpy()
        if len(table) and not (
            np.array_equal(frames, np.round(frames)) and np.array_equal(particles, np.round(particles))
        ):
            raise ValueError("the columns 'frame' and 'particle' must hold whole numbers")
        times = frames.astype(np.int64)
        count = (int(times.max()) + 1 if len(times) else 0) if length is None else int(length)
        if len(times) and (times.min() < 0 or times.max() >= count):
            raise ValueError(
                f"the tracks hold frame {times.min() if times.min() < 0 else times.max()}, the stack {count}"
            )
        ids, rows = np.unique(particles.astype(np.int64), return_inverse=True)
        pairs, repeats = np.unique(np.stack([rows, times], 1), axis=0, return_counts=True)
        if (repeats > 1).any():
            row, time = pairs[int(repeats.argmax())]
            raise ValueError(f"particle {ids[row]} stands twice in frame {time}")
        out = cls.empty(ids, count, len(axes))
        for i, a in enumerate(axes):
            out.position[rows, times, i] = table[a]
            if f"{a}_error" in table.columns:
                out.position_error[rows, times, i] = table[f"{a}_error"]
            elif "ep" in table.columns:
                out.position_error[rows, times, i] = table["ep"]
            if f"sigma_{a}" in table.columns:
                out.sigma[rows, times, i] = table[f"sigma_{a}"]
        for name in ("amplitude", "background", "r_squared"):
            if name in table.columns:
                getattr(out, name)[rows, times] = table[name]
        if "angle" in table.columns:
            out.angle[rows, times] = np.deg2rad(table["angle"])
        if "status" in table.columns:
            codes = {s.name.lower(): s.value for s in FitStatus}
            out.status[rows, times] = [codes.get(str(s), FitStatus.NOT_FOUND.value) for s in table["status"]]
        out.position[~out.found] = np.nan  # half a position is none
        out.status[out.found] = FitStatus.OK
        first = np.where(out.found.any(1), out.found.argmax(1), 0)
        out.start[:] = first
        return out

    def to_points(self) -> Array:
        """Return (N, 2 + d): particle, frame, then the position, sorted by particle: what a viewer's tracks take."""
        rows, times = np.nonzero(self.found)
        return np.column_stack([self.ids[rows], times, self.position[rows, times]])

    @classmethod
    def from_points(cls, points: ArrayLike, *, length: int | None = None) -> TrackSet:
        """Return the tracks of a viewer's layer (N, 2 + d): particle, frame, then the position."""
        import pandas as pd

        data = np.asarray(points, float)
        if data.ndim != 2 or data.shape[1] not in (4, 5):
            raise ValueError(f"tracks must be (N, 4) or (N, 5): particle, frame, (z,) y, x; got {data.shape}")
        names = ["particle", "frame", *"zyx"[-(data.shape[1] - 2) :]]
        return cls.from_frame(pd.DataFrame(data, columns=names), length=length)


_ARRAYS = tuple(f.name for f in fields(TrackSet) if f.name != "missing")
