"""Rebuild every sample: `python sample_data/make.py [FOLDER]`. Fixed seeds: the same environment gives the same bytes.

Each movie lies beside its truth, the transforms (moving -> reference, pixels) that align it exactly.
"""

import sys
from dataclasses import replace
from pathlib import Path

from stackalign import Simulation, save_transforms, simulate, write_stack

SAMPLES = {
    # beads on a stage that creeps and wanders, a frame every half second
    "drifting_beads": (
        Simulation(
            scene="beads",
            shape=(128, 128),
            frames=40,
            motion="smooth",
            amplitude=2.5,
            smoothness=6,
            drift_rate=(0.12, -0.2),
            spots=24,
            separation=9,
            psf_sigma=1.5,
            contrast=8,
            photons=60,
            seed=11,
        ),
        {"pixel_size": (0.108, 0.108), "interval": 0.5},
    ),
    # cells on a slide that turns by 12 degrees while it circles
    "rotating_cells": (
        Simulation(
            scene="cells",
            shape=(120, 144),
            frames=30,
            model="euclidean",
            motion="rotation",
            amplitude=4,
            rotation=12,
            spots=22,
            psf_sigma=1.4,
            contrast=4,
            photons=60,
            seed=12,
        ),
        {"pixel_size": (0.325, 0.325), "interval": 30.0},
    ),
    # a volume that drifts along all three axes, coarser along z
    "drifting_volume": (
        Simulation(
            scene="beads",
            shape=(12, 72, 80),
            frames=12,
            motion="smooth",
            amplitude=1.5,
            smoothness=4,
            drift_rate=(0.1, 0.25, -0.15),
            spots=40,
            psf_sigma=1.3,
            axial_sigma=1.8,
            contrast=10,
            photons=30,
            seed=13,
        ),
        {"pixel_size": (0.4, 0.16, 0.16), "interval": 60.0},
    ),
    # a texture in front of a camera that shakes, bleaches by a half and misses a frame
    "camera_shake": (
        Simulation(
            scene="texture",
            shape=(112, 136),
            frames=36,
            motion="uniform",
            amplitude=5,
            psf_sigma=1.2,
            photons=60,
            bleaching=0.5,
            blank=(17,),
            seed=14,
        ),
        {"pixel_size": (0.65, 0.65), "interval": 0.02},
    ),
}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (simulation, calibration) in SAMPLES.items():
        stack, truth = simulate(simulation)
        path = write_stack(folder / f"{name}.tif", replace(stack, **calibration), compression="deflate")
        save_transforms(folder / f"{name}.truth.json", truth.transforms, stack.metadata)
        print(f"{path}: {stack!r}, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
