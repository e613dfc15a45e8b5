"""The recipe: one YAML document that holds everything a run depends on, and says what is wrong with it."""

import numpy as np
import pytest
import yaml

import stackalign as sa
from stackalign.config import METHODS, REFERENCES, VERSION, allowed_values, parse_recipe
from stackalign.core.references.reference import POLICIES


def plain(**changes):
    return {"input": {"path": "movie.tif"}, **changes}


@pytest.mark.parametrize("method", METHODS)
def test_a_recipe_comes_back_as_it_was_saved(tmp_path, method):
    config = sa.AlignmentConfig(
        input=sa.InputSpec(path="movie.tif", axes="tyx", channel="GFP", frames=(3, 17)),
        reference=4,
        anchor="mean",
        preprocess=sa.Preprocess(region=((0.5, 1.0), (20.0, 3.0), (4.0, 30.0))),
        registrar=METHODS[method](),
        warp=sa.WarpOptions(order=1, fill="edge", crop="valid"),
        output=sa.OutputSpec(folder="out", format="zarr", compression="zstd", report=False),
        seed=7,
    )
    path = sa.save_recipe(tmp_path / "recipe.yaml", config)
    assert sa.load_recipe(path) == config
    data = yaml.safe_load(path.read_text())
    assert data["version"] == VERSION
    assert data["stackalign"] == sa.__version__
    assert data["registrar"]["method"] == method


def test_a_recipe_needs_but_a_path(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("input: {path: movie.tif}\n")
    config = sa.load_recipe(path)
    assert config == sa.AlignmentConfig(input=sa.InputSpec(path="movie.tif"))
    assert config.registrar.method == "cross-correlation"
    assert config.reference is None
    assert config.seed == 0


def test_what_is_written_is_plain_yaml_that_people_can_edit(tmp_path):
    path = sa.save_recipe(tmp_path / "recipe.yaml", sa.AlignmentConfig(input=sa.InputSpec(path="mövie.tif")))
    text = path.read_text(encoding="utf-8")
    assert "mövie.tif" in text
    assert "!!" not in text
    path.write_text(text.replace("order: 3", "order: 1"), encoding="utf-8")
    assert sa.load_recipe(path).warp.order == 1


def test_the_record_is_frozen():
    config = sa.AlignmentConfig(input=sa.InputSpec(path="movie.tif"))
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (plain(registar={}), ["there is no key 'registar'", "did you mean 'registrar'?", "input, reference, anchor"]),
        (plain(warp={"ordre": 3}), ["'warp.ordre'", "did you mean 'order'?", "order, fill, crop"]),
        (plain(warp={"order": 2}), ["warp.order = 2 is not allowed", "(allowed: 0, 1, 3, 5)"]),
        (plain(warp={"order": "cubic"}), ["warp.order = 'cubic'", "0, 1, 3, 5"]),
        (plain(warp={"crop": "tight"}), ["warp.crop = 'tight'", "none, valid, expand"]),
        (plain(warp={"fill": [1]}), ["warp.fill = [1]", "a number", "nan, edge"]),
        (plain(output={"format": "png"}), ["output.format = 'png'", "tif, ome.tif, zarr"]),
        (plain(output={"compression": "jpeg"}), ["output.compression = 'jpeg'", "none, deflate, zstd"]),
        (plain(output={"report": "perhaps"}), ["output.report = 'perhaps'", "true, false"]),
        (plain(seed="many"), ["seed = 'many'", "a whole number"]),
        (plain(seed=-1), ["seed = -1", "greater than or equal to 0"]),
        (plain(anchor="middle"), ["anchor = 'middle'", "a whole number, mean, none"]),
        (plain(registrar={"method": "magic"}), ["magic", *METHODS]),
        (plain(registrar={"method": "cross-correlation", "speed": 3}), ["'registrar.speed'", "max_shift"]),
        (plain(registrar={"method": "cross-correlation", "max_shift": -2}), ["registrar.max_shift = -2", "greater"]),
        (plain(registrar={"method": "cross-correlation", "window": "box"}), ["registrar.window", "none, hann, tukey"]),
        (plain(registrar="fast"), ["registrar"]),
        ({}, ["the key 'input' is missing"]),
        ({"input": {}}, ["the key 'input.path' is missing"]),
        (plain(input={"path": ""}), ["input.path"]),
        (plain(input={"path": "a.tif", "frames": [5, 2]}), ["input = ", "frames", "first < end", "[5, 2]"]),
        (plain(input={"path": "a.tif", "chanel": 1}), ["did you mean 'channel'?"]),
        (plain(preprocess={"region": [5, 2, 0, 9]}), ["preprocess", "y0 < y1"]),
        (plain(reference=[1, 2]), ["reference = [1, 2]"]),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_key_and_what_is_allowed(tmp_path, data, words):
    with pytest.raises(sa.RecipeError) as caught:
        parse_recipe(data)
    for word in words:
        assert word in str(caught.value), word
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(sa.RecipeError, match=r"mine\.yaml"):
        sa.load_recipe(path)


def test_several_mistakes_are_all_named():
    with pytest.raises(sa.RecipeError) as caught:
        parse_recipe(plain(seed="x", warp={"order": 7}, refrence="mean"))
    for word in ("seed", "warp.order", "refrence"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("input: [", r"no valid YAML, line"),
        ("", "holds no keys"),
        ("- 1\n- 2\n", "holds no keys"),
        ("version: 9\ninput: {path: a.tif}\n", "version 9; this program reads version 1"),
        ("input: !!python/object/apply:os.system ['true']\n", "no valid YAML"),
    ],
)
def test_a_file_that_is_no_recipe_says_so(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(sa.RecipeError, match=message):
        sa.load_recipe(path)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(sa.RecipeError, match=r"there is no recipe .*nowhere\.yaml"):
        sa.load_recipe(tmp_path / "nowhere.yaml")
    with pytest.raises(sa.RecipeError, match="cannot be read"):
        sa.load_recipe(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(sa.RecipeError, match="cannot be read"):
        sa.load_recipe(tmp_path / "binary.yaml")


def test_a_recipe_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "no" / "such" / "folder" / "recipe.yaml"
    with pytest.raises(OSError, match="recipe"):
        sa.save_recipe(target, sa.AlignmentConfig(input=sa.InputSpec(path="a.tif")))
    assert not target.exists()


def test_every_field_tells_a_form_what_it_is():
    def records(record, seen):
        for name, field in record.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and hasattr(kind, "model_fields"):
                records(kind, seen)
            seen.append((record.__name__, name, field.title, field.description))

    seen = []
    for record in (sa.AlignmentConfig, *METHODS.values()):
        records(record, seen)
    assert not [entry for entry in seen if entry[1] != "method" and not (entry[2] and entry[3])]


def test_names_are_those_of_the_methods():
    for name, record in METHODS.items():
        assert record().method == name
    assert REFERENCES == POLICIES


def test_allowed_values_in_words():
    assert allowed_values(bool) == "true, false"
    assert allowed_values(int | None) == "a whole number, none"
    assert allowed_values(tuple[int, int]) == "a list of numbers"
    assert allowed_values(np.ndarray) == ""
