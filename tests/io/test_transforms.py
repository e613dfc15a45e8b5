"""Files of transforms: what comes back, and what other programs write."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given

from stackalign.core.transform import Transform, TransformModel
from stackalign.core.transform_series import TransformSeries
from stackalign.io.errors import StackWriteError, TransformsReadError
from stackalign.io.itk import from_itk, to_itk
from stackalign.io.ngff import from_ngff, to_ngff
from stackalign.io.transforms import load_provenance, load_transforms, save_transforms
from tests.properties.strategies import same, series

MATRIX_FORMATS = ("t.json", "t.csv", "t.npy", "t.tfm", "t.txt", "t.ngff.json")


@pytest.fixture
def turning():
    """Rotations about the centre of a frame of 100 x 300, asymmetric; the third frame is not valid."""
    items = [Transform.from_rotation(0.02 * t, shift=(t, -3.5 * t), centre=(49.5, 149.5)) for t in range(5)]
    return TransformSeries.from_transforms(items, [True, True, False, True, True])


@given(series())
def test_json_and_csv_keep_every_bit(tmp_path_factory, s):
    folder = tmp_path_factory.mktemp("t")
    for name in ("t.json", "t.csv"):
        assert same(load_transforms(save_transforms(folder / name, s)), s)


@given(series())
def test_npy_keeps_the_matrices(tmp_path_factory, s):
    path = save_transforms(tmp_path_factory.mktemp("t") / "t.npy", s)
    assert np.array_equal(np.load(path), s.matrices)
    back = load_transforms(path)
    assert np.array_equal(back.matrices, s.matrices)
    assert back.model.rank <= s.model.rank


@given(series())
def test_itk_and_ngff_keep_the_motion(s):
    if s.model is TransformModel.PROJECTIVE:
        for write in (to_itk, to_ngff):
            with pytest.raises(ValueError, match="has no projective"):
                write(s)
        return
    for back in (from_itk(to_itk(s)), from_ngff(json.loads(json.dumps(to_ngff(s))))):
        assert back == pytest.approx(s.matrices, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", MATRIX_FORMATS)
def test_files(tmp_path, turning, name):
    path = tmp_path / name
    assert save_transforms(path, turning) == path
    back = load_transforms(path)
    assert back.matrices == pytest.approx(turning.matrices, abs=1e-11)
    assert back.model is TransformModel.EUCLIDEAN
    assert [p.name for p in tmp_path.iterdir()] == [name]
    first = path.read_bytes()
    save_transforms(path, turning)
    assert path.read_bytes() == first, "the same transforms, the same bytes"


@pytest.mark.parametrize("name", ["t.tfm", "t.ngff.json"])
def test_physical_units(tmp_path, turning, name):
    sizes = (0.5, 0.2)
    save_transforms(tmp_path / name, turning, pixel_size=sizes, unit="nm")
    back = load_transforms(tmp_path / name, pixel_size=sizes)
    assert back.matrices == pytest.approx(turning.matrices, abs=1e-11)
    assert back.model is TransformModel.EUCLIDEAN
    physical = load_transforms(tmp_path / name)
    point = np.array([40.0, 250.0])
    assert physical[4](point * sizes) == pytest.approx(turning[4](point) * sizes)


def test_itk_is_the_inverse_with_x_before_y(tmp_path):
    moving_to_reference = TransformSeries.from_transforms([Transform([[1.0, 0.25, -3.0], [0.0, 2.0, 8.0], [0, 0, 1]])])
    save_transforms(tmp_path / "t.tfm", moving_to_reference)
    lines = (tmp_path / "t.tfm").read_text().splitlines()
    assert lines[:3] == ["#Insight Transform File V1.0", "#Transform 0", "Transform: AffineTransform_double_2_2"]
    xx, xy, yx, yy, tx, ty = map(float, lines[3].removeprefix("Parameters: ").split())
    y, x = moving_to_reference[0]([5.0, 7.0])  # the point of the reference
    assert (xx * x + xy * y + tx, yx * x + yy * y + ty) == pytest.approx((7.0, 5.0))


# transforms that SimpleITK 2.5 wrote (kind, parameters, fixed parameters), and where its TransformPoint took the point
# x, y, z = 11, 7, 5
SIMPLE_ITK = [
    ("AffineTransform", 2, "1 0.1 -0.2 0.9 3 4", "10 20", (12.7, 12.1)),
    ("TranslationTransform", 2, "1 2", "", (12.0, 9.0)),
    ("Euler2DTransform", 2, "0.2 1 2", "5 6", (11.68173013625239, 10.17208256261161)),
    ("Similarity2DTransform", 2, "1.2 0.1 3 4", "5 6", (15.044229890025592, 11.912805598190793)),
    ("Euler3DTransform", 3, "0.1 0.2 0.3 4 5 6", "1 2 3 0", (13.27152297639438, 14.769068470648524, 9.472739621096935)),
    ("Euler3DTransform", 3, "0.1 0.2 0.3 4 5 6", "1 2 3 1", (13.424155725543443, 14.604506178452068, 9.4528643214893)),
    (
        "VersorRigid3DTransform",
        3,
        "0 0 0.14943813247359922 1 2 3",
        "4 5 6",
        (11.096315010556562, 10.979314424880588, 8),
    ),
    (
        "Similarity3DTransform",
        3,
        "0.08966287948415953 0 0.11955050597887938 1 2 3 1.1",
        "4 5 6",
        (11.936200320945348, 11.11718808550667, 8.472849759290991),
    ),
]


def itk_entry(number, kind, ndim, parameters, fixed):
    head = f"#Transform {number}\nTransform: {kind}_double_{ndim}_{ndim}\n"
    return f"{head}Parameters: {parameters}\nFixedParameters: {fixed}\n"


@pytest.mark.parametrize("kind, ndim, parameters, fixed, expected", SIMPLE_ITK)
def test_transforms_of_itk_do_what_itk_does(tmp_path, kind, ndim, parameters, fixed, expected):
    path = tmp_path / "t.tfm"
    path.write_text("#Insight Transform File V1.0\n" + itk_entry(0, kind, ndim, parameters, fixed))
    back = load_transforms(path)[0].inverse  # reference -> moving, as ITK means it
    assert back((11.0, 7.0, 5.0)[:ndim][::-1]) == pytest.approx(expected[::-1])


def test_a_composite_of_itk_is_one_transform_and_its_last_part_acts_first(tmp_path):
    parts = itk_entry(1, *SIMPLE_ITK[0][:4]) + itk_entry(2, *SIMPLE_ITK[3][:4])
    head = "#Insight Transform File V1.0\n#Transform 0\nTransform: CompositeTransform_double_2_2\n"
    (tmp_path / "t.txt").write_text(head + parts)
    back = load_transforms(tmp_path / "t.txt")
    assert len(back) == 1
    assert back[0].inverse((7.0, 11.0)) == pytest.approx((15.712679060366597, 17.23551044984467))  # SimpleITK 2.5


@pytest.mark.parametrize(
    "text, message",
    [
        ("hello", "this is no transform file of ITK: its first line must be '#Insight"),
        ("", "this is no transform file of ITK"),
        ("#Insight Transform File V1.0\n", "holds no transform"),
        ("#Insight Transform File V1.0\n" + itk_entry(0, "BSplineTransform", 2, "1 2", ""), "'BSplineTransform'"),
        ("#Insight Transform File V1.0\n" + itk_entry(0, "AffineTransform", 2, "1 2", ""), "makes no sense"),
        ("#Insight Transform File V1.0\n" + itk_entry(0, "AffineTransform", 2, "1 a", ""), "could not convert"),
        (
            "#Insight Transform File V1.0\n" + itk_entry(0, *SIMPLE_ITK[0][:4]) + itk_entry(1, *SIMPLE_ITK[4][:4]),
            "mixes transforms in 2-D and 3-D",
        ),
    ],
)
def test_other_text_is_no_itk_file(tmp_path, text, message):
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(TransformsReadError, match=message):
        load_transforms(tmp_path / "t.txt")


def test_ngff_of_others(tmp_path):
    steps = [
        {"type": "identity", "input": "a", "output": "b"},
        {"type": "translation", "translation": [1, -2]},
        {"type": "scale", "scale": [2, 3]},
        {"type": "rotation", "rotation": [[0, -1], [1, 0]]},
        {"type": "affine", "affine": [[1, 0, 5], [0, 1, 6]]},
        {
            "type": "sequence",
            "transformations": [{"type": "scale", "scale": [2, 3]}, {"type": "translation", "translation": [1, -2]}],
        },
    ]
    for data in ({"coordinateTransformations": steps}, {"ome": {"coordinateTransformations": steps}}):
        (tmp_path / "t.json").write_text(json.dumps(data))
        back = load_transforms(tmp_path / "t.json")
        assert [t([10.0, 20.0]).tolist() for t in back] == [[10, 20], [11, 18], [20, 60], [-20, 10], [15, 26], [21, 58]]
        assert back.model is TransformModel.AFFINE


@pytest.mark.parametrize(
    "steps, message",
    [
        ([], "lists no transformation"),
        ([{"type": "displacements"}], "of the type 'displacements' are no matrices"),
        ([{"type": "identity"}], "none states it"),
        ([{"type": "affine", "affine": [[1, 0], [0, 1]]}], r"'affine' is a matrix of \(2, 2\)"),
        ([{"type": "scale"}], "lacks 'scale'"),
        ([{"type": "scale", "scale": [1, 2]}, {"type": "scale", "scale": [1, 2, 3]}], "differ in dimension"),
        (["scale"], "of the type None"),
    ],
)
def test_ngff_that_no_matrix_can_express(tmp_path, steps, message):
    (tmp_path / "t.json").write_text(json.dumps({"coordinateTransformations": steps}))
    with pytest.raises(TransformsReadError, match=message):
        load_transforms(tmp_path / "t.json")


def test_a_table_of_others(tmp_path):
    (tmp_path / "t.csv").write_text("translation_y_px,translation_x_px\n0,0\n1.5,-2\n")
    back = load_transforms(tmp_path / "t.csv")
    assert back.translations.tolist() == [[0, 0], [1.5, -2]]
    assert back.model is TransformModel.TRANSLATION
    assert back.valid.all()
    (tmp_path / "t.csv").write_text("frame,translation_y_px,translation_x_px,valid\n1,1.5,-2,0\n0,0,0,1\n")
    back = load_transforms(tmp_path / "t.csv")  # in order of the frames, not of the rows
    assert back.translations.tolist() == [[0, 0], [1.5, -2]]
    assert back.valid.tolist() == [True, False]


@pytest.mark.parametrize(
    "text, message",
    [
        ("frame,a\n0,1\n", r"needs the columns m_0_0, m_0_1, \.\.\. or translation_y_px and _x_px"),
        ("m_0_0,m_0_1,m_1_0,m_1_1\n1,0,0,1\n", r"a series is \(T, 3, 3\)"),
        ("m_0_0,m_0_1,m_0_2\n1,0,0\n", "lacks the columns m_1_0, m_1_1"),
        ("frame,translation_y_px,translation_x_px\n0,0,0\n2,1,1\n", "2 rows but none for frame 1"),
        ("frame,translation_y_px,translation_x_px\n0,0,0\n0,1,1\n", "2 rows but none for frame 1"),
        ("translation_y_px,translation_x_px\n", "the table has no rows"),
        ("translation_y_px,translation_x_px\n0,\n", "frame 0: a transform's matrix holds NaN"),
        ("translation_y_px,translation_x_px\n0,a\n", "t.csv"),
        ("translation_y_px,translation_x_px,valid\n0,1,yes\n", "valid must hold True or False"),
        ("translation_y_px,translation_x_px,model\n0,1,wobbly\n", "wobbly"),
        ("", "t.csv"),
    ],
)
def test_tables_that_hold_no_transforms(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(TransformsReadError, match=message):
        load_transforms(tmp_path / "t.csv")


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "is no JSON"),
        ("[1, 2]", "this is no series of transforms: 'format' must be"),
        ('{"format": "stackalign-transforms", "version": 2}', "version 2 are not known; this program reads version 1"),
        ('{"format": "stackalign-transforms", "version": 1}', "lack model and matrices"),
        ('{"format": "stackalign-transforms", "version": 1, "model": "affine", "matrices": [["a"]]}', "must be a list"),
        (
            '{"format": "stackalign-transforms", "version": 1, "model": "affine", "matrices": [[[1, 0], [0, 1]]]}',
            "series",
        ),
        (
            '{"format": "stackalign-transforms", "version": 1, "model": "affine", '
            '"matrices": [[[1, 0, 0], [0, 0, 0], [0, 0, 1]]]}',
            "frame 0: this matrix cannot be inverted",
        ),
    ],
)
def test_json_that_holds_no_transforms(tmp_path, text, message):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(TransformsReadError, match=message):
        load_transforms(tmp_path / "t.json")


@pytest.mark.parametrize("array", [np.zeros((3, 3)), np.zeros(4), np.array([{"a": 1}], dtype=object)])
def test_arrays_that_hold_no_transforms(tmp_path, array):
    np.save(tmp_path / "t.npy", array, allow_pickle=True)
    with pytest.raises(TransformsReadError, match=r"t\.npy"):
        load_transforms(tmp_path / "t.npy")


def test_the_simplest_model_is_recognised(tmp_path):
    turn = Transform.from_rotation(0.3, shift=(3, 4)).matrix
    bigger = turn.copy()
    bigger[:2, :2] *= 1.1
    sheared = turn @ np.array([[1, 0.1, 0], [0, 1, 0], [0, 0, 1.0]])
    tilted = turn.copy()
    tilted[2, 0] = 1e-5
    for matrix, model in zip((np.eye(3), turn, bigger, sheared, tilted), TransformModel, strict=True):
        np.save(tmp_path / "t.npy", matrix[None])
        assert load_transforms(tmp_path / "t.npy").model is model


def test_provenance_is_kept_with_its_times_apart(tmp_path, turning):
    provenance = {"method": "particles", "created": "2026-01-02", "sigma": np.float32(1.5), "picks": np.arange(3)}
    save_transforms(tmp_path / "t.json", turning, provenance)
    back = load_provenance(tmp_path / "t.json")
    assert back == {"method": "particles", "sigma": 1.5, "picks": [0, 1, 2], "times": {"created": "2026-01-02"}}
    assert same(load_transforms(tmp_path / "t.json"), turning)
    save_transforms(tmp_path / "u.json", turning)
    assert load_provenance(tmp_path / "u.json") == {}
    with pytest.raises(TypeError, match="provenance holds object, which JSON cannot: use plain values"):
        save_transforms(tmp_path / "u.json", turning, {"what": object()})
    assert same(load_transforms(tmp_path / "u.json"), turning), "the old file stands"


def test_what_cannot_be_saved(tmp_path, turning):
    with pytest.raises(ValueError, match=r"cannot save transforms as '.xlsx': choose .json, .csv"):
        save_transforms(tmp_path / "t.xlsx", turning)
    with pytest.raises(ValueError, match=r".csv files of transforms are in pixels: leave pixel_size out"):
        save_transforms(tmp_path / "t.csv", turning, pixel_size=(1, 1))
    with pytest.raises(ValueError, match=r"pixel_size needs 2 positive numbers, got \(1, 0\)"):
        save_transforms(tmp_path / "t.tfm", turning, pixel_size=(1, 0))
    with pytest.raises(StackWriteError, match="there is no folder"):
        save_transforms(tmp_path / "no" / "t.json", turning)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_loaded(tmp_path, turning):
    with pytest.raises(TransformsReadError, match=r"there is no file .*t\.json"):
        load_transforms(tmp_path / "t.json")
    (tmp_path / "t.xlsx").write_text("x")
    with pytest.raises(TransformsReadError, match=r"the ending '\.xlsx' is not known"):
        load_transforms(tmp_path / "t.xlsx")
    save_transforms(tmp_path / "t.csv", turning)
    with pytest.raises(ValueError, match="is in pixels: leave pixel_size out"):
        load_transforms(tmp_path / "t.csv", pixel_size=(1, 1))


def test_a_table_for_people_has_units_in_its_header(tmp_path, turning):
    table = pd.read_csv(save_transforms(tmp_path / "t.csv", turning))
    assert list(table.columns)[:6] == ["frame", "valid", "model", "translation_y_px", "translation_x_px", "angle_deg"]
    assert table["angle_deg"].to_numpy() == pytest.approx(np.rad2deg(0.02 * np.arange(5)))
