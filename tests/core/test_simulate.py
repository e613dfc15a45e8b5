"""Simulated movies show what their truth says: checked by centroids, correlation, resampling and Monte Carlo."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from stackalign import ImageStack, Simulation, Transform, TransformSeries, Truth, moved, simulate
from stackalign.core.simulate.beads import Beads
from stackalign.core.simulate.field import Field
from stackalign.core.simulate.parameters import DRAWN, Scene

MODELS = ["translation", "euclidean", "similarity", "affine", "projective"]
Array = NDArray[np.float64]


def pixels(shape: tuple[int, ...]) -> Array:
    return np.stack(np.indices(shape, dtype=float), axis=-1)


def resampled(image: Array, truth: Truth, t: int) -> Array:
    """Frame t as the truth predicts it from frame 0: NaN where frame 0 does not reach (by four pixels)."""
    at = np.moveaxis(truth.transforms[t](pixels(image.shape)), -1, 0)
    out = ndimage.map_coordinates(image, at, order=5, mode="mirror")
    size = np.asarray(image.shape).reshape(-1, *(1,) * image.ndim)
    out[((at < 4) | (at > size - 5)).any(axis=0)] = np.nan
    return out


def one_bead(shape: tuple[int, ...], **options: object) -> Truth:
    """The first movie with a single bead, at least ten pixels from the border in all frames."""
    for seed in range(1000):
        _, truth = simulate(shape=shape, spots=1, separation=float(2 * max(shape)), seed=seed, **options)
        assert truth.spots is not None
        if (truth.spots[0] > 10).all() and (truth.spots[0] < np.asarray(shape) - 11).all():
            return truth
    raise AssertionError("no such movie")


@given(
    scene=st.sampled_from([*DRAWN, "camera", "cell"]),
    motion=st.sampled_from(["none", "random-walk", "smooth", "jumps", "uniform"]),
    model=st.sampled_from(MODELS),
    seed=st.integers(0, 2**63 - 1),
)
@settings(max_examples=25, deadline=None)
def test_laws(scene: str, motion: str, model: str, seed: int) -> None:
    record = Simulation(shape=(24, 31), frames=4, spots=3, scene=scene, motion=motion, model=model, seed=seed)
    stack, truth = simulate(record)
    assert np.array_equal(truth.transforms.matrices[0], np.eye(3))
    assert truth.transforms.model == model
    # any order of reading, any other object of the same record: the same bytes
    backwards = [stack[t] for t in (3, 2, 1, 0)][::-1]
    assert np.array_equal(backwards, simulate(record).stack.asarray())
    assert truth.clean(0).mean() == pytest.approx(record.offset + record.gain * record.photons, rel=1e-5)
    assert truth.error(truth.transforms).max() < 1e-9
    assert Simulation(**stack.metadata["simulation"]) == record


@pytest.mark.parametrize("scene", [name for name in get_args(Scene) if name not in DRAWN])
def test_every_photograph_is_there_without_a_download(scene: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("no connection")

    monkeypatch.setattr("socket.socket.connect", refuse)
    _, truth = simulate(scene=scene, shape=(64, 80), frames=2)
    assert np.isfinite(truth.cramer_rao).all()
    assert truth.clean(0).std() > 1


def test_seed_and_frames_are_independent() -> None:
    still = simulate(motion="none", shape=(32, 32), frames=3, seed=1).stack.asarray()
    assert not np.array_equal(still[0], still[1])
    assert not np.array_equal(still[0], simulate(motion="none", shape=(32, 32), frames=3, seed=2).stack[0])
    noise = still - simulate(motion="none", shape=(32, 32), frames=3, seed=1).truth.clean(0)
    assert abs(np.corrcoef(noise.reshape(3, -1))[0, 1:]).max() < 0.15


def test_the_stack_is_lazy_and_sliced_like_an_array() -> None:
    stack, _ = simulate(shape=(4096, 4096), frames=1000, scene="beads", motion="none")
    assert stack.shape == (1000, 4096, 4096)
    small, _ = simulate(shape=(16, 20), frames=5)
    whole = small.asarray()
    assert np.array_equal(small.frames[1:4, 2:5], whole[1:4, 2:5])
    assert np.array_equal(small.frames[-1], whole[-1])
    assert np.array_equal(small.frames[2, :, 3], whole[2, :, 3])
    with pytest.raises(IndexError):
        small.frames[5]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("shape", [(64, 80), (30, 40, 50)])
def test_a_bead_lies_where_the_truth_says(shape: tuple[int, ...], model: str) -> None:
    """The centroid over the background of the one bead in view is its position; no use is made of the transforms."""
    truth = one_bead(shape, model=model, frames=5, amplitude=1.5, rotation=2, psf_sigma=1.2)
    assert truth.spots is not None
    assert np.abs(truth.spots[0, 4] - truth.spots[0, 0]).min() > 0.02
    for t in range(5):
        light = truth.photons(t)
        light = light - light.min()
        centroid = (pixels(shape) * light[..., None]).reshape(-1, len(shape)).sum(0) / light.sum()
        assert np.allclose(centroid, truth.spots[0, t], atol=1e-6)


def test_a_bead_is_integrated_over_pixels() -> None:
    """Compared with a brute-force sum over 200 points a pixel and axis."""
    _, truth = simulate(shape=(20, 24), frames=1, spots=1, psf_sigma=0.7, contrast=3.0, seed=8)
    assert truth.spots is not None
    y, x = truth.spots[0, 0]
    fine = (np.arange(-100, 100) + 0.5) / 200
    rows = np.exp(-0.5 * ((np.arange(20)[:, None] + fine - y) / 0.7) ** 2).mean(1)
    columns = np.exp(-0.5 * ((np.arange(24)[:, None] + fine - x) / 0.7) ** 2).mean(1)
    light = 1 + 3.0 * np.outer(rows, columns)
    assert np.allclose(truth.photons(0), light * 100 / light.mean(), rtol=1e-5)


@pytest.mark.parametrize("contrast", [3.0, -0.7])
def test_beads_wider_than_the_frame_are_the_middle_of_a_larger_frame(contrast: float) -> None:
    positions = np.random.default_rng(2).uniform(-30, 50, (40, 2))
    small = Beads(positions, (6.0, 5.0), contrast, (20, 16)).render(np.eye(3))
    large = Beads(positions + 100, (6.0, 5.0), contrast, (220, 216)).render(np.eye(3))
    assert np.allclose(small, large[100:120, 100:116], rtol=0, atol=1e-6)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("scene", ["texture", "cells", "camera"])
def test_frames_agree_with_frame_0_resampled(scene: str, model: str) -> None:
    """Moving -> reference, about the centre, on a frame that is not square: scipy's resampler takes the truth as is."""
    _, truth = simulate(
        scene=scene, shape=(72, 100), model=model, frames=4, amplitude=2, rotation=3, psf_sigma=2.2, spots=8, seed=5
    )
    first = truth.clean(0)
    assert np.abs(truth.transforms[3]([0.0, 0.0])).min() > 0.3
    for t in (1, 3):
        expected = resampled(first, truth, t)
        seen = np.isfinite(expected)
        assert seen.mean() > 0.4
        assert np.abs(truth.clean(t) - expected)[seen].max() < 2e-3 * np.ptp(first)


def test_volumes_agree_with_frame_0_resampled() -> None:
    for scene in ("texture", "cells"):
        _, truth = simulate(
            scene=scene,
            shape=(20, 28, 36),
            model="euclidean",
            frames=3,
            amplitude=1,
            rotation=4,
            psf_sigma=2.2,
            spots=3,
        )
        expected = resampled(truth.clean(0), truth, 2)
        seen = np.isfinite(expected)
        assert seen.mean() > 0.2
        assert np.abs(truth.clean(2) - expected)[seen].max() < 5e-3 * np.ptp(truth.clean(0))


def fourier_sum(samples: Array, points: Array) -> Array:
    """The trigonometric polynomial through periodic samples, term by term, at points (N, d) in samples."""
    spectrum = np.fft.fftn(samples)
    found = np.zeros(len(points))
    for p, at in enumerate(points):
        value = spectrum
        for axis, n in enumerate(samples.shape):
            f = np.fft.fftfreq(n)
            wave = np.exp(2j * np.pi * f * at[axis])
            wave[np.abs(f) == 0.5] = np.cos(np.pi * at[axis])
            value = np.tensordot(wave, value, axes=(0, 0))
        found[p] = value.real / samples.size
    return found


@pytest.mark.parametrize(
    ("shape", "sigma", "model", "bound"),
    [
        ((45, 60), 0.6, "translation", 5e-6),
        ((45, 60), 0.6, "euclidean", 1e-3),
        ((45, 60), 1.3, "projective", 2e-5),
        ((15, 18, 20), 1.0, "translation", 5e-6),
        ((15, 18, 20), 1.0, "euclidean", 2e-4),
        ((15, 18, 20), 1.3, "affine", 5e-5),
    ],
)
def test_fields_are_read_as_exactly_as_the_page_says(
    shape: tuple[int, ...], sigma: float, model: str, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    for period, room in ((shape, 2**25), (tuple(n + 1 for n in shape), 2**25), (shape, 0)):  # even, odd; a huge scene
        monkeypatch.setattr("stackalign.core.simulate.field.ROOM", room)
        bound = max(bound, 5e-3) if not room and sigma >= 1.3 else bound
        whole = Field(rng.random(period), np.zeros(len(shape)), period, [sigma] * len(shape))
        samples = whole.render(np.eye(len(shape) + 1)).astype(float)
        matrix = simulate(shape=shape, frames=2, model=model, scene="texture", rotation=4).truth.transforms[1]
        seen = whole.render(matrix.matrix)
        some = rng.integers(0, shape, (60, len(shape)))
        expected = fourier_sum(samples, matrix(some))
        assert np.abs(seen[tuple(some.T)] - expected).max() / samples.std() < bound


@pytest.mark.parametrize("scene", [*DRAWN, "hubble_deep_field"])
def test_drift_moves_the_scene_and_content_enters(scene: str) -> None:
    _, truth = simulate(scene=scene, shape=(48, 64), frames=9, motion="none", drift_rate=(0.25, -0.5), seed=3)
    assert np.allclose(truth.drift[8], (2, -4))
    assert np.allclose(truth.transforms.translations[8], (-2, 4))
    first, last = truth.clean(0), truth.clean(8)
    assert np.allclose(last[2:, :-4], first[:-2, 4:], atol=2e-5 * np.ptp(first))
    assert np.abs(np.roll(first, (2, -4), (0, 1)) - last).max() > 0.05 * np.ptp(first)


def test_a_texture_does_not_continue_at_the_opposite_border() -> None:
    """A periodic frame would flatter every method that works with Fourier transforms."""
    _, truth = simulate(scene="texture", shape=(96, 96), frames=1, seed=6)
    frame = truth.clean(0)
    across, apart = (np.abs(frame[0] - frame[k]).mean() for k in (-1, 48))
    assert across > 0.7 * apart


@pytest.mark.parametrize(
    "options",
    [
        {"scene": "texture"},
        {"scene": "texture", "read_noise": 0.0},
        {"scene": "beads", "shot_noise": False, "read_noise": 5.0},
        {"scene": "cells", "gain": 2.5, "offset": 20.0, "photons": 30.0, "dtype": "float32"},
    ],
)
def test_noise_has_the_stated_mean_and_variance(options: dict) -> None:
    stack, truth = simulate(shape=(100, 120), frames=2, motion="none", **options)
    record, clean = truth.simulation, truth.clean(1)
    photons = (clean - record.offset) / record.gain
    expected = (photons * record.shot_noise + record.read_noise**2) * record.gain**2
    expected += 1 / 12 if stack.dtype.kind == "u" else 0
    z = (stack[1] - clean) / np.sqrt(expected)
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert z.var() == pytest.approx(1, abs=5 * np.sqrt(2.1 / z.size))


def test_light_and_camera() -> None:
    quiet = {"shape": (32, 40), "shot_noise": False, "read_noise": 0.0, "motion": "none", "scene": "texture"}
    _, truth = simulate(frames=11, bleaching=0.6, blank=(4,), offset=0, **quiet)
    assert truth.clean(10).mean() == pytest.approx(0.4 * truth.clean(0).mean())
    assert truth.clean(5).mean() == pytest.approx(0.4**0.5 * truth.clean(0).mean())
    assert not truth.clean(4).any()
    stack, truth = simulate(frames=1, bit_depth=8, **quiet)
    assert stack[0].max() == 255
    assert (stack[0][truth.clean(0) > 256] == 255).all()
    stack, truth = simulate(frames=1, dtype="float32", **quiet)
    assert np.allclose(stack[0], truth.clean(0), rtol=1e-6)
    stack, truth = simulate(frames=1, dtype="int16", **{**quiet, "offset": -500})
    assert stack.dtype == np.int16
    assert stack[0].min() < -300


def test_blinking_beads_are_dark_the_stated_time() -> None:
    for dark in (0.3, 0.85):
        _, truth = simulate(shape=(64, 64), spots=200, frames=200, blinking=dark, motion="none", separation=0)
        assert truth.visible is not None
        inside = truth.visible[:200]
        assert 1 - inside.mean() == pytest.approx(dark, abs=0.03)
    assert truth.spots is not None
    # a dark bead leaves no light: the frame without it is the background there
    t = int(np.flatnonzero(~inside[0])[0])
    alone = simulate(shape=(64, 64), spots=1, frames=60, blinking=0.5, motion="none", separation=100, seed=2).truth
    assert alone.visible is not None
    t = int(np.flatnonzero(~alone.visible[0])[0])
    assert np.ptp(alone.photons(t)) < 1e-9


def test_dark_beads_absorb_and_stay_positive() -> None:
    _, truth = simulate(shape=(32, 32), spots=60, contrast=-0.9, frames=1, shot_noise=False, offset=0)
    frame = truth.photons(0)
    assert frame.min() > 0
    assert frame.min() < 0.3 * np.median(frame)


def test_spots_keep_their_distance_and_number() -> None:
    _, truth = simulate(shape=(64, 80), spots=30, separation=8, frames=20, amplitude=3, seed=2)
    assert truth.spots is not None
    assert truth.visible is not None
    assert truth.visible[:30, 0].all()
    assert truth.visible[:, 0].sum() == 30
    first = truth.spots[:, 0]
    gaps = np.linalg.norm(first[:, None] - first, axis=-1) + 1e9 * np.eye(len(first))
    assert gaps.min() >= 8
    # at every moment about as many are in view: content enters as much as it leaves
    assert truth.visible.sum(0).min() > 10
    assert simulate(scene="texture").truth.spots is None
    assert simulate(scene="texture").truth.visible is None


def central_difference(truth: Truth, axis: int) -> Array:
    """Slope of the noise-free counts, from the scene itself, by the fourth-order formula."""

    def counts(step: float) -> Array:
        matrix = np.eye(3)
        matrix[axis, 2] = step
        scale = truth.photons(0).mean() / truth.scene.render(np.eye(3)).mean()
        return np.asarray(truth.scene.render(matrix) * scale, float)

    return (8 * (counts(0.1) - counts(-0.1)) - (counts(0.2) - counts(-0.2))) / 1.2


def test_the_bound_is_reached_by_an_efficient_estimator() -> None:
    """Monte Carlo: weighted least squares against the known scene, whose model here is an independent spline."""
    stack, truth = simulate(
        scene="texture", shape=(32, 40), frames=400, motion="none", psf_sigma=1.6, photons=200, seed=7
    )
    clean = truth.clean(0)
    slopes = np.empty((2, *clean.shape))
    # derivative of the quintic spline through the noise-free frame, by a small shift
    for axis in (0, 1):
        step = np.zeros(2)
        step[axis] = 0.02
        ahead, behind = (ndimage.shift(clean, -s, order=5, mode="mirror") for s in (step, -step))
        slopes[axis] = (ahead - behind) / 0.04
    # the mirror bends the borders: leave them out of the estimate and take the bound of what is left
    inner = (slice(8, -8), slice(8, -8))
    weight = 1 / (clean - 100 + 4 + 1 / 12)[inner]
    inner_slopes = slopes[(slice(None), *inner)]
    design = inner_slopes.reshape(2, -1)
    information = (design * weight.ravel()) @ design.T
    estimates = np.array(
        [np.linalg.solve(information, (design * weight.ravel()) @ (f - clean)[inner].ravel()) for f in stack]
    )
    whole = truth.cramer_rao
    assert whole.shape == (400, 2)
    assert np.allclose(whole, whole[0])
    part = np.sqrt(np.diag(np.linalg.inv(information)))
    assert estimates.std(0) == pytest.approx(part, rel=0.1)
    # the bound of the whole frame: the same sum over all pixels, with content entering at the borders
    slopes = np.stack([central_difference(truth, axis) for axis in (0, 1)])
    weight = 1 / (clean - 100 + 4 + 1 / 12)
    design = slopes.reshape(2, -1)
    assert np.allclose(slopes[(slice(None), *inner)] / np.ptp(slopes), inner_slopes / np.ptp(slopes), atol=1e-3)
    information = (design * weight.ravel()) @ design.T
    estimates = np.array([np.linalg.solve(information, (design * weight.ravel()) @ (f - clean).ravel()) for f in stack])
    assert estimates.std(0) == pytest.approx(whole[0], rel=0.1)
    assert np.sqrt(np.diag(np.linalg.inv(information))) == pytest.approx(whole[0], rel=1e-3)


def test_the_bound_of_beads_agrees_with_theory() -> None:
    """One bright bead, hardly any background or read noise: sigma / sqrt(photons), with the pixel's width added."""
    truth = one_bead((33, 33), frames=1, contrast=1e5, read_noise=0, photons=50, psf_sigma=1.5)
    expected = np.sqrt(1.5**2 + 1 / 12) / np.sqrt(50 * 33 * 33)
    assert truth.cramer_rao[0] == pytest.approx([expected, expected], rel=0.02)


def test_the_bound_where_there_is_nothing_to_tell() -> None:
    _, truth = simulate(shape=(24, 24), frames=4, blank=(2,), scene="texture")
    assert np.isinf(truth.cramer_rao[2]).all()
    assert np.isfinite(truth.cramer_rao[[0, 1, 3]]).all()
    perfect = simulate(shape=(24, 24), frames=1, shot_noise=False, read_noise=0, dtype="float32").truth
    assert not perfect.cramer_rao.any()
    flat = simulate(shape=(24, 24), frames=1, contrast=0).truth
    assert np.isinf(flat.cramer_rao).all()


@pytest.mark.parametrize("model", ["translation", "euclidean"])
def test_error_ignores_the_gauge_and_finds_a_bad_frame(model: str) -> None:
    _, truth = simulate(shape=(40, 64), frames=9, model=model, amplitude=3, rotation=2)
    offset = Transform.from_rotation(0.05 if model == "euclidean" else 0.0, (3.0, -8.0))
    estimate = TransformSeries(offset.matrix @ truth.transforms.matrices, model)
    assert truth.error(estimate).max() < 1e-9
    bad = estimate.replaced(4, Transform.from_translation((3.0, 4.0)) @ estimate[4])
    error = truth.error(bad)
    assert error[4] == pytest.approx(5, rel=1e-6)
    assert np.delete(error, 4).max() < 1e-3


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_error_of_noisy_translations(seed: int) -> None:
    _, truth = simulate(shape=(40, 64), frames=60)
    noise = np.random.default_rng(seed).normal(0, 0.1, (60, 2))
    error = truth.error(TransformSeries.from_translations(truth.transforms.translations + noise))
    centred = noise - noise.mean(0)
    # the least absolute offset lies close to the mean
    assert np.sqrt((error**2).mean()) == pytest.approx(np.sqrt((centred**2).sum(1).mean()), rel=0.05)


def test_error_counts_frames_not_valid_but_not_their_offset() -> None:
    _, truth = simulate(shape=(40, 64), frames=5)
    shifts = truth.transforms.translations.copy()
    shifts[1:] += 7
    estimate = TransformSeries.from_translations(shifts, [True, False, False, False, False])
    assert np.allclose(truth.error(estimate), [0, *[np.sqrt(2) * 7] * 4])
    nothing = estimate.with_valid(np.zeros(5, bool))
    assert np.isfinite(truth.error(nothing)).all()
    plane = simulate(shape=(1, 40, 64), frames=3, model="euclidean", spots=4).truth
    assert plane.error(plane.transforms).max() < 1e-9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scene": "elephant"}, "scene"),
        ({"sene": "beads"}, "sene"),
        ({"shape": (4, 4)}, "at least 8 pixels"),
        ({"shape": (8, 64, 64), "scene": "camera"}, "plane image"),
        ({"drift_rate": (1.0,)}, "drift_rate needs 2 numbers"),
        ({"motion": "rotation"}, "needs a model that rotates"),
        ({"frames": 5, "blank": (5,)}, "blank names frames beyond 0 to 4"),
        ({"spots": 500, "separation": 30.0, "shape": (64, 64)}, "choose fewer 'spots' or a smaller 'separation'"),
        ({"drift_rate": (500.0, 500.0), "frames": 1000}, "sweeps over"),
        ({"model": "projective", "perspective": 100, "shape": (16, 16)}, "frame [0-9]+: the perspective folds"),
    ],
)
def test_errors_say_what_to_change(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        simulate(**options)


def test_errors_of_the_truth() -> None:
    _, truth = simulate(shape=(16, 16), frames=3)
    with pytest.raises(IndexError, match="frame 3 of a simulation of 3 frames"):
        truth.clean(3)
    with pytest.raises(ValueError, match="the movie has 3 frames in 2-D, the estimate 2"):
        truth.error(TransformSeries.identity(2, 2))
    with pytest.raises(ValueError, match="3-D"):
        truth.error(TransformSeries.identity(3, 3))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_moved_keeps_the_pixel_type_and_moves_whole_pixels_exactly(dtype: str) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 250, (31, 44)).astype(dtype)
    image = ndimage.gaussian_filter(image.astype(float), 1.5).astype(dtype)
    out = moved(image, TransformSeries.from_translations([(0, 0), (-3, 5)]))
    assert out.dtype == image.dtype
    assert np.allclose(out[0], image, atol=1)
    assert np.allclose(out[1][3:, :-5], image[:-3, 5:], atol=1)
    # what enters is the image mirrored at its border
    assert np.allclose(out[1][:3, :-5], image[2::-1, 5:], atol=1)


@pytest.mark.parametrize("model", MODELS)
def test_moved_follows_the_transforms(model: str) -> None:
    truth = simulate(
        shape=(60, 84), frames=3, model=model, amplitude=2, rotation=3, scene="texture", psf_sigma=2.2
    ).truth
    image = truth.clean(0).astype(np.float32)
    result = moved(image, truth.transforms)
    expected = resampled(image.astype(float), truth, 2)
    seen = np.isfinite(expected)
    # the mirrored border has a kink whose ringing reaches a few pixels inwards
    assert np.abs(result[2] - expected)[seen].max() < 0.01 * np.ptp(image)
    assert np.abs(result[2] - truth.clean(2))[seen].max() < 0.01 * np.ptp(image)


def test_moved_moves_the_frames_of_a_stack() -> None:
    stack, truth = simulate(shape=(40, 52), frames=3, scene="texture", motion="none", psf_sigma=2, dtype="float32")
    shifts = TransformSeries.from_translations([(0, 0), (1, -2), (0.5, 0.25)])
    out = moved(ImageStack(stack.asarray(), pixel_size=(0.2, 0.1), interval=3.0), shifts)
    assert out.pixel_size == (0.2, 0.1)
    assert out.interval == 3.0
    assert np.allclose(out[1][:-1, 2:], stack[1][1:, :-2], atol=0.05)
    # the noise of each frame is its own and keeps its strength under a fractional shift
    noise = stack[2] - truth.clean(2)
    kept = out[2][4:-4, 4:-4] - ndimage.shift(truth.clean(2), (-0.5, -0.25), order=5)[4:-4, 4:-4]
    assert kept.std() == pytest.approx(noise.std(), rel=0.1)


def test_errors_of_moved() -> None:
    shifts = TransformSeries.identity(2, 2)
    with pytest.raises(ValueError, match="ImageStack"):
        moved(np.zeros((2, 8, 8)), shifts)
    with pytest.raises(ValueError, match="do not fit a stack of 3 frames"):
        moved(ImageStack(np.zeros((3, 8, 8))), shifts)
    with pytest.raises(ValueError, match="NaN"):
        moved(np.full((8, 8), np.nan), shifts)
    broken = moved(ImageStack(np.full((2, 8, 8), np.nan)), shifts)
    with pytest.raises(ValueError, match="frame 1 holds NaN"):
        broken[1]
