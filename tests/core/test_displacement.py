"""Displacements as values: their sign and what they do to an image. The vocabulary as a whole: tests/parity."""

import numpy as np
import pytest

import stackalign as sa


def test_a_displacement_is_undone():
    image = np.zeros((12, 14), np.uint16)
    image[5, 6] = 9
    moved = sa.Displacement(np.array([-2.0, 3.0])).apply(image)
    assert moved.dtype == np.uint16
    assert np.argwhere(moved).tolist() == [[7, 3]]


def test_its_array_is_a_copy():
    displacement = sa.Displacement(np.array([1.0, 2.0]))
    displacement.toarray()[0] = 7
    assert displacement.delta.tolist() == [1, 2]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_planes_along_any_axis(axis):
    volume = np.zeros((3, 3, 3), np.float32)
    volume[1, 1, 1] = 1
    delta = np.zeros((3, 2))
    delta[1] = (1, -1)
    moved = sa.Displacement(delta, axis).apply(volume)
    wanted = [1, 1, 1]
    others = [a for a in range(3) if a != axis]
    wanted[others[0]], wanted[others[1]] = 0, 2
    assert np.argwhere(moved).tolist() == [wanted]


def test_planes_must_be_as_many():
    with pytest.raises(ValueError, match="2 displacements for 3 planes along axis 0"):
        sa.Displacement(np.zeros((2, 2)), 0).apply(np.zeros((3, 4, 5)))


def test_a_model_stacks_its_displacements():
    model = sa.DisplacementModel({(k,): sa.Displacement(np.array([k, -k], float)) for k in range(3)}, None)
    assert model.toarray().tolist() == [[0, 0], [1, -1], [2, -2]]
