"""Places are refined until they rest, whatever side they come from."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from stackalign.core.multimodal import places
from stackalign.core.multimodal.corners import corner_distance
from stackalign.core.multimodal.places import Place, improved, settled
from stackalign.core.multimodal.views import ImageViews
from stackalign.core.transform import TransformModel

SHAPE = (128, 128)
OPTIONS = {"model": TransformModel.PROJECTIVE, "least_overlap": 0.4}


@pytest.mark.parametrize("seed", [0, 3])
def test_passes_that_go_a_part_of_the_way_end_at_one_place(seed):
    rng = np.random.default_rng(seed)

    def drawn(sigma):
        image = gaussian_filter(rng.normal(size=SHAPE), sigma)
        return image / image.std()

    scene = drawn(3.0)
    views = ImageViews(np.float32(scene + 0.6 * drawn(1.0)), np.float32(np.cos(2 * scene) + 0.8 * drawn(1.0)))
    early, late = [], []
    for aside in (2.0, -2.0):
        start = np.eye(3)
        start[:2, 2], start[0, 1] = (aside, -aside), 0.01
        early.append(improved(views, start, 0, **OPTIONS))
        late.append(settled(views, early[-1], 0, **OPTIONS))
    apart = [corner_distance(one.matrix, other.matrix, SHAPE) for one, other in (early, late)]
    assert apart[1] < min(0.1, 0.5 * apart[0])
    onward = [improved(views, place.matrix, 0, passes=1, **OPTIONS) for place in (early[0], late[0])]
    assert onward[1].fit.moved < 0.5 * onward[0].fit.moved


@pytest.fixture
def alike():
    """Return views of one image twice, and its place."""
    image = np.float32(gaussian_filter(np.random.default_rng(1).normal(size=SHAPE), 2))
    views = ImageViews(image, image)
    return views, improved(views, np.eye(3), 0, **OPTIONS)


def test_a_place_at_rest_stays(alike):
    views, place = alike
    assert corner_distance(settled(views, place, 0, **OPTIONS).matrix, np.eye(3), SHAPE) < 1e-3


def test_a_place_that_fits_worse_is_not_taken(alike, monkeypatch):
    views, place = alike

    def astray(views, matrix, level, **options):
        aside = np.eye(3)
        aside[0, 2] = 1.0
        return Place(aside @ matrix, place.fit)

    monkeypatch.setattr(places, "improved", astray)
    assert settled(views, place, 0, **OPTIONS) is place
