"""Where joint alignment computes: what "auto" takes, and what is said of a device that is not there."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest

import stackalign as sa
from stackalign.core.lowrank import device
from tests.core.lowrank.scenes import movie

FRAMES = np.random.default_rng(0).random((3, 20, 20))


def _missing(name):
    if find_spec("torch") is None:
        return False
    import torch

    return not (torch.cuda.is_available() if name == "cuda" else torch.backends.mps.is_available())


@pytest.mark.parametrize("solver", ["gauss-newton", "adam"])
@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_named(name, solver):
    if not _missing(name):
        pytest.skip(f"needs torch, and no {name}")
    with pytest.raises(ValueError, match=f"no device '{name}': choose 'auto' or 'cpu'"):
        sa.register(FRAMES, sa.Reals(solver=solver, device=name))


def test_without_torch_auto_and_cpu_work_and_the_rest_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    stack, truth = movie(frames=5)
    for name in ("auto", "cpu"):
        result = sa.register(stack, sa.Reals(device=name))
        assert truth.error(result.transforms).max() < 0.1
    for options in ({"device": "cuda"}, {"device": "mps"}, {"solver": "adam"}):
        with pytest.raises(ImportError, match=r"pip install 'stackalign\[torch\]'"):
            sa.register(stack, sa.Reals(**options))


def test_auto_does_not_load_torch_where_there_is_no_driver(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(device, "_loads", lambda library: False)
    assert device.chosen_card("auto", 2) is None
    assert "torch" not in sys.modules


def test_auto_takes_a_card_that_torch_can_use(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device, "choose_device", torch.device)
    assert device.chosen_card("auto", 2) == "cuda"
    assert device.chosen_card("cpu", 2) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.chosen_card("auto", 2) is None


def test_volumes_on_a_card_that_cannot_read_them_are_refused(monkeypatch):
    torch = pytest.importorskip("torch")

    def unable(*args, **kwargs):
        raise NotImplementedError

    class Metal:
        type = "mps"

    monkeypatch.setattr(device, "choose_device", lambda wanted: Metal)
    monkeypatch.setattr(torch, "zeros", lambda *shape, device: np.zeros(shape))
    monkeypatch.setattr(torch.nn.functional, "grid_sample", unable)
    assert device.chosen_card("mps", 2) == "mps"
    with pytest.raises(ValueError, match="choose 'cpu' for volumes"):
        device.chosen_card("mps", 3)
