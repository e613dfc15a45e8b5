"""Frames that only their neighbours give away: found where they are, and nowhere else."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

import stackalign as sa
from stackalign.core.frames.bad_frames import find_bad_frames
from stackalign.core.work import drain

SAMPLES = Path(__file__).parents[3] / "sample_data"
SHARED = Path(__file__).parents[4] / "shared" / "data"
BAD = 13


def bad_frames(frames, **named) -> dict[int, str]:
    return drain(find_bad_frames(sa.ImageStack.of(frames), **named)).unwrap()


@pytest.fixture(scope="module")
def simulated():
    return sa.simulate(scene="texture", shape=(144, 160), frames=24, amplitude=1.5, photons=500.0, seed=4)


def damaged(simulated, kind: str) -> np.ndarray:
    frames = simulated.stack.asarray()
    middle, frame = frames.shape[1] // 2, frames[BAD]
    rng = np.random.default_rng(0)
    match kind:
        case "blank":
            frame[:] = 17
        case "saturated":
            frame[:] = 65535
            frame[:20] = 400
        case "half black":
            frame[middle:] = 0
        case "half repeated":
            frame[middle:] = frame[middle]
        case "half shifted":
            frame[middle:] = np.roll(frame[middle:], 40, axis=1)
        case "half of an earlier frame":
            frame[middle:] = np.roll(frames[2], (30, 20), axis=(0, 1))[middle:]
        case "out of focus":
            frame[:] = rng.poisson(gaussian_filter(simulated.truth.photons(BAD), 4)) + 100
        case "duplicated":
            frame[:] = frames[BAD - 1]
    return frames


KINDS = {
    "blank": "blank", "saturated": "saturated", "half black": "half read", "half repeated": "half read",
    "half shifted": "torn at row 72", "half of an earlier frame": "torn at row 72", "out of focus": "out of focus",
    "duplicated": "duplicated: the same as frame 12",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_frame_is_found_with_its_reason_and_no_other(kind, simulated):
    found = bad_frames(damaged(simulated, kind))
    assert list(found) == [BAD]
    assert found[BAD].startswith(KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_registration_flags_it_and_interpolates(kind, simulated):
    result = sa.register(damaged(simulated, kind), sa.CrossCorrelation())
    assert np.flatnonzero(result.quality.flagged).tolist() == [BAD]
    assert np.flatnonzero(~result.transforms.valid).tolist() == [BAD]
    assert result.quality.reasons[BAD].startswith(KINDS[kind])
    shifts = result.transforms.translations
    np.testing.assert_allclose(shifts[BAD], (shifts[BAD - 1] + shifts[BAD + 1]) / 2)
    assert np.delete(simulated.truth.error(result.transforms), BAD).max() < 0.1


def test_it_can_be_switched_off(simulated):
    frames = damaged(simulated, "duplicated")
    result = sa.register(frames, sa.CrossCorrelation(), preprocess=sa.Preprocess(bad_frames=False))
    assert not result.quality.flagged.any()
    blank = sa.register(damaged(simulated, "blank"), sa.CrossCorrelation(), preprocess=sa.Preprocess(bad_frames=False))
    assert blank.quality.reasons[BAD].startswith("blank")


def test_a_frame_that_the_user_names_is_used(simulated):
    frames = damaged(simulated, "duplicated")
    result = sa.register(frames, sa.CrossCorrelation(), reference=BAD)
    assert not result.quality.flagged.any()
    with pytest.raises(ValueError, match=f"frame {BAD} cannot be the reference: blank"):
        sa.register(damaged(simulated, "blank"), sa.CrossCorrelation(), reference=BAD)


def test_several_bad_frames_do_not_hide_each_other(simulated):
    frames = simulated.stack.asarray()
    frames[3, 80:] = 0
    frames[8] = frames[7]
    frames[9] = 0
    frames[15, 60:] = np.roll(frames[15, 60:], 33, axis=1)
    frames[20] = np.random.default_rng(1).poisson(gaussian_filter(simulated.truth.photons(20), 5)) + 100
    assert list(bad_frames(frames)) == [3, 8, 9, 15, 20]


@pytest.mark.parametrize(
    "changes",
    [
        {"scene": "beads", "blinking": 0.4},
        {"scene": "cells", "model": "euclidean", "motion": "rotation", "rotation": 60.0},
        {"scene": "text", "motion": "jumps", "amplitude": 12.0, "shape": (96, 128)},
        {"scene": "brick", "motion": "uniform", "amplitude": 40.0},
        {"scene": "beads", "bleaching": 0.9},
        {"scene": "texture", "photons": 3.0},
        {"scene": "retina", "photons": 5.0, "shape": (121, 151), "motion": "uniform", "amplitude": 5.0},
        {"scene": "camera", "motion": "jumps", "amplitude": 90.0, "jump_rate": 0.5},
        {"scene": "cells", "shape": (6, 96, 96)},
    ],
)
def test_good_frames_pass_whatever_moves(changes):
    for seed in range(2):
        stack, _ = sa.simulate(**({"shape": (128, 144), "frames": 20, "seed": seed} | changes))
        assert bad_frames(stack) == {}


def test_an_aligned_movie_with_filled_borders_passes(simulated):
    result = sa.register(simulated.stack, sa.CrossCorrelation())
    assert bad_frames(sa.warp(simulated.stack, result.transforms)) == {}
    assert (
        bad_frames(sa.warp(simulated.stack, sa.TransformSeries.from_translations(np.outer(range(24), (1, -1))))) == {}
    )


def test_a_still_movie_without_noise_holds_no_duplicates():
    image = sa.simulate(frames=1, seed=1).stack[0]
    assert bad_frames(np.repeat(image[None], 12, axis=0)) == {}


@pytest.mark.parametrize("name", ["drifting_beads", "camera_shake", "rotating_cells", "drifting_volume"])
def test_no_false_alarm_on_the_samples(name):
    assert bad_frames(sa.read_stack(SAMPLES / f"{name}.tif")) == {}


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not there")
def test_no_false_alarm_on_real_movies():
    movies = {
        "reflection": np.stack([tifffile.imread(f) for f in sorted((SHARED / "reflection_particles").glob("*.tif"))]),
        "mouse": tifffile.imread(SHARED / "mouse" / "mouse_500x64x64_int16.tif"),
        "stuck": tifffile.imread(SHARED / "stuck_beads" / "stuck.tif"),
        "fish": np.stack([tifffile.imread(f) for f in sorted((SHARED / "fish").glob("*.tif"))]),
    } | {f.stem: tifffile.imread(f) for f in (SHARED / "pc12").glob("*.tif")}
    assert {name: found for name, m in movies.items() if (found := bad_frames(m))} == {}
