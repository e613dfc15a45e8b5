"""Batched homographies: four corners, points and warps, against numpy and the warps of the core."""

import numpy as np
import pytest

from stackalign.core.transform import Transform
from stackalign.core.warping.resample import valid_mask, warp_frame

torch = pytest.importorskip("torch")

from stackalign.core.deep import homography as hg  # noqa: E402

H, W = 40, 56


@pytest.fixture
def corners():
    rng = np.random.default_rng(3)
    return torch.tensor(hg.template_corners(H, W).numpy() + rng.uniform(-9, 9, (6, 4, 2)), dtype=torch.float64)


def test_four_corners_fix_the_homography(corners):
    here = hg.template_corners(H, W).double()
    matrices = hg.homography_from_corners(here, corners)
    np.testing.assert_allclose(hg.corners_from_homography(matrices, H, W), corners, atol=1e-9)
    for matrix, four in zip(matrices.numpy(), corners.numpy(), strict=True):
        expected = Transform.from_points(here.numpy(), four, "projective").matrix
        np.testing.assert_allclose(matrix, expected, atol=1e-9)


def test_float32_is_good_to_a_thousandth_of_a_pixel_in_large_images():
    here = hg.template_corners(2048, 2048)
    there = here + torch.tensor([[30.0, -200.0], [100.0, 50.0], [-400.0, 20.0], [10.0, 300.0]])
    found = hg.corners_from_homography(hg.homography_from_corners(here, there[None]), 2048, 2048)
    assert (found - there).abs().max() < 2e-3


def test_derivatives_are_those_of_difference_quotients(corners):
    here = hg.template_corners(H, W).double()
    points = torch.tensor([[[3.0, 7.0], [20.0, 41.0]]], dtype=torch.float64)

    def moved(four):
        return hg.transform_points(hg.homography_from_corners(here, four), points)

    assert torch.autograd.gradcheck(moved, corners[:1].clone().requires_grad_())


def test_a_warp_is_that_of_the_core(corners):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(50, 61)).astype(np.float32)
    for matrix in hg.homography_from_corners(hg.template_corners(H, W).double(), corners):
        warped, inside = hg.warp(torch.tensor(image)[None, None], matrix[None].float(), (H, W))
        towards = np.linalg.inv(matrix.numpy())
        expected = warp_frame(image, towards, order=1, output_shape=(H, W))
        shown = valid_mask(image.shape, towards, output_shape=(H, W))
        assert shown.mean() > 0.5
        np.testing.assert_allclose(warped[0, 0].numpy()[shown], expected[shown], atol=2e-4)
        assert (inside[0, 0].numpy().astype(bool) != shown).mean() < 1e-3


def test_the_identity_copies():
    image = torch.rand(2, 3, 9, 7)
    warped, inside = hg.warp(image, torch.eye(3).expand(2, 3, 3), (9, 7))
    torch.testing.assert_close(warped, image, atol=1e-5, rtol=0)
    assert inside.all()


def test_coarser_images_keep_their_pixel_centres():
    matrix = torch.eye(3)[None].clone()
    matrix[0, :2, 2] = torch.tensor([3.0, -2.0])
    fine = torch.rand(1, 1, 32, 48)
    coarse = torch.nn.functional.avg_pool2d(fine, 4)
    y = torch.arange(48.0).expand(1, 1, 32, 48)  # a ramp: its means are its values at the centres
    ramp = torch.nn.functional.avg_pool2d(y, 4)
    shown, inside = hg.warp(ramp, hg.rescaled(matrix, 4, 4), coarse.shape[-2:])
    expected = ramp - 2.0
    torch.testing.assert_close(shown[inside > 0], expected[inside > 0], atol=1e-4, rtol=0)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"four corners are \(B, 4, 2\)"):
        hg.homography_from_corners(torch.zeros(3, 2), torch.zeros(1, 4, 2))
