"""Training in a folder: what it leaves, that it goes on where it was stopped, and what it refuses."""

import json

import numpy as np
import pytest
import yaml
from skimage import data
from skimage.io import imsave

from stackalign.core.deep.train import Training
from stackalign.core.work import Cancelled, drain
from stackalign.training import load_training, train_work

pytest.importorskip("torch")
from stackalign.core.deep.weights import load_network, unpacked

SMALL = {
    "network": "clkn",
    "options": {"width": 4, "channels": 2, "iterations": 2},
    "pairs": {"size": 48, "template": 32, "reach": 8, "zoom": [1, 2], "seed": 5},
    "batch_size": 2,
    "report_every": 2,
    "checkpoint_every": 3,
    "validation_pairs": 2,
    "warm_up": 2,
    "seed": 4,
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for part, image in (("train", data.astronaut()), ("held_out", data.camera())):
        (folder / part).mkdir()
        imsave(folder / part / "one.png", image[100:300, 100:320], check_contrast=False)
    (folder / "images.csv").write_text(
        "file,package,version,licence,path,sha256\ntrain/one.png,scikit-image,1,free,x,0\n"
    )
    return folder


@pytest.fixture
def recipe(pictures):
    return Training(**SMALL, images=str(pictures), steps=6)


def arrays(folder):
    return unpacked(folder / "weights.safetensors")


def test_a_training_leaves_weights_a_card_and_curves(recipe, tmp_path):
    trained = drain(train_work(recipe, tmp_path / "a", command="stackalign train x.yaml")).unwrap()
    _, card = load_network(trained.weights, "clkn")
    assert card["steps"] == 6
    assert card["seed"] == 4
    assert card["command"] == "stackalign train x.yaml"
    assert card["images"]["packages"] == {"scikit-image 1, free": 1}
    assert set(card["scores"]) == {"loss", "corners"}
    text = trained.card.read_text()
    assert card["sha256"] in text
    assert "stackalign train x.yaml" in text
    assert trained.curves.read_bytes().startswith(b"\x89PNG")
    assert [row["step"] for row in trained.history if not row.get("validation")] == [2, 4, 6]
    assert [row["step"] for row in trained.history if row.get("validation")] == [3, 6]
    assert [p.name for p in (tmp_path / "a").glob("checkpoint-*")] == ["checkpoint-0000006.safetensors"]


def test_a_stopped_training_goes_on_to_the_same_weights(recipe, tmp_path):
    drain(train_work(recipe, tmp_path / "whole")).unwrap()
    steps = []

    def after_four(progress):
        steps.append(progress.done)

    stopped = drain(train_work(recipe, tmp_path / "part"), after_four, lambda: len(steps) == 4)
    assert isinstance(stopped, Cancelled)
    state = json.loads((tmp_path / "part" / "state.json").read_text())
    assert 3 <= state["step"] <= 4
    drain(train_work(recipe, tmp_path / "part")).unwrap()
    first, _ = arrays(tmp_path / "whole")
    second, _ = arrays(tmp_path / "part")
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key], err_msg=key)


def test_a_finished_training_may_be_made_longer_but_not_changed(recipe, tmp_path):
    drain(train_work(recipe, tmp_path)).unwrap()
    longer = drain(train_work(recipe.model_copy(update={"steps": 8}), tmp_path)).unwrap()
    assert longer.history[-1]["step"] == 8
    with pytest.raises(ValueError, match=r"was begun with learning_rate = 0\.002, not 0\.01"):
        drain(train_work(recipe.model_copy(update={"learning_rate": 0.01}), tmp_path)).unwrap()


def test_a_damaged_state_or_checkpoint_is_named(recipe, tmp_path):
    drain(train_work(recipe, tmp_path)).unwrap()
    checkpoint = next(tmp_path.glob("checkpoint-*"))
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match="checkpoint-0000006"):
        drain(train_work(recipe, tmp_path)).unwrap()
    changed = bytearray(whole)
    changed[-1] ^= 1
    checkpoint.write_bytes(bytes(changed))
    with pytest.raises(ValueError, match=r"not the checkpoint that state\.json names"):
        drain(train_work(recipe, tmp_path)).unwrap()
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(ValueError, match="start anew"):
        drain(train_work(recipe, tmp_path)).unwrap()


def test_recipes_are_read_and_wrong_ones_named(tmp_path, pictures):
    file = tmp_path / "x.yaml"
    file.write_text(yaml.safe_dump({**SMALL, "images": str(pictures)}))
    assert load_training(file).options["width"] == 4
    for change, said in (
        ({"steps": 0}, "steps = 0"),
        ({"network": "vgg"}, "network = 'vgg'"),
        ({"stepz": 1}, "stepz"),
        ({"pairs": {"size": 4}}, "pairs.size = 4"),
    ):
        file.write_text(yaml.safe_dump({**SMALL, "images": str(pictures), **change}))
        with pytest.raises(ValueError, match=said):
            load_training(file)
    file.write_text(yaml.safe_dump(SMALL))
    with pytest.raises(ValueError, match="images: Field required"):
        load_training(file)
    file.write_text("- 1")
    with pytest.raises(ValueError, match="holds no recipe"):
        load_training(file)


def test_missing_pictures_are_named(recipe, tmp_path):
    with pytest.raises(OSError, match="no folder of pictures"):
        drain(train_work(recipe.model_copy(update={"images": str(tmp_path / "none")}), tmp_path / "out")).unwrap()
