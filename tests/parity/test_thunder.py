"""thunder-registration's vocabulary and sign, after its own README and tests (0.7), with sub-pixel shifts."""

import numpy as np
import pytest
from scipy.ndimage import shift as displaced

import stackalign as sa
from tests.contract.cases import moved, scene


def images(deltas, shape=(40, 52)):
    """Return a reference and images displaced by ``deltas``; scipy's shift moves content by plus delta, as thunder."""
    reference = 1000 * moved(scene(shape), np.zeros((1, len(shape))))[0] + 50
    return reference, np.stack([displaced(reference, d, mode="nearest", order=3) for d in deltas])


DELTAS = np.array([[0.0, 0.0], [2.0, -3.0], [-1.0, 4.0], [1.5, 0.25]])


def test_fit_gives_one_displacement_an_image_in_thunders_sign():
    reference, moving = images(DELTAS)
    model = sa.CrossCorrelation().fit_model(moving, reference=reference)
    assert isinstance(model, sa.DisplacementModel)
    assert list(model.transformations) == [(0,), (1,), (2,), (3,)]
    assert np.abs(model.toarray() - DELTAS).max() < 0.05
    assert model.toarray().shape == (4, 2)
    single = model.transformations[(1,)]
    assert isinstance(single, sa.Displacement)
    assert np.array_equal(single.toarray(), model.toarray()[1])
    assert np.array_equal(single.delta, model.toarray()[1])
    assert np.allclose(model.toarray(), -model.transforms.translations)


def test_whole_pixels_are_thunders_very_numbers():
    reference, moving = images(DELTAS[:3])
    model = sa.CrossCorrelation(subpixel=False).fit_model(moving, reference=reference)
    assert np.array_equal(model.toarray(), DELTAS[:3])


def test_transform_brings_images_back_to_the_reference():
    reference, moving = images(DELTAS)
    model = sa.CrossCorrelation().fit_model(moving, reference=reference)
    fixed = model.transform(moving).asarray()
    inner = (slice(6, -6), slice(6, -6))
    for image in fixed:
        assert np.abs(image[inner] - reference[inner]).max() < 0.03 * np.ptp(reference)
    one = model.transformations[(2,)].apply(moving[2])
    assert np.allclose(one, fixed[2])


def test_without_a_reference_the_mean_serves():
    _, moving = images(DELTAS)
    model = sa.CrossCorrelation().fit_model(moving)
    assert np.abs(model.toarray() - (DELTAS - DELTAS[0])).max() < 0.05


def test_an_image_stack_and_its_metadata_pass_through():
    reference, moving = images(DELTAS)
    stack = sa.ImageStack(moving, pixel_size=(0.2, 0.2), name="cells")
    fixed = sa.CrossCorrelation().fit_model(stack, reference=reference).transform(stack)
    assert (fixed.pixel_size, fixed.name) == ((0.2, 0.2), "cells")


def test_volumes_move_as_one():
    deltas = np.array([[0.0, 0, 0], [1.0, -2.0, 1.5]])
    reference, moving = images(deltas, (10, 36, 40))
    model = sa.CrossCorrelation().fit_model(moving, reference=reference)
    assert model.toarray().shape == (2, 3)
    assert np.abs(model.toarray() - deltas).max() < 0.08


@pytest.mark.parametrize("axis", [0, -3])
def test_planes_of_a_volume_may_move_on_their_own(axis):
    per_plane = np.array([[[0.0, 0], [0, 0], [0, 0]], [[1.0, -2.0], [0.5, 0.5], [-3.0, 1.0]]])
    planes = [images(per_plane[:, z]) for z in range(3)]
    reference = np.stack([r for r, _ in planes])
    moving = np.stack([m for _, m in planes], axis=1)
    model = sa.CrossCorrelation().fit_model(moving, reference=reference, axis=axis)
    assert model.toarray().shape == (2, 3, 2)
    assert np.abs(model.toarray() - per_plane).max() < 0.05
    assert model.transforms is None
    assert model.transformations[(1,)].axis == 0
    fixed = model.transform(moving).asarray()
    assert fixed.dtype == moving.dtype
    inner = (slice(None), slice(6, -6), slice(6, -6))
    assert np.abs(fixed[1][inner] - reference[inner]).max() < 0.03 * np.ptp(reference)


def test_planes_along_another_axis():
    reference, moving = images(DELTAS[:2])
    model = sa.CrossCorrelation().fit_model(
        np.stack([moving, moving], axis=-1), reference=np.stack([reference] * 2, -1), axis=2
    )
    assert np.abs(model.toarray() - DELTAS[:2, None]).max() < 0.05


def test_misuse_is_named():
    reference, moving = images(DELTAS)
    with pytest.raises(ValueError, match="only volumes have planes"):
        sa.CrossCorrelation().fit_model(moving, reference=reference, axis=0)
    with pytest.raises(ValueError, match="only volumes have planes"):
        sa.CrossCorrelation().fit_model(moving[:, None], axis=3)
    model = sa.CrossCorrelation().fit_model(moving, reference=reference)
    with pytest.raises(ValueError, match="the model holds 4 displacements, the stack 2 images"):
        model.transform(moving[:2])
    with pytest.raises(ValueError, match="they must be alike"):
        sa.CrossCorrelation().fit_model(moving, reference=reference[1:])
