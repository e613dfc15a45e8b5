"""Strategies that draw transforms and series such as a microscope could see."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from stackalign.core.transform import Transform, TransformModel
from stackalign.core.transform_series import TransformSeries

MODELS = list(TransformModel)
small = st.floats(-1, 1, allow_nan=False, allow_subnormal=False)
length = st.floats(-300, 300, allow_nan=False, allow_subnormal=False)


@st.composite
def transforms(draw, ndim=None, model=None):
    """A transform that a microscope could see: any shift, up to 60 degrees, stretched by up to 30 %."""
    d = draw(st.sampled_from((2, 3))) if ndim is None else ndim
    family = draw(st.sampled_from(MODELS)) if model is None else TransformModel(model)
    matrix = np.eye(d + 1)
    matrix[:d, d] = draw(arrays(float, d, elements=length))
    if family.rank >= TransformModel.EUCLIDEAN.rank:
        turn = draw(arrays(float, 3, elements=small)) * np.pi / 3
        matrix[:d, :d] = Rotation.from_rotvec(turn).as_matrix() if d == 3 else plane_rotation(turn[0])
    if family is TransformModel.SIMILARITY:
        matrix[:d, :d] *= 1 + 0.3 * draw(small)
    if family.rank >= TransformModel.AFFINE.rank:
        matrix[:d, :d] @= np.eye(d) + 0.15 * draw(arrays(float, (d, d), elements=small))
    if family is TransformModel.PROJECTIVE:
        matrix[d, :d] = 3e-4 * draw(arrays(float, d, elements=small))
    return Transform(matrix, family)


def plane_rotation(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def scattered(ndim, count, seed, shape=(90, 640, 310)):
    """Points of a frame that is far from square, none on a common plane."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0, np.array(shape[-ndim:]), (count, ndim))


@st.composite
def series(draw, ndim=None, model=None, least=1):
    d = draw(st.sampled_from((2, 3))) if ndim is None else ndim
    family = draw(st.sampled_from(MODELS)) if model is None else TransformModel(model)
    items = draw(st.lists(transforms(d, family), min_size=least, max_size=6))
    valid = draw(arrays(bool, len(items)))
    return TransformSeries(np.stack([t.matrix for t in items]), family, valid)


def same(a, b):
    return (
        np.array_equal(a.matrices, b.matrices)
        and a.model is b.model
        and np.array_equal(a.valid, b.valid)
        and a.ndim == b.ndim
    )
