"""Gaussian spots: the model, the result of a fit and why it may be rejected; pixels, (y, x) or (z, y, x)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from stackalign.core.geometry import Box

    Array = NDArray[np.float64]


class FitStatus(IntEnum):
    """How a fit, or a particle in a frame, went: OK or why it is rejected. ``sentence`` says it in words."""

    OK = 0
    NOT_CONVERGED = 1
    AT_BOUND = 2
    LOW_R_SQUARED = 3
    OFF_EDGE = 4
    TOO_SMALL = 5
    NO_CONTRAST = 6
    AMBIGUOUS = 7
    SATURATED = 8
    # what only tracking can say
    NOT_FOUND = 9
    JUMPED = 10
    TAKEN = 11
    CHANGED = 12
    OUT_OF_VIEW = 13
    NO_FRAME = 14
    PENDING = 15

    @property
    def sentence(self) -> str:
        """The status in words that a user can act on."""
        return _SENTENCES[self]


_SENTENCES = {
    FitStatus.OK: "good fit",
    FitStatus.NOT_CONVERGED: "the fit did not settle: there may be no single spot in the box",
    FitStatus.AT_BOUND: "the fitted width ran to its limit: the box holds no spot of that size; try another box size",
    FitStatus.LOW_R_SQUARED: "the Gaussian explains too little of the image (low R²): too faint, or no spot",
    FitStatus.OFF_EDGE: "the fitted centre lies at the edge of the box: centre the box on the particle",
    FitStatus.TOO_SMALL: "too few usable pixels for the fit: draw a larger box",
    FitStatus.NO_CONTRAST: "nothing stands out from the background in the box",
    FitStatus.AMBIGUOUS: "a second spot lies in the box: make the box smaller or choose an isolated particle",
    FitStatus.SATURATED: "the spot is saturated: its top is cut off, so its centre is uncertain",
    FitStatus.NOT_FOUND: "no such spot near the expected place",
    FitStatus.JUMPED: "the only spot found is farther off than the particle can have moved",
    FitStatus.TAKEN: "the spot found belongs to another particle",
    FitStatus.CHANGED: "brightness or width differ too much from the particle's own",
    FitStatus.OUT_OF_VIEW: "the particle has left the field of view",
    FitStatus.NO_FRAME: "the frame is missing or empty",
    FitStatus.PENDING: "this frame has not been reached",
}


@dataclass(frozen=True, slots=True, eq=False)
class GaussianSpot:
    """A Gaussian spot on a constant background.

    Attributes
    ----------
    amplitude : float
        Height over the background, negative for a dark spot; intensity units.
    position : ndarray (d,)
        Centre, pixels.
    sigma : ndarray (d,)
        Standard deviations along the spot's axes nearest to each image axis, pixels.
    angle : float
        Turn of the spot's axes from y towards x, radians, in [-pi/4, pi/4]; 2-D only.
    background : float
        Intensity units.
    """

    amplitude: float
    position: Array
    sigma: Array
    angle: float = 0.0
    background: float = 0.0

    def image(self, shape: Sequence[int], origin: ArrayLike | None = None) -> Array:
        """Return the spot's image on pixels ``origin`` + (0 .. shape - 1), sampled at pixel centres."""
        start = np.zeros(len(shape)) if origin is None else np.asarray(origin, float)
        offsets = [o + np.arange(n) - p for o, n, p in zip(start, shape, self.position, strict=True)]
        grid = list(np.meshgrid(*offsets, indexing="ij"))
        if len(shape) == 2 and self.angle:
            c, s = np.cos(self.angle), np.sin(self.angle)
            grid = [c * grid[0] + s * grid[1], c * grid[1] - s * grid[0]]
        exponent = sum((g / w) ** 2 for g, w in zip(grid, self.sigma, strict=True))
        return np.asarray(self.amplitude * np.exp(-0.5 * exponent) + self.background)

    @property
    def volume(self) -> float:
        """Integral over the background: photons, where intensities are photons."""
        return float(self.amplitude * np.prod(self.sigma) * (2 * np.pi) ** (len(self.sigma) / 2))


@dataclass(frozen=True, slots=True, eq=False)
class SpotFit:
    """One fitted spot; false when it is rejected, and ``reason`` says why.

    Attributes
    ----------
    spot : GaussianSpot
        The fit. NaN where there is none.
    error : GaussianSpot
        Standard errors of each number of ``spot``.
    r_squared, snr, chi_squared : float
        Share of the variance explained, amplitude over the rms of the residual, reduced chi^2 (NaN for least squares,
        where the noise is not known).
    rounds : int
        Iterations.
    status : FitStatus
        OK, or why the fit is rejected.
    box : Box or None
        The pixels that were fitted.
    """

    spot: GaussianSpot
    error: GaussianSpot
    r_squared: float
    snr: float
    chi_squared: float
    rounds: int
    status: FitStatus
    box: Box | None = None

    def __bool__(self) -> bool:
        return self.status is FitStatus.OK

    @property
    def reason(self) -> str:
        """Empty for a good fit, else why it is rejected, in words."""
        return "" if self else self.status.sentence

    @property
    def position(self) -> Array:
        """Centre, pixels."""
        return self.spot.position

    @property
    def y(self) -> float:
        """Row of the centre, pixels."""
        return float(self.spot.position[-2])

    @property
    def x(self) -> float:
        """Column of the centre, pixels."""
        return float(self.spot.position[-1])

    @property
    def y_error(self) -> float:
        """Standard error of ``y``, pixels."""
        return float(self.error.position[-2])

    @property
    def x_error(self) -> float:
        """Standard error of ``x``, pixels."""
        return float(self.error.position[-1])

    def moved(self, origin: ArrayLike, box: Box | None = None) -> SpotFit:
        """Return the fit in the image of which the fitted patch starts at ``origin``."""
        spot = replace(self.spot, position=self.spot.position + np.asarray(origin, float))
        return replace(self, spot=spot, box=box if box is not None else self.box)


@dataclass(frozen=True, slots=True, eq=False)
class SpotFits:
    """Fits of many patches, as arrays over the patches; NaN where there is no fit.

    Attributes
    ----------
    amplitude, background, angle : ndarray (N,)
        As in `GaussianSpot`, each with its ``_error``.
    position, sigma : ndarray (N, d)
        Centre in patch pixels ((0, 0) is the centre of the first pixel) and widths, each with its ``_error``.
    r_squared, snr, chi_squared : ndarray (N,)
        As in `SpotFit`.
    rounds : ndarray (N,)
        Iterations.
    status : ndarray (N,) of int8
        `FitStatus` of each.
    """

    amplitude: Array
    position: Array
    sigma: Array
    angle: Array
    background: Array
    amplitude_error: Array
    position_error: Array
    sigma_error: Array
    angle_error: Array
    background_error: Array
    r_squared: Array
    snr: Array
    chi_squared: Array
    rounds: NDArray[np.int64]
    status: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.status)

    def __getitem__(self, i: int) -> SpotFit:
        spot = GaussianSpot(float(self.amplitude[i]), self.position[i].copy(), self.sigma[i].copy(),
                            float(self.angle[i]), float(self.background[i]))  # fmt: skip
        error = GaussianSpot(float(self.amplitude_error[i]), self.position_error[i].copy(), self.sigma_error[i].copy(),
                             float(self.angle_error[i]), float(self.background_error[i]))  # fmt: skip
        return SpotFit(spot, error, float(self.r_squared[i]), float(self.snr[i]), float(self.chi_squared[i]),
                       int(self.rounds[i]), FitStatus(int(self.status[i])))  # fmt: skip

    @property
    def ok(self) -> NDArray[np.bool_]:
        """(N,) True where the fit is accepted."""
        return np.asarray(self.status == FitStatus.OK)

    @property
    def y(self) -> Array:
        """(N,) rows of the centres, patch pixels."""
        return self.position[:, -2]

    @property
    def x(self) -> Array:
        """(N,) columns of the centres, patch pixels."""
        return self.position[:, -1]

    @property
    def y_error(self) -> Array:
        """(N,) standard errors of ``y``, pixels."""
        return self.position_error[:, -2]

    @property
    def x_error(self) -> Array:
        """(N,) standard errors of ``x``, pixels."""
        return self.position_error[:, -1]

    @property
    def sigma_y(self) -> Array:
        """(N,) widths along the axis nearest to y, pixels."""
        return self.sigma[:, -2]

    @property
    def sigma_x(self) -> Array:
        """(N,) widths along the axis nearest to x, pixels."""
        return self.sigma[:, -1]

    def to_frame(self) -> pd.DataFrame:
        """Return a table, one row a patch; lengths in pixels, the angle in degrees."""
        import pandas as pd

        axes = "zyx"[-self.position.shape[1] :]
        columns: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "status":
                columns["status"] = [FitStatus(int(v)).name.lower() for v in value]
            elif value.ndim == 2:
                stem, _, error = f.name.partition("_")
                for i, a in enumerate(axes):
                    name = a if stem == "position" else f"sigma_{a}"
                    columns[f"{name}_{error}_px" if error else f"{name}_px"] = value[:, i]
            elif f.name.startswith("angle"):
                columns[f"{f.name}_deg"] = np.rad2deg(value)
            else:
                columns[f.name] = value
        return pd.DataFrame(columns)
