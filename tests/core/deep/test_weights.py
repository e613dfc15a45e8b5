"""Files of weights: what was written comes back; anything else is refused in a sentence, and nothing is run."""

import json
import os
import pickle
import zipfile

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from safetensors.numpy import save, save_file  # noqa: E402

from stackalign.core.deep.networks import build  # noqa: E402
from stackalign.core.deep.weights import (  # noqa: E402
    FORMAT,
    WeightsError,
    arrays_of,
    digest,
    load_network,
    packed,
    put_into,
    unpacked,
)

OPTIONS = {"width": 4, "channels": 2, "iterations": 2}
CARD = {"network": "clkn", "options": OPTIONS, "seed": 3}


@pytest.fixture(scope="module")
def arrays():
    torch.manual_seed(1)
    return arrays_of(build("clkn", OPTIONS))


@pytest.fixture
def file(tmp_path, arrays):
    path = tmp_path / "good.safetensors"
    path.write_bytes(packed(arrays, CARD))
    return path


def test_a_network_comes_back(file, arrays):
    network, card = load_network(file)
    assert card == CARD
    assert not network.training
    assert digest(arrays_of(network)) == digest(arrays)
    image = torch.rand(1, 1, 48, 48)
    torch.manual_seed(1)
    torch.testing.assert_close(network.pyramid(image), build("clkn", OPTIONS).eval().pyramid(image))


def test_every_truncation_is_refused(file):
    whole = file.read_bytes()
    for length in (0, 5, 8, 60, 300, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"good\.safetensors"):
            load_network(file)


def test_a_pickle_is_named_and_not_opened(tmp_path):
    class Hostile:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'run')!r}, 'w')",)

    for protocol in (2, 4, 5):
        path = tmp_path / "hostile.safetensors"
        path.write_bytes(pickle.dumps(Hostile(), protocol))
        with pytest.raises(WeightsError, match="could run code"):
            load_network(path)
    torch.save({"a": torch.zeros(2)}, tmp_path / "model.pt")
    assert zipfile.is_zipfile(tmp_path / "model.pt")
    with pytest.raises(WeightsError, match="could run code"):
        load_network(tmp_path / "model.pt")
    assert not (tmp_path / "run").exists()


def header(data, text):
    return len(text).to_bytes(8, "little") + text + data


def test_hostile_headers_are_refused(tmp_path):
    path = tmp_path / "odd.safetensors"
    meta = {"format": FORMAT, "version": "1", "card": json.dumps(CARD)}
    for data in (
        (2**62).to_bytes(8, "little") + b"{}",
        header(b"", b"[" * 5000),
        header(b"", b"[1]"),
        header(b"", b"{}"),
        header(b"", json.dumps({"__metadata__": 3}).encode()),
        *(
            header(b"1234", json.dumps({"__metadata__": meta, "a": tensor}).encode())
            for tensor in (
                {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]},
                {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]},
                {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]},
                {"dtype": "Q7", "shape": [1], "data_offsets": [0, 4]},
            )
        ),
    ):
        path.write_bytes(data)
        with pytest.raises(WeightsError, match=r"odd\.safetensors"):
            load_network(path)


def test_foreign_old_and_new_files_are_told_apart(tmp_path, arrays):
    path = tmp_path / "foreign.safetensors"
    save_file(arrays, path)
    with pytest.raises(WeightsError, match="another program"):
        load_network(path)
    path.write_bytes(save(arrays, {"format": FORMAT, "version": "9", "card": "{}"}))
    with pytest.raises(WeightsError, match="update it"):
        load_network(path)
    for card in ("no json", "[1]"):
        path.write_bytes(save(arrays, {"format": FORMAT, "version": "1", "card": card}))
        with pytest.raises(WeightsError, match="model card"):
            load_network(path)
    path.write_bytes(packed(arrays, {**CARD, "network": "resnet"}))
    with pytest.raises(WeightsError, match="'resnet'"):
        load_network(path)
    path.write_bytes(packed(arrays, CARD))
    with pytest.raises(WeightsError, match="not of 'dhn'"):
        load_network(path, "dhn")
    for options in ({"width": 8}, {"depth": 1}, {"width": -1}, 7):
        path.write_bytes(packed(arrays, {**CARD, "options": options}))
        with pytest.raises(WeightsError, match=r"foreign\.safetensors"):
            load_network(path)


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({"options": {**OPTIONS, "width": 10**12}}, "width = 1000000000000"),  # terabytes
        ({"options": {**OPTIONS, "width": 4000}}, "has shape"),  # gigabytes: never made
        ({"options": {**OPTIONS, "iterations": 10**9}}, "iterations"),  # no array tells, and it would never end
        ({"options": {**OPTIONS, "iterations": float("nan")}}, "iterations"),
        ({"options": {**OPTIONS, "width": [4] * 10**5}}, "width"),
        ({"options": {**OPTIONS, "width": "__import__('os').abort()"}}, "width"),
        ({"options": {**OPTIONS, "width": [4, [4]]}}, "width"),
        ({"network": "mhn", "options": {"widths": []}}, "lacks"),
        ({"network": "mhn", "options": {"levels": 10**8}}, "levels"),
        ({"network": "../../etc/passwd"}, "passwd"),
        ({"network": ["clkn"]}, "network"),
        ({"network": {"clkn": 1}}, "network"),
    ],
)
def test_hostile_cards_are_refused(tmp_path, arrays, card, said):
    path = tmp_path / "card.safetensors"
    path.write_bytes(packed(arrays, {**CARD, **card}))
    with pytest.raises(WeightsError, match=r"card\.safetensors") as caught:
        load_network(path)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400


def test_hostile_versions_and_nested_cards_are_refused(tmp_path, arrays):
    path = tmp_path / "text.safetensors"
    for version in ("9" * 5000, "\u00b2", "-1", ""):
        path.write_bytes(save(arrays, {"format": FORMAT, "version": version, "card": "{}"}))
        with pytest.raises(WeightsError, match="update it"):
            load_network(path)
    path.write_bytes(save(arrays, {"format": FORMAT, "version": "1", "card": "[" * 200_000}))
    with pytest.raises(WeightsError, match="model card"):
        load_network(path)


def test_what_is_no_file_is_not_read(tmp_path, file):
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)
    endless = tmp_path / "endless.safetensors"
    endless.symlink_to("/dev/zero")
    for place in (pipe, endless, tmp_path):
        with pytest.raises(WeightsError, match="is no file"):
            load_network(place)
    good = tmp_path / "link.safetensors"
    good.symlink_to(file)
    assert load_network(good)[1] == CARD
    dangling = tmp_path / "dangling.safetensors"
    dangling.symlink_to(tmp_path / "gone")
    with pytest.raises(WeightsError, match="No such file"):
        load_network(dangling)
    huge = tmp_path / "huge.safetensors"
    with huge.open("wb") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(WeightsError, match="1048576 MB"):
        load_network(huge)


def test_missing_renamed_and_broken_arrays(tmp_path, arrays):
    path = tmp_path / "x.safetensors"
    first = sorted(arrays)[0]
    fewer = {k: v for k, v in arrays.items() if k != first}
    path.write_bytes(packed(fewer, CARD))
    with pytest.raises(WeightsError, match="it lacks"):
        load_network(path)
    path.write_bytes(packed({**arrays, "extra": np.zeros(3, np.float32)}, CARD))
    with pytest.raises(WeightsError, match="it holds 'extra'"):
        load_network(path)
    key = next(k for k in arrays if k.endswith("weight"))
    path.write_bytes(packed({**arrays, key: np.full_like(arrays[key], np.nan)}, CARD))
    with pytest.raises(WeightsError, match="NaN"):
        load_network(path)
    path.write_bytes(packed({**arrays, key: np.ones(arrays[key].shape, np.int32)}, CARD))
    with pytest.raises(WeightsError, match="int32"):
        load_network(path)
    with pytest.raises(WeightsError, match="No such file"):
        unpacked(tmp_path / "none.safetensors")


def test_a_refused_file_leaves_the_network_alone(arrays):
    network = build("clkn", OPTIONS)
    before = digest(arrays_of(network))
    key = next(k for k in arrays if arrays[k].ndim == 4)
    with pytest.raises(WeightsError, match="the network needs"):
        put_into(network, {**arrays, key: arrays[key][:1]})
    assert digest(arrays_of(network)) == before
