"""Weights of networks as safetensors: numbers and text only, so a file can be wrong but cannot run anything."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.deep.requirement import require_torch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from numpy.typing import NDArray

    from stackalign.core.deep.networks.base import PairNetwork

FORMAT = "stackalign-weights"
VERSION = 1
LARGEST = 512 * 2**20  # bytes: no network of this package comes near it
_MOST = {"levels": 16, "iterations": 200, "first_stage": 10**9}  # of options that shapes say nothing of
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class WeightsError(ValueError):
    """A file that holds no weights of this package; the message names the file, what is wrong and what to do."""


def packed(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> bytes:
    """Return arrays and plain metadata as the bytes of a safetensors file.

    Parameters
    ----------
    arrays : mapping of str to ndarray
    metadata : mapping
        Values that JSON can hold: network, options, data, seed, scores, command.
    """
    from safetensors.numpy import save

    text = {"format": FORMAT, "version": str(VERSION), "card": json.dumps(dict(metadata), sort_keys=True)}
    return bytes(save({key: np.array(value, order="C") for key, value in arrays.items()}, text))


def unpacked(path: str | PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read a file that `packed` made.

    Returns
    -------
    arrays : dict of str to ndarray
    metadata : dict

    Raises
    ------
    WeightsError
        If the file is missing, too large, truncated, of another program, of a newer version or holds NaN. Pickles
        are named as such and never opened: they could run code.
    """
    require_torch("a file of weights")
    place = Path(path).expanduser()
    try:
        about = place.stat()
        if not stat.S_ISREG(about.st_mode):  # a pipe or a device may never end
            raise WeightsError(f"{place} is no file: name the file of the weights")
        if about.st_size > LARGEST:
            raise WeightsError(f"{place} holds {about.st_size / 2**20:.0f} MB: no weights of stackalign are that large")
        data = place.read_bytes()
    except OSError as error:
        raise WeightsError(f"{place} cannot be read: {error.strerror}") from None
    if data.startswith(_PICKLES):
        raise WeightsError(f"{place} is a pickle or archive, which could run code: stackalign reads safetensors only")
    header = _header(data, place)
    text = header.get("__metadata__")
    if not isinstance(text, dict) or text.get("format") != FORMAT:
        raise WeightsError(f"{place} holds tensors of another program: train with `stackalign train`")
    version = str(text.get("version", ""))
    if not re.fullmatch("[0-9]{1,6}", version) or int(version) > VERSION:
        raise WeightsError(f"{place} is of version {version[:20]!r}, this stackalign reads {VERSION}: update it")
    try:
        card = json.loads(text["card"])
        if not isinstance(card, dict):
            raise TypeError
    except (KeyError, TypeError, ValueError, RecursionError):
        raise WeightsError(
            f"{place} lacks its model card, or it is damaged: train or fetch the weights again"
        ) from None
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{place} is truncated or damaged ({error}): fetch or train the weights again") from None
    for key, value in arrays.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise WeightsError(f"{place}: {key} holds NaN or infinity: the training failed, use an older checkpoint")
    return arrays, card


def load_network(path: str | PathLike[str], network: str | None = None) -> tuple[PairNetwork, dict[str, Any]]:
    """Return a trained network, ready to use, and its card.

    Parameters
    ----------
    path : path
    network : str, optional
        The network that it must be.

    Raises
    ------
    WeightsError
        As `unpacked`, and if the file is of another network, or its tensors are not those of the network.
    """
    import torch

    from stackalign.core.deep.networks import NETWORKS, build

    arrays, card = unpacked(path)
    name, options = card.get("network"), card.get("options", {})
    if not isinstance(name, str) or name not in NETWORKS or not isinstance(options, dict):
        raise WeightsError(f"{path} is of a network {str(name)[:40]!r} that this stackalign does not have")
    if network is not None and name != network:
        raise WeightsError(f"{path} holds weights of {name!r}, not of {network!r}")
    odd = next((key for key, value in options.items() if not _usual(key, value)), None)
    if odd is not None:
        raise WeightsError(f"{path}: no network has {odd} = {str(options[odd])[:40]}: fetch or train the weights again")
    try:
        with torch.device("meta"):  # shapes only: a hostile card must not fill the memory
            _check(build(name, options), arrays, str(path))
        model = build(name, options)
    except WeightsError:
        raise
    except Exception as error:  # the options are anybody's, and so is what goes wrong with them
        raise WeightsError(f"{path}: the options of its card make no network ({error})") from None
    put_into(model, arrays, str(path))
    return model.eval(), card


def arrays_of(model: PairNetwork) -> dict[str, NDArray[Any]]:
    """Return everything that a network has learnt as arrays by name."""
    return {key: value.detach().cpu().numpy() for key, value in model.state_dict().items()}


def put_into(model: PairNetwork, arrays: Mapping[str, NDArray[Any]], name: str = "the weights") -> None:
    """Give a network its weights.

    Raises
    ------
    WeightsError
        If names or shapes are not those of the network; the network is as it was.
    """
    import torch

    _check(model, arrays, name)
    model.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in arrays.items()})


def digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of names, shapes and numbers: what a model card states."""
    found = hashlib.sha256()
    for key in sorted(arrays):
        value = np.array(arrays[key], order="C")
        found.update(f"{key} {value.dtype.str} {value.shape}\n".encode())
        found.update(value.tobytes())
    return found.hexdigest()


def _check(model: PairNetwork, arrays: Mapping[str, NDArray[Any]], name: str) -> None:
    """Raise WeightsError if arrays are not those of a network: names, shapes, kinds of numbers."""
    wanted = {key: (tuple(value.shape), value.is_floating_point()) for key, value in model.state_dict().items()}
    missing, extra = sorted(wanted.keys() - arrays.keys()), sorted(arrays.keys() - wanted.keys())
    if missing or extra:
        odd = f"it lacks {missing[0]!r}" if missing else f"it holds {extra[0]!r}"
        raise WeightsError(f"{name} are of another version of the network ({odd}): train or fetch them again")
    for key, (shape, real) in wanted.items():
        if arrays[key].shape != shape:
            raise WeightsError(f"{name}: {key} has shape {arrays[key].shape}, the network needs {shape}")
        if (arrays[key].dtype.kind == "f") != real:
            raise WeightsError(f"{name}: {key} holds {arrays[key].dtype} numbers, the network needs others")


def _usual(key: str, value: Any) -> bool:
    """Whether an option of a card is a number, or a few, of a size that a network can have."""
    if isinstance(value, list):
        return len(value) <= 16 and all(not isinstance(v, list) and _usual(key, v) for v in value)
    return isinstance(value, int | float) and abs(value) <= _MOST.get(key, 4096)


def _header(data: bytes, place: Path) -> dict[str, Any]:
    """Return the JSON at the start of a safetensors file."""
    length = int.from_bytes(data[:8], "little") if len(data) >= 8 else -1
    if not 2 <= length <= 100 * 2**20:
        raise WeightsError(f"{place} is no safetensors file")
    if len(data) < 8 + length:
        raise WeightsError(f"{place} is truncated, or no safetensors file: fetch or train the weights again")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise WeightsError(f"{place} is no safetensors file, or its header is damaged")
    return header
