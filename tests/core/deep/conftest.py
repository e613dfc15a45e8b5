"""PyTorch in one thread: small networks gain nothing by two, and lose much where the other core is busy."""

from importlib.util import find_spec

import pytest


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    if find_spec("torch") is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
