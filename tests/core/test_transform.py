"""Transforms: what is refused, with which words, and golden values of other programs."""

import numpy as np
import pytest

from stackalign.core.transform import Transform, TransformModel
from stackalign.core.transform_fit import needed_points
from stackalign.core.transform_series import TransformSeries

SQUARE = np.array([[0.0, 0], [0, 10], [20, 0], [20, 10], [7, 3]])


@pytest.mark.parametrize(
    "matrix, message",
    [
        (np.eye(2), r"a \(3, 3\) or \(4, 4\) matrix, not \(2, 2\)"),
        (np.eye(5), r"not \(5, 5\)"),
        (np.diag([1, np.nan, 1]), "holds NaN or infinity"),
        (np.diag([1, np.inf, 1]), "holds NaN or infinity"),
        (np.diag([1, 0, 1]), "cannot be inverted"),
        (np.diag([1, 1, 0]), "cannot be inverted"),
    ],
)
def test_matrices_that_are_no_transform(matrix, message):
    with pytest.raises(ValueError, match=message):
        Transform(matrix)
    if matrix.shape == (3, 3):
        with pytest.raises(ValueError, match=f"frame 1: .*{message}"):
            TransformSeries(np.stack([np.eye(3), matrix]))


def test_a_matrix_is_a_copy_that_nobody_changes():
    matrix = 2 * np.eye(3)
    t = Transform(matrix)
    matrix[0, 2] = 9
    assert np.array_equal(t.matrix, np.eye(3)), "scaled so that its last entry is 1"
    with pytest.raises(ValueError, match="read-only"):
        t.matrix[0, 0] = 5
    with pytest.raises(ValueError, match="read-only"):
        TransformSeries.identity(2, 2).matrices[0, 0, 0] = 5


@pytest.mark.parametrize("factor", [1e-9, -3.0, 1e9])
def test_a_homography_of_any_norm(factor):
    matrix = np.array([[1.0, 0.1, 4], [-0.05, 0.95, 9], [2e-4, -3e-4, 1]])
    assert Transform(factor * matrix, "projective").matrix == pytest.approx(matrix)


def test_points_of_another_dimension():
    with pytest.raises(ValueError, match=r"points must be \(..., 2\), got shape \(4, 3\)"):
        Transform.identity(2)(np.zeros((4, 3)))
    assert Transform.identity(3)(np.zeros((2, 5, 3))).shape == (2, 5, 3)


def test_models_contain_each_other():
    assert [m.rank for m in TransformModel] == [0, 1, 2, 3, 4]
    assert [m.parameters(2) for m in TransformModel] == [2, 3, 4, 6, 8]
    assert [m.parameters(3) for m in TransformModel] == [3, 6, 7, 12, 15]
    assert TransformModel.AFFINE | TransformModel.TRANSLATION is TransformModel.AFFINE
    with pytest.raises(ValueError, match="wobbly"):
        Transform(np.eye(3), "wobbly")


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("model", list(TransformModel))
def test_the_least_number_of_points(model, ndim):
    rng = np.random.default_rng(4)
    needed = needed_points(model.value, ndim)
    points = rng.uniform(0, 100, (needed, ndim))
    truth = Transform.from_translation(np.arange(1.0, ndim + 1))
    assert Transform.from_points(points, truth(points), model)(points) == pytest.approx(truth(points), abs=1e-6)
    with pytest.raises(ValueError, match=f"needs {needed} points, got {needed - 1} usable"):
        Transform.from_points(points[1:], points[1:], model)
    lost = points.copy()
    lost[0, 0] = np.nan
    with pytest.raises(ValueError, match=f"got {needed - 1} usable"):
        Transform.from_points(lost, points, model)


@pytest.mark.parametrize(
    "moving, reference, options, message",
    [
        (SQUARE, SQUARE[:3], {}, r"must both be \(N, 2\) or \(N, 3\), got \(5, 2\) and \(3, 2\)"),
        (SQUARE[0], SQUARE[0], {}, r"got \(2,\) and \(2,\)"),
        (SQUARE, SQUARE, {"weights": [1, 2]}, r"weights must be \(5,\), one per point, got \(2,\)"),
        (SQUARE, SQUARE, {"weights": [1, 1, -1, 1, 1]}, "weights must not be negative"),
        (SQUARE, SQUARE, {"weights": np.zeros(5)}, "got 0 usable"),
        (np.ones((4, 2)), SQUARE[:4], {"model": "euclidean"}, "do not fix a rotation"),
        (np.arange(12.0).reshape(6, 2), np.ones((6, 2)), {"model": "affine"}, "they lie on one line"),
        (np.arange(12.0).reshape(6, 2), np.arange(12.0).reshape(6, 2), {"model": "projective"}, "on one line"),
        (np.ones((6, 2)), np.ones((6, 2)), {"model": "projective"}, "all coincide"),
        (
            np.outer(np.arange(6.0), [1, 2, 3]),
            np.outer(np.arange(6.0), [1, 2, 3]),
            {"model": "euclidean"},
            "on one line",
        ),
        (np.c_[SQUARE, np.zeros(5)], np.c_[SQUARE, np.zeros(5)], {"model": "affine"}, "they lie on one plane"),
    ],
)
def test_points_that_fix_nothing(moving, reference, options, message):
    with pytest.raises(ValueError, match=message):
        Transform.from_points(moving, reference, **options)


def test_points_in_a_plane_of_space_do_fix_a_rotation():
    flat = np.c_[SQUARE, np.zeros(5)]
    angle = 0.3
    turned = flat @ np.array([[1, 0, 0], [0, np.cos(angle), np.sin(angle)], [0, -np.sin(angle), np.cos(angle)]])
    found = Transform.from_points(flat, turned, "euclidean")
    assert found(flat) == pytest.approx(turned)
    assert np.linalg.det(found.linear) == pytest.approx(1)


def test_against_scikit_image():
    transform = pytest.importorskip("skimage.transform")
    rng = np.random.default_rng(11)
    src, dst = rng.uniform(0, 300, (14, 2)), rng.uniform(0, 300, (14, 2))
    dst = src @ np.array([[0.98, 0.12], [-0.1, 1.03]]) + (12, -30) + rng.normal(0, 0.5, (14, 2))
    # its affine fit minimises an algebraic distance, ours that of the points: only the rotations are the same problem
    kinds = {"euclidean": transform.EuclideanTransform, "similarity": transform.SimilarityTransform}
    for model, kind in kinds.items():  # coordinates are only labels to these: (y, x) in, (y, x) out
        if hasattr(kind, "from_estimate"):
            theirs = kind.from_estimate(src, dst)
        else:
            theirs = kind()
            theirs.estimate(src, dst)
        assert Transform.from_points(src, dst, model).matrix == pytest.approx(theirs.params, abs=1e-6), model


def test_the_shift_of_scikit_image_is_our_translation():
    registration = pytest.importorskip("skimage.registration")
    rng = np.random.default_rng(5)
    reference = rng.random((48, 80))
    drift = (3, -7)
    moving = np.roll(reference, drift, (0, 1))
    shift, *_ = registration.phase_cross_correlation(reference, moving)
    assert Transform.from_translation(shift)((10.0 + 3, 20.0 - 7)).tolist() == [10.0, 20.0]


def test_projective_beats_the_algebraic_fit_alone():
    rng = np.random.default_rng(6)
    truth = Transform([[1.0, 0.1, 4], [-0.05, 0.95, 9], [2e-4, -3e-4, 1]], "projective")
    src = rng.uniform(0, (200, 600), (40, 2))
    dst = truth(src) + rng.normal(0, 0.3, (40, 2))
    found = Transform.from_points(src, dst, "projective")
    assert ((found(src) - dst) ** 2).sum() < ((truth(src) - dst) ** 2).sum()
    assert np.abs(found(src) - truth(src)).max() < 0.5


def test_a_series_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"a series is \(T, 3, 3\) or \(T, 4, 4\), not \(3, 3\)"):
        TransformSeries(np.eye(3))
    with pytest.raises(ValueError, match=r"valid must be \(2,\), one per frame, got \(3,\)"):
        TransformSeries(np.stack([np.eye(3)] * 2), valid=[True] * 3)
    with pytest.raises(ValueError, match="cannot chain 2 transforms with 3: the stacks differ in length"):
        TransformSeries.identity(2, 2).then(TransformSeries.identity(3, 2))


def test_a_series_in_words_and_parts():
    series = TransformSeries.from_translations([[0, 0], [1, 2], [3, 4]], [True, False, True])
    assert repr(series) == "TransformSeries(3 x translation, 2-D, 1 not valid)"
    assert series.selected(slice(1, 3)).translations.tolist() == [[1, 2], [3, 4]]
    assert series.selected([2, 0]).valid.tolist() == [True, True]
    assert series.with_valid([True] * 3).valid.all()
    assert [t.translation.tolist() for t in series] == [[0, 0], [1, 2], [3, 4]]
    assert "Transform(translation, [[" in repr(series[1])


def test_angles_of_volumes_are_rotation_vectors():
    angle = 0.4
    matrix = np.eye(4)
    matrix[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]  # y towards x, about z
    assert TransformSeries(matrix[None]).angles[0] == pytest.approx([0.4, 0, 0])
