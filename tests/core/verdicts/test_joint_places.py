"""Frames that show different parts of a scene lie where all of them together would have them."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from stackalign.core.generators import generators
from stackalign.core.geometry import centre
from stackalign.core.transform import TransformModel
from stackalign.core.verdicts.joint_places import PlacedFrame, place_together

SIDE = 60


def view(scene, matrix):
    """Return what a frame shows of a scene that has 20 px more on each side."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(float)
    places = matrix @ np.stack([y, x, np.ones_like(x)]).reshape(3, -1)
    return ndimage.map_coordinates(scene, places[:2] + 20, order=3).reshape(SIDE, SIDE)


def halves(model, seed, count=12, noise=4.0):
    """Return frames of which each shows one side of a smooth scene, placed roughly, and where they lie."""
    rng = np.random.default_rng(seed)
    scene = ndimage.gaussian_filter(np.random.default_rng(1).normal(0, 1, (SIDE + 40,) * 2), 6)
    scene = 100 + 40 * scene / scene.std()
    group = generators(model, centre((SIDE, SIDE)), SIDE / np.sqrt(2))
    frames, true = [], []
    for t in range(count):
        matrix = np.eye(3)
        angle = rng.uniform(-0.03, 0.03) if model is TransformModel.EUCLIDEAN else 0.0
        matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        matrix[:2, 2] = rng.uniform(-3, 3, 2)
        image = view(scene, matrix)
        image = image * (1 + 0.1 * t / count) + 3 * (t % 3) + rng.normal(0, noise, image.shape)
        # the first half shows the left, the others the right; they share a quarter
        hidden = slice(38, None) if t < count // 2 else slice(None, 22)
        image[:, hidden] = np.nan
        # each group lies right in itself, and a pixel and a half off the other
        placed = matrix.copy()
        placed[:2, 2] += 1.5 if t < count // 2 else 0.0
        frames.append(PlacedFrame(image.astype(np.float32), noise**2, placed, 1.0, 0.0))
        true.append(matrix)
    return frames, group, np.array(true)


def off(frames, true):
    """Return how far the centres of frames lie off, against those of all, (n, 2), px."""
    middle = np.append(centre((SIDE, SIDE)), 1.0)
    way = np.array([(f.matrix @ middle - m @ middle)[:2] for f, m in zip(frames, true, strict=True)])
    return way - way.mean(0)


def test_groups_that_share_little_come_together():
    for model in (TransformModel.TRANSLATION, TransformModel.EUCLIDEAN):
        frames, group, true = halves(model, 0)
        before = np.abs(off(frames, true)).max()
        scene = place_together(frames, group)
        assert before > 0.7
        assert np.abs(off(frames, true)).max() < 0.2
        assert scene.shape == (SIDE, SIDE)
        gains = np.array([f.gain for f in frames])
        assert abs(gains[-1] / gains[0] - (1 + 0.1 * 11 / 12)) < 0.01


def test_the_errors_are_those_against_the_other_frames():
    """Over seeds, errors scatter as stated, though each frame sees only its part of the scene."""
    ratios = []
    for seed in range(6):
        frames, group, true = halves(TransformModel.TRANSLATION, seed)
        place_together(frames, group)
        ratios.append(off(frames, true) / np.array([f.shift_error for f in frames]))
    assert 0.75 < np.sqrt(np.mean(np.square(ratios))) < 1.3


def test_frames_that_share_nothing_do_not_fix_each_other():
    frames, group, _ = halves(TransformModel.TRANSLATION, 0)
    for t, frame in enumerate(frames):
        frame.image[:, slice(28, None) if t < 6 else slice(None, 34)] = np.nan
    place_together(frames, group)
    assert min(f.error for f in frames) > 10


def away(seed, noise, count=14, apart=34.0):
    """Return frames of a faint scene, the last five far off the others, placed within a pixel, and where they lie."""
    rng = np.random.default_rng(seed)
    scene = ndimage.gaussian_filter(np.random.default_rng(2).normal(0, 1, (SIDE + 80,) * 2), 3)
    scene = 100 + 10 * scene / scene.std()
    group = generators(TransformModel.TRANSLATION, centre((SIDE, SIDE)), SIDE / np.sqrt(2))
    frames, true = [], []
    for t in range(count):
        matrix = np.eye(3)
        matrix[:2, 2] = rng.uniform(-2, 2, 2) + (apart if t >= count - 5 else 0.0)
        image = view(scene, matrix)
        placed = matrix.copy()
        placed[:2, 2] += rng.normal(0, 0.5, 2)
        noisy = image + rng.normal(0, noise, image.shape)
        frames.append(PlacedFrame(noisy.astype(np.float32), noise**2, placed, 1.0, 0.0))
        true.append(matrix)
    return frames, group, np.array(true)


def test_what_frames_show_beyond_the_field_places_them_better_and_errors_are_honest():
    """Far frames share a fifth of the field with the others; against each other they show all of it."""
    rms, ratios = {}, []
    for beyond in (False, True):
        errors = []
        for seed in range(8):
            frames, group, true = away(seed, noise=8.0)
            scene = place_together(frames, group, beyond=beyond)
            far = off(frames, true)[-5:]
            errors.append(far - far.mean(0))  # among themselves
            if beyond:
                ratios.append(off(frames, true) / np.array([f.shift_error for f in frames]))
                assert min(scene.shape) > SIDE + 30
        rms[beyond] = np.sqrt(np.mean(np.square(errors)))
    assert rms[True] < 0.7 * rms[False]
    assert 0.75 < np.sqrt(np.mean(np.square(ratios))) < 1.3


def test_a_frame_that_shows_what_no_other_does_is_not_said_to_be_known():
    errors = []
    for beyond in (False, True):
        frames, group, _ = away(0, noise=8.0)
        frames[-1].matrix[:2, 2] = 500.0
        place_together(frames, group, beyond=beyond)
        errors.append(frames[-1].error)
    assert errors[1] >= errors[0] > 10
