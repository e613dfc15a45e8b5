"""What every method owes (DESIGN section 7), one suite over all of them."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest

import stackalign as sa
from stackalign.config import METHODS, parse_recipe
from stackalign.core.registration import Registrar
from tests.contract import cases
from tests.contract.cases import DRIFT, DRIFT_3D, case, deviation, movie, registrar


def marks(method):
    missing = bool(case(method).needs) and find_spec(case(method).needs) is None
    return [*([pytest.mark.slow] if case(method).slow else []), pytest.mark.skipif(missing, reason=case(method).needs)]


METHOD = pytest.mark.parametrize("method", [pytest.param(m, marks=marks(m)) for m in METHODS])


def with_masks(method):
    if not case(method).masks:
        pytest.skip(f"{method} takes no mask: it measures at its particles")


def with_volumes(method):
    if not case(method).volumes:
        pytest.skip(f"{method} aligns 2-D frames only")


def with_reference(method, reference):
    if reference not in case(method).references:
        pytest.skip(f"{method} does not align to {reference}")


@pytest.fixture(scope="module")
def stack():
    return movie()


# records


@METHOD
def test_a_method_is_its_own_record(method):
    record = METHODS[method]()
    assert isinstance(record, Registrar)
    assert record.method == method
    for name, field in type(record).model_fields.items():
        if name != "method":
            assert field.title, name
            assert field.description, name
    with pytest.raises(ValueError, match="extra"):
        type(record)(speed="fast")
    with pytest.raises(ValueError, match="frozen"):
        record.method = "other"


@METHOD
def test_a_record_survives_a_recipe(method):
    record = registrar(method)
    config = parse_recipe({"input": {"path": "movie.tif"}, "registrar": record.model_dump(mode="json")})
    assert config.registrar == record


# motion


@METHOD
def test_identity_in_identity_out(method):
    still = np.repeat(movie(drift=DRIFT[:1]), 5, axis=0)
    result = sa.register(still, registrar(method))
    assert np.abs(result.transforms.matrices - np.eye(3)).max() < 2e-3
    assert not result.quality.flagged.any()


@METHOD
def test_nothing_moves_under_independent_noise(method):
    result = sa.register(movie(drift=np.zeros((6, 2))), registrar(method))
    assert deviation(result, np.zeros((6, 2))) < case(method).tolerance
    assert not result.quality.flagged.any()


@METHOD
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_a_known_shift_is_found_in_every_dtype(method, dtype):
    frames = movie(dtype)
    kept = frames.copy()
    result = sa.register(frames, registrar(method))
    assert deviation(result, DRIFT) < case(method).tolerance
    assert np.array_equal(frames, kept)
    assert np.array_equal(result.transforms.matrices[0], np.eye(3))
    assert sa.warp(frames, result.transforms).dtype == dtype


@METHOD
def test_the_result_says_how_good_it_is(method, stack):
    result = sa.register(stack, registrar(method))
    quality = result.quality
    count = len(stack)
    assert len(result) == len(result.transforms) == len(quality.reasons) == count
    assert quality.correlation.shape == quality.residual.shape == quality.confidence.shape == (count,)
    assert quality.error.shape[0] == count
    assert ((quality.confidence >= 0) & (quality.confidence <= 1)).all()
    assert (quality.confidence > 0.5).all()
    known = np.isfinite(quality.error)
    assert (quality.error[known] < 1).all()
    assert result.provenance["method"] == method
    assert result.provenance["parameters"]["method"] == method
    table = quality.to_frame()
    assert table["frame"].tolist() == list(range(count))


@METHOD
def test_alignment_makes_the_stack_stiller(method, stack):
    result = sa.register(stack, registrar(method))
    quality = sa.measure(stack, result.transforms)
    assert quality.correlation_after > quality.correlation_before + 0.05
    assert quality.crispness_after > 1.05


@METHOD
def test_volumes(method):
    with_volumes(method)
    result = sa.register(cases.volumes(), registrar(method))
    assert result.transforms.ndim == 3
    assert not result.quality.flagged.any()
    assert deviation(result, DRIFT_3D) < 2 * case(method).tolerance


@METHOD
def test_volumes_of_one_plane_and_frames_of_one_stack_agree(method, stack):
    with_volumes(method)
    if method == "particles":
        pytest.skip("a spot in one plane has no position along z")
    flat = sa.register(stack, registrar(method)).transforms.translations
    thick = sa.register(stack[:, None], registrar(method)).transforms.translations
    assert np.abs(thick[:, 0]).max() < 1e-6
    assert np.abs(thick[:, 1:] - flat).max() < 0.02


@METHOD
@pytest.mark.parametrize("planes", [2, 3, 5, 8])
def test_volumes_of_few_planes(method, planes):
    with_volumes(method)
    if method == "particles":
        pytest.skip("a spot needs planes above and below it")
    drift = DRIFT_3D * [0, 1, 1]
    result = sa.register(cases.camera(cases.moved(cases.scene((planes, 48, 56), 3), drift)), registrar(method))
    assert not result.quality.flagged.any()
    assert deviation(result, drift) < case(method).tolerance


# time


@METHOD
def test_one_frame_is_the_identity(method, stack):
    result = sa.register(stack[:1], registrar(method))
    assert np.array_equal(result.transforms.matrices, np.eye(3)[None])
    assert len(result.quality.reasons) == 1


@METHOD
def test_two_frames(method, stack):
    result = sa.register(stack[[0, 3]], registrar(method))
    assert deviation(result, DRIFT[[0, 3]]) < case(method).tolerance


@METHOD
def test_the_same_seed_gives_the_same_result_bit_for_bit(method, stack):
    first, second = (sa.register(stack, registrar(method)) for _ in range(2))
    assert first.transforms.matrices.tobytes() == second.transforms.matrices.tobytes()
    assert first.quality.correlation.tobytes() == second.quality.correlation.tobytes()
    assert first.quality.error.tobytes() == second.quality.error.tobytes()


@METHOD
def test_threads_do_not_change_a_bit(method, stack):
    try:
        results = []
        for count in (1, 2):
            sa.set_threads(count)
            results.append(sa.register(stack, registrar(method)).transforms.matrices.tobytes())
    finally:
        sa.set_threads(None)
    assert results[0] == results[1]


@METHOD
def test_a_lazy_stack_gives_the_same_as_an_array(method, stack):
    import dask.array as da

    lazy = sa.register(sa.ImageStack(da.from_array(stack, (3, 30, 88))), registrar(method))
    assert lazy.transforms.matrices.tobytes() == sa.register(stack, registrar(method)).transforms.matrices.tobytes()


@METHOD
def test_progress_counts_up_and_says_what_is_done(method, stack):
    seen = []
    sa.register(stack, registrar(method), on_progress=seen.append)
    assert seen
    assert all(0 <= p.done <= p.total and p.message for p in seen)
    for before, after in pairwise(seen):
        assert after.message != before.message or after.done >= before.done or before.done == before.total


@METHOD
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
def test_a_cancel_ends_the_work_and_keeps_what_is_done(method, share, stack):
    steps = []
    sa.register(stack, registrar(method), on_progress=steps.append)
    stop_after = int(share * len(steps))
    count = 0

    def should_stop():
        nonlocal count
        count += 1
        return count > stop_after

    with pytest.raises(sa.WorkCancelled) as caught:
        sa.register(stack, registrar(method), should_stop=should_stop)
    partial = caught.value.partial
    if partial is not None:
        assert isinstance(partial, sa.Registration)
        assert len(partial) == len(stack)
        assert np.isfinite(partial.transforms.matrices).all()
        unfinished = ~partial.transforms.valid
        assert all(partial.quality.reasons[t] for t in np.flatnonzero(unfinished))


@METHOD
def test_a_cancel_half_way_leaves_frames_that_are_right(method, monkeypatch):
    """The result so far is offered with every step here, else a few times a second."""
    import time

    clock = iter(np.arange(0, 1e7, 10.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    frames = movie(drift=np.tile(DRIFT, (2, 1)))
    partials = []
    sa.register(frames, registrar(method), on_progress=lambda p: partials.append(p.partial))
    partials = [p for p in partials if p is not None]
    assert partials
    last = partials[-1]
    done = last.transforms.valid
    assert done.any()
    assert deviation(last, np.tile(DRIFT, (2, 1)), done) < 2 * case(method).tolerance
    half = next(p for p in partials if p.transforms.valid.any())
    assert len(half) == len(frames)


# frames that hold nothing


def damaged(kind, stack):
    """Return a stack whose frame 4 (and what else ``kind`` says) is no good, and the numbers of the bad frames."""
    frames = stack.astype(np.float32) if "nan" in kind else stack.copy()
    if kind == "constant":
        frames[4] = 1000
    elif kind == "zero":
        frames[4] = 0
    elif kind == "nan":
        frames[4] = np.nan
    elif kind == "saturated":
        frames[4] = 65535
        frames[4, :10] = 3
    elif kind == "first constant":
        frames[0] = 0
        return frames, [0]
    elif kind == "last nan":
        frames[-1] = np.nan
        return frames, [len(frames) - 1]
    elif kind == "two in a row":
        frames[4:6] = 0
        return frames, [4, 5]
    elif kind == "missing":
        return sa.ImageStack(frames, missing={4: "img_0004.tif cannot be read"}), [4]
    elif kind == "unreadable":

        class Broken:
            shape, dtype = frames.shape, frames.dtype

            def __getitem__(self, t):
                if t == 4:
                    raise sa.FrameError("movie.tif: frame 4 is truncated")
                return frames[t]

        return sa.ImageStack(Broken()), [4]
    return frames, [4]


KINDS = [
    "constant", "zero", "nan", "saturated", "first constant", "last nan", "two in a row", "missing", "unreadable",
]  # fmt: skip


@METHOD
@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_that_holds_nothing_is_flagged_and_interpolated_and_harms_no_neighbour(method, kind, stack):
    frames, bad = damaged(kind, stack)
    result = sa.register(frames, registrar(method))
    good = np.setdiff1d(np.arange(len(stack)), bad)
    assert np.flatnonzero(result.quality.flagged).tolist() == bad
    assert np.flatnonzero(~result.transforms.valid).tolist() == bad
    assert all(len(result.quality.reasons[t]) > 5 for t in bad)
    assert (result.quality.confidence[bad] == 0).all()
    assert deviation(result, DRIFT, good) < case(method).tolerance
    shifts = result.transforms.translations
    wanted = np.column_stack([np.interp(np.arange(len(stack)), good, shifts[good, k]) for k in range(2)])
    assert np.abs(shifts - wanted).max() < 1e-9
    if kind in ("missing", "unreadable"):
        assert {"missing": "img_0004.tif", "unreadable": "truncated"}[kind] in result.quality.reasons[4]


@METHOD
@pytest.mark.parametrize("reference", ["previous", "first", "all-pairs", "rolling"])
def test_a_frame_that_holds_nothing_harms_no_neighbour_whatever_the_reference(method, reference, stack):
    with_reference(method, reference)
    frames, bad = damaged("constant", stack)
    result = sa.register(frames, registrar(method), reference=reference)
    assert np.flatnonzero(result.quality.flagged).tolist() == bad
    assert deviation(result, DRIFT, [0, 1, 2, 3, 5, 6, 7]) < 2 * case(method).tolerance


@METHOD
def test_a_frame_with_holes_is_aligned_by_the_rest(method, stack):
    frames = stack.astype(np.float32)
    frames[3, :30] = np.nan
    frames[5, 40:60, 20:50] = np.nan
    frames[6, ::7, ::5] = np.nan
    result = sa.register(frames, registrar(method))
    used = result.transforms.valid
    assert used[[0, 1, 2, 4, 7]].all()
    assert used[5]
    assert deviation(result, DRIFT, used) < 2 * case(method).tolerance


@METHOD
def test_a_frame_of_another_scene_is_flagged_with_a_reason(method, stack):
    frames = stack.copy()
    frames[4] = movie(drift=DRIFT[:1], seed=99)[0]
    result = sa.register(frames, registrar(method))
    assert result.quality.flagged.tolist() == [False, False, False, False, True, False, False, False]
    assert result.quality.reasons[4]
    assert deviation(result, DRIFT, [0, 1, 2, 3, 5, 6, 7]) < case(method).tolerance
    assert np.allclose(
        result.transforms.translations[4], result.transforms.translations[[3, 5]].mean(0), atol=1e-9, rtol=0
    )


@METHOD
def test_a_frame_of_noise_alone_is_flagged(method, stack):
    frames = stack.copy()
    frames[2] = np.random.default_rng(5).normal(2000, 90, stack.shape[1:]).astype(np.uint16)
    result = sa.register(frames, registrar(method))
    assert np.flatnonzero(result.quality.flagged).tolist() == [2]
    assert deviation(result, DRIFT, [0, 1, 3, 4, 5, 6, 7]) < case(method).tolerance


@METHOD
@pytest.mark.parametrize("value", [0, np.nan])
def test_a_stack_of_nothing_is_flagged_from_end_to_end(method, value):
    frames = np.full((4, 40, 48), value, np.float32)
    if method == "particles":  # there is nothing to follow, and it says so
        with pytest.raises(ValueError, match=r"no particle stands out|no frame .* can be read"):
            sa.register(frames, registrar(method))
        return
    result = sa.register(frames, registrar(method))
    assert result.quality.flagged.all()
    assert not result.transforms.valid.any()
    assert np.array_equal(result.transforms.matrices, np.tile(np.eye(3), (4, 1, 1)))


# brightness


@METHOD
def test_bleaching_and_flicker_do_not_move_anything(method):
    clean = cases.moved(cases.scene((72, 88)), DRIFT)
    gains = np.array([1, 0.9, 0.8, 0.5, 0.7, 0.6, 1.1, 0.5])[:, None, None]
    result = sa.register(cases.camera(clean * gains), registrar(method))
    assert not result.quality.flagged.any()
    assert deviation(result, DRIFT) < 1.5 * case(method).tolerance


# reference, anchor, mask


@METHOD
@pytest.mark.parametrize("reference", cases.POLICIES[:-1])
def test_every_reference_finds_the_motion(method, reference, stack):
    with_reference(method, reference)
    result = sa.register(stack, registrar(method), reference=reference)
    assert not result.quality.flagged.any()
    assert deviation(result, DRIFT) < 2 * case(method).tolerance
    home = {3: 3, "3": 3, -2: 6}.get(reference, 0)
    assert np.abs(result.transforms.matrices[home] - np.eye(3)).max() < 1e-12
    assert result.provenance["reference"] == reference


@METHOD
def test_an_external_image_is_the_origin_and_nothing_is_rebased(method, stack):
    with_reference(method, "image")
    image = cases.moved(cases.scene((72, 88)), np.array([[1.5, -2.25]]))[0] * 3680 + 180
    result = sa.register(stack, registrar(method), reference=image)
    wanted = np.array([1.5, -2.25]) - DRIFT
    assert np.abs(result.transforms.translations - wanted).max() < 3 * case(method).tolerance
    assert result.provenance["reference"] == "an external image"
    anchored = sa.register(stack, registrar(method), reference=image, anchor=0)
    assert np.array_equal(anchored.transforms.matrices[0], np.eye(3))


@METHOD
def test_the_anchor_is_the_frame_that_stays(method, stack):
    base = sa.register(stack, registrar(method)).transforms.translations
    for anchor in (5, -3):
        result = sa.register(stack, registrar(method), anchor=anchor)
        assert np.array_equal(result.transforms.matrices[5], np.eye(3))
        assert np.abs(result.transforms.translations - (base - base[5])).max() < 0.02
    middle = sa.register(stack, registrar(method), anchor="mean").transforms.translations
    assert np.abs(middle.mean(0)).max() < 1e-9


@METHOD
def test_an_anchor_that_cannot_be_aligned_leaves_a_result_near_it(method, stack):
    frames, _ = damaged("constant", stack)
    result = sa.register(frames, registrar(method), anchor=4)
    assert np.isfinite(result.transforms.matrices).all()
    assert deviation(result, DRIFT, [0, 1, 2, 3, 5, 6, 7]) < case(method).tolerance


@METHOD
def test_a_mask_decides_which_part_counts(method):
    """Left half drifts, right half stands still: the mask says which of the two is meant."""
    with_masks(method)
    clean = cases.moved(cases.scene((72, 176), 0), DRIFT)
    still = cases.moved(cases.scene((72, 176), 7), np.zeros_like(DRIFT))
    frames = clean.copy()
    frames[:, :, 88:] = still[:, :, 88:]
    frames = cases.camera(frames)
    left, right = np.zeros((72, 176), bool), np.zeros((72, 176), bool)
    left[8:-8, 8:72], right[8:-8, 100:] = True, True
    for mask, drift in ((left, DRIFT), (right, np.zeros_like(DRIFT))):
        result = sa.register(frames, registrar(method), mask=mask)
        assert not result.quality.flagged.any()
        assert deviation(result, drift) < 2 * case(method).tolerance
    by_box = sa.register(frames, registrar(method), preprocess=sa.Preprocess(region=(8, 64, 8, 72)))
    by_mask = sa.register(frames, registrar(method), mask=left)
    assert by_box.transforms.matrices.tobytes() == by_mask.transforms.matrices.tobytes()


@METHOD
@pytest.mark.parametrize("reference", ["first", "previous", "median"])
def test_a_mask_counts_whatever_the_reference(method, reference):
    with_masks(method)
    with_reference(method, reference)
    clean = cases.moved(cases.scene((72, 176), 0), DRIFT)
    clean[:, :, 88:] = cases.moved(cases.scene((72, 176), 7), np.zeros_like(DRIFT))[:, :, 88:]
    mask = np.zeros((72, 176), bool)
    mask[8:-8, 8:72] = True
    result = sa.register(cases.camera(clean), registrar(method), mask=mask, reference=reference)
    assert deviation(result, DRIFT) < 3 * case(method).tolerance


# misuse


@METHOD
def test_misuse_is_named(method, stack):
    with pytest.raises(ValueError, match="no frame 8 to anchor"):
        sa.register(stack, registrar(method), anchor=8)
    with pytest.raises(ValueError, match="anchor must be a frame number or 'mean'"):
        sa.register(stack, registrar(method), anchor="middle")
    with pytest.raises(ValueError, match=r"a stack is \(t, y, x\)"):
        sa.register(stack[0], registrar(method))
    with pytest.raises(ValueError, match=r"reference must be .* not 'average'"):
        sa.register(stack, registrar(method), reference="average")
    with pytest.raises(ValueError, match="no frame 8 to align to"):
        sa.register(stack, registrar(method), reference=8)
    with pytest.raises(ValueError, match="they must be alike"):
        sa.register(stack, registrar(method), reference=stack[0, 1:])
    with pytest.raises(ValueError, match="they must be alike"):
        sa.register(stack, registrar(method), mask=np.ones((3, 3), bool))
