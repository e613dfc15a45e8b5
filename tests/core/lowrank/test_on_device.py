"""Joint alignment through torch: what compiled functions find, on the processor and, where there is one, on a card."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import maximum_filter

import stackalign as sa
from stackalign.core.frames.noise import NoiseModel
from stackalign.core.generators import moved_points
from stackalign.core.geometry import corners
from stackalign.core.lowrank.level import Level
from stackalign.core.lowrank.on_processor.images import ProcessorImages
from stackalign.core.lowrank.placing import Placed, stepped
from stackalign.core.lowrank.solution import SolverOptions
from stackalign.core.lowrank.state import State
from stackalign.core.transform import TransformModel
from stackalign.core.warping.resample import spline_coefficients, warp_frame
from stackalign.core.work import Cancelled, drain
from tests.core.lowrank.scenes import movie

torch = pytest.importorskip("torch")

from stackalign.core.lowrank.on_device import images as device_images  # noqa: E402
from stackalign.core.lowrank.on_device import splines  # noqa: E402
from stackalign.core.lowrank.on_device.comparison import largest_nearby  # noqa: E402

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))
SMALL = {"shape": (97, 103), "frames": 5}  # two sizes, odd
MASK = np.ones(SMALL["shape"], bool)
MASK[:40, :50] = False


@pytest.fixture(params=["cpu", CUDA])
def card(request, monkeypatch):
    """Let the solver use a device of torch, one thread of it on the processor: others may be busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr("stackalign.core.lowrank.registrar.chosen_card", lambda wanted, ndim: _card(wanted, request))
    yield request.param
    torch.set_num_threads(before)


def _card(wanted, request):
    return None if wanted == "cpu" else request.param


def apart(first, second, shape):
    """Return how far the corners of frames that neither flags lie apart, pixels."""
    assert np.array_equal(first.quality.flagged, second.quality.flagged)
    kept = ~first.quality.flagged
    assert kept.any()
    points = corners(shape)
    a, b = (moved_points(r.transforms.matrices[kept], points) for r in (first, second))
    return float(np.linalg.norm(a - b, axis=-1).max())


def blank(frames):
    frames = frames.copy()
    frames[3] = 100
    return frames


def with_holes(frames):
    frames = frames.astype(np.float32)
    frames[:, :30, 20:60] = np.nan
    frames[2, 60:70, 50:60] = np.nan
    return frames


@pytest.mark.parametrize(
    ("scene", "options", "change", "mask"),
    [
        ({"model": "translation"}, {"model": "translation"}, None, None),
        ({}, {}, None, None),
        ({"model": "similarity", "stretch": 0.03}, {"model": "similarity"}, None, None),
        ({"model": "affine", "stretch": 0.03}, {"model": "affine"}, None, None),
        ({"model": "projective", "stretch": 0.02, "perspective": 1.5}, {"model": "projective"}, None, None),
        ({"flicker": 0.1, "flicker_brightness": 3.0}, {}, None, None),
        ({"dtype": "uint8", "photons": 60.0, "offset": 10.0}, {"loss": "huber"}, None, None),
        ({"dtype": "float32"}, {}, with_holes, None),
        ({}, {"window": "hann"}, blank, None),
        ({}, {}, None, MASK),
        ({}, {"rank": 2, "batch_size": 3}, None, None),
    ],
)
def test_the_same_motion_as_compiled_functions_find(card, scene, options, change, mask):
    frames = movie(**SMALL, **scene)[0].asarray()
    frames = frames if change is None else change(frames)
    ours, theirs = (sa.register(frames, sa.Reals(**options, device=d), mask=mask) for d in ("cpu", "auto"))
    assert apart(ours, theirs, frames.shape[1:]) < 0.005
    parts = [r.details["decomposition"] for r in (ours, theirs)]
    assert np.allclose(ours.quality.error, theirs.quality.error, rtol=0.01, atol=1e-4, equal_nan=True)
    assert np.array_equal(*(p.low_rank.asarray().shape for p in parts))
    low = [p.low_rank.asarray() for p in parts]
    both = np.isfinite(low[0]) & np.isfinite(low[1])
    assert both.sum() > 0.98 * np.isfinite(low[0]).sum()
    assert np.median(np.abs(low[0] - low[1])[both]) < 1e-3 * np.ptp(low[0][both])


@pytest.mark.parametrize("model", ["euclidean", "affine"])
def test_volumes(card, model):
    stack, _ = movie(scene="cells", shape=(9, 32, 37), frames=3, amplitude=1.5, rotation=2.0, model=model)
    ours, theirs = (sa.register(stack, sa.Reals(model=model, device=d)) for d in ("cpu", "auto"))
    assert apart(ours, theirs, stack.frame_shape) < 0.005


def test_frames_beyond_the_field_get_the_same_verdict(card):
    frames = movie(**SMALL)[0].asarray().copy()
    frames[4] = sa.simulate(scene="grass", shape=SMALL["shape"], frames=1, photons=400, seed=8).stack.asarray()[0]
    ours, theirs = (sa.register(frames, sa.Reals(device=d)) for d in ("cpu", "auto"))
    assert theirs.quality.flagged.tolist() == [False] * 4 + [True]
    assert apart(ours, theirs, SMALL["shape"]) < 0.005


def test_frames_that_do_not_fit_the_device_are_streamed(card, monkeypatch):
    stack, _ = movie(**SMALL)
    whole = sa.register(stack, sa.Reals())
    compared, kept = [], []
    compare, frame = device_images.DeviceImages.compare, device_images.DeviceImages.frame

    def counted(self, frames, matrices):
        compared.append(len(frames))
        return compare(self, frames, matrices)

    def made(self, image):
        kept.append(image.shape)
        return frame(self, image)

    monkeypatch.setattr(device_images, "free_bytes", lambda device: 16 * 4 * 97 * 103 * 40)
    monkeypatch.setattr(device_images.DeviceImages, "compare", counted)
    some = sa.register(stack, sa.Reals())
    assert max(n for n in compared[-6:]) < 6
    assert apart(whole, some, SMALL["shape"]) < 1e-4
    # none fit: every pass reads them anew
    monkeypatch.setattr(device_images, "free_bytes", lambda device: 4 * 97 * 103 * 40)
    monkeypatch.setattr(device_images, "_KEPT", 0.0)
    monkeypatch.setattr(device_images.DeviceImages, "frame", made)
    compared.clear()
    none = sa.register(stack, sa.Reals())
    assert max(compared) == 1
    assert len(kept) > 3 * len(stack)
    assert apart(whole, none, SMALL["shape"]) < 1e-4


def test_a_frame_that_does_not_fit_the_device_is_named():
    assert device_images.frames_at_once((512, 512), 4, 1 << 30, "cuda") == 6
    assert device_images.frames_at_once((512, 512), 4, 1 << 40, "cuda") == 64
    with pytest.raises(
        ValueError, match=r"\(500, 2000, 2000\) takes 352.0 GB on the device 'cuda'.*choose the device 'cpu'"
    ):
        device_images.frames_at_once((500, 2000, 2000), 6, 80_000_000_000, "cuda")


def test_a_cancel_keeps_the_best_so_far(card):
    stack, truth = movie(**SMALL)
    seen = []

    def note(progress):
        if progress.partial is not None and progress.partial.details.get("loss"):
            seen.append(progress.partial)

    outcome = drain(sa.Reals().fit(stack), note, lambda: len(seen) >= 2)
    assert isinstance(outcome, Cancelled)
    assert truth.error(outcome.partial.transforms).max() < 1.0
    assert outcome.partial.details["rounds"] == 2


@pytest.mark.parametrize("shape", [(9, 13), (60, 47), (7, 30, 21), (1, 12, 11)])
def test_frames_are_read_as_warps_read_them(shape):
    rng = np.random.default_rng(1)
    image = rng.standard_normal(shape).astype(np.float32)
    found = splines.spline_coefficients(torch.from_numpy(image))
    d = len(shape)
    wanted = spline_coefficients(image, 3).reshape(found.shape)
    assert np.allclose(found, wanted, atol=2e-6)
    matrix = np.eye(d + 1)
    matrix[-3:, -3:] = [[0.98, 0.12, -0.7], [-0.11, 1.01, 0.4], [2e-4, 1e-4, 1]] if d == 2 else np.eye(3)
    if d == 3:
        matrix[1:3, 1:3] = [[0.98, 0.12], [-0.11, 1.01]]
        matrix[:3, 3] = [0.3 if shape[0] > 1 else 0.0, -0.7, 0.4]
    back = np.eye(4)
    back[3 - d :, 3 - d :] = np.linalg.inv(matrix)
    volume = (1,) * (3 - d) + shape
    grid = splines.Grid(volume, d, "cpu")
    warped = warp_frame(image, matrix, fill="nan").reshape(volume)
    inside = np.isfinite(warped)
    moved = grid.displacements(back[None], torch.ones((1, *volume), dtype=torch.bool))
    read = grid.read_cubic(found[None], moved)[0].numpy()
    assert inside.mean() > 0.3
    assert np.abs(read - warped)[inside].max() < 1e-4
    linear = warp_frame(image, matrix, order=1, fill="nan").reshape(volume)
    read = grid.read_linear(torch.from_numpy(image)[None], moved)[0].numpy()
    within = np.isfinite(linear)
    assert np.abs(read - linear)[within].max() < 1e-4


@pytest.mark.parametrize("shape", [(1, 9, 14), (5, 7, 8), (1, 2, 3)])
@pytest.mark.parametrize("reach", [1, 2])
def test_what_lies_around_something_sparse(shape, reach):
    size = np.random.default_rng(1).random((3, *shape), np.float32)
    found = largest_nearby(torch.from_numpy(size), reach).numpy()
    wanted = [maximum_filter(part, size=2 * reach + 1, mode="constant", cval=0.0) for part in size]
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize(("model", "shape"), [("projective", (50, 61)), ("affine", (9, 50, 30))])
def test_equations_and_images_of_one_round_are_equal(model, shape):
    """All that is computed on pixels, one after the other: weights, equations, images, precision, slopes."""
    rng = np.random.default_rng(2)
    d = len(shape)
    scene = np.cumsum(np.cumsum(rng.standard_normal(shape), -1), -2) + 300
    taken = np.array([[0, 1], [90, 0.7], [-80, 1.2], [50, 0.9]])
    offset, gain = taken.T.reshape(2, 4, *[1] * d)
    frames = (offset + gain * scene + rng.standard_normal((4, *shape)) * np.sqrt(scene.clip(1))).astype(np.float32)
    frames[1, ..., :9, :7] = np.nan
    frames[2, ..., 20:24, 20:24] += 500
    options = SolverOptions(TransformModel(model), rank=2, tail=3.0)
    start = np.tile(np.eye(d + 1), (4, 1, 1))
    start[:, 0, -1] = [0, 0.4, -0.3, 0.2]
    states = []
    for device in (None, "cpu"):
        level = Level(lambda t: frames[t], range(4), shape, (1,) * d, options, None)
        level.images = ProcessorImages(level) if device is None else device_images.DeviceImages(level, device)
        state = State(start.copy(), level)
        basis = np.stack([np.ones(shape), scene]).reshape(2, *level.volume).astype(np.float32)
        level.images.start(basis, None)
        state.coefficients[:] = taken
        places = [Placed(m, c) for m, c in zip(state.matrices, state.coefficients, strict=True)]
        seen = level.images.compare([level.frame(k) for k in range(4)], start)
        found = stepped(state, seen, places, 1, range(4))
        states.append((state, found, [(seen.sample(i), seen.seen(i)) for i in range(4)]))
        list(state.batch([0, 1, 2, 3], 0.0))
    (ours, stepped_ours, seen_ours), (theirs, stepped_theirs, seen_theirs) = states
    for a, b in zip(stepped_ours, stepped_theirs, strict=True):
        assert np.allclose(a.matrix, b.matrix, atol=1e-5)
        change = np.tensordot(a.coefficients - b.coefficients, basis, 1)
        assert np.abs(change).max() < 1e-4 * scene.std()
        assert np.isclose(a.limit, b.limit, rtol=1e-4)
        assert np.isclose(a.loss, b.loss, rtol=1e-4)
        assert a.pixels == b.pixels
    for (sample, shown), (other_sample, other_shown) in zip(seen_ours, seen_theirs, strict=True):
        assert np.allclose(sample, other_sample, rtol=1e-4, atol=1e-2)
        assert np.allclose(shown, other_shown, rtol=1e-4, equal_nan=True)
    mine, other = ours.images, theirs.images
    assert np.array_equal(mine.shown, other.shown)
    assert np.mean((mine.known > 0) == (other.known > 0)) > 0.999
    alike = (mine.known > 0) & (other.known > 0)
    assert mine.counted == np.count_nonzero(mine.known)
    assert np.quantile(np.abs(mine.known[alike] / other.known[alike] - 1), 0.99) < 1e-3
    low, other_low = ours.coefficients @ mine.basis[:, alike], theirs.coefficients @ other.basis[:, alike]
    assert np.quantile(np.abs(low - other_low), 0.99) < 1e-3 * low.std()
    slopes = [
        np.einsum("tk,kdn->tdn", s.coefficients, np.asarray(g)[:, :, alike])
        for s, g in ((ours, mine.slopes), (theirs, other.gradients))
    ]
    assert np.quantile(np.abs(slopes[0] - slopes[1]), 0.99) < 1e-3 * np.abs(slopes[0]).max()


def test_slopes_beside_what_is_not_known_are_equal():
    shape = (30, 41)
    rng = np.random.default_rng(3)
    known = (rng.random((1, *shape)) < 0.6).astype(np.float32)
    basis = rng.standard_normal((1, 1, *shape)).astype(np.float32)
    level = Level(lambda t: basis[0, 0], range(2), shape, (1, 1), SolverOptions(TransformModel.EUCLIDEAN), None)
    both = [ProcessorImages(level), device_images.DeviceImages(level, "cpu")]
    for images in both:
        images.start(basis, known)
        images._slope()
    there = known[0] > 0
    assert np.array_equal(both[0].slopes[0, :, 0][:, there], both[1].gradients.numpy()[0, :, 0][:, there])
    noise = NoiseModel(constant=1.0, slope=0.5, floor=0.1)
    for images in both:
        images.weigh(noise, 2.0, np.array([1.0]))
    assert np.allclose(both[0].precision, both[1].precise)
