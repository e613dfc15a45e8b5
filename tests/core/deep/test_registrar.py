"""The method "deep": missing parts are named, images that cannot be aligned refused, nothing wild comes back."""

import builtins
import sys
from importlib import import_module

import numpy as np
import pytest
from skimage import data

import stackalign as sa
from stackalign.core.deep import registrar as module
from stackalign.core.deep.registrar import DeepHomography
from stackalign.core.deep.requirement import choose_device, require_torch
from stackalign.core.multimodal.views import ImageViews

torch = pytest.importorskip("torch")
from stackalign.core.deep.networks import build  # noqa: E402
from stackalign.core.deep.weights import WeightsError, arrays_of, packed  # noqa: E402

OPTIONS = {
    "features": {"widths": [4, 8, 12, 16], "coarse": 8, "fine": 8},
    "dhn": {"widths": [8, 8], "hidden": 16},
    "description": {"widths": [4, 4, 4, 4], "added": 1},
}


def weights(folder, name):
    torch.manual_seed(0)
    path = folder / f"{name}.safetensors"
    path.write_bytes(packed(arrays_of(build(name, OPTIONS[name])), {"network": name, "options": OPTIONS[name]}))
    return str(path)


def test_an_untrained_network_is_refused_and_gives_the_identity(tmp_path):
    method = DeepHomography(trained=weights(tmp_path, "features"))
    rng = np.random.default_rng(0)
    pair = sa.register_pair(rng.normal(size=(52, 52)), rng.normal(size=(60, 64)), method)
    assert pair.refused
    assert pair.reason
    np.testing.assert_array_equal(pair.transform.matrix, np.eye(3))


def test_the_same_image_is_found_even_by_random_features(tmp_path):
    """Random convolutions of equal pixels are equal: matching alone must find a crop by whole cells."""
    image = data.camera()[100:196, 150:246]
    method = DeepHomography(trained=weights(tmp_path, "features"))
    pair = sa.register_pair(image, image, method)
    assert not pair.refused
    corners = np.array([[0.0, 0], [0, 95], [95, 95], [95, 0]])
    assert np.abs(pair.transform(corners) - corners).max() < 0.5
    again = sa.register_pair(image, image, method)
    np.testing.assert_array_equal(pair.transform.matrix, again.transform.matrix)


def test_channels_sizes_dtypes_masks_and_holes():
    method = DeepHomography()
    colour = data.astronaut()[50:146, 100:212]
    holes = colour.mean(-1)
    holes[20:40, 30:60] = np.nan
    mask = np.ones(colour.shape[:2], bool)
    mask[:, :15] = False
    for moving, reference in (
        (colour, holes),
        (holes.astype(np.float32), colour),
        (colour[:90], colour.astype(np.uint16)),
    ):
        pair = sa.register_pair(moving, reference, method, mask=mask)
        assert not pair.refused, pair.reason
        assert np.abs(pair.transform([[20.0, 20.0]]) - 20).max() < 1


def test_a_constant_image_is_refused(tmp_path):
    method = DeepHomography(trained=weights(tmp_path, "features"))
    pair = sa.register_pair(np.zeros((64, 64)), data.camera()[:96, :96], method)
    assert pair.refused
    assert "moving image" in pair.reason


def test_networks_that_regress_corners_answer_too(tmp_path):
    method = DeepHomography(trained=weights(tmp_path, "dhn"), refine=False)
    pair = sa.register_pair(data.camera()[:40, :40], data.camera()[:64, :64], method)
    assert not pair.refused
    assert np.isnan(pair.probability)
    np.testing.assert_allclose(pair.transform([[0.0, 0.0]]), [[12, 12]], atol=1.5)


def test_files_that_are_missing_or_wrong_are_named(tmp_path):
    image = data.camera()[:96, :96]
    with pytest.raises(WeightsError, match=r"none\.safetensors"):
        sa.register_pair(image, image, DeepHomography(trained=str(tmp_path / "none.safetensors")))
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"hello world, this is no network")
    with pytest.raises(WeightsError, match=r"bad\.safetensors"):
        sa.register_pair(image, image, DeepHomography(trained=str(bad)))


def test_without_weights_in_the_package_it_says_how_to_get_some(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "PRETRAINED", tmp_path)
    with pytest.raises(WeightsError, match="stackalign train"):
        DeepHomography().network()


def test_without_torch_one_sentence_tells_how_to_install_it(monkeypatch):
    monkeypatch.setattr("stackalign.core.deep.requirement.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "stackalign\[torch\]"'):
        require_torch()
    with pytest.raises(ImportError, match=r'the method .deep. needs PyTorch: pip install "stackalign\[torch\]"'):
        DeepHomography().network()
    with pytest.raises(ImportError, match="the network 'dhn'"):
        build("dhn")


def test_importing_the_parts_without_networks_needs_no_torch(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] in ("torch", "safetensors"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    names = ("pairs", "renderings", "matching", "registrar", "train", "weights", "requirement", "inference")
    package = import_module("stackalign.core.deep")
    for part in names:
        # an import puts the new module into its package, too: other tests must find the one that is in use there
        monkeypatch.setattr(package, part, import_module(f"stackalign.core.deep.{part}"))
        monkeypatch.delitem(sys.modules, f"stackalign.core.deep.{part}")
    monkeypatch.setattr(builtins, "__import__", without)
    for part in names:
        import_module(f"stackalign.core.deep.{part}")


def test_devices():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ValueError, match="no device 'warp-drive'"):
        choose_device("warp-drive")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no device 'cuda'"):
            choose_device("cuda")


def test_the_weights_that_ship_are_those_of_their_card_and_find_a_negative():
    from stackalign.core.deep.pairs import SyntheticPairs, corner_error
    from stackalign.core.deep.weights import digest, unpacked

    file = module.PRETRAINED / "description.safetensors"
    arrays, card = unpacked(file)
    assert file.stat().st_size < 15e6
    assert digest(arrays) == card["sha256"]
    assert card["sha256"] in (module.PRETRAINED / "description.md").read_text(encoding="utf-8")
    recipe = SyntheticPairs(size=144, template=96, reach=24, inverted=True, zoom=(1, 2), structure=0.6, seed=5)
    method = DeepHomography()
    pair = recipe.pair([data.coffee()], 0)
    matrix, places = method.found(method.network(), pair.reference, pair.moving)
    assert matrix is not None
    assert len(places) == 1
    ends = np.c_[[[0, 0], [0, 95], [95, 95], [95, 0]], np.ones(4)] @ matrix.T
    assert corner_error(ends[:, :2] / ends[:, 2:], pair.corners) < 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("refine", [True, False])
def test_a_gpu_gives_the_same_answer_to_a_twentieth_of_a_pixel(refine):
    from stackalign.core.deep.pairs import SyntheticPairs, corner_error, corners_of

    recipe = SyntheticPairs(size=144, template=96, reach=24, inverted=True, zoom=(1, 2), structure=0.6, seed=5)
    for number in range(3):
        pair = recipe.pair([data.coffee()], number)
        found = [
            sa.register_pair(pair.moving, pair.reference, DeepHomography(device=device, refine=refine))
            for device in ("cpu", "cuda")
        ]
        assert found[0].refused == found[1].refused
        ends = [one.transform(corners_of(pair.moving.shape)) for one in found]
        assert corner_error(*ends) < 0.05


def test_what_is_missing_is_said_before_anything_begins(monkeypatch):
    assert DeepHomography().missing == ""
    monkeypatch.setattr("stackalign.core.deep.requirement.find_spec", lambda name: None)
    assert DeepHomography().missing == "The method 'deep' needs PyTorch: pip install \"stackalign[torch]\""
    with pytest.raises(ImportError, match="needs PyTorch"):
        sa.register(np.zeros((3, 40, 40)), DeepHomography())


def test_a_stack_is_laid_on_an_image_of_another_kind():
    image = data.camera()[100:228, 150:278].astype(np.float32)
    stack = np.stack([255 - data.camera()[100 + k : 228 + k, 150 - 2 * k : 278 - 2 * k] for k in range(3)])
    result = sa.register(stack, DeepHomography(model="translation"), reference=image)
    assert not result.quality.flagged.any(), result.quality.reasons
    np.testing.assert_allclose(result.transforms.translations, [[0, 0], [1, -2], [2, -4]], atol=0.2)
    alone = sa.register(stack[:2], DeepHomography(model="translation", refine=False), reference=image)
    np.testing.assert_allclose(alone.transforms.translations, [[0, 0], [1, -2]], atol=2)


def test_features_are_asked_where_the_first_answer_is_refused(monkeypatch, tmp_path):
    from stackalign.core.multimodal import matching

    seen, match = [], matching.match

    def recorded(views, *, starts, **options):
        seen.append(len(starts))
        return match(views, starts=starts, **options)

    monkeypatch.setattr(matching, "match", recorded)
    monkeypatch.setattr(DeepHomography, "found", lambda *_: (np.eye(3), [np.eye(3), np.eye(3)]))
    image, other = (np.random.default_rng(k).normal(size=(48, 48)) for k in range(2))
    method = DeepHomography(trained=weights(tmp_path, "features"), max_rotation=0, max_scale=1, model="similarity")
    assert sa.register_pair(other, image, method, initial=sa.Transform.identity(2)).refused
    assert seen == [1, 3, 3]


def test_a_description_is_asked_where_the_first_answer_is_refused(monkeypatch, tmp_path):
    from stackalign.core.multimodal.judge import Verdict
    from stackalign.core.multimodal.registrar import MultimodalAligner

    method = DeepHomography(trained=weights(tmp_path, "description"), max_rotation=0, max_scale=1, model="translation")
    image = data.camera()[100:160, 150:210]
    first, refused = MultimodalAligner.searched, []

    def unsure(self, views, starts, options):
        match, _ = first(self, views, starts, options)
        refused.append(match)
        return match, Verdict(0.01, True, "as if it were unlikely")

    sure = sa.register_pair(255 - image, image, method)
    monkeypatch.setattr(MultimodalAligner, "searched", unsure)
    again = sa.register_pair(255 - image, image, method)
    assert len(refused) == 1
    for pair in (sure, again):
        assert not pair.refused, pair.reason
        np.testing.assert_allclose(pair.transform.matrix, np.eye(3), atol=0.1)
    alone = sa.register_pair(255 - image, image, method.model_copy(update={"refine": False}))
    assert np.isnan(alone.probability)
    np.testing.assert_allclose(alone.transform.matrix, np.eye(3), atol=0.3)


def test_places_beyond_the_ranges_are_no_start(monkeypatch, tmp_path):
    method = DeepHomography(trained=weights(tmp_path, "features"), model="euclidean", max_rotation=10, max_shift=8)
    aligner = method.aligner()
    shifted = np.eye(3)
    shifted[0, 2] = 9
    monkeypatch.setattr(DeepHomography, "found", lambda *_: (None, [shifted, np.eye(3)]))
    views = ImageViews(np.zeros((60, 60), np.float32), np.zeros((60, 60), np.float32))
    assert len(aligner.further_places(views)) == 1
    assert aligner._allowed(np.eye(3), (60, 60), (60, 60))
    turned = np.eye(3)
    turned[:2, :2] = [[0.9, -0.436], [0.436, 0.9]]
    for matrix in (shifted, turned, np.diag([2.0, 2.0, 1.0])):
        assert not aligner._allowed(matrix, (60, 60), (60, 60))
