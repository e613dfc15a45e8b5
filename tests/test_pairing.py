"""Two images in one world, without a viewer: grids, corrections, pictures, and what is said about them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from stackalign.comparison import Comparison, compare, resampled
from stackalign.core.lucas_kanade.registrar import LucasKanade
from stackalign.core.transform import TransformModel
from stackalign.core.translation.registrar import CrossCorrelation
from stackalign.core.warping.common_grid import CommonGrid, PairImage, binned_place
from stackalign.core.work import drain
from stackalign.pairing import (
    Pairing,
    advice_for,
    luminance,
    models_of,
    pair_methods,
    pair_record,
    pair_work,
    probability_text,
)


def scene(shape: tuple[int, ...] = (160, 180), seed: int = 1) -> np.ndarray:
    image = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    return image / image.std() * 100 + 500


def place(scale: float, angle: float = 0.0, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    out = np.eye(3)
    out[:2, :2] = scale * np.array([[c, -s], [s, c]])
    out[:2, 2] = shift
    return out


PLACES = st.builds(
    place, st.floats(0.05, 5), st.floats(-180, 180), st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
)


@settings(max_examples=50, deadline=None)
@given(PLACES, PLACES, st.floats(-1, 1), st.floats(-1, 1))
def test_the_true_motion_of_the_grids_is_the_true_correction(
    here: np.ndarray, there: np.ndarray, y: float, x: float
) -> None:
    wide = np.ones((40, 50), np.float32)
    moving, reference = PairImage(wide, here), PairImage(wide, there)
    if not 0.1 < here[:2, :2].std() / there[:2, :2].std() < 10:
        return
    for refine in (True, False):
        grid = CommonGrid.of(moving, reference, refine)
        correction = place(1.0, 30 * x, (y, x))
        motion = np.linalg.inv(grid.place) @ correction @ grid.own
        np.testing.assert_allclose(grid.correction(motion), correction, atol=1e-7)
        corners = np.linalg.inv(grid.own) @ grid.start @ here @ np.array([[0, 0, 1], [39, 49, 1]]).T
        assert (corners[:2] > -1.01).all()
        assert (np.array(grid.own_shape) + 1.01 > corners[:2].T).all()
        np.testing.assert_allclose(grid.own[:2, :2], grid.place[:2, :2])


def test_equal_pixels_are_not_resampled() -> None:
    image = scene().astype(np.float32)
    moving = PairImage(image[3:], place(0.1, 0, (7.03, -2)))
    grid = CommonGrid.of(moving, PairImage(image, place(0.1, 0, (5, 5))), refine=False)
    np.testing.assert_array_equal(grid.moving_frame(image[3:]), image[3:])
    np.testing.assert_array_equal(grid.reference_frame(image), image)


def test_the_finer_image_is_binned_and_its_pixels_stay_where_they_were() -> None:
    image = scene().astype(np.float32)
    grid = CommonGrid.of(PairImage(image, place(0.1)), PairImage(image, place(0.31)), refine=True)
    assert grid.own_factors == (3, 3)
    assert grid.factors == (1, 1)
    np.testing.assert_allclose(binned_place((3, 3)) @ (0, 0, 1), (1, 1, 1))


@pytest.mark.parametrize(("ours", "theirs", "factor"), [(1e-9, 1e-6, 1e-3), (None, 1e-6, 0.25), (None, None, 1.0)])
def test_a_pixel_size_that_is_not_known_is_taken_from_the_other_one(
    ours: float | None, theirs: float | None, factor: float
) -> None:
    image = scene().astype(np.float32)
    moving = PairImage(image, place(2.0) if factor != 1e-3 else place(500.0), unit=ours)
    grid = CommonGrid.of(moving, PairImage(image, place(0.5), unit=theirs), refine=False)
    np.testing.assert_allclose(np.diag(grid.start)[:2], factor)
    np.testing.assert_array_equal(CommonGrid.of(moving, PairImage(image, place(0.5)), refine=True).start, np.eye(3))


def test_a_sheared_reference_is_drawn_upright() -> None:
    image = scene().astype(np.float32)
    sheared = np.array([[1, 0.3, 2], [0, 1, 3], [0, 0, 1.0]])
    moving = PairImage(image[10:110, 20:140], np.eye(3))
    pairing = drain(pair_work(moving, PairImage(image, sheared), LucasKanade(model="affine"))).unwrap()
    assert not pairing.refused
    np.testing.assert_allclose(pairing.matrix, [[1, 0, 10], [0, 1, 20], [0, 0, 1]], atol=0.05)


def test_what_cannot_be_registered_is_an_error_that_names_it() -> None:
    image = scene()
    good = PairImage(image, np.eye(3), "good")
    with pytest.raises(ValueError, match="“flat” is the same everywhere"):
        drain(pair_work(PairImage(np.zeros((30, 30)), np.eye(3), "flat"), good, CrossCorrelation())).unwrap()
    with pytest.raises(ValueError, match="both must be images, or both volumes"):
        drain(pair_work(PairImage(np.zeros((3, 30, 30)), np.eye(4), "deep"), good, CrossCorrelation())).unwrap()
    with pytest.raises(ValueError, match="the mask leaves nothing of “good”"):
        drain(pair_work(good, good, CrossCorrelation(), mask=np.zeros(image.shape, bool))).unwrap()
    with pytest.raises(ValueError, match="check the scale of both layers"):
        CommonGrid.of(PairImage(image, place(1e4)), PairImage(image, place(1.0)), refine=True)


def test_advice_fits_what_was_tried() -> None:
    assert any("shift and rotation" in tip for tip in advice_for(CrossCorrelation(), False, True))
    assert any("Largest rotation" in tip for tip in advice_for(LucasKanade(max_rotation=10), False, True))
    wide = advice_for(pair_record("lucas-kanade", TransformModel.SIMILARITY), False, False)
    assert not any("Largest" in tip for tip in wide)
    assert "looking everywhere" in advice_for(LucasKanade(), True, False)[0]


def test_methods_and_their_models() -> None:
    methods = pair_methods()
    assert {"cross-correlation", "lucas-kanade"} <= set(methods)
    assert models_of(methods["cross-correlation"]) == (TransformModel.TRANSLATION,)
    assert models_of(methods["lucas-kanade"]) == tuple(TransformModel)


def test_a_perspective_is_shown_by_its_nearest_affine() -> None:
    matrix = np.array([[1, 0, 3], [0, 1, 4], [1e-4, 5e-5, 1]])
    image = PairImage(scene(), np.eye(3))
    pairing = Pairing(matrix, matrix, TransformModel.PROJECTIVE, 0.9, 0.9, False, "", image, image)
    middle = np.array([79.5, 89.5, 1])
    exact = matrix @ middle
    np.testing.assert_allclose((pairing.affine @ middle)[:2], exact[:2] / exact[2], atol=0.5)
    np.testing.assert_array_equal(pairing.affine[2], (0, 0, 1))
    assert "size ×" in pairing.motion("µm")


def test_words_for_probabilities() -> None:
    assert [probability_text(p) for p in (0.5, 0.977, 0.995, np.nan)] == ["50 %", "97 %", "over 99 %", "not known"]


def test_pictures() -> None:
    image = scene((64, 64))
    both = compare(PairImage(image, np.eye(3)), PairImage(image, np.eye(3)))
    np.testing.assert_allclose(both.moving, both.reference, atol=1e-5)
    assert both.shared == 1
    overlay = both.picture("overlay")
    assert np.abs(overlay[..., 0].astype(int) - overlay[..., 1]).max() <= 1  # grey: they agree
    far = compare(PairImage(image, place(1, 0, (900, 0))), PairImage(image, np.eye(3)))
    assert far.shared == 0
    assert not far.picture("moving").any()
    large = scene((400, 300))
    small = compare(PairImage(large[100:150, 60:130], place(1, 0, (100, 60))), PairImage(large, np.eye(3)))
    assert small.part
    assert small.reference.shape == (119, 139)
    known = np.isfinite(small.moving)
    assert np.corrcoef(small.moving[known], small.reference[known])[0, 1] > 0.999
    squares = Comparison(np.zeros((8, 8), np.float32), np.ones((8, 8), np.float32)).picture("checkerboard", 2)[..., 0]
    np.testing.assert_array_equal(squares[::4, ::4], [[255, 0], [0, 255]])


def test_resampling_keeps_further_axes_and_the_dtype() -> None:
    stack = np.random.default_rng(2).integers(0, 4000, (3, 20, 24, 2)).astype(np.uint16)
    shift = np.array([[1, 0, 2], [0, 1, -3], [0, 0, 1.0]])
    out = resampled(stack, (1, 2), shift, (18, 22))
    assert out.shape == (3, 18, 22, 2)
    assert out.dtype == np.uint16
    np.testing.assert_array_equal(np.asarray(out)[:, 2:, :19], stack[:, :16, 3:22])
    volume = scene((6, 20, 20))
    np.testing.assert_array_equal(resampled(volume, (0, 1, 2), np.eye(4), volume.shape), volume)


def test_luminance_weighs_colours() -> None:
    np.testing.assert_allclose(luminance(np.eye(3)), (0.2126, 0.7152, 0.0722), rtol=1e-6)
    np.testing.assert_allclose(luminance(np.full((2, 2, 4), 7, np.uint8)), 7, rtol=1e-6)
