"""Laws of transforms and series: inverses, composition, recovery from points, gauge, interpolation, smoothing."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from stackalign.core.transform import Transform
from stackalign.core.transform_series import TransformSeries
from tests.properties.strategies import MODELS, length, plane_rotation, same, scattered, series, transforms


@given(transforms())
def test_a_transform_and_its_inverse_cancel(t):
    both = (t @ t.inverse).matrix
    assert both == pytest.approx(np.eye(t.ndim + 1), abs=1e-8)
    points = scattered(t.ndim, 20, 1)
    assert t.inverse(t(points)) == pytest.approx(points, abs=1e-6)
    assert t.inverse.model is t.model


@given(st.data(), st.sampled_from((2, 3)))
def test_composition_is_one_after_the_other(data, ndim):
    a, b = data.draw(transforms(ndim)), data.draw(transforms(ndim))
    points = scattered(ndim, 20, 2)
    assert (a @ b)(points) == pytest.approx(a(b(points)), rel=1e-9, abs=1e-6)
    assert (a @ b).model is (a.model | b.model)
    assert (a @ b).model.rank == max(a.model.rank, b.model.rank)


@given(st.data(), st.sampled_from((2, 3)))
def test_composition_is_associative(data, ndim):
    a, b, c = (data.draw(transforms(ndim)) for _ in range(3))
    left, right = ((a @ b) @ c).matrix, (a @ (b @ c)).matrix
    assert left == pytest.approx(right, rel=1e-9, abs=1e-7 * np.abs(left).max())


@given(transforms(), st.integers(0, 2**31))
def test_points_fix_their_transform_exactly(t, seed):
    moving = scattered(t.ndim, 12, seed)
    found = Transform.from_points(moving, t(moving), t.model)
    assert found(moving) == pytest.approx(t(moving), abs=1e-6)
    assert found.matrix == pytest.approx(t.matrix, abs=1e-5)


@given(transforms(), st.integers(0, 2**31))
def test_a_richer_model_finds_the_simpler_motion(t, seed):
    moving = scattered(t.ndim, 15, seed)
    for model in MODELS[t.model.rank :]:
        found = Transform.from_points(moving, t(moving), model)
        assert found(moving) == pytest.approx(t(moving), abs=1e-6)


@given(transforms(), st.integers(0, 2**31))
def test_an_outlier_of_weight_0_is_ignored(t, seed):
    moving = scattered(t.ndim, 12, seed)
    reference = t(moving)
    weights = np.random.default_rng(seed).uniform(0.1, 5, 12)
    weights[3] = 0
    moving[5] = np.nan
    reference[3] += 1000
    found = Transform.from_points(moving, reference, t.model, weights=weights)
    rest = np.delete(np.arange(12), (3, 5))
    assert found(moving[rest]) == pytest.approx(reference[rest], abs=1e-6)


@given(transforms(), st.integers(0, 2**31), st.floats(1e-6, 1e6))
def test_the_scale_of_the_weights_does_not_matter(t, seed, factor):
    rng = np.random.default_rng(seed)
    moving = scattered(t.ndim, 14, seed)
    reference = t(moving) + rng.normal(0, 0.5, moving.shape)
    weights = rng.uniform(0.1, 5, 14)
    one = Transform.from_points(moving, reference, t.model, weights=weights)
    other = Transform.from_points(moving, reference, t.model, weights=weights * factor)
    assert other(moving) == pytest.approx(one(moving), abs=1e-5)


@given(st.sampled_from((2, 3)), st.integers(0, 2**31))
def test_a_weight_of_2_counts_a_pair_twice(ndim, seed):
    rng = np.random.default_rng(seed)
    moving = scattered(ndim, 10, seed)
    reference = moving + rng.normal(0, 2, moving.shape)
    twice = np.r_[0:10, 4]
    weights = np.ones(10)
    weights[4] = 2
    for model in MODELS:
        weighted = Transform.from_points(moving, reference, model, weights=weights)
        repeated = Transform.from_points(moving[twice], reference[twice], model)
        assert weighted(moving) == pytest.approx(repeated(moving), abs=1e-5), model


@given(st.sampled_from((2, 3)), st.integers(0, 2**31))
def test_weighted_affine_solves_the_normal_equations(ndim, seed):
    rng = np.random.default_rng(seed)
    moving = scattered(ndim, 11, seed)
    reference = moving @ (np.eye(ndim) + rng.normal(0, 0.1, (ndim, ndim))) + rng.normal(0, 3, moving.shape)
    weights = rng.uniform(0.01, 10, 11)
    design = np.column_stack([moving, np.ones(11)])
    expected = np.linalg.solve(design.T @ (weights[:, None] * design), design.T @ (weights[:, None] * reference)).T
    found = Transform.from_points(moving, reference, "affine", weights=weights).matrix[:-1]
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(st.sampled_from((2, 3)), st.integers(0, 2**31), st.sampled_from(("euclidean", "similarity", "projective")))
def test_no_small_change_beats_the_weighted_least_squares(ndim, seed, model):
    rng = np.random.default_rng(seed)
    truth = Transform.from_translation(np.arange(1.0, ndim + 1))
    moving = scattered(ndim, 12, seed)
    reference = truth(moving) + rng.normal(0, 1, moving.shape)
    weights = rng.uniform(0.1, 3, 12)
    found = Transform.from_points(moving, reference, model, weights=weights)

    def loss(t):
        return float((weights * ((t(moving) - reference) ** 2).sum(1)).sum())

    best = loss(found)
    middle = moving.mean(0)
    for _ in range(30):
        step = np.eye(ndim + 1)
        step[:-1, -1] = rng.normal(0, 1e-2, ndim)
        angle = rng.normal(0, 1e-4, 3)
        step[:-1, :-1] = Rotation.from_rotvec(angle).as_matrix() if ndim == 3 else plane_rotation(angle[0])
        if model != "euclidean":
            step[:-1, :-1] *= 1 + rng.normal(0, 1e-4)
        if model == "projective":
            step[-1, :-1] = rng.normal(0, 1e-7, ndim)
        other = Transform(step, model).about(middle) @ found
        assert loss(other) >= best * (1 - 1e-9)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_reflection_is_never_taken_for_a_rotation(ndim):
    moving = scattered(ndim, 9, 4)
    mirrored = moving * np.r_[-1, np.ones(ndim - 1)]
    for model in ("euclidean", "similarity"):
        assert np.linalg.det(Transform.from_points(moving, mirrored, model).linear) > 0
    assert np.linalg.det(Transform.from_points(moving, mirrored, "affine").linear) == pytest.approx(-1)


def test_axes_and_direction_on_a_frame_that_is_not_square():
    # 20 rows, 300 columns: what moves down by 5 and left by 7 in the frame, moves up and right to come back
    drift = np.array([5.0, -7.0])
    back = Transform.from_translation(-drift)
    assert back([12.0, 200.0]).tolist() == [7.0, 207.0]
    quarter = Transform.from_rotation(np.pi / 2, centre=(9.5, 149.5))
    assert quarter([9.5, 149.5]) == pytest.approx([9.5, 149.5])
    assert quarter([10.5, 149.5]) == pytest.approx([9.5, 150.5])  # positive: y axis towards x axis
    assert TransformSeries.from_transforms([quarter]).angles == pytest.approx([np.pi / 2])


@given(transforms(), arrays(float, 3, elements=length))
def test_motion_of_a_crop_is_motion_of_the_whole(t, origin):
    origin = origin[: t.ndim]
    inside = np.abs(scattered(t.ndim, 10, 5, (30, 40, 50)))
    # a projective depth may not come near zero for this to be a statement about points
    assert t.about(origin)(inside + origin) == pytest.approx(t(inside) + origin, abs=1e-5)


@given(series())
def test_a_series_survives_plain_values_and_json_text(s):
    assert same(TransformSeries.from_dict(s.to_dict()), s)
    assert same(TransformSeries.from_dict(json.loads(json.dumps(s.to_dict()))), s)


@given(series(), st.data())
def test_rebasing_leaves_the_relative_motions(s, data):
    frame = data.draw(st.integers(0, len(s) - 1))
    based = s.rebased(frame)
    assert np.array_equal(based[frame].matrix, np.eye(s.ndim + 1))
    assert based.model is s.model
    points = scattered(s.ndim, 6, 6, (20, 40, 30))
    for a in range(len(s)):
        before = s[frame].inverse(s[a](points))  # from frame a into the frame that stays still
        assert based[a](points) == pytest.approx(before, rel=1e-6, abs=1e-4)
    again = based.rebased(frame)
    assert again.matrices == pytest.approx(based.matrices, rel=1e-9, abs=1e-9)


@given(series(model="translation"))
def test_rebasing_to_the_mean_centres_the_valid_frames(s):
    based = s.rebased("mean")
    if s.valid.any():
        assert based.translations[s.valid].mean(0) == pytest.approx(np.zeros(s.ndim), abs=1e-9)
    assert np.diff(based.translations, axis=0) == pytest.approx(np.diff(s.translations, axis=0), abs=1e-9)


@given(st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=7))
def test_rebasing_rotations_to_the_mean_leaves_no_mean_angle(angles):
    centre = np.array([20.0, 140.0])
    turned = TransformSeries.from_transforms([Transform.from_rotation(a, centre=centre) for a in angles])
    based = turned.rebased("mean", centre=centre)
    assert based.angles.mean() == pytest.approx(0, abs=1e-9)
    assert based[0](centre) == pytest.approx(centre)


def test_missing_frames_take_angles_between_those_of_their_neighbours():
    centre = np.array([30.0, 200.0])
    angles = np.deg2rad([0, 10, 20, 30, 170, 190])
    items = [Transform.from_rotation(a, shift=(2 * k, -k), centre=centre) for k, a in enumerate(angles)]
    items[1] = items[2] = Transform.identity(2)
    flagged = TransformSeries.from_transforms(items, [True, False, False, True, True, True])
    whole = flagged.interpolated(centre=centre)
    assert np.rad2deg(whole.angles[:4]) == pytest.approx([0, 10, 20, 30])
    assert whole[1](centre) == pytest.approx(centre + np.array([2, -1]))
    assert np.abs(np.linalg.det(whole.matrices[:, :2, :2]) - 1).max() < 1e-12, "rotations, not mixtures of matrices"
    assert np.array_equal(whole.valid, flagged.valid), "a filled frame stays flagged"
    assert np.array_equal(whole.matrices[3:], flagged.matrices[3:]), "measured frames keep their last bit"


def test_interpolation_turns_the_short_way_past_half_aplane_rotation():
    angles = np.deg2rad([170.0, 0.0, -170.0])
    flagged = TransformSeries.from_transforms([Transform.from_rotation(a) for a in angles], [True, False, True])
    assert abs(np.rad2deg(flagged.interpolated().angles[1])) == pytest.approx(180)


def test_volumes_turn_the_short_way_past_half_a_turn():
    axis = np.array([0.6, 0.0, 0.8])
    matrices = np.tile(np.eye(4), (7, 1, 1))
    degrees = np.array([150.0, 160, 170, 180, 190, 200, 210])
    matrices[:, :3, :3] = Rotation.from_rotvec(np.deg2rad(degrees)[:, None] * axis).as_matrix()
    whole = TransformSeries(matrices, "euclidean")
    flagged = whole.with_valid(np.isin(np.arange(7), (0, 2, 4, 6)))
    assert flagged.interpolated().matrices == pytest.approx(matrices, abs=1e-9)
    turned = whole.smoothed(0.6).matrices[2:5]
    assert turned == pytest.approx(matrices[2:5], abs=1e-3)


def test_frames_before_the_first_and_after_the_last_valid_one_repeat_it():
    shifts = np.array([[9, 9], [1, 2], [0, 0], [3, 6], [9, 9]], float)
    whole = TransformSeries.from_translations(shifts, [False, True, False, True, False]).interpolated()
    assert whole.translations.tolist() == [[1, 2], [1, 2], [2, 4], [3, 6], [3, 6]]
    nothing = TransformSeries.from_translations(shifts, np.zeros(5, bool)).interpolated()
    assert np.array_equal(nothing.matrices, np.tile(np.eye(3), (5, 1, 1)))


@given(series())
def test_interpolation_keeps_valid_frames_and_model(s):
    whole = s.interpolated()
    assert np.array_equal(whole.matrices[s.valid], s.matrices[s.valid])
    assert whole.model is s.model
    assert np.isfinite(whole.matrices).all()
    assert whole.interpolated().matrices == pytest.approx(whole.matrices, abs=1e-9)


@given(series(model="euclidean", least=2), st.floats(0.3, 3))
def test_smoothing_keeps_rotations_rigid(s, sigma):
    smooth = s.smoothed(sigma, centre=np.full(s.ndim, 50.0))
    linear = smooth.matrices[:, :-1, :-1]
    assert linear @ np.swapaxes(linear, 1, 2) == pytest.approx(np.tile(np.eye(s.ndim), (len(s), 1, 1)), abs=1e-9)
    assert smooth.model is s.model
    assert np.array_equal(smooth.valid, s.valid)


@given(transforms(), st.integers(1, 6), st.floats(0, 4))
def test_smoothing_leaves_what_does_not_move(t, count, sigma):
    still = TransformSeries(np.tile(t.matrix, (count, 1, 1)), t.model)
    assert still.smoothed(sigma).matrices == pytest.approx(still.matrices, rel=1e-9, abs=1e-7)


def test_smoothing_is_a_gaussian_mean_and_flagged_frames_carry_no_weight():
    shifts = np.zeros((41, 2))
    shifts[20] = [10.0, -4.0]
    smooth = TransformSeries.from_translations(shifts).smoothed(2.0).translations
    weights = np.exp(-0.5 * (np.arange(-8, 9) / 2.0) ** 2)
    assert smooth[12:29, 0] == pytest.approx(10 * weights / weights.sum(), abs=1e-12)
    wild = shifts.copy()
    wild[5] = 1e6
    valid = np.arange(41) != 5
    flagged = TransformSeries.from_translations(wild, valid).smoothed(2.0).translations
    assert np.abs(flagged[:10]).max() < 1e-2
    with pytest.raises(ValueError, match="sigma must be at least 0"):
        TransformSeries.from_translations(shifts).smoothed(-1)
    with pytest.raises(ValueError, match="got nan"):
        TransformSeries.from_translations(shifts).smoothed(np.nan)


@given(series(), st.data())
def test_replacing_a_frame_touches_no_other(s, data):
    t = data.draw(st.integers(0, len(s) - 1))
    by_hand = data.draw(transforms(s.ndim))
    changed = s.replaced(t, by_hand)
    assert np.array_equal(changed.matrices[t], by_hand.matrix)
    assert changed.valid[t]
    others = np.arange(len(s)) != t
    assert np.array_equal(changed.matrices[others], s.matrices[others])
    assert np.array_equal(changed.valid[others], s.valid[others])
    assert changed.model is (s.model | by_hand.model)


@given(st.data(), st.sampled_from((2, 3)))
def test_one_series_then_another(data, ndim):
    a = data.draw(series(ndim))
    b = TransformSeries.from_transforms([data.draw(transforms(ndim)) for _ in range(len(a))])
    both = a.then(b)
    points = scattered(ndim, 5, 7, (20, 40, 30))
    for t in range(len(a)):
        assert both[t](points) == pytest.approx(b[t](a[t](points)), rel=1e-8, abs=1e-5)
    back = a.then(a.inverse).matrices
    assert back == pytest.approx(np.tile(np.eye(ndim + 1), (len(a), 1, 1)), abs=1e-7)


@given(series())
def test_the_table_holds_what_the_matrices_say(s):
    table = s.to_frame()
    axes = "zyx"[-s.ndim :]
    assert list(table["frame"]) == list(range(len(s)))
    assert np.array_equal(table[[f"translation_{a}_px" for a in axes]].to_numpy(), s.translations)
    degrees = ["angle_deg"] if s.ndim == 2 else [f"rotation_{a}_deg" for a in axes]
    assert np.deg2rad(table[degrees].to_numpy()) == pytest.approx(s.angles.reshape(len(s), -1))
    size = s.ndim + 1
    entries = table[[f"m_{r}_{c}" for r in range(size) for c in range(size)]].to_numpy()
    assert np.array_equal(entries.reshape(-1, size, size), s.matrices)
