"""The parameters of tracking: how particles are fitted and followed."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydantic import Field

from stackalign.core.parameters import Parameters

SpotModel: TypeAlias = Literal["circular", "elliptic", "rotated"]
Estimator: TypeAlias = Literal["mle", "lsq"]
Polarity: TypeAlias = Literal["auto", "bright", "dark"]
AHEAD, AHEAD_BYTES = 64, 1 << 28  # frames, bytes


class TrackOptions(Parameters):
    """How particles are fitted and followed."""

    spot: SpotModel = Field(
        "rotated",
        title="Spot shape",
        description="Circular: one width; elliptic: one along each axis; rotated: two widths and an angle",
    )
    estimator: Literal["auto", "mle", "lsq"] = Field(
        "auto",
        title="Estimator",
        description="Poisson maximum likelihood (mle) once the camera's gain is given, least squares (lsq) until then",
        json_schema_extra={"advanced": True},
    )
    polarity: Polarity = Field(
        "auto", title="Particles are", description="Bright or dark on their surroundings; auto: as picked"
    )
    search: float = Field(
        25.0,
        title="Search radius",
        description="How far a particle may be from where it is expected in the next frame",
        ge=1,
        le=1000,
        json_schema_extra={"unit": "px"},
    )
    min_r_squared: float = Field(
        0.2,
        title="Least R²",
        description="A fit that explains less of its box is no find",
        ge=0,
        le=1,
        json_schema_extra={"advanced": True},
    )
    gain: float | None = Field(
        None,
        title="Camera gain",
        description="Counts per photo-electron; empty if not known",
        gt=0,
        json_schema_extra={"unit": "counts/e-", "advanced": True},
    )
    offset: float = Field(
        0.0, title="Camera offset", description="Counts in the dark", json_schema_extra={"advanced": True}
    )
    read_noise: float = Field(
        0.0,
        title="Read noise",
        description="Standard deviation of the camera's read noise",
        ge=0,
        json_schema_extra={"unit": "e-", "advanced": True},
    )

    readers: int | None = Field(
        None,
        title="Readers",
        description="Threads that read frames at once; empty: one a core. On a spinning disk 1 is fastest",
        ge=1,
        le=64,
        json_schema_extra={"advanced": True},
    )
    read_ahead: int | None = Field(
        None,
        title="Frames read ahead",
        description="Frames that wait in memory for their turn; empty: up to 64, in 256 MB",
        ge=1,
        le=10_000,
        json_schema_extra={"advanced": True},
    )

    def frames_ahead(self, size: int) -> int:
        """Return how many frames of ``size`` bytes are read ahead."""
        if self.read_ahead is not None:
            return self.read_ahead
        return min(max(AHEAD_BYTES // max(size, 1), 2), AHEAD)

    @property
    def fit_options(self) -> dict[str, Any]:
        """Arguments of `fit_spots`."""
        estimator: Estimator = "mle" if self.gain is not None else "lsq"
        if self.estimator != "auto":
            estimator = self.estimator
        return {
            "model": self.spot,
            "estimator": estimator,
            "gain": 1.0 if self.gain is None else self.gain,
            "offset": self.offset,
            "read_noise": self.read_noise,
            "min_r_squared": self.min_r_squared,
        }
