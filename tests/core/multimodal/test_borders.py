"""Constant corners of images that were turned are no picture; dark parts of pictures are."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import stackalign as sa
from stackalign.core.multimodal.borders import without_borders
from stackalign.core.multimodal.corners import corner_distance


def picture(shape=(120, 140), seed=0):
    image = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3).astype(np.float32)
    return 100 + 500 * (image - image.min())


def turned(image, degrees, fill):
    motion = sa.Transform.from_rotation(np.deg2rad(degrees), centre=(59.5, 69.5)).matrix
    return sa.warp_frame(image, motion, fill=fill).astype(np.float32), motion


@pytest.mark.parametrize("degrees", [7, 30, 60, -45])
@pytest.mark.parametrize("fill", [0.0, 65535.0])
def test_what_a_turn_left_empty_is_not_known(degrees, fill):
    image, _ = turned(picture(), degrees, fill)
    known, _ = turned(np.ones((120, 140), np.float32), degrees, 0.0)
    found = np.isfinite(without_borders(image))
    assert not found[known == 0].any()
    assert found.sum() > 0.93 * (known > 0).sum()


def test_a_band_and_noise_beside_the_sides_are_left_out():
    image = picture()
    image[:, 100:] = 0
    rng = np.random.default_rng(1)
    image[:, 100:103] += rng.uniform(0, 60, (120, 3)).astype(np.float32)
    found = np.isfinite(without_borders(image))
    assert not found[:, 104:].any()
    assert found[:, :95].all()


def test_objects_on_a_dark_ground_and_whole_pictures_stay():
    yx = np.mgrid[:120, :140]
    disc = np.where(np.hypot(yx[0] - 60, yx[1] - 70) < 58, picture(), 0).astype(np.float32)
    spots = (1000 * np.exp(-(((yx[0] % 30) - 15) ** 2 + ((yx[1] % 35) - 17) ** 2) / 20)).astype(np.float32)
    for image in (disc, spots, picture(), np.zeros((60, 60), np.float32), picture((12, 12))):
        assert without_borders(image) is image
    image = picture()
    image[3, 4] = np.nan
    assert without_borders(image) is image


def test_a_turned_pair_is_found_in_spite_of_its_corners():
    image = picture()
    moving, motion = turned(image, -40, 0.0)
    pair = sa.register_pair(500 - moving * (moving > 0), image, sa.Multimodal(model="euclidean", max_rotation=45))
    assert not pair.refused
    assert corner_distance(pair.transform.matrix, np.linalg.inv(motion), image.shape) < 0.5
