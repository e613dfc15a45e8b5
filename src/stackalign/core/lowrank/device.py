"""Where joint alignment computes: on the processor, or through torch on a graphics card that this machine has."""

from __future__ import annotations

import ctypes
import sys
from importlib.util import find_spec
from typing import Any

from stackalign.core.deep.requirement import choose_device

_DRIVERS = {"win32": ("nvcuda.dll",), "linux": ("libcuda.so.1", "libamdhip64.so")}


def imported_torch(what: str, without: str) -> Any:
    """Return torch.

    Raises
    ------
    ImportError
        If it is not installed: says ``what`` needs it, and that what is named in ``without`` does not.
    """
    try:
        import torch
    except ImportError:
        raise ImportError(f"{what} needs PyTorch: pip install 'stackalign[torch]'; {without} does without") from None
    return torch


def chosen_card(wanted: str, ndim: int) -> str | None:
    """Return where the solver "gauss-newton" computes on pixels, as torch names it; None: on the processor.

    Parameters
    ----------
    wanted : {"auto", "cpu", "cuda", "mps"}
        ``auto`` takes CUDA where torch is installed and has it, else the processor, by compiled functions.
    ndim : int
        Axes of a frame.

    Raises
    ------
    ImportError
        If a card is asked for by name and torch is not installed.
    ValueError
        If this machine has no such card, or that cannot do what volumes need.
    """
    if wanted == "cpu" or (wanted == "auto" and not _has_cuda()):
        return None
    torch = imported_torch(f"the device {wanted!r}", "'cpu'")
    device = choose_device("cuda" if wanted == "auto" else wanted)
    if ndim == 3 and device.type == "mps":
        try:
            torch.nn.functional.grid_sample(
                torch.zeros(1, 1, 2, 2, 2, device=device), torch.zeros(1, 1, 1, 1, 3, device=device), align_corners=True
            )
        except NotImplementedError:
            raise ValueError(
                f"PyTorch {torch.__version__} does not read volumes on the device 'mps': choose 'cpu' for volumes, or"
                " install a newer PyTorch"
            ) from None
    return str(device.type)


def _has_cuda() -> bool:
    """Return whether torch has CUDA; it takes seconds to load, and is only asked where there is a driver."""
    if find_spec("torch") is None:
        return False
    if "torch" not in sys.modules and not any(_loads(name) for name in _DRIVERS.get(sys.platform, ())):
        return False
    import torch

    return bool(torch.cuda.is_available())


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
