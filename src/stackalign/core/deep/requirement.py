"""What the optional packages are called, and the one sentence that tells how to install them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def require_torch(what: str = "a network") -> None:
    """Return if PyTorch and safetensors are there.

    Raises
    ------
    ImportError
        Says how to install them.
    """
    if find_spec("torch") is None or find_spec("safetensors") is None:
        raise ImportError(f'{what} needs PyTorch: pip install "stackalign[torch]"')


def choose_device(wanted: str = "auto") -> torch.device:
    """Return the device to compute on: ``auto`` takes CUDA if there is one, else the CPU.

    Raises
    ------
    ValueError
        If the machine has no such device.
    """
    import torch

    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):  # torch is not of one mind about its errors
        raise ValueError(f"this machine has no device {wanted!r}: choose 'auto' or 'cpu'") from None
    return device
