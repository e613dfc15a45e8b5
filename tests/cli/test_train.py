"""``stackalign train``: from a recipe to weights, errors of the recipe, help that lists its keys."""

import pytest
import yaml
from skimage import data
from skimage.io import imsave
from typer.testing import CliRunner

from stackalign.cli.app import app

pytest.importorskip("torch")


def invoke(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


@pytest.fixture
def config(tmp_path):
    (tmp_path / "pictures").mkdir()
    imsave(tmp_path / "pictures" / "one.png", data.camera()[:120, :120], check_contrast=False)
    file = tmp_path / "recipe.yaml"
    recipe = {
        "network": "clkn",
        "options": {"width": 4, "channels": 2, "iterations": 2},
        "images": str(tmp_path / "pictures"),
        "pairs": {"size": 48, "template": 32, "reach": 8, "zoom": [1, 2]},
        "steps": 3,
        "batch_size": 2,
        "distinct_pairs": 4,
        "validation_pairs": 0,
    }
    file.write_text(yaml.safe_dump(recipe))
    return file


def test_a_recipe_becomes_weights(config, tmp_path):
    done = invoke(config, "-o", tmp_path / "out", "--set", "steps=2")
    assert done.exit_code == 0, done.output
    assert {"weights.safetensors", "card.md", "curves.png", "state.json"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }
    assert "weights.safetensors" in done.output
    again = invoke(config, "-o", tmp_path / "out")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "out" / "checkpoint-0000003.safetensors").exists()


def test_what_is_wrong_with_a_recipe_is_said_in_a_line(config, tmp_path):
    for change, code, said in (
        (["--set", "stepz=3"], 2, "did you mean 'steps'"),
        (["--set", "device=warp"], 1, "no device 'warp'"),
        (["--set", "images=nowhere"], 1, "fetch_training_images"),
        (["--set", "options={depth: 2}"], 1, "does not take"),
    ):
        done = invoke(config, "-o", tmp_path / "out", *change)
        assert done.exit_code == code, done.output
        assert said in " ".join(done.output.split())


def test_the_help_lists_the_keys_of_a_recipe():
    text = invoke("--help").output
    assert "learning_rate" in text
    assert "least_strength" in text
