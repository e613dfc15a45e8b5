"""The record of a simulation: scene, shape, motion, light and camera. Lengths in pixels, angles in degrees."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from stackalign.core.parameters import Parameters
from stackalign.core.transform import TransformModel

DRAWN = ("beads", "texture", "cells")
Scene = Literal[
    "beads",
    "texture",
    "cells",
    "astronaut",
    "brick",
    "camera",
    "cat",
    "cell",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "microaneurysms",
    "moon",
    "page",
    "retina",
    "rocket",
    "text",
]
Motion = Literal["none", "random-walk", "smooth", "jumps", "rotation", "uniform"]
Dtype = Literal["uint8", "uint16", "int16", "float32"]


class Simulation(Parameters):
    """What `simulate` makes: a scene that moves in front of a camera, and exactly how."""

    scene: Scene = Field(
        "beads",
        title="Scene",
        description="Gaussian spots, a random texture, drawn cells, or a photograph of scikit-image (2-D only)",
    )
    shape: tuple[int, ...] = Field(
        (256, 256),
        title="Frame shape",
        description="(y, x), or (z, y, x) for volumes",
        min_length=2,
        max_length=3,
        json_schema_extra={"unit": "px"},
    )
    frames: int = Field(50, title="Frames", description="Length of the movie", ge=1, le=1_000_000)
    motion: Motion = Field(
        "random-walk",
        title="Motion",
        description="How the scene moves from frame to frame; frame 0 is always at rest",
    )
    model: TransformModel = Field(
        TransformModel.TRANSLATION,
        title="Model",
        description="Family of the motion: beyond a translation the amounts below that it allows are drawn too",
    )
    amplitude: float = Field(
        1.0,
        title="Amplitude",
        description="Shift per axis. random-walk: standard deviation of a step; smooth: of the motion; jumps: of a"
        " jump; uniform: the largest shift; rotation: the circle's radius",
        ge=0,
        le=10_000,
        json_schema_extra={"unit": "px"},
    )
    rotation: float = Field(
        1.0,
        title="Rotation",
        description="Angle about the image centre, in the sense of the amplitude; motion 'rotation': the angle reached"
        " at the last frame. Counts from the Euclidean model on",
        ge=0,
        le=180,
        json_schema_extra={"unit": "deg"},
    )
    stretch: float = Field(
        0.01,
        title="Stretch",
        description="Relative change of size (similarity) or of each entry of a symmetric stretch (affine and beyond)",
        ge=0,
        le=0.3,
        json_schema_extra={"advanced": True},
    )
    perspective: float = Field(
        1.0,
        title="Perspective",
        description="Displacement of the corners by the projective part alone",
        ge=0,
        le=100,
        json_schema_extra={"unit": "px", "advanced": True},
    )
    drift_rate: tuple[float, ...] = Field(
        (),
        title="Drift rate",
        description="Steady motion of the scene on top, (y, x) or (z, y, x) a frame; empty for none",
        max_length=3,
        json_schema_extra={"unit": "px/frame"},
    )
    smoothness: float = Field(
        5.0,
        title="Smoothness",
        description="Motion 'smooth': the Gaussian filter's standard deviation in time",
        gt=0,
        le=10_000,
        json_schema_extra={"unit": "frames", "advanced": True},
    )
    jump_rate: float = Field(
        0.1,
        title="Jump rate",
        description="Motion 'jumps': chance of a jump at a frame",
        ge=0,
        le=1,
        json_schema_extra={"advanced": True},
    )
    psf_sigma: float = Field(
        1.3,
        title="PSF sigma",
        description="Standard deviation of the Gaussian point spread function that blurs every scene",
        ge=0.6,
        le=50,
        json_schema_extra={"unit": "px"},
    )
    axial_sigma: float | None = Field(
        None,
        title="Axial PSF sigma",
        description="The same along z in volumes; none: as in the plane",
        ge=0.6,
        le=50,
        json_schema_extra={"unit": "px", "advanced": True},
    )
    spots: int = Field(
        40,
        title="Spots",
        description="Beads or cells in the area of a frame; the scene goes on beyond it at the same density",
        ge=1,
        le=1_000_000,
    )
    contrast: float = Field(
        5.0,
        title="Contrast",
        description="Peak of a bead (or brightest cell) over the background, in units of the background;"
        " negative (to -1): dark ones",
        ge=-1,
        le=100_000,
        json_schema_extra={"advanced": True},
    )
    separation: float = Field(
        0.0,
        title="Separation",
        description="Least distance between beads",
        ge=0,
        json_schema_extra={"unit": "px", "advanced": True},
    )
    photons: float = Field(
        100.0,
        title="Photons",
        description="Mean number of photons a pixel detects in a frame before bleaching",
        gt=0,
        le=1e9,
        json_schema_extra={"unit": "photons/px"},
    )
    shot_noise: bool = Field(True, title="Shot noise", description="Poisson noise of the photons")
    read_noise: float = Field(
        2.0,
        title="Read noise",
        description="Standard deviation of the camera's Gaussian noise",
        ge=0,
        le=1e6,
        json_schema_extra={"unit": "photons"},
    )
    gain: float = Field(
        1.0,
        title="Gain",
        description="Counts written for one photon",
        gt=0,
        le=1e6,
        json_schema_extra={"unit": "counts/photon", "advanced": True},
    )
    offset: float = Field(
        100.0,
        title="Offset",
        description="Counts written in the dark",
        ge=-1e6,
        le=1e6,
        json_schema_extra={"unit": "counts", "advanced": True},
    )
    bleaching: float = Field(
        0.0,
        title="Bleaching",
        description="Fraction of the light lost, exponentially, between the first and the last frame",
        ge=0,
        lt=1,
    )
    blinking: float = Field(
        0.0,
        title="Blinking",
        description="Fraction of the time that a bead is dark; dark spells last three frames on average",
        ge=0,
        le=0.9,
        json_schema_extra={"advanced": True},
    )
    flicker: float = Field(
        0.0,
        title="Flicker",
        description="Fraction of the pixels that lie in cells lit at any moment; each is lit a fifth of the time."
        " In cells, textures and photographs (2-D)",
        ge=0,
        le=0.5,
    )
    flicker_brightness: float = Field(
        3.0,
        title="Flicker brightness",
        description="Brightness of a lit cell, times that of the scene where it is",
        ge=0,
        le=1000,
        json_schema_extra={"advanced": True},
    )
    flicker_radius: float = Field(
        6.0,
        title="Flicker radius",
        description="Radius of those cells",
        ge=1,
        le=1000,
        json_schema_extra={"unit": "px", "advanced": True},
    )
    blank: tuple[int, ...] = Field(
        (),
        title="Blank frames",
        description="Frames in which the light is off",
        json_schema_extra={"advanced": True},
    )
    dtype: Dtype = Field("uint16", title="Pixel type", description="What the camera writes; integers are rounded")
    bit_depth: int | None = Field(
        None,
        title="Bit depth",
        description="The camera saturates at 2^bits - 1 counts; none: at the end of the pixel type's range",
        ge=1,
        le=16,
        json_schema_extra={"unit": "bits", "advanced": True},
    )
    seed: int = Field(0, title="Seed", description="Same seed, same movie, to the last bit", ge=0, le=2**63 - 1)

    @model_validator(mode="after")
    def _consistent(self) -> Simulation:
        if min(self.shape) < 1 or (np.asarray(self.shape[-2:]) < 8).any():
            raise ValueError(f"shape must be at least 8 pixels in y and x and 1 in z, got {self.shape}")
        if self.drift_rate and len(self.drift_rate) != self.ndim:
            raise ValueError(f"drift_rate needs {self.ndim} numbers for frames of shape {self.shape}")
        if self.ndim == 3 and self.scene not in DRAWN:
            raise ValueError(f"scene {self.scene!r} is a plane image: volumes are made of {', '.join(DRAWN)}")
        if self.motion == "rotation" and self.model is TransformModel.TRANSLATION:
            raise ValueError("motion 'rotation' needs a model that rotates: euclidean, similarity, affine, projective")
        if self.flicker and (self.ndim == 3 or self.scene == "beads"):
            raise ValueError("flicker is for cells, textures and photographs (2-D): beads may blink instead")
        if self.blank and not all(0 <= t < self.frames for t in self.blank):
            raise ValueError(f"blank names frames beyond 0 to {self.frames - 1}: {self.blank}")
        return self

    @property
    def ndim(self) -> int:
        """Spatial dimensions, 2 or 3."""
        return len(self.shape)

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Standard deviation of the point spread function along each axis, pixels."""
        axial = self.psf_sigma if self.axial_sigma is None else self.axial_sigma
        return (self.psf_sigma,) * 2 if self.ndim == 2 else (axial, self.psf_sigma, self.psf_sigma)

    @property
    def drift(self) -> tuple[float, ...]:
        """Steady drift of the scene along each axis, pixels a frame."""
        return self.drift_rate or (0.0,) * self.ndim
