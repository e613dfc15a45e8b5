"""Sets of pairs on disk: layouts, the order of corners, truth in x, y, errors that name the file."""

import json
from pathlib import Path

import numpy as np
import pytest
from skimage import data
from skimage.io import imsave

from stackalign.core.deep.pairs import SyntheticPairs, corner_error, corners_of
from stackalign.core.warping.resample import valid_mask, warp_frame
from stackalign.io.errors import StackReadError
from stackalign.io.pair_sets import open_pairs
from stackalign.io.pictures import PictureFolder, colours

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
shared = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not SHARED.is_dir(), reason="the real data sets are not beside the checkout"),
]
TRUTH = np.array([[31.5, 20.0], [28.0, 150.0], [160.0, 140.25], [155.0, 35.0]])  # (y, x), clockwise


@pytest.fixture
def dlkfm(tmp_path):
    """A set in DLKFM's layout whose template is what the truth says."""
    pair_source = SyntheticPairs(strength=0, seed=1).pair([data.astronaut()], 0)
    for what in ("input", "template", "label"):
        (tmp_path / f"val_{what}").mkdir()
    reference = (255 * np.clip(pair_source.reference, 0, 1)).astype(np.uint8)
    moving = warp_frame(pair_source.reference, np.linalg.inv(_matrix()), order=1, output_shape=(128, 128))
    imsave(tmp_path / "val_input" / "scene_7.png", reference, check_contrast=False)
    imsave(
        tmp_path / "val_template" / "scene_7.png", (255 * np.clip(moving, 0, 1)).astype(np.uint8), check_contrast=False
    )
    names = ("top_left", "top_right", "bottom_right", "bottom_left")
    parts = [{f"{n}_u": float(x), f"{n}_v": float(y)} for n, (y, x) in zip(names, TRUTH, strict=True)]
    parts[2], parts[3] = parts[3], parts[2]
    (tmp_path / "val_label" / "scene_7_label.txt").write_text(json.dumps({"location": parts}))
    return tmp_path


def _matrix():
    from stackalign.core.transform_fit import fit_matrix

    return fit_matrix(corners_of((128, 128)), TRUTH, "projective")


def likeness(pair):
    """Correlation of both images where the truth says that they are the same."""
    reference, moving = (np.asarray(i, float) if i.ndim == 2 else i.mean(-1) for i in (pair.reference, pair.moving))
    shown = warp_frame(moving, pair.matrix, order=1, output_shape=reference.shape)
    inside = valid_mask(moving.shape, pair.matrix, output_shape=reference.shape) & np.isfinite(shown)
    return np.corrcoef(shown[inside], reference[inside])[0, 1]


def test_the_layout_of_dlkfm(dlkfm):
    pairs = open_pairs(dlkfm)
    assert (len(pairs), pairs.kind) == (1, "dlkfm")
    np.testing.assert_allclose(pairs[0].corners, TRUTH)
    assert likeness(pairs[0]) > 0.99
    with pytest.raises(StackReadError, match="holds no pairs"):
        open_pairs(dlkfm, split="train")


def test_labels_that_are_none_are_named(dlkfm):
    label = dlkfm / "val_label" / "scene_7_label.txt"
    for text in ("{", "[]", '{"location": [{"top_left_u": 1}]}', '{"location": 3}'):
        label.write_text(text)
        with pytest.raises(StackReadError, match=r"scene_7_label\.txt"):
            open_pairs(dlkfm)[0]
    label.unlink()
    with pytest.raises(StackReadError, match=r"belongs to scene_7\.png"):
        open_pairs(dlkfm)


def test_an_affine_truth_maps_the_first_image_to_the_second(tmp_path):
    image = data.camera()[:160, :200]
    matrix = np.array([[0.9, 0.2, 12.0], [-0.1, 1.1, 20.0]])  # x, y
    yx = np.eye(3)
    yx[:2, :2], yx[:2, 2] = matrix[::-1, [1, 0]], matrix[::-1, 2]
    imsave(tmp_path / "pair3_1.png", image, check_contrast=False)
    imsave(tmp_path / "pair3_2.png", warp_frame(image, yx, order=1), check_contrast=False)
    np.savetxt(tmp_path / "gt_3.txt", matrix)
    pair = open_pairs(tmp_path)[0]
    np.testing.assert_allclose(pair.matrix, yx, atol=1e-9)
    assert likeness(pair) > 0.99
    np.savetxt(tmp_path / "gt_3.txt", matrix[:1])
    with pytest.raises(StackReadError, match="2 x 3 numbers"):
        open_pairs(tmp_path)[0]


def test_aligned_pairs_are_warped_the_same_way_every_time(tmp_path):
    for part in ("vi", "ir"):
        (tmp_path / part).mkdir()
        imsave(tmp_path / part / "a.png", data.camera()[:150, :220], check_contrast=False)
    pairs = open_pairs(tmp_path)
    apart = pairs[0].corners - corners_of((150, 220))
    assert (np.abs(apart) <= 0.1 * np.array([150, 220])).all()
    assert corner_error(pairs[0].nothing, pairs[0].corners) > 3
    assert likeness(pairs[0]) > 0.99
    np.testing.assert_array_equal(pairs[0].moving, open_pairs(tmp_path)[0].moving)
    assert not np.array_equal(pairs[0].corners, open_pairs(tmp_path, seed=1)[0].corners)


def test_plain_pictures_make_synthetic_pairs(tmp_path):
    imsave(tmp_path / "a.png", data.coffee()[:220, :240], check_contrast=False)
    pairs = open_pairs(tmp_path, recipe=SyntheticPairs(size=64, template=40, reach=12), count=3)
    assert (len(pairs), pairs.kind, len(pairs.first(2))) == (3, "synthetic", 2)
    assert pairs[2].moving.shape == (40, 40)
    assert PictureFolder(tmp_path)[0].shape == (220, 240, 3)
    assert colours(np.full((4, 5), 512, np.uint16)).tolist() == np.full((4, 5, 3), 2).tolist()
    with pytest.raises(StackReadError, match="no folder of pairs"):
        open_pairs(tmp_path / "none")
    (tmp_path / "b").mkdir()
    with pytest.raises(StackReadError, match="no PNG or JPEG"):
        PictureFolder(tmp_path / "b")


class TestSharedData:
    pytestmark = shared

    def test_visir_pairs(self):
        pairs = open_pairs(SHARED / "visir_pairs")
        assert len(pairs) == 40
        floor = [corner_error(p.nothing, p.corners) for p in pairs]
        assert np.mean(floor) == pytest.approx(24.5, abs=0.5)
        vedai = open_pairs(SHARED / "visir_pairs" / "VEDAI")
        assert len(vedai) == 20
        assert vedai[0].group == "VEDAI"
        assert np.median([likeness(p) for p in vedai]) > 0.3

    def test_roadscene_and_multimodal(self):
        assert len(open_pairs(SHARED / "roadscene")) == 32
        several = open_pairs(SHARED / "multimodal")
        assert len(several) == 120
        assert {p.group for p in several.first(120)} >= {"Nighttime", "Optical-SAR"}
        assert np.median([likeness(p) for p in open_pairs(SHARED / "multimodal" / "Optical-Optical").first(6)]) > 0.4
